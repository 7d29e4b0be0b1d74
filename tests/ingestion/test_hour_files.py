"""An hour's file: what is written is read, bit for bit, and a damaged file is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.ingestion.rows import rows_of
from trafficcast.errors import InputError
from trafficcast.ingestion.hour_files import _read_hour_file, _write_hour_file
from trafficcast.records.records import Points, Records, Trips, ZoneTrips

ODD_NAMES = ["", "nan", "None", "1e5", "007", " a ", 'é,"1"', "a=b/c", "two\nlines", "nul\0nul", "出租车", "🚕"]
# Fractions that any detour by text or single precision would change.
FRACTIONS = [0.1 + 0.2, -0.0, 5e-324, -179.99999999999997, 1 / 3]
MICROSECONDS = [-1, 0, 1, 1_212_580_800_000_001, 2**53 + 1]


def points(vehicle: list[int]) -> Points:
    n = len(vehicle)
    return Points(
        np.array(vehicle, np.int32),
        np.resize(np.array(MICROSECONDS, np.int64), n),
        np.resize(np.array(FRACTIONS), n),
        np.resize(np.array(FRACTIONS[::-1]), n),
        np.resize(np.array([-1, 0, 1], np.int8), n),
    )


def same(one: Records, other: Records) -> bool:
    arrays = zip(one.arrays().values(), other.arrays().values(), strict=True)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays)


def test_points_come_back_bit_for_bit_and_vehicles_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "city=rome" / "2008-06-04" / "12.1.parquet"  # no folder's name becomes a column
    vehicle = [code for code in range(len(ODD_NAMES)) for _ in range(code + 1)]
    _write_hour_file(file, rows_of(points(vehicle)), ODD_NAMES)
    names, found = _read_hour_file(file, Points)
    assert names == ODD_NAMES
    assert same(found.records, points(vehicle))


def test_only_the_vehicles_of_the_hour_are_named(tmp_path: Path) -> None:
    _write_hour_file(tmp_path / "hour.parquet", rows_of(points([1, 1, 3])), ["a", "b", "c", "d"])
    names, found = _read_hour_file(tmp_path / "hour.parquet", Points)
    assert isinstance(found.records, Points)
    assert (names, found.records.vehicle.tolist()) == (["b", "d"], [0, 0, 1])


def test_more_records_than_a_row_group_holds(tmp_path: Path) -> None:
    vehicle = np.repeat(np.arange(30), 40_000)
    _write_hour_file(
        tmp_path / "hour.parquet", rows_of(points(vehicle.tolist())), [f"cab {code}" for code in range(30)]
    )
    names, found = _read_hour_file(tmp_path / "hour.parquet", Points)
    assert names == [f"cab {code}" for code in range(30)]
    assert same(found.records, points(vehicle.tolist()))


def test_trips_come_back_bit_for_bit(tmp_path: Path) -> None:
    time, place = np.array(MICROSECONDS, np.int64), np.array(FRACTIONS)
    trips = Trips(time, place, place[::-1].copy(), time[::-1].copy(), place, place, np.arange(len(time)) - 1)
    zone_trips = ZoneTrips(
        time, np.array([1, 264, -5, 2**62, 0]), time, np.array([7, 7, 7, 0, -(2**62)]), np.array([0, 0, -5, 7, 2**62])
    )
    for records in (trips, zone_trips):
        _write_hour_file(tmp_path / "hour.parquet", rows_of(records), [])
        names, found = _read_hour_file(tmp_path / "hour.parquet", type(records))
        assert names == [] and same(found.records, records)


def test_the_same_records_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write_hour_file(tmp_path / name, rows_of(points([0, 0, 1])), ["x", "y"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "zeros", "text"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "12.1.parquet"
    _write_hour_file(file, rows_of(points([0, 0, 1])), ["x", "y"])
    data = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes({"cut": data[:-10], "empty": b"", "zeros": bytes(len(data)), "text": b"a,b\n1,2\n"}[damage])
    with pytest.raises(InputError, match=r"cannot read .*12\.1\.parquet.*run trafficcast repair"):
        _read_hour_file(file, Points)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    _write_hour_file(tmp_path / "12.1.parquet", rows_of(points([0])), ["x"])
    with pytest.raises(InputError, match=r"12\.1\.parquet"):
        _read_hour_file(tmp_path / "12.1.parquet", Trips)


@pytest.mark.slow
def test_a_byte_that_has_changed_never_makes_other_records(tmp_path: Path) -> None:
    file = tmp_path / "12.1.parquet"
    records, names = points([0] * 20 + [1] * 20), ["a", "é"]
    _write_hour_file(file, rows_of(records), names)
    data = file.read_bytes()
    told = 0
    for i in range(len(data)):
        file.write_bytes(data[:i] + bytes([data[i] ^ 0x91]) + data[i + 1 :])
        try:
            found_names, found = _read_hour_file(file, Points)
        except InputError:
            told += 1
        else:
            assert found_names == names and same(found.records, records), i
    assert told > len(data) // 2
