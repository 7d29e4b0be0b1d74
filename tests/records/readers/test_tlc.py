"""New York's trip records: the names of columns of all years and cars, coordinates or zones, CSV or Parquet."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trafficcast.config.city import City
from trafficcast.config.feed import Feed, _ColumnNames
from trafficcast.errors import InputError
from trafficcast.records.readers import find_records, read, tlc
from trafficcast.records.records import SECOND_US, Batch, Trips, ZoneTrips
from trafficcast.records.sources import find_sources

CITY = City(west=-74.05, east=-73.9, south=40.6, north=40.9, timezone="America/New_York", name="new-york")
BEGAN, ENDED = 1391175925, 1391176525  # 2014-01-31 08:45:25 and 08:55:25 in New York
TRIP = (BEGAN, -73.98, 40.75, ENDED, -73.95, 40.78)
ZONE_TRIP = (BEGAN, 142, ENDED, 236)

# Header and one row, as published.
COORDINATES = {
    "yellow 2009": (
        b"vendor_name,Trip_Pickup_DateTime,Trip_Dropoff_DateTime,Passenger_Count,Trip_Distance,Start_Lon,Start_Lat,"
        b"Rate_Code,store_and_forward,End_Lon,End_Lat,Payment_Type,Fare_Amt,surcharge,mta_tax,Tip_Amt,Tolls_Amt,"
        b"Total_Amt\n\n",
        b"VTS,2014-01-31 08:45:25,2014-01-31 08:55:25,1,2.63,-73.98,40.75,,,-73.95,40.78,CASH,8.9,0.5,,0,0,9.4\n",
    ),
    "yellow 2010": (
        b"vendor_id,pickup_datetime,dropoff_datetime,passenger_count,trip_distance,pickup_longitude,pickup_latitude,"
        b"rate_code,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount,surcharge,mta_tax,"
        b"tip_amount,tolls_amount,total_amount\r\n\r\n",
        b"VTS,2014-01-31 08:45:25,2014-01-31 08:55:25,1,0.75,-73.98,40.75,1,,-73.95,40.78,CAS,4.5,0,0.5,0,0,5\r\n",
    ),
    "yellow 2014": (
        b"vendor_id, pickup_datetime, dropoff_datetime, passenger_count, trip_distance, pickup_longitude, "
        b"pickup_latitude, rate_code, store_and_fwd_flag, dropoff_longitude, dropoff_latitude, payment_type\n\n",
        b"CMT,2014-01-31 08:45:25,2014-01-31 08:55:25,1,0.70,-73.98,40.75,1,N,-73.95,40.78,CRD\n",
    ),
    "yellow 2015": (
        b"VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,pickup_longitude,"
        b"pickup_latitude,RateCodeID,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount\n",
        b"2,2014-01-31 08:45:25,2014-01-31 08:55:25,1,1.59,-73.98,40.75,1,N,-73.95,40.78,1,12\n",
    ),
    "green 2014, of two more fields": (
        b"VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,Pickup_longitude,"
        b"Pickup_latitude,Dropoff_longitude,Dropoff_latitude,Passenger_count,Trip_distance,Trip_type \r\n\r\n",
        b"2,2014-01-31 08:45:25,2014-01-31 08:55:25,N,1,-73.98,40.75,-73.95,40.78,1,0.5,1,,\r\n",
    ),
    "stolen medallions 2013": (
        b"medallion, hack_license, vendor_id, rate_code, store_and_fwd_flag, pickup_datetime, dropoff_datetime, "
        b"passenger_count, trip_time_in_secs, trip_distance, pickup_longitude, pickup_latitude, dropoff_longitude, "
        b"dropoff_latitude\n",
        b"89D2,BA96,CMT,1,N,2014-01-31 08:45:25,2014-01-31 08:55:25,4,600,1.00,-73.98,40.75,-73.95,40.78\n",
    ),
    "both": (
        b"tpep_pickup_datetime,tpep_dropoff_datetime,PULocationID,DOLocationID,pickup_longitude,pickup_latitude,"
        b"dropoff_longitude,dropoff_latitude\n",
        b"2014-01-31 08:45:25,2014-01-31 08:55:25,142,236,-73.98,40.75,-73.95,40.78\n",
    ),
    "with twelve hours": (
        b"tpep_pickup_datetime,tpep_dropoff_datetime,pickup_longitude,pickup_latitude,dropoff_longitude,"
        b"dropoff_latitude\n",
        b"01/31/2014 08:45:25 AM,01/31/2014 08:55:25 AM,-73.98,40.75,-73.95,40.78\n",
    ),
}
ZONES = {
    "yellow 2016, of two more fields": (
        b"VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,RatecodeID,"
        b"store_and_fwd_flag,PULocationID,DOLocationID,payment_type,fare_amount\n",
        b"1,2014-01-31 08:45:25,2014-01-31 08:55:25,1,3.2,1,N,142,236,1,15,,\n",
    ),
    "green 2019": (
        b"VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,"
        b"DOLocationID,passenger_count,ehail_fee,congestion_surcharge\n",
        b"2,2014-01-31 08:45:25,2014-01-31 08:55:25,N,1,142,236,5,,\n",
    ),
    "for hire 2017": (
        b'"Dispatching_base_num","Pickup_DateTime","DropOff_datetime","PUlocationID","DOlocationID"\n',
        b'"B00001","2014-01-31 08:45:25","2014-01-31 08:55:25","142","236"\n',
    ),
    "for hire 2019": (
        b"hvfhs_license_num,dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag\n",
        b"HV0003,B02867,2014-01-31 08:45:25,2014-01-31 08:55:25,142,236,\n",
    ),
}
HEADER, ROW = COORDINATES["yellow 2015"]
ZONE_HEADER, ZONE_ROW = ZONES["green 2019"]


def write(folder: Path, text: bytes, name: str = "tripdata.csv") -> Path:
    (folder / name).write_bytes(text)
    return folder / name


def read_all(file: Path, city: City = CITY) -> list[Batch]:
    [source] = find_sources(str(file))
    return list(read(source, city, "tlc"))


def recognised(file: Path) -> str:
    [(_, name)], passed_over = find_records(str(file), CITY)
    assert passed_over == []
    return name


def rows_of(batch: Batch) -> list[tuple[float, ...]]:
    records = batch.records
    assert isinstance(records, Trips | ZoneTrips) and not records.trip_id.any()
    columns = [array / SECOND_US if "time" in name else array for name, array in records.arrays().items()][:-1]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def parquet(folder: Path, columns: dict[str, pa.Array]) -> Path:
    pq.write_table(pa.table(columns), folder / "tripdata.parquet")
    return folder / "tripdata.parquet"


def naive(*times: str | None) -> pa.Array:
    return pa.array([None if time is None else datetime.fromisoformat(time) for time in times], pa.timestamp("us"))


@pytest.mark.parametrize("case", [*COORDINATES, *ZONES])
def test_files_of_all_years(tmp_path: Path, case: str) -> None:
    header, row = {**COORDINATES, **ZONES}[case]
    file = write(tmp_path, header + row * 3)
    assert recognised(file) == "tlc"
    [batch] = read_all(file)
    assert rows_of(batch) == [TRIP if case in COORDINATES else ZONE_TRIP] * 3
    notes = ("times are written as %m/%d/%Y %I:%M:%S %p",) if case == "with twelve hours" else ()
    assert (batch.rows, +batch.dropped, batch.vehicles, batch.notes) == (3, {}, [], notes)


def test_parquet_of_coordinates_and_of_zones(tmp_path: Path) -> None:
    times = {
        "tpep_pickup_datetime": naive("2014-01-31T08:45:25", "2014-01-31T08:45:25"),
        "tpep_dropoff_datetime": naive("2014-01-31T08:55:25", "2014-01-31T08:55:25"),
    }
    zones = {"PULocationID": pa.array([142, 142]), "DOLocationID": pa.array([236, 236], pa.int32())}
    file = parquet(tmp_path, {**times, **zones})
    assert recognised(file) == "tlc"
    [batch] = read_all(file)
    assert rows_of(batch) == [ZONE_TRIP] * 2
    names = ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude")
    places = dict(zip(names, (pa.array([v, v]) for v in (-73.98, 40.75, -73.95, 40.78)), strict=True))
    file = parquet(tmp_path, {**zones, **times, **places})
    assert recognised(file) == "tlc"
    [batch] = read_all(file)
    assert rows_of(batch) == [TRIP] * 2


def test_parquet_of_2009_whose_times_are_text(tmp_path: Path) -> None:
    columns = {
        "Trip_Pickup_DateTime": pa.array(["2014-01-31 08:45:25"]),
        "Trip_Dropoff_DateTime": pa.array(["2014-01-31 08:55:25"]),
        "Start_Lon": pa.array([-73.98]),
        "Start_Lat": pa.array([40.75]),
        "End_Lon": pa.array([-73.95]),
        "End_Lat": pa.array([40.78]),
    }
    file = parquet(tmp_path, columns)
    assert recognised(file) == "tlc"
    [batch] = read_all(file)
    assert rows_of(batch) == [TRIP]


def test_parquet_with_nulls_and_of_zones_as_floats(tmp_path: Path) -> None:
    good = "2014-01-31T08:45:25", "2014-01-31T08:55:25"
    columns = {
        "pickup_datetime": naive(good[0], None, good[0], good[0], good[0]),
        "dropOff_datetime": naive(good[1], good[1], None, good[1], good[1]),
        "PUlocationID": pa.array([142.0, 142.0, 142.0, None, 142.0]),
        "DOlocationID": pa.array([236.0, 236.0, 236.0, 236.0, None]),
    }
    [batch] = read_all(parquet(tmp_path, columns))
    assert rows_of(batch) == [ZONE_TRIP]
    assert (batch.rows, +batch.dropped) == (5, {"unparsable": 4})


def test_packed_parquet(tmp_path: Path) -> None:
    columns = {
        "tpep_pickup_datetime": naive("2014-01-31T08:45:25"),
        "tpep_dropoff_datetime": naive("2014-01-31T08:55:25"),
        "PULocationID": pa.array([142]),
        "DOLocationID": pa.array([236]),
    }
    file = parquet(tmp_path, columns)
    packed = write(tmp_path, gzip.compress(file.read_bytes()), "packed.parquet.gz")
    [(source, name)], _ = find_records(str(packed), CITY)
    [batch] = read(source, CITY, name)
    assert rows_of(batch) == [ZONE_TRIP]


@pytest.mark.parametrize(
    "row",
    [
        b"2,,2014-01-31 08:55:25,1,1.59,-73.98,40.75,1,N,-73.95,40.78,1,12\n",
        b"2,2014-01-31 08:45:25,,1,1.59,-73.98,40.75,1,N,-73.95,40.78,1,12\n",
        b"2,2014-01-31 08:45:25,2014-01-31 08:55:25,1,1.59,,40.75,1,N,-73.95,40.78,1,12\n",
        b"2,2014-01-31 08:45:25,2014-01-31 08:55:25,1,1.59,-73.98,40.75,1,N,-73.95,nan,1,12\n",
        b"2,2014-01-31 08:45:25,2014-01-31 08:55:25,1,1.59,-73.98,40.75,1,N,-73.95,40.78,1\n",
        b"2,2014-01-31 08:45:25,2014-01-31 08:55:25,1,1.59,-73.98,40.75,1,N,-73.95,40.78,1,12,7\n",
        b"2,soon,2014-01-31 08:55:25,1,1.59,-73.98,40.75,1,N,-73.95,40.78,1,12\n",
    ],
)
def test_a_row_that_cannot_be_read_is_dropped_and_counted(tmp_path: Path, row: bytes) -> None:
    [batch] = read_all(write(tmp_path, HEADER + ROW + row + ROW))
    assert rows_of(batch) == [TRIP] * 2
    assert (batch.rows, +batch.dropped) == (3, {"unparsable": 1})
    with pytest.raises(InputError, match=r"tripdata\.csv: not one row .*; line 2 is"):
        read_all(write(tmp_path, HEADER + row))


@pytest.mark.parametrize("zone", [b"", b"142.5", b"nan", b"Midtown", b"1e30"])
def test_a_trip_without_a_zone_is_dropped(tmp_path: Path, zone: bytes) -> None:
    [batch] = read_all(write(tmp_path, ZONE_HEADER + ZONE_ROW + ZONE_ROW.replace(b"142", zone)))
    assert rows_of(batch) == [ZONE_TRIP]
    assert (batch.rows, +batch.dropped) == (2, {"unparsable": 1})


def test_unknown_places_are_left_to_what_comes_after(tmp_path: Path) -> None:
    row = ROW.replace(b"-73.98,40.75", b"0,0")
    [batch] = read_all(write(tmp_path, HEADER + row))
    assert rows_of(batch) == [(BEGAN, 0.0, 0.0, *TRIP[3:])]


@pytest.mark.parametrize("as_parquet", [False, True])
def test_clock_changes(tmp_path: Path, as_parquet: bool) -> None:
    pickups = ["2014-11-02T01:30:00", "2014-03-09T01:59:59", "2014-03-09T02:30:00", "2014-03-09T03:00:00"]
    dropoffs = ["2014-11-02T01:10:00", "2014-03-09T02:00:00", "2014-03-09T03:00:00", "2014-03-09T03:10:00"]
    if as_parquet:
        columns = {"tpep_pickup_datetime": naive(*pickups), "tpep_dropoff_datetime": naive(*dropoffs)}
        file = parquet(tmp_path, {**columns, "PULocationID": pa.array([1] * 4), "DOLocationID": pa.array([2] * 4)})
    else:
        rows = "".join(f"{began},{ended},1,2\n" for began, ended in zip(pickups, dropoffs, strict=True))
        header = "tpep_pickup_datetime,tpep_dropoff_datetime,PULocationID,DOLocationID\n"
        file = write(tmp_path, (header + rows.replace("T", " ")).encode())
    batch, of_fall = read_all(file)
    zone = ZoneInfo("America/New_York")
    wanted = [
        tuple(
            datetime.fromisoformat(time).replace(tzinfo=zone, fold=fold).timestamp()
            for fold, time in enumerate((pickups[i], dropoffs[i]))
        )
        for i in (3, 0)  # the trip that seems to end before it begins began before the clocks were set back
    ]
    assert [(row[0], row[2]) for row in (*rows_of(batch), *rows_of(of_fall))] == wanted
    assert (batch.rows, +batch.dropped) == (3, {"clock": 2})
    assert (of_fall.rows, +of_fall.dropped) == (1, {})


def test_the_feeds_clock_and_columns_go_before_the_usual(tmp_path: Path) -> None:
    columns = _ColumnNames(pickup_time="tpep_dropoff_datetime", dropoff_time="tpep_pickup_datetime")
    city = CITY.model_copy(update={"feed": Feed(timezone="UTC", columns=columns)})
    [batch] = read_all(write(tmp_path, HEADER + ROW), city)
    assert rows_of(batch) == [(ENDED - 5 * 3600, *TRIP[1:3], BEGAN - 5 * 3600, *TRIP[4:])]


@pytest.mark.parametrize(
    "text",
    [
        b"vehicle,time,lon,lat\n1,2014-01-31 08:45:25,-73.98,40.75\n",
        b"pickup_longitude,pickup_latitude\n-73.98,40.75\n",
        b"pickup_datetime,PULocationID\n2014-01-31 08:45:25,1\n",
        b"Dispatching_base_num,Pickup_date,locationID\nB00001,2014-01-31 08:45:25,1\n",
        b"PAR1 is no header",
        b"\0" + HEADER,
        b"",
    ],
    ids=["points", "no times", "pick-ups only", "for hire 2015", "broken parquet", "binary", "nothing"],
)
def test_what_is_not_of_the_format(tmp_path: Path, text: bytes) -> None:
    [source] = find_sources(str(write(tmp_path, text)))
    assert not tlc.recognise(source, source.head(4096))


def test_a_file_of_which_columns_are_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tripdata\.csv has no column known as its dropoff_lat"):
        read_all(write(tmp_path, HEADER.replace(b"dropoff_latitude", b"other") + ROW))
