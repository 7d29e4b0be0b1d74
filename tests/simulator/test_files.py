"""The layouts of simulated records: what their files look like, and that a seed gives the same bytes in each."""

from __future__ import annotations

import csv
import gzip
import json
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cities import small_city
from trafficcast.errors import InputError
from trafficcast.simulator.files import _FORMATS
from trafficcast.simulator.simulator import simulate, truth_file

CITY = small_city(rows=16, cols=16)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.slow
@pytest.mark.parametrize("file_format", _FORMATS)
def test_a_seed_gives_the_same_bytes_and_another_seed_others(file_format: str, tmp_path: Path) -> None:
    summaries = [
        simulate(CITY, tmp_path / name / "gps", vehicles=20, days=2, seed=seed, file_format=file_format)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    records = [contents(tmp_path / name / "gps") for name in "abc"]
    truths = [truth_file(tmp_path / name / "gps").read_bytes() for name in "abc"]
    assert records[0] == records[1] and truths[0] == truths[1]
    assert set(records[0].values()).isdisjoint(records[2].values()) and truths[0] != truths[2]
    assert summaries[0].points == summaries[1].points
    assert summaries[0].files == len(records[0])


def test_the_truth_lies_beside_the_records_not_among_them(tmp_path: Path) -> None:
    simulate(CITY, tmp_path / "gps", vehicles=2, days=1, seed=1)
    assert truth_file(tmp_path / "gps") == tmp_path / "gps.truth.nc"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gps", "gps.truth.nc"]


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'xml' .* cabspotting, tdrive, parquet, csv, porto, tlc"):
        simulate(CITY, tmp_path / "gps", vehicles=1, days=1, file_format="xml")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_all_formats_of_points_hold_the_same_reports(tmp_path: Path) -> None:
    for file_format in ("cabspotting", "parquet", "csv", "tdrive"):
        simulate(CITY, tmp_path / file_format, vehicles=5, days=7, seed=1, file_format=file_format)
    of_cabs = set()
    for name, data in contents(tmp_path / "cabspotting").items():
        vehicle = name.removeprefix("new_").removesuffix(".txt.gz")
        of_cabs |= {(vehicle, int(line.split()[3])) for line in gzip.decompress(data).splitlines()}
    days = [pq.read_table(file).to_pylist() for file in sorted((tmp_path / "parquet").iterdir())]
    assert {(row["vehicle"], int(row["time"].timestamp())) for day in days for row in day} == of_cabs
    lines = [line for data in contents(tmp_path / "csv").values() for line in data.splitlines()[1:]]
    assert len({tuple(line.split(b",")[:2]) for line in lines}) == len(of_cabs)
    lines = [line for data in contents(tmp_path / "tdrive").values() for line in data.splitlines()]
    assert len({tuple(line.split(b",")[:2]) for line in lines}) == len(of_cabs)


def test_parquet_is_a_file_a_local_day_in_the_order_of_time(tmp_path: Path) -> None:
    summary = simulate(CITY, tmp_path / "gps", vehicles=20, days=3, seed=1, file_format="parquet")
    files = sorted((tmp_path / "gps").iterdir())
    assert [file.name for file in files] == ["2024-04-08.parquet", "2024-04-09.parquet", "2024-04-10.parquet"]
    tables = [pq.read_table(file) for file in files]
    assert sum(len(table) for table in tables) == summary.points
    for file, table in zip(files, tables, strict=True):
        assert table.column_names == ["vehicle", "time", "lon", "lat", "occupied"]
        assert table.schema.field("time").type == pa.timestamp("us", "UTC")
        assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
        time = table["time"].to_numpy()
        assert (np.diff(time) >= np.timedelta64(0)).all()
        assert set(CITY.local_days(time).astype(str)) == {file.stem}
        assert set(table["occupied"].to_pylist()) == {0, 1}


def test_reports_after_midnight_of_a_shift_that_began_before_are_in_the_next_days_file(tmp_path: Path) -> None:
    simulate(CITY, tmp_path / "gps", vehicles=20, days=2, seed=1, file_format="parquet")
    second = pq.read_table(tmp_path / "gps" / "2024-04-09.parquet")
    local = CITY.local(second["time"].to_numpy())
    assert np.count_nonzero(local.hour < 4) > 100


def test_csv_has_iso_times_with_the_offset_of_the_day(tmp_path: Path) -> None:
    start = np.datetime64("2024-03-30T12:00")  # the clocks are set forward in the night after it
    simulate(CITY, tmp_path / "gps", vehicles=20, days=2, seed=1, start=start, file_format="csv")
    saturday, sunday = (data.decode().splitlines() for data in contents(tmp_path / "gps").values())
    assert saturday[0] == sunday[0] == "vehicle,time,longitude,latitude,occupied"
    row = re.compile(r"s1t\d{4},\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0[12]:00,\d+\.\d{5},\d+\.\d{5},[01]")
    assert all(row.fullmatch(line) for line in saturday[1:] + sunday[1:])
    offsets = [line.split(",")[1][-6:] for line in sunday[1:]]
    assert offsets == sorted(offsets) and set(offsets) == {"+01:00", "+02:00"}
    assert {line.split(",")[1][-6:] for line in saturday[1:]} == {"+01:00"}


def test_tdrive_is_a_file_a_taxi_with_local_times(tmp_path: Path) -> None:
    summary = simulate(CITY, tmp_path / "gps", vehicles=4, days=2, seed=1, file_format="tdrive")
    line = re.compile(r"(\d+),2024-04-0[89] \d\d:\d\d:\d\d,\d+\.\d{5},\d+\.\d{5}")
    rows = 0
    for name, data in contents(tmp_path / "gps").items():
        matches = [line.fullmatch(text) for text in data.decode().splitlines()]
        assert {match and match[1] for match in matches} == {name.removesuffix(".txt")}
        rows += len(matches)
    assert rows == summary.points


def test_porto_has_a_line_a_ride(tmp_path: Path) -> None:
    summary = simulate(CITY, tmp_path / "gps", vehicles=50, days=7, seed=1, file_format="porto")
    with open(tmp_path / "gps" / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary.points
    assert summary.duplicates == len(rows) - len({row["TRIP_ID"] for row in rows}) > 0
    lines = [json.loads(row["POLYLINE"]) for row in rows]
    steps = np.concatenate([np.abs(np.diff(line, axis=0)) for line in lines])
    assert min(map(len, lines)) >= 2
    assert steps.max() * 111 < 0.45  # km in 15 s at the most
    ends: dict[str, int] = {}
    for row, line in zip(rows, lines, strict=True):  # a taxi's rides follow each other
        start = int(row["TIMESTAMP"])
        assert row["TRIP_ID"] in ends or start > ends.get(row["TAXI_ID"], 0)
        ends |= {row["TRIP_ID"]: 0, row["TAXI_ID"]: start + 15 * (len(line) - 1)}


def test_tlc_has_a_line_a_ride(tmp_path: Path) -> None:
    summary = simulate(CITY, tmp_path / "gps", vehicles=50, days=7, seed=1, file_format="tlc")
    with open(tmp_path / "gps" / "yellow_tripdata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "tpep_pickup_datetime",
        "tpep_dropoff_datetime",
        "pickup_longitude",
        "pickup_latitude",
        "dropoff_longitude",
        "dropoff_latitude",
    ]
    assert len(rows) == summary.points > 500
    assert summary.duplicates == len(rows) - len({tuple(row.values()) for row in rows}) > 0
    times = np.array([[row["tpep_pickup_datetime"], row["tpep_dropoff_datetime"]] for row in rows], "datetime64[s]")
    minutes = np.diff(times, axis=1).astype("timedelta64[s]").astype(float) / 60
    assert minutes.min() > 0 and minutes.max() < timedelta(hours=1.5).total_seconds() / 60
