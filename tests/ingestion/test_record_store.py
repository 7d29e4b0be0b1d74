"""The record store: what is committed is what is loaded, once and whole."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tests.ingestion.rows import rows_of
from trafficcast.config.city import City
from trafficcast.errors import InputError, JobError
from trafficcast.ingestion.counting import Count, _count_points, _Slot
from trafficcast.ingestion.hour_files import _file_of, _read_hour_file, _write_hour_file
from trafficcast.ingestion.record_store import RecordStore, SourceFacts, State, _InboxFile, _kind_of, _with_codes
from trafficcast.ingestion.spans import Span
from trafficcast.records.records import HOUR_US, Points, Records, Trips, ZoneTrips
from trafficcast.records.sources import Source, find_sources

CITY = City(west=10.0, east=10.5, south=45.0, north=45.5, rows=4, cols=4, timezone="UTC", name="small")
HOUR = int(np.datetime64("2008-06-04T12", "h").astype(int))
DAY = np.datetime64("2008-06-04", "D")


def an_hour(hour: int) -> Span:
    return Span(hour, hour + 1)


def points(*rows: tuple[int, float, float, float, int]) -> Points:
    """Vehicle, minutes after the hour, longitude, latitude, occupied."""
    vehicle, minutes, lon, lat, occupied = zip(*rows, strict=True) if rows else [()] * 5
    return Points(
        np.array(vehicle, np.int32), HOUR * HOUR_US + np.array(np.array(minutes, float) * 60e6, np.int64),
        np.array(lon, np.float64), np.array(lat, np.float64), np.array(occupied, np.int8),
    )  # fmt: skip


FIRST = points((0, 0, 10.1, 45.1, 0), (0, 5, 0.1 + 0.2, 1 / 3, 1), (1, 59.5, -179.99999999999997, 5e-324, -1))


def added(store: RecordStore, state: State, hour: int, records: Points, digest: str) -> Count:
    """An hour of records, committed as it is."""
    state.generation += 1
    state.kind = "points"
    state.rules = {"rows": 4}
    file = _file_of(an_hour(hour), state.generation)
    _write_hour_file(store.root / file, rows_of(records), state.vehicles.names)
    state.files[an_hour(hour)] = (file, len(records))
    count = _count_points(CITY, records)
    state.vehicles.update(count)
    state.totals = state.totals + count.totals
    facts = SourceFacts("a.csv", digest, "csv", 9, {"unparsable": 2}, 1, ["a note"])
    store.commit(state, count, [facts], [DAY])
    return count


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "records")


@pytest.fixture
def filled(store: RecordStore) -> RecordStore:
    state = store.load()
    state.vehicles.codes(["a", 'é,"1"'])
    added(store, state, HOUR, FIRST, "x")
    return store


def same(one: Records, other: Records) -> bool:
    arrays = zip(one.arrays().values(), other.arrays().values(), strict=True)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays)


def test_an_empty_store(store: RecordStore) -> None:
    state = store.load()
    assert (state.kind, state.files, state.generation, state.vehicles.names) == (None, {}, 0, [])
    assert not store.exists() and store.known(["x"]) == {} and store.inbox_files() == (set(), None)
    assert not store.root.exists()


def test_what_is_committed_is_loaded_bit_for_bit(filled: RecordStore) -> None:
    state = filled.load()
    assert (state.kind, state.rules, state.generation) == ("points", {"rows": 4}, 1)
    assert state.vehicles.names == ["a", 'é,"1"'] and state.vehicles.number_with_points() == 2
    assert same(filled.read(state, an_hour(HOUR)), FIRST)
    assert same(state.vehicles.last_points(np.array([0, 1], np.int32)), FIRST.take(np.array([1, 2])))
    assert len(filled.read(state, an_hour(HOUR + 1))) == 0
    assert set(filled.known(["x", "y"])) == {"x"}
    (facts,) = filled.sources()
    assert (facts.rows, facts.dropped, facts.notes) == (9, {"unparsable": 2}, ["a note"])
    assert filled.unpublished() == [DAY]
    filled.note_flow_files({DAY: np.array([2 * HOUR, 2 * HOUR + 1])}, lambda _: filled.file)
    assert filled.unpublished() == [] and [*filled.flow_files()] == [str(DAY)]
    assert {day: slots.tolist() for day, slots in filled.published_observed().items()} == {
        str(DAY): [2 * HOUR, 2 * HOUR + 1]
    }


def test_slots_add_up_over_commits(filled: RecordStore) -> None:
    before = filled.slots(2 * HOUR, 2 * HOUR + 1)
    state = filled.load()
    more = added(filled, state, HOUR, points((0, 1, 10.1, 45.1, 0), (0, 2, 10.4, 45.4, 0)), "y")
    after = filled.slots(2 * HOUR, 2 * HOUR + 1)
    assert set(after) == set(before) == {2 * HOUR, 2 * HOUR + 1}
    wanted: _Slot = before[2 * HOUR].plus(more.slots[2 * HOUR])
    assert (after[2 * HOUR].flow == wanted.flow).all() and (after[2 * HOUR].minutes == wanted.minutes).all()
    assert after[2 * HOUR].vehicles == wanted.vehicles
    slot, inflow, outflow, records, vehicles, covered = filled.slot_facts()[0].tolist()
    assert (slot, records, vehicles) == (2 * HOUR, wanted.minutes.sum(), wanted.vehicles)
    assert (inflow, outflow) == tuple(wanted.flow.sum(axis=1).tolist())
    assert covered == np.count_nonzero(wanted.minutes) == 4
    assert filled.slots(0, 9) == {}


def test_a_commit_anew_replaces_the_slots(filled: RecordStore) -> None:
    filled.commit(filled.load(), Count(), [], [], replace_slots=True)
    assert len(filled.slot_facts()) == 0


def test_cleaning_keeps_only_what_is_current(filled: RecordStore) -> None:
    state = filled.load()
    _write_hour_file(filled.root / _file_of(an_hour(HOUR), 7), rows_of(FIRST), state.vehicles.names)
    _write_hour_file(filled.root / _file_of(an_hour(HOUR + 48), 7), rows_of(FIRST), state.vehicles.names)
    (filled.root / ".staging-killed").mkdir()
    (filled.root / ".staging-killed" / "0.lon").write_bytes(b"x")
    filled.clean(state)
    files = {str(path.relative_to(filled.root)) for path in filled.root.rglob("*") if path.is_file()}
    assert files == {"state.sqlite", "2008-06-04/12.1.parquet"}
    assert [path.name for path in filled.root.iterdir() if path.is_dir()] == ["2008-06-04"]


def test_pruning_keeps_each_vehicles_last_point(filled: RecordStore) -> None:
    state = filled.load()
    later = points((0, 65, 10.2, 45.2, 1))
    added(filled, state, HOUR + 1, later, "y")
    filled.prune(state, (HOUR + 1) * HOUR_US)
    for now in (state, filled.load()):
        assert list(now.files) == [an_hour(HOUR + 1)] and now.retained_from == (HOUR + 1) * HOUR_US
        assert same(now.pruned, FIRST.take(np.array([1, 2])))
    filled.prune(state, (HOUR + 2) * HOUR_US)
    assert same(filled.load().pruned, Points.concatenate([later, FIRST.take(np.array([2]))]))


def test_files_of_an_inbox_are_remembered(filled: RecordStore) -> None:
    way = {"format": "csv"}
    filled.add_inbox_files([_InboxFile("a.csv", 5, 7)], way)
    filled.add_inbox_files([_InboxFile("a.csv", 6, 8), _InboxFile("b.csv", 1, 2)], way)
    assert filled.inbox_files() == ({_InboxFile("a.csv", 6, 8), _InboxFile("b.csv", 1, 2)}, way)
    filled.add_inbox_files([_InboxFile("b.csv", 1, 2)], {"format": "tdrive"})
    assert filled.inbox_files() == ({_InboxFile("b.csv", 1, 2)}, {"format": "tdrive"})


def test_a_damaged_database_is_named(filled: RecordStore) -> None:
    (filled.root / "state.sqlite").write_bytes(b"no database" * 99)
    with pytest.raises(InputError, match=r"cannot read .*state\.sqlite.*run trafficcast repair"):
        filled.load()


def test_a_failed_commit_changes_nothing(filled: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (filled.root / "state.sqlite").read_bytes()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    state = filled.load()
    with monkeypatch.context() as patch:
        patch.setattr("trafficcast.ingestion.record_store._slot_row", full)
        with pytest.raises(JobError, match="disk is full"):
            added(filled, state, HOUR + 1, points((0, 65, 10.2, 45.2, 1)), "y")
    assert (filled.root / "state.sqlite").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "zeros"])
def test_a_damaged_hour_is_named(filled: RecordStore, damage: str) -> None:
    state = filled.load()
    file = filled.root / state.files[an_hour(HOUR)][0]
    data = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes({"cut": data[:-10], "empty": b"", "zeros": bytes(len(data))}[damage])
    with pytest.raises(InputError, match=file.name):
        filled.read(state, an_hour(HOUR))


@pytest.mark.parametrize("kind", [Trips, ZoneTrips])
def test_trips_come_back_bit_for_bit(tmp_path: Path, kind: type[Records]) -> None:
    columns = (np.array([1, -5, 2**40], dtype) / dtype(1) for dtype in kind.DTYPES.values())
    records = kind(*(c.astype(d) for c, d in zip(columns, kind.DTYPES.values(), strict=True)))
    _write_hour_file(tmp_path / "hour.parquet", rows_of(records), [])
    names, found = _read_hour_file(tmp_path / "hour.parquet", kind)
    assert names == [] and same(found.records, records)


def test_codes_of_another_table_bring_the_order_back() -> None:
    found = _with_codes(rows_of(FIRST), np.array([7, 3], np.int32)).records
    assert isinstance(found, Points)
    assert found.vehicle.tolist() == [3, 7, 7] and found.time.tolist() == FIRST.time[[2, 0, 1]].tolist()


def test_a_city_holds_one_kind(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("x")
    source: Source = find_sources(str(tmp_path / "x.csv"))[0]
    assert _kind_of(FIRST, source, CITY, None) == _kind_of(FIRST, source, CITY, "points") == "points"
    with pytest.raises(InputError, match=r"x\.csv holds points, 'small' holds trips"):
        _kind_of(FIRST, source, CITY, "trips")
    with pytest.raises(InputError, match=r"zones under \[cities\.small\.feed\]"):
        _kind_of(ZoneTrips.concatenate([]), source, CITY, None)
