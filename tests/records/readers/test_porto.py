"""Porto's rides: places 15 s apart or trips, and that polylines read at once and line by line are the same."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.errors import InputError
from trafficcast.records.readers import find_records, porto, read
from trafficcast.records.records import SECOND_US, Batch, Points, Trips
from trafficcast.records.sources import find_sources

CITY = City(west=-8.7, east=-8.5, south=41.1, north=41.2, timezone="Europe/Lisbon", name="porto")
OF_TRIPS = CITY.model_copy(update={"feed": Feed(trips=True)})
HEADER = (
    b'"TRIP_ID","CALL_TYPE","ORIGIN_CALL","ORIGIN_STAND","TAXI_ID","TIMESTAMP","DAY_TYPE","MISSING_DATA","POLYLINE"\n'
)
START = 1372636858
LINE = "[[-8.618643,41.141412],[-8.618499,41.141376],[-8.620326,41.14251]]"
PLACES = [(-8.618643, 41.141412), (-8.618499, 41.141376), (-8.620326, 41.14251)]
Row = tuple[str, float, float, float, int]


def ride(
    polyline: str = LINE, taxi: str = "20000589", second: str = str(START), missing: str = "False", end: str = "\n"
) -> bytes:
    fields = ("1372636858620000589", "C", "", "", taxi, second, "A", missing, polyline)
    return (",".join(f'"{field}"' for field in fields) + end).encode()


GOOD = ride()
GOOD_ROWS = [("20000589", START + 15 * i, *place, 1) for i, place in enumerate(PLACES)]


def read_all(folder: Path, text: bytes, city: City = CITY) -> list[Batch]:
    (folder / "train.csv").write_bytes(text)
    [source] = find_sources(str(folder / "train.csv"))
    return list(read(source, city, "porto"))


def rows_of(batch: Batch) -> list[Row]:
    points = batch.records
    assert isinstance(points, Points)
    names = [batch.vehicles[code] for code in points.vehicle]
    columns = (points.time / SECOND_US, points.lon, points.lat, points.occupied)
    return list(zip(names, *(column.tolist() for column in columns), strict=True))


def trips_of(batch: Batch) -> list[tuple[float, ...]]:
    trips = batch.records
    assert isinstance(trips, Trips)
    columns = (
        trips.time / SECOND_US, trips.lon, trips.lat, trips.dropoff_time / SECOND_US, trips.dropoff_lon,
        trips.dropoff_lat,
    )  # fmt: skip
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_places_are_15_s_apart_and_their_taxi_is_occupied(tmp_path: Path) -> None:
    [batch] = read_all(tmp_path, HEADER + GOOD + ride("[[-8.6,41.15]]", "20000320", str(START + 1)))
    assert rows_of(batch) == [*GOOD_ROWS, ("20000320", START + 1, -8.6, 41.15, 1)]
    assert batch.vehicles == ["20000589", "20000320"]
    assert (batch.rows, +batch.dropped, batch.notes) == (2, {}, ())


def test_with_trips_a_ride_is_one_from_its_first_place_to_its_last(tmp_path: Path) -> None:
    text = HEADER + GOOD + ride("[]") + ride("[[-8.6,41.15]]", second=str(START + 1)) + ride("[[1]]")
    [batch] = read_all(tmp_path, text, OF_TRIPS)
    assert trips_of(batch) == [
        (START, *PLACES[0], START + 30, *PLACES[2]),
        (START + 1, -8.6, 41.15, START + 1, -8.6, 41.15),
    ]
    assert (batch.rows, +batch.dropped, batch.vehicles) == (4, {"unparsable": 1}, [])


def test_a_ride_without_places_is_a_row_without_records_and_no_mistake(tmp_path: Path) -> None:
    for city in (CITY, OF_TRIPS):
        [batch] = read_all(tmp_path, HEADER + ride("[]") + ride("[ ]"), city)
        assert (len(batch.records), batch.rows, +batch.dropped) == (0, 2, {})


def test_rides_of_missing_data_are_read_as_they_stand(tmp_path: Path) -> None:
    [batch] = read_all(tmp_path, HEADER + ride(missing="True"))
    assert rows_of(batch) == GOOD_ROWS


def test_columns_are_found_by_name_quoted_or_not(tmp_path: Path) -> None:
    text = f'POLYLINE,TIMESTAMP,TAXI_ID\r\n"{LINE}",{START},20000589\r\n'.encode()
    for marked in (text, b"\xef\xbb\xbf" + text):
        [batch] = read_all(tmp_path, marked)
        assert rows_of(batch) == GOOD_ROWS
        assert find_records(str(tmp_path), CITY)[0][0][1] == "porto"


DROPPED = {
    "no taxi": ride(taxi=""),
    "no time": ride(second=""),
    "a time that is a word": ride(second="noon"),
    "a time that is not a number": ride(second="nan"),
    "no polyline": ride(""),
    "a polyline cut off": ride(LINE[:-5]),
    "a bracket too many": ride(LINE + "]"),
    "a flat list": ride("[-8.6,41.1]"),
    "a place of one number": ride("[[-8.6],[-8.6,41.1]]"),
    "a place of three numbers": ride("[[-8.6,41.1,90.5]]"),
    "a place that is null": ride("[[-8.6,41.1],null]"),
    "a coordinate that is null": ride("[[-8.6,null]]"),
    "a coordinate that is text": ride("[[-8.6,'41.1']]"),
    "a coordinate that is true": ride("[[-8.6,true]]"),
    "not a number": ride("[[-8.6,NaN]]"),
    "infinite": ride("[[-8.6,1e999]]"),
    "an endless number": ride(f"[[-8.6,{'4' * 5000}]]"),
    "deeply nested": ride("[" * 20_000),
    "an object": ride("{}"),
    "a number": ride("7"),
    "a comma too many": ride("[[-8.6,41.1],]"),
    "leading zeros": ride("[[-008.6,41.1]]"),
    "a field missing": b'"1","C","","","20000589","1372636858","A","False"\n',
    "a field too many": ride(end=',"1"\n'),
    "not text": b"\xff\xfe\x01\n",
}


@pytest.mark.parametrize("case", DROPPED)
@pytest.mark.parametrize("city", [CITY, OF_TRIPS], ids=["points", "trips"])
def test_a_line_that_cannot_be_read_is_dropped_as_one_row(tmp_path: Path, city: City, case: str) -> None:
    [clean] = read_all(tmp_path, HEADER + GOOD + GOOD, city)
    [batch] = read_all(tmp_path, HEADER + GOOD + DROPPED[case] + GOOD, city)
    assert (batch.rows, +batch.dropped) == (3, {"unparsable": 1})
    for name, array in clean.records.arrays().items():
        np.testing.assert_array_equal(batch.records.arrays()[name], array)
    with pytest.raises(InputError, match=r"train\.csv: not one row .*; line 2 is"):
        read_all(tmp_path, HEADER + DROPPED[case], city)


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.csv is not Porto's file of rides: it has no column POLYLINE"):
        read_all(tmp_path, b"TAXI_ID,TIMESTAMP\n1,2\n")


@pytest.mark.parametrize(
    "text", [b"taxi_id,timestamp,lon,lat\n1,2,3,4\n", b"\0" + HEADER, LINE.encode(), b"", GOOD], ids=range(5)
)
def test_what_is_not_of_the_format(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "train.csv").write_bytes(text)
    [source] = find_sources(str(tmp_path / "train.csv"))
    assert not porto.recognise(source, source.head(4096))


def test_a_first_ride_longer_than_what_is_looked_at_does_not_hide_the_format(tmp_path: Path) -> None:
    long = "[" + ",".join(["[-8.618643,41.141412]"] * 10_000) + "]"
    (tmp_path / "train.csv").write_bytes(HEADER + ride(long))
    [(source, name)] = find_records(str(tmp_path), CITY)[0]
    [batch] = read(source, CITY, name)
    assert len(batch.records) == 10_000


def test_a_long_file_comes_in_batches(tmp_path: Path) -> None:
    n, long = 300, "[" + ",".join([LINE[1:-1]] * 600) + "]"
    batches = read_all(tmp_path, HEADER + ride(long) * n + b"broken\n" + ride(long) * n)
    assert len(batches) > 4
    assert 100_000 < max(len(batch.records) for batch in batches) < 400_000
    assert {row[2:] for batch in batches for row in rows_of(batch)} == {row[2:] for row in GOOD_ROWS}
    assert sum(len(batch.records) for batch in batches) == 2 * n * 600 * 3
    assert sum(batch.rows for batch in batches) == 2 * n + 1
    assert sum((batch.dropped for batch in batches), Counter()) == {"unparsable": 1}


NUMBERS = st.one_of(
    st.floats(-180, 180).map(repr),
    st.sampled_from(["0", "-0", "-8.6", "41", "1e1", "-1.5E-3", "007", "+1", ".5", "5.", "NaN", "1e999", "1234.5", ""]),
)
BLANKS = st.sampled_from(["", "", "", " ", "  ", "\t"])


@st.composite
def polylines(draw: st.DrawFn) -> str:
    places = draw(st.lists(st.lists(NUMBERS, min_size=0, max_size=3) | st.tuples(NUMBERS, NUMBERS), max_size=4))
    text = "[" + f",{draw(BLANKS)}".join("[" + f",{draw(BLANKS)}".join(place) + "]" for place in places) + "]"
    cut = draw(st.integers(0, 30))
    return text[:-cut] if cut in (1, 2, 3) else text


@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(st.lists(polylines(), max_size=6))
def test_polylines_are_what_json_says(lines: list[str]) -> None:
    places, n = porto._read_polylines(pa.array(lines, pa.string()))
    wanted: list[list[float]] = []
    for line, count in zip(lines, n.tolist(), strict=True):
        try:
            found = [[float(number) for number in place] for place in json.loads(line)]
        except ValueError:
            found = [[]]
        good = all(len(place) == 2 and all(map(math.isfinite, place)) for place in found)
        assert count == (len(found) if good else -1)
        wanted += found if good else []
    assert places.tolist() == wanted


def test_simulated_lines_are_what_csv_and_json_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rides = [
        ride(json.dumps(rng.normal((-8.6, 41.1), 0.05, (n, 2)).round(6).tolist()), str(20_000_000 + n), str(START + n))
        for n in rng.integers(0, 90, 200).tolist()
    ]
    text = HEADER + b"".join(rides)
    wanted: list[Row] = []
    for row in csv.DictReader(io.StringIO(text.decode())):
        for i, (lon, lat) in enumerate(json.loads(row["POLYLINE"])):
            wanted.append((row["TAXI_ID"], int(row["TIMESTAMP"]) + 15 * i, lon, lat, 1))
    [batch] = read_all(tmp_path, text)
    assert rows_of(batch) == wanted
