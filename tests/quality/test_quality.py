"""The quality of a city's stores: points, trips, trips between zones, imported grids, and nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from shapely.geometry import box

from tests.cities import stores_in
from trafficcast.config.city import City
from trafficcast.config.settings import load_config
from trafficcast.errors import InputError
from trafficcast.files import json_text
from trafficcast.ingestion.ingest import ingest
from trafficcast.ingestion.record_store import RecordStore, State
from trafficcast.ingestion.spans import Span
from trafficcast.quality.quality import quality, summary
from trafficcast.records import readers
from trafficcast.records.readers import _Format
from trafficcast.records.records import HOUR_US, SECOND_US, Batch, Points, Records, Trips, ZoneTrips
from trafficcast.records.sources import Source
from trafficcast.stores.flows import flows_dataset, read_flows

CITY = City(west=9.0, east=9.2, south=45.0, north=45.2, rows=8, cols=8, timezone="Europe/Rome", name="small")
START = np.datetime64("2024-04-07T22:00", "us")  # local midnight
START_US = int(START.astype(np.int64))
REAL = Path(__file__).parents[3] / "shared" / "data" / "cabspotting"
Keep = Callable[..., dict[str, Any]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def keep(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Ingest records that were made here, as those of a file of their own; returns the ingest's report."""
    batches: dict[str, Batch] = {}

    def read(source: Source, city: City) -> Iterator[Batch]:
        yield batches[Path(source.path).name]

    monkeypatch.setitem(readers._FORMATS, "made", _Format(lambda source, head: True, read))

    def ingested(
        records: Records, names: list[str] | None = None, city: City = CITY, to: Path = data, **more: Any
    ) -> dict[str, Any]:
        file = tmp_path / f"records-{len(batches)}.made"
        file.write_text(file.name)
        batches[file.name] = Batch(records, len(records) + 1, names or [], more.pop("dropped", {"unparsable": 1}))
        return ingest(str(file), stores_in(to, city), "made", **more)

    return ingested


def wander(vehicles: int, hours: float, seed: int = 0, start: int = START_US, wide: float = 0.07) -> Points:
    """Taxis that report every minute or so around the middle of the box, some of it outside."""
    rng = np.random.default_rng(seed)
    n = int(hours * 60)
    time = start + (np.arange(n)[None] * 60 + rng.integers(0, 50, (vehicles, n))) * SECOND_US
    steps = rng.normal(0, 0.004, (2, vehicles, n)).cumsum(axis=2)
    lon, lat = 9.1 + wide * np.sin(steps[0] * 9), 45.1 + 0.12 * np.sin(steps[1] * 9)
    code = np.repeat(np.arange(vehicles, dtype=np.int32), n)
    return Points(code, time.ravel(), lon.ravel(), lat.ravel(), np.full(vehicles * n, -1, np.int8))


def names_of(vehicles: int) -> list[str]:
    return [f"taxi-{code}" for code in range(vehicles)]


def moment(hours: float) -> np.datetime64:
    return START + np.timedelta64(round(hours * 3600), "s")


def test_of_everything_the_counters_are_the_ingests(keep: Keep, data: Path) -> None:
    points = wander(6, 30)
    ingested = keep(points, names_of(6))
    report = quality(stores_in(data, CITY))
    assert report["ever"] == ingested == json.loads((data / "small" / "quality.json").read_text())
    period = report["period"]
    for key in set(ingested) - {"city", "kind", "files", "rows_read", "rows_dropped", "min_coverage"}:
        assert period[key] == ingested[key]
    assert period["everything"] and period["vehicles"] == 6 and period["points_kept"] == len(points)
    assert period["share_outside"] == pytest.approx(period["points_outside"] / len(points))
    assert 0 < sum(period["per_slot"]["outside"]) == period["points_outside"]
    assert sum(period["per_slot"]["records"]) == len(points)
    assert period["per_slot"]["vehicles"] == [6] * 60
    assert period["points_per_vehicle"] == {"least": 1800, "median": 1800, "most": 1800}
    assert [entry["slots"] for entry in period["calendar"]] == [48 * "O", 12 * "O" + 36 * "."]
    (file,) = report["files"]
    assert file["rows_read"] == len(points) + 1 and file["rows_dropped"]["unparsable"] == 1
    assert file["points_outside"] == period["points_outside"]
    json.loads(json_text(report))


@pytest.mark.parametrize(("start", "end"), [(2.5, 9.0), (None, 7.5), (11.0, None), (4.75, 5.1)])
def test_of_a_period_the_counters_are_those_of_its_records_alone(
    keep: Keep, data: Path, tmp_path: Path, start: float | None, end: float | None
) -> None:
    points = wander(5, 14, seed=1)
    keep(points, names_of(5))
    report = quality(
        stores_in(data, CITY),
        None if start is None else moment(start),
        None if end is None else moment(end),
    )
    # A slot that the period touches belongs to it.
    first = 0.0 if start is None else np.floor(start * 2) / 2
    last = 14.0 if end is None else np.ceil(end * 2) / 2
    alone = keep(points, names_of(5), to=tmp_path / "alone", start=moment(first), end=moment(last))
    period = report["period"]
    counted = ("points_kept", "points_outside", "vehicles", "pairs", "pairs_beyond_max_gap", "transitions")
    for key in (*counted, "transitions_refused", "first_slot", "last_slot", "slots", "gaps"):
        assert period[key] == alone[key], key
    assert not period["everything"]
    assert sum(period["per_slot"]["records"]) == alone["points_kept"]
    assert sum(period["per_slot"]["outside"]) == alone["points_outside"]
    assert report["ever"]["points_kept"] == len(points)


def test_a_period_without_a_slot(keep: Keep, data: Path) -> None:
    stores = stores_in(data, CITY)
    keep(wander(3, 5), names_of(3))
    with pytest.raises(InputError, match="2024-04-08T00:00:00.*2024-04-08T04:30:00"):
        quality(stores, moment(30))
    with pytest.raises(InputError, match="does not lie before"):
        quality(stores, moment(3), moment(3))


def test_nothing_says_what_to_do(data: Path) -> None:
    with pytest.raises(InputError, match="run trafficcast ingest"):
        quality(stores_in(data, CITY))
    assert not data.exists()


def test_nothing_is_changed_but_the_page(
    keep: Keep, data: Path, tmp_path: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    stores = stores_in(data, CITY)
    keep(wander(4, 6), names_of(4))
    before = snapshot(data)
    file = tmp_path / "pages" / "quality.html"
    quality(stores, html=file)
    assert snapshot(data) == before
    first = file.read_text(encoding="utf-8")
    assert first.startswith("<!DOCTYPE html>") and first.count("<img") == 4
    quality(stores, html=file)
    assert file.read_text(encoding="utf-8") == first
    with pytest.raises(InputError, match="is a folder"):
        quality(stores, html=tmp_path)


def test_suspects_and_box_come_from_the_records(keep: Keep, data: Path) -> None:
    stores = stores_in(data, CITY)
    points = wander(30, 30, seed=2, wide=0.3)
    still = points.vehicle == 7
    lon, lat = np.where(still, 9.15, points.lon), np.where(still, 45.15, points.lat)
    keep(Points(points.vehicle, points.time, lon, lat, points.occupied), names_of(30))
    period = quality(stores)["period"]
    assert {one["vehicle"] for one in period["suspects"] if one["suspicion"] == "never moving"} == {"taxi-7"}
    assert period["share_outside"] > 0.1
    found = period["suggested_box"]
    assert found["west"] < 9.0 and found["east"] > 9.2 and found["share_held"] > 0.95
    short = summary(quality(stores))
    assert any("taxi-7 (never moving)" in one for one in short["suspects"]) and short["suggested_box"] == found["toml"]


def test_a_clock_off_by_seven_hours_in_a_feed_that_failed(keep: Keep, data: Path) -> None:
    points = wander(40, 72, seed=3)
    hour = (points.time - START_US) / HOUR_US
    points = points.take(((hour < 30) | (hour >= 31)) & ((hour < 50.5) | (hour >= 52)))
    wrong = points.vehicle == 11
    time = np.where(wrong, points.time + 7 * HOUR_US, points.time)
    keep(Points(points.vehicle, time, points.lon, points.lat, points.occupied), names_of(40))
    suspects = quality(stores_in(data, CITY))["period"]["suspects"]
    assert [(one["vehicle"], one["evidence"]["hours"]) for one in suspects if one["suspicion"] == "clock"] == [
        ("taxi-11", 7)
    ]


def test_a_stray_record_of_2001_does_not_blow_anything_up(keep: Keep, data: Path, tmp_path: Path) -> None:
    keep(wander(25, 30), names_of(25))
    stray = wander(1, 1 / 60, start=int(np.datetime64("2001-09-09T01:46", "us").astype(np.int64)))
    keep(stray, ["taxi-3"])
    report = quality(stores_in(data, CITY), html=tmp_path / "page.html")
    assert len(report["period"]["calendar"]) == 4
    assert report["period"]["slots"]["missing"] > 300_000
    assert len(report["period"]["gaps"]) == 1
    assert len(json_text(report)) < 100_000
    assert (tmp_path / "page.html").stat().st_size < 2_000_000


def test_trips(keep: Keep, data: Path, tmp_path: Path) -> None:
    stores = stores_in(data, CITY)
    rng = np.random.default_rng(4)
    n = 3000
    time = START_US + np.sort(rng.integers(0, 20 * 3600, n)) * SECOND_US
    places = rng.uniform((9.0, 45.0), (9.25, 45.2), (2, n, 2))
    trips = Trips(time, *places[0].T, time + rng.integers(60, 3600, n) * SECOND_US, *places[1].T, 0 * time)
    ingested = keep(trips)
    report = quality(stores, html=tmp_path / "page.html")
    period = report["period"]
    assert report["kind"] == "trips"
    assert period["vehicles"] is None and period["suspects"] is None
    assert period["points_kept"] == ingested["points_kept"] == 2 * n
    assert set(period["per_slot"]["vehicles"]) == {None}
    assert sum(period["per_slot"]["outside"]) == period["points_outside"] == ingested["points_outside"]
    assert period["suggested_box"]["east"] == pytest.approx(9.25, abs=0.011)
    part = quality(stores, moment(5), moment(10))["period"]
    picked_up = (time >= START_US + 5 * HOUR_US) & (time < START_US + 10 * HOUR_US)
    assert part["points_kept"] == 2 * picked_up.sum()
    assert "Suspicious" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_trips_between_zones(keep: Keep, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "zones.geojson"
    halves = [box(9.0, 45.0, 9.1, 45.2), box(9.1, 45.0, 9.2, 45.2)]
    geopandas.GeoDataFrame({"LocationID": [4, 9]}, geometry=halves, crs="EPSG:4326").to_file(file)
    city = CITY.model_copy(update={"feed": CITY.feed.model_copy(update={"zones": file})})
    stores = stores_in(data, city)
    n = 600
    time = START_US + np.arange(n) * 60 * SECOND_US
    zone = np.where(np.arange(n) % 10 == 0, 77, 4)  # one in ten of no known zone
    ingested = keep(ZoneTrips(time, zone, time + 30 * 60 * SECOND_US, np.full(n, 9), 0 * time), city=city)
    report = quality(stores, html=tmp_path / "page.html")
    assert report["kind"] == "zone-trips"
    assert report["period"]["points_outside"] == ingested["points_outside"] == n // 10
    assert "outside" not in report["period"]["per_slot"]
    part = quality(stores, moment(1), moment(2))["period"]
    assert (part["points_kept"], part["points_outside"]) == (120, 6)
    assert "Where records lie" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_flows_of_the_report_are_those_of_the_store(keep: Keep, data: Path, tmp_path: Path) -> None:
    """Ten trips in each half hour from a zone in the box to one of which a third lies in it, and to one outside."""
    file = tmp_path / "zones.geojson"
    shapes = [box(9.0, 45.0, 9.1, 45.2), box(9.15, 45.0, 9.3, 45.2), box(9.4, 45.0, 9.5, 45.2)]
    geopandas.GeoDataFrame({"LocationID": [4, 9, 11]}, geometry=shapes, crs="EPSG:4326").to_file(file)
    city = CITY.model_copy(update={"feed": CITY.feed.model_copy(update={"zones": file})})
    stores = stores_in(data, city)
    n = 400
    time = START_US + np.arange(n) * 90 * SECOND_US
    trips = ZoneTrips(time, np.full(n, 4), time, np.where(np.arange(n) % 20 < 10, 9, 11), 0 * time)
    ingested = keep(trips, city=city)
    flows = read_flows(stores)["flow"].values.sum(axis=(0, 2, 3)).tolist()
    assert flows == [60, 400]  # of each ten three lie in the box
    for report in (ingested, quality(stores)["period"]):
        assert [report["inflow"], report["outflow"]] == flows
        assert report["points_outside"] == 2 * n - sum(flows)


def test_a_vehicle_whose_clock_is_ahead_is_named(keep: Keep, data: Path) -> None:
    now = int(time.time()) * SECOND_US
    times = np.concatenate([now - np.arange(60) * 60 * SECOND_US] * 3) + np.repeat([0, 0, 8 * HOUR_US], 60)
    places = np.full(180, 9.1), np.tile(np.linspace(45.05, 45.15, 60), 3)
    keep(
        Points(np.repeat(np.arange(3, dtype=np.int32), 60), times, *places, np.full(180, -1, np.int8)), ["a", "b", "c"]
    )
    [suspect] = quality(stores_in(data, CITY))["period"]["suspects"]
    assert (suspect["vehicle"], suspect["suspicion"]) == ("c", "clock ahead")
    assert 470 <= suspect["evidence"]["minutes"] <= 480


def test_imported_grids(data: Path, tmp_path: Path) -> None:
    stores = stores_in(data, CITY)
    time = np.arange(START, moment(60), CITY.slot)
    time = time[(time < moment(20)) | (time >= moment(23))]
    flow = np.ones((len(time), 2, 8, 8), np.int32)
    flow[:, 1] = 2
    stores.flows.write(flows_dataset(CITY, time, flow, np.full(len(time), -1), np.ones(len(time))))
    report = quality(stores, html=tmp_path / "page.html")
    period = report["period"]
    assert report["kind"] == "grids" and report["ever"] is None and report["files"] == []
    assert period["slots"] == {"observed": 114, "partial": 0, "missing": 6}
    assert [(gap["start"], gap["end"]) for gap in period["gaps"]] == [
        ("2024-04-08T20:00:00+02:00", "2024-04-08T23:00:00+02:00")
    ]
    assert (period["inflow"], period["outflow"]) == (114 * 64, 2 * 114 * 64)
    assert period["vehicles"] is None and period["points_kept"] is None
    assert [entry["slots"] for entry in period["calendar"]][0] == 40 * "O" + 6 * "M" + 2 * "O"
    part = quality(stores, moment(30.2), moment(31))["period"]
    assert (part["first_slot"], part["slots"]["observed"]) == ("2024-04-09T06:00:00+02:00", 2)
    with pytest.raises(InputError, match="no flows in that period"):
        quality(stores, moment(100))
    assert "imported as grids" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert summary(report)["slots"] == period["slots"]


@pytest.mark.slow
def test_many_imported_days_are_read_in_parts(data: Path) -> None:
    city = CITY.model_copy(update={"slot_minutes": 720, "rows": 1, "cols": 1})
    stores = stores_in(data, city)
    time = START + np.arange(140) * city.slot
    flow = np.arange(280, dtype=np.int32).reshape(140, 2, 1, 1)
    stores.flows.write(flows_dataset(city, time, flow, np.full(140, -1), np.ones(140)))
    period = quality(stores)["period"]
    assert period["slots"] == {"observed": 140, "partial": 0, "missing": 0}
    assert period["per_slot"]["inflow"] == list(range(0, 280, 2))
    part = quality(stores, time[20], time[130])["period"]
    assert part["per_slot"]["outflow"] == list(range(41, 261, 2))


def test_records_that_are_no_longer_kept(keep: Keep, data: Path, tmp_path: Path) -> None:
    city = CITY.model_copy(update={"feed": CITY.feed.model_copy(update={"retain_days": 1})})
    stores = stores_in(data, city)
    points = wander(4, 72, seed=5)
    keep(points, names_of(4), city=city)
    report = quality(stores)
    assert report["records_kept_from"] == "2024-04-10T00:00:00+02:00"
    period = report["period"]
    assert period["points_kept"] == len(points)  # counted when they came
    assert period["per_slot"]["outside"][:96] == [None] * 96 and None not in period["per_slot"]["outside"][96:]
    assert sum(period["per_slot"]["records"]) == len(points)
    # Of a period before, only what was counted when the records came is known.
    gone = quality(stores, moment(3), moment(6), html=tmp_path / "page.html")["period"]
    assert (gone["slots"]["observed"], gone["vehicles"], gone["suspects"]) == (6, 0, [])
    assert sum(gone["per_slot"]["records"]) == 4 * 180
    assert "no longer kept" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_an_ingest_that_replaces_what_is_read_does_no_harm(
    keep: Keep, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(wander(4, 6), names_of(4))
    read, interrupted = RecordStore.read, []

    def interrupting(self: RecordStore, state: State, span: Span) -> Records:
        if not interrupted:
            interrupted.append(True)
            keep(wander(9, 6, seed=6), names_of(9))
            self.clean(self.load())
        return read(self, state, span)

    monkeypatch.setattr(RecordStore, "read", interrupting)
    report = quality(stores_in(data, CITY))
    assert report["period"]["vehicles"] == 9
    assert report["period"]["points_kept"] == report["ever"]["points_kept"] > 9 * 360


def test_a_damaged_file_is_named(keep: Keep, data: Path) -> None:
    keep(wander(4, 6), names_of(4))
    file = min((data / "small" / "records").rglob("*.parquet"))
    file.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=re.escape(file.name)):
        quality(stores_in(data, CITY))


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the real Cabspotting records in {REAL}")
def test_the_real_records_of_san_francisco(tmp_path: Path) -> None:
    city = load_config(Path(__file__).parents[2] / "config.toml").city("san-francisco")
    stores = stores_in(tmp_path, city)
    ingest(str(REAL), stores, "cabspotting")
    report = quality(stores, html=tmp_path / "page.html")
    period = report["period"]
    assert [(one["suspicion"], one["points"]) for one in period["suspects"]] == [
        ("teleporting", 12747),
        ("teleporting", 31182),
        ("teleporting", 43606),
    ]
    assert period["silence_ends"] == 6  # two outages, the begin and the end
    assert period["slots"]["missing"] == 3 and len(period["gaps"]) == 2
    # The airport, at 37.61 to 37.63 N, lies south of the box.
    assert period["share_outside"] == pytest.approx(0.1117, abs=1e-3)
    assert period["suggested_box"]["south"] < 37.61
