"""Suggestions for a new city's table, from its records: the box that holds them, a grid and a slot length that fit.

The records are read once and none is kept: their points are counted in a grid of the globe, and distinct minutes and
visits are estimated by sketches of a fixed size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pandas.util import hash_array

from trafficcast.config.city import MINUTE_US, City
from trafficcast.errors import InputError
from trafficcast.geography.cells import EARTH_RADIUS_M
from trafficcast.quality.point_density import Box, PointDensity, ends
from trafficcast.records.records import Points, Records, Trips
from trafficcast.stores.observed import Evidence, judge_observed, least_observed_hours, observed_by_hour

_FEWEST_RECORDS = 1_000

_KM_PER_DEGREE = EARTH_RADIUS_M / 1000 * np.pi / 180
_CELL_KM = 0.5
_MOST_CELL_KM = 5.0
_PATCH = 4  # cells on a side of the patches in which VMRNN reads the grid
_FEWEST_CELLS, _USUAL_CELLS, _MOST_CELLS = 8, 32, 64  # on a side
_USUAL_CELL_KM, _USUAL_ASPECT = (0.35, 0.7), 1.25  # limits within which the grid is 32 x 32 cells

_SLOT_MINUTES = (30, 60, 120)
_LEAST_FLOW = 0.25  # vehicles per slot that enter a cell, mean over all cells and slots

_SKETCH = 4096  # hashes: a relative standard error of 1.6 %
_HALF_HOUR_US = 30 * MINUTE_US


class _Distinct:
    """Estimates the number of distinct 64-bit hashes from the smallest ones.

    The estimator is from Bar-Yossef et al., "Counting Distinct Elements in a Data Stream" (RANDOM 2002).
    """

    def __init__(self) -> None:
        self._smallest = np.zeros(0, np.uint64)

    def add(self, hashes: np.ndarray) -> None:
        """Add hashes, (n) uint64."""
        if len(self._smallest) == _SKETCH:
            hashes = hashes[hashes < self._smallest[-1]]
        self._smallest = np.unique(np.concatenate([self._smallest, hashes]))[:_SKETCH]

    def estimate(self) -> float:
        """Return the number of distinct hashes, which is exact where they are few."""
        if len(self._smallest) < _SKETCH:
            return float(len(self._smallest))
        return (_SKETCH - 1) / (float(self._smallest[-1]) / 2.0**64)


@dataclass
class _RecordSample:
    """Statistics of records, collected in one pass.

    `density` counts points, of trips pick-ups and drop-offs. `minutes` has the records of each minute of the half hours
    with a record. `visits` are distinct (vehicle, half hour, square of _CELL_KM); their number hardly depends on how
    often a vehicle reports.
    """

    kind: type[Records] | None = None
    count: int = 0
    density: PointDensity = field(default_factory=PointDensity)
    minutes: dict[int, np.ndarray] = field(default_factory=dict)
    visits: _Distinct = field(default_factory=_Distinct)
    last_us: int = 0

    def add(self, records: Records, vehicles: list[str]) -> None:
        """Add points or trips; the codes of points index the names `vehicles`."""
        if not len(records):
            return
        if not isinstance(records, Points | Trips):
            raise InputError(
                "trips between zones have no coordinates to find a box by: write the city's table by hand, with a box "
                "around the zones, and the file of their polygons as zones under [cities.NAME.feed]"
            )
        if self.kind not in (None, type(records)):
            raise InputError("there are both GPS points and trips, which make two cities: give the files of one kind")
        self.kind = type(records)
        time, lon, lat = ends(records)
        self.count += len(records)
        self.last_us = max(self.last_us, int(time.max()))
        self.density.add(lon, lat)
        for half_hour, n in zip(*_by_half_hour(time // MINUTE_US), strict=True):
            self.minutes[half_hour] = self.minutes.get(half_hour, 0) + n
        if isinstance(records, Points):
            self.visits.add(_visits(records, vehicles))

    def observed(self, city: City) -> tuple[float, str]:
        """Return about which share of a city's slots would be observed, and the hours of which fewest are."""
        half_hours = np.array(sorted(self.minutes))
        counts = np.stack([self.minutes[half_hour] for half_hour in half_hours.tolist()])
        minute = (half_hours[:, None] * 30 + np.arange(30)).ravel()
        number, at = np.unique(minute // city.slot_minutes, return_inverse=True)
        minutes = np.zeros((len(number), city.slot_minutes), np.int64)
        minutes[at, minute % city.slot_minutes] = counts.ravel()
        judged, observed = judge_observed(city, Evidence(number, minutes, None, self.kind is Trips))
        hours = least_observed_hours(observed_by_hour(city, judged, observed))
        return np.count_nonzero(observed) / (number[-1] - number[0] + 1), hours

    def flow(self, cell_km: float) -> float:
        """Return about how many vehicles enter cells of this side in half an hour, summed over all cells."""
        # A trip enters one cell, the one where it ends. A visit is one to a cell if cells are of its squares' size.
        entries = self.visits.estimate() * _CELL_KM / cell_km if self.kind is Points else float(self.count)
        return entries / max(len(self.minutes), 1)


def _by_half_hour(minute: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Return the half hours of minutes since 1970, and the number of each of their minutes, (half hour, minute)."""
    half_hours, at = np.unique(minute // 30, return_inverse=True)
    counts = np.bincount(at * 30 + minute % 30, minlength=30 * len(half_hours))
    return half_hours.tolist(), counts.reshape(-1, 30)


@dataclass(frozen=True)
class _Suggestion:
    """A box in degrees, the share of points in it, the grid, a cell's height and width in metres, and the slot length.

    `flow` estimates the vehicles per slot that enter a cell, the mean over all cells and slots.
    """

    box: Box
    share: float
    rows: int
    cols: int
    cell_m: tuple[int, int]
    slot_minutes: int
    flow: float

    @property
    def middle(self) -> tuple[float, float]:
        """Longitude and latitude of the middle of the box, degrees."""
        west, east, south, north = self.box
        return (west + east) / 2, (south + north) / 2


def _suggest(
    sample: _RecordSample, rows: int | None = None, cols: int | None = None, slot_minutes: int | None = None
) -> _Suggestion:
    """Suggest what fits the records, for all of grid and slot length that is not given.

    Raises InputError where there are too few records, or they are spread over more than a city.
    """
    box = sample.density.smallest_box()
    if box is None or sample.count < _FEWEST_RECORDS:
        raise InputError(
            f"{sample.count:,} records are too few to find a city's box by: give {_FEWEST_RECORDS:,} at least"
        )
    height, width = _sides_km(box)
    if max(height, width) > _MOST_CELLS * _MOST_CELL_KM:
        raise InputError(
            f"the records are spread over {height:,.0f} x {width:,.0f} km, wider than a city: give the files of one "
            "city, or write its table by hand; records outside its box are counted and left out"
        )
    fitting = _fitting_grid(height, width)
    rows, cols = rows or fitting[0], cols or fitting[1]
    cell_km = height / rows, width / cols
    flow = sample.flow((cell_km[0] * cell_km[1]) ** 0.5) / (rows * cols)
    slot_minutes = slot_minutes or _fitting_slot(flow)
    return _Suggestion(
        box,
        sample.density.share_in(box),
        rows,
        cols,
        (round(cell_km[0] * 1000), round(cell_km[1] * 1000)),
        slot_minutes,
        flow * slot_minutes / 30,
    )


def _sides_km(box: Box) -> tuple[float, float]:
    """Return height and width of a box, the width halfway up, in km."""
    west, east, south, north = box
    middle = np.radians((south + north) / 2)
    return float((north - south) * _KM_PER_DEGREE), float((east - west) * _KM_PER_DEGREE * np.cos(middle))


def _fitting_grid(height: float, width: float) -> tuple[int, int]:
    """Return rows and cols for a box of this height and width in km.

    They are 32 x 32 where such cells are nearly square and near _CELL_KM. Otherwise they are whole patches of cells of
    _CELL_KM, 8 to 64 on a side; a box that is too small or too large for that has smaller or larger cells.
    """
    usual = height / _USUAL_CELLS, width / _USUAL_CELLS
    low, high = _USUAL_CELL_KM
    if low <= min(usual) and max(usual) <= min(high, _USUAL_ASPECT * min(usual)):
        return _USUAL_CELLS, _USUAL_CELLS
    side = min(_CELL_KM, height / _FEWEST_CELLS, width / _FEWEST_CELLS)
    side = max(side, height / _MOST_CELLS, width / _MOST_CELLS)
    rows, cols = (
        min(max(_PATCH * round(length / side / _PATCH), _FEWEST_CELLS), _MOST_CELLS) for length in (height, width)
    )
    return rows, cols


def _fitting_slot(flow: float) -> int:
    """Return the shortest slot, in minutes, in which _LEAST_FLOW vehicles enter a cell, by the flow of half an hour."""
    return next((minutes for minutes in _SLOT_MINUTES if flow * minutes / 30 >= _LEAST_FLOW), _SLOT_MINUTES[-1])


def _visits(points: Points, vehicles: list[str]) -> np.ndarray:
    """Hash each point's vehicle, half hour and square of _CELL_KM."""
    degrees = _CELL_KM / _KM_PER_DEGREE
    row = np.floor(points.lat / degrees).astype(np.int64)
    col = np.floor(points.lon * np.cos(np.radians(np.round(points.lat))) / degrees).astype(np.int64)
    vehicle = hash_array(np.array(vehicles, dtype=object), categorize=False)[points.vehicle]
    square = hash_array(row * 2**20 + col)
    return hash_array(vehicle ^ hash_array(square ^ hash_array(points.time // _HALF_HOUR_US)))
