"""Tables: which columns make which records, what their cells stand for, and what single bad rows and files lead to."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficcast.config.city import City
from trafficcast.config.feed import Feed, _ColumnNames
from trafficcast.errors import InputError
from trafficcast.records.readers import cell_values as cells
from trafficcast.records.readers import delimited, parquet_pages, read, recognise
from trafficcast.records.records import Batch, Points, Trips, ZoneTrips
from trafficcast.records.sources import Source, find_sources

CITY = City(west=9, east=10, south=45, north=46, timezone="Europe/Rome", name="rome")
START = 1_712_534_400  # 2024-04-08T00:00Z
HEADER = b"vehicle,time,lon,lat\n"
ROW = b"a,2024-04-08T00:00:00Z,9.5,45.5\n"
A_ROW = ("a", START * 10**6, 9.5, 45.5, -1)


def with_columns(timezone: str | None = None, **names: str) -> City:
    return CITY.model_copy(update={"feed": Feed(columns=_ColumnNames(**names), timezone=timezone)})


def source(folder: Path, data: bytes, name: str = "file") -> Source:
    (folder / name).write_bytes(data)
    return find_sources(str(folder / name))[0]


def parquet(folder: Path, columns: dict[str, Any], **options: Any) -> Source:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "file.parquet", **options)
    return find_sources(str(folder / "file.parquet"))[0]


def points(n: int = 2, **columns: Any) -> dict[str, Any]:
    usual = {"vehicle": ["a"] * n, "time": pa.array([START * 10**6] * n, pa.timestamp("us", "UTC"))}
    return {**usual, "lon": [9.5] * n, "lat": [45.5] * n, **columns}


def json_lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def rows_of(batches: list[Batch]) -> list[tuple[Any, ...]]:
    """All records as tuples, of points with the vehicle's name, of trips with their ids where there are any."""
    rows: list[tuple[Any, ...]] = []
    for batch in batches:
        arrays = {name: array.tolist() for name, array in batch.records.arrays().items()}
        if isinstance(batch.records, Points):
            arrays["vehicle"] = [batch.vehicles[code] for code in arrays["vehicle"]]
        elif not any(arrays["trip_id"]):
            del arrays["trip_id"]
        rows += zip(*arrays.values(), strict=True)
    return rows


def check(batches: list[Batch], **dropped: int) -> list[tuple[Any, ...]]:
    """All records, once rows, records and drops add up to each other and the drops are these."""
    found: dict[str, int] = {}
    for batch in batches:
        assert batch.rows == len(batch.records) + batch.dropped.total()
        for name, dtype in batch.records.DTYPES.items():
            assert getattr(batch.records, name).dtype == dtype
        for reason, n in batch.dropped.items():
            found[reason] = found.get(reason, 0) + n
    assert {reason: n for reason, n in found.items() if n} == dropped
    return rows_of(batches)


def read_csv(folder: Path, text: bytes, city: City = CITY, **dropped: int) -> list[tuple[Any, ...]]:
    return check(list(read(source(folder, text), city, "csv")), **dropped)


def local(text: str, zone: str = "Europe/Rome") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 10**6


# Recognition


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (HEADER, "csv"),
        (HEADER + ROW, "csv"),
        (b"\xef\xbb\xbf\n" + HEADER.replace(b",", b";"), "csv"),
        (b"Cab-ID|Date Time|Lng|Latitude\n", "csv"),
        (b"wagen,wann,laenge,breite\na,2024-04-08,9.5,45.5\n", "csv"),
        (b"a\t2024-04-08\t9.5\t45.5\nb\t2024-04-08\t9.5\t45.5\n", "csv"),
        (b"pickup_datetime,PULocationID,dropoff_datetime,DOLocationID\n", "tlc"),
        (json_lines({"id": "a", "ts": START, "lon": 9.5, "lat": 45.5}), "jsonl"),
        (json_lines({"id": "a", "ts": "2024-04-08", "lon": "9.5", "lat": "45.5"}), "jsonl"),
    ],
)
def test_what_is_recognised(tmp_path: Path, text: bytes, name: str) -> None:
    assert recognise(source(tmp_path, text), CITY) == name
    assert recognise(source(tmp_path, gzip.compress(text)), CITY) == name


@pytest.mark.parametrize(
    "text",
    [
        b"# Taxis, cabs, and more\n\nOf Rome, Milan, and Turin, in 2024, as they come.\n",
        b"Permission is hereby granted, free of charge, to any person\nobtaining a copy of this software, and\n",
        b"name,colour,shape\na,red,round\nb,green,long\n",
        b"a,b\n1,2\n3,4\n",
        HEADER + b"a,\0,9.5,45.5\n",
        json_lines({"type": "FeatureCollection", "features": [], "n": 1}),
        b'{\n  "id": "a",\n  "ts": 1,\n "lon": 9.5}\n',
        b"[1, 2, 3]\n[4, 5, 6]\n",
    ],
)
def test_what_is_not_recognised(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(InputError, match="no known format"):
        recognise(source(tmp_path, text), CITY)


# Columns


@pytest.mark.parametrize(
    "header",
    ["vehicle,time,lon,lat", "TAXI ID,Date-Time,LNG,Latitude", "medallion,ts,x,y", "device_id,Timestamp,Long,LAT"],
)
def test_usual_names(tmp_path: Path, header: str) -> None:
    assert read_csv(tmp_path, header.encode() + b"\n" + ROW) == [A_ROW]


def test_the_plainer_of_several_usual_names_is_taken(tmp_path: Path) -> None:
    assert read_csv(tmp_path, b"id,taxi_id,driver,ts,time,x,lon,lat\n7,a,d,1,2024-04-08T00:00:00Z,1,9.5,45.5\n") == [
        A_ROW
    ]


def test_configured_names_go_before_usual_ones(tmp_path: Path) -> None:
    city = with_columns(vehicle="wagen", time="t2")
    assert read_csv(tmp_path, b"vehicle,wagen,time,t2,lon,lat\nx,a,1,2024-04-08T00:00:00Z,9.5,45.5\n", city) == [A_ROW]


def test_a_file_without_a_header_has_its_columns_named_by_position(tmp_path: Path) -> None:
    city = with_columns(vehicle="2", time="0", lon="1", lat="3")
    row = b"2024-04-08T00:00:00Z;9.5;a;45.5\n"
    for mark in (b"", b"\xef\xbb\xbf"):
        assert read_csv(tmp_path, mark + row * 2, city) == [A_ROW] * 2
    assert read_csv(tmp_path, b"0;1;2;3\n" + row, city) == [A_ROW]
    assert read_csv(tmp_path, b"time;lon;vehicle;lat\n" + row, city, unparsable=1) == [A_ROW]


def test_a_file_without_a_header_and_without_names_is_told_how_to_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='where there is no header, name columns by position, "0" the first'):
        read_csv(tmp_path, ROW * 3)


def test_trips_and_trips_between_zones(tmp_path: Path) -> None:
    text = (
        b"pickup_datetime,pickup_longitude,pickup_latitude,dropoff_datetime,dropoff_longitude,dropoff_latitude\n"
        b"2024-04-08T00:00:00Z,9.5,45.5,2024-04-08T00:10:00Z,9.6,45.6\n"
    )
    [batch] = read(source(tmp_path, text), CITY, "csv")
    assert isinstance(batch.records, Trips)
    assert rows_of([batch]) == [(START * 10**6, 9.5, 45.5, (START + 600) * 10**6, 9.6, 45.6)]
    text = (
        b"PU_time,PULocationID,DO_time,DOLocationID\n"
        + f"{START},142,{START + 600},7\n{START},1.5,{START},7\n".encode()
    )
    [batch] = read(source(tmp_path, text), CITY, "csv")
    assert isinstance(batch.records, ZoneTrips)
    assert check([batch], unparsable=1) == [(START * 10**6, 142, (START + 600) * 10**6, 7)]


def test_one_column_may_be_two_things(tmp_path: Path) -> None:
    city = with_columns(pickup_time="t", dropoff_time="t", pickup_zone="a", dropoff_zone="b")
    row = {"t": START, "a": 1, "b": 2}
    text = b"t,a,b\n" + f"{START},1,2\n".encode()
    columns = {name: [value] for name, value in row.items()}
    for one, name in (
        (source(tmp_path, text), "csv"),
        (source(tmp_path, json_lines(row), "lines"), "jsonl"),
        (parquet(tmp_path, columns), "parquet"),
    ):
        assert check(list(read(one, city, name))) == [(START * 10**6, 1, START * 10**6, 2)]


@pytest.mark.parametrize(
    ("header", "names", "told"),
    [
        (
            b"car,time,lon",
            {},
            [r"known as its lat;", "'car', 'time', 'lon'", "[cities.rome.feed.columns]", 'lat = "NAME"'],
        ),
        (
            b"taxi,cab,time,lon,lat",
            {},
            [r"several columns that could be its vehicle: 'taxi', 'cab'", 'vehicle = "taxi"'],
        ),
        (b"taxi,time,lon,lon,lat", {"lon": "lon"}, [r"several columns that could be its lon: 'lon', 'lon'"]),
        (b"taxi,time,lon,lat", {"time": "when"}, [r"no column 'when'", "its time", "'taxi', 'time', 'lon', 'lat'"]),
        (b"taxi,time,lon,lat", {"time": "9", "lon": "1"}, ["no column '9'"]),
    ],
)
def test_columns_that_are_not_found_are_told_with_what_to_write(
    tmp_path: Path, header: bytes, names: dict[str, str], told: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        list(read(source(tmp_path, header + b"\n1,2,3,4,5\n"), with_columns(**names), "csv"))
    for part in [str(tmp_path / "file"), *told]:
        assert part in str(caught.value)


def test_json_keys_that_are_not_found_are_told_too(tmp_path: Path) -> None:
    for names, told in (
        ({}, "no column known as its vehicle or lat; its columns are 'wagen',"),
        ({"lat": "y"}, "no column 'y'"),
    ):
        with pytest.raises(InputError, match=told):
            list(
                read(
                    source(tmp_path, json_lines({"wagen": 1, "ts": 2, "lon": 3, "x": 4})),
                    with_columns(**names),
                    "jsonl",
                )
            )


# CSV


@pytest.mark.parametrize("delimiter", [b",", b";", b"\t", b"|"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_delimiters_and_line_ends(tmp_path: Path, delimiter: bytes, newline: bytes) -> None:
    text = (HEADER + ROW * 3).replace(b",", delimiter).replace(b"\n", newline)
    for mark in (b"", b"\xef\xbb\xbf", newline):
        assert read_csv(tmp_path, mark + text) == [A_ROW] * 3
    assert read_csv(tmp_path, text.rstrip(newline)) == [A_ROW] * 3


def test_mixed_line_ends_and_blank_lines(tmp_path: Path) -> None:
    row = ROW.strip()
    assert read_csv(tmp_path, HEADER + row + b"\r\n\r\n" + row + b"\n\n" + row + b"\r" + row) == [A_ROW] * 4


@pytest.mark.parametrize("block_bytes", [delimited._BLOCK_BYTES, 64])
def test_ids_are_text_with_whatever_is_in_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", block_bytes)
    names = ['a "b"', "a,b", "a\nb", "007", "-7", "\u4e0a\u6d77", "\u010c\u00f3", "18446744073709551615", "x" * 70]
    rest = ",2024-04-08T00:00:00Z,9.5,45.5\n"
    text = HEADER.decode() + "".join('"' + name.replace('"', '""') + '"' + rest for name in names * 3)
    assert [row[0] for row in read_csv(tmp_path, text.encode())] == names * 3
    assert read_csv(tmp_path, HEADER + b" a \t" + rest.encode() + ROW) == [A_ROW] * 2
    latin = "\u010c\u00f3".encode("utf-8") + b"\xf3"
    assert {row[0] for row in read_csv(tmp_path, HEADER + latin + rest.encode())} == {"\u010c\u00f3\\xf3"}


BAD_ROWS = [
    b"a,2024-04-08T00:00:00Z,9.5\n", b"a,2024-04-08T00:00:00Z,9.5,45.5,1\n", b",2024-04-08T00:00:00Z,9.5,45.5\n",
    b"a,,9.5,45.5\n", b"a,soon,9.5,45.5\n", b"a,2024-02-30T00:00:00Z,9.5,45.5\n", b"a,1712534400,9.5,45.5\n",
    b"a,2024-04-08T00:00:00Z,,45.5\n", b"a,2024-04-08T00:00:00Z,nan,45.5\n", b"a,2024-04-08T00:00:00Z,inf,45.5\n",
    b"a,2024-04-08T00:00:00Z,1e999,45.5\n", b"a,2024-04-08T00:00:00Z,0x9,45.5\n", b"a,2024-04-08T00:00:00Z,9_5,45.5\n",
    b"a,2024-04-08T00:00:00Z,9.5,north\n", b"a,2024-04-08T00:00:00Z,9.5 E,45.5\n", b",,,\n", b"nonsense\n", HEADER,
    b'"a,2024-04-08T00:00:00Z,9.5,45.5\n', b"a,\xff,9.5,45.5\n", b"   ,2024-04-08T00:00:00Z,9.5,45.5\n",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_is_dropped_and_counted(tmp_path: Path, bad: bytes) -> None:
    assert read_csv(tmp_path, HEADER + ROW * 2 + bad + ROW * 2, unparsable=1) == [A_ROW] * 4
    with pytest.raises(InputError) as caught:
        read_csv(tmp_path, HEADER + bad * 3 + b"a,2024-04-08T00:00:00Z,9.5,nan\n" * 9)
    assert f"{tmp_path / 'file'}: not one row is a record; line 2 is " in str(caught.value)


def test_many_bad_rows_in_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 200)
    text = HEADER + b"".join(ROW + bad + ROW for bad in BAD_ROWS) * 3
    assert read_csv(tmp_path, text, unparsable=3 * len(BAD_ROWS)) == [A_ROW] * (6 * len(BAD_ROWS))


def test_a_quote_that_is_never_closed_costs_its_own_line_only(tmp_path: Path) -> None:
    for stray in (b'"b,2024-04-08T00:00:00Z,9.5,45.5\n', b'x,"\n', b'5"x,"2024,1,2\n'):
        assert read_csv(tmp_path, HEADER + ROW * 300 + stray + ROW * 300, unparsable=1) == [A_ROW] * 600


def test_empty_fields_beyond_the_header(tmp_path: Path) -> None:
    longer = ROW.strip() + b",,\n"
    assert read_csv(tmp_path, HEADER + longer * 3) == [A_ROW] * 3
    assert read_csv(tmp_path, HEADER + ROW * 3 + longer) == [A_ROW] * 4
    assert read_csv(tmp_path, HEADER + longer * 3 + ROW) == [A_ROW] * 4


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    text = b"".join(
        b"a,2024-04-08T00:00:00Z," + lon + b",45.5\n" for lon in (b"9.5", b" +9.5 ", b"95e-1", b'"9.5"', b"9.50")
    )
    assert read_csv(tmp_path, HEADER + text) == [A_ROW] * 5


def test_hexadecimal_numbers_are_none(tmp_path: Path) -> None:
    for number in (hex(START), hex(START).upper()):
        text = HEADER + f"0x1,{START},9.5,45.5\n".encode() * 2 + f"0x2,{number},9.5,45.5\n".encode()
        assert read_csv(tmp_path, text, unparsable=1) == [("0x1", *A_ROW[1:])] * 2


def test_a_header_alone_holds_no_records(tmp_path: Path) -> None:
    assert read_csv(tmp_path, HEADER) == []
    assert read_csv(tmp_path, HEADER.strip() + b"\r\n\r\n") == []


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", (HEADER + ROW).decode().encode("utf-16-le")])
def test_what_is_binary_is_refused(tmp_path: Path, data: bytes) -> None:
    for name in ("csv", "jsonl"):
        with pytest.raises(InputError, match=r"file is no text: it is binary, or UTF-16"):
            list(read(source(tmp_path, data), CITY, name))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(delimited, "_LINE_BYTES", 1_000)
    with pytest.raises(InputError, match="a line of more than"):
        read_csv(tmp_path, HEADER + ROW + b"x" * 2_000)


def test_a_long_first_bad_row_is_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_csv(tmp_path, b"\n" + HEADER + b"\n" + b"w" * 5_000 + b"\n")
    assert "line 4 is 'www" in str(caught.value)
    assert len(str(caught.value)) < 500


# Times


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2024-04-08T00:00:00Z", START * 10**6),
        ("2024-04-08 00:00:00.25Z", START * 10**6 + 250_000),
        ("2024-04-08T02:00:00+02:00", START * 10**6),
        ("2024-04-07T20:00:00-0400", START * 10**6),
        ("2024-04-08 00:00:00", local("2024-04-08T00:00")),
        ("2024-04-08T00:00:00.123456", local("2024-04-08T00:00") + 123_456),
        ("2024-04-08 00:00:00.123456999", local("2024-04-08T00:00") + 123_456),
        ("2024-04-08T00:00:00.123456999Z", START * 10**6 + 123_456),
        ("04/18/2024 02:00:00 PM", local("2024-04-18T14:00")),
        ("2024-04-08", local("2024-04-08T00:00")),
    ],
)
def test_times_as_text(tmp_path: Path, text: str, us: int) -> None:
    row = {"vehicle": "a", "time": text, "lon": 9.5, "lat": 45.5}
    assert read_csv(tmp_path, HEADER + f"a,{text},9.5,45.5\n".encode() * 2) == [("a", us, 9.5, 45.5, -1)] * 2
    assert check(list(read(source(tmp_path, json_lines(row)), CITY, "jsonl"))) == [("a", us, 9.5, 45.5, -1)]
    columns = {name: pa.array([value]) for name, value in row.items()}
    assert check(list(read(parquet(tmp_path, columns), CITY))) == [("a", us, 9.5, 45.5, -1)]


def test_times_with_and_without_offset_in_one_file(tmp_path: Path) -> None:
    text = b"a,2024-04-08T02:00:00,9.5,45.5\n" + ROW
    assert read_csv(tmp_path, HEADER + text) == [A_ROW] * 2


def test_the_feeds_zone_goes_before_the_citys(tmp_path: Path) -> None:
    city = with_columns(timezone="Asia/Shanghai")
    assert read_csv(tmp_path, HEADER + b"a,2024-04-08 08:00:00,9.5,45.5\n", city) == [A_ROW]


NIGHTS = [
    "2024-03-31T01:59:59",
    "2024-03-31T02:00:00",
    "2024-03-31T02:59:59",
    "2024-03-31T03:00:00",
    "2024-10-27T02:30:00",
]


def test_local_times_that_the_clocks_skip_or_repeat_are_dropped_as_such(tmp_path: Path) -> None:
    wanted = [("a", local(NIGHTS[i]), 9.5, 45.5, -1) for i in (0, 3)]
    text = HEADER + "".join(f"a,{night},9.5,45.5\n" for night in NIGHTS).encode()
    assert read_csv(tmp_path, text, clock=3) == wanted
    assert read_csv(tmp_path, text + b"a,2024-03-31T02:00:00,x,1\n", clock=3, unparsable=1) == wanted
    rows = [{"vehicle": "a", "time": night, "lon": 9.5, "lat": 45.5} for night in NIGHTS]
    assert check(list(read(source(tmp_path, json_lines(*rows)), CITY, "jsonl")), clock=3) == wanted
    moments = [datetime.fromisoformat(night) for night in NIGHTS]
    for unit in ("s", "ms", "us", "ns"):
        times = pa.array(moments, pa.timestamp(unit))
        columns = {"vehicle": ["a"] * 5, "time": times, "lon": [9.5] * 5, "lat": [45.5] * 5}
        assert check(list(read(parquet(tmp_path, columns), CITY)), clock=3) == wanted


FACTORS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@pytest.mark.parametrize("unit", FACTORS)
def test_the_unit_of_numbers_is_that_of_most_rows_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 300)
    monkeypatch.setattr(parquet_pages, "_BATCH_ROWS", 20)
    numbers = [5] * 60 + [(START + i) * FACTORS[unit] for i in range(100)]
    wanted = [(START + i) * 10**6 for i in range(100)]
    lines = "".join(f"a,{number},9.5,45.5\n" for number in numbers).encode()
    sources = {"csv": source(tmp_path, HEADER + lines, "csv")}
    text = pa.array([str(number) for number in numbers])
    for name, times in (("jsonl", numbers), ("jsonl of text", text.to_pylist())):
        rows = [{"vehicle": "a", "time": time, "lon": 9.5, "lat": 45.5} for time in times]
        sources[name] = source(tmp_path, json_lines(*rows), name)
    whole = pa.array(numbers)
    floats = pa.array(np.array(numbers, np.float64))
    for times in (
        whole,
        whole.cast(pa.uint64()),
        floats,
        whole.cast(pa.decimal128(25, 2)),
        text,
        text.dictionary_encode(),
    ):
        sources[f"parquet of {times.type}"] = parquet(tmp_path / str(len(sources)), points(160, time=times))
    for name, one in sources.items():
        batches = list(read(one, CITY, name.partition(" ")[0]))
        assert len(batches) > 1
        found = [row[1] for row in check(batches)]
        assert found[60:] == wanted, name
        notes = {note for batch in batches for note in batch.notes}
        assert notes == (set() if unit == "s" else {f"times are in {NAMES[unit]}"})


@pytest.mark.parametrize(
    ("number", "us"),
    [
        ("1712534400.123456", START * 10**6 + 123_456), ("1712534400.1234569", START * 10**6 + 123_456),
        ("1712534400.5", START * 10**6 + 500_000), ("1712534400.", START * 10**6), (" 1712534400 ", START * 10**6),
        ("1.7125344e9", START * 10**6), ("+1712534400", START * 10**6), ("-0.5", -500_000), ("-1.0000001", -1_000_001),
    ],
)  # fmt: skip
def test_numbers_as_text_are_times_digit_for_digit(tmp_path: Path, number: str, us: int) -> None:
    text = HEADER + f"a,{START},9.5,45.5\n".encode() * 3 + f"a,{number},9.5,45.5\n".encode()
    assert read_csv(tmp_path, text)[3] == ("a", us, 9.5, 45.5, -1)
    assert read_csv(tmp_path, text + b"a,soon,9.5,45.5\n", unparsable=1)[3][1] == us


def test_pick_ups_and_drop_offs_may_be_in_different_units(tmp_path: Path) -> None:
    text = f"pickup_time,pickup_zone,dropoff_time,dropoff_zone\n{START},1,{START}000,2\n".encode()
    [batch] = read(source(tmp_path, text), CITY, "csv")
    assert rows_of([batch]) == [(START * 10**6, 1, START * 10**6, 2)]
    assert batch.notes == ("times are in milliseconds",)


# Occupancy


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("0 1 1", [0, 1, 1]), ("true FALSE True", [1, 0, 1]), ("yes no y", [1, 0, 1]), ("0 3 2", [0, 1, 1]),
        ("0 -1 x", [0, -1, -1]), ("HIRED free Vacant", [1, 0, 0]), ("重车 空车", [1, 0]), ("Ocupado livre", [1, 0]),
        ("for_hire with-passenger Not_Hired", [0, 1, 0]), ("ocupa\u0301do OCCUPE\u0301", [-1, 1]),
        ("0.0 1.0 2.5", [0, 1, 1]), ("nan inf -", [-1, -1, -1]), ("inf 1 1", [-1, 1, 1]),
    ],
)  # fmt: skip
def test_occupied_as_text(tmp_path: Path, words: str, flags: list[int]) -> None:
    rows = "".join(f"a,2024-04-08T00:00:00Z,9.5,45.5,{word}\n" for word in [*words.split(), ""])
    assert [row[4] for row in read_csv(tmp_path, b"cab,time,lon,lat,hired\n" + rows.encode())] == [*flags, -1]


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        (pa.array([True, False, None]), [1, 0, -1]), (pa.array([0, 2, None], pa.uint8()), [0, 1, -1]),
        (pa.array([0, 1, 1], pa.int8()), [0, 1, 1]), (pa.array([-3, 1, 7], pa.int8()), [-1, 1, 1]),
        (pa.array([0.0, 0.5, float("nan")]), [0, 1, -1]), (pa.nulls(3), [-1] * 3),
        (pa.array(["1", "no", None]), [1, 0, -1]),
        (pa.array(["yes", "no", None]).dictionary_encode(), [1, 0, -1]),
        (pa.array([1, 0, 1]).dictionary_encode(), [1, 0, 1]),
    ],
)  # fmt: skip
def test_occupied_of_any_type(values: pa.Array, flags: list[int]) -> None:
    found = cells._occupancy(values)
    assert found.dtype == np.int8
    assert found.tolist() == flags


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        (pa.array(["POB", "FREE", "pob ", None, "N/A", "busy"]), [1, 0, 1, -1, -1, 0]),
        (pa.array([3, 1, 7, None]), [1, 0, 1, -1]), (pa.array([3.0, 1.0, float("nan")]), [1, 0, -1]),
        (pa.array([7, 0], pa.int8()), [1, 0]), (pa.array(["3", "03"]).dictionary_encode(), [1, 0]),
        (pa.array([True, False]), [0, 0]),
    ],
)  # fmt: skip
def test_occupied_by_the_values_that_the_feed_lists(values: pa.Array, flags: list[int]) -> None:
    assert cells._occupancy(values, ("POB", "3", "7")).tolist() == flags


# Parquet


@pytest.mark.parametrize(
    ("vehicles", "names"),
    [
        (pa.array([7, -7], pa.int8()), ["7", "-7"]), (pa.array([2**64 - 1, 0], pa.uint64()), [str(2**64 - 1), "0"]),
        (pa.array(["x", " y "], pa.large_string()), ["x", "y"]),
        (pa.array(["x", "x "]).dictionary_encode(), ["x", "x"]),
        (pa.array(["x", "y"], pa.string_view()), ["x", "y"]), (pa.array([b"x", b"\xff"]), ["x", "\\xff"]),
        (pa.array([12.0, 1.5]), ["12", "1.5"]), (pa.array([Decimal(12), Decimal(13)]), ["12", "13"]),
        (pa.array([1, 2]).dictionary_encode(), ["1", "2"]),
    ],
)  # fmt: skip
def test_vehicles_of_any_type(tmp_path: Path, vehicles: pa.Array, names: list[str]) -> None:
    rows = check(list(read(parquet(tmp_path, points(vehicle=vehicles)), CITY)))
    assert rows == [(name, *A_ROW[1:]) for name in names]


@pytest.mark.parametrize(
    ("vehicles", "names"),
    [
        (pa.array(["x", None, "", "  ", "y"]), ["x", "y"]), (pa.array([1, None, None, None, 2]), ["1", "2"]),
        (pa.array([1.0, None, float("nan"), float("inf"), 2.0]), ["1", "2"]),
        (pa.array(["x", None, "", None, "y"]).dictionary_encode(), ["x", "y"]),
    ],
)  # fmt: skip
def test_vehicles_without_a_name_are_dropped(tmp_path: Path, vehicles: pa.Array, names: list[str]) -> None:
    rows = check(list(read(parquet(tmp_path, points(5, vehicle=vehicles)), CITY)), unparsable=3)
    assert [row[0] for row in rows] == names


@pytest.mark.parametrize(
    "degrees",
    [
        pa.array([9.5, None, float("nan"), float("-inf")]), pa.array([9.5, None, float("nan"), None], pa.float32()),
        pa.array(["9.5", None, "x", ""]), pa.array([Decimal("9.5"), None, None, None]),
        pa.array(["9.5", None, "x", ""]).dictionary_encode(),
    ],
)  # fmt: skip
def test_coordinates_of_any_type(tmp_path: Path, degrees: pa.Array) -> None:
    assert check(list(read(parquet(tmp_path, points(4, lon=degrees)), CITY)), unparsable=3) == [A_ROW]


@pytest.mark.parametrize(
    ("times", "us"),
    [
        (pa.array([START, None], pa.timestamp("s", "UTC")), START * 10**6),
        (pa.array([START * 10**9 + 1_999, None], pa.timestamp("ns", "Asia/Tokyo")), START * 10**6 + 1),
        (pa.array([START * 10**6, None], pa.timestamp("us")), START * 10**6 - 7_200 * 10**6),
        (pa.array([date(2024, 4, 8), None], pa.date32()), START * 10**6 - 7_200 * 10**6),
        (pa.array([date(2024, 4, 8), None], pa.date64()), START * 10**6 - 7_200 * 10**6),
        (pa.array([START, None], pa.int32()), START * 10**6), (pa.array([START + 0.5, None]), START * 10**6 + 500_000),
        (pa.array([Decimal(f"{START}.123456789"), None]), START * 10**6 + 123_456),
        (pa.array([START + 0.5, float("nan")]), START * 10**6 + 500_000),
    ],
)  # fmt: skip
def test_times_of_any_type(tmp_path: Path, times: pa.Array, us: int) -> None:
    rows = check(list(read(parquet(tmp_path, points(time=times)), CITY)), unparsable=1)
    assert rows == [("a", us, 9.5, 45.5, -1)]


def test_times_beyond_64_bits_of_microseconds_stay_implausible() -> None:
    for times in (
        pa.array([2**64 - 1, 0], pa.uint64()),
        pa.array([2**63 - 1, -(2**63)], pa.int64()),
        pa.array([2**63 - 1, -(2**63)], pa.timestamp("s", "UTC")),
        pa.array([1e300, -1e300]),
        pa.array(["9" * 30, "-" + "9" * 30]),
    ):
        us, ok, *_ = cells._times(times, ZoneInfo("UTC"), "s")
        assert ok is None
        assert ((us > 10**18) | (us <= 0)).all()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("lon", pa.array([True, False])), ("lat", pa.array([[1.0], [2.0]])),
        ("vehicle", pa.array([[1], [2]])), ("vehicle", pa.array([True, False])), ("time", pa.array([True, False])),
        ("lon", pa.array([START] * 2, pa.timestamp("s"))), ("time", pa.array([1, 2], pa.duration("s"))),
        ("time", pa.array([1, 2], pa.time32("s"))),
    ],
)  # fmt: skip
def test_a_column_of_an_impossible_type_is_refused(tmp_path: Path, field: str, values: pa.Array) -> None:
    with pytest.raises(InputError) as caught:
        list(read(parquet(tmp_path, points(**{field: values})), CITY))
    assert caught.match(rf"file\.parquet: column '{field}' is of type .*, which cannot be the {field}")


def test_columns_of_parquet_are_found_and_told_like_those_of_text(tmp_path: Path) -> None:
    columns = points()
    columns["wagen"] = columns.pop("vehicle")
    with pytest.raises(
        InputError, match=r"no column known as its vehicle; its columns are 'time', 'lon', 'lat', 'wagen'"
    ):
        list(read(parquet(tmp_path, columns), CITY))
    assert check(list(read(parquet(tmp_path, columns), with_columns(vehicle="wagen")))) == [A_ROW] * 2


def test_parquet_in_batches_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "_BATCH_ROWS", 7)
    names = [f"cab {i % 13}" for i in range(100)]
    for vehicles in (names, pa.array(names).dictionary_encode(), list(range(100))):
        batches = list(read(parquet(tmp_path, points(100, vehicle=vehicles), row_group_size=30), CITY))
        assert max(len(batch.records) for batch in batches) == 7
        assert [row[0] for row in check(batches)] == (
            names if vehicles is not names and not isinstance(vehicles, list) else [str(v) for v in vehicles]
        )


def test_parquet_of_no_rows_holds_no_records(tmp_path: Path) -> None:
    empty = pa.table(points()).slice(0, 0)
    pq.write_table(empty, tmp_path / "a.parquet")
    pq.ParquetWriter(tmp_path / "b.parquet", empty.schema).close()
    for name in ("a", "b"):
        [one] = find_sources(str(tmp_path / f"{name}.parquet"))
        assert list(read(one, CITY)) == []
    assert list(read(parquet(tmp_path, {**points(0), "time": pa.array([], pa.string())}), CITY)) == []


def test_parquet_of_which_no_row_is_a_record_is_refused(tmp_path: Path) -> None:
    for columns in (points(lon=pa.nulls(2)), points(vehicle=pa.nulls(2)), points(time=pa.nulls(2))):
        with pytest.raises(InputError, match=r"file\.parquet: not one row is a record; line 1 is"):
            list(read(parquet(tmp_path, columns), CITY))


def test_parquet_packed_as_a_whole_and_damaged(tmp_path: Path) -> None:
    data = Path(parquet(tmp_path, points()).path).read_bytes()
    packed = source(tmp_path, gzip.compress(data), "a.parquet.gz")
    assert recognise(packed, CITY) == "parquet"
    assert check(list(read(packed, CITY))) == [A_ROW] * 2
    for damaged in (data[:-8], data[:4], b"PAR1" + data[100:]):
        with pytest.raises(InputError, match="cannot read .*a.parquet"):
            list(read(source(tmp_path, damaged, "a.parquet"), CITY, "parquet"))
    with pytest.raises(InputError, match="cannot read"):
        list(read(source(tmp_path, ROW, "a.csv"), CITY, "parquet"))


def test_only_the_needed_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = pq.ParquetFile.iter_batches

    def iter_batches(file: pq.ParquetFile, *args: Any, columns: list[str], **options: Any) -> Any:
        asked.extend(columns)
        return real(file, *args, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    assert check(list(read(parquet(tmp_path, points(speed=[1.0, 2.0], tags=[[1], [2]])), CITY))) == [A_ROW] * 2
    assert sorted(asked) == ["lat", "lon", "time", "vehicle"]


# JSON lines

GOOD = {"vehicle": "a", "time": "2024-04-08T00:00:00Z", "lon": 9.5, "lat": 45.5}
BAD_LINES = [
    b"nonsense", b"[1, 2]", b"{", b"7", b'"text"', b"{}", b'{"vehicle": "a"}', b"[" * 100_000,
    json_lines({**GOOD, "lon": None}), json_lines({**GOOD, "lon": "north"}), json_lines({**GOOD, "lon": [9.5]}),
    json_lines({**GOOD, "lon": True}), json_lines({**GOOD, "lat": float("nan")}),
    json_lines({**GOOD, "lat": float("inf")}),
    json_lines({**GOOD, "time": 7.5}), json_lines({**GOOD, "vehicle": ""}), json_lines({**GOOD, "vehicle": {"id": 1}}),
    b'{"vehicle": "\xff", "time": "x", "lon": 1, "lat": 2}', b'{"vehicle": 1' + b"0" * 5_000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("bad", range(len(BAD_LINES)))
def test_a_bad_line_is_dropped_and_counted(tmp_path: Path, bad: int) -> None:
    good = json_lines(GOOD)
    text = good * 2 + BAD_LINES[bad].strip() + b"\r\n\n" + good
    assert check(list(read(source(tmp_path, text), CITY, "jsonl")), unparsable=1) == [A_ROW] * 3


def test_json_values_of_any_type(tmp_path: Path) -> None:
    names = ["x", "\u4e0a\u6d77", 'a "b"\n', 7, -7, 2**70, 1.5, "\ud800"]
    rows = [{"extra": {"a": [1]}, **GOOD, "vehicle": name, "lon": lon} for name in names for lon in (9.5, "9.5")]
    text = json_lines(GOOD) + "".join(json.dumps(row) + "\n" for row in rows).encode()
    found = check(list(read(source(tmp_path, b"\xef\xbb\xbf" + text), CITY, "jsonl")))
    shown = ["x", "\u4e0a\u6d77", 'a "b"', "7", "-7", str(2**70), "1.5", "\\ud800"]
    assert [row[0] for row in found] == ["a", *(name for name in shown for _ in range(2))]
    assert {row[1:] for row in found} == {A_ROW[1:]}


def test_json_lines_that_come_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 300)
    text = (json_lines({**GOOD, "hired": True}) + json_lines({**GOOD, "hired": False}) + b"odd\n") * 20
    batches = list(read(source(tmp_path, text), CITY, "jsonl"))
    assert len(batches) > 5
    assert check(batches, unparsable=20) == [(*A_ROW[:4], 1), (*A_ROW[:4], 0)] * 20


def test_json_keys_may_come_late_or_in_another_order(tmp_path: Path) -> None:
    backwards = dict(reversed(GOOD.items()))
    text = b"\n" + json_lines({**GOOD, "vehicle": None}, backwards, {**GOOD, "occupied": 1})
    rows = check(list(read(source(tmp_path, text), CITY, "jsonl")), unparsable=1)
    assert rows == [A_ROW, (*A_ROW[:4], 1)]


def test_json_of_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"file: not one row is a record; line 1 is '\{\"vehicle\": null"):
        list(read(source(tmp_path, json_lines({**GOOD, "vehicle": None})), CITY, "jsonl"))
    with pytest.raises(InputError, match="has no JSON lines"):
        list(read(source(tmp_path, b"[1, 2]\n"), CITY, "jsonl"))


FIELDS = {
    "vehicle": ["a", "b", " a ", '"a,b"', '"a\nb"', "7", ""],
    "time": [
        "2024-04-08T00:00:00Z",
        "2024-03-31 02:30:00",
        "2024-10-27T02:30:00.5",
        "2024-04-08 00:00",
        "04/08/2024 01:00:00 AM",
    ],
    "lon": ["9.5", " 9.5", "1e1", "-.5", "nan", "-inf", "", "x", "9,5"],
    "occupied": ["0", "1", "2", "-1", "yes", "Hired", "空车", "x", ""],
}
EPOCHS = [str(START), f"{START}000", f"{START}.25", "-5", "1.7e9", "x", f" {START} "]


@settings(derandomize=True, deadline=None, database=None, max_examples=100)
@given(
    st.sampled_from([FIELDS["time"], EPOCHS]).flatmap(
        lambda times: st.lists(
            st.tuples(
                *map(st.sampled_from, (FIELDS["vehicle"], times, FIELDS["lon"], FIELDS["lon"], FIELDS["occupied"]))
            )
        )
    )
)
def test_text_is_the_same_read_as_types_and_as_text(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    text = "vehicle,time,lon,lat,occupied\n" + "".join(",".join(row) + "\n" for row in [*rows[:3] * 3, *rows])
    one = source(tmp_path_factory.getbasetemp(), text.encode(), "rows.csv")
    found: list[Any] = []
    for tries, block_bytes in ((delimited._TRIES, 1 << 20), (0, 1 << 20), (1_000, 40)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delimited, "_TRIES", tries)
            patch.setattr(delimited, "_BLOCK_BYTES", block_bytes)
            try:
                batches = list(read(one, CITY, "csv"))
                found.append((sum((batch.dropped for batch in batches), Counter()), sorted(rows_of(batches))))
            except InputError as error:
                found.append(str(error))
    assert found[1:] == found[:1] * 2


@pytest.mark.parametrize("name", ["trip_id", "Trip ID", "ride_id", "TRIP_ID"])
def test_a_trip_has_one_id_in_every_format(name: str, tmp_path: Path) -> None:
    ends = {"start_time": "2024-04-08T09:00Z", "start_lon": 9.5, "start_lat": 45.5}
    ends |= {"end_time": "2024-04-08T09:10Z", "end_lon": 9.6, "end_lat": 45.6}
    ids = [101, 102, None]
    text = ",".join([*ends, name]) + "\n"
    text += "".join(",".join(map(str, ends.values())) + f",{one}\n" for one in ("101", " 102 ", ""))
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.jsonl").write_bytes(json_lines(*({**ends, name: one} for one in ids)))
    columns = {key: [value] * 3 for key, value in ends.items()}
    pq.write_table(pa.table({**columns, name: pa.array(ids, pa.float64())}), tmp_path / "a.parquet")
    found = [
        [row[-1] for row in rows_of(list(read(find_sources(str(tmp_path / f"a.{form}"))[0], CITY, form)))]
        for form in ("csv", "jsonl", "parquet")
    ]
    assert found[0] == found[1] == found[2]
    assert len({*found[0]}) == 3 and found[0][2] == 0
