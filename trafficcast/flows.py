"""From GPS points to inflow and outflow on the grid, exactly: cells, transitions, slots, coverage.

After Zhang, Zheng & Qi, "Deep Spatio-Temporal Residual Networks for Citywide Crowd Flows Prediction" (AAAI 2017).
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numba import njit

from trafficcast.city import FLOW_KINDS, OUTSIDE, City
from trafficcast.points import Points

EARTH_RADIUS_M = 6371008.8
MINUTE_US = 60_000_000
NEVER = np.iinfo(np.int64).min

# Positions in the counter's totals.
POINTS, OUTSIDE_POINTS, PAIRS, FAR_PAIRS, TRANSITIONS, REFUSED_GAP, REFUSED_SPEED = range(7)
TOTALS = (
    "points",
    "points_outside",
    "pairs",
    "pairs_beyond_max_gap",
    "transitions",
    "refused_by_gap",
    "refused_by_speed",
)


class FlowCounter:
    """Counts the flows of UTC days [first_day, last_day], a chunk of sorted points at a time.

    Between chunks it remembers each vehicle's last point, so that chunks in the order of time count what one
    chunk would. `flow`: (slot, flow kind, row, col) int32; `vehicles`: (slot) int32; `minutes`: (slot, minute) bool.
    """

    def __init__(self, city: City, first_day: np.datetime64, last_day: np.datetime64) -> None:
        days = int((last_day - first_day) / np.timedelta64(1, "D")) + 1
        slots = days * city.slots_per_day
        self.city = city
        self.first_slot = int(first_day.astype("datetime64[D]").astype(np.int64)) * city.slots_per_day
        self.flow = np.zeros((slots, len(FLOW_KINDS), city.rows, city.cols), np.int32)
        self.vehicles = np.zeros(slots, np.int32)
        self.minutes = np.zeros((slots, city.slot_minutes), np.bool_)
        self.totals = np.zeros(len(TOTALS), np.int64)
        self._last_time = np.full(0, NEVER)
        self._last_place = np.zeros((0, 2))

    def add(self, points: Points) -> None:
        """Count points sorted by (vehicle, time), no pair repeated, none before any point added earlier."""
        city = self.city
        unknown = int(points.vehicle.max(initial=-1)) + 1 - len(self._last_time)
        if unknown > 0:
            self._last_time = np.append(self._last_time, np.full(unknown, NEVER))
            self._last_place = np.append(self._last_place, np.zeros((unknown, 2)), axis=0)
        _count(
            points.vehicle,
            points.time,
            points.lon,
            points.lat,
            np.array([city.west, city.east, city.south, city.north]),
            city.slot_us,
            round(city.max_gap_minutes * MINUTE_US),
            city.max_speed_kmh,
            self.first_slot,
            self._last_time,
            self._last_place,
            self.flow,
            self.vehicles,
            self.minutes,
            self.totals,
        )

    def dataset(self) -> xr.Dataset:
        """The flows from the first slot with a record to the last one (see `flows_dataset`)."""
        seen = np.flatnonzero(self.vehicles)
        slots = slice(seen[0], seen[-1] + 1)
        time = (np.arange(seen[0], seen[-1] + 1) + self.first_slot) * self.city.slot_us
        coverage = self.minutes[slots].mean(axis=1)
        return flows_dataset(self.city, time.astype("datetime64[us]"), self.flow[slots], self.vehicles[slots], coverage)


def flows_dataset(
    city: City, time: np.ndarray, flow: np.ndarray, vehicles: np.ndarray, coverage: np.ndarray
) -> xr.Dataset:
    """The flow contract: flow(time, flow_kind, row, col) in vehicles per slot, time = slot start, naive UTC.

    Args:
        city: the city, whose `min_coverage` decides which slots are observed.
        time: (time), slot starts.
        flow: (time, flow kind, row, col), integers.
        vehicles: (time), distinct vehicles seen, -1 where unknown.
        coverage: (time), share of the slot's one-minute bins in which any vehicle reported.
    """
    coverage = np.asarray(coverage, np.float32)
    return xr.Dataset(
        {
            "flow": (
                ("time", "flow_kind", "row", "col"),
                np.asarray(flow, np.int32),
                {"units": "1", "long_name": "vehicles per slot"},
            ),
            "observed": ("time", coverage >= np.float32(city.min_coverage), {"long_name": "the feed covered the slot"}),
            "vehicles": (
                "time",
                np.asarray(vehicles, np.int32),
                {"units": "1", "long_name": "distinct vehicles seen, -1 unknown"},
            ),
            "coverage": ("time", coverage, {"units": "1", "long_name": "share of one-minute bins with a report"}),
        },
        coords={
            "time": ("time", time, {"standard_name": "time", "long_name": "slot start, UTC"}),
            **grid_coordinates(city),
        },
        attrs=city_attributes(city),
    )


def grid_coordinates(city: City) -> dict[str, object]:
    """Coordinates that flows and forecasts share: flow_kind, lat(row), lon(col)."""
    return {
        "flow_kind": ("flow_kind", list(FLOW_KINDS)),
        "lat": ("row", city.lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("col", city.lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }


def city_attributes(city: City) -> dict[str, object]:
    """The city's box, grid, slot length and zone as file attributes."""
    return {"Conventions": "CF-1.11", "city": city.name, **city.grid()}


@njit(cache=True)
def cell_of(lon: float, lat: float, box: np.ndarray, rows: int, cols: int) -> int:
    """The cell's number row * cols + col, or OUTSIDE. `box` is west, east, south, north in degrees."""
    col = np.floor((lon - box[0]) / (box[1] - box[0]) * cols)
    row = np.floor((box[3] - lat) / (box[3] - box[2]) * rows)
    if 0 <= row < rows and 0 <= col < cols:
        return int(row) * cols + int(col)
    return OUTSIDE


@njit(cache=True)
def haversine_m(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    """Great-circle distance in metres between two places in degrees."""
    phi1, phi2 = np.radians(lat1), np.radians(lat2)
    half_dphi, half_dlambda = (phi2 - phi1) / 2, np.radians(lon2 - lon1) / 2
    h = np.sin(half_dphi) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin(half_dlambda) ** 2
    return 2 * EARTH_RADIUS_M * np.arcsin(min(1.0, np.sqrt(h)))


@njit(cache=True)
def _count(
    vehicle: np.ndarray,
    time: np.ndarray,
    lon: np.ndarray,
    lat: np.ndarray,
    box: np.ndarray,
    slot_us: int,
    max_gap_us: int,
    max_speed_kmh: float,
    first_slot: int,
    last_time: np.ndarray,
    last_place: np.ndarray,
    flow: np.ndarray,
    vehicles: np.ndarray,
    minutes: np.ndarray,
    totals: np.ndarray,
) -> None:
    rows, cols = flow.shape[2:]
    for i in range(len(time)):
        v = vehicle[i]
        slot = time[i] // slot_us - first_slot
        cell = cell_of(lon[i], lat[i], box, rows, cols)
        minutes[slot, time[i] % slot_us // MINUTE_US] = True
        totals[POINTS] += 1
        totals[OUTSIDE_POINTS] += cell == OUTSIDE
        p_time, p_lon, p_lat = last_time[v], last_place[v, 0], last_place[v, 1]
        last_time[v], last_place[v, 0], last_place[v, 1] = time[i], lon[i], lat[i]
        if p_time == NEVER:
            vehicles[slot] += 1
            continue
        p_slot = p_time // slot_us - first_slot
        vehicles[slot] += p_slot != slot
        gap = time[i] - p_time
        totals[PAIRS] += 1
        totals[FAR_PAIRS] += gap > max_gap_us
        p_cell = cell_of(p_lon, p_lat, box, rows, cols)
        if p_cell == cell:
            continue
        if gap > max_gap_us:
            totals[REFUSED_GAP] += 1
        elif haversine_m(p_lon, p_lat, lon[i], lat[i]) / gap * 3.6e6 > max_speed_kmh:
            totals[REFUSED_SPEED] += 1
        else:
            totals[TRANSITIONS] += 1
            if p_cell != OUTSIDE:
                flow[p_slot, 1, p_cell // cols, p_cell % cols] += 1
            if cell != OUTSIDE:
                flow[slot, 0, cell // cols, cell % cols] += 1
