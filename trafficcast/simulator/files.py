"""Write simulated records in common layouts of files; the same records are the same bytes.

cabspotting  new_<taxi>.txt.gz          latitude longitude occupied unix_seconds
tdrive       <taxi>.txt                 taxi_id,YYYY-MM-DD HH:MM:SS,longitude,latitude; local time
parquet      2024-04-08.parquet         vehicle, time, lon, lat, occupied of a local day, in the order of time
csv          2024-04-08.csv             vehicle,time,longitude,latitude,occupied, likewise; ISO times with offset
porto        train.csv                  "TRIP_ID","TAXI_ID","TIMESTAMP","MISSING_DATA","POLYLINE"; 15 s apart
tlc          yellow_tripdata.csv        tpep_pickup_datetime,... of New York's trips until mid-2016; local time
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from trafficcast.simulator.taxis import _DEGREE, _Reports

_FILES_OF_TAXIS = ("cabspotting", "tdrive")
_FILES_OF_DAYS = ("parquet", "csv")
FILES_OF_TRIPS = {"porto": "train.csv", "tlc": "yellow_tripdata.csv"}
_FORMATS = (*_FILES_OF_TAXIS, *_FILES_OF_DAYS, *FILES_OF_TRIPS)
_PORTO_INTERVAL_S = 15
_TRIP_HEADERS = {
    "porto": b'"TRIP_ID","TAXI_ID","TIMESTAMP","MISSING_DATA","POLYLINE"\n',
    "tlc": b"tpep_pickup_datetime,tpep_dropoff_datetime,pickup_longitude,pickup_latitude,"
    b"dropoff_longitude,dropoff_latitude\n",
}
_COMPRESSION_LEVEL = 3
_ROWS_AT_A_TIME = 1 << 20
_PARQUET_SCHEMA = pa.schema(
    {
        "vehicle": pa.dictionary(pa.int32(), pa.string()),
        "time": pa.timestamp("us", "UTC"),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "occupied": pa.int8(),
    }
)


def _write_taxi(file_format: str, folder: Path, name: str, reports: _Reports, zone: ZoneInfo) -> None:
    """Write all reports of one taxi to a file of one of _FILES_OF_TAXIS."""
    lon, lat = _decimals(reports.lon), _decimals(reports.lat)
    if file_format == "cabspotting":
        text = _csv([lat, lon, reports.occupied, reports.seconds], delimiter=" ")
        (folder / f"new_{name}.txt.gz").write_bytes(gzip.compress(text, _COMPRESSION_LEVEL, mtime=0))
    else:
        number = str(reports.taxi[0] + 1)
        taxi = pa.repeat(number, len(reports))
        text = _csv([taxi, _local_text(reports.seconds, zone), lon, lat])
        (folder / f"{number}.txt").write_bytes(text)


def _write_day(file_format: str, folder: Path, day: str, reports: _Reports, names: pa.Array, zone: ZoneInfo) -> None:
    """Write the reports of one local day, in the order of time, to a file of one of _FILES_OF_DAYS."""
    order = np.argsort(reports.seconds, kind="stable")
    parts = (reports.take(order[begin : begin + _ROWS_AT_A_TIME]) for begin in range(0, len(order), _ROWS_AT_A_TIME))
    if file_format == "parquet":
        with pq.ParquetWriter(folder / f"{day}.parquet", _PARQUET_SCHEMA, compression="zstd") as writer:
            for part in parts:
                vehicle = pa.DictionaryArray.from_arrays(part.taxi, names)
                time = pa.array(part.seconds * 1_000_000, pa.timestamp("us", "UTC"))
                columns = [vehicle, time, part.lon / _DEGREE, part.lat / _DEGREE, part.occupied]
                writer.write_table(pa.table(columns, schema=_PARQUET_SCHEMA))
    else:
        with open(folder / f"{day}.csv", "wb") as file:
            file.write(b"vehicle,time,longitude,latitude,occupied\n")
            for part in parts:
                vehicle, time = names.take(pa.array(part.taxi)), _text_with_offset(part.seconds, zone)
                columns = [vehicle, time, _decimals(part.lon), _decimals(part.lat), part.occupied]
                file.write(_csv(columns))


def _porto_lines(reports: _Reports, first: np.ndarray, last: np.ndarray) -> bytes:
    """Return one taxi's rides, from their first report to their last, as lines of Porto's file."""
    points = pc.binary_join_element_wise(
        "[", _decimals(reports.lon).cast(pa.string()), ",", _decimals(reports.lat).cast(pa.string()), "]", ""
    ).to_pylist()
    lines = []
    for begin, end in zip(first.tolist(), last.tolist(), strict=True):
        taxi, second = 20_000_001 + reports.taxi[begin], reports.seconds[begin]
        polyline = ",".join(points[begin : end + 1])
        lines.append(f'"{second}{taxi}","{taxi}","{second}","False","[{polyline}]"\n')
    return "".join(lines).encode()


def _tlc_lines(pickups: _Reports, dropoffs: _Reports, zone: ZoneInfo) -> bytes:
    """Return rides as lines of New York's file."""
    times = [_local_text(ends.seconds, zone) for ends in (pickups, dropoffs)]
    positions = [_decimals(degrees) for ends in (pickups, dropoffs) for degrees in (ends.lon, ends.lat)]
    return _csv([*times, *positions])


def _occurs_twice(seconds: np.ndarray, zone: ZoneInfo) -> np.ndarray:
    """Say of unix seconds whether their local times occur twice, as clocks are set back."""
    local = _local(seconds, zone).tz_localize(None)
    first, second = (local.tz_localize(zone, ambiguous=np.full(len(local), dst)) for dst in (True, False))
    return np.asarray(first != second)


def _local(seconds: np.ndarray, zone: ZoneInfo) -> pd.DatetimeIndex:
    """Return unix seconds as times of a zone."""
    return pd.DatetimeIndex(seconds.astype("datetime64[s]")).tz_localize("UTC").tz_convert(zone)


def _local_text(seconds: np.ndarray, zone: ZoneInfo) -> pa.Array:
    """Return unix seconds as text such as `2024-04-08 17:05:31` in a zone."""
    naive = _local(seconds, zone).tz_localize(None).to_numpy().astype("datetime64[s]")
    return pa.array(naive).cast(pa.string())


def _text_with_offset(seconds: np.ndarray, zone: ZoneInfo) -> pa.Array:
    """Return unix seconds as text such as `2024-04-08T17:05:31+02:00` in a zone."""
    local = _local(seconds, zone).tz_localize(None).to_numpy().astype("datetime64[s]")
    offset_s = local.astype(np.int64) - seconds
    distinct = np.unique(offset_s[np.flatnonzero(np.diff(offset_s, prepend=-1))])
    offsets = [f"{'-' if s < 0 else '+'}{abs(s) // 3600:02}:{abs(s) // 60 % 60:02}" for s in distinct.tolist()]
    codes = np.searchsorted(distinct, offset_s).astype(np.int32)
    offset = pa.DictionaryArray.from_arrays(codes, offsets).cast(pa.string())
    text = pc.binary_replace_slice(pa.array(local).cast(pa.string()), 10, 11, "T")
    return pc.binary_join_element_wise(text, offset, "")


def _decimals(values: np.ndarray) -> pa.Array:
    """Return 32-bit integers in units of 0.00001 as decimals, which Arrow stores as 128 bits, low word first."""
    words = np.stack([values, values >> 31], axis=1).astype("<i8")
    return pa.Array.from_buffers(pa.decimal128(9, 5), len(values), [None, pa.py_buffer(words)])


def _csv(columns: list[pa.Array | np.ndarray], delimiter: str = ",") -> bytes:
    """Return columns as lines of text without a header."""
    lines = io.BytesIO()
    layout = csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="none")
    csv.write_csv(pa.table(columns, names=[str(i) for i in range(len(columns))]), lines, layout)
    return lines.getvalue()
