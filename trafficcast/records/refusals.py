"""Say why a file gives no record: some of its values as they stand there, what they look like, and what helps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np
import pyproj
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_crs_info
from pyproj.enums import PJType

from trafficcast.config.city import City
from trafficcast.config.time_format import pattern_of

_Row = tuple[int, dict[str, str]]
_SHOWN = 3
_LETTERS = 60  # of a value, at most
_SCALES = {1e-6: "microdegrees", 1e-7: "degrees times ten million (E7)", 1e-5: "degrees times a hundred thousand"}
_TOGETHER = ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d")
_EXCEL = datetime(1899, 12, 30)
_METRES = 20_050_000.0  # from the middle of the Web Mercator's map to its edge


def _why_refused(rows: Sequence[_Row], dropped: Counter[str], city: City) -> str:
    """Say what is wrong with the rows of a file that gives no record, by the reasons for which they were dropped.

    It shows up to three of the values with their lines, what they look like and the key that helps.
    """
    reason = max(("coordinates", "timestamp", "clock", "unparsable"), key=lambda one: dropped[one])
    of_reason = {"coordinates": ("lon", "lat"), "timestamp": ("time",), "clock": ("time",)}.get(reason, ("",))
    fields = [field for field in (rows[0][1] if rows else {}) if field.endswith(of_reason)]
    if not fields:
        return ""
    if reason == "coordinates":
        rows = [row for row in rows if _is_off_the_globe(row[1])] or rows
    shown = "; ".join(
        f"line {number}: " + ", ".join(f"{field} {_short(row.get(field, ''))!r}" for field in fields)
        for number, row in rows[:_SHOWN]
    )
    values = [{field: row.get(field, "").strip() for field in fields} for _, row in rows]
    look = _look_of_places(values, city) if reason == "coordinates" else _look_of_times(values, reason)
    return f"{shown}{look}".replace("[cities.NAME.", f"[cities.{city.name or 'NAME'}.")


def _short(text: str) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= _LETTERS else text[:_LETTERS] + "..."


def _look_of_places(values: Sequence[dict[str, str]], city: City) -> str:
    """Say what coordinates look like that are no degrees."""
    places = np.array([*_pairs(values)], np.float64).reshape(-1, 2)
    if not len(places):
        return ""
    lon, lat = places.T[::-1] if city.feed.swapped else places.T
    if not places.any():
        return "; they are all 0, which no vehicle is"
    table = "[cities.NAME.feed]"
    if city.feed.crs or city.feed.scale != 1:
        return f"; check crs and scale under {table}, by which they are converted"
    for scale, name in _SCALES.items():
        if _in_box(lon * scale, lat * scale, city):
            return f"; they look like {name}: set scale = {scale:g} under {table}"
    for crs in _likely_systems(city):
        try:
            x, y = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(lon, lat)
        except pyproj.exceptions.ProjError:  # a system that cannot be converted
            continue
        if _in_box(np.asarray(x), np.asarray(y), city):
            name = "metres of Web Mercator" if crs == "EPSG:3857" else f"coordinates of {pyproj.CRS(crs).name}"
            return f'; they look like {name}: set crs = "{crs}" under {table}'
    if (abs(lat) <= 90).all() and ((lon > 180) & (lon <= 360)).any():
        return f'; they look like longitudes from 0 to 360: set crs = "EPSG:4326" under {table}'
    if np.abs(places).max() > _METRES:
        return f"; they look like whole parts of degrees: set scale under {table}, such as scale = 1e-7"
    return (
        f'; they look like metres of a projection, such as Web Mercator ("EPSG:3857"): set its crs under {table}'
        if np.abs(places).min() > 360
        else f"; set crs under {table} if they are no degrees, or name other columns under [cities.NAME.feed.columns]"
    )


def _pairs(values: Sequence[dict[str, str]]) -> Iterator[tuple[float, float]]:
    """Yield the first longitude and latitude of each row that has numbers."""
    for row in values:
        lon, lat = (next(value for field, value in row.items() if field.endswith(end)) for end in ("lon", "lat"))
        try:
            yield float(lon.replace(",", ".")), float(lat.replace(",", "."))
        except ValueError:
            continue


def _is_off_the_globe(row: dict[str, str]) -> bool:
    """Say whether a row has numbers that are no longitude and latitude, or both 0."""
    return any(abs(lon) > 180 or abs(lat) > 90 or (lon, lat) == (0, 0) for lon, lat in _pairs([row]))


def _likely_systems(city: City) -> Iterator[str]:
    """Yield the reference systems in use where the city lies, Web Mercator first."""
    yield "EPSG:3857"
    area = AreaOfInterest(city.west, city.south, min(city.east, 180.0), city.north)
    for info in query_crs_info(auth_name="EPSG", pj_types=PJType.PROJECTED_CRS, area_of_interest=area, contains=True):
        yield f"EPSG:{info.code}"


def _in_box(lon: np.ndarray, lat: np.ndarray, city: City) -> bool:
    """Say whether most places lie in a city's box."""
    lon = np.where((city.east > 180) & (lon < 0), lon + 360, lon)
    inside = (lon >= city.west) & (lon <= city.east) & (lat >= city.south) & (lat <= city.north)
    return bool(inside.mean() > 0.5)


def _look_of_times(values: Sequence[dict[str, str]], reason: str) -> str:
    """Say what values look like that are no times between 2000 and now."""
    if reason == "unparsable":
        return ""
    if reason == "clock":
        return (
            "; these local times occur twice or never, as clocks are changed: write times in UTC or with their offset"
        )
    texts = [text for row in values for text in row.values() if text]
    numbers = [float(text) for text in texts if re.fullmatch(r"-?\d+(\.\d*)?", text)]
    if len(numbers) < len(texts) or not numbers:
        return "; a time lies between 2000 and a day from now"
    for form in _TOGETHER:
        if all(re.fullmatch(pattern_of(form) or "", text.removesuffix(".0")) for text in texts):
            return f'; they look like clock digits run together: set time_format = "{form}" under [cities.NAME.feed]'
    low, high = min(numbers), max(numbers)
    if low >= 36_526 and high < 73_051:  # 2000 to 2099
        day = (_EXCEL + timedelta(days=low)).isoformat(" ", "minutes")
        return f'; they look like Excel\'s day numbers ({low:g} is {day}): set time_format = "excel"' + _UNDER
    if low >= 0 and high < 100_000_000:
        return (
            "; they look like seconds since the start of a simulation, not since 1970: add the start of the simulation "
            "in seconds since 1970 to them"
        )
    return "; as numbers since 1970, in whatever unit, they lie before 2000 or after today"


_UNDER = " under [cities.NAME.feed]"
