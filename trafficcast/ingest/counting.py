"""From records to inflow and outflow on the grid, exactly: cells, transitions, slots, coverage.

After Zhang, Zheng & Qi, "Deep Spatio-Temporal Residual Networks for Citywide Crowd Flows Prediction" (AAAI 2017).

A `Count` is what some stretch of time adds. Two of them, one before the other, are merged by adding up and judging
the one pair of points that each vehicle has across the seam. That is associative, so that hours may be counted in any
order, in any number of processes, and merged as a tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import xarray as xr
from numba import njit

from trafficcast.config.city import FLOW_KINDS, OUTSIDE, City
from trafficcast.geography.cells import cell_of, cells_of, haversine_m
from trafficcast.geography.zones import Zones, position, spread
from trafficcast.records.records import Points, Records, Trips, ZoneTrips
from trafficcast.stores.flows import UNKNOWN, flows_dataset

_MINUTE_US = 60_000_000

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
    """One slot's share of a count: flow (flow kind, place) int32, records (of trips: their ends), distinct vehicles,
    minutes (minute) with a report.

    A place is a cell, row * cols + col, or a zone's position.
    """

    flow: np.ndarray
    records: int
    vehicles: int
    minutes: np.ndarray

    def plus(self, other: _Slot) -> _Slot:
        """Both together; a vehicle in both is counted twice."""
        return _Slot(
            self.flow + other.flow,
            self.records + other.records,
            self.vehicles + other.vehicles,
            self.minutes | other.minutes,
        )

    @classmethod
    def nothing(cls, places: int, slot_minutes: int) -> _Slot:
        """A slot without a record."""
        return cls(np.zeros((len(FLOW_KINDS), places), np.int32), 0, 0, np.zeros(slot_minutes, np.bool_))


@dataclass(frozen=True)
class Count:
    """What a stretch of time adds. `slots` by their number since 1970; `totals` as in TOTALS.

    `first` and `last` are each vehicle's first and last point, sorted by vehicle; trips have none.
    """

    slots: dict[int, _Slot] = field(default_factory=dict)
    totals: np.ndarray = field(default_factory=lambda: np.zeros(len(TOTALS), np.int64))
    first: Points = field(default_factory=lambda: Points.concatenate([]))
    last: Points = field(default_factory=lambda: Points.concatenate([]))


def _count_points(city: City, points: Points) -> Count:
    """Count points sorted by (vehicle, time), no pair repeated; the vehicles in rising order."""
    if not len(points):
        return Count()
    first_slot = int(points.time.min() // city.slot_us)
    n_slots = int(points.time.max() // city.slot_us) - first_slot + 1
    flow = np.zeros((n_slots, len(FLOW_KINDS), city.rows * city.cols), np.int32)
    records, vehicles = np.zeros(n_slots, np.int64), np.zeros(n_slots, np.int64)
    minutes = np.zeros((n_slots, city.slot_minutes), np.bool_)
    totals = np.zeros(len(TOTALS), np.int64)
    _count(
        points.vehicle, points.time, points.lon, points.lat, points.occupied,
        *_rules(city), first_slot, flow, records, vehicles, minutes, totals,
    )  # fmt: skip
    starts = np.flatnonzero(np.diff(points.vehicle, prepend=points.vehicle[0] - 1))
    ends = np.append(starts[1:], len(points)) - 1
    slots = {
        first_slot + i: _Slot(flow[i].copy(), int(records[i]), int(vehicles[i]), minutes[i].copy())
        for i in np.flatnonzero(records).tolist()
    }
    return Count(slots, totals, points.take(starts), points.take(ends))


def _count_trips(city: City, trips: Trips) -> Count:
    """Count trips: outflow at the pick-up's cell and slot, inflow at the drop-off's."""
    box = np.array([city.west, city.east, city.south, city.north])
    pickup = cells_of(trips.lon, trips.lat, box, city.rows, city.cols)
    dropoff = cells_of(trips.dropoff_lon, trips.dropoff_lat, box, city.rows, city.cols)
    return _count_ends(city, trips.time, pickup, trips.dropoff_time, dropoff, city.rows * city.cols)


def _count_zone_trips(city: City, trips: ZoneTrips, zone_ids: np.ndarray) -> Count:
    """Count trips between zones; a place is a position in `zone_ids`, which rise. Other zones are outside."""
    pickup, dropoff = position(trips.zone, zone_ids), position(trips.dropoff_zone, zone_ids)
    return _count_ends(city, trips.time, pickup, trips.dropoff_time, dropoff, len(zone_ids))


def _count_ends(
    city: City, pickup_time: np.ndarray, pickup: np.ndarray, dropoff_time: np.ndarray, dropoff: np.ndarray, places: int
) -> Count:
    if not len(pickup_time):
        return Count()
    time = np.concatenate([dropoff_time, pickup_time])
    place = np.concatenate([dropoff, pickup])
    kind = np.repeat([0, 1], len(pickup_time))  # inflow, outflow
    slot = time // city.slot_us
    order = np.argsort(slot, kind="stable")
    numbers, starts = np.unique(slot[order], return_index=True)
    slots = {}
    for number, ends in zip(numbers, np.split(order, starts[1:]), strict=True):
        inside = ends[place[ends] != OUTSIDE]
        flow = np.bincount(kind[inside] * places + place[inside], minlength=len(FLOW_KINDS) * places)
        minutes = np.zeros(city.slot_minutes, np.bool_)
        minutes[time[ends] % city.slot_us // _MINUTE_US] = True
        slots[int(number)] = _Slot(flow.reshape(len(FLOW_KINDS), places).astype(np.int32), len(ends), 0, minutes)
    totals = np.zeros(len(TOTALS), np.int64)
    totals[[_POINTS, _OUTSIDE_POINTS]] = len(place), np.count_nonzero(place == OUTSIDE)
    return Count(slots, totals)


def merge(city: City, before: Count, after: Count) -> Count:
    """Both counts and the pair of points that each vehicle has across their seam.

    No point of a vehicle in `after` may lie before one of the same vehicle in `before`.
    """
    slots = dict(before.slots)
    for number, slot in after.slots.items():
        slots[number] = slots[number].plus(slot) if number in slots else slot
    totals = before.totals + after.totals
    _, i, j = np.intersect1d(before.last.vehicle, after.first.vehicle, assume_unique=True, return_indices=True)
    if len(i):
        _add_seam(city, slots, totals, before.last.take(i), after.first.take(j))
    return Count(slots, totals, _first_of_each(before.first, after.first), _first_of_each(after.last, before.last))


def _merge_all(city: City, counts: list[Count]) -> Count:
    """Counts in the order of time, as one."""
    return reduce(lambda a, b: merge(city, a, b), counts, Count())


def _difference(after: Count, before: Count) -> Count:
    """What has to be added to `before` to get `after`, whose ends it has; a minute with a report keeps it."""
    slots = dict(after.slots)
    for number, old in before.slots.items():
        taken_back = _Slot(-old.flow, -old.records, -old.vehicles, old.minutes)
        slots[number] = slots[number].plus(taken_back) if number in slots else taken_back
    return Count(slots, after.totals - before.totals, after.first, after.last)


def _first_of_each(preferred: Points, other: Points) -> Points:
    """One point a vehicle, the preferred one where there are two, sorted by vehicle."""
    if not len(preferred) or not len(other):
        return preferred if len(preferred) else other
    both = Points.concatenate([preferred, other])
    return both.take(np.unique(both.vehicle, return_index=True)[1])  # the first of each


def _add_seam(city: City, slots: dict[int, _Slot], totals: np.ndarray, p: Points, q: Points) -> None:
    """Count the pairs (p[i], q[i])."""
    places = city.rows * city.cols
    left, left_time, entered, entered_time = _judge_pairs(
        p.time, p.lon, p.lat, p.occupied, q.time, q.lon, q.lat, q.occupied, *_rules(city), totals
    )
    change: dict[int, _Slot] = {}

    def slot(number: int) -> _Slot:
        if number not in change:
            change[number] = _Slot.nothing(places, city.slot_minutes)
        return change[number]

    for kind, time, place in ((0, entered_time, entered), (1, left_time, left)):
        here = np.flatnonzero(place != OUTSIDE)
        for number in np.unique(time[here] // city.slot_us):
            at = here[time[here] // city.slot_us == number]
            slot(int(number)).flow[kind] += np.bincount(place[at], minlength=places).astype(np.int32)
    # A vehicle seen on both sides of the seam in one slot was counted on both.
    shared = p.time // city.slot_us == q.time // city.slot_us
    numbers, twice = np.unique(p.time[shared] // city.slot_us, return_counts=True)
    for number, n in zip(numbers.tolist(), twice.tolist(), strict=True):
        change[number] = replace(slot(number), vehicles=-n)
    for number, extra in change.items():
        slots[number] = slots[number].plus(extra) if number in slots else extra


def _rules(city: City) -> tuple[np.ndarray, int, int, int, int, float, bool]:
    """What the compiled functions need of a city: box, rows, cols, slot and gap in µs, km/h, whether trips count."""
    box = np.array([city.west, city.east, city.south, city.north])
    gap_us = round(city.max_gap_minutes * _MINUTE_US)
    return box, city.rows, city.cols, city.slot_us, gap_us, city.max_speed_kmh, city.feed.trips


def _slots_dataset(
    city: City, numbers: np.ndarray, slots: Mapping[int, _Slot], kind: type[Records], zones: Zones | None
) -> xr.Dataset:
    """The flows of the slots with these numbers since 1970; those that are not given have no record.

    Of trips it is not known which vehicles made them. `zones` spreads the counts of zones over the cells.
    See `flows_dataset`.
    """
    places = city.rows * city.cols if zones is None else len(zones.ids)
    flow = np.zeros((len(numbers), len(FLOW_KINDS), places), np.int32)
    vehicles = np.zeros(len(numbers), np.int32)
    coverage = np.zeros(len(numbers))
    for i, number in enumerate(numbers.tolist()):
        if number in slots:
            flow[i] = slots[number].flow
            vehicles[i] = slots[number].vehicles if kind is Points else UNKNOWN
            coverage[i] = slots[number].minutes.mean()
    grid = (len(numbers), len(FLOW_KINDS), city.rows, city.cols)
    flow = flow.reshape(grid) if zones is None else spread(flow, zones, city.rows, city.cols)
    return flows_dataset(city, (numbers * city.slot_us).astype("datetime64[us]"), flow, vehicles, coverage)


@njit(cache=True, nogil=True)
def _judge(  # type: ignore[no-untyped-def]
    p_time, p_lon, p_lat, p_occupied, p_cell, q_time, q_lon, q_lat, q_occupied, q_cell,
    max_gap_us, max_kmh, trips, totals,
):  # fmt: skip
    """What two consecutive points of a vehicle add: (cell left, when, cell entered, when), OUTSIDE for nothing.

    A move leaves the first point's cell and enters the second's. A trip goes from the first occupied point to the
    last: a pair adds the outflow of the second point where a passenger got in, the inflow of the first where one
    got out. The pair is entered in the totals.
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
    """`_judge` for pairs in arrays, (n) each."""
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
    first_slot, flow, records, vehicles, minutes, totals,
):  # fmt: skip
    p_cell, p_slot = OUTSIDE, first_slot
    for i in range(len(time)):
        slot = time[i] // slot_us
        cell = cell_of(lon[i], lat[i], box, rows, cols)
        minutes[slot - first_slot, (time[i] - slot * slot_us) // _MINUTE_US] = True
        records[slot - first_slot] += 1
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
