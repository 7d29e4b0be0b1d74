"""The observed flows of slots, and why a slot was not observed."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dashboard.forecasts.timeline import _of_place
from dashboard.page import clock
from dashboard.page.labels import so_far
from trafficcast.config.city import City


def _observed_frame(flows: xr.Dataset | None, slot: np.datetime64) -> np.ndarray | None:
    """The observed flows of a slot, (flow kind, row, col), vehicles per slot; None where it was not observed."""
    if flows is None:
        return None
    position = np.flatnonzero((flows["time"].values == slot) & flows["observed"].values)
    if len(position) == 0:
        return None
    return np.asarray(flows["flow"].values[position[0]], np.float64)


def _observed_frames(flows: xr.Dataset, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The observed ones of the slots, and their flows: (time, flow kind, row, col), vehicles per slot."""
    seen = flows["observed"].values & np.isin(flows["time"].values, slots)
    return flows["time"].values[seen], flows["flow"].values[seen]


def _why_not(city: City, flows: xr.Dataset | None, slot: np.datetime64, newest: np.datetime64 | None, kind: str) -> str:
    """Why a slot is not observed: it is still to come, still runs, has not come yet, or was missed.

    `newest`: the start of the newest observed slot of the whole store, naive UTC. Of the slot that still runs it says
    what has been counted so far.
    """
    now = clock.present()
    if slot > now:
        return "is still to come"
    if slot + city.slot > now:
        return f"still runs: {_counted_so_far(city, flows, slot, kind)}"
    return "not observed yet" if newest is None or slot > newest else "not observed: the feed was down"


def _counted_so_far(city: City, flows: xr.Dataset | None, slot: np.datetime64, kind: str) -> str:
    """How much of the slot that still runs has been seen, and the city's total in it."""
    if flows is None or slot not in flows["time"].values:
        return "no record yet"
    seen = flows.sel(time=slot)
    total = _of_place(seen["flow"].values, kind, None)
    return f"{so_far(city, float(seen['coverage']))}, city total {total:,.0f}"
