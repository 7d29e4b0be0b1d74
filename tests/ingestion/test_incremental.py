"""Any number of ingests, in any order, late or twice, gives what one gives, and what a plain count gives."""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cities import stores_in
from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.errors import InputError
from trafficcast.ingestion import spans
from trafficcast.ingestion.ingest import ingest
from trafficcast.ingestion.record_store import RecordStore, _as_flow
from trafficcast.stores.export import _every_slot
from trafficcast.stores.flows import late_flow

SECOND, MINUTE, HOUR = 10**6, 60 * 10**6, 3600 * 10**6
CELL = 1 / 128  # degrees; a power of two, so that every edge is exact in float64
CITY = City(
    west=10.0, east=10.0 + 4 * CELL, south=45.0, north=45.0 + 3 * CELL, rows=3, cols=4,
    timezone="America/Los_Angeles", name="small",
)  # fmt: skip
EVENING = int(np.datetime64("2008-06-04T22:30", "us").astype(np.int64))  # UTC
SLOW = settings(derandomize=True, max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Ping:
    """One report; `time` in microseconds since 1970."""

    vehicle: str
    time: int
    lon: float
    lat: float
    occupied: int = 0

    def line(self) -> str:
        moment = np.datetime64(self.time, "us")
        return f"{self.vehicle},{moment}Z,{self.lon!r},{self.lat!r},{self.occupied}\n"


@pytest.fixture(autouse=True, scope="module")
def _small_files() -> Iterator[None]:
    """Files of at most four records or one hour, so that they are split, and that vehicles go from one to another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_MOST_RECORDS", 4)
        yield


def at(row: float, col: float, minutes: float = 0, vehicle: str = "a", occupied: int = 0) -> Ping:
    """A report from a cell's centre, so many minutes after the evening began."""
    lon, lat = CITY.west + (col + 0.5) * CELL, CITY.north - (row + 0.5) * CELL
    return Ping(vehicle, EVENING + round(minutes * MINUTE), lon, lat, occupied)


def write(file: Path, pings: list[Ping]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("vehicle,time,lon,lat,occupied\n" + "".join(ping.line() for ping in pings))
    return file


def run(file: Path, data: Path, city: City = CITY) -> dict[str, Any]:
    return ingest(str(file), stores_in(data, city), "csv")


def flows_of(data: Path, city: City = CITY) -> xr.Dataset:
    flows = stores_in(data, city).flows.read()
    assert flows is not None
    return flows


def records_of(data: Path, city: City = CITY) -> list[tuple[Any, ...]]:
    store = RecordStore(data / city.name / "records")
    state = store.load()
    found = []
    for span in state.files:
        records = store.read(state, span)
        arrays = records.arrays()
        if "vehicle" in arrays:
            arrays["vehicle"] = np.array([state.vehicles.names[code] for code in arrays["vehicle"]])
        found += list(zip(*(array.tolist() for array in arrays.values()), strict=True))
    return sorted(found)


def without_sources(report: dict[str, Any]) -> dict[str, Any]:
    """A report but for what depends on how records were packed into files."""
    return {key: value for key, value in report.items() if key not in ("files", "rows_read", "rows_dropped")}


# A plain count


def cell_of(city: City, ping: Ping) -> tuple[int, int] | None:
    col = math.floor((ping.lon - city.west) / (city.east - city.west) * city.cols)
    row = math.floor((city.north - ping.lat) / (city.north - city.south) * city.rows)
    return (row, col) if 0 <= row < city.rows and 0 <= col < city.cols else None


def metres(a: Ping, b: Ping) -> float:
    lat1, lat2 = math.radians(a.lat), math.radians(b.lat)
    h = math.sin((lat1 - lat2) / 2) ** 2
    h += math.cos(lat1) * math.cos(lat2) * math.sin(math.radians(a.lon - b.lon) / 2) ** 2
    return 2 * 6371008.8 * math.asin(math.sqrt(h))


def assert_as_counted_by_hand(city: City, pings: list[Ping], data: Path, report: dict[str, Any]) -> None:
    kept: dict[tuple[str, int], Ping] = {}
    for ping in pings:
        key = ping.vehicle, ping.time
        if key not in kept or (ping.lon, ping.lat, ping.occupied) < (kept[key].lon, kept[key].lat, kept[key].occupied):
            kept[key] = ping
    slot_us = city.slot_us
    flow: Counter[tuple[Any, ...]] = Counter()
    vehicles, minutes = defaultdict(set), defaultdict(set)
    tracks = defaultdict(list)
    totals: Counter[str] = Counter(points=len(kept))
    for ping in sorted(kept.values(), key=lambda p: p.time):
        tracks[ping.vehicle].append(ping)
        vehicles[ping.time // slot_us].add(ping.vehicle)
        minutes[ping.time // slot_us].add(ping.time // MINUTE)
        totals["outside"] += cell_of(city, ping) is None
    for track in tracks.values():
        for p, q in pairwise(track):
            gap = q.time - p.time
            beyond = gap > city.max_gap_minutes * MINUTE
            totals["pairs"] += 1
            totals["beyond"] += beyond
            left, entered = cell_of(city, p), cell_of(city, q)
            differs = p.occupied != q.occupied if city.feed.trips else left != entered
            if not differs:
                continue
            if beyond:
                totals["gap"] += 1
            elif metres(p, q) / gap * 3.6e6 > city.max_speed_kmh:
                totals["speed"] += 1
            else:
                totals["transitions"] += 1
                events = [("out", p.time, left), ("in", q.time, entered)]
                if city.feed.trips:
                    events = [("out", q.time, entered)] if q.occupied else [("in", p.time, left)]
                for kind, time, cell in events:
                    if cell:
                        flow[kind, time // slot_us, *cell] += 1
    found = _every_slot(city, flows_of(data, city))
    numbers = found["time"].values.astype(np.int64) // slot_us
    assert numbers.tolist() == list(range(min(vehicles), max(vehicles) + 1))
    assert found["vehicles"].values.tolist() == [len(vehicles[slot]) for slot in numbers]
    shares = [np.float32(len(minutes[slot]) / city.slot_minutes) for slot in numbers]
    assert found["coverage"].values.tolist() == shares
    values = found["flow"].values
    counted = {
        (("in", "out")[kind], int(numbers[slot]), int(row), int(col)): int(values[slot, kind, row, col])
        for slot, kind, row, col in np.argwhere(values)
    }
    assert counted == dict(flow)
    assert (report["points_kept"], report["points_outside"]) == (totals["points"], totals["outside"])
    assert (report["pairs"], report["pairs_beyond_max_gap"]) == (totals["pairs"], totals["beyond"])
    assert report["transitions"] == totals["transitions"]
    assert report["transitions_refused"] == {"gap": totals["gap"], "speed": totals["speed"]}
    assert report["vehicles"] == len(tracks)
    assert len(records_of(data, city)) == len(kept)


# Half minutes over five hours, so that hours, midnight UTC and slots are crossed; half cells, so that points lie on
# edges.
PINGS = st.builds(
    Ping,
    vehicle=st.sampled_from(["a", "b", "é,\"1\""]).map(lambda name: name if name.isalpha() else "odd"),
    time=st.builds(
        lambda half_minutes, fraction: EVENING + half_minutes * MINUTE // 2 + fraction,
        st.one_of(st.integers(0, 600), st.integers(170, 200), st.integers(6000, 6010)),
        st.sampled_from([0, 0, 0, 1, 499_999]),
    ),
    lon=st.integers(-2, 10).map(lambda k: CITY.west + k * CELL / 2),
    lat=st.integers(-2, 8).map(lambda k: CITY.north - k * CELL / 2),
    occupied=st.integers(0, 1),
)  # fmt: skip
CITIES = st.builds(
    lambda minutes, gap, speed, trips: CITY.model_copy(
        update={"slot_minutes": minutes, "max_gap_minutes": gap, "max_speed_kmh": speed, "feed": Feed(trips=trips)}
    ),
    st.sampled_from([5, 30, 45, 60, 1440]),
    st.sampled_from([2.0, 10.0, 150.0, 6000.0]),
    st.sampled_from([20.0, 150.0]),
    st.sampled_from([False, False, True]),
)


@pytest.mark.slow
@SLOW
@given(
    CITIES,
    st.lists(st.tuples(PINGS, st.integers(0, 3)), min_size=4, max_size=120),
    st.permutations([0, 1, 2, 3]),
    st.booleans(),
)
def test_any_batches_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    city: City,
    pings: list[tuple[Ping, int]],
    order: list[int],
    again: bool,
) -> None:
    root = tmp_path_factory.mktemp("batches")
    everything = [ping for ping, _ in pings]
    whole = run(write(root / "all.csv", everything), root / "whole", city)
    assert_as_counted_by_hand(city, everything, root / "whole", whole)
    report = whole
    for batch in order:
        part = [ping for ping, number in pings if number == batch]
        if again and batch == order[-1]:
            part = everything[::-1]
        if part:
            report = run(write(root / f"{batch}.csv", part), root / "parts", city)
    assert without_sources(report) == without_sources(whole)
    assert flows_of(root / "parts", city).identical(flows_of(root / "whole", city))
    assert records_of(root / "parts", city) == records_of(root / "whole", city)


@pytest.mark.slow
@SLOW
@given(st.lists(PINGS, min_size=2, max_size=40), st.integers(1, 4))
def test_one_point_at_a_time(tmp_path_factory: pytest.TempPathFactory, pings: list[Ping], step: int) -> None:
    root = tmp_path_factory.mktemp("single")
    for start in range(0, min(len(pings), 10 * step), step):
        report = run(write(root / f"{start}.csv", pings[start : start + step]), root / "data")
    assert_as_counted_by_hand(CITY, pings[: 10 * step], root / "data", report)


# What a late point touches


def files(data: Path) -> dict[str, tuple[int, int]]:
    paths = [*(data / "small").rglob("*.parquet"), *(data / "small").rglob("*.nc")]
    return {str(path.relative_to(data / "small")): (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}


def test_a_late_point_undoes_the_transition_across_hours_and_days(tmp_path: Path) -> None:
    data = tmp_path / "data"
    far = CITY.model_copy(update={"max_gap_minutes": 300.0})
    run(write(tmp_path / "1.csv", [at(0, 0, 0), at(0, 3, 200)]), data, far)  # across midnight UTC
    assert flows_of(data)["flow"].values.sum() == 2
    report = run(write(tmp_path / "2.csv", [at(0, 0, 80)]), data, far)
    assert report["transitions"] == 1
    moved = _every_slot(far, flows_of(data))["flow"].values
    assert moved[80 // 30, 1, 0, 0] == 1 and moved[0].sum() == 0  # it leaves from the late point's slot now


def test_a_late_point_rewrites_its_hour_and_the_days_it_changes_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    run(write(tmp_path / "1.csv", [at(0, i % 4, 20 * i) for i in range(300)]), data)
    before = files(data)
    report = run(write(tmp_path / "2.csv", [at(2, 2, 3001)]), data)  # more than a day in
    after = files(data)
    hour = np.datetime64(EVENING + 3001 * MINUTE, "us").astype("datetime64[h]")
    same = {name for name in before if after.get(name) == before[name]}
    changed = {name for name in before if name not in same}
    day = str(CITY.local_days(np.array([hour.astype("datetime64[us]")]))[0])
    assert changed == {f"records/{str(hour)[:10]}/{str(hour)[11:]}.1.parquet", f"flows/{day}.nc"}
    assert f"records/{str(hour)[:10]}/{str(hour)[11:]}.2.parquet" in after
    assert report["points_kept"] == 301


def test_repeats_only_touch_no_flow(tmp_path: Path) -> None:
    data = tmp_path / "data"
    pings = [at(0, i % 4, 2 * i) for i in range(100)]
    run(write(tmp_path / "1.csv", pings), data)
    before, flows = files(data), flows_of(data)
    report = run(write(tmp_path / "2.csv", pings[30:60]), data)
    assert report["rows_dropped"]["duplicate"] == 30
    assert {file: files(data)[file] for file in before if file.endswith(".nc")} == {
        file: facts for file, facts in before.items() if file.endswith(".nc")
    }
    assert flows_of(data).identical(flows)
    again = files(data)
    run(write(tmp_path / "1.csv", pings), data)
    assert files(data) == again


def test_repeats_are_counted_for_the_file_that_came_later(tmp_path: Path) -> None:
    pings = [at(0, i % 4, 2 * i) for i in range(10)]
    write(tmp_path / "in" / "1.csv", pings + pings[:1])
    write(tmp_path / "in" / "2.csv", pings[:3])
    run(tmp_path / "in", tmp_path / "data")
    sources = RecordStore(tmp_path / "data" / "small" / "records").sources()
    assert {source.name: source.dropped.get("duplicate", 0) for source in sources} == {"1.csv": 1, "2.csv": 3}


# Rules that change


@pytest.mark.parametrize(
    "change",
    [
        {"max_speed_kmh": 20.0},
        {"max_gap_minutes": 2.0},
        {"max_gap_minutes": 500.0},
        {"feed": Feed(trips=True)},
        {"min_coverage": 0.01},
    ],
)
def test_changed_rules_count_everything_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    draw = np.random.default_rng(5)
    pings = [
        at(draw.uniform(-1, 4), draw.uniform(-1, 5), draw.integers(0, 3000), v, int(draw.integers(0, 2)))
        for v in "abc"
        for _ in range(200)
    ]
    late = [at(1, 1, 1234.5)]
    run(write(tmp_path / "1.csv", pings), tmp_path / "data")
    city = CITY.model_copy(update=change)
    report = run(write(tmp_path / "2.csv", late), tmp_path / "data", city)
    fresh = run(write(tmp_path / "all.csv", pings + late), tmp_path / "fresh", city)
    assert without_sources(report) == without_sources(fresh)
    assert flows_of(tmp_path / "data", city).identical(flows_of(tmp_path / "fresh", city))
    assert_as_counted_by_hand(city, pings + late, tmp_path / "data", report)


def as_an_earlier_version_left_it(data: Path) -> None:
    """Take late flow out of a record store and its flow files, and the rule by which it is counted."""
    for file in (data / "small" / "flows").glob("*.nc"):
        day = xr.load_dataset(file, engine="h5netcdf").drop_dims("age")
        day.to_netcdf(file, engine="h5netcdf")
    with RecordStore(data / "small" / "records")._database() as database:
        rules = json.loads(database.execute("SELECT value FROM facts WHERE name = 'rules'").fetchone()[0])
        del rules["late_flow"]
        database.execute("UPDATE facts SET value = ? WHERE name = 'rules'", (json.dumps(rules),))
        for slot, packed in database.execute("SELECT slot, flow FROM slots").fetchall():
            flow = zlib.compress(_as_flow(packed)[0].tobytes())
            database.execute("UPDATE slots SET flow = ? WHERE slot = ?", (flow, slot))


def test_a_store_of_an_earlier_version_gets_its_late_flow_by_the_next_ingest(tmp_path: Path) -> None:
    pings = [at(0, i % 4, 7 * i) for i in range(250)]
    file, data = write(tmp_path / "1.csv", pings), tmp_path / "data"
    before = run(file, data)
    whole = flows_of(data)
    as_an_earlier_version_left_it(data)
    assert late_flow(flows_of(data)) is None
    assert run(file, data) == before
    assert flows_of(data).identical(whole) and whole["late_flow"].values.any()


def test_of_records_that_are_gone_no_late_flow_is_counted_and_the_flows_stay(tmp_path: Path) -> None:
    pings = [at(0, i % 4, 60 * i + 55) for i in range(24 * 6)]
    file, data = write(tmp_path / "1.csv", pings), tmp_path / "data"
    before = run(file, data, RETAINING)
    whole = flows_of(data)
    as_an_earlier_version_left_it(data)
    assert run(file, data, RETAINING) == before
    found, kept = flows_of(data), RecordStore(data / "small" / "records").load().retained_from
    assert (found["flow"] == whole["flow"]).all()
    late = whole["late_flow"].values[whole["time"].values.astype(np.int64) >= kept]
    assert late.any() and (late_flow(found)[-len(late) :] == late).all()  # type: ignore[index]
    assert not late_flow(found)[: -len(late)].any()  # type: ignore[index]


def test_the_same_command_after_a_change_of_rules_counts_anew_too(tmp_path: Path) -> None:
    file = write(tmp_path / "1.csv", [at(0, i % 4, 5 * i) for i in range(50)])
    run(file, tmp_path / "data")
    report = run(file, tmp_path / "data", CITY.model_copy(update={"max_gap_minutes": 2.0}))
    assert report["transitions"] == 0 and report["transitions_refused"]["gap"] == 49
    assert flows_of(tmp_path / "data")["flow"].values.sum() == 0


def test_another_grid_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "1.csv", [at(0, i % 4, 5 * i) for i in range(50)])
    run(file, tmp_path / "data")
    for change in ({"rows": 4}, {"slot_minutes": 15}, {"timezone": "Europe/Rome"}, {"west": 9.9}):
        with pytest.raises(InputError, match=f"counted with {next(iter(change))} = "):
            run(file, tmp_path / "data", CITY.model_copy(update=change))


# Retention


RETAINING = CITY.model_copy(update={"feed": Feed(retain_days=2), "max_gap_minutes": 3000.0})
KEEPING = CITY.model_copy(update={"max_gap_minutes": 3000.0})


def test_pruned_hours_vanish_and_their_flows_stay(tmp_path: Path) -> None:
    pings = [at(0, i % 4, 60 * i) for i in range(24 * 6)]
    report = run(write(tmp_path / "1.csv", pings), tmp_path / "data", RETAINING)
    run(write(tmp_path / "1.csv", pings), tmp_path / "all", KEEPING)
    assert flows_of(tmp_path / "data").identical(flows_of(tmp_path / "all"))
    assert sum(n for _, n in RecordStore(tmp_path / "data" / CITY.name / "records").load().files.values()) == 48
    assert report["transitions"] == 143
    late = [at(1, 1, 60 * i + 7) for i in range(24)]
    report = run(write(tmp_path / "late.csv", late), tmp_path / "data", RETAINING)
    assert report["rows_dropped"]["too_late"] == 24
    assert flows_of(tmp_path / "data").identical(flows_of(tmp_path / "all"))


@pytest.mark.slow
@SLOW
@given(st.data())
def test_late_but_retained_records_count_as_if_nothing_had_been_pruned(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("pruned")
    vehicles = st.sampled_from("abcd")
    early = [at(0, i % 3, 60 * i, data.draw(vehicles)) for i in range(0, 24 * 4, data.draw(st.integers(3, 9)))]
    newest = at(0, 0, 60 * 24 * 4, "z")
    late = [
        at(*data.draw(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(2950, 5700), vehicles)))
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    for name, city in (("pruned", RETAINING), ("kept", KEEPING)):
        run(write(root / "1.csv", [*early, newest]), root / name, city)
        report = run(write(root / "2.csv", late), root / name, city)
        assert report["rows_dropped"]["too_late"] == 0
        (root / name / "report.json").write_text(json.dumps(without_sources(report)))
    assert flows_of(root / "pruned").identical(flows_of(root / "kept"))
    assert (root / "pruned" / "report.json").read_text() == (root / "kept" / "report.json").read_text()


def test_changed_rules_cannot_be_applied_to_what_is_gone(tmp_path: Path) -> None:
    file = write(tmp_path / "1.csv", [at(0, i % 4, 60 * i) for i in range(24 * 6)])
    run(file, tmp_path / "data", RETAINING)
    with pytest.raises(InputError, match="no longer kept"):
        run(file, tmp_path / "data", RETAINING.model_copy(update={"max_speed_kmh": 50.0}))


# Stray times and other kinds of records


def test_a_stray_record_of_long_ago_costs_nothing(tmp_path: Path) -> None:
    stray = Ping("a", int(np.datetime64("2001-01-01T12:00", "us").astype(np.int64)), 10.01, 45.01)
    run(write(tmp_path / "1.csv", [stray]), tmp_path / "data")
    report = run(write(tmp_path / "2.csv", [at(0, i % 4, i) for i in range(200)]), tmp_path / "data")
    assert len(list((tmp_path / "data").rglob("*.nc"))) == 2
    assert report["slots"]["missing"] > 100_000 and len(report["gaps"]) <= 3
    assert report["first_slot"].startswith("2001-01-01")


ROWS, COLS = st.integers(-1, 3), st.integers(-1, 4)
TRIPS = st.tuples(st.integers(0, 300), COLS, ROWS, st.integers(-30, 1440), COLS, ROWS)


@pytest.mark.slow
@SLOW
@given(st.lists(st.tuples(TRIPS, st.integers(0, 2)), min_size=2, max_size=40), st.permutations([0, 1, 2]))
def test_trips_in_any_batches(
    tmp_path_factory: pytest.TempPathFactory, trips: list[tuple[tuple[int, ...], int]], order: list[int]
) -> None:
    root = tmp_path_factory.mktemp("trips")
    batch_of = dict(trips)  # equal trips come in one file; across files they would count once
    trips = [(trip, batch_of[trip]) for trip, _ in trips]

    def lines(chosen: list[tuple[int, ...]]) -> str:
        header = "pickup_time,pickup_lon,pickup_lat,dropoff_time,dropoff_lon,dropoff_lat\n"
        rows = []
        for start, col, row, minutes, to_col, to_row in chosen:
            for moment, place in ((start, at(row, col)), (start + minutes, at(to_row, to_col))):
                time = np.datetime64(EVENING + moment * MINUTE, "us")
                rows.append(f"{time}Z,{place.lon!r},{place.lat!r}")
        lines = (f"{pickup},{dropoff}\n" for pickup, dropoff in zip(rows[::2], rows[1::2], strict=True))
        return header + "".join(lines)

    (root / "all.csv").write_text(lines([trip for trip, _ in trips]))
    whole = run(root / "all.csv", root / "whole")
    report = whole
    for batch in order:
        part = [trip for trip, number in trips if number == batch]
        if part:
            (root / f"{batch}.csv").write_text(lines(part))
            report = run(root / f"{batch}.csv", root / "parts")
    assert without_sources(report) == without_sources(whole)
    assert flows_of(root / "parts").identical(flows_of(root / "whole"))
    expected: Counter[tuple[Any, ...]] = Counter()
    for (start, col, row, minutes, to_col, to_row), _ in trips:
        if 0 <= row < 3 and 0 <= col < 4:
            expected[1, (EVENING + start * MINUTE) // CITY.slot_us, row, col] += 1
        if 0 <= to_row < 3 and 0 <= to_col < 4:
            expected[0, (EVENING + (start + minutes) * MINUTE) // CITY.slot_us, to_row, to_col] += 1
    flows = flows_of(root / "whole")
    numbers = flows["time"].values.astype(np.int64) // CITY.slot_us
    values = flows["flow"].values
    assert {
        (int(kind), int(numbers[slot]), int(row), int(col)): int(values[slot, kind, row, col])
        for slot, kind, row, col in np.argwhere(values)
    } == dict(expected)
    seen = flows["vehicles"].values[flows["coverage"].values > 0]
    assert (seen == -1).all()  # nobody knows which vehicles made them


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    run(write(tmp_path / "1.csv", [at(0, 0), at(0, 1, 5)]), tmp_path / "data")
    (tmp_path / "trips.csv").write_text(
        "pickup_time,pickup_lon,pickup_lat,dropoff_time,dropoff_lon,dropoff_lat\n"
        "2008-06-04T22:30:00Z,10.01,45.01,2008-06-04T22:40:00Z,10.02,45.01\n"
    )
    before = files(tmp_path / "data")
    with pytest.raises(InputError, match="holds trips, 'small' holds points"):
        run(tmp_path / "trips.csv", tmp_path / "data")
    assert files(tmp_path / "data") == before


def test_zone_trips_follow_their_zones(tmp_path: Path) -> None:
    """Three zones side by side over the box; then the middle one is moved to the west one's place."""
    shapes = [(10.0 + k * CELL, 10.0 + (k + 1) * CELL) for k in range(3)]

    def zones(name: str, places: list[int]) -> City:
        features = [
            {
                "type": "Feature",
                "properties": {"LocationID": number + 1},
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[[w, 45.0], [e, 45.0], [e, 45.0 + 3 * CELL], [w, 45.0 + 3 * CELL], [w, 45.0]]],
                },
            }
            for number, place in enumerate(places)
            for w, e in [shapes[place]]
        ]
        (tmp_path / name).write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return CITY.model_copy(update={"feed": Feed(zones=tmp_path / name)})

    header = "pickup_time,pickup_zone,dropoff_time,dropoff_zone\n"
    row = "2008-06-04T22:{:02d}:00Z,2,2008-06-04T23:{:02d}:00Z,{}\n"
    (tmp_path / "1.csv").write_text(header + "".join(row.format(m, m, 3) for m in range(9)))
    (tmp_path / "2.csv").write_text(header + "".join(row.format(m, m, 264) for m in range(9, 12)))
    city = zones("zones.geojson", [0, 1, 2])
    run(tmp_path / "1.csv", tmp_path / "data", city)
    run(tmp_path / "2.csv", tmp_path / "data", city)
    flow = flows_of(tmp_path / "data")["flow"].values.sum(axis=0)
    assert flow[1].tolist() == [[0, 4, 0, 0]] * 3  # twelve pick-ups in three cells of one area
    assert flow[0].tolist() == [[0, 0, 3, 0]] * 3  # nine drop-offs; those in an unknown zone count nowhere
    moved = zones("moved.geojson", [0, 0, 2])
    run(tmp_path / "2.csv", tmp_path / "data", moved)
    assert flows_of(tmp_path / "data")["flow"].values.sum(axis=0)[1].tolist() == [[4, 0, 0, 0]] * 3
    with pytest.raises(InputError, match="name the file of their polygons"):
        run(tmp_path / "2.csv", tmp_path / "data", CITY)
    points = write(tmp_path / "points.csv", [at(0, 0), at(0, 1, 5)])
    with pytest.raises(InputError, match="holds points, 'small' holds zone-trips"):
        run(points, tmp_path / "data", city)
    run(points, tmp_path / "points", city)  # a city with zones may hold points as well
    assert flows_of(tmp_path / "points")["flow"].values.sum() == 2
