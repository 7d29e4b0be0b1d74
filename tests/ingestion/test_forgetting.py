"""Files read otherwise, and files forgotten: the stores are those of the files that are left, read at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cities import stores_in
from tests.ingestion.test_incremental import CITY, EVENING, MINUTE, PINGS, Ping, at, records_of, run, write
from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.errors import InputError
from trafficcast.ingestion.forgetting import files_taken, forget
from trafficcast.ingestion.ingest import ingest
from trafficcast.ingestion.rebuild import rebuild_records
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.stores.sqlite import open_database

SLOW = settings(
    derandomize=True, max_examples=16, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
OTHERWISE = CITY.model_copy(update={"feed": Feed(timezone="Asia/Kolkata")})


def write_local(file: Path, pings: list[Ping]) -> Path:
    """Points with local times, so that the feed's zone decides when they were."""
    return write_text(file, write(file, pings).read_text().replace("Z,", ","))


def write_text(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def write_trips(file: Path, trips: list[tuple[int, int, int]]) -> Path:
    """Trips with local times rounded to minutes, from and to half cells."""
    rows = []
    for minute, start, end in trips:
        times = [np.datetime64(EVENING + (minute + more) * MINUTE, "us") for more in (0, 45)]
        places = [(CITY.west + cell * (CITY.east - CITY.west) / 4, CITY.north - 0.01) for cell in (start, end)]
        rows.append(f"{times[0]},{places[0][0]!r},{places[0][1]!r},{times[1]},{places[1][0]!r},{places[1][1]!r}\n")
    header = "pickup_time,pickup_lon,pickup_lat,dropoff_time,dropoff_lon,dropoff_lat\n"
    return write_text(file, header + "".join(rows))


def everything(data: Path) -> tuple[Any, ...]:
    """Flows, records, report, slots and vehicles of a store; of an empty one nothing."""
    stores = stores_in(data, CITY)
    store = RecordStore(stores.records)
    state, flows = store.load(), stores.flows.read()
    ends = sorted(
        (name, first, last)
        for name, first, last in zip(
            state.vehicles.names, state.vehicles.first_time.tolist(), state.vehicles.last_time.tolist(), strict=True
        )
        if first <= last
    )
    report = stores.folder / "quality.json"
    return (
        None if flows is None else flows.to_dict(),
        sorted(file.name for file in stores.folder.glob("flows/*.nc")),
        records_of(data) if state.files else [],
        json.loads(report.read_text()) if report.exists() else None,
        store.slot_facts().tolist() if store.exists() else [],
        ends,
        state.totals.tolist(),
    )


def assert_as_read_at_once(root: Path, data: Path, ways: dict[str, City]) -> None:
    """The store holds what these files give an empty store, each read by its way, in the order of their numbers."""
    sources = {source.name: source for source in RecordStore(data / "small" / "records").sources()}
    assert set(sources) == set(ways)
    for name in sorted(ways, key=lambda name: sources[name].number):
        run(root / name, root / "fresh", ways[name])
    assert everything(data) == everything(root / "fresh")


STEPS = st.lists(
    st.tuples(st.sampled_from(["ingest", "otherwise", "forget"]), st.sampled_from(["0.csv", "1.csv", "2.csv"])),
    min_size=2,
    max_size=7,
)


def walk(root: Path, steps: list[tuple[str, str]]) -> None:
    """Take steps one after the other, and compare after the last one."""
    data, ways = root / "data", dict[str, City]()
    for step, name in steps:
        if step == "forget":
            if name in ways:
                forget(stores_in(data, CITY), [name])
                del ways[name]
        else:
            ways[name] = CITY if step == "ingest" else OTHERWISE
            run(root / name, data, ways[name])
    assert_as_read_at_once(root, data, ways)


@pytest.mark.slow
@SLOW
@given(st.lists(st.tuples(PINGS, st.integers(0, 2)), min_size=6, max_size=60), STEPS)
def test_any_steps_with_points_leave_what_the_files_give(
    tmp_path_factory: pytest.TempPathFactory, pings: list[tuple[Ping, int]], steps: list[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("points")
    for number in range(3):
        # Every file has a point of its own, and one that all have.
        own = [ping for ping, owner in pings if owner == number or owner == 2]
        write_local(root / f"{number}.csv", [*own, at(0, 0, number), at(1, 1, 100)])
    walk(root, steps)


@pytest.mark.slow
@SLOW
@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), max_size=30),
    STEPS,
)
def test_any_steps_with_trips_leave_what_the_files_give(
    tmp_path_factory: pytest.TempPathFactory, trips: list[tuple[int, int, int, int]], steps: list[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("trips")
    for number in range(3):
        own = [trip for *trip, owner in trips if owner in (number, 2)]
        write_trips(root / f"{number}.csv", [*map(tuple, own), (0, 1, 2), (5, 1, 3), (5, 1, 3)])
    walk(root, steps)


@pytest.fixture
def two_files(tmp_path: Path) -> Path:
    """Two files that have half of their points in common, ingested one after the other."""
    pings = [at(0, i % 4, 5 * i, vehicle) for i in range(30) for vehicle in "ab"]
    run(write_local(tmp_path / "1.csv", pings[:40]), tmp_path / "data")
    run(write_local(tmp_path / "2.csv", pings[20:]), tmp_path / "data")
    return tmp_path


def test_what_was_forgotten_first_counts_for_the_file_that_repeats_it(two_files: Path) -> None:
    data = two_files / "data"
    taken = files_taken(stores_in(data, CITY))
    assert [(file["records_counted"], file["rows_dropped"]) for file in taken] == [(40, {}), (20, {"duplicate": 20})]
    result = forget(stores_in(data, CITY), ["1.csv"])
    assert [file["name"] for file in result["forgotten"]] == ["1.csv"] and result["report"]["points_kept"] == 40
    (left,) = files_taken(stores_in(data, CITY))
    assert (left["name"], left["records_counted"], left["rows_dropped"]) == ("2.csv", 40, {})
    assert_as_read_at_once(two_files, data, {"2.csv": CITY})


def test_a_dry_run_changes_nothing(two_files: Path, snapshot: Callable[[Path], dict[str, bytes]]) -> None:
    before = snapshot(two_files / "data")
    result = forget(stores_in(two_files / "data", CITY), ["*.csv"], dry_run=True)
    assert [file["name"] for file in result["forgotten"]] == ["1.csv", "2.csv"] and result["report"] is None
    assert snapshot(two_files / "data") == before


def test_a_store_of_which_all_was_forgotten_is_empty_and_takes_another_kind(two_files: Path) -> None:
    data = two_files / "data"
    assert forget(stores_in(data, CITY), ["1.csv", "2.csv"])["report"] is None
    assert not list(data.rglob("*.parquet")) and not list(data.rglob("*.nc"))
    assert files_taken(stores_in(data, CITY)) == []
    report = run(write_trips(two_files / "3.csv", [(5, 1, 3), (5, 1, 3)]), data)
    assert (report["kind"], report["files"], report["points_kept"]) == ("trips", 1, 4)


def test_files_of_one_name_are_told_apart_by_their_digests(tmp_path: Path) -> None:
    for folder, minutes in (("a", 0), ("b", 40)):
        run(write(tmp_path / folder / "x.csv", [at(0, 0, minutes), at(0, 1, minutes + 3)]), tmp_path / "data")
    stores = stores_in(tmp_path / "data", CITY)
    first, second = files_taken(stores)
    assert len(forget(stores, ["x.csv"], dry_run=True)["forgotten"]) == 2
    forget(stores, [f"x.csv:{first['sha256']}"])
    assert files_taken(stores) == [second]


def test_a_name_that_is_not_there_is_refused(two_files: Path) -> None:
    with pytest.raises(InputError, match=r"no file of 'small' has the name 3\.csv: trafficcast records list shows"):
        forget(stores_in(two_files / "data", CITY), ["3.csv"])


def test_a_file_read_otherwise_that_is_empty_then_leaves_every_store_as_it_was(
    two_files: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    stores = stores_in(two_files / "data", CITY)
    forget(stores, ["2.csv"])
    before = everything(two_files / "data")
    with pytest.raises(InputError, match="read in this way, have no record"):
        ingest(str(two_files / "1.csv"), stores, start="2020-01-01")
    assert everything(two_files / "data") == before


def test_files_take_their_places_again_after_records_of_them_were_lost(two_files: Path) -> None:
    data = two_files / "data"
    stores, before = stores_in(data, CITY), everything(data)
    next(data.rglob("*.parquet")).unlink()
    _, lost, _, all_known = rebuild_records(stores)
    assert len(lost) == 1 and not all_known and everything(data) != before
    for name in ("1.csv", "2.csv"):
        run(two_files / name, data)
    assert everything(data) == before
    forget(stores, ["1.csv"])
    assert_as_read_at_once(two_files, data, {"2.csv": CITY})


def as_an_earlier_version_left_it(data: Path) -> None:
    """Take from a store what an earlier version did not write: the sources of records, and how they were read."""
    for file in data.rglob("*.parquet"):
        pq.write_table(pq.read_table(file, partitioning=None).drop_columns(["source"]), file)
    with open_database(data / "small" / "records" / "state.sqlite", "", "small") as database:
        database.execute("DELETE FROM facts WHERE name = 'last_source'")
        rows = database.execute("SELECT digest, facts FROM sources").fetchall()
        for digest, facts in rows:
            old = json.loads(facts)
            for key in ("number", "records", "way", "taken"):
                del old[key]
            database.execute("UPDATE sources SET facts = ? WHERE digest = ?", (json.dumps(old), digest))


def test_an_older_store_opens_and_grows_and_says_what_it_cannot_forget(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trafficcast")
    data, pings = tmp_path / "data", [at(0, i % 4, 5 * i) for i in range(30)]
    run(write_local(tmp_path / "1.csv", pings[:20]), data)
    before = everything(data)
    as_an_earlier_version_left_it(data)
    assert everything(data) == before
    stores = stores_in(data, CITY)
    with pytest.raises(InputError, match=r"1\.csv was ingested by an earlier version.*move .*small away"):
        forget(stores, ["1.csv"])
    run(tmp_path / "1.csv", data, OTHERWISE)
    assert everything(data)[2] == before[2] and "to read them otherwise, move" in caplog.text
    run(write_local(tmp_path / "2.csv", pings[10:]), data)
    forget(stores, ["2.csv"])
    assert everything(data) == before
    assert files_taken(stores)[0]["read_as"] == "as an earlier version read it"
