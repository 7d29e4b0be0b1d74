"""Where vehicles report: a picture of the city's streets drawn from its own records, no map file needed.

The picture of the box is a raster; what lies beyond is counted in a coarse grid of the whole globe, which also says
what a better box would be.
"""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
from numba import njit
from PIL import Image

from trafficcast.config.city import OUTSIDE, City
from trafficcast.geography.cells import cell_of
from trafficcast.ingest.record_store import RecordStore, State
from trafficcast.records.records import Records
from trafficcast.records.screening import ENDS

# Another box is suggested when more of the points than this lie outside.
MUCH_OUTSIDE = 0.1

_SIZE = 1024
_RECENT_HOURS = 24 * 28
_ENOUGH_POINTS = 2_000_000  # to see every street of a city by
_LEVELS = 16
_INK = (38, 46, 58)
_DARKEST = 215
# The shade grows with the logarithm of the count; beyond this share of the pixels that have any it is full.
_FULL_AT = 99.0

_CELL_DEGREES = 2.0**-10  # 100 m or so
_MOST_CELLS = 2**19
_ROW = 2**20  # more than there are columns
# A suggested box is the smallest that holds this share of the longitudes and of the latitudes, and no smaller than
# this (2 km); it is rounded outward to 1, 2 or 5 times a power of ten, to about this part of it.
_HELD, _SMALLEST_DEGREES, _ROUNDED_TO = 0.99, 0.02, 1 / 20

Box = tuple[float, float, float, float]  # west, east, south, north in degrees


def point_counts(store: RecordStore, state: State, city: City, size: int = _SIZE) -> np.ndarray:
    """How many points (of trips: pick-ups and drop-offs) of the last weeks fell on each pixel: (size, size).

    See `add_to_raster`. Of many points enough are drawn, whole hours, the same in every call; one is in memory at a
    time.
    """
    counts = np.zeros((size, size), np.int64)
    if state.kind == "zone-trips":
        return counts
    drawn, recent = 0, sorted(state.hours)[-_RECENT_HOURS:]
    for hour in np.random.default_rng(0).permutation(recent).tolist():
        _, lon, lat = ends(store.read_hour(state, hour))
        _add_to_raster(counts, city, lon, lat)
        drawn += len(lon)
        if drawn >= _ENOUGH_POINTS:
            break
    return counts


def ends(records: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, longitudes and latitudes of points, of trips those of both ends; none of trips between zones."""
    arrays = records.arrays()
    known = [names for names in ENDS if names[1] in arrays]
    if not known:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    time, lon, lat = (np.concatenate([arrays[name] for name in column]) for column in zip(*known, strict=True))
    return time, lon, lat


def _add_to_raster(counts: np.ndarray, city: City, lon: np.ndarray, lat: np.ndarray) -> None:
    """Add what lies in the city's box to the counts of its pixels, (size, size).

    Row 0 is north; rows are even in the Mercator projection's y, as the map's are.
    """
    size = len(counts)
    north, south = _mercator(np.array([city.north, city.south]))
    near = (lat >= city.south) & (lat <= city.north) & (lon >= city.west) & (lon <= city.east)
    row = np.floor((north - _mercator(lat[near])) / (north - south) * size).astype(np.int64)
    col = np.floor((lon[near] - city.west) / (city.east - city.west) * size).astype(np.int64)
    inside = (row >= 0) & (row < size) & (col >= 0) & (col < size)
    np.add.at(counts, (row[inside], col[inside]), 1)


def _outside_box(city: City, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Which points lie in none of the city's cells."""
    box = np.array([city.west, city.east, city.south, city.north])
    result: np.ndarray = _outside(lon, lat, box, city.rows, city.cols)
    return result


class Places:
    """How many points fell on each cell of a grid of the globe.

    Only cells that have any are kept; where these become too many, all are made twice as wide.
    """

    def __init__(self) -> None:
        self.degrees = _CELL_DEGREES
        self._keys, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._new: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, lon: np.ndarray, lat: np.ndarray) -> None:
        """Count points."""
        row = np.floor((lat + 90) / self.degrees).astype(np.int64)
        col = np.floor((lon + 180) / self.degrees).astype(np.int64)
        self._new.append(np.unique(row * _ROW + col, return_counts=True))
        if sum(len(keys) for keys, _ in self._new) > _MOST_CELLS:
            self._sum_up()

    def cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row from the south pole, column from the antimeridian, and the count of each cell that has any."""
        self._sum_up()
        return self._keys // _ROW, self._keys % _ROW, self._counts

    def share_in(self, box: Box) -> float:
        """The share of the points that lie in cells whose centre does; 0 of none."""
        row, col, counts = self.cells()
        lon, lat = (col + 0.5) * self.degrees - 180, (row + 0.5) * self.degrees - 90
        inside = (lon >= box[0]) & (lon < box[1]) & (lat >= box[2]) & (lat < box[3])
        return float(counts[inside].sum() / max(counts.sum(), 1))

    def usual_box(self) -> Box | None:
        """The smallest box that holds nearly all, rounded outward; None of no points."""
        row, col, counts = self.cells()
        if not len(counts):
            return None
        west, east = _rounded_outward(*_shortest(col, counts, self.degrees, -180.0), 180.0)
        south, north = _rounded_outward(*_shortest(row, counts, self.degrees, -90.0), 90.0)
        return west, east, south, north

    def picture(self, box: Box, size: int) -> tuple[np.ndarray, Box]:
        """Counts (row, col), row 0 north, of the cells that touch a box, at most about `size` of them on a side.

        Returns the edges of the picture as well.
        """
        row, col, counts = self.cells()
        factor = max(1, int(np.ceil(max(box[1] - box[0], box[3] - box[2]) / self.degrees / size)))
        row, col, degrees = row // factor, col // factor, self.degrees * factor
        first_col, last_col = (int(np.floor((lon + 180) / degrees)) for lon in box[:2])
        first_row, last_row = (int(np.floor((lat + 90) / degrees)) for lat in box[2:])
        within = (row >= first_row) & (row <= last_row) & (col >= first_col) & (col <= last_col)
        picture = np.zeros((last_row - first_row + 1, last_col - first_col + 1), np.int64)
        np.add.at(picture, (last_row - row[within], col[within] - first_col), counts[within])
        edges = (
            first_col * degrees - 180, (last_col + 1) * degrees - 180,
            first_row * degrees - 90, (last_row + 1) * degrees - 90,
        )  # fmt: skip
        return picture, edges

    def _sum_up(self) -> None:
        if self._new:
            keys, counts = (np.concatenate(parts) for parts in zip(*self._new, strict=True))
            self._keys, self._counts = _summed([self._keys, keys], [self._counts, counts])
            self._new = []
        while len(self._keys) > _MOST_CELLS:
            self.degrees *= 2
            keys = self._keys // _ROW // 2 * _ROW + self._keys % _ROW // 2
            self._keys, self._counts = _summed([keys], [self._counts])


def shade_levels(counts: np.ndarray) -> np.ndarray:
    """Counts per pixel -> shades 0 (none) to LEVELS - 1, same shape, even in log(1 + count)."""
    if not counts.any():
        return np.zeros(counts.shape, np.uint8)
    full = np.log1p(np.percentile(counts[counts > 0], _FULL_AT))
    share = np.clip(np.log1p(counts) / full, 0, 1)
    return np.ceil(share * (_LEVELS - 1)).astype(np.uint8)


def png_uri(levels: np.ndarray) -> str:
    """Shades (row, col) -> a PNG as a data URI, which needs no request; clear where there is nothing."""
    picture = Image.fromarray(levels)
    picture.putpalette(bytes(_INK) * _LEVELS)
    file = io.BytesIO()
    opacity = bytes(round(_DARKEST * level / (_LEVELS - 1)) for level in range(_LEVELS))
    picture.save(file, "PNG", transparency=opacity, bits=4)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


@njit(cache=True, nogil=True)
def _outside(lon, lat, box, rows, cols):  # type: ignore[no-untyped-def]
    found = np.empty(len(lon), np.bool_)
    for i in range(len(lon)):
        found[i] = cell_of(lon[i], lat[i], box, rows, cols) == OUTSIDE
    return found


def _mercator(lat: np.ndarray) -> np.ndarray:
    return np.arcsinh(np.tan(np.radians(lat)))


def _summed(keys: list[np.ndarray], counts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    distinct, which = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.zeros(len(distinct), np.int64)
    np.add.at(total, which, np.concatenate(counts))
    return distinct, total


def _shortest(cell: np.ndarray, counts: np.ndarray, degrees: float, origin: float) -> tuple[float, float]:
    """The shortest interval, in degrees, that holds the share HELD of the counts along one axis."""
    first = int(cell.min())
    until = np.concatenate([[0], np.cumsum(np.bincount(cell - first, counts))])
    end = np.searchsorted(until, until[:-1] + _HELD * until[-1])  # of the interval that begins at each cell
    possible = np.flatnonzero(end < len(until))
    begin = int(possible[np.argmin(end[possible] - possible)])
    return (first + begin) * degrees + origin, (first + int(end[begin])) * degrees + origin


def _rounded_outward(low: float, high: float, limit: float) -> tuple[float, float]:
    """An interval with simple ends around another, of a sensible length and within -limit to limit."""
    missing = max(0.0, _SMALLEST_DEGREES - (high - low))
    low, high = low - missing / 2, high + missing / 2
    power = 10.0 ** np.floor(np.log10((high - low) * _ROUNDED_TO))
    unit = power * max((step for step in (2, 5) if step * power <= (high - low) * _ROUNDED_TO), default=1)
    decimals = max(0, int(-np.floor(np.log10(unit))))
    low, high = np.floor(low / unit) * unit, np.ceil(high / unit) * unit
    return max(-limit, round(float(low), decimals)), min(limit, round(float(high), decimals))


def _suggested_box(city: City, places: Places, share_outside: float) -> dict[str, Any] | None:
    """Where much lies outside, the smallest box that holds nearly all, about what share, and the table to write."""
    box = places.usual_box()
    if share_outside <= MUCH_OUTSIDE or box is None:
        return None
    return {
        **dict(zip(("west", "east", "south", "north"), box, strict=True)),
        "share_held": round(places.share_in(box), 4),
        "toml": _table(city, box),
    }


def _table(city: City, box: Box) -> str:
    name = city.name if re.fullmatch(r"[A-Za-z0-9_-]+", city.name) else json.dumps(city.name)
    edges = "".join(f"{key} = {edge!r}\n" for key, edge in zip(("west", "east", "south", "north"), box, strict=True))
    return (
        f"[cities.{name}]\n{edges}rows = {city.rows}\ncols = {city.cols}\nslot_minutes = {city.slot_minutes}\n"
        f'timezone = "{city.timezone}"\n'
    )
