"""Damaged files of every format and files of nothing: batches whose counts add up, or InputError, and nothing else."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.transit.gtfs_realtime_pb2 import FeedMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.errors import InputError
from trafficcast.records.readers import _FORMATS, find_records, read
from trafficcast.records.records import Batch, Points
from trafficcast.records.sources import find_sources

CITY = City(west=-122.52, east=-122.36, south=37.70, north=37.82, timezone="America/New_York", name="bay")
OF_TRIPS = CITY.model_copy(update={"feed": Feed(trips=True)})
N = 6  # rows of each file
ROOT = Path(__file__).parents[2]


def table() -> pa.Table:
    return pa.table(
        {
            "vehicle": pa.array([f"t{i}" for i in range(N)]),
            "time": pa.array([1_400_000_000_000_000 + i for i in range(N)], pa.timestamp("us", "UTC")),
            "lon": pa.array([-122.4 - 0.001 * i for i in range(N)]),
            "lat": pa.array([37.7 + 0.001 * i for i in range(N)]),
            "occupied": pa.array([i % 2 for i in range(N)], pa.int8()),
        }
    )


def parquet(compression: str) -> bytes:
    file = io.BytesIO()
    pq.write_table(table(), file, compression=compression)
    return file.getvalue()


def lines(header: str, row: str) -> bytes:
    return (header + "".join(row.format(i=i) for i in range(N))).encode()


def message() -> bytes:
    found = FeedMessage()
    found.header.gtfs_realtime_version, found.header.timestamp = "2.0", 1_400_000_000
    for i in range(N):
        vehicle = found.entity.add(id=str(i)).vehicle
        vehicle.vehicle.id, vehicle.position.longitude, vehicle.position.latitude = f"t{i}", -122.4, 37.7
    return bytes(found.SerializeToString())


# A name and the bytes of a good file.
GOOD = {
    "cabspotting": ("new_a.txt", lines("", "37.7513{i} -122.3948{i} 1 121308468{i}\n")),
    "tdrive": ("1.txt", lines("", "1,2014-02-02 13:30:4{i},-122.4322{i},37.7224{i}\n")),
    "porto": (
        "train.csv",
        lines(
            '"TRIP_ID","TAXI_ID","TIMESTAMP","MISSING_DATA","POLYLINE"\n',
            '"1","2000{i}","137263685{i}","False","[[-122.41,37.7{i}],[-122.42,37.71]]"\n',
        ),
    ),
    "tlc": (
        "yellow.csv",
        lines(
            "tpep_pickup_datetime,tpep_dropoff_datetime,PULocationID,DOLocationID\n",
            "2014-02-02 13:30:4{i},2014-02-02 13:39:00,14{i},7\n",
        ),
    ),
    "gtfs-realtime": ("a.pb", message()),
    "csv": (
        "a.csv",
        lines("vehicle;time;lon;lat;occupied\n", "t{i};2014-02-02T13:30:4{i}+01:00;-122.4{i};37.7{i};0\n"),
    ),
    "parquet": ("a.parquet", parquet("none")),
    "jsonl": ("a.jsonl", lines("", '{{"id": "t{i}", "ts": 140000000{i}, "lon": -122.4{i}, "lat": 37.7{i}}}\n')),
}
BITS = [
    b"\n", b"\r", b"\r\n\r\n", b"\t", b" ", b",", b";", b'"', b"'", b"[", b"]", b"]]", b"{", b"}", b"\\", b"\0",
    b"\xff", b"\xef\xbb\xbf", b"-", b"nan", b"inf", b"1e999", b"0x1F", b"9" * 25, b"null", b"true", b"NaN",
    b"\\ud800", "\u0661".encode(), "\u2028".encode(), b"0001-01-01 00:00:00", b"9999-12-31T23:59:59Z",
    b"2014-03-09 02:30:00", b"2014-11-02 01:30:00", b"PAR1",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """A text with some bytes cut, repeated, changed or put in."""
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.sampled_from([0, 0, 1, 2, 10, 60, 10_000])))
        bits = draw(st.one_of(st.sampled_from(BITS), st.binary(max_size=4), st.just(text[begin:end] * 2)))
        text = text[:begin] + bits + text[end:]
    return text


def check_read(file: Path, city: City, name: str | None) -> list[Batch] | None:
    """The batches of a file, which have been looked at; None where it was refused."""
    try:
        [source] = find_sources(str(file))
        batches = list(read(source, city, name))
    except InputError as error:
        assert str(error)
        assert "\n" not in str(error)
        return None
    for batch in batches:
        check_batch(batch)
    return batches


def check_batch(batch: Batch) -> None:
    arrays = batch.records.arrays()
    assert {name: array.dtype for name, array in arrays.items()} == {
        name: np.dtype(dtype) for name, dtype in batch.records.DTYPES.items()
    }
    assert {len(array) for array in arrays.values()} == {len(batch.records)}
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert all(n >= 0 for n in batch.dropped.values())
    assert not batch.again  # every time is the true one
    assert set(batch.dropped) <= {"unparsable", "clock"}
    if isinstance(batch.records, Points):
        assert np.isin(batch.records.vehicle, range(len(batch.vehicles))).all()
        assert np.isin(batch.records.occupied, (-1, 0, 1)).all()
        assert len(set(batch.vehicles)) == len(batch.vehicles)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_there_is_a_good_file_of_every_format(folder: Path) -> None:
    assert list(GOOD) == list(_FORMATS)
    for name, (file_name, text) in GOOD.items():
        (folder / file_name).write_bytes(text)
        [(_, recognised)], _ = find_records(str(folder / file_name), CITY)
        assert recognised == name
        batches = check_read(folder / file_name, CITY, name)
        assert batches is not None
        assert sum(batch.rows for batch in batches) == N
        assert not any(batch.dropped.total() for batch in batches)


@pytest.mark.parametrize("name", _FORMATS)
@settings(derandomize=True, deadline=None, database=None, max_examples=150)
@given(st.data())
def test_damaged_files(folder: Path, name: str, data: st.DataObject) -> None:
    file_name, text = GOOD[name]
    (folder / file_name).write_bytes(data.draw(damaged(text), label="text"))
    for city in (CITY, OF_TRIPS):
        batches = check_read(folder / file_name, city, name)
        if batches is not None and name != "porto":
            kept = sum(len(batch.records) for batch in batches)
            assert sum(batch.rows for batch in batches) == kept + sum(batch.dropped.total() for batch in batches)
    check_read(folder / file_name, CITY, None)


@settings(derandomize=True, deadline=None, database=None, max_examples=100)
@given(damaged(GOOD["porto"][1]))
def test_the_lines_of_a_damaged_file_of_rides_are_trips_or_dropped_or_without_places(folder: Path, text: bytes) -> None:
    (folder / "train.csv").write_bytes(text)
    points, trips = (check_read(folder / "train.csv", city, "porto") for city in (CITY, OF_TRIPS))
    assert (points is None) == (trips is None)
    for of_points, of_trips in zip(points or [], trips or [], strict=True):
        assert of_points.rows == of_trips.rows
        assert of_points.dropped == of_trips.dropped
        assert len(of_trips.records) <= of_trips.rows - of_trips.dropped.total()


@pytest.mark.parametrize("name", [None, *_FORMATS])
@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from([*BITS, b"lon", b"37.7", b"7"])).map(b"".join)))
def test_files_of_anything(folder: Path, name: str | None, text: bytes) -> None:
    for file_name in ("anything", "new_a.txt"):
        (folder / file_name).write_bytes(text)
        check_read(folder / file_name, CITY, name)


@pytest.mark.parametrize("name", _FORMATS)
@settings(derandomize=True, deadline=None, database=None, max_examples=30)
@given(st.data())
def test_damaged_compressed_files(folder: Path, name: str, data: st.DataObject) -> None:
    file_name, text = GOOD[name]
    packings = [gzip.compress(text, mtime=0), pa.Codec("zstd").compress(text, asbytes=True)]
    packed = data.draw(st.sampled_from([*packings, bz2.compress(text), lzma.compress(text)]))
    (folder / f"{file_name}.gz").write_bytes(data.draw(damaged(packed), label="packed"))
    check_read(folder / f"{file_name}.gz", CITY, name)
    check_read(folder / f"{file_name}.gz", CITY, None)


def archives() -> list[bytes]:
    """A tar archive, the same packed, and a zip archive with a zip archive in it."""
    members = dict(GOOD.values())
    sinks = [io.BytesIO() for _ in range(4)]
    for sink, mode in zip(sinks, ("w", "w:gz"), strict=False):
        with tarfile.open(fileobj=sink, mode=mode) as archive:  # type: ignore[call-overload]
            for name, text in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))
    for sink, inside in ((sinks[2], members), (sinks[3], {"in.zip": b""})):
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in inside.items():
                archive.writestr(name, text or sinks[2].getvalue())
    return [sink.getvalue() for sink in sinks]


@settings(derandomize=True, deadline=None, database=None, max_examples=150)
@given(st.sampled_from(archives()).flatmap(damaged))
def test_damaged_archives(folder: Path, data: bytes) -> None:
    (folder / "archive").write_bytes(data)
    try:
        found, _ = find_records(str(folder / "archive"), CITY)
        for source, name in found:
            for batch in read(source, CITY, name):
                check_batch(batch)
    except InputError as error:
        assert "\n" not in str(error)


HEAD = "vehicle,time,lon,lat\n"


def hired(*words: str) -> bytes:
    """The records of a vehicle with these words for whether it is occupied."""
    rows = (f"t,140000000{i},-122.4,37.7,{word}\n" for i, word in enumerate(words))
    return ("vehicle,time,lon,lat,hired\n" + "".join(rows)).encode()


# Texts of the forms that a table may have, each with the feed that it needs.
FORMS = {
    "lines before the header": (lines(f"a title,\n\n# a comment\n{HEAD}", "t{i},140000000{i},-122.4,37.7\n"), Feed()),
    "sep and commas": (lines("sep=;\nvehicle;time;lon;lat\n", "t{i};140000000{i};-122,4{i};37,7{i}\n"), Feed()),
    "day first": (lines(HEAD, "t{i},1{i}/02/2014 10:00,-122.4,37.7\n"), Feed()),
    "twelve hours": (lines(HEAD, "t{i},0{i}-FEB-14 09.00.00 AM,-122.4,37.7\n"), Feed()),
    "a format": (lines(HEAD, "t{i},1{i}.02. 2014,-122.4,37.7\n"), Feed(time_format="%d.%m. %Y")),
    "date and clock": (lines("vehicle,date,time,lon,lat\n", "t{i},2014-02-02,10:0{i},-122.4,37.7\n"), Feed()),
    "points": (lines("vehicle;time;geom\n", "t{i};140000000{i};POINT(-122.4{i} 37.7)\n"), Feed()),
    "bytes of points": (
        lines("vehicle;time;geom\n", "t{i};140000000{i};0101000000000000000000F03F0000000000000040\n"), Feed(),
    ),
    "pairs": (lines("vehicle;time;location\n", "t{i};140000000{i};37.7,-122.4{i}\n"), Feed()),
    "UTF-16": (lines(HEAD, "t{i},140000000{i},-122.4,37.7\n").decode().encode("utf-16"), Feed()),
    "GBK": (
        "车,time,lon,lat\n川A,1400000000,-122.4,37.7\n".encode("gbk"),
        Feed(encoding="gbk", columns={"vehicle": "车"}),
    ),
    "an array of JSON": (
        b'{"data": [\n' + lines("", '{{"id": "t{i}", "ts": 140000000{i}, "lon": -122.4, "lat": 37.7}},\n')[:-2] + b"]}",
        Feed(),
    ),
    "nested JSON": (
        lines("", '{{"v": {{"id": "t{i}"}}, "ts": 140000000{i}, "p": {{"lon": -122.4, "lat": 37.7}}}}\n'), Feed(),
    ),
    "hours that occur twice": (
        (HEAD + "".join(f"a,2014-11-02 0{hour}:{i}0:00,-122.4,37.7\n" for hour in "0112" for i in range(N))).encode(),
        Feed(),
    ),
    "trips of hours that occur twice": (
        b"start_time,start_lon,start_lat,end_time,end_lon,end_lat\n"
        + b"".join(
            f"2014-11-02 01:{start},-122.4,37.7,2014-11-02 0{end},-122.5,37.8\n".encode()
            for start, end in (("05", "1:20"), ("55", "1:02"), ("04", "1:30"), ("50", "2:05"))
        ), Feed(),
    ),
    "words for occupied": (hired("Hired", "free", "重车", "空车", "", "1"), Feed(trips=True)),
    "values that mean occupied": (
        hired("POB", "STC", "pob", "x", "", "1"), Feed(trips=True, occupied_values=("POB",)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@settings(derandomize=True, deadline=None, database=None, max_examples=100)
@given(st.data())
def test_damaged_files_of_other_forms(folder: Path, form: str, data: st.DataObject) -> None:
    text, feed = FORMS[form]
    city = CITY.model_copy(update={"feed": feed})
    name = "jsonl" if "JSON" in form else "csv"
    (folder / "form").write_bytes(text)
    assert sum(len(batch.records) for batch in check_read(folder / "form", city, name) or []) > 0
    (folder / "form").write_bytes(data.draw(damaged(text), label="text"))
    batches = check_read(folder / "form", city, name)
    if batches is not None:
        kept = sum(len(batch.records) for batch in batches)
        assert sum(batch.rows for batch in batches) == kept + sum(batch.dropped.total() for batch in batches)


@settings(derandomize=True, deadline=None, database=None, max_examples=100)
@given(st.sampled_from(["snappy", "zstd"]).flatmap(lambda compression: damaged(parquet(compression))))
def test_damaged_compressed_parquet(folder: Path, data: bytes) -> None:
    (folder / "a.parquet").write_bytes(data)
    check_read(folder / "a.parquet", CITY, None)


@pytest.mark.parametrize("name", ["tdrive", "csv", "tlc", "jsonl", "cabspotting", "porto"])
def test_a_file_that_ends_anywhere(folder: Path, name: str) -> None:
    file_name, text = GOOD[name]
    for end in range(1, len(text), 3):
        (folder / file_name).write_bytes(text[:end])
        check_read(folder / file_name, CITY, name)
        check_read(folder / file_name, CITY, None)


# Readers and loaders in a process of their own, which may neither crash nor grow: `make fuzz` does so for an hour.

SECONDS = float(os.environ.get("FUZZ_SECONDS", "4"))
BUDGET_MB = 1024


@pytest.mark.slow
def test_readers_and_loaders_neither_crash_nor_grow(trained: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell how large a process was at most")
    import resource

    folder = tmp_path / "fuzz"
    (folder / "readers").mkdir(parents=True)
    (folder / "tried").mkdir()
    shutil.copytree(trained, folder / "city", ignore=shutil.ignore_patterns("gps", "fuzz"))
    texts = {f"{number}.csv": text for number, (text, _) in enumerate(FORMS.values())}
    packings = {"new_b.txt.gz": gzip.compress, "new_c.txt.bz2": bz2.compress, "new_d.txt.xz": lzma.compress}
    packed = {name: pack(GOOD["cabspotting"][1]) for name, pack in packings.items()}
    of_archives = {f"archive-{i}": content for i, content in enumerate(archives())}
    for name, content in (dict(GOOD.values()) | texts | packed | of_archives | {"z.parquet": parquet("zstd")}).items():
        (folder / "readers" / name).write_bytes(content)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))

    words = [sys.executable, "-m", "tests.fuzz", str(folder), str(SECONDS), os.environ.get("FUZZ_SEED", "0")]
    ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=limited)  # noqa: PLW1509
    assert ran.stdout, f"the process ended with {ran.returncode}; it read a file of {folder}"
    found = json.loads(ran.stdout)
    print(json.dumps(found, indent=2))
    assert found["failure"] == ""
    assert found["peak"] < BUDGET_MB
    assert sum(found["tried"].values()) > SECONDS
