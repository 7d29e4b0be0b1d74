"""What a city's table could be, by its records: the box where they are, a grid and a slot length that fit.

The records are seen once and none is kept: their places are counted in a histogram, and what else is to be known
comes from sketches of a fixed size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pandas.util import hash_array

from trafficcast.errors import InputError
from trafficcast.quality.point_density import Box, Places, ends
from trafficcast.records.records import SECOND_US, Points, Records, Trips

# The box is the smallest of whole units that holds this share of the places; of San Francisco's taxis the city with
# its airport, where 0.99 takes in the other side of the bay and 0.95 leaves out the ocean's shore.
_HELD = 0.97
_UNITS = (1.0, 0.1, 0.01)  # degrees; each narrows down what the one before found
_MOST_UNITS = 150  # on a side of a box that is to be found in finer units
_SMALLEST_DEGREES = 0.02
_FEWEST_PLACES = 1_000

_KM_PER_DEGREE = 6371.0088 * np.pi / 180
_CELL_KM = 0.5
_MOST_CELL_KM = 5.0
_PATCH = 4  # cells: VMRNN reads the grid in patches of so many on a side
_FEWEST_CELLS, _USUAL_CELLS, _MOST_CELLS = 8, 32, 64  # on a side
_USUAL_CELL_KM, _USUAL_ASPECT = (0.35, 0.7), 1.25  # of 32 x 32 cells, where that is to be the grid

_SLOT_MINUTES = (30, 60, 120)
_LEAST_FLOW = 0.25  # vehicles that enter a cell in a slot, mean over all cells and slots

_SKETCH = 4096  # a relative standard error of 1.6 %
_HALF_HOUR_US, _MINUTE_US = 1800 * SECOND_US, 60 * SECOND_US


class _Distinct:
    """How many distinct 64-bit hashes were seen, estimated from the smallest ones.

    The estimator is from Bar-Yossef et al., "Counting Distinct Elements in a Data Stream" (RANDOM 2002).
    """

    def __init__(self) -> None:
        self._smallest = np.zeros(0, np.uint64)

    def add(self, hashes: np.ndarray) -> None:
        """See hashes, (n) uint64."""
        if len(self._smallest) == _SKETCH:
            hashes = hashes[hashes < self._smallest[-1]]
        self._smallest = np.unique(np.concatenate([self._smallest, hashes]))[:_SKETCH]

    def estimate(self) -> float:
        """How many there were, exactly where they were few."""
        if len(self._smallest) < _SKETCH:
            return float(len(self._smallest))
        return (_SKETCH - 1) / (float(self._smallest[-1]) / 2.0**64)


@dataclass
class _RecordSample:
    """What is known of records after one pass. A place is a point, of a trip a pick-up or a drop-off.

    `visits` are distinct (vehicle, half hour, place to about CELL_KM), which hardly depend on how often it reports.
    """

    kind: type[Records] | None = None
    count: int = 0
    places: Places = field(default_factory=Places)
    half_hours: set[int] = field(default_factory=set)
    minutes: _Distinct = field(default_factory=_Distinct)
    visits: _Distinct = field(default_factory=_Distinct)
    last_us: int = 0

    def add(self, records: Records, vehicles: list[str]) -> None:
        """See points or trips; `vehicles` are the names that the codes of points index.

        Raises InputError for trips between zones, which have no places, and where points and trips are mixed.
        """
        if not len(records):
            return
        if not isinstance(records, Points | Trips):
            raise InputError(
                "trips between zones have no places to take a box from: write the city's table by hand, with a box "
                "around the zones, and the file of their polygons as zones under [cities.NAME.feed]"
            )
        if self.kind not in (None, type(records)):
            raise InputError("there are both GPS points and trips, which make two cities: give the files of one kind")
        self.kind = type(records)
        time, lon, lat = ends(records)
        self.count += len(records)
        self.last_us = max(self.last_us, int(time.max()))
        self.places.add(lon, lat)
        self.half_hours.update(np.unique(time // _HALF_HOUR_US).tolist())
        self.minutes.add(hash_array(np.unique(time // _MINUTE_US)))
        if isinstance(records, Points):
            self.visits.add(_visits(records, vehicles))

    def coverage(self) -> float:
        """The share of minutes with a report, of the half hours that have any."""
        return min(1.0, self.minutes.estimate() / (30 * max(len(self.half_hours), 1)))

    def flow(self, cell_km: float) -> float:
        """About how many vehicles enter cells of a side in half an hour, over all cells together."""
        # A trip enters one cell, wherever it ends; a visit to a place is one to a cell, if cells are of its size.
        entries = self.visits.estimate() * _CELL_KM / cell_km if self.kind is Points else float(self.count)
        return entries / max(len(self.half_hours), 1)


@dataclass(frozen=True)
class _Suggestion:
    """A box (degrees), the share of places in it, the grid, a cell's height and width in metres, the slot length.

    `flow` is about how many vehicles enter a cell in a slot, the mean over all cells and slots.
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
        """Longitude and latitude of the middle of the box."""
        west, east, south, north = self.box
        return (west + east) / 2, (south + north) / 2


def _suggest(
    seen: _RecordSample, rows: int | None = None, cols: int | None = None, slot_minutes: int | None = None
) -> _Suggestion:
    """What fits the records; rows, cols and slot length are as given where they are.

    Raises InputError where records are too few, or spread over more than a city.
    """
    if seen.count < _FEWEST_PLACES:
        raise InputError(
            f"{seen.count:,} records say too little about where a city's vehicles are: give {_FEWEST_PLACES:,} at least"
        )
    box = _smallest_box(seen.places)
    height, width = _sides_km(box)
    if max(height, width) > _MOST_CELLS * _MOST_CELL_KM:
        raise InputError(
            f"the records are spread over {height:,.0f} x {width:,.0f} km, which is no city: give the files of one, or "
            "write its table by hand; what lies outside its box is counted and left out"
        )
    fitting = _fitting_grid(height, width)
    rows, cols = rows or fitting[0], cols or fitting[1]
    cell_km = height / rows, width / cols
    flow = seen.flow((cell_km[0] * cell_km[1]) ** 0.5) / (rows * cols)
    slot_minutes = slot_minutes or _fitting_slot(flow)
    return _Suggestion(
        box,
        seen.places.share_in(box),
        rows,
        cols,
        (round(cell_km[0] * 1000), round(cell_km[1] * 1000)),
        slot_minutes,
        flow * slot_minutes / 30,
    )


def _smallest_box(places: Places, share: float = _HELD) -> Box:
    """The box of the least degrees x degrees that holds a share of the places; whole hundredths, of a city's size."""
    row, col, counts = places.cells()
    lon, lat = (col + 0.5) * places.degrees - 180, (row + 0.5) * places.degrees - 90
    box, margin = (-180.0, 180.0, -90.0, 90.0), 0.0
    for unit in _UNITS:
        if unit < _UNITS[0] and max(box[1] - box[0], box[3] - box[2]) > _MOST_UNITS * unit:
            break
        box = _smallest(lon, lat, counts, box, margin, unit, share)
        margin = unit
    west, east = _at_least(*box[:2], 180.0)
    south, north = _at_least(*box[2:], 90.0)
    return west, east, south, north


def _sides_km(box: Box) -> tuple[float, float]:
    """Height and width of a box, the width halfway up."""
    west, east, south, north = box
    middle = np.radians((south + north) / 2)
    return float((north - south) * _KM_PER_DEGREE), float((east - west) * _KM_PER_DEGREE * np.cos(middle))


def _fitting_grid(height: float, width: float) -> tuple[int, int]:
    """Rows and cols of a box of so many km: 32 x 32 where their cells are nearly square and near CELL_KM.

    Else as many cells of CELL_KM as fit, in whole patches, 8 to 64 on a side; the cells of a box that is too small or
    too large for that are smaller or larger.
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
    """The shortest slot in which LEAST_FLOW vehicles enter a cell; `flow`: those of half an hour."""
    return next((minutes for minutes in _SLOT_MINUTES if flow * minutes / 30 >= _LEAST_FLOW), _SLOT_MINUTES[-1])


def _visits(points: Points, vehicles: list[str]) -> np.ndarray:
    """A hash of each point's vehicle, half hour and place."""
    degrees = _CELL_KM / _KM_PER_DEGREE
    row = np.floor(points.lat / degrees).astype(np.int64)
    col = np.floor(points.lon * np.cos(np.radians(np.round(points.lat))) / degrees).astype(np.int64)
    vehicle = hash_array(np.array(vehicles, dtype=object), categorize=False)[points.vehicle]
    place = hash_array(row * 2**20 + col)
    return hash_array(vehicle ^ hash_array(place ^ hash_array(points.time // _HALF_HOUR_US)))


def _smallest(
    lon: np.ndarray, lat: np.ndarray, counts: np.ndarray, near: Box, margin: float, unit: float, share: float
) -> Box:
    """The smallest box of whole units with a share of the counts, within a margin around another box."""
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
    """An interval of SMALLEST_DEGREES or more, within -limit to limit, its ends whole hundredths of a degree."""
    missing = max(0, round((_SMALLEST_DEGREES - (high - low)) / _UNITS[-1]))
    low, high = low - (missing + 1) // 2 * _UNITS[-1], high + missing // 2 * _UNITS[-1]
    return max(-limit, round(low, 2)), min(limit, round(high, 2))
