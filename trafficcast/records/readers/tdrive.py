"""T-Drive: one text file a taxi, without a header, each line `taxi_id,YYYY-MM-DD HH:MM:SS,longitude,latitude`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from trafficcast.config.city import City
from trafficcast.records.readers.columns import _Layout
from trafficcast.records.readers.delimited import _csv_dialect, _Dialect, _without_header
from trafficcast.records.readers.table import _read_csv_columns, _rows_of_sample
from trafficcast.records.records import Batch, Points
from trafficcast.records.sources import Source

_LAYOUT = _Layout(Points, {"vehicle": 0, "time": 1, "lon": 2, "lat": 3})
_TIME, _DEGREES = rb"\s*\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[^,]*", rb"\s*([+-]?\d{1,3}(?:\.\d*)?)\s*"
_ROW = re.compile(rb"[^,]+,%b,%b,%b" % (_TIME, _DEGREES, _DEGREES))
_NUMBER = re.compile(rb'(^|,)["\s]*[+-]?\d')


def recognise(source: Source, head: bytes) -> bool:
    """Say whether a text has a row of T-Drive and no header.

    Parameters
    ----------
    source
        A file.
    head
        Its first bytes, decompressed.

    Returns
    -------
    bool
        True where a line is a row of T-Drive and a field of the first line begins as a number does.
    """
    lines = [line for line in head.removeprefix(codecs.BOM_UTF8).splitlines() if line.strip()]
    return bool(lines and _NUMBER.search(lines[0])) and any(map(_is_row, lines))


def read(source: Source, city: City) -> Iterator[Batch]:
    """Read the file of one or more taxis, whose times are local.

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
    mark = len(codecs.BOM_UTF8)
    start = mark if source.head(mark) == codecs.BOM_UTF8 else 0
    dialect = _Dialect(",", list(_LAYOUT.columns), start, [])
    yield from _read_csv_columns(source, city, dialect, _LAYOUT)


def _first_rows(source: Source, city: City) -> list[tuple[int, dict[str, str]]]:
    """Return some rows of a file."""
    return _rows_of_sample(_without_header(_csv_dialect(source.head())), _LAYOUT)


def _is_row(line: bytes) -> bool:
    """Say whether a line is a row of T-Drive."""
    found = _ROW.fullmatch(line)
    # Rows of latitude, longitude, which people make of T-Drive's, need a configuration that names their columns.
    return found is not None and abs(float(found[1])) <= 180 and abs(float(found[2])) <= 90
