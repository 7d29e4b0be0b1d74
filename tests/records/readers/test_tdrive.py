"""T-Drive files: what is one, what is a row, and local times as the clocks show them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.errors import InputError
from trafficcast.records.readers import find_records, read, tdrive
from trafficcast.records.records import SECOND_US, Batch, Points
from trafficcast.records.sources import find_sources

CITY = City(west=116.2, east=116.6, south=39.75, north=40.05, timezone="Asia/Shanghai", name="beijing")
NEW_YORK = City(west=-74.05, east=-73.9, south=40.6, north=40.9, timezone="America/New_York", name="new-york")
GOOD = b"1131,2008-02-02 13:30:48,116.43221,39.92245\n"
GOOD_ROW = ("1131", 1201930248 * SECOND_US, 116.43221, 39.92245, -1)  # 05:30:48 UTC


def read_all(folder: Path, text: bytes, city: City = CITY) -> list[Batch]:
    (folder / "1131.txt").write_bytes(text)
    [source] = find_sources(str(folder / "1131.txt"))
    return list(read(source, city, "tdrive"))


def rows_of(batch: Batch) -> list[tuple[str, int, float, float, int]]:
    points = batch.records
    assert isinstance(points, Points)
    names = [batch.vehicles[code] for code in points.vehicle]
    columns = (points.time, points.lon, points.lat, points.occupied)
    return list(zip(names, *(column.tolist() for column in columns), strict=True))


def recognised(folder: Path, text: bytes) -> bool:
    (folder / "1131.txt").write_bytes(text)
    [source] = find_sources(str(folder / "1131.txt"))
    return tdrive.recognise(source, source.head(4096))


def test_a_file_as_published(tmp_path: Path) -> None:
    [batch] = read_all(tmp_path, GOOD + b"1131,2008-02-02 13:40:48,116.43212,39.9223\n")
    assert rows_of(batch) == [GOOD_ROW, ("1131", 1201930848 * SECOND_US, 116.43212, 39.9223, -1)]
    assert (batch.rows, +batch.dropped, batch.notes, batch.vehicles) == (2, {}, (), ["1131"])


def test_a_folder_of_published_files_with_empty_ones_among_them(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_bytes(GOOD)
    (tmp_path / "2.txt").write_bytes(b"")
    (tmp_path / "3.txt").write_bytes(GOOD.replace(b"1131,", b"3,"))
    (tmp_path / "user_guide.txt").write_bytes(b"T-Drive, of 10,357 taxis, 2008-02-02 to 2008-02-08\n")
    found, passed_over = find_records(str(tmp_path), CITY)
    assert [(source.name, name) for source, name in found] == [("1.txt", "tdrive"), ("3.txt", "tdrive")]
    assert [line.partition(" is ")[0][-14:] for line in passed_over] == [
        str(tmp_path / "2.txt")[-14:],
        "user_guide.txt",
    ]


def test_several_taxis_in_a_file(tmp_path: Path) -> None:
    other = GOOD.replace(b"1131,", b"7,")
    [batch] = read_all(tmp_path, GOOD + other + GOOD)
    assert [row[0] for row in rows_of(batch)] == ["1131", "7", "1131"]


KEPT = {
    "as published": (GOOD, GOOD_ROW),
    "no line break at the end": (GOOD.strip(), GOOD_ROW),
    "of Windows": (GOOD.replace(b"\n", b"\r\n"), GOOD_ROW),
    "a mark of UTF-8": (b"\xef\xbb\xbf" + GOOD, GOOD_ROW),
    "blank lines": (b"\n\n" + GOOD + b"\n", GOOD_ROW),
    "blanks around fields": (b" 1131, 2008-02-02 13:30:48 , 116.43221 , 39.92245 \n", GOOD_ROW),
    "a T": (GOOD.replace(b"02 13", b"02T13"), GOOD_ROW),
    "an offset": (GOOD.replace(b"48,", b"48+07:00,"), (GOOD_ROW[0], GOOD_ROW[1] + 3600 * SECOND_US, *GOOD_ROW[2:])),
    "fractions": (GOOD.replace(b"48,", b"48.1234567,"), (GOOD_ROW[0], GOOD_ROW[1] + 123_456, *GOOD_ROW[2:])),
    "a taxi of another name": (GOOD.replace(b"1131", b"\xe4\xba\xacB1"), ("京B1", *GOOD_ROW[1:])),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_row_in_other_writings(tmp_path: Path, case: str) -> None:
    text, row = KEPT[case]
    assert recognised(tmp_path, text)
    [batch] = read_all(tmp_path, text)
    assert rows_of(batch) == [row]
    assert (batch.rows, +batch.dropped) == (1, {})


DROPPED = {
    "a field missing": b"1131,2008-02-02 13:30:48,116.43221",
    "a field too many": GOOD.strip() + b",1",
    "no taxi": b",2008-02-02 13:30:48,116.43221,39.92245",
    "no time": b"1131,,116.43221,39.92245",
    "no such day": b"1131,2008-02-30 13:30:48,116.43221,39.92245",
    "a time of another kind": b"1131,13:30:48,116.43221,39.92245",
    "no longitude": b"1131,2008-02-02 13:30:48,,39.92245",
    "not a number": b"1131,2008-02-02 13:30:48,nan,39.92245",
    "infinite": b"1131,2008-02-02 13:30:48,116.43221,inf",
    "a word": b"1131,2008-02-02 13:30:48,116.43221,north",
    "hexadecimal": b"1131,2008-02-02 13:30:48,0x1p3,39.92245",
    "no text": b"\xff\xfe\x00\x01",
}


@pytest.mark.parametrize("case", DROPPED)
def test_a_row_that_cannot_be_read_is_dropped_and_counted(tmp_path: Path, case: str) -> None:
    [batch] = read_all(tmp_path, GOOD + DROPPED[case] + b"\n" + GOOD)
    assert rows_of(batch) == [GOOD_ROW, GOOD_ROW]
    assert (batch.rows, +batch.dropped) == (3, {"unparsable": 1})
    with pytest.raises(InputError, match=r"1131\.txt: not one row .*; line 1 is"):
        read_all(tmp_path, DROPPED[case] + b"\n")


def test_a_time_that_occurs_twice_and_one_that_is_skipped_are_dropped(tmp_path: Path) -> None:
    text = b"".join(
        b"1,%s,-73.98,40.75\n" % time
        for time in (
            b"2014-11-02 00:59:59",
            b"2014-11-02 01:00:00",  # twice, EDT and EST
            b"2014-11-02 01:59:59",  # twice
            b"2014-11-02 02:00:00",
            b"2014-03-09 01:59:59",
            b"2014-03-09 02:00:00",  # skipped
            b"2014-03-09 02:59:59",  # skipped
            b"2014-03-09 03:00:00",
        )
    )
    batch, of_fall = read_all(tmp_path, text, NEW_YORK)
    fall, spring = 1414904400 * SECOND_US, 1394348400 * SECOND_US  # 2014-11-02T05:00Z, 2014-03-09T07:00Z
    hour = 3600 * SECOND_US
    assert [row[1] for row in rows_of(batch)] == [
        fall - SECOND_US,
        fall + 2 * hour,
        spring - SECOND_US,
        spring,
    ]
    assert (batch.rows, +batch.dropped) == (6, {"clock": 2})
    assert (of_fall.rows, +of_fall.dropped) == (2, {"clock": 2})  # the neighbours leave it open


def test_the_feeds_clock_goes_before_the_citys(tmp_path: Path) -> None:
    city = CITY.model_copy(update={"feed": Feed(timezone="UTC")})
    [batch] = read_all(tmp_path, GOOD, city)
    assert rows_of(batch)[0][1] == GOOD_ROW[1] + 8 * 3600 * SECOND_US


@pytest.mark.parametrize(
    "text",
    [
        b"vehicle,time,lon,lat\n" + GOOD,  # a table with a header, whose columns may be in any order
        b"1131,2008-02-02 13:30:48,39.92245,116.43221\n",
        GOOD.replace(b",", b";"),
        b"1131,1201930248,116.43221,39.92245\n",
        GOOD.strip() + b",1\n",
        b"on 2008-02-02 13:30:48, 116 taxis\n",
        b"",
    ],
    ids=["header", "lat, lon", "semicolons", "unix time", "five fields", "prose", "nothing"],
)
def test_what_is_not_of_the_format(tmp_path: Path, text: bytes) -> None:
    assert not recognised(tmp_path, text)


@pytest.mark.parametrize("first", [b"1131,2008-02-02 13:30:48,,\n", b"1131\n", b"\n"])
def test_a_damaged_first_row_does_not_hide_the_format(tmp_path: Path, first: bytes) -> None:
    assert recognised(tmp_path, first + GOOD)


def test_a_long_file_comes_in_batches(tmp_path: Path) -> None:
    n = 250_000
    batches = read_all(tmp_path, GOOD * n + b"broken\n" + GOOD * n)
    assert len(batches) > 1
    assert max(len(batch.records) for batch in batches) < n * 1.8
    assert {row for batch in batches for row in set(rows_of(batch))} == {GOOD_ROW}
    assert [sum(len(batch.records) for batch in batches), sum(batch.rows for batch in batches)] == [2 * n, 2 * n + 1]
    assert sum((batch.dropped for batch in batches), Counter()) == {"unparsable": 1}
