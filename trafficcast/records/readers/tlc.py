"""New York's TLC: yellow, green and for-hire trips, CSV or Parquet, under the column names of all years.

Until mid-2016 trips have longitudes and latitudes, since then zone ids; their times are local.
"""

from __future__ import annotations

from collections.abc import Iterator

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers.columns import _has_usual_columns, _plain_name
from trafficcast.records.readers.delimited import _csv_dialect, _is_binary
from trafficcast.records.readers.table import (
    _first_rows_of_csv,
    _first_rows_of_parquet,
    _parquet_names,
    _read_csv,
    _read_parquet,
    _recognise_parquet,
)
from trafficcast.records.records import Batch, Trips, ZoneTrips
from trafficcast.records.sources import Source

# Of yellow trips, of green ones, of yellow ones until 2009, and of yellow ones until 2014 and all for-hire trips.
_PICKUP_TIMES = {"tpeppickupdatetime", "lpeppickupdatetime", "trippickupdatetime", "pickupdatetime"}


def recognise(source: Source, head: bytes) -> bool:
    """Say whether a table has TLC's column of the pick-up time, and the other columns of trips.

    Parameters
    ----------
    source
        A file.
    head
        Its first bytes, decompressed.

    Returns
    -------
    bool
        True where a table has the columns of trips, under names of TLC.
    """
    names: list[str] = []
    try:
        if _recognise_parquet(source, head):
            names = _parquet_names(source)
        elif not _is_binary(head):
            names = _csv_dialect(head).names
    except InputError:  # damaged Parquet, which its reader reports
        return False
    return not _PICKUP_TIMES.isdisjoint(map(_plain_name, names)) and _has_usual_columns(names, (Trips, ZoneTrips))


def read(source: Source, city: City) -> Iterator[Batch]:
    """Read a file of trips.

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
    is_parquet = _recognise_parquet(source, source.head(4))
    yield from (_read_parquet if is_parquet else _read_csv)(source, city, month_first=True)


def _first_rows(source: Source, city: City) -> list[tuple[int, dict[str, str]]]:
    """Return some rows of a file."""
    is_parquet = _recognise_parquet(source, source.head(4))
    return (_first_rows_of_parquet if is_parquet else _first_rows_of_csv)(source, city)
