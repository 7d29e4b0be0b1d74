"""Make degrees of WGS 84 of the coordinates of a feed: swapped, scaled, projected, or shifted as in Chinese maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pyproj

from trafficcast.config.city import City
from trafficcast.config.feed import SHIFTED
from trafficcast.records.records import Records

ENDS = (("time", "lon", "lat"), ("dropoff_time", "dropoff_lon", "dropoff_lat"))
_Kind = TypeVar("_Kind", bound=Records)
_Pair = tuple[np.ndarray, np.ndarray]
# Of the ellipsoid that GCJ-02 uses: the semi-major axis in metres and the squared eccentricity.
_AXIS, _ECCENTRICITY = 6_378_245.0, 0.00669342162296594323
_CHINA = 72.004, 137.8347, 0.8293, 55.8271  # west, east, south, north: outside nothing is shifted
_STEPS = 12  # each makes the error at least a hundred times smaller, down to that of the numbers


def _to_degrees(records: _Kind, city: City) -> _Kind:
    """Return records whose positions, as a file has them, are converted to degrees east and north.

    Where the city's box crosses the antimeridian, degrees east run from 0 to 360.
    """
    feed = city.feed
    if not (feed.swapped or feed.crs or feed.scale != 1 or city.east > 180):
        return records
    arrays = records.arrays()
    for _, lon, lat in ENDS:
        if lon in arrays:
            arrays[lon], arrays[lat] = _converted(arrays[lon], arrays[lat], city)
    return type(records)(**arrays)


def _converted(lon: np.ndarray, lat: np.ndarray, city: City) -> _Pair:
    """Return degrees of longitudes and latitudes as a file has them."""
    feed = city.feed
    if feed.swapped:
        lon, lat = lat, lon
    if feed.scale != 1:
        # Dividing by a whole number is exact to the last digit, multiplying by its inverse is not.
        parts = round(1 / feed.scale)
        whole = parts > 1 and math.isclose(parts * feed.scale, 1, rel_tol=1e-12)
        lon, lat = (lon / parts, lat / parts) if whole else (lon * feed.scale, lat * feed.scale)
    if feed.crs:
        lon, lat = _to_wgs84(feed.crs)(lon, lat)
    if city.east > 180:
        lon = np.where(lon < 0, lon + 360, lon)
    return lon, lat


@lru_cache(16)
def _to_wgs84(crs: str) -> Callable[[np.ndarray, np.ndarray], _Pair]:
    """Return what converts coordinates of a reference system to degrees; off the globe where there is no such place."""
    if crs in SHIFTED:
        return {"gcj02": _from_gcj02, "bd09": _from_bd09}[crs]
    transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)

    def convert(x: np.ndarray, y: np.ndarray) -> _Pair:
        lon, lat = (np.asarray(degrees) for degrees in transformer.transform(x, y))
        with np.errstate(invalid="ignore"):
            lon = np.where(np.isfinite(lon) & (lon > 180) & (lon <= 360), lon - 360, lon)
        return lon, lat

    return convert


def _from_bd09(lon: np.ndarray, lat: np.ndarray) -> _Pair:
    """Convert coordinates of Baidu's maps."""
    x, y, turn = lon - 0.0065, lat - 0.006, math.pi * 3000 / 180
    radius = np.hypot(x, y) - 0.00002 * np.sin(y * turn)
    angle = np.arctan2(y, x) - 0.000003 * np.cos(x * turn)
    return _from_gcj02(radius * np.cos(angle), radius * np.sin(angle))


def _from_gcj02(lon: np.ndarray, lat: np.ndarray) -> _Pair:
    """Convert coordinates of Chinese maps: find the places that are shifted to them."""
    x, y = lon, lat
    for _ in range(_STEPS):
        dx, dy = _shift(x, y)
        x, y = lon - dx, lat - dy
    west, east, south, north = _CHINA
    inside = (lon > west) & (lon < east) & (lat > south) & (lat < north)
    return np.where(inside, x, lon), np.where(inside, y, lat)


def _shift(lon: np.ndarray, lat: np.ndarray) -> _Pair:
    """Return by how many degrees GCJ-02 shifts places to the east and to the north."""
    x, y, pi = lon - 105, lat - 35, math.pi
    waves = (20 * np.sin(6 * x * pi) + 20 * np.sin(2 * x * pi)) * 2 / 3
    root = np.sqrt(np.abs(x))
    north = -100 + 2 * x + 3 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * root + waves
    north = north + (20 * np.sin(y * pi) + 40 * np.sin(y / 3 * pi)) * 2 / 3
    north = north + (160 * np.sin(y / 12 * pi) + 320 * np.sin(y * pi / 30)) * 2 / 3
    east = 300 + x + 2 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * root + waves
    east = east + (20 * np.sin(x * pi) + 40 * np.sin(x / 3 * pi)) * 2 / 3
    east = east + (150 * np.sin(x / 12 * pi) + 300 * np.sin(x / 30 * pi)) * 2 / 3
    radians = np.radians(lat)
    curve = 1 - _ECCENTRICITY * np.sin(radians) ** 2
    metres_north = _AXIS * (1 - _ECCENTRICITY) / (curve * np.sqrt(curve))
    metres_east = _AXIS / np.sqrt(curve) * np.cos(radians)
    return np.degrees(east / metres_east), np.degrees(north / metres_north)
