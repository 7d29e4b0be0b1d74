"""The page of a quality report: all in one file, nothing from data as HTML, bounded."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trafficcast.config.city import City
from trafficcast.ingestion.counting import TOTALS
from trafficcast.ingestion.quality_report import SlotSeries, counters, slot_report
from trafficcast.quality.point_density import PointDensity, _add_to_raster, _suggested_box
from trafficcast.quality.quality_page import _page
from trafficcast.quality.slot_calendar import _calendar, _per_slot
from trafficcast.records.records import DROP_REASONS

CITY = City(west=9.0, east=9.2, south=45.0, north=45.2, timezone="Europe/Rome", name="small")
BLACK, ORANGE, BLUE = (0, 0, 0), (213, 94, 0), (86, 180, 233)
EVIL = "<script>alert('x')</script>"


def slots_of(letters: str, start: str, city: City = CITY) -> SlotSeries:
    first = int(city.parse_time(start).astype(np.int64)) // city.slot_us
    kept = [(first + i, letter) for i, letter in enumerate(letters) if letter != "-"]
    number, observed = np.array([n for n, _ in kept]), np.array([letter == "o" for _, letter in kept])
    n = len(kept)
    ones = np.ones(n, np.int64)
    return SlotSeries(number, 5 * ones, 6 * ones, 100 + np.arange(n), 9 * ones, np.where(observed, 1.0, 0.5), observed)


def report_of(slots: SlotSeries, city: City = CITY, kind: str = "points", **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = counters(np.arange(len(TOTALS)) + 1000, 9)
    found |= {"points_per_vehicle": {"least": 24, "median": 4000, "most": 43606}}
    found |= {"share_outside": 0.02, "suspects": [], "silence_ends": 0, "suggested_box": None}
    known = {"outside": np.arange(len(slots)).tolist()} if kind == "points" else {}
    period = {
        "everything": True,
        **slot_report(city, slots),
        **found,
        "calendar": _calendar(city, slots),
        "per_slot": _per_slot(city, slots) | known,
        **changes,
    }
    return {
        "city": city.name,
        "kind": kind,
        "timezone": city.timezone,
        "slot_minutes": city.slot_minutes,
        "records_kept_from": None,
        "period": period,
        "ever": {"files": 1, "rows_read": 5, "rows_dropped": dict.fromkeys(DROP_REASONS, 3)},
        "files": [file_of("a.csv", 5)],
    }


def file_of(name: str, rows: int, dropped: int = 0, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    drops = {**dict.fromkeys(DROP_REASONS, 0), "duplicate": dropped}
    return {
        "name": name,
        "format": "csv",
        "rows_read": rows,
        "rows_dropped": drops,
        "points_outside": 0,
        "notes": list(notes),
    }


def located() -> tuple[np.ndarray, PointDensity]:
    rng = np.random.default_rng(0)
    lon, lat = rng.normal(9.1, 0.05, 5000), rng.normal(45.1, 0.05, 5000)
    raster, density = np.zeros((1024, 1024), np.int64), PointDensity()
    _add_to_raster(raster, CITY, lon, lat)
    density.add(lon, lat)
    return raster, density


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, the text, and the rows of each table."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def picture(self, alt: str) -> Image.Image:
        (source,) = (a["src"] for tag, a in self.tags if tag == "img" and alt in (a["alt"] or ""))
        assert source is not None and source.startswith("data:image/png;base64,")
        return Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.tags if name == tag)


def pixels(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture.convert("RGB")) == colour).all(axis=2).sum())


def shown(report: dict[str, Any], city: City = CITY, located_points: bool = True) -> Page:
    return Page(_page(city, report, *(located() if located_points else (np.zeros((8, 8), np.int64), PointDensity()))))


def test_the_page_needs_nothing_but_itself() -> None:
    html = _page(CITY, report_of(slots_of("o" * 60 + "p--o", "2024-04-08")), *located())
    seen = Page(html)
    assert seen.count("img") == 4
    for tag, attributes in seen.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in html and "@import" not in html and "http://" not in html and "https://" not in html
    assert len(html) < 2_000_000


def test_nothing_from_data_becomes_html() -> None:
    suspect = {
        "vehicle": EVIL,
        "suspicion": "never moving",
        "points": 99,
        "first": "2024-04-08T00:00:00+02:00",
        "last": "2024-04-09T00:00:00+02:00",
        "evidence": {"moves": 0, "further_than_m": 100.0, "hours": 8},
    }
    report = report_of(slots_of("o" * 50, "2024-04-08"), suspects=[suspect])
    report["files"] = [file_of(EVIL, 5, 0, (f"{EVIL} & more",))]
    city = CITY.model_copy(update={"name": f"small{EVIL}"})
    seen = shown(report, city)
    assert seen.count("script") == 0
    assert seen.text.count(EVIL) >= 5  # title, heading, vehicle, file, note: as text


def test_the_numbers_are_there() -> None:
    evidence = {"hours": -8, "heard_in_silence": 17, "heard_once_corrected": 0, "ends_matched": 2, "ends": 4}
    moments = {"first": "2024-04-08T00:00:00+02:00", "last": "2024-04-09T00:00:00+02:00"}
    clock = {"vehicle": "taxi-7", "suspicion": "clock", "points": 4321, **moments, "evidence": evidence}
    ahead = {**clock, "suspicion": "clock ahead", "evidence": {"minutes": 1480}}
    report = report_of(
        slots_of("o" * 60 + "p--o", "2024-04-08"), suspects=[clock, ahead], silence_ends=4, points_kept=1234567
    )
    text = " ".join(shown(report).text.split())
    for wanted in (
        "1,234,567",
        "2.0 %",
        "taxi-7",
        "43,606",
        "8 h behind",
        "reported in 17 bins",
        "1,480 minutes ahead of this machine's clock",
        "4,321",
        "Europe/Rome",
    ):
        assert wanted in text
    assert "2024-04-09 06:00 +02:00 2024-04-09 07:30 +02:00 1 2" in text  # the gap
    assert "partial 1" in text and "missing 2" in text and "duplicate 3" in text


def test_the_calendar_shows_each_state_in_its_colour() -> None:
    whole = shown(report_of(slots_of("o" * 96, "2024-04-08"))).picture("Calendar")
    assert whole.width >= 1280
    assert pixels(whole, BLUE) > 100_000
    assert pixels(whole, ORANGE) == 0
    broken = shown(report_of(slots_of("o" * 24 + "p" * 12 + "-" * 12 + "o" * 48, "2024-04-08"))).picture("Calendar")
    # A day of two is an half of the picture: a quarter of it partial, a quarter missing.
    assert pixels(broken, ORANGE) == pytest.approx(pixels(whole, BLUE) / 8, rel=0.05)
    black = pixels(broken, BLACK) - pixels(whole, BLACK)
    assert black == pytest.approx(pixels(whole, BLUE) / 8, rel=0.05)


@pytest.mark.parametrize(("day", "slots"), [("2024-03-31", 46), ("2024-10-27", 50)])
def test_a_day_with_a_clock_change_is_drawn_and_said(day: str, slots: int) -> None:
    last = "p" * 2 if slots == 50 else ""
    # In autumn the two slots that come a second time, 02:00 and 02:30, are partial.
    letters = "o" * 6 + last + "o" * (slots - 6 - len(last)) if last else "o" * slots
    seen = shown(report_of(slots_of(letters, day)))
    assert f"The clocks change on {day}" in seen.text
    picture = seen.picture("Calendar")
    area = pixels(picture, BLUE) + pixels(picture, ORANGE)
    if slots == 50:
        assert pixels(picture, ORANGE) == pytest.approx(area * 2 * 0.5 / 48, rel=0.1)
    else:
        full = pixels(shown(report_of(slots_of("o" * 48, "2024-04-08"))).picture("Calendar"), BLUE)
        assert area == pytest.approx(full * 46 / 48, rel=0.02)


def test_a_stray_record_of_long_ago_does_not_blow_up_the_page() -> None:
    recent = slots_of("o" * 300, "2024-04-08")
    stray = slots_of("p", "2001-09-09T03:46")
    both = SlotSeries(**{name: np.concatenate([vars(stray)[name], array]) for name, array in vars(recent).items()})
    html = _page(CITY, report_of(both), *located())
    assert len(html) < 2_000_000
    assert "8,246 from 2001-09-10" in " ".join(Page(html).text.split())
    # A day of nothing but missing slots and one letter for years of them: most of the picture is still blue.
    picture = Page(html).picture("Calendar")
    assert pixels(picture, BLUE) > 100_000


def test_of_many_years_the_last_days_are_drawn() -> None:
    day = "o" * 48
    report = report_of(slots_of(day * 1000, "2021-04-08"))
    assert "270 earlier days are left out" in shown(report).text


def test_of_many_files_those_with_drops_and_the_largest_are_listed() -> None:
    report = report_of(slots_of("o" * 50, "2024-04-08"))
    report["files"] = [file_of(f"plain-{i}.csv", i) for i in range(500)]
    report["files"] += [file_of(f"dropped-{i}.csv", 1, dropped=i + 1) for i in range(80)]
    report["files"] += [file_of("noted.csv", 1, notes=("no offset",))]
    text = shown(report).text
    assert "plain-499.csv" in text and "plain-490.csv" in text and "plain-489.csv" not in text
    assert "dropped-79.csv" in text and "dropped-29.csv" not in text
    assert "60 of 581" in text
    report["files"] = report["files"][500:510] + report["files"][-1:]
    assert "noted.csv" in shown(report).text


def test_a_suggested_box_is_shown_as_a_table_to_copy() -> None:
    raster, density = located()
    box = _suggested_box(CITY, density, 0.4)
    report = report_of(slots_of("o" * 50, "2024-04-08"), suggested_box=box, share_outside=0.4)
    seen = Page(_page(CITY, report, raster, density))
    assert box is not None and box["toml"] in seen.text
    assert "40.0 %" in seen.text


@pytest.mark.parametrize("kind", ["trips", "zone-trips", "grids"])
def test_what_is_unknown_is_left_out(kind: str) -> None:
    slots = slots_of("o" * 50, "2024-04-08")
    unknown = SlotSeries(**{**vars(slots), "vehicles": np.full(50, -1)})
    if kind == "grids":
        unknown = SlotSeries(**{**vars(unknown), "records": np.full(50, -1)})
    report = report_of(unknown, kind=kind, vehicles=None, suspects=None, silence_ends=None)
    if kind == "grids":
        report |= {"ever": None, "files": []}
    seen = shown(report, located_points=kind == "trips")
    assert "Suspicious" not in seen.text
    assert ("imported as grids" in seen.text) == (kind == "grids")
    assert seen.count("img") == (4 if kind == "trips" else 2)


def test_records_that_all_lie_outside() -> None:
    density = PointDensity()
    density.add(np.full(40, 20.0), np.full(40, 50.0))
    report = report_of(slots_of("o" * 50, "2024-04-08"), share_outside=1.0)
    seen = Page(_page(CITY, report, np.zeros((1024, 1024), np.int64), density))
    assert "No record lies in the box" in seen.text
    assert seen.picture("in and around").width > 500
