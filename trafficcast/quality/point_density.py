"""Where vehicles report: a picture of the city's streets drawn from its own records, and the box that fits them.

The picture of the box is a raster. The points of the whole globe are counted in a coarse grid, from which the box of a
city is suggested.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from trafficcast.config.city import OUTSIDE, City
from trafficcast.config.city_toml import city_toml
from trafficcast.config.feed import Feed
from trafficcast.geography.cells import box_of, cells_of
from trafficcast.ingestion.record_store import RecordStore, State
from trafficcast.records.coordinates import ENDS
from trafficcast.records.records import Records

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

Box = tuple[float, float, float, float]  # west, east, south, north in degrees
# A suggested box is the smallest of whole units that holds this share of the points. Of San Francisco's taxis this box
# is the city with its airport, whereas 0.99 includes the other side of the bay and 0.95 excludes the ocean's shore.
SHARE_HELD = 0.97
_UNITS = (1.0, 0.1, 0.01)  # degrees; each narrows down the box of the one before
_MOST_UNITS = 150  # on a side of a box that is to be found in finer units
_SMALLEST_DEGREES = 0.02


def point_counts(store: RecordStore, state: State, city: City, size: int = _SIZE) -> np.ndarray:
    """Count how many points of the last weeks fell on each pixel of the city's box.

    Of many points enough are drawn: whole files, the same in every call. One file is in memory at a time.

    Parameters
    ----------
    store
        The city's record store.
    state
        The state of the store that is read.
    city
        The city.
    size
        Pixels on a side.

    Returns
    -------
    np.ndarray
        (size, size) int64, points on each pixel, of trips pick-ups and drop-offs. Row 0 is north; rows are even in the
        y of the Mercator projection, as the map's are.
    """
    counts = np.zeros((size, size), np.int64)
    if state.kind == "zone-trips":
        return counts
    drawn, spans = 0, sorted(state.files)
    recent = [span for span in spans if span.end > spans[-1].end - _RECENT_HOURS]
    for i in np.random.default_rng(0).permutation(len(recent)).tolist():
        _, lon, lat = ends(store.read(state, recent[i]))
        _add_to_raster(counts, city, lon, lat)
        drawn += len(lon)
        if drawn >= _ENOUGH_POINTS:
            break
    return counts


def ends(records: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the times and coordinates of points, or of both ends of trips.

    Parameters
    ----------
    records
        Points, trips, or trips between zones, which have no coordinates.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, np.ndarray]
        (n) each: times in microseconds since 1970 UTC, longitudes and latitudes in degrees; empty for trips between
        zones.
    """
    arrays = records.arrays()
    known = [names for names in ENDS if names[1] in arrays]
    if not known:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    time, lon, lat = (np.concatenate([arrays[name] for name in column]) for column in zip(*known, strict=True))
    return time, lon, lat


def _add_to_raster(counts: np.ndarray, city: City, lon: np.ndarray, lat: np.ndarray) -> None:
    """Add the points that lie in the city's box to the counts of its pixels, (size, size) (see `point_counts`)."""
    size = len(counts)
    north, south = _mercator(np.array([city.north, city.south]))
    near = (lat >= city.south) & (lat <= city.north) & (lon >= city.west) & (lon <= city.east)
    row = np.floor((north - _mercator(lat[near])) / (north - south) * size).astype(np.int64)
    col = np.floor((lon[near] - city.west) / (city.east - city.west) * size).astype(np.int64)
    inside = (row >= 0) & (row < size) & (col >= 0) & (col < size)
    np.add.at(counts, (row[inside], col[inside]), 1)


def _mercator(lat: np.ndarray) -> np.ndarray:
    """Return the Mercator projection's y of latitudes in degrees, on a sphere of radius 1."""
    return np.arcsinh(np.tan(np.radians(lat)))


def _outside_box(city: City, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Return whether each point lies in none of the city's cells."""
    outside: np.ndarray = cells_of(lon, lat, box_of(city), city.rows, city.cols) == OUTSIDE
    return outside


class PointDensity:
    """Counts of points on the cells of a grid of the globe.

    Only cells with a point are kept. Where these become too many, all cells are made twice as wide.
    """

    def __init__(self) -> None:
        self.degrees = _CELL_DEGREES  # the side of a cell
        self._keys, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._new: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, lon: np.ndarray, lat: np.ndarray) -> None:
        """Count points.

        Parameters
        ----------
        lon
            (n), longitudes in degrees.
        lat
            (n), latitudes in degrees.
        """
        row = np.floor((lat + 90) / self.degrees).astype(np.int64)
        col = np.floor((lon + 180) / self.degrees).astype(np.int64)
        self._new.append(np.unique(row * _ROW + col, return_counts=True))
        if sum(len(keys) for keys, _ in self._new) > _MOST_CELLS:
            self._sum_up()

    def cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the cells that have a point.

        Returns
        -------
        tuple[np.ndarray, np.ndarray, np.ndarray]
            (n) each: row from the south pole, column from the antimeridian, and number of points.
        """
        self._sum_up()
        return self._keys // _ROW, self._keys % _ROW, self._counts

    def share_in(self, box: Box) -> float:
        """Return the share of the points that lie in a box.

        Parameters
        ----------
        box
            West, east, south and north in degrees.

        Returns
        -------
        float
            The share of the points in cells whose centre lies in the box, 0 to 1; 0 without any point.
        """
        lon, lat, counts = self._centres()
        inside = (lon >= box[0]) & (lon < box[1]) & (lat >= box[2]) & (lat < box[3])
        return float(counts[inside].sum() / max(counts.sum(), 1))

    def smallest_box(self, share: float = SHARE_HELD) -> Box | None:
        """Find the box of the smallest degrees x degrees that holds a share of the points: the one to suggest.

        Parameters
        ----------
        share
            The least share of the points in the box, 0 to 1.

        Returns
        -------
        Box | None
            West, east, south and north, whole hundredths of a degree, 0.02 degrees or more apart; whole or tenths of a
            degree where the box is wider than a city. None without any point.
        """
        lon, lat, counts = self._centres()
        if not len(counts):
            return None
        box, margin = (-180.0, 180.0, -90.0, 90.0), 0.0
        for unit in _UNITS:
            if unit < _UNITS[0] and max(box[1] - box[0], box[3] - box[2]) > _MOST_UNITS * unit:
                break
            box = _smallest(lon, lat, counts, box, margin, unit, share)
            margin = unit
        west, east = _at_least(*box[:2], 180.0)
        south, north = _at_least(*box[2:], 90.0)
        return west, east, south, north

    def picture(self, box: Box, size: int) -> tuple[np.ndarray, Box]:
        """Return the counts in and around a box as a raster.

        Parameters
        ----------
        box
            West, east, south and north in degrees.
        size
            About the most pixels on a side.

        Returns
        -------
        tuple[np.ndarray, Box]
            (row, col) int64, points on each pixel, row 0 being north; and the edges of the raster in degrees.
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

    def _centres(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return longitude and latitude of the centres of the cells with a point, and the number of points."""
        row, col, counts = self.cells()
        half = self.degrees / 2
        # A point at 180 or at 90 degrees lies in a cell beyond the globe's edge.
        lon = np.minimum((col + 0.5) * self.degrees - 180, 180 - half)
        lat = np.minimum((row + 0.5) * self.degrees - 90, 90 - half)
        return lon, lat, counts

    def _sum_up(self) -> None:
        """Sum the counts of equal cells, and widen the cells until there are few enough."""
        if self._new:
            keys, counts = (np.concatenate(parts) for parts in zip(*self._new, strict=True))
            self._keys, self._counts = _summed([self._keys, keys], [self._counts, counts])
            self._new = []
        while len(self._keys) > _MOST_CELLS:
            self.degrees *= 2
            keys = self._keys // _ROW // 2 * _ROW + self._keys % _ROW // 2
            self._keys, self._counts = _summed([keys], [self._counts])


def _summed(keys: list[np.ndarray], counts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct keys and the sum of each key's counts."""
    distinct, which = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.zeros(len(distinct), np.int64)
    np.add.at(total, which, np.concatenate(counts))
    return distinct, total


def _smallest(
    lon: np.ndarray, lat: np.ndarray, counts: np.ndarray, near: Box, margin: float, unit: float, share: float
) -> Box:
    """Return the smallest box of whole units with a share of the counts, within a margin around another box."""
    col, row = np.floor(lon / unit).astype(np.int64), np.floor(lat / unit).astype(np.int64)
    kept = (lon >= near[0] - margin) & (lon <= near[1] + margin) & (lat >= near[2] - margin) & (lat <= near[3] + margin)
    west, south = int(col[kept].min()), int(row[kept].min())
    rows, cols = int(row[kept].max()) - south + 1, int(col[kept].max()) - west + 1
    until = np.zeros((rows + 1, cols + 1), np.int64)  # the counts below a row and left of a column
    np.add.at(until, (row[kept] - south + 1, col[kept] - west + 1), counts[kept])
    until = until.cumsum(0).cumsum(1)
    wanted = share * counts.sum()
    best, smallest = (0, cols, 0, rows), rows * cols
    for bottom in range(rows):
        for top in range(bottom + 1, rows + 1):
            band = until[top] - until[bottom]
            if band[-1] < wanted:
                continue
            end = np.searchsorted(band, band + wanted)  # of the shortest part of the band that begins at each column
            begin = np.flatnonzero(end <= cols)
            left = int(begin[np.argmin(end[begin] - begin)])
            area = (top - bottom) * int(end[left] - left)
            if area < smallest:
                best, smallest = (left, int(end[left]), bottom, top), area
    left, right, bottom, top = best
    return (west + left) * unit, (west + right) * unit, (south + bottom) * unit, (south + top) * unit


def _at_least(low: float, high: float, limit: float) -> tuple[float, float]:
    """Widen an interval to _SMALLEST_DEGREES, within -limit to limit; its ends are whole hundredths of a degree."""
    missing = max(0, round((_SMALLEST_DEGREES - (high - low)) / _UNITS[-1]))
    low, high = low - (missing + 1) // 2 * _UNITS[-1], high + missing // 2 * _UNITS[-1]
    return max(-limit, round(low, 2)), min(limit, round(high, 2))


def shade_levels(counts: np.ndarray) -> np.ndarray:
    """Turn counts per pixel into shades.

    Parameters
    ----------
    counts
        (row, col), points on each pixel.

    Returns
    -------
    np.ndarray
        (row, col) uint8, 0 without any point to 15, even in log(1 + count).
    """
    if not counts.any():
        return np.zeros(counts.shape, np.uint8)
    full = np.log1p(np.percentile(counts[counts > 0], _FULL_AT))
    share = np.clip(np.log1p(counts) / full, 0, 1)
    return np.ceil(share * (_LEVELS - 1)).astype(np.uint8)


def png_uri(levels: np.ndarray) -> str:
    """Draw shades as a PNG picture, transparent where the shade is 0.

    Parameters
    ----------
    levels
        (row, col) uint8, shades from 0 to 15 (see `shade_levels`).

    Returns
    -------
    str
        A data URI, which needs no request.
    """
    picture = Image.fromarray(levels)
    picture.putpalette(bytes(_INK) * _LEVELS)
    file = io.BytesIO()
    opacity = bytes(round(_DARKEST * level / (_LEVELS - 1)) for level in range(_LEVELS))
    picture.save(file, "PNG", transparency=opacity, bits=4)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _suggested_box(city: City, density: PointDensity, share_outside: float) -> dict[str, Any] | None:
    """Return a box to suggest where many points lie outside the city's, the share it holds, and the table to write."""
    box = density.smallest_box() if share_outside > MUCH_OUTSIDE else None
    if box is None:
        return None
    edges = dict(zip(("west", "east", "south", "north"), box, strict=True))
    suggested = city.model_copy(update={**edges, "feed": Feed()})
    return {**edges, "share_held": round(density.share_in(box), 4), "toml": city_toml(suggested)}
