"""The table `[cities.NAME.feed]` of `config.toml`: how a city's records come."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from trafficcast.config.table import _Table, _TimeZone
from trafficcast.config.time_format import check_format

SHIFTED = ("gcj02", "bd09")  # reference systems that no library for them knows


class _ColumnNames(_Table):
    """The names of a table's columns, or of a JSON line's keys; a column without a name is found by its usual names."""

    vehicle: str | None = None
    time: str | None = None
    date: str | None = None
    lon: str | None = None
    lat: str | None = None
    occupied: str | None = None
    pickup_time: str | None = None
    pickup_date: str | None = None
    pickup_lon: str | None = None
    pickup_lat: str | None = None
    pickup_zone: str | None = None
    dropoff_time: str | None = None
    dropoff_date: str | None = None
    dropoff_lon: str | None = None
    dropoff_lat: str | None = None
    dropoff_zone: str | None = None
    trip_id: str | None = None


def _known_encoding(name: str) -> str:
    """Refuse a name that is no encoding of text."""
    try:
        "a".encode(name)
    except (LookupError, UnicodeError):
        raise ValueError(f"'{name}' is no encoding of text such as 'utf-16', 'latin-1' or 'gbk'") from None
    return name


def _known_path(template: str) -> str:
    """Refuse the end of a path that names no column, or one twice."""
    names = re.findall(r"{(\w*)}", template)
    if not names or not all(map(str.isidentifier, names)) or len({*names}) < len(names):
        raise ValueError(f"'{template}' is no end of a path with names of columns such as '{{vehicle}}/{{date}}.csv'")
    return template


def _known_crs(name: str) -> str:
    """Refuse a name that is no reference system; those of Chinese maps in any spelling."""
    plain = name.lower().replace("-", "")
    if plain in SHIFTED:
        return plain
    import pyproj  # not at the top: it takes a while, and few feeds need it

    try:
        pyproj.CRS.from_user_input(name)
    except pyproj.exceptions.CRSError:
        raise ValueError(f"'{name}' is no reference system such as 'EPSG:3857' or 'gcj02'") from None
    return name


class Feed(_Table):
    """How a city's records come; everything is optional.

    Attributes
    ----------
    format
        Format of the files; None to recognise it from their content.
    columns
        Names of the columns of tables and of the keys of JSON lines.
    path
        The end of the files' paths, in which names in braces stand for columns, such as {vehicle}/{date}.csv.
    encoding
        Encoding of the files' text, such as gbk; None for UTF-8, or that of a byte order mark.
    time_format
        Format of times, in the directives of strptime; None for numbers since 1970, ISO 8601 and other common forms.
    timezone
        IANA time zone of times without an offset; None for the city's zone.
    swapped
        Whether longitude and latitude are swapped in the files.
    scale
        Number by which coordinates are multiplied, such as 1e-6 for microdegrees.
    crs
        Reference system of the coordinates, such as EPSG:3857, or gcj02 or bd09 of Chinese maps; None for degrees of
        WGS 84.
    trips
        Whether to count passengers' trips, from the occupied flag of points or the ends of a Porto ride, instead of
        every move between cells.
    occupied_values
        The values that mean that a vehicle is occupied, where not the usual words do; all others then mean free.
    max_trip_hours
        Longest trip, hours; longer ones are dropped.
    zones
        File of the polygons of zones, for trips between zones.
    zone_id
        Name of the column with the zones' ids in that file.
    retain_days
        Number of days before the newest record for which records are kept; None keeps all.
    inbox
        Folder whose new files `ingest --watch` and the service ingest.
    """

    format: str | None = None
    columns: _ColumnNames = _ColumnNames()
    path: Annotated[str, AfterValidator(_known_path)] | None = None
    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = None
    time_format: Annotated[str, AfterValidator(check_format)] | None = None
    timezone: _TimeZone | None = None
    swapped: bool = False
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    crs: Annotated[str, AfterValidator(_known_crs)] | None = None
    trips: bool = False
    occupied_values: tuple[str, ...] = ()
    max_trip_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 24.0
    zones: Path | None = None
    zone_id: str = "LocationID"
    retain_days: Annotated[int, Field(ge=1)] | None = None
    inbox: Path | None = None
