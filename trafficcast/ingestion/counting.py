"""Count the inflow and outflow of records on the grid, exactly.

Cells, transitions and slots are those of Zhang, Zheng & Qi, "Deep Spatio-Temporal Residual Networks for Citywide Crowd
Flows Prediction" (AAAI 2017).

A `Count` is what the records of a period add to the flows. The counts of two successive periods are merged by adding
them up and counting the one pair of points that each vehicle has across the seam. Merging is associative, so that hours
may be counted in any order, in any number of processes, and merged as a tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import xarray as xr
from numba import njit

from trafficcast.config.city import FLOW_KINDS, HISTORY, MINUTE_US, OUTSIDE, City
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
    minute (minute) int32. A cell is row * cols + col; of trips between zones it is the zone's position. `late` is the
    part of the flow that became known only in a later slot: places and numbers, (2, place) int64. A place is one of
    (delay, flow kind, cell), numbered; the delay is 1 to HISTORY slots, or more.
    """

    flow: np.ndarray
    vehicles: int
    minutes: np.ndarray
    late: np.ndarray = field(default_factory=lambda: np.zeros((2, 0), np.int64))

    def plus(self, other: _Slot) -> _Slot:
        """Return the sum of both; a vehicle in both is counted twice."""
        return _Slot(
            self.flow + other.flow,
            self.vehicles + other.vehicles,
            self.minutes + other.minutes,
            _by_place(np.concatenate([self.late, other.late], axis=1)),
        )

    def negative(self) -> _Slot:
        """Return the slot that takes this one back."""
        return _Slot(-self.flow, -self.vehicles, -self.minutes, self.late * [[1], [-1]])

    def not_known(self) -> np.ndarray:
        """Return the flow that was not known yet 1 to HISTORY slots after the slot began, (age, flow kind, cell)."""
        late = np.zeros((HISTORY, *self.flow.shape), np.int32)
        late.ravel()[self.late[0]] = self.late[1]
        return late[::-1].cumsum(axis=0, dtype=np.int32)[::-1]

    def differs(self) -> bool:
        """Say whether adding this slot changes anything; where it is all that is stored, whether it has a record."""
        return bool(self.vehicles or self.minutes.any() or self.flow.any() or self.late.size)

    @classmethod
    def empty(cls, cells: int, slot_minutes: int) -> _Slot:
        """Return a slot without a record."""
        return cls(np.zeros((len(FLOW_KINDS), cells), np.int32), 0, np.zeros(slot_minutes, np.int32))


def _by_place(late: np.ndarray) -> np.ndarray:
    """Return late flow with each place once, rising, and without those whose numbers add up to 0."""
    if not late.shape[1]:
        return late
    places, which = np.unique(late[0], return_inverse=True)
    numbers = np.bincount(which, late[1]).astype(np.int64)
    return np.stack([places, numbers])[:, numbers != 0]


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
    nothing = np.zeros((2, 0), np.int64)
    late = _late(city, *_flows_of_pairs(city, *_pairs_across_slots(city, points)), city.rows * city.cols)
    slots = {
        first_slot + i: _Slot(flow[i].copy(), int(vehicles[i]), minutes[i].copy(), late.get(first_slot + i, nothing))
        for i in np.flatnonzero(vehicles).tolist()
    }
    return Count(slots, totals, *_vehicle_ends(points))


def _pairs_across_slots(city: City, points: Points) -> tuple[Points, Points]:
    """Return the consecutive points of a vehicle that lie in two slots, of points sorted by (vehicle, time)."""
    first = np.flatnonzero((np.diff(points.vehicle) == 0) & (np.diff(points.time // city.slot_us) > 0))
    return points.take(first), points.take(first + 1)


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
    known = np.tile(np.maximum(pickup_time, dropoff_time), 2)  # a trip is reported when it has ended
    slots = _slots_of(city, kind, time, cell, known, cells)
    for number, ends in _by_slot(city, time):
        minutes = np.bincount(time[ends] % city.slot_us // MINUTE_US, minlength=city.slot_minutes).astype(np.int32)
        slots[number] = replace(slots.get(number, _Slot.empty(cells, city.slot_minutes)), minutes=minutes)
    totals = np.zeros(len(TOTALS), np.int64)
    totals[[_POINTS, _OUTSIDE_POINTS]] = len(cell), np.count_nonzero(cell == OUTSIDE)
    return Count(slots, totals)


def _by_slot(city: City, time: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each slot that holds one of these times, and the positions of those that it holds."""
    slot = time // city.slot_us
    order = np.argsort(slot, kind="stable")
    numbers, starts = np.unique(slot[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    yield from ((number, order[i:j]) for number, i, j in zip(numbers.tolist(), starts, ends, strict=True))


def _slots_of(
    city: City, kind: np.ndarray, time: np.ndarray, cell: np.ndarray, known: np.ndarray, cells: int
) -> dict[int, _Slot]:
    """Return the slots of single flows: each one's kind, time, cell, and the time since which it is known."""
    slots = {}
    inside = np.flatnonzero(cell != OUTSIDE)
    for number, which in _by_slot(city, time[inside]):
        found = inside[which]
        flow = np.bincount(kind[found] * cells + cell[found], minlength=len(FLOW_KINDS) * cells)
        slots[number] = replace(
            _Slot.empty(cells, city.slot_minutes), flow=flow.reshape(len(FLOW_KINDS), cells).astype(np.int32)
        )
    for number, late in _late(city, kind, time, cell, known, cells).items():
        slots[number] = replace(slots[number], late=late)
    return slots


def _late(
    city: City, kind: np.ndarray, time: np.ndarray, cell: np.ndarray, known: np.ndarray, cells: int
) -> dict[int, np.ndarray]:
    """Return the late flow of each slot that has any, of single flows as `_slots_of` takes them."""
    delay = np.minimum(known // city.slot_us - time // city.slot_us, HISTORY)
    some = np.flatnonzero((delay > 0) & (cell != OUTSIDE))
    place = ((delay[some] - 1) * len(FLOW_KINDS) + kind[some]) * cells + cell[some]
    late = np.stack([place, np.ones_like(place)])
    return {number: _by_place(late[:, which]) for number, which in _by_slot(city, time[some])}


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
    negative = {n: slot.negative() for n, slot in before.slots.items()}
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
    change = _slots_of(city, *_flows_of_pairs(city, p, q, totals), cells)
    # A vehicle with points on both sides of the seam in one slot was counted on both.
    shared = p.time // city.slot_us == q.time // city.slot_us
    numbers, twice = np.unique(p.time[shared] // city.slot_us, return_counts=True)
    for number, n in zip(numbers.tolist(), twice.tolist(), strict=True):
        change[number] = replace(change.get(number, _Slot.empty(cells, city.slot_minutes)), vehicles=-n)
    return change


def _flows_of_pairs(
    city: City, p: Points, q: Points, totals: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return kind, time and cell of the flows that the pairs (p[i], q[i]) make, and since when each is known.

    A pair makes an inflow and an outflow, of which one or both may be outside. The pairs are added to the totals.
    """
    left, left_time, entered, entered_time = _judge_pairs(
        p.time, p.lon, p.lat, p.occupied, q.time, q.lon, q.lat, q.occupied, *_rules(city),
        np.zeros(len(TOTALS), np.int64) if totals is None else totals,
    )  # fmt: skip
    kind = np.repeat([0, 1], len(q))  # inflow, outflow
    return kind, np.concatenate([entered_time, left_time]), np.concatenate([entered, left]), np.tile(q.time, 2)


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
    zones over the cells. See `flows_dataset`. Of points, no flow is later than the longest gap of a transition.
    """
    cells = city.rows * city.cols if zones is None else len(zones.ids)
    flow = np.zeros((len(numbers), len(FLOW_KINDS), cells), np.int32)
    ages = min(HISTORY, -(-city.max_gap_us // city.slot_us)) if kind is Points else HISTORY
    late = np.zeros((len(numbers), ages, len(FLOW_KINDS), cells), np.int32)
    vehicles = np.zeros(len(numbers), np.int32)
    coverage = np.zeros(len(numbers))
    for i, number in enumerate(numbers.tolist()):
        if number in slots:
            flow[i] = slots[number].flow
            late[i] = slots[number].not_known()[:ages]
            vehicles[i] = slots[number].vehicles if kind is Points else UNKNOWN
            coverage[i] = np.mean(slots[number].minutes > 0)

    def cells_of_counts(counts: np.ndarray) -> np.ndarray:
        """Return counts (slot, flow kind, row, col) of counts (slot, flow kind, cell or zone)."""
        if zones is not None:
            return spread(counts, zones, city.rows, city.cols)
        return counts.reshape(*counts.shape[:2], city.rows, city.cols)

    whole = cells_of_counts(flow)
    # What was known of zones is spread as it was when it was known.
    late = np.stack([whole - cells_of_counts(flow - late[:, age]) for age in range(ages)], axis=1)
    time = (numbers * city.slot_us).astype("datetime64[us]")
    return flows_dataset(city, time, whole, vehicles, coverage, observed, late)


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
