"""Records in the order in which they are counted, each once (flows: what a repeated record is)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numba import njit

from trafficcast.records.records import Points, Records

_R = TypeVar("_R", bound=Records)


def _sort_and_deduplicate(records: _R) -> tuple[_R, np.ndarray]:
    """Sort points by (vehicle, time), trips by all they have, and keep of repeated ones a single one.

    Points repeat when vehicle and timestamp do, and the one with the smallest (lon, lat, occupied) stays; trips when
    all their fields do. Returns the records and the positions, in what was given, of the repeats: all but the first.
    """
    if not len(records):
        return records, np.zeros(0, np.int64)
    if isinstance(records, Points):
        order = _order(records.vehicle, records.time, int(records.vehicle.max()) + 1)
        arrays = (records.vehicle, records.time, records.lon, records.lat, records.occupied)
        kept, repeats = _first_and_smallest(order, *arrays)
        return records.take(kept), repeats
    order = np.lexsort(tuple(reversed(records.arrays().values())))
    repeat = np.zeros(len(order), np.bool_)
    repeat[1:] = True
    for array in records.arrays().values():
        ordered = array[order]
        repeat[1:] &= ordered[1:] == ordered[:-1]
    return records.take(order[~repeat]), order[repeat]  # lexsort is stable: the first stays


@njit(cache=True, nogil=True)
def _order(vehicle: np.ndarray, time: np.ndarray, n_vehicles: int) -> np.ndarray:
    """The stable order by (vehicle, time). Linear where each vehicle's points come in the order of time."""
    start = np.zeros(n_vehicles + 1, np.int32)
    for v in vehicle:
        start[v + 1] += 1
    for v in range(n_vehicles):
        start[v + 1] += start[v]
    order = np.empty(len(vehicle), np.int32)
    place = start[:-1].copy()
    for i in range(len(vehicle)):
        order[place[vehicle[i]]] = i
        place[vehicle[i]] += 1
    for v in range(n_vehicles):
        own = order[start[v] : start[v + 1]]
        for k in range(1, len(own)):
            if time[own[k]] < time[own[k - 1]]:
                own[:] = own[np.argsort(time[own], kind="mergesort")]
                break
    return order


@njit(cache=True, nogil=True)
def _first_and_smallest(order, vehicle, time, lon, lat, occupied):  # type: ignore[no-untyped-def]
    """Of each run of equal (vehicle, time) the position of the smallest, and the positions of all but the first."""
    kept = np.empty(len(order), np.int32)
    repeats = np.empty(len(order), np.int32)
    n = m = 0
    for i in order:
        if n and vehicle[i] == vehicle[kept[n - 1]] and time[i] == time[kept[n - 1]]:
            k = kept[n - 1]
            if (lon[i], lat[i], occupied[i]) < (lon[k], lat[k], occupied[k]):
                kept[n - 1] = i
            repeats[m] = i
            m += 1
        else:
            kept[n] = i
            n += 1
    return kept[:n], repeats[:m]
