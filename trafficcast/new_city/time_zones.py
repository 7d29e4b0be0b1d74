"""Which time zones lie near a place, and whose they are, by the tables that come with the time zone data.

zone1970.tab has one place for each zone, its largest city, and no borders: nearness suggests, it proves nothing
(Badajoz in Spain is nearer to Lisbon than to Madrid). zone.tab has the zones of every country.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import NamedTuple

import numpy as np

# So near to the place that a zone is named after is its very city. Further away borders begin: Saryagash, on a clock of
# its own until 2024, is 16 km from Tashkent, and Batam 25 km from Singapore.
_OWN_CITY_KM = 15.0
_EARTH_KM = 6371.0088
_COORDINATES = re.compile(r"([+-])(\d\d)(\d\d)(\d\d)?([+-])(\d{3})(\d\d)(\d\d)?")  # ISO 6709


class _NearZone(NamedTuple):
    """An IANA zone and how far from here the place is that it is named after."""

    name: str
    km: float


def _nearest_zones(lon: float, lat: float) -> list[_NearZone]:
    """All zones of the table, the nearest to a place (degrees) first."""
    rows = _rows("zone1970.tab")
    places = np.radians([_degrees(coordinates) for _, coordinates, *_ in rows])
    here = np.radians([lat, lon])
    south_north, west_east = (places - here).T
    half_chord = np.sin(south_north / 2) ** 2 + np.cos(here[0]) * np.cos(places[:, 0]) * np.sin(west_east / 2) ** 2
    km = 2 * _EARTH_KM * np.arcsin(np.sqrt(half_chord))
    return sorted((_NearZone(row[2], distance) for row, distance in zip(rows, km.tolist(), strict=True)), key=_distance)


def _own_zone(lon: float, lat: float) -> _NearZone | None:
    """The zone that is named after the city at a place (degrees); None where there is none, or more than one."""
    near = [zone for zone in _nearest_zones(lon, lat) if zone.km <= _OWN_CITY_KM]
    return near[0] if len(near) == 1 else None


def _country_of(zone: str) -> str | None:
    """The country (ISO 3166) that a zone is of; None of those of none, such as UTC, and of names no longer in use."""
    return next((row[0] for row in _rows("zone.tab") if row[2] == zone), None)


def _rows(table: str) -> list[list[str]]:
    text = (resources.files("tzdata") / "zoneinfo" / table).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


def _degrees(coordinates: str) -> tuple[float, float]:
    """+DDMM+DDDMM or +DDMMSS+DDDMMSS -> latitude and longitude."""
    match = _COORDINATES.fullmatch(coordinates)
    if match is None:
        raise ValueError(f"'{coordinates}' in zone1970.tab is no place")
    parts = match.groups(default="0")
    lat, lon = (
        float(f"{sign}1") * (int(degrees) + int(minutes) / 60 + int(seconds) / 3600)
        for sign, degrees, minutes, seconds in (parts[:4], parts[4:])
    )
    return lat, lon


def _distance(zone: _NearZone) -> float:
    return zone.km
