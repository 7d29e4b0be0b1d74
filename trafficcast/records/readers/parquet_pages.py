"""How large the pages of a Parquet file are, by their headers: Arrow unpacks a page at once, whatever the metadata say.

A header is a struct of Thrift's compact protocol, as the specification of Parquet has it (`PageHeader`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from trafficcast.errors import InputError

_PAGES_BYTES = 1 << 29  # of one page of each column that is read; writers make pages of 1 MB
_DICTIONARY_BYTES = 1 << 26  # of a column's different values in a row group, which are in memory several times
_REPEATED_VALUES = 1 << 25  # of lists in a row group
_BATCH_BYTES = 1 << 26
_BATCH_ROWS = 250_000
_UNPACKED, _PACKED, _KINDS, _DICTIONARY, _VALUES = 2, 3, (5, 7, 8), 7, 1  # numbers of a header's fields
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _TEXT, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_DEPTH = 8


@dataclass(frozen=True)
class _Page:
    """A page: its bytes when it is unpacked, the number of its values, and whether it is a dictionary."""

    size: int
    values: int
    is_dictionary: bool


def _batch_rows(path: str, file: BinaryIO, metadata: pq.FileMetaData, columns: Collection[str]) -> int:
    """Return how many rows of columns are read at once, so that they fit in memory.

    Raises InputError where a page, the different values or the lists of a row group are too large, and OSError for a
    damaged page.
    """
    schema, most = metadata.schema, _BATCH_ROWS
    needed = [i for i in range(len(schema)) if _is_of(schema.column(i).path, columns)]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        at_once = row_bytes = 0.0
        for i in needed:
            pages = list(_pages(file, group.column(i)))
            name = f"cannot read {path}: column '{schema.column(i).path}' of row group {number + 1}"
            dictionary = max((page.size for page in pages if page.is_dictionary), default=0)
            if dictionary > _DICTIONARY_BYTES:
                raise InputError(f"{name} has different values of more than {_DICTIONARY_BYTES >> 20} MB")
            data = [page for page in pages if not page.is_dictionary]
            values = sum(page.values for page in data)
            if schema.column(i).max_repetition_level and values > _REPEATED_VALUES:
                raise InputError(f"{name} has more than {_REPEATED_VALUES:,} values in lists")
            at_once += dictionary + max((page.size for page in data), default=0)
            row_bytes += max((page.size / max(page.values, 1) for page in data), default=0)
        if at_once > _PAGES_BYTES:
            raise InputError(
                f"cannot read {path}: row group {number + 1} has pages of more than {_PAGES_BYTES >> 20} MB in the "
                "columns that are needed: write smaller pages or row groups"
            )
        most = min(most, int(_BATCH_BYTES / max(row_bytes, 1.0)))
    return max(most, 1)


def _is_of(path: str, columns: Collection[str]) -> bool:
    """Say whether the values of a path belong to one of some columns."""
    return any(path == name or path.startswith(f"{name}.") for name in columns)


def _pages(file: Any, chunk: pq.ColumnChunkMetaData) -> Iterator[_Page]:
    """Yield the pages of a column in a row group; raise OSError where one is damaged."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end = start + chunk.total_compressed_size if chunk.num_values else start  # Arrow reads no page of no values
    while start < end:
        file.seek(start)
        header = _struct(file)
        size, packed = header.get(_UNPACKED), header.get(_PACKED)
        if not isinstance(size, int) or not isinstance(packed, int) or size < 0 or packed < 0:
            raise OSError("a page has no size")
        kinds = [kind for number in _KINDS if isinstance(kind := header.get(number), dict)]
        values = [n for kind in kinds if isinstance(n := kind.get(_VALUES), int)]
        if len(values) < len(kinds):
            raise OSError("a page has no number of values")
        yield _Page(size, max(values, default=0), _DICTIONARY in header)
        start = file.tell() + packed


def _struct(file: Any, depth: int = 0) -> dict[int, Any]:
    """Read a struct; return its numbers and structs by the numbers of their fields."""
    found: dict[int, Any] = {}
    number = 0
    while kind := _byte(file):
        number = number + (kind >> 4) if kind >> 4 else _integer(file)
        found[number] = _value(file, kind & 15, depth)
    return found


def _value(file: Any, kind: int, depth: int) -> Any:
    """Read a value of a type; return it where it is a number or a struct."""
    if depth > _DEPTH:
        raise OSError("a page is damaged")
    if kind in _INTEGERS:
        return _integer(file)
    if kind == _STRUCT:
        return _struct(file, depth + 1)
    if kind in _LISTS:
        head = _byte(file)
        for _ in range(head >> 4 if head >> 4 < 15 else _varint(file)):
            _byte(file) if head & 15 in _BOOLEANS else _value(file, head & 15, depth + 1)
    elif kind in (_BYTE, _DOUBLE, _TEXT):
        file.seek({_BYTE: 1, _DOUBLE: 8}.get(kind) or _varint(file), 1)
    elif kind not in _BOOLEANS:
        raise OSError("a page is damaged")
    return None


def _integer(file: Any) -> int:
    """Read a whole number with a sign."""
    n = _varint(file)
    return (n >> 1) ^ -(n & 1)


def _varint(file: Any) -> int:
    """Read a whole number without a sign."""
    n = shift = 0
    while shift < 70:
        byte = _byte(file)
        n |= (byte & 127) << shift
        if byte < 128:
            return n
        shift += 7
    raise OSError("a page is damaged")


def _byte(file: Any) -> int:
    """Read a byte."""
    data = file.read(1)
    if not data:
        raise OSError("a page lies beyond the end of the file")
    return int(data[0])
