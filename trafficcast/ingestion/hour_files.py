"""The file of the records of some hours: Parquet, with the fields of their kind, the vehicles by name, and the source.

The rows are sorted by the record, then by the number of the source that gave it. A record that several sources gave has
a row for each. An earlier version kept each record once, without source and trip_id: such rows have a 0 as both.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trafficcast.errors import DamagedFile, InputError
from trafficcast.files import sync_folder
from trafficcast.ingestion.deduplication import _Rows
from trafficcast.ingestion.spans import Span
from trafficcast.records.records import HOUR_US, Records

_SOURCE = "source"
_TRIP_ID = "trip_id"
_MAY_BE_MISSING = {_SOURCE, _TRIP_ID}


def _file_of(span: Span, generation: int) -> str:
    """Return the name of the file of a span of hours, relative to the root of the store."""
    day, length = np.datetime64(span.first, "h").astype("datetime64[D]"), span.end - span.first
    return f"{day}/{span.first % 24:02d}{f'+{length}' if length > 1 else ''}.{generation}.parquet"


def _span_of_file(name: str) -> Span:
    """Return the span of hours of a file with a name that `_file_of` has made."""
    day, clock = name.split("/")
    hour, _, length = clock.split(".")[0].partition("+")
    first = int(np.datetime64(day, "h").astype(np.int64)) + int(hour)
    return Span(first, first + int(length or 1))


def _write_hour_file(file: Path, rows: _Rows, names: list[str]) -> None:
    """Write rows, whose vehicles index `names`, to a new file and sync it: the database will refer to it."""
    columns: dict[str, Any] = {}
    for name, array in rows.records.arrays().items():
        if name == "vehicle":
            first = np.diff(array, prepend=-1) != 0  # the vehicles come in the order of their codes
            present = [names[code] for code in array[first]]
            columns[name] = pa.DictionaryArray.from_arrays(np.cumsum(first, dtype=np.int32) - np.int32(1), present)
        elif name.endswith("time"):
            columns[name] = pa.array(array).cast(pa.timestamp("us", "UTC"))
        else:
            columns[name] = array
    columns[_SOURCE] = rows.source
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table(columns),
        file,
        compression="zstd",
        use_dictionary=["vehicle", _SOURCE],
        column_encoding=_encodings(rows.records),
        write_page_checksum=True,
    )
    with open(file, "rb") as written:
        os.fsync(written.fileno())
    sync_folder(file.parent)


def _encodings(records: Records) -> dict[str, str]:
    """Return the encodings of the 8-byte columns: integers by their differences, floats by their bytes."""
    return {
        name: "DELTA_BINARY_PACKED" if array.dtype == np.int64 else "BYTE_STREAM_SPLIT"
        for name, array in records.arrays().items()
        if array.dtype.itemsize == 8
    }


def _read_hour_file(file: Path, kind: type[Records]) -> tuple[list[str], _Rows]:
    """Return the vehicles' names and the rows, whose vehicles index them; raise DamagedFile for a damaged file."""
    names: list[str] = []
    arrays: dict[str, np.ndarray] = {}
    try:
        table = pq.read_table(
            file, read_dictionary=["vehicle"], partitioning=None, page_checksum_verification=True
        ).combine_chunks()
        for name, dtype in kind.DTYPES.items():
            if name == _TRIP_ID and name not in table.column_names:
                arrays[name] = np.zeros(len(table), dtype)
                continue
            column = table[name].combine_chunks()
            if name == "vehicle":
                names, column = column.dictionary.cast(pa.string()).to_pylist(), column.indices
                if len(column) and not pc.all(pc.less(column, len(names))).as_py():  # a page's header has no checksum
                    raise InputError("vehicles without names")
            elif name.endswith("time"):
                column = column.cast(pa.int64())
            arrays[name] = column.to_numpy().astype(dtype, copy=False)
        source = table[_SOURCE].to_numpy() if _SOURCE in table.column_names else np.zeros(len(table))
    except (OSError, KeyError, UnicodeError, pa.ArrowException, InputError) as error:
        raise DamagedFile(file, error, file.parents[2].name) from None
    return names, _Rows(kind(**arrays), source.astype(np.int32, copy=False))


def _hours_of_file(file: Path) -> Counter[int]:
    """Return the number of a file's rows of each hour since 1970; raise DamagedFile for a damaged file."""
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            time = opened.read(["time"])["time"].cast(pa.int64()).to_numpy()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DamagedFile(file, error, file.parents[2].name) from None
    hours, counts = np.unique(time // HOUR_US, return_counts=True)
    return Counter(dict(zip(hours.tolist(), counts.tolist(), strict=True)))


def _sources_of_file(file: Path) -> set[int]:
    """Return the numbers of the sources that gave a file's rows; raise DamagedFile for a damaged file."""
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            if _SOURCE not in opened.schema_arrow.names:
                return {0}
            return set(opened.read([_SOURCE])[_SOURCE].unique().to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise DamagedFile(file, error, file.parents[2].name) from None
