"""The record store: what is kept, once each, and that a state counts only once its manifest is published."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from trafficcast.points import DAY_US, Batch, Points

from trafficcast.errors import InputError
from trafficcast.records import Manifest, RecordStore, digest

START = int(np.datetime64("2008-06-04", "us").astype(np.int64))
Row = tuple[str, int, float, float, int]  # vehicle, microseconds since START, lon, lat, occupied


def batch(*rows: Row, read: int | None = None, **dropped: int) -> Batch:
    names = list(dict.fromkeys(row[0] for row in rows))
    points = Points(
        np.array([names.index(row[0]) for row in rows], np.int32),
        np.array([START + row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float64),
        np.array([row[3] for row in rows], np.float64),
        np.array([row[4] for row in rows], np.int8),
    )
    return Batch(names, points, len(rows) if read is None else read, Counter(dropped))


def rows_of(names: list[str], points: Points) -> list[Row]:
    vehicles = [names[code] for code in points.vehicle]
    columns = (points.lon.tolist(), points.lat.tolist(), points.occupied.tolist())
    return list(zip(vehicles, (points.time - START).tolist(), *columns, strict=True))


def days_of(store: RecordStore, manifest: Manifest | None = None) -> list[list[Row]]:
    return [rows_of(names, points) for names, points in store.read_days(manifest or store.manifest())]


def ingested(store: RecordStore, *batches: Batch, source: str = "x") -> Manifest:
    manifest = store.add(store.manifest(), batches, [source])
    store.publish(manifest)
    return manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "records")


A: Row = ("a", 5, -122.4, 37.7, 1)
B: Row = ("b", 3, 0.1 + 0.2, 1 / 3, 0)


def test_an_empty_store(store: RecordStore) -> None:
    assert store.manifest() == Manifest()
    assert days_of(store) == []
    assert Manifest().dropped == {"unparsable": 0, "coordinates": 0, "timestamp": 0, "duplicate": 0}


def test_what_is_read_is_what_was_added_bit_for_bit(store: RecordStore) -> None:
    extremes: Row = ("\u00e9 1", DAY_US - 1, -179.99999999999997, 5e-324, -1)
    ingested(store, batch(B, A, extremes))
    ((names, points),) = store.read_days(store.manifest())
    assert rows_of(names, points) == [A, B, extremes]
    assert [points.lon.dtype, points.time.dtype, points.occupied.dtype] == [np.float64, np.int64, np.int8]


def test_one_file_a_utc_day_sorted_by_vehicle_and_time(store: RecordStore) -> None:
    rows: list[Row] = [
        ("b", DAY_US, 1, 1, 0),
        ("b", DAY_US - 1, 2, 2, 0),
        ("a", DAY_US - 1, 3, 3, 0),
        ("b", 0, 4, 4, 0),
    ]
    manifest = ingested(store, batch(*rows))
    assert sorted(manifest.days) == ["2008-06-04", "2008-06-05"]
    assert days_of(store) == [[rows[2], rows[3], rows[1]], [rows[0]]]
    table = pq.read_table(store.root / manifest.days["2008-06-04"])
    assert table.column_names == ["vehicle", "time", "lon", "lat", "occupied"]


def test_days_come_in_the_order_of_time_however_they_arrived(store: RecordStore) -> None:
    late: Row = ("a", 40 * DAY_US, 1, 1, 0)
    ingested(store, batch(late))
    ingested(store, batch(A), source="y")
    assert days_of(store) == [[A], [late]]


def test_batches_of_one_vehicle_come_together(store: RecordStore) -> None:
    first: Row = ("a", 9, 1, 1, 0)
    ingested(store, batch(A), batch(B, first))
    assert days_of(store) == [[A, first, B]]


def test_a_second_ingest_adds_and_the_smallest_of_repeats_stays(store: RecordStore) -> None:
    smaller: Row = ("a", 5, -122.5, 90.0, 1)
    larger: Row = ("b", 3, 50.0, 0.0, 0)
    ingested(store, batch(A, B))
    manifest = ingested(store, batch(larger, ("c", 1, 1, 1, 1), smaller, smaller), source="y")
    assert days_of(store) == [[smaller, B, ("c", 1, 1, 1, 1)]]
    assert manifest.dropped["duplicate"] == 3
    assert manifest.rows == 6
    assert manifest.sources == ["x", "y"]


def test_counters_add_up_over_ingests(store: RecordStore) -> None:
    ingested(store, batch(A, read=7, unparsable=4, timestamp=2))
    manifest = ingested(store, batch(B, read=4, unparsable=1, coordinates=2), batch(A, B), source="y")
    assert manifest.rows == 13
    assert manifest.dropped == {"unparsable": 5, "coordinates": 2, "timestamp": 2, "duplicate": 2}


def test_a_state_counts_only_once_it_is_published(store: RecordStore) -> None:
    old = ingested(store, batch(A))
    new = store.add(store.manifest(), [batch(B)], ["y"])
    assert store.manifest() == old
    assert days_of(store) == [[A]]
    assert days_of(store, new) == [[A, B]]
    store.publish(new)
    assert store.manifest() == new
    assert days_of(store) == [[A, B]]


def test_days_without_new_records_keep_their_files(store: RecordStore) -> None:
    ingested(store, batch(A, ("a", DAY_US, 1, 1, 0)))
    before = {file.name: file.stat().st_mtime_ns for file in store.root.glob("2008-06-04*")}
    ingested(store, batch(("b", DAY_US, 1, 1, 0)), source="y")
    assert {file.name: file.stat().st_mtime_ns for file in store.root.glob("2008-06-04*")} == before


def test_publishing_removes_files_of_earlier_states_and_of_abandoned_ones(store: RecordStore) -> None:
    ingested(store, batch(A))
    store.add(store.manifest(), [batch(("c", 2 * DAY_US, 1, 1, 0))], ["abandoned"])
    assert len(contents(store.root)) == 3
    manifest = ingested(store, batch(B), source="y")
    assert set(contents(store.root)) == {"manifest.json", *manifest.days.values()}


def test_a_batch_without_points_changes_counters_only(store: RecordStore) -> None:
    ingested(store, batch(A))
    nothing = Batch(["b"], batch(A).points.take(slice(0, 0)), 3, Counter(unparsable=3))
    manifest = ingested(store, nothing, source="y")
    assert days_of(store) == [[A]]
    assert (manifest.rows, manifest.dropped["unparsable"]) == (4, 3)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"generation": 1, "wrong": 2}', "\x00"])
def test_a_damaged_manifest_is_named(store: RecordStore, text: str) -> None:
    ingested(store, batch(A))
    (store.root / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        store.manifest()


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "zeros"])
def test_a_damaged_day_is_named(store: RecordStore, damage: str) -> None:
    file = store.root / ingested(store, batch(A, B)).days["2008-06-04"]
    data = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes({"cut": data[:-10], "empty": b"", "zeros": bytes(len(data))}[damage])
    with pytest.raises(InputError, match=file.name):
        days_of(store)
    with pytest.raises(InputError, match=file.name):
        store.add(store.manifest(), [batch(("c", 1, 1, 1, 1))], ["y"])


def test_a_source_is_its_name_and_its_bytes_in_whatever_folder(tmp_path: Path) -> None:
    for name, text in {"a/new_x.txt": "1", "b/new_x.txt": "1", "c/new_x.txt": "2", "a/new_y.txt": "1"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    same, other_folder = digest(tmp_path / "a/new_x.txt"), digest(tmp_path / "b/new_x.txt")
    assert same == other_folder == f"new_x.txt:{hashlib.sha256(b'1').hexdigest()}"
    assert len({same, digest(tmp_path / "c/new_x.txt"), digest(tmp_path / "a/new_y.txt")}) == 3
