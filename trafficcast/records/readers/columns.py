"""Find the columns of a table's fields, as the city's feed names them or by usual names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.records import Points, Records, Trips, ZoneTrips

_KINDS: dict[type[Records], tuple[str, ...]] = {
    Points: ("vehicle", "time", "lon", "lat"),
    Trips: ("pickup_time", "pickup_lon", "pickup_lat", "dropoff_time", "dropoff_lon", "dropoff_lat"),
    ZoneTrips: ("pickup_time", "pickup_zone", "dropoff_time", "dropoff_zone"),
}
_OCCUPIED = "occupied"  # may be missing
_TIMES = ("time", "pickup_time", "dropoff_time")

# Usual names as `_plain_name` writes them; a later group counts only where a table has no name of an earlier one.
_LON, _LAT = (("lon", "lng", "long", "longitude"), ("x",)), (("lat", "latitude"), ("y",))
_TIME = ("time", "timestamp", "datetime", "gpstime", "recordtime", "unixtime", "epoch"), ("ts", "t", "date")
_ZONE = (("zone", "zoneid", "locationid"),)
_USUAL_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "vehicle": (
        ("vehicle", "vehicleid", "taxi", "taxiid", "cab", "cabid", "medallion", "plate", "licenseplate"),
        ("car", "carid", "device", "deviceid", "imei", "driver", "driverid", "hacklicense"),
        ("id", "uid", "objectid"),
    ),
    "time": _TIME,
    "lon": _LON,
    "lat": _LAT,
    _OCCUPIED: (("occupied", "occupancy", "hired", "busy", "passenger"),),
}
for _end, _starts in (
    ("pickup", ("pickup", "tpeppickup", "lpeppickup", "trippickup", "start", "pu")),
    ("dropoff", ("dropoff", "tpepdropoff", "lpepdropoff", "tripdropoff", "end", "do")),
):
    for _what, _groups in (("time", _TIME), ("lon", _LON), ("lat", _LAT), ("zone", _ZONE)):
        _USUAL_NAMES[f"{_end}_{_what}"] = tuple(tuple(s + name for s in _starts for name in group) for group in _groups)


@dataclass(frozen=True)
class _Layout:
    """The kind of a table's records, and the position of each field's column."""

    kind: type[Records]
    columns: dict[str, int]


def _find_columns(names: Sequence[str], city: City, path: str) -> _Layout:
    """Find the columns that the city's feed names, and the others by usual names.

    Raises InputError, with what to write in the configuration, where columns are missing or several fit one field.
    """
    named = {field: name for field, name in city.feed.columns if name is not None}
    found = {field: [i for i, one in enumerate(names) if one.strip() == name.strip()] for field, name in named.items()}
    for field, positions in found.items():
        if not positions:
            raise InputError(
                f"{path} has no column {named[field]!r}, which {_table(city)} names as its {field}; its columns are "
                f"{_listed(names)}"
            )
    taken = {i for positions in found.values() for i in positions}
    found |= {field: _usual_columns(names, field, taken) for field in _USUAL_NAMES if field not in found}
    kinds = [kind for kind in _KINDS if set(named) <= {*_KINDS[kind], *_may_be_missing(kind)}] or list(_KINDS)
    kind = max(kinds, key=lambda kind: sum(map(bool, map(found.__getitem__, _KINDS[kind]))) / len(_KINDS[kind]))
    missing = [field for field in _KINDS[kind] if not found[field]]
    if missing:
        raise InputError(
            f"{path} has no column known as its {' or '.join(missing)}; its columns are {_listed(names)}: name those "
            f'meant under {_table(city)}, such as {missing[0]} = "NAME"'
        )
    fields = [*_KINDS[kind], *(field for field in _may_be_missing(kind) if found[field])]
    for field in fields:
        if len(found[field]) > 1:
            several = [names[i] for i in found[field]]
            raise InputError(
                f"{path} has several columns that could be its {field}: {_listed(several)}; name the one meant under "
                f'{_table(city)}, such as {field} = "{several[0]}", or rename those that have one name'
            )
    return _Layout(kind, {field: found[field][0] for field in fields})


def _has_usual_columns(names: Sequence[str], kinds: Iterable[type[Records]] = tuple(_KINDS)) -> bool:
    """Say whether columns of these names make records of one of the kinds without any configuration."""
    return any(all(_usual_columns(names, field, set()) for field in _KINDS[kind]) for kind in kinds)


def _plain_name(name: str) -> str:
    """Return a column's name without blanks, underscores, dashes and capitals."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def _may_be_missing(kind: type[Records]) -> tuple[str, ...]:
    """Return the fields of a kind of records that a table need not have."""
    return (_OCCUPIED,) if kind is Points else ()


def _usual_columns(names: Sequence[str], field: str, taken: set[int]) -> list[int]:
    """Return the positions of the columns that have a usual name of a field and are not taken."""
    plain = [_plain_name(name) for name in names]
    for group in _USUAL_NAMES[field]:
        if positions := [i for i, name in enumerate(plain) if name in group and i not in taken]:
            return positions
    return []


def _listed(names: Sequence[str], limit: int = 60) -> str:
    """Write names as a list, shortened where there are many or long ones."""
    names = [name for name in names if name]
    shown = [repr(name if len(name) <= 40 else name[:40] + "...") for name in names[:limit]]
    return (", ".join(shown) or "none") + (", ..." if len(names) > limit else "")


def _table(city: City) -> str:
    """Return the name of the city's table of column names in the configuration."""
    return f"[cities.{city.name or 'NAME'}.feed.columns]"
