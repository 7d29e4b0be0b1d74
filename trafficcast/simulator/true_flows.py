"""The true flows of simulated records: those that a correct ingest must find in the files, integer for integer.

The transitions are counted straight from the simulation, by code of its own, so that an ingest can be checked against
them.
"""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import xarray as xr

from trafficcast.config.city import FLOW_KINDS, OUTSIDE, City
from trafficcast.files import atomic
from trafficcast.geography.cells import cell_of, cells_of, haversine_m
from trafficcast.simulator.taxis import _DEGREE, _Reports
from trafficcast.stores.flows import UNKNOWN, flows_dataset
from trafficcast.stores.observed import Evidence, judge_observed

_INFLOW, _OUTFLOW = range(len(FLOW_KINDS))


class _TrueFlows:
    """Counts the flows of records with times in [start, end), unix seconds, of so many taxis."""

    def __init__(self, city: City, start: int, end: int, taxis: int) -> None:
        self.city = city
        self._slot_s = 60 * city.slot_minutes
        self._first_slot = start // self._slot_s
        slots = -(-end // self._slot_s) - self._first_slot
        self._flow = np.zeros((slots, len(FLOW_KINDS), city.rows * city.cols), np.int32)
        self._vehicles = np.zeros(slots, np.int32)
        self._minutes = np.zeros((slots, city.slot_minutes), np.int32)
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
            city.box, city.rows, city.cols, self._first_slot, self._slot_s,
            city.max_gap_us, city.max_speed_kmh, city.feed.trips,
            self._last, self._flow, self._vehicles, self._minutes,
        )  # fmt: skip

    def add_trips(self, pickups: _Reports, dropoffs: _Reports) -> None:
        """Count trips: outflow where and when they begin, inflow where and when they end."""
        city = self.city
        self._vehicles[:] = UNKNOWN
        for kind, ends in ((_OUTFLOW, pickups), (_INFLOW, dropoffs)):
            slot, second = np.divmod(ends.seconds, self._slot_s)
            np.add.at(self._minutes, (slot - self._first_slot, second // 60), 1)
            cell = cells_of(ends.lon / _DEGREE, ends.lat / _DEGREE, city.box, city.rows, city.cols)
            inside = cell != OUTSIDE
            np.add.at(self._flow, ((slot - self._first_slot)[inside], kind, cell[inside]), 1)

    def dataset(self) -> xr.Dataset:
        """Return the flows from the first slot with a record to the last; see `flows_dataset`."""
        city, has_record = self.city, np.asarray(self._minutes.any(axis=1))
        numbers = np.flatnonzero(has_record)
        slots = slice(numbers[0], numbers[-1] + 1) if len(numbers) else slice(0)
        time = ((np.arange(len(has_record)) + self._first_slot) * self._slot_s)[slots].astype("datetime64[s]")
        flow = self._flow[slots].reshape(-1, len(FLOW_KINDS), city.rows, city.cols)
        vehicles = np.where(has_record, self._vehicles, 0)[slots]
        coverage = np.mean(self._minutes[slots] > 0, axis=1)
        known = None if (self._vehicles == UNKNOWN).any() else self._vehicles[numbers]
        evidence = Evidence(numbers + self._first_slot, self._minutes[numbers], known, known is None)
        judged, is_observed = judge_observed(city, evidence)
        observed = np.zeros(len(has_record), np.bool_)
        observed[judged - self._first_slot] = is_observed
        return flows_dataset(city, time.astype("datetime64[us]"), flow, vehicles, coverage, observed[slots])

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
    taxi, seconds, lon, lat, occupied, box, rows, cols, first_slot, slot_s, max_gap_us, max_kmh, trips,
    last, flow, vehicles, minutes,
):  # fmt: skip
    """Count reports sorted by (taxi, seconds) into flow, vehicles and minutes."""
    i = 0
    while i < len(seconds):
        smallest = i
        i += 1
        while i < len(seconds) and taxi[i] == taxi[smallest] and seconds[i] == seconds[smallest]:
            if (lon[i], lat[i], occupied[i]) < (lon[smallest], lat[smallest], occupied[smallest]):
                smallest = i
            i += 1
        k, t, x, y, passenger = taxi[smallest], seconds[smallest], lon[smallest], lat[smallest], occupied[smallest]
        slot = t // slot_s - first_slot
        minutes[slot, t % slot_s // 60] += 1
        p_t, p_x, p_y, p_passenger = last[k]
        last[k, 0], last[k, 1], last[k, 2], last[k, 3] = t, x, y, passenger
        p_slot = p_t // slot_s - first_slot
        if p_t < 0 or p_slot != slot:
            vehicles[slot] += 1
        if p_t < 0 or (t - p_t) * 1_000_000 > max_gap_us:
            continue
        at, p_at = (x / _DEGREE, y / _DEGREE), (p_x / _DEGREE, p_y / _DEGREE)
        cell, p_cell = cell_of(*at, box, rows, cols), cell_of(*p_at, box, rows, cols)
        if trips:
            leaves, enters = passenger > p_passenger, passenger < p_passenger
        else:
            leaves = enters = cell != p_cell
        if not (leaves or enters) or haversine_m(*p_at, *at) / 1000 > max_kmh * (t - p_t) / 3600:
            continue
        if trips:  # the outflow is that of the first report with the passenger, the inflow that of the last
            cell, slot, p_cell, p_slot = p_cell, p_slot, cell, slot
        if leaves and p_cell != OUTSIDE:
            flow[p_slot, _OUTFLOW, p_cell] += 1
        if enters and cell != OUTSIDE:
            flow[slot, _INFLOW, cell] += 1
