"""Ingest from files to stores: worked cases, seams, repetition, failure and crash."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cities import stores_in
from trafficcast.config.city import City
from trafficcast.errors import InputError, JobError
from trafficcast.ingestion import threads
from trafficcast.ingestion.ingest import _ingest_sources, ingest
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.records.readers import find_records
from trafficcast.stores.day_store import DayStore

CELL = 1 / 128  # degrees; a power of two, so that every edge is exact in float64
CITY = City(
    west=10.0, east=10.0 + 4 * CELL, south=45.0, north=45.0 + 3 * CELL, rows=3, cols=4,
    timezone="America/Los_Angeles", name="small",
)  # fmt: skip
NOON = int(np.datetime64("2008-06-04T12:00", "s").astype(np.int64))
MIDNIGHT = NOON + 12 * 3600


def line(row: float, col: float, seconds: float, occupied: int = 0) -> str:
    """A Cabspotting row at a cell's centre."""
    return f"{CITY.north - (row + 0.5) * CELL!r} {CITY.west + (col + 0.5) * CELL!r} {occupied} {seconds}"


def write(folder: Path, cab: str, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"new_{cab}.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


def run(path: Path, data: Path, city: City = CITY, **period: np.datetime64) -> dict[str, Any]:
    return ingest(str(path), stores_in(data, city), "cabspotting", **period)


def flows_of(data: Path) -> xr.Dataset:
    flows = stores_in(data, CITY).flows.read()
    assert flows is not None
    return flows


def quality_of(data: Path) -> dict[str, Any]:
    return json.loads((data / "small" / "quality.json").read_text())


def moves(data: Path) -> dict[tuple[str, str, int, int], int]:
    """What was counted: {(kind, HH:MM of the slot in UTC, row, col): number}."""
    flows = flows_of(data)
    values = flows["flow"].values
    return {
        (("in", "out")[kind], str(flows["time"].values[slot].astype("datetime64[m]"))[11:], int(row), int(col)): int(
            values[slot, kind, row, col]
        )
        for slot, kind, row, col in np.argwhere(values)
    }


def state(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks, with its bytes."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def ages(folder: Path, pattern: str = "*") -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob(pattern) if file.name != ".lock"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records"


# Worked cases


def test_a_small_fleet_by_hand(records: Path, data: Path) -> None:
    write(
        records, "a",
        line(0, 0, NOON),
        line(0, 1, NOON + 60),  # a transition within the grid
        line(0, 1, NOON + 60),  # a repeat
        line(0, 9, NOON + 360),  # leaves the grid
        line(0, 9, NOON + 1860),  # stays away for longer than max_gap
        line(2, 3, NOON + 1861),  # comes back too fast
        "37.7 -122.4 0",  # no row
        f"0 0 0 {NOON}",  # no place
        f"45.01 10.01 0 {NOON * 1000}",  # milliseconds
    )  # fmt: skip
    write(records, "b", line(1, 1, NOON + 2400), line(1, 2, NOON + 3001))  # too far apart
    report = run(records, data)
    assert report == {
        "city": "small",
        "kind": "points",
        "min_coverage": 0.8,
        "files": 2,
        "rows_read": 11,
        "rows_dropped": {
            "unparsable": 1,
            "clock": 0,
            "coordinates": 1,
            "timestamp": 1,
            "too_long": 0,
            "too_late": 0,
            "duplicate": 1,
        },
        "points_kept": 7,
        "points_outside": 2,
        "vehicles": 2,
        "first_slot": "2008-06-04T05:00:00-07:00",
        "last_slot": "2008-06-04T05:30:00-07:00",
        "pairs": 5,
        "pairs_beyond_max_gap": 2,
        "transitions": 2,
        "transitions_refused": {"gap": 1, "speed": 1},
        "inflow": 1,
        "outflow": 2,
        "slots": {"observed": 2, "partial": 0, "missing": 0},
        "least_observed_hours": "",
        "gaps": [],
    }
    assert quality_of(data) == report
    assert moves(data) == {("out", "12:00", 0, 0): 1, ("in", "12:00", 0, 1): 1, ("out", "12:00", 0, 1): 1}
    assert flows_of(data)["vehicles"].values.tolist() == [1, 2]
    assert flows_of(data)["coverage"].values.tolist() == [np.float32(3 / 30), np.float32(3 / 30)]


def test_observed_partial_and_missing_slots_are_reported(records: Path, data: Path) -> None:
    write(
        records, "a",
        *(line(0, 0, NOON + 60 * minute) for minute in range(24)),
        *(line(0, 0, NOON + 1800 + 60 * minute) for minute in range(23)),
        line(0, 0, NOON + 3 * 1800),
    )  # fmt: skip
    report = run(records, data)
    assert report["slots"] == {"observed": 1, "partial": 2, "missing": 1}
    assert report["gaps"] == [
        {"start": "2008-06-04T05:30:00-07:00", "end": "2008-06-04T07:00:00-07:00", "partial": 2, "missing": 1}
    ]
    assert flows_of(data)["observed"].values.tolist() == [True, False, False, False]


def test_fractions_of_a_second_decide_slots_and_gaps(records: Path, data: Path) -> None:
    write(records, "a", line(0, 0, NOON - 0.5), line(0, 1, NOON + 599.5), line(0, 2, NOON + 1199.51))
    report = run(records, data)
    assert moves(data) == {("out", "11:30", 0, 0): 1, ("in", "12:00", 0, 1): 1}
    assert report["transitions_refused"]["gap"] == 1


def test_a_file_of_packed_records_counts_like_a_plain_one(records: Path, data: Path, tmp_path: Path) -> None:
    file = write(records, "a", line(0, 0, NOON), line(0, 1, NOON + 60))
    run(records, data)
    (tmp_path / "new_a.txt.gz").write_bytes(gzip.compress(file.read_bytes()))
    run(tmp_path / "new_a.txt.gz", tmp_path / "other")
    assert flows_of(data).identical(flows_of(tmp_path / "other"))


def test_only_the_period_asked_for_is_kept(records: Path, data: Path) -> None:
    write(records, "a", *(line(0, col, NOON + 60 * col) for col in range(4)))
    report = run(
        records, data, start=np.datetime64(NOON + 60, "s"), end=np.datetime64(NOON + 180, "s")
    )  # start is inclusive, end is not
    assert report["rows_dropped"]["timestamp"] == 2
    assert moves(data) == {("out", "12:00", 0, 1): 1, ("in", "12:00", 0, 2): 1}


def test_by_default_times_reach_from_2000_to_a_day_from_now(records: Path, data: Path) -> None:
    now = int(time.time())
    write(records, "a", line(0, 0, 946684799), line(0, 0, now - 60), line(0, 0, now + 86400 + 60))
    report = run(records, data)
    assert report["rows_dropped"]["timestamp"] == 2
    assert report["points_kept"] == 1


# One ingest after another


def test_a_second_ingest_adds(records: Path, data: Path, tmp_path: Path) -> None:
    write(records / "1", "a", line(0, 0, NOON), line(0, 1, NOON + 60))
    write(records / "2", "b", line(1, 0, NOON), line(1, 1, NOON + 60), line(1, 1, NOON + 7200))
    first, second = run(records / "1", data), run(records / "2", data)
    assert (first["transitions"], second["transitions"]) == (1, 2)
    assert (second["files"], second["vehicles"], second["rows_read"]) == (2, 2, 5)
    assert second == run(records, tmp_path / "at once")
    assert flows_of(data).identical(flows_of(tmp_path / "at once"))


def test_a_transition_across_the_seam_of_two_files(records: Path, data: Path) -> None:
    run(write(records / "1", "a", line(0, 0, NOON)), data)
    assert moves(data) == {}
    run(write(records / "2", "a", line(0, 1, NOON + 60)), data)
    assert moves(data) == {("out", "12:00", 0, 0): 1, ("in", "12:00", 0, 1): 1}


def test_a_transition_across_midnight_utc_whichever_side_comes_first(records: Path, data: Path, tmp_path: Path) -> None:
    early = write(records / "1", "a", line(0, 0, MIDNIGHT - 60))
    late = write(records / "2", "a", line(0, 1, MIDNIGHT + 60))
    for store, files in ((data, (early, late)), (tmp_path / "reversed", (late, early))):
        for file in files:
            run(file, store)
        assert moves(store) == {("out", "23:30", 0, 0): 1, ("in", "00:00", 0, 1): 1}
    assert flows_of(data).identical(flows_of(tmp_path / "reversed"))


def test_a_point_that_arrives_late_takes_a_transition_back(records: Path, data: Path) -> None:
    run(write(records / "1", "a", line(0, 0, NOON), line(0, 2, NOON + 300)), data)
    assert moves(data) == {("out", "12:00", 0, 0): 1, ("in", "12:00", 0, 2): 1}
    run(write(records / "2", "a", line(0, 2, NOON + 100)), data)
    assert moves(data) == {("out", "12:00", 0, 0): 1, ("in", "12:00", 0, 2): 1}
    run(write(records / "3", "a", line(9, 9, NOON + 99)), data)  # which no car can reach and leave again
    report = run(write(records / "4", "a", line(0, 0, NOON + 98)), data)
    assert report["transitions_refused"]["speed"] == 2
    assert moves(data) == {}


def test_the_same_bytes_again_change_nothing_in_whatever_folder(records: Path, data: Path) -> None:
    file = write(records / "1", "a", line(0, 0, NOON), line(0, 1, NOON + 60), line(0, 2, MIDNIGHT))
    first = run(records, data)
    before, day_files = state(data), ages(data, "*.nc") | ages(data, "*.parquet")
    assert len(day_files) == 2  # a day of flows, and the file of both hours
    again = write(records / "2", "a", *file.read_text().splitlines())
    assert run(records, data) == run(again, data) == run(file, data) == first
    assert state(data) == before
    assert ages(data, "*.nc") | ages(data, "*.parquet") == day_files


def test_the_same_bytes_again_touch_no_file(records: Path, data: Path) -> None:
    write(records, "a", line(0, 0, NOON), line(0, 1, NOON + 60))
    run(records, data)
    before = {name: age for name, age in ages(data).items() if Path(name).is_file()}
    run(records, data)
    assert {name: age for name, age in ages(data).items() if Path(name).is_file()} == before


def test_a_file_that_has_grown_adds_its_new_rows(records: Path, data: Path) -> None:
    rows = [line(0, 0, NOON), line(0, 1, NOON + 60)]
    run(write(records, "a", *rows), data)
    report = run(write(records, "a", *rows, line(0, 2, NOON + 120)), data)
    assert report["transitions"] == 2
    assert report["rows_dropped"]["duplicate"] == 2


PINGS = st.tuples(
    st.sampled_from(["a", "b"]),
    st.integers(0, 2),  # which batch
    st.integers(-40, 40),  # half minutes around midnight UTC
    st.sampled_from([0, 0, 0.25]),
    st.integers(-2, 10),  # half cells
    st.integers(-2, 8),
    st.integers(0, 1),
)


@pytest.mark.slow
@settings(derandomize=True, max_examples=8, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PINGS, min_size=5, max_size=60), st.permutations([0, 1, 2]))
def test_any_number_of_batches_in_any_order_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, pings: list[tuple[Any, ...]], order: list[int]
) -> None:
    root = tmp_path_factory.mktemp("batches")
    files: dict[tuple[int, str], list[str]] = {(batch, "a"): [line(0, 0, MIDNIGHT - 1)] for batch in range(3)}
    for cab, batch, half_minutes, fraction, x, y, occupied in pings:
        place = line((y - 1) / 2, (x - 1) / 2, MIDNIGHT + 30 * half_minutes + fraction, occupied)
        files.setdefault((batch, cab), []).append(place)
    for (batch, cab), lines in files.items():
        write(root / "records" / str(batch), cab, *lines, *["no row"] * batch)
    whole = run(root / "records", root / "whole")
    for batch in order:
        parts = run(root / "records" / str(batch), root / "parts")
    assert parts == whole
    assert quality_of(root / "parts") == quality_of(root / "whole")
    assert flows_of(root / "parts").identical(flows_of(root / "whole"))


def test_a_busy_fleet_in_one_batch_or_in_many(records: Path, data: Path, tmp_path: Path) -> None:
    draw = random.Random(3)
    for cab in "abcde":
        row, col, clock = 1.0, 1.5, MIDNIGHT - 7200
        rows = []
        for _ in range(200):
            clock += draw.choice([30, 60, 90])
            row, col = row + draw.gauss(0, 0.5), col + draw.gauss(0, 0.5)
            rows.append(line(row, col, clock))
        draw.shuffle(rows)
        for part in range(3):
            write(records / str(part), cab, *rows[part::3])
    whole = run(records, tmp_path / "whole")
    for part in (2, 0, 1):
        run(records / str(part), data)
    assert whole["transitions"] > 100
    assert quality_of(data) == whole
    assert flows_of(data).identical(flows_of(tmp_path / "whole"))


# Failure and crash


@pytest.fixture
def filled(records: Path, data: Path) -> Path:
    """A store that holds something already."""
    run(write(records / "first", "a", line(0, 0, NOON), line(0, 1, NOON + 60), line(0, 1, MIDNIGHT)), data)
    return data


def test_a_bad_file_among_good_ones_leaves_every_store_as_it_was(records: Path, filled: Path) -> None:
    before = state(filled)
    write(records / "next", "b", line(1, 1, NOON), line(1, 2, NOON + 60))
    (records / "next" / "new_z.txt.gz").write_bytes(gzip.compress(b"37.7 -122.4 0 1213084659\n" * 100)[:-12])
    write(records / "next", "zz", line(1, 1, NOON), line(1, 2, NOON + 60))
    with pytest.raises(JobError, match=r"new_z\.txt\.gz.* no file was ingested"):
        run(records / "next", filled)
    assert state(filled) == before


def test_a_file_of_another_format_among_good_ones_is_passed_over(
    records: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(records, "a", line(0, 0, NOON), line(0, 1, NOON + 60))
    (records / "trips.csv").write_text("taxi_id,time,lon,lat\n1,2008-02-02 15:36:08,116.5,39.9\n")
    with caplog.at_level("INFO", "trafficcast"):
        assert run(records, data)["files"] == 1
    assert "passed over" in caplog.text and "trips.csv" in caplog.text


def test_a_bad_file_in_the_first_ingest_leaves_nothing(records: Path, data: Path) -> None:
    write(records, "a", line(0, 0, NOON))
    (records / "new_b.txt.gz").write_bytes(gzip.compress(b"37.7 -122.4 0 1213084659\n" * 100)[:-12])
    with pytest.raises(JobError, match=r"new_b\.txt"):
        run(records, data)
    assert state(data) == {}


def test_a_link_to_nowhere_is_refused_by_name(records: Path, filled: Path) -> None:
    before = state(filled)
    write(records / "next", "b", line(1, 1, NOON))
    (records / "next" / "new_gone.txt").symlink_to(records / "nowhere.txt")
    with pytest.raises(InputError, match=r"new_gone\.txt"):
        run(records / "next", filled)
    assert state(filled) == before


def test_a_folder_named_like_a_file_is_a_folder(records: Path, data: Path) -> None:
    write(records / "new_folder.txt", "a", line(0, 0, NOON), line(0, 1, NOON + 60))
    assert run(records, data)["files"] == 1


def test_records_of_which_none_is_left_to_count_are_refused(records: Path, data: Path) -> None:
    write(records, "a", line(0, 0, 5), "0 0 0 1213084659")
    with pytest.raises(JobError, match="no record of .* is left to count.*coordinates 1, timestamp 1: line 2: lat '0'"):
        run(records, data)
    assert state(data) == {}


def test_a_grid_that_has_changed_leaves_every_store_as_it_was(records: Path, filled: Path) -> None:
    before = state(filled)
    write(records / "next", "b", line(1, 1, NOON), line(1, 2, NOON + 60))
    with pytest.raises(InputError, match="counted with rows = 3"):
        run(records / "next", filled, CITY.model_copy(update={"rows": 4}))
    assert state(filled) == before


def test_a_damaged_store_is_named_and_stays_as_it_was(records: Path, filled: Path) -> None:
    damaged = max((filled / "small" / "records").rglob("*.parquet"))
    damaged.write_bytes(b"PAR1")
    before = state(filled)
    write(records / "next", "b", line(1, 1, NOON), line(1, 2, MIDNIGHT + 60))
    with pytest.raises(InputError, match=re.escape(damaged.name)):
        run(records / "next", filled)
    assert state(filled) == before


def test_nothing_at_the_path_an_empty_folder_and_another_format(tmp_path: Path, data: Path) -> None:
    with pytest.raises(InputError, match="nothing at"):
        run(tmp_path / "gone", data)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing at|not cabspotting"):
        run(tmp_path / "empty", data)
    (tmp_path / "trips.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="a Cabspotting file is named"):
        run(tmp_path / "trips.csv", data)
    with pytest.raises(InputError, match="unknown format 'cabs'"):
        ingest(str(tmp_path), stores_in(data, CITY), "cabs")
    assert state(data) == {}


class Crash(Exception):
    """Where the power went."""


def crash(*_: object, **__: object) -> None:
    raise Crash


@pytest.mark.parametrize("before_crash", [0, 1])
def test_a_crash_between_records_and_flows_is_mended_by_the_same_command(
    records: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_crash: int
) -> None:
    if before_crash:
        run(write(records / "0", "a", line(0, 0, NOON)), data)
    write(records / "1", "a", line(0, 1, NOON + 60), line(0, 2, MIDNIGHT))
    with monkeypatch.context() as patch:
        patch.setattr(DayStore, "write", crash)
        with pytest.raises(Crash):
            run(records / "1", data)
    report = run(records / "1", data)
    assert report == quality_of(data) == run(records, tmp_path / "fresh")
    assert flows_of(data).identical(flows_of(tmp_path / "fresh"))
    assert report["transitions"] == before_crash


def test_a_crash_before_the_records_are_committed_leaves_the_old_state(
    records: Path, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordStore(filled / "small" / "records")
    hours, flows, quality = store.load().files, flows_of(filled), quality_of(filled)
    write(records / "next", "b", line(1, 1, NOON), line(1, 2, NOON + 60))
    with monkeypatch.context() as patch:
        patch.setattr(RecordStore, "commit", crash)
        with pytest.raises(Crash):
            run(records / "next", filled)
    assert store.load().files == hours
    assert flows_of(filled).identical(flows)
    assert quality_of(filled) == quality
    run(records / "next", filled)
    assert quality_of(filled) == run(records, tmp_path / "fresh")
    files = {str(file.relative_to(store.root)) for file in store.root.rglob("*") if file.is_file()}
    assert files == {"state.sqlite", *(file for file, _ in store.load().files.values())}


@dataclass
class Failing:
    """Fails at the call of that number, counting from 1."""

    write: Any
    at: int

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.at -= 1
        if self.at == 0:
            raise Crash
        return self.write(*arguments, **named)


@pytest.mark.parametrize("at", [1, 2])
def test_a_crash_between_two_days_of_flows_is_mended(
    records: Path, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    write(records / "next", "b", line(1, 1, NOON), line(1, 2, NOON + 60), line(1, 2, MIDNIGHT + 12 * 3600))
    with monkeypatch.context() as patch:
        failing = Failing(xr.Dataset.to_netcdf, at)
        patch.setattr(xr.Dataset, "to_netcdf", lambda *args, **named: failing(*args, **named))
        with pytest.raises(Crash):
            run(records / "next", filled)
    run(records / "next", filled)
    assert quality_of(filled) == run(records, tmp_path / "fresh")
    assert flows_of(filled).identical(flows_of(tmp_path / "fresh"))
    assert not [file for file in filled.rglob("*") if file.name.endswith(".tmp")]


def test_no_number_of_the_report_is_beyond_json(records: Path, data: Path) -> None:
    write(records, "a", line(0, 0, NOON))
    report = run(records, data)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert all(math.isfinite(value) for value in report.values() if isinstance(value, int | float))


# What a file may have at most


def test_a_file_with_too_many_records_of_an_hour_is_refused_alone(
    records: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_HOUR_RECORDS", 99)
    monkeypatch.setattr(threads, "_SMALL_SOURCE_RECORDS", 50)
    write(records, "many", *(line(0, 0, NOON + i) for i in range(100)))
    write(records, "long", *(line(0, 0, NOON + 3600 * i) for i in range(100)))
    with pytest.raises(JobError, match=r"new_many.txt has more than 99 records in the hour of 2008-06-04T12 h"):
        run(records, data)
    write(records, "many", *(line(0, 0, NOON + i) for i in range(99)))
    run(records, data)
    assert quality_of(data)["points_kept"] == 199


def test_a_file_of_too_many_vehicles_is_refused_and_leaves_none_of_them(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_NEW_VEHICLES", 9)
    row = f"{CITY.west + CELL},{CITY.south + CELL}\n"
    for name, cabs in (("a.csv", range(10)), ("b.csv", range(5)), ("c.csv", range(5, 14))):
        rows = "".join(f"cab {cab},{NOON + 60 * i + cab},{row}" for cab in cabs for i in range(3))
        (tmp_path / name).write_text(f"vehicle,time,lon,lat\n{rows}")
    stores = stores_in(data, CITY)
    with pytest.raises(InputError, match=r"a.csv names more than 9 vehicles"):
        ingest(str(tmp_path / "a.csv"), stores)
    bad: list[str] = []
    found, _ = find_records(str(tmp_path / "*.csv"), CITY)
    _ingest_sources(found, stores, on_bad=lambda source, why: bad.append(source.name))
    assert bad == ["a.csv"]
    assert sorted(RecordStore(stores.records).load().vehicles.names) == sorted(f"cab {cab}" for cab in range(14))
