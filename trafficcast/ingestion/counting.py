"""Count the inflow and outflow of records on the grid, exactly.

Cells, transitions and slots are those of Zhang, Zheng & Qi, "Deep Spatio-Temporal Residual Networks for Citywide Crowd
Flows Prediction" (AAAI 2017).

A `Count` is what the records of a period add to the flows. The counts of two successive periods are merged by adding
them up and counting the one pair of points that each vehicle has across the seam. Merging is associative, so that hours
may be counted in any order, in any number of processes, and merged as a tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import xarray as xr
from numba import njit

from trafficcast.config.city import FLOW_KINDS, MINUTE_US, OUTSIDE, City
from trafficcast.geography.cells import cell_of, cells_of, haversine_m
from trafficcast.geography.zones import Zones, position, spread
from trafficcast.records.records import Points, Records, Trips, ZoneTrips
from trafficcast.stores.flows import UNKNOWN, flows_dataset

# Positions in a count's totals.
_POINTS, _OUTSIDE_POINTS, _PAIRS, _FAR_PAIRS, _TRANSITIONS, _REFUSED_GAP, _REFUSED_SPEED = range(7)
TOTALS = (
    "points",
    "points_outside",
    "pairs",
    "pairs_beyond_max_gap",
    "transitions",
    "refused_by_gap",
    "refused_by_speed",
)


@dataclass(frozen=True)
class _Slot:
    """The part of a count that belongs to one slot.

    Flow (flow kind, cell) int32, number of distinct vehicles, and number of records (of trips: of their ends) in each
    minute (minute) int32. A cell is row * cols + col; of trips between zones it is the zone's position.
    """

    flow: np.ndarray
    vehicles: int
    minutes: np.ndarray

    def plus(self, other: _Slot) -> _Slot:
        """Return the sum of both; a vehicle in both is counted twice."""
        return _Slot(self.flow + other.flow, self.vehicles + other.vehicles, self.minutes + other.minutes)

    def differs(self) -> bool:
        """Say whether adding this slot changes anything; where it is all that is stored, whether it has a record."""
        return bool(self.vehicles or self.minutes.any() or self.flow.any())

    @classmethod
    def empty(cls, cells: int, slot_minutes: int) -> _Slot:
        """Return a slot without a record."""
        return cls(np.zeros((len(FLOW_KINDS), cells), np.int32), 0, np.zeros(slot_minutes, np.int32))


@dataclass(frozen=True)
class Count:
    """What the records of a period add to the flows.

    Attributes
    ----------
    slots
        The slots with a record, by their number since 1970.
    totals
        Totals in the order of TOTALS, (total) int64.
    first
        The first point of each vehicle, sorted by vehicle; trips have none.
    last
        The last point of each vehicle, sorted by vehicle; trips have none.
    """

    slots: dict[int, _Slot] = field(default_factory=dict)
    totals: np.ndarray = field(default_factory=lambda: np.zeros(len(TOTALS), np.int64))
    first: Points = field(default_factory=lambda: Points.concatenate([]))
    last: Points = field(default_factory=lambda: Points.concatenate([]))


def _count_points(city: City, points: Points) -> Count:
    """Count points that are sorted by (vehicle, time), each pair of them once."""
    if not len(points):
        return Count()
    first_slot = int(points.time.min() // city.slot_us)
    n_slots = int(points.time.max() // city.slot_us) - first_slot + 1
    flow = np.zeros((n_slots, len(FLOW_KINDS), city.rows * city.cols), np.int32)
    vehicles, minutes = np.zeros(n_slots, np.int64), np.zeros((n_slots, city.slot_minutes), np.int32)
    totals = np.zeros(len(TOTALS), np.int64)
    _count(
        points.vehicle, points.time, points.lon, points.lat, points.occupied,
        *_rules(city), first_slot, flow, vehicles, minutes, totals,
    )  # fmt: skip
    slots = {
        first_slot + i: _Slot(flow[i].copy(), int(vehicles[i]), minutes[i].copy())
        for i in np.flatnonzero(vehicles).tolist()
    }
    return Count(slots, totals, *_vehicle_ends(points))


def _vehicle_ends(points: Points) -> tuple[Points, Points]:
    """Return the first and the last point of each vehicle, of points sorted by (vehicle, time)."""
    starts = np.flatnonzero(np.diff(points.vehicle, prepend=points.vehicle[:1] - 1))
    return points.take(starts), points.take(np.append(starts[1:], len(points)) - 1)


def _count_trips(city: City, trips: Trips) -> Count:
    """Count trips: outflow at the cell and slot of the pick-up, inflow at those of the drop-off."""
    pickup = cells_of(trips.lon, trips.lat, city.box, city.rows, city.cols)
    dropoff = cells_of(trips.dropoff_lon, trips.dropoff_lat, city.box, city.rows, city.cols)
    return _count_ends(city, trips.time, pickup, trips.dropoff_time, dropoff, city.rows * city.cols)


def _count_zone_trips(city: City, trips: ZoneTrips, zone_ids: np.ndarray) -> Count:
    """Count trips between zones, by their positions in the rising `zone_ids`; other zones are outside."""
    pickup, dropoff = position(trips.zone, zone_ids), position(trips.dropoff_zone, zone_ids)
    return _count_ends(city, trips.time, pickup, trips.dropoff_time, dropoff, len(zone_ids))


def _count_ends(
    city: City, pickup_time: np.ndarray, pickup: np.ndarray, dropoff_time: np.ndarray, dropoff: np.ndarray, cells: int
) -> Count:
    """Count the ends of trips that lie in these cells."""
    if not len(pickup_time):
        return Count()
    time = np.concatenate([dropoff_time, pickup_time])
    cell = np.concatenate([dropoff, pickup])
    kind = np.repeat([0, 1], len(pickup_time))  # inflow, outflow
    slot = time // city.slot_us
    order = np.argsort(slot, kind="stable")
    numbers, starts = np.unique(slot[order], return_index=True)
    slots = {}
    for number, ends in zip(numbers, np.split(order, starts[1:]), strict=True):
        inside = ends[cell[ends] != OUTSIDE]
        flow = np.bincount(kind[inside] * cells + cell[inside], minlength=len(FLOW_KINDS) * cells)
        minutes = np.bincount(time[ends] % city.slot_us // MINUTE_US, minlength=city.slot_minutes).astype(np.int32)
        slots[int(number)] = _Slot(flow.reshape(len(FLOW_KINDS), cells).astype(np.int32), 0, minutes)
    totals = np.zeros(len(TOTALS), np.int64)
    totals[[_POINTS, _OUTSIDE_POINTS]] = len(cell), np.count_nonzero(cell == OUTSIDE)
    return Count(slots, totals)


def merge(city: City, before: Count, after: Count) -> Count:
    """Merge the counts of two successive periods.

    Each vehicle's pair of points across the seam is counted too.

    Parameters
    ----------
    city
        The city whose grid, slots and limits apply.
    before
        Count of the earlier period.
    after
        Count of the later period, in which no vehicle has a point before its last one in `before`.

    Returns
    -------
    Count
        Count of both periods.
    """
    slots = _add_slots(before.slots, after.slots)
    totals = before.totals + after.totals
    _, i, j = np.intersect1d(before.last.vehicle, after.first.vehicle, assume_unique=True, return_indices=True)
    if len(i):
        slots = _add_slots(slots, _count_seam(city, totals, before.last.take(i), after.first.take(j)))
    return Count(slots, totals, _first_of_each(before.first, after.first), _first_of_each(after.last, before.last))


def _merge_all(city: City, counts: list[Count]) -> Count:
    """Merge counts that are in the order of time."""
    return reduce(lambda a, b: merge(city, a, b), counts, Count())


def _difference(after: Count, before: Count) -> Count:
    """Return the count to add to `before` to get `after`, whose ends it has."""
    negative = {n: _Slot(-slot.flow, -slot.vehicles, -slot.minutes) for n, slot in before.slots.items()}
    return Count(_add_slots(after.slots, negative), after.totals - before.totals, after.first, after.last)


def _first_of_each(preferred: Points, other: Points) -> Points:
    """Return one point a vehicle, the preferred one where there are two, sorted by vehicle."""
    if not len(preferred) or not len(other):
        return preferred if len(preferred) else other
    both = Points.concatenate([preferred, other])
    return both.take(np.unique(both.vehicle, return_index=True)[1])  # the first of each


def _count_seam(city: City, totals: np.ndarray, p: Points, q: Points) -> dict[int, _Slot]:
    """Count the pairs (p[i], q[i]), which are added to the totals; return what they add to the slots."""
    cells = city.rows * city.cols
    left, left_time, entered, entered_time = _judge_pairs(
        p.time, p.lon, p.lat, p.occupied, q.time, q.lon, q.lat, q.occupied, *_rules(city), totals
    )
    change: dict[int, _Slot] = {}

    def slot(number: int) -> _Slot:
        if number not in change:
            change[number] = _Slot.empty(cells, city.slot_minutes)
        return change[number]

    for kind, time, cell in ((0, entered_time, entered), (1, left_time, left)):
        inside = np.flatnonzero(cell != OUTSIDE)
        for number in np.unique(time[inside] // city.slot_us):
            pairs = inside[time[inside] // city.slot_us == number]
            slot(int(number)).flow[kind] += np.bincount(cell[pairs], minlength=cells).astype(np.int32)
    # A vehicle with points on both sides of the seam in one slot was counted on both.
    shared = p.time // city.slot_us == q.time // city.slot_us
    numbers, twice = np.unique(p.time[shared] // city.slot_us, return_counts=True)
    for number, n in zip(numbers.tolist(), twice.tolist(), strict=True):
        change[number] = replace(slot(number), vehicles=-n)
    return change


def _add_slots(one: Mapping[int, _Slot], other: Mapping[int, _Slot]) -> dict[int, _Slot]:
    """Return the sums of the slots of two counts, by number."""
    return {**one, **{n: one[n].plus(slot) if n in one else slot for n, slot in other.items()}}


def _rules(city: City) -> tuple[np.ndarray, int, int, int, int, float, bool]:
    """Return what the compiled functions take: box, rows, cols, slot and gap in µs, km/h, whether trips count."""
    return city.box, city.rows, city.cols, city.slot_us, city.max_gap_us, city.max_speed_kmh, city.feed.trips


def _slots_dataset(
    city: City,
    numbers: np.ndarray,
    slots: Mapping[int, _Slot],
    observed: np.ndarray,
    kind: type[Records],
    zones: Zones | None,
) -> xr.Dataset:
    """Return the flows of the slots with these numbers since 1970; slots that are not given have no record.

    `observed` says which of them are observed, (slot). The vehicles of trips are unknown. `zones` spreads the counts of
    zones over the cells. See `flows_dataset`.
    """
    cells = city.rows * city.cols if zones is None else len(zones.ids)
    flow = np.zeros((len(numbers), len(FLOW_KINDS), cells), np.int32)
    vehicles = np.zeros(len(numbers), np.int32)
    coverage = np.zeros(len(numbers))
    for i, number in enumerate(numbers.tolist()):
        if number in slots:
            flow[i] = slots[number].flow
            vehicles[i] = slots[number].vehicles if kind is Points else UNKNOWN
            coverage[i] = np.mean(slots[number].minutes > 0)
    grid = (len(numbers), len(FLOW_KINDS), city.rows, city.cols)
    flow = flow.reshape(grid) if zones is None else spread(flow, zones, city.rows, city.cols)
    time = (numbers * city.slot_us).astype("datetime64[us]")
    return flows_dataset(city, time, flow, vehicles, coverage, observed)


@njit(cache=True, nogil=True)
def _judge(  # type: ignore[no-untyped-def]
    p_time, p_lon, p_lat, p_occupied, p_cell, q_time, q_lon, q_lat, q_occupied, q_cell,
    max_gap_us, max_kmh, trips, totals,
):  # fmt: skip
    """Return the cells that a vehicle left and entered between two points, and when; OUTSIDE for none.

    A move leaves the first point's cell and enters the second's. A trip goes from the first occupied point to the last:
    a pair adds the outflow of its second point where a passenger got in, and the inflow of its first point where one
    got out. The pair is added to the totals.
    """
    gap_us = q_time - p_time
    totals[_PAIRS] += 1
    totals[_FAR_PAIRS] += gap_us > max_gap_us
    occupied_differs = p_occupied >= 0 and q_occupied >= 0 and p_occupied != q_occupied
    if not (occupied_differs if trips else p_cell != q_cell):
        return OUTSIDE, p_time, OUTSIDE, q_time
    if gap_us > max_gap_us:
        totals[_REFUSED_GAP] += 1
        return OUTSIDE, p_time, OUTSIDE, q_time
    if haversine_m(p_lon, p_lat, q_lon, q_lat) / gap_us * 3.6e6 > max_kmh:
        totals[_REFUSED_SPEED] += 1
        return OUTSIDE, p_time, OUTSIDE, q_time
    totals[_TRANSITIONS] += 1
    if not trips:
        return p_cell, p_time, q_cell, q_time
    if q_occupied:
        return q_cell, q_time, OUTSIDE, q_time
    return OUTSIDE, p_time, p_cell, p_time


@njit(cache=True, nogil=True)
def _judge_pairs(  # type: ignore[no-untyped-def]
    p_time, p_lon, p_lat, p_occupied, q_time, q_lon, q_lat, q_occupied,
    box, rows, cols, slot_us, max_gap_us, max_kmh, trips, totals,
):  # fmt: skip
    """Apply `_judge` to pairs in arrays, (pair) each."""
    n = len(p_time)
    left, left_time = np.empty(n, np.int64), np.empty(n, np.int64)
    entered, entered_time = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        left[i], left_time[i], entered[i], entered_time[i] = _judge(
            p_time[i], p_lon[i], p_lat[i], p_occupied[i], cell_of(p_lon[i], p_lat[i], box, rows, cols),
            q_time[i], q_lon[i], q_lat[i], q_occupied[i], cell_of(q_lon[i], q_lat[i], box, rows, cols),
            max_gap_us, max_kmh, trips, totals,
        )  # fmt: skip
    return left, left_time, entered, entered_time


@njit(cache=True, nogil=True)
def _count(  # type: ignore[no-untyped-def]
    vehicle, time, lon, lat, occupied, box, rows, cols, slot_us, max_gap_us, max_kmh, trips,
    first_slot, flow, vehicles, minutes, totals,
):  # fmt: skip
    """Count points that are sorted by (vehicle, time) into flow, vehicles, minutes and totals."""
    p_cell, p_slot = OUTSIDE, first_slot
    for i in range(len(time)):
        slot = time[i] // slot_us
        cell = cell_of(lon[i], lat[i], box, rows, cols)
        minutes[slot - first_slot, (time[i] - slot * slot_us) // MINUTE_US] += 1
        totals[_POINTS] += 1
        totals[_OUTSIDE_POINTS] += cell == OUTSIDE
        if i == 0 or vehicle[i] != vehicle[i - 1]:
            vehicles[slot - first_slot] += 1
        else:
            vehicles[slot - first_slot] += slot != p_slot
            p = i - 1
            left, left_time, entered, entered_time = _judge(
                time[p], lon[p], lat[p], occupied[p], p_cell, time[i], lon[i], lat[i], occupied[i], cell,
                max_gap_us, max_kmh, trips, totals,
            )  # fmt: skip
            if left != OUTSIDE:
                flow[left_time // slot_us - first_slot, 1, left] += 1
            if entered != OUTSIDE:
                flow[entered_time // slot_us - first_slot, 0, entered] += 1
        p_cell, p_slot = cell, slot
