"""Porto (ECML/PKDD 15): a CSV file of rides, each with TAXI_ID, TIMESTAMP (unix seconds) and POLYLINE.

The polyline is JSON, `[[lon, lat], ...]`, a place every 15 s. Lines of MISSING_DATA are read as they stand: where
places lack in them is not said.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers.cell_values import _texts, _times, _vehicle_codes
from trafficcast.records.readers.delimited import _HEAD_BYTES, _csv_dialect, _csv_tables
from trafficcast.records.readers.table import _check_some_parsed
from trafficcast.records.records import SECOND_US, Batch, Points, Trips
from trafficcast.records.sources import Source

_COLUMNS = {"vehicle": "TAXI_ID", "time": "TIMESTAMP", "polyline": "POLYLINE"}
_TYPES = {"vehicle": pa.dictionary(pa.int32(), pa.string()), "time": pa.int64(), "polyline": pa.string()}
_INTERVAL_US = 15 * SECOND_US
_BATCH_BYTES = 5 * 2**20  # of polylines: about 250,000 places
# What is read at once, numbers as JSON writes them; whatever else is JSON is read line by line.
_DEGREES = r"-?(0|[1-9]\d{0,2})(\.\d+)?"
_PLACE = rf"\[{_DEGREES}, ?{_DEGREES}\]"
_POLYLINE = rf"^\[{_PLACE}(, ?{_PLACE})*\]$"


def recognise(source: Source, head: bytes) -> bool:
    """Whether a text begins with a header of these names."""
    return b"\0" not in head and set(_COLUMNS.values()) <= set(_csv_dialect(head).names)


def read(source: Source, city: City) -> Iterator[Batch]:
    """Read the places of the rides as points of occupied taxis, or with the feed's `trips` each ride as a trip.

    Rows are lines. One without places, `[]`, is a row of no record; one of whose places any cannot be read is
    unparsable. Raises InputError where the file cannot be read, columns are missing or no line is a ride.
    """
    dialect = _csv_dialect(source.head(_HEAD_BYTES))
    missing = [name for name in _COLUMNS.values() if name not in dialect.names]
    if missing:
        raise InputError(f"{source.path} is not Porto's file of rides: it has no column {' or '.join(missing)}")
    columns = {field: dialect.names.index(name) for field, name in _COLUMNS.items()}
    rows = lost = 0
    for table, bad in _csv_tables(source, dialect, columns, _TYPES):
        for part in _parts(table):
            batch = _batch(part, city.feed.trips, bad)
            bad = 0
            rows += batch.rows
            lost += batch.dropped["unparsable"]
            yield batch
    _check_some_parsed(source, rows, lost, dialect)


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """A table, of no rows even, in parts that are one batch each."""
    ends = np.cumsum(pc.binary_length(table["polyline"]).to_numpy())
    starts = [0, *(np.flatnonzero(np.diff(ends // _BATCH_BYTES)) + 1)]
    for start, end in zip(starts, [*starts[1:], len(ends)], strict=True):
        yield table.slice(start, end - start)


def _batch(table: pa.Table, trips: bool, bad: int) -> Batch:
    """The rides of a table; `bad` more rows were unparsable before they came into it."""
    vehicle, vehicles, named = _vehicle_codes(table["vehicle"].combine_chunks())
    start, timed, _ = _times(table["time"].combine_chunks(), UTC, "s")
    places, n = _read_polylines(_texts(table["polyline"].combine_chunks()))
    keep = n >= 0
    for mask in (named, timed):
        keep &= True if mask is None else mask
    dropped = Counter(unparsable=bad + int(np.count_nonzero(~keep)))
    n = np.maximum(n, 0)
    first = np.cumsum(n) - n
    lon, lat = np.ascontiguousarray(places.T)
    if trips:
        keep &= n > 0
        end = start + (n - 1) * _INTERVAL_US
        i, j = first[keep], (first + n - 1)[keep]
        return Batch(Trips(start[keep], lon[i], lat[i], end[keep], lon[j], lat[j]), table.num_rows + bad, [], dropped)
    line = np.repeat(np.arange(len(n)), n)
    time = start[line] + (np.arange(len(line)) - first[line]) * _INTERVAL_US
    points = Points(vehicle[line], time, lon, lat, np.ones(len(line), np.int8))
    return Batch(points if keep.all() else points.take(keep[line]), table.num_rows + bad, vehicles, dropped)


def _read_polylines(lines: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Polylines as text -> the places of them all, (place, lon and lat), and how many are of each (line).

    A line that is no list of pairs of finite numbers has -1, and no places.
    """
    regular = pc.match_substring_regex(lines, _POLYLINE)
    numbers = pc.split_pattern(lines.filter(regular), ",")
    places = pc.utf8_trim(numbers.flatten(), "[] ").cast(pa.float64()).to_numpy().reshape(-1, 2)
    fast = regular.to_numpy(zero_copy_only=False)
    n = np.zeros(len(lines), np.int64)
    n[fast] = pc.list_value_length(numbers).to_numpy() // 2
    odd = [(line, _read_polyline(lines[line].as_py())) for line in np.flatnonzero(~fast).tolist()]
    for line, found in odd:
        n[line] = -1 if found is None else len(found)
    others = [place for _, found in odd for place in found or ()]
    if others:
        at_once = np.repeat(fast, np.maximum(n, 0))
        whole = np.empty((len(at_once), 2))
        whole[at_once], whole[~at_once] = places, others
        places = whole
    return places, n


def _read_polyline(line: str) -> Sequence[Sequence[float]] | None:
    """The plain way: the places of one line, None where it is no list of pairs of finite numbers."""
    try:
        found = json.loads(line, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(map(_is_place, found)) else None


def _is_place(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(isinstance(number, float) and math.isfinite(number) for number in value)
