"""Find the columns of a table's fields, as the city's feed names them or by usual names."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.encodings import encoding_of_names
from trafficcast.records.records import Points, Records, Trips, ZoneTrips
from trafficcast.records.sources import Source

_KINDS: dict[type[Records], tuple[str, ...]] = {
    Points: ("vehicle", "time", "lon", "lat"),
    Trips: ("pickup_time", "pickup_lon", "pickup_lat", "dropoff_time", "dropoff_lon", "dropoff_lat"),
    ZoneTrips: ("pickup_time", "pickup_zone", "dropoff_time", "dropoff_zone"),
}
_OCCUPIED, _TRIP_ID = "occupied", "trip_id"  # may be missing
# Each time with the date beside it, which may be missing: where there is one, the time may be a clock's.
_DATES = {"time": "date", "pickup_time": "pickup_date", "dropoff_time": "dropoff_date"}
_TIMES = tuple(_DATES)

# Usual names as `_plain_name` writes them; a later group counts only where a table has no name of an earlier one.
# A column that holds both longitude and latitude is found as either.
_PLACE = (
    "geometry",
    "geom",
    "thegeom",
    "wkt",
    "wkb",
    "position",
    "point",
    "location",
    "coordinates",
    "latlon",
    "latlng",
)
_LON, _LAT = (("lon", "lng", "long", "longitude"), ("x",), _PLACE), (("lat", "latitude"), ("y",), _PLACE)
_TIME = ("time", "timestamp", "datetime", "gpstime", "recordtime", "unixtime", "epoch"), ("ts", "t", "date")
_DATE = (("date", "day", "gpsdate", "recorddate"),)
_ZONE = (("zone", "zoneid", "locationid"),)
_USUAL_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "vehicle": (
        ("vehicle", "vehicleid", "taxi", "taxiid", "cab", "cabid", "medallion", "plate", "licenseplate"),
        ("car", "carid", "bike", "bikeid", "device", "deviceid", "imei", "driver", "driverid", "hacklicense"),
        ("id", "uid", "objectid"),
    ),
    "time": _TIME,
    "date": _DATE,
    "lon": _LON,
    "lat": _LAT,
    _OCCUPIED: (("occupied", "occupancy", "hired", "busy", "passenger"),),
    _TRIP_ID: (("tripid", "rideid", "journeyid", "tripidentifier"),),
}
for _end, _starts in (
    ("pickup", ("pickup", "tpeppickup", "lpeppickup", "trippickup", "start", "pu")),
    ("dropoff", ("dropoff", "tpepdropoff", "lpepdropoff", "tripdropoff", "end", "do")),
):
    for _what, _groups in (("time", _TIME), ("date", _DATE), ("lon", _LON), ("lat", _LAT), ("zone", _ZONE)):
        _USUAL_NAMES[f"{_end}_{_what}"] = tuple(tuple(s + name for s in _starts for name in group) for group in _groups)


@dataclass(frozen=True)
class _Layout:
    """The kind of a table's records, the position of each field's column, and what the path and the header have.

    These are the values of fields from the path, and the names of all columns.

    Longitude and latitude may be one column.
    """

    kind: type[Records]
    columns: dict[str, int]
    in_path: dict[str, str] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()

    def places(self) -> list[tuple[str, str]]:
        """Return the longitudes and latitudes that are one column."""
        pairs = [(field, field.replace("lon", "lat")) for field in self.columns if field.endswith("lon")]
        return [(lon, lat) for lon, lat in pairs if self.columns[lon] == self.columns[lat]]


def _find_columns(names: Sequence[str], city: City, source: Source) -> _Layout:
    """Find the columns that the city's feed names, and the others by usual names, also in the path of the file.

    Raises InputError, with what to write in the configuration, where columns are missing or several fit one field.
    """
    path, in_path = source.path, [pair for pair in source.in_path if pair[0] not in names]
    names = [*names, *(name for name, _ in in_path)]
    named = _named(city)
    found = {field: _columns_of_name(names, name) for field, name in named.items()}
    for field, positions in found.items():
        if not positions:
            raise InputError(
                f"{path} has no column {named[field]!r}, which {_table(city)} names as its {field}; its columns are "
                f"{_listed(names)}{_of_encoding(names, named.values(), city)}"
            )
    taken = {i for positions in found.values() for i in positions}
    found |= {field: _usual_columns(names, field, taken) for field in _USUAL_NAMES if field not in found}
    kinds = [kind for kind in _KINDS if set(named) <= {*_KINDS[kind], *_may_be_missing(kind)}] or list(_KINDS)
    kind = max(kinds, key=lambda kind: sum(map(bool, map(found.__getitem__, _KINDS[kind]))) / len(_KINDS[kind]))
    missing = [field for field in _KINDS[kind] if not found[field]]
    if missing:
        raise InputError(
            f"{path} has no column known as its {' or '.join(missing)}; its columns are {_listed(names)}: name those "
            f'meant under {_table(city)}, such as {missing[0]} = "NAME"{_of_encoding(names, (), city)}'
        )
    for time, date in _DATES.items():
        if date not in named and (found[date] == found[time] or len(found[date]) > 1):
            found[date] = []
    fields = [*_KINDS[kind], *(field for field in _may_be_missing(kind) if found[field])]
    for field in fields:
        if len(found[field]) > 1:
            several = [names[i] for i in found[field]]
            raise InputError(
                f"{path} has several columns that could be its {field}: {_listed(several)}; name the one meant under "
                f'{_table(city)}, such as {field} = "{several[0]}", or rename those that have one name'
            )
    columns, own = {field: found[field][0] for field in fields}, len(names) - len(in_path)
    values = {field: in_path[i - own][1] for field, i in columns.items() if i >= own}
    return _Layout(kind, {field: i for field, i in columns.items() if i < own}, values, tuple(names))


def _named(city: City) -> dict[str, str]:
    """Return the names of columns that the city's feed gives, by field."""
    return {field: name for field, name in city.feed.columns if name is not None}


def _columns_of_name(names: Sequence[str], name: str) -> list[int]:
    """Return the positions of the columns of a name: as it is written, or else whatever its capitals and blanks."""
    exact = [i for i, one in enumerate(names) if one.strip() == name.strip()]
    return exact or [i for i, one in enumerate(names) if _plain_name(one) == _plain_name(name)]


def _of_encoding(names: Sequence[str], wanted: Iterable[str], city: City) -> str:
    """Return advice where names are no UTF-8: the encoding in which those wanted are among them, if there is one."""
    if city.feed.encoding or not any("\\x" in name for name in names):
        return ""
    found = encoding_of_names(names, wanted)
    table = _table(city).replace(".columns]", "]")
    if wanted and found:
        return f'; it is no UTF-8, and as {found} it has them: set encoding = "{found}" under {table}'
    return f'; it is no UTF-8: set its encoding under {table}, such as encoding = "gbk" or "cp1252"'


def _has_usual_columns(names: Sequence[str], kinds: Iterable[type[Records]] = tuple(_KINDS)) -> bool:
    """Say whether columns of these names make records of one of the kinds without any configuration."""
    return any(all(_usual_columns(names, field, set()) for field in _KINDS[kind]) for kind in kinds)


@lru_cache(1024)
def _plain_name(name: str) -> str:
    """Return a column's name without blanks, underscores, dashes and capitals, accents written in one way."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", name)).casefold()


def _may_be_missing(kind: type[Records]) -> tuple[str, ...]:
    """Return the fields of a kind of records that a table need not have."""
    dates = tuple(date for time, date in _DATES.items() if time in _KINDS[kind])
    return (*dates, _OCCUPIED if kind is Points else _TRIP_ID)


def _usual_columns(names: Sequence[str], field: str, taken: set[int]) -> list[int]:
    """Return the positions of the columns that have a usual name of a field and are not taken.

    Of a nested name, such as `vehicle.position.latitude`, the last part or the last parts may be a usual name.
    """
    plain = [_endings(name) for name in names]
    for group in _USUAL_NAMES[field]:
        if positions := [i for i, endings in enumerate(plain) if i not in taken and not endings.isdisjoint(group)]:
            depth = min(names[i].count(".") for i in positions)
            return [i for i in positions if names[i].count(".") == depth]
    return []


@lru_cache(1024)
def _endings(name: str) -> frozenset[str]:
    """Return the plain names that a nested name ends in."""
    parts = [_plain_name(part) for part in name.split(".")]
    return frozenset("".join(parts[i:]) for i in range(len(parts)))


def _listed(names: Sequence[str], limit: int = 60) -> str:
    """Write names as a list, shortened where there are many or long ones."""
    names = [name for name in names if name]
    shown = [repr(name if len(name) <= 40 else name[:40] + "...") for name in names[:limit]]
    return (", ".join(shown) or "none") + (", ..." if len(names) > limit else "")


def _table(city: City) -> str:
    """Return the name of the city's table of column names in the configuration."""
    return f"[cities.{city.name or 'NAME'}.feed.columns]"
