"""New York's TLC: yellow, green and for-hire trips, CSV or Parquet, whose columns have changed names over the years.

Until mid-2016 trips have longitudes and latitudes, since then zone ids; their times are local.
"""

from __future__ import annotations

from collections.abc import Iterator

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers.columns import _has_usual_columns, _plain_name
from trafficcast.records.readers.delimited import _csv_dialect
from trafficcast.records.readers.table import _parquet_names, _read_csv, _read_parquet, _recognise_parquet
from trafficcast.records.records import Batch, Trips, ZoneTrips
from trafficcast.records.sources import Source

# Of yellow trips, green ones, yellow ones until 2009, and yellow ones until 2014 and all for hire.
_PICKUP_TIMES = {"tpeppickupdatetime", "lpeppickupdatetime", "trippickupdatetime", "pickupdatetime"}


def recognise(source: Source, head: bytes) -> bool:
    """Whether a table has a column named as TLC names the time of the pick-up, and the others of trips."""
    names: list[str] = []
    try:
        if _recognise_parquet(source, head):
            names = _parquet_names(source)
        elif b"\0" not in head:
            names = _csv_dialect(head).names
    except InputError:  # of damaged Parquet, as its reader will tell
        return False
    return not _PICKUP_TIMES.isdisjoint(map(_plain_name, names)) and _has_usual_columns(names, (Trips, ZoneTrips))


def read(source: Source, city: City) -> Iterator[Batch]:
    """Read a file of trips. Raises InputError where it cannot be read, columns are not found, or no row is a trip."""
    is_parquet = _recognise_parquet(source, source.head(4))
    yield from (_read_parquet if is_parquet else _read_csv)(source, city)
