"""Slots, gaps and the calendar of what an ingest found, and the box to suggest."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficcast.config.city import City
from trafficcast.ingestion.quality_report import SlotSeries, _gaps, slot_report
from trafficcast.ingestion.record_store import SourceFacts
from trafficcast.quality.point_density import PointDensity, _suggested_box
from trafficcast.quality.slot_calendar import _calendar, _per_file, _per_slot

CITY = City(west=9.0, east=9.2, south=45.0, north=45.2, timezone="Europe/Rome", name="small")
MIDNIGHT = int(np.datetime64("2024-04-07T22:00", "m").astype(np.int64)) // 30  # slot of 8 April, local


def made(states: dict[int, str], city: City = CITY) -> SlotSeries:
    """Slots by number: o(bserved) or p(artial)."""
    number = np.array(sorted(states), np.int64)
    observed = np.array([states[n] == "o" for n in number.tolist()])
    n = len(number)
    return SlotSeries(
        number, np.arange(n), 2 * np.arange(n), np.full(n, 7), np.full(n, 3), np.where(observed, 1, 0.5), observed
    )


def row(letters: str, first: int = MIDNIGHT) -> SlotSeries:
    """Slots by a letter each: o, p, or - for missing."""
    return made({first + i: letter for i, letter in enumerate(letters) if letter != "-"})


def local_slot(city: City, time: str) -> int:
    return int(city.parse_time(time).astype(np.int64)) // city.slot_us


def test_gaps_have_their_times_and_what_they_are_made_of() -> None:
    assert _gaps(CITY, row("p-oop--oo-po")) == [
        {"start": "2024-04-08T00:00:00+02:00", "end": "2024-04-08T01:00:00+02:00", "partial": 1, "missing": 1},
        {"start": "2024-04-08T02:00:00+02:00", "end": "2024-04-08T03:30:00+02:00", "partial": 1, "missing": 2},
        {"start": "2024-04-08T04:30:00+02:00", "end": "2024-04-08T05:30:00+02:00", "partial": 1, "missing": 1},
    ]
    assert _gaps(CITY, row("ooo")) == []
    assert _gaps(CITY, row("o-p")) == [
        {"start": "2024-04-08T00:30:00+02:00", "end": "2024-04-08T01:30:00+02:00", "partial": 1, "missing": 1}
    ]
    assert _gaps(CITY, row("p")) == [
        {"start": "2024-04-08T00:00:00+02:00", "end": "2024-04-08T00:30:00+02:00", "partial": 1, "missing": 0}
    ]


def test_a_report_of_slots() -> None:
    report = slot_report(CITY, row("oo-po"))
    assert report["slots"] == {"observed": 3, "partial": 1, "missing": 1}
    assert (report["first_slot"], report["last_slot"]) == ("2024-04-08T00:00:00+02:00", "2024-04-08T02:00:00+02:00")
    assert (report["inflow"], report["outflow"]) == (0 + 1 + 2 + 3, 2 * (0 + 1 + 2 + 3))


def test_the_calendar_of_an_ordinary_day() -> None:
    (entry,) = _calendar(CITY, row("oo-po", MIDNIGHT + 3))
    assert entry == {"day": "2024-04-08", "days": 1, "slots": "..." + "OOMPO" + 40 * "."}


@pytest.mark.parametrize(("day", "length"), [("2024-03-31", 46), ("2024-10-27", 50)])
def test_days_with_a_clock_change_have_as_many_slots_as_they_last(day: str, length: int) -> None:
    first = local_slot(CITY, day) - 48
    (_, entry, _) = _calendar(CITY, row("o" * (48 + length + 48), first))
    assert entry == {"day": day, "days": 1, "slots": length * "O"}


def test_days_without_any_record_are_one_entry_however_many() -> None:
    city = CITY.model_copy(update={"slot_minutes": 1})
    stray, first = (local_slot(city, time) for time in ("2001-09-09T03:46", "2024-04-08"))
    slots = made({stray: "p", **{first + i: "o" for i in range(3 * 1440)}, first + 5 * 1440: "o"}, city)
    entries = _calendar(city, slots)
    assert [(entry["day"], entry["days"]) for entry in entries] == [
        ("2001-09-09", 1),
        ("2001-09-10", 8246),
        ("2024-04-08", 1),
        ("2024-04-09", 1),
        ("2024-04-10", 1),
        ("2024-04-11", 2),
        ("2024-04-13", 1),
    ]
    assert entries[1]["slots"] is None
    assert slot_report(city, slots)["slots"]["missing"] == first - stray - 1 + 2 * 1440
    assert len(_gaps(city, slots)) == 2


@given(
    st.sampled_from(["Europe/Rome", "America/St_Johns", "Asia/Kathmandu", "UTC"]),
    st.sampled_from(["2024-03-30T12:00", "2006-10-28T20:00", "2024-10-26T20:00", "2024-06-01T00:00"]),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from("op")), min_size=1, max_size=60),
)
@settings(derandomize=True, max_examples=80, deadline=None)
def test_the_calendar_and_the_gaps_hold_every_slot_once(zone: str, begin: str, states: list[tuple[int, str]]) -> None:
    city = CITY.model_copy(update={"timezone": zone})
    first = local_slot(city, begin)
    slots = made({first + n: state for n, state in states}, city)
    counts = slot_report(city, slots)["slots"]
    entries = _calendar(city, slots)
    for entry in entries:
        if entry["slots"] is not None:
            assert len(entry["slots"]) == len(city.slots_of_day(np.datetime64(entry["day"])))
    days = [np.datetime64(entry["day"]) + i for entry in entries for i in range(entry["days"])]
    assert (np.diff(days) == np.timedelta64(1, "D")).all()
    letters = "".join(entry["slots"] or "" for entry in entries)
    empty = sum(
        len(city.slots_of_day(np.datetime64(entry["day"]) + i))
        for entry in entries
        if entry["slots"] is None
        for i in range(entry["days"])
    )
    assert letters.count("O") == counts["observed"]
    assert letters.count("P") == counts["partial"]
    assert letters.count("M") + empty == counts["missing"]
    found = _gaps(city, slots)
    assert sum(gap["partial"] for gap in found) == counts["partial"]
    assert sum(gap["missing"] for gap in found) == counts["missing"]


def test_each_slot_with_what_is_known_of_it() -> None:
    slots = row("op")
    unknown = SlotSeries(**{**vars(slots), "vehicles": np.array([-1, -1])})
    assert _per_slot(CITY, unknown) == {
        "start": ["2024-04-08T00:00:00+02:00", "2024-04-08T00:30:00+02:00"],
        "inflow": [0, 1],
        "outflow": [0, 2],
        "records": [7, 7],
        "vehicles": [None, None],
        "coverage": [1.0, 0.5],
    }


def test_each_file_with_all_reasons() -> None:
    (entry,) = _per_file([SourceFacts("a.csv", "0" * 8, "csv", 9, {"duplicate": 2}, 3, ["no offset"])])
    assert entry["name"] == "a.csv" and entry["rows_read"] == 9 and entry["points_outside"] == 3
    assert entry["rows_dropped"]["duplicate"] == 2 and entry["rows_dropped"]["unparsable"] == 0
    assert entry["notes"] == ["no offset"]


def spread(lon: tuple[float, float], lat: tuple[float, float]) -> PointDensity:
    density = PointDensity()
    rng = np.random.default_rng(0)
    density.add(rng.uniform(*lon, 20_000), rng.uniform(*lat, 20_000))
    return density


def test_a_box_is_suggested_when_much_lies_outside_as_a_table_to_write() -> None:
    density = spread((9.001, 9.199), (45.001, 45.199))
    assert _suggested_box(CITY, density, 0.1) is None
    found = _suggested_box(CITY, density, 0.75)
    assert found is not None
    assert (found["west"], found["east"], found["south"], found["north"]) == (9.0, 9.2, 45.0, 45.2)
    assert found["share_held"] == 1
    table: dict[str, Any] = tomllib.loads(found["toml"])["cities"]["small"]
    suggested = City(**table)
    assert (suggested.east, suggested.rows, suggested.timezone) == (9.2, CITY.rows, "Europe/Rome")
    odd = CITY.model_copy(update={"name": 'Nový "Jičín"'})
    assert 'Nový "Jičín"' in tomllib.loads((_suggested_box(odd, density, 0.75) or {})["toml"])["cities"]


def test_no_point_makes_no_suggestion() -> None:
    assert _suggested_box(CITY, PointDensity(), 1.0) is None
