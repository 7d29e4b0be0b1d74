"""The observed flows of slots, and why a slot was not observed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

_Status = Literal["observed", "pending", "down"]

_STATUS_TEXTS: dict[_Status, str] = {
    "observed": "",
    "pending": "not observed yet",
    "down": "not observed: the feed was down",
}


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


def _slot_status(observed: bool, slot: np.datetime64, newest: np.datetime64 | None) -> _Status:
    """Whether a slot was observed, is still to come, or was missed: a later slot was observed.

    `newest`: the start of the newest observed slot of the whole store, naive UTC.
    """
    if observed:
        return "observed"
    return "pending" if newest is None or slot > newest else "down"
