"""Sort records into the order in which they are counted, and remove repeats."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numba import njit

from trafficcast.records.records import Points, Records

_R = TypeVar("_R", bound=Records)


def _sort_and_deduplicate(records: _R) -> tuple[_R, np.ndarray]:
    """Sort points by (vehicle, time) and trips by all fields, and keep one of each set of repeats.

    Points repeat when vehicle and time are equal; the one with the smallest (lon, lat, occupied) stays. Trips repeat
    when all fields are equal. Returns the records, and the positions of all but the first of each set in the given
    records.
    """
    if not len(records):
        return records, np.zeros(0, np.int64)
    if isinstance(records, Points):
        order = _order(records.vehicle, records.time, int(records.vehicle.max()) + 1)
        arrays = (records.vehicle, records.time, records.lon, records.lat, records.occupied)
        chosen, repeats = _choose_smallest(order, *arrays)
        return records.take(chosen), repeats
    order = np.lexsort(tuple(reversed(records.arrays().values())))
    repeat = np.zeros(len(order), np.bool_)
    repeat[1:] = True
    for array in records.arrays().values():
        ordered = array[order]
        repeat[1:] &= ordered[1:] == ordered[:-1]
    return records.take(order[~repeat]), order[repeat]  # lexsort is stable: the first stays


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
def _choose_smallest(order, vehicle, time, lon, lat, occupied):  # type: ignore[no-untyped-def]
    """Return the position of the smallest of each set of repeats, and the positions of all but the first."""
    chosen = np.empty(len(order), np.int32)
    repeats = np.empty(len(order), np.int32)
    n = m = 0
    for i in order:
        if n and vehicle[i] == vehicle[chosen[n - 1]] and time[i] == time[chosen[n - 1]]:
            k = chosen[n - 1]
            if (lon[i], lat[i], occupied[i]) < (lon[k], lat[k], occupied[k]):
                chosen[n - 1] = i
            repeats[m] = i
            m += 1
        else:
            chosen[n] = i
            n += 1
    return chosen[:n], repeats[:m]
