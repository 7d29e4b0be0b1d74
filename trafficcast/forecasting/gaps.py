"""Histories with gaps: what was not observed is filled with what is normal then, as busy as the rest was."""

from __future__ import annotations

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY
from trafficcast.forecasting.climatology import Climatology


def filled_history(
    flows: xr.Dataset | None, climatology: Climatology, init_time: np.ndarray | np.datetime64
) -> tuple[np.ndarray, np.ndarray]:
    """The four slots before `init_time`, (1, HISTORY, flow kind, row, col) float32, vehicles per slot.

    A slot that `flows` does not hold, or not as observed, is filled from climatology times the ratio of the observed
    slots' sum to that of their climatology, 1 without any. Beside it the starts of the slots that were filled.
    """
    city = climatology.city
    times = (init_time - city.slot * np.arange(HISTORY, 0, -1)).astype("datetime64[us]")
    history = climatology.at(times).astype(np.float32)
    seen = np.zeros(HISTORY, bool)
    if flows is not None:
        observed = flows.isel(time=flows["observed"].values & np.isin(flows["time"].values, times))
        seen = np.isin(times, observed["time"].values)
        counts = observed["flow"].values.astype(np.float32)
        normal = history[seen].sum(dtype=np.float64)
        history *= np.float32(counts.sum(dtype=np.float64) / normal if normal > 0 else 1.0)
        history[seen] = counts
    return history[None], times[~seen]
