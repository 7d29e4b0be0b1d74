"""Cabspotting files: what is a row, what is dropped, and that the fast way and the plain one read the same."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers import cabspotting
from trafficcast.records.records import EARLIEST_US, SECOND_US, Batch, Points
from trafficcast.records.sources import find_sources

CITY = City(west=-122.52, east=-122.36, south=37.70, north=37.82, timezone="America/Los_Angeles")
GOOD = b"37.75134 -122.39488 1 1213084687"
GOOD_ROW = (37.75134, -122.39488, 1, 1213084687 * SECOND_US)
Row = tuple[float, float, int, int]  # lat, lon, occupied, microseconds


def points_of(batch: Batch) -> Points:
    assert isinstance(batch.records, Points)
    return batch.records


def rows_of(batch: Batch) -> list[Row]:
    points = points_of(batch)
    columns = (points.lat, points.lon, points.occupied, points.time)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def read_all(folder: Path, text: bytes, name: str = "new_abc.txt") -> list[Batch]:
    (folder / name).write_bytes(text)
    [source] = find_sources(str(folder / name))
    return list(cabspotting.read(source, CITY))


def read(folder: Path, text: bytes, name: str = "new_abc.txt") -> Batch:
    [batch] = read_all(folder, text, name)
    return batch


def recognised(folder: Path, text: bytes, name: str = "new_abc.txt") -> bool:
    (folder / name).write_bytes(text)
    [source] = find_sources(str(folder / name))
    return cabspotting.recognise(source, source.head())


def test_a_file_as_published(tmp_path: Path) -> None:
    batch = read(tmp_path, GOOD + b"\n37.75136 -122.39527 0 1213084659\n", "new_abboip.txt")
    assert rows_of(batch) == [GOOD_ROW, (37.75136, -122.39527, 0, 1213084659 * SECOND_US)]
    assert batch.vehicles == ["abboip"]
    assert points_of(batch).vehicle.tolist() == [0, 0]
    assert batch.rows == 2
    assert +batch.dropped == {}
    assert batch.notes == ()


DROPPED = {
    "a field missing": b"37.75134 -122.39488 1",
    "a field too many": b"37.75134 -122.39488 1 1213084687 9",
    "one field": b"37.75134",
    "not a number: latitude": b"nan -122.39488 1 1213084687",
    "not a number: longitude": b"37.75134 NaN 1 1213084687",
    "not a number: occupied": b"37.75134 -122.39488 nan 1213084687",
    "not a number: seconds": b"37.75134 -122.39488 1 nan",
    "infinite latitude": b"inf -122.39488 1 1213084687",
    "infinite longitude": b"37.75134 -Infinity 1 1213084687",
    "infinite seconds": b"37.75134 -122.39488 1 inf",
    "beyond a float": b"1e400 -122.39488 1 1213084687",
    "a header": b"lat lon occupied seconds",
    "an infinite coordinate of another unit": b"inf 0 1 1213084687000",
    "a word": b"37.75134 west 1 1213084687",
    "true is no number": b"37.75134 -122.39488 true 1213084687",
    "commas": b"37.75134,-122.39488,1,1213084687",
    "decimal comma": b"37,75134 -122.39488 1 1213084687",
    "underscores": b"37.75134 -122.39488 1 1_213_084_687",
    "hexadecimal seconds": b"37.75134 -122.39488 1 0x484E2A0F",
    "hexadecimal latitude": b"0x1p3 -122.39488 1 1213084687",
    "a quoted number": b'"37.75134" -122.39488 1 1213084687',
    "a date": b"37.75134 -122.39488 1 2008-06-10T07:58:07",
    "not text": b"\xff\xfe\x00\x01",
    "a digit of another script": "37.75134 -122.39488 1 \u0661213084687".encode(),
}
KEPT: dict[str, tuple[bytes, Row]] = {
    "as published": (GOOD, GOOD_ROW),
    "blanks around and between": (b"  37.75134   -122.39488 1  1213084687  ", GOOD_ROW),
    "tabs": (b"37.75134\t-122.39488\t1\t1213084687", GOOD_ROW),
    "plus signs": (b"+37.75134 -122.39488 +1 +1213084687", GOOD_ROW),
    "exponents": (b"3.775134e1 -1.2239488E+2 1e0 1.213084687e9", GOOD_ROW),
    "leading zeros": (b"037.75134 -122.39488 01 001213084687", GOOD_ROW),
    "bare points": (b"37. -.5 1. 1213084687.", (37.0, -0.5, 1, 1213084687 * SECOND_US)),
    "whole degrees": (b"37 -122 0 1213084687", (37.0, -122.0, 0, 1213084687 * SECOND_US)),
    "microseconds": (b"37 -122 0 1211033530.123456", (37.0, -122.0, 0, 1211033530123456)),
    "before 1970": (b"37 -122 0 -5", (37.0, -122.0, 0, -5 * SECOND_US)),
}


@pytest.mark.parametrize("line", DROPPED.values(), ids=DROPPED)
def test_a_row_that_is_not_four_finite_numbers_is_dropped_and_counted(tmp_path: Path, line: bytes) -> None:
    batch = read(tmp_path, b"\n".join([GOOD, line, GOOD]) + b"\n")
    assert rows_of(batch) == [GOOD_ROW, GOOD_ROW]
    assert batch.rows == 3
    assert +batch.dropped == {"unparsable": 1}


@pytest.mark.parametrize(("line", "row"), KEPT.values(), ids=KEPT)
def test_a_row_of_four_numbers_is_kept_however_they_are_written(tmp_path: Path, line: bytes, row: Row) -> None:
    batch = read(tmp_path, b"\n".join([GOOD, line]) + b"\n")
    assert rows_of(batch) == [GOOD_ROW, row]
    assert +batch.dropped == {}


@pytest.mark.parametrize("line", [*DROPPED.values(), *(line for line, _ in KEPT.values())])
def test_what_a_row_says_does_not_depend_on_the_other_rows(tmp_path: Path, line: bytes) -> None:
    alone = read(tmp_path, GOOD + b"\n" + line + b"\n")
    with_junk = read(tmp_path, GOOD + b"\n" + line + b"\nno row at all\n")  # which sends the file the plain way
    assert rows_of(alone) == rows_of(with_junk)
    assert with_junk.rows == alone.rows + 1
    assert with_junk.dropped["unparsable"] == alone.dropped["unparsable"] + 1


def test_a_byte_order_mark_makes_no_difference_between_the_two_ways(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD + b"\n"
    assert rows_of(read(tmp_path, text)) == rows_of(read(tmp_path, text + b"no row at all\n"))


def test_random_numbers_read_the_same_both_ways_to_the_last_bit(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    lines, wanted = [], []
    for _ in range(500):
        lat, lon, seconds = draw.uniform(-90, 90), draw.uniform(-180, 180), int(draw.integers(0, 2**31))
        digits = int(draw.integers(1, 18))
        words = f"{lat:.{digits}f}", f"{lon:.{digits}g}", str(draw.integers(0, 2)), str(seconds)
        lines.append(" ".join(words).encode())
        wanted.append((float(words[0]), float(words[1]), int(words[2]), seconds * SECOND_US))
    text = b"\n".join(lines) + b"\n"
    assert rows_of(read(tmp_path, text)) == wanted
    assert rows_of(read(tmp_path, text + b"no row at all\n")) == wanted


@pytest.mark.parametrize(
    ("word", "microseconds"),
    [
        ("1211033530.1234569", 1211033530123456),
        ("1211033530.123456", 1211033530123456),
        ("1211033530.999999999", 1211033530999999),
        ("1211033530.0000009", 1211033530000000),
        ("1211033530.5", 1211033530500000),
        ("4102444800.000001", 4102444800000001),
        ("1.2110335301234569e9", 1211033530123456),
        ("1211033530." + "1234569" + 30 * "9", 1211033530123456),
        ("1211033530." + 40 * "9", 1211033530999999),
    ],
)
def test_finer_digits_than_microseconds_are_cut_off(tmp_path: Path, word: str, microseconds: int) -> None:
    batch = read(tmp_path, f"37.7 -122.4 0 {word}\n".encode())
    assert points_of(batch).time.tolist() == [microseconds]


@pytest.mark.parametrize("junk", [b"", b"no row at all\n"], ids=["table", "lines"])
@pytest.mark.parametrize(
    "word",
    [
        "1211033530123",
        "-1211033530123",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854",
        40 * "9",
        "1e300",
    ],
)
def test_absurd_times_stay_out_of_time_and_do_not_wrap_around(tmp_path: Path, word: str, junk: bytes) -> None:
    batch = read(tmp_path, GOOD + f"\n37.7 -122.4 0 {word}\n".encode() + junk)
    good, absurd = points_of(batch).time.tolist()
    assert good == GOOD_ROW[3]
    assert absurd > 5_000_000_000 * SECOND_US if float(word) > 0 else absurd < EARLIEST_US
    assert batch.dropped["unparsable"] == len(junk.splitlines())


@pytest.mark.parametrize("junk", [b"", b"no row at all\n"], ids=["table", "lines"])
def test_blank_lines_are_no_rows(tmp_path: Path, junk: bytes) -> None:
    batch = read(tmp_path, b"\n\n" + GOOD + b"\n   \n\n" + GOOD + b"\n\n" + junk)
    assert rows_of(batch) == [GOOD_ROW, GOOD_ROW]
    assert batch.rows == 2 + len(junk.splitlines())
    assert batch.dropped["unparsable"] == len(junk.splitlines())


@pytest.mark.parametrize("junk", [b"", b"no row at all\r\n"], ids=["table", "lines"])
def test_windows_line_ends_and_a_last_line_without_one(tmp_path: Path, junk: bytes) -> None:
    batch = read(tmp_path, GOOD + b"\r\n" + junk + GOOD + b"\r\n" + GOOD)
    assert rows_of(batch) == [GOOD_ROW] * 3


@pytest.mark.parametrize("junk", [b"", b"no row at all"], ids=["table", "lines"])
def test_mixed_line_ends(tmp_path: Path, junk: bytes) -> None:
    batch = read(tmp_path, GOOD + b"\n" + GOOD + b"\r" + GOOD + b"\r\n" + GOOD + b"\n\r\n" + junk)
    assert rows_of(batch) == [GOOD_ROW] * 4
    assert batch.rows == 4 + bool(junk)


@pytest.mark.parametrize("text", [b"", b"\n", b" \r\n\n", b"\xef\xbb\xbf\n"])
def test_an_empty_file_holds_no_rows(tmp_path: Path, text: bytes) -> None:
    assert read_all(tmp_path, text) == []


def test_a_packed_file_is_read_alike(tmp_path: Path) -> None:
    text = GOOD + b"\n37.7 -122.4 0 1213084659\nno row at all\n"
    plain = read(tmp_path, text)
    for name, data in (
        ("new_abc.txt.gz", gzip.compress(text)),
        ("new_abc.txt.zst", pa.Codec("zstd").compress(text, asbytes=True)),
        ("new_abc.txt", gzip.compress(text)),  # unpacked by a program that left its name
        ("new_abc.txt.gz", text),
    ):
        packed = read(tmp_path, data, name)
        assert rows_of(packed) == rows_of(plain)
        assert packed.vehicles == plain.vehicles == ["abc"]
        assert packed.rows == plain.rows == 3


def test_files_in_an_archive_are_read_alike(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cabs.zip", "w") as archive:
        archive.writestr("2008/new_abc.txt", GOOD)
        archive.writestr("2008/new_x.txt.gz", gzip.compress(GOOD))
    batches = [batch for source in find_sources(str(tmp_path / "cabs.zip")) for batch in cabspotting.read(source, CITY)]
    assert [batch.vehicles for batch in batches] == [["abc"], ["x"]]
    assert [rows_of(batch) for batch in batches] == [[GOOD_ROW], [GOOD_ROW]]


def test_the_vehicle_is_in_the_name_of_the_file_in_whatever_folder(tmp_path: Path) -> None:
    for folder, name in (("a", "new_x.y.txt"), ("b/new_c.txt", "new_x.y.txt.gz")):
        (tmp_path / folder).mkdir(parents=True)
        text = GOOD if name.endswith("txt") else gzip.compress(GOOD)
        assert read(tmp_path / folder, text, name).vehicles == ["x.y"]


@pytest.mark.parametrize(
    ("name", "cab"),
    [
        ("new_a b'c\"d.txt", "a b'c\"d"),
        ("new_.txt.txt", ".txt"),
        ("new_new_a.txt.txt", "new_a.txt"),
        ("new_\u51fa\u79df-7.txt", "\u51fa\u79df-7"),
        ("new_a\nb.txt", "a\nb"),
        ("new_[1]*?.txt", "[1]*?"),
        (os.fsdecode(b"new_caf\xe9.txt"), "caf\\xe9"),
    ],
)
def test_odd_names_of_cabs(tmp_path: Path, name: str, cab: str) -> None:
    assert recognised(tmp_path, GOOD, name)
    [name_of] = read(tmp_path, GOOD, name).vehicles
    assert name_of == cab
    assert name_of.encode()


UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
NOTES = {
    "s": (),
    "ms": ("times are in milliseconds",),
    "us": ("times are in microseconds",),
    "ns": ("times are in nanoseconds",),
}


@pytest.mark.parametrize("junk", [b"", b"no row at all\n"], ids=["table", "lines"])
@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_of_the_times_is_seen_in_the_whole_file(tmp_path: Path, unit: str, junk: bytes) -> None:
    seconds = [1213084687, 1213084747, 1213084800]
    lines = [b"37.7 -122.4 0 %d" % (moment * UNITS[unit]) for moment in seconds]
    lines.insert(1, b"37.7 -122.4 0 0")  # plausible in no unit
    batch = read(tmp_path, b"\n".join(lines) + b"\n" + junk)
    assert points_of(batch).time.tolist() == [1213084687 * SECOND_US, 0, *(m * SECOND_US for m in seconds[1:])]
    assert batch.notes == NOTES[unit]
    assert batch.dropped["unparsable"] == len(junk.splitlines())


@pytest.mark.parametrize("junk", [b"", b"no row at all\n"], ids=["table", "lines"])
def test_the_greater_number_of_rows_says_the_unit_and_seconds_where_it_is_equal(tmp_path: Path, junk: bytes) -> None:
    seconds, milliseconds = b"37.7 -122.4 0 1213084687\n", b"37.7 -122.4 0 1213084687001\n"
    for text, unit in (
        (seconds + milliseconds, "s"),
        (milliseconds + seconds, "s"),
        (seconds + 2 * milliseconds, "ms"),
        (2 * seconds + 3 * b"nan -122.4 0 1213084687001\n" + 2 * b"37.7 -122.4 0 -1\n", "s"),
    ):
        assert read(tmp_path, text + junk).notes == NOTES[unit]
    mixed = points_of(read(tmp_path, 2 * milliseconds + seconds + junk)).time.tolist()
    assert mixed == [1213084687001000, 1213084687001000, 1213084687000]


@pytest.mark.parametrize(
    ("word", "microseconds"),
    [
        ("1211033530123", 1211033530123000),
        ("1211033530123.4567", 1211033530123456),
        ("1211033530123456", 1211033530123456),
        ("1211033530123456.9", 1211033530123456),
        ("1211033530123456789", 1211033530123456),
        ("1211033530123456999.9", 1211033530123456),
        ("1.211033530123456789e18", 1211033530123456),
    ],
)
def test_in_other_units_too_finer_digits_are_cut_off(tmp_path: Path, word: str, microseconds: int) -> None:
    for junk in (b"", b"no row at all\n"):
        batch = read(tmp_path, f"37.7 -122.4 0 {word}\n".encode() + junk)
        assert points_of(batch).time.tolist() == [microseconds]
        assert batch.notes


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("new_abc.txt", b"taxi_id,time,lon,lat\n1,2008-02-02 15:36:08,116.51172,39.92123\n"),
        ("new_abc.txt", b"\x89PNG\r\n\x1a\n\x00\x00"),
        ("new_abc.txt.gz", gzip.compress(b"1 2 3\n4 5 6\n")),
        ("new_abc.txt.gz", gzip.compress(GOOD * 1000)[:-20]),
        ("new_abc.txt.gz", gzip.compress(GOOD)[:5]),
        ("cab_abc.txt", GOOD),
        ("new_abc.txt.bak", GOOD),
        ("new_.txt", GOOD),
    ],
    ids=["csv", "binary", "three fields", "truncated", "header only", "name", "ending", "no cab"],
)
def test_what_is_no_cabspotting_file_is_refused_by_name(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(InputError, match=name):
        read(tmp_path, data, name)


def test_a_file_with_a_damaged_byte_in_the_gzip_stream_is_refused(tmp_path: Path) -> None:
    text = b"\n".join(f"37.7 -122.4 0 {1213084659 + i}".encode() for i in range(300))
    data = bytearray(gzip.compress(text))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(InputError, match=r"new_abc\.txt\.gz"):
        read(tmp_path, bytes(data), "new_abc.txt.gz")


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("new_abc.txt", GOOD, True),
        ("new_abc.txt.gz", gzip.compress(GOOD), True),
        ("new_abc.txt", b"lat lon occupied time\n" + GOOD, True),
        ("new_abc.txt", b"\xef\xbb\xbf" + GOOD + b"\r\n", True),
        ("new_abc.txt", GOOD + b"\r" + GOOD, True),
        ("new_abc.txt", b"\x89PNG\r\n\x1a\n\x00\x00", True),
        ("new_abc.txt", b"1,2008-02-02 15:36:08,116.51172,39.92123\n", False),
        ("new_abc.txt", b"what is new\n", False),
        ("abc.txt", GOOD, False),
        ("new_abc.csv", GOOD, False),
    ],
    ids=["plain", "packed", "header", "mark", "old ends", "damaged", "t-drive", "notes", "name", "ending"],
)
def test_a_cabs_file_is_told_by_its_name_and_its_rows(tmp_path: Path, name: str, data: bytes, wanted: bool) -> None:
    assert recognised(tmp_path, data, name) is wanted
