"""Porto (ECML/PKDD 15): a CSV file of rides, each with TAXI_ID, TIMESTAMP (unix seconds) and POLYLINE.

The polyline is JSON, `[[lon, lat], ...]`, a point every 15 s. Rides of MISSING_DATA are read as they are, since the
file does not say where points are missing.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers.cell_values import _hashed_ids, _texts, _times, _vehicle_codes
from trafficcast.records.readers.delimited import _HEAD_BYTES, _csv_dialect, _csv_tables, _is_binary
from trafficcast.records.readers.json_lines import _OBJECT_BYTES
from trafficcast.records.readers.table import _csv_error, _refuse_without_record
from trafficcast.records.records import SECOND_US, Batch, Points, Trips
from trafficcast.records.sources import Source

_COLUMNS = {"vehicle": "TAXI_ID", "time": "TIMESTAMP", "polyline": "POLYLINE"}
_TRIP_ID = "TRIP_ID"  # may be missing
_TYPES = {
    "vehicle": pa.dictionary(pa.int32(), pa.string()),
    "time": pa.int64(),
    "polyline": pa.string(),
    "trip_id": pa.string(),
}
_INTERVAL_US = 15 * SECOND_US
_BATCH_BYTES = 5 * 2**20  # of polylines: about 250,000 points
# Polylines that are read all at once, numbers as JSON writes them; other JSON is read line by line.
_DEGREES = r"-?(0|[1-9]\d{0,2})(\.\d+)?"
_POINT = rf"\[{_DEGREES}, ?{_DEGREES}\]"
_POLYLINE = rf"^\[{_POINT}(, ?{_POINT})*\]$"


def recognise(source: Source, head: bytes) -> bool:
    """Say whether a text begins with the header of Porto's file.

    Parameters
    ----------
    source
        A file.
    head
        Its first bytes, decompressed.

    Returns
    -------
    bool
        True where the header has the columns of Porto's file.
    """
    return not _is_binary(head) and set(_COLUMNS.values()) <= set(_csv_dialect(head).names)


def read(source: Source, city: City) -> Iterator[Batch]:
    """Read the points of rides as points of occupied taxis, or with the feed's `trips` each ride as a trip.

    Each row is a ride. A ride without points, `[]`, makes no record; one with an unreadable point is unparsable.

    Parameters
    ----------
    source
        A file of the format.
    city
        The city whose records they are.

    Yields
    ------
    Batch
        Records in parts of the file.

    Raises
    ------
    InputError
        The file cannot be read, or is not of the format.
    """
    dialect = _csv_dialect(source.head(_HEAD_BYTES))
    missing = [name for name in _COLUMNS.values() if name not in dialect.names]
    if missing:
        raise InputError(f"{source.path} is not Porto's file of rides: it has no column {' or '.join(missing)}")
    names = _COLUMNS | ({"trip_id": _TRIP_ID} if _TRIP_ID in dialect.names else {})
    columns = {field: dialect.names.index(name) for field, name in names.items()}
    batches = _batches(_csv_tables(source, dialect, columns, _TYPES), city.feed.trips)
    yield from _refuse_without_record(batches, partial(_csv_error, source, dialect))


def _batches(tables: Iterator[tuple[pa.Table, int]], trips: bool) -> Iterator[Batch]:
    """Yield the batches of tables, each of which comes with a number of bad rows."""
    for table, bad in tables:
        for part in _parts(table):
            yield _batch(part, trips, bad)
            bad = 0


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """Yield a table, even one of no rows, in parts that are one batch each."""
    ends = np.cumsum(pc.binary_length(table["polyline"]).to_numpy())
    starts = [0, *(np.flatnonzero(np.diff(ends // _BATCH_BYTES)) + 1)]
    for start, end in zip(starts, [*starts[1:], len(ends)], strict=True):
        yield table.slice(start, end - start)


def _batch(table: pa.Table, trips: bool, bad: int) -> Batch:
    """Make the batch of a table's rides; `bad` more rows of the file are not in the table."""
    vehicle, vehicles, named = _vehicle_codes(table["vehicle"].combine_chunks())
    start, timed, *_ = _times(table["time"].combine_chunks(), UTC, "s")
    points, n = _read_polylines(_texts(table["polyline"].combine_chunks()))
    keep = n >= 0
    for mask in (named, timed):
        keep &= True if mask is None else mask
    dropped = Counter(unparsable=bad + int(np.count_nonzero(~keep)))
    n = np.maximum(n, 0)
    first = np.cumsum(n) - n
    lon, lat = np.ascontiguousarray(points.T)
    if trips:
        keep &= n > 0
        end = start + (n - 1) * _INTERVAL_US
        i, j = first[keep], (first + n - 1)[keep]
        has_ids = "trip_id" in table.column_names
        ids = _hashed_ids(table["trip_id"].combine_chunks())[keep] if has_ids else np.zeros(len(i), np.int64)
        rides = Trips(start[keep], lon[i], lat[i], end[keep], lon[j], lat[j], ids)
        return Batch(rides, table.num_rows + bad, [], dropped)
    line = np.repeat(np.arange(len(n)), n)
    time = start[line] + (np.arange(len(line)) - first[line]) * _INTERVAL_US
    records = Points(vehicle[line], time, lon, lat, np.ones(len(line), np.int8))
    return Batch(records if keep.all() else records.take(keep[line]), table.num_rows + bad, vehicles, dropped)


def _read_polylines(lines: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return all points of polylines, (point, lon and lat), and the number of each line's points, (line).

    A line that is no list of pairs of finite numbers has -1, and no points.
    """
    regular = pc.match_substring_regex(lines, _POLYLINE)
    numbers = pc.split_pattern(lines.filter(regular), ",")
    points = pc.utf8_trim(numbers.flatten(), "[] ").cast(pa.float64()).to_numpy().reshape(-1, 2)
    fast = regular.to_numpy(zero_copy_only=False)
    n = np.zeros(len(lines), np.int64)
    n[fast] = pc.list_value_length(numbers).to_numpy() // 2
    slow = {line: _read_polyline(lines[line].as_py()) for line in np.flatnonzero(~fast).tolist()}
    for line, found in slow.items():
        n[line] = -1 if found is None else len(found)
    others = [point for found in slow.values() for point in found or ()]
    if others:
        is_fast = np.repeat(fast, np.maximum(n, 0))
        whole = np.empty((len(is_fast), 2))
        whole[is_fast], whole[~is_fast] = points, others
        points = whole
    return points, n


def _read_polyline(line: str) -> Sequence[Sequence[float]] | None:
    """Return the points of one line; None where it is no list of pairs of finite numbers."""
    try:
        found = json.loads(line, parse_int=float) if len(line) <= _OBJECT_BYTES else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(map(_is_point, found)) else None


def _is_point(value: object) -> bool:
    """Say whether a value is a pair of finite numbers."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(isinstance(number, float) and math.isfinite(number) for number in value)
