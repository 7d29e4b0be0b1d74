"""The true flows of simulated records: what a correct ingest must find in the files, integer for integer.

Counted straight from the simulation and by code of its own, so that an ingest can be checked against it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numba
import numpy as np
import xarray as xr

from trafficcast.config.city import FLOW_KINDS, City
from trafficcast.files import atomic
from trafficcast.simulator.taxis import _DEGREE, _Reports
from trafficcast.stores.flows import flows_dataset

_CLOCK_CHANGE_S = 3 * 3600  # a local time that occurs twice is read as the first: up to so much before the period
_INFLOW, _OUTFLOW = range(len(FLOW_KINDS))
_EARTH_RADIUS_KM = 6371.0088
_UNKNOWN = -1


class _TrueFlows:
    """Counts the flows of records with times in [start, end), unix seconds, of so many taxis."""

    def __init__(self, city: City, start: int, end: int, taxis: int) -> None:
        self.city = city
        self._slot_s = 60 * city.slot_minutes
        self._first_slot = (start - _CLOCK_CHANGE_S) // self._slot_s
        slots = -(-end // self._slot_s) - self._first_slot
        self._flow = np.zeros((slots, len(FLOW_KINDS), city.rows, city.cols), np.int32)
        self._vehicles = np.zeros(slots, np.int32)
        self._minutes = np.zeros((slots, city.slot_minutes), np.bool_)
        # A taxi's last report: seconds, longitude, latitude, occupied; -1 seconds where there is none.
        self._last = np.full((taxis, 4), -1, np.int64)

    def add_points(self, reports: _Reports) -> None:
        """Count reports, repeats among them; none of a taxi may lie before one of it that was added earlier.

        Where the city's feed counts trips, a trip goes from the first report with a passenger to the last.
        """
        taxi, seconds = reports.taxi, reports.seconds
        if len(reports) and not ((np.diff(taxi) > 0) | ((np.diff(taxi) == 0) & (np.diff(seconds) >= 0))).all():
            reports = reports.take(np.lexsort((seconds, taxi)))
        city = self.city
        _tally(
            reports.taxi, reports.seconds, reports.lon, reports.lat, reports.occupied,
            city.west, city.east, city.south, city.north, self._first_slot, self._slot_s,
            round(60_000_000 * city.max_gap_minutes), city.max_speed_kmh, city.feed.trips,
            self._last, self._flow, self._vehicles, self._minutes,
        )  # fmt: skip

    def add_trips(self, pickups: _Reports, dropoffs: _Reports) -> None:
        """Count trips, each once: outflow where and when they begin, inflow where and when they end."""
        city = self.city
        self._vehicles[:] = _UNKNOWN
        for kind, ends in ((_OUTFLOW, pickups), (_INFLOW, dropoffs)):
            slot, second = np.divmod(ends.seconds, self._slot_s)
            self._minutes[slot - self._first_slot, second // 60] = True
            col = np.floor((ends.lon / _DEGREE - city.west) / (city.east - city.west) * city.cols)
            row = np.floor((city.north - ends.lat / _DEGREE) / (city.north - city.south) * city.rows)
            inside = (row >= 0) & (row < city.rows) & (col >= 0) & (col < city.cols)
            place = np.ravel_multi_index(
                ((slot - self._first_slot)[inside], kind, row[inside].astype(np.int64), col[inside].astype(np.int64)),
                self._flow.shape,
            )
            np.add.at(self._flow.reshape(-1), place, 1)

    def dataset(self) -> xr.Dataset:
        """The flows from the first slot with a record to the last (see `flows.flows_dataset`)."""
        heard = np.asarray(self._minutes.any(axis=1))
        seen = np.flatnonzero(heard)
        slots = slice(seen[0], seen[-1] + 1) if len(seen) else slice(0)
        time = ((np.arange(len(heard)) + self._first_slot) * self._slot_s)[slots].astype("datetime64[s]")
        vehicles = np.where(heard, self._vehicles, 0)[slots]
        coverage = self._minutes[slots].mean(axis=1)
        return flows_dataset(self.city, time.astype("datetime64[us]"), self._flow[slots], vehicles, coverage)

    def write(self, file: Path) -> None:
        """Write the flows as NetCDF-4; the same flows are the same bytes."""
        encoding: dict[str, dict[str, object]] = {
            "flow": {"zlib": True, "complevel": 1},
            "time": {"units": "seconds since 1970-01-01"},
        }
        with atomic(file) as temporary:
            self.dataset().to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


@numba.njit(cache=True, nogil=True)
def _tally(  # type: ignore[no-untyped-def]
    taxi, seconds, lon, lat, occupied, west, east, south, north, first_slot, slot_s, max_gap_us, max_kmh, trips,
    last, flow, vehicles, minutes,
):  # fmt: skip
    """Count reports sorted by (taxi, seconds) into flow, vehicles and minutes."""
    rows, cols = flow.shape[2:]
    i = 0
    while i < len(seconds):
        kept = i
        i += 1
        while i < len(seconds) and taxi[i] == taxi[kept] and seconds[i] == seconds[kept]:
            if (lon[i], lat[i], occupied[i]) < (lon[kept], lat[kept], occupied[kept]):
                kept = i
            i += 1
        k, t, x, y, passenger = taxi[kept], seconds[kept], lon[kept], lat[kept], occupied[kept]
        slot = t // slot_s - first_slot
        minutes[slot, t % slot_s // 60] = True
        p_t, p_x, p_y, p_passenger = last[k]
        last[k, 0], last[k, 1], last[k, 2], last[k, 3] = t, x, y, passenger
        p_slot = p_t // slot_s - first_slot
        if p_t < 0 or p_slot != slot:
            vehicles[slot] += 1
        if p_t < 0 or (t - p_t) * 1_000_000 > max_gap_us:
            continue
        row, col = _row_col(x, y, west, east, south, north, rows, cols)
        p_row, p_col = _row_col(p_x, p_y, west, east, south, north, rows, cols)
        if trips:
            leaves, enters = passenger > p_passenger, passenger < p_passenger
        else:
            leaves = enters = row != p_row or col != p_col
        if not (leaves or enters) or _km(p_x, p_y, x, y) > max_kmh * (t - p_t) / 3600:
            continue
        if trips:  # the outflow is where the passenger is first seen, the inflow where last
            row, col, slot, p_row, p_col, p_slot = p_row, p_col, p_slot, row, col, slot
        if leaves and p_row >= 0:
            flow[p_slot, _OUTFLOW, p_row, p_col] += 1
        if enters and row >= 0:
            flow[slot, _INFLOW, row, col] += 1


@numba.njit(cache=True, nogil=True)
def _row_col(x, y, west, east, south, north, rows, cols):  # type: ignore[no-untyped-def]
    """The cell of a place as it is written, (-1, -1) outside the grid."""
    col = math.floor((x / _DEGREE - west) / (east - west) * cols)
    row = math.floor((north - y / _DEGREE) / (north - south) * rows)
    if 0 <= row < rows and 0 <= col < cols:
        return row, col
    return -1, -1


@numba.njit(cache=True, nogil=True)
def _km(x1, y1, x2, y2):  # type: ignore[no-untyped-def]
    """Great-circle distance between two places as they are written, by haversines."""
    lon1, lat1, lon2, lat2 = (
        math.radians(x1 / _DEGREE),
        math.radians(y1 / _DEGREE),
        math.radians(x2 / _DEGREE),
        math.radians(y2 / _DEGREE),
    )
    h = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(h))
