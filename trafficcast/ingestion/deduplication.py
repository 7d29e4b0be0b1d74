"""Sort the rows of an hour into the order in which they are counted, and find repeats among them.

A row is a record of one source. Repeats within a source are dropped when the rows are stored. A record that several
sources gave is stored for each of them, so that any of them can be taken back; it is counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit

from trafficcast.records.records import HOUR_US, Points, Records, Trips, ZoneTrips


@dataclass(frozen=True)
class _Rows:
    """Records and the number of the source that gave each, (record) int32."""

    records: Records
    source: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def take(self, index: np.ndarray) -> Self:
        """Return the rows at these positions, or those that a mask selects."""
        return type(self)(self.records.take(index), self.source[index])

    def without(self, sources: frozenset[int]) -> Self:
        """Return the rows of all other sources."""
        return self.take(~np.isin(self.source, list(sources))) if sources else self

    @classmethod
    def concatenate(cls, kind: type[Records], parts: Sequence[_Rows]) -> Self:
        """Return all rows of parts, of which there may be none."""
        source = np.concatenate([np.zeros(0, np.int32), *(part.source for part in parts)])
        return cls(kind.concatenate([part.records for part in parts]), source)


def _same_records(one: Records, other: Records) -> bool:
    """Say whether records are equal, field by field."""
    return one is other or all(
        np.array_equal(a, b) for a, b in zip(one.arrays().values(), other.arrays().values(), strict=True)
    )


def _sort(rows: _Rows) -> tuple[_Rows, Counter[int]]:
    """Sort points by (vehicle, time, source) and trips by all fields, then the source; drop a source's repeats.

    A source's points repeat when vehicle and time are equal; the one with the smallest (lon, lat, occupied) stays. Its
    trips repeat when their ids and hours are equal; the smallest stays. Equal trips without ids are different trips.
    Returns the rows, and the number of repeats by source.
    """
    if not len(rows):
        return rows, Counter()
    records = rows.records
    if isinstance(records, Points):
        order = _order(records.vehicle, records.time, int(records.vehicle.max()) + 1)
        arrays = (records.vehicle, records.time, records.lon, records.lat, records.occupied)
        chosen, repeats = _choose_rows(order, *arrays, rows.source)
        return rows.take(chosen), _by_source(rows.source[repeats])
    rows = rows.take(np.lexsort((rows.source, *reversed(records.arrays().values()))))
    repeats = _repeated_ids(rows, rows.source)
    dropped = _by_source(rows.source[repeats])
    return rows.take(np.delete(np.arange(len(rows)), repeats)) if len(repeats) else rows, dropped


def _deduplicate(rows: _Rows) -> tuple[Records, Counter[int]]:
    """Return the records to count of sorted rows, and how many rows of each source repeat those of earlier sources.

    Of the points of a vehicle at one time the smallest (lon, lat, occupied) counts, and of the trips with an id the
    smallest one. A trip without an id counts as often as in the source that has it most often.
    """
    records = rows.records
    if isinstance(records, Points):
        chosen, repeats = _choose_points(*records.arrays().values())
        return records.take(chosen) if len(repeats) else records, _by_source(rows.source[repeats])
    repeat = np.zeros(len(rows), np.bool_)
    repeat[_repeated_ids(rows)] = True
    same = np.ones(len(rows), np.bool_)
    same[:1] = False
    for array in records.arrays().values():
        same[1:] &= array[1:] == array[:-1]
    repeat |= _repeated_trips(same, rows.source)
    return records.take(~repeat) if repeat.any() else records, _by_source(rows.source[repeat])


def _repeated_ids(rows: _Rows, *of_each: np.ndarray) -> np.ndarray:
    """Return the positions of all trips but the first of each id and hour, and of each value of other arrays.

    By the hour, since hours may be in one file or in several.
    """
    assert isinstance(rows.records, Trips | ZoneTrips)
    with_id = np.flatnonzero(rows.records.trip_id)
    keys = [array[with_id] for array in (rows.records.trip_id, rows.records.time // HOUR_US, *of_each)]
    order = np.lexsort(keys)
    same = np.ones(max(len(order) - 1, 0), np.bool_)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    return with_id[order[1:][same]]


def _by_source(source: np.ndarray) -> Counter[int]:
    """Return how often each source occurs."""
    numbers, counts = np.unique(source, return_counts=True)
    return Counter(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))


@njit(cache=True, nogil=True)
def _order(vehicle: np.ndarray, time: np.ndarray, n_vehicles: int) -> np.ndarray:
    """Return the stable order by (vehicle, time), in linear time where each vehicle's points are in order."""
    start = np.zeros(n_vehicles + 1, np.int32)
    for v in vehicle:
        start[v + 1] += 1
    for v in range(n_vehicles):
        start[v + 1] += start[v]
    order = np.empty(len(vehicle), np.int32)
    following = start[:-1].copy()  # the next free position of each vehicle
    for i in range(len(vehicle)):
        order[following[vehicle[i]]] = i
        following[vehicle[i]] += 1
    for v in range(n_vehicles):
        own = order[start[v] : start[v + 1]]
        for k in range(1, len(own)):
            if time[own[k]] < time[own[k - 1]]:
                own[:] = own[np.argsort(time[own], kind="mergesort")]
                break
    return order


@njit(cache=True, nogil=True)
def _choose_rows(order, vehicle, time, lon, lat, occupied, source):  # type: ignore[no-untyped-def]
    """Return the position of the smallest of each source's repeats, by source, and the positions of all but the first.

    `order` sorts the points by (vehicle, time).
    """
    chosen = np.empty(len(order), np.int32)
    repeats = np.empty(len(order), np.int32)
    n = m = begin = 0
    for i in order:
        if not n or vehicle[i] != vehicle[chosen[n - 1]] or time[i] != time[chosen[n - 1]]:
            begin = n
        at = n  # the row's place among those of the same vehicle and time, chosen[begin:n]
        while at > begin and source[chosen[at - 1]] > source[i]:
            at -= 1
        if at > begin and source[chosen[at - 1]] == source[i]:
            k = chosen[at - 1]
            if (lon[i], lat[i], occupied[i]) < (lon[k], lat[k], occupied[k]):
                chosen[at - 1] = i
            repeats[m] = i
            m += 1
        else:
            for place in range(n, at, -1):
                chosen[place] = chosen[place - 1]
            chosen[at] = i
            n += 1
    return chosen[:n], repeats[:m]


@njit(cache=True, nogil=True)
def _choose_points(vehicle, time, lon, lat, occupied):  # type: ignore[no-untyped-def]
    """Return the position of the smallest of each vehicle's points of one time, and the positions of all but the first.

    The points are sorted by (vehicle, time).
    """
    chosen = np.empty(len(vehicle), np.int32)
    repeats = np.empty(len(vehicle), np.int32)
    n = m = 0
    for i in range(len(vehicle)):
        if n and vehicle[i] == vehicle[i - 1] and time[i] == time[i - 1]:
            k = chosen[n - 1]
            if (lon[i], lat[i], occupied[i]) < (lon[k], lat[k], occupied[k]):
                chosen[n - 1] = i
            repeats[m] = i
            m += 1
        else:
            chosen[n] = i
            n += 1
    return chosen[:n], repeats[:m]


@njit(cache=True, nogil=True)
def _repeated_trips(same, source):  # type: ignore[no-untyped-def]
    """Say which trips an earlier source has as often; `same` says which trips equal the one before."""
    repeat = np.zeros(len(same), np.bool_)
    most = copies = 0  # of the trip in one of the earlier sources, and in this source so far
    for i in range(len(same)):
        if not same[i]:
            most = copies = 0
        elif source[i] != source[i - 1]:
            most, copies = max(most, copies), 0
        copies += 1
        repeat[i] = copies <= most
    return repeat
