"""Fill unobserved slots of a history with the climatology, scaled by the activity of the observed slots."""

from __future__ import annotations

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.windows import _known_at


def filled_history(
    flows: xr.Dataset | None, climatology: Climatology, init_time: np.ndarray | np.datetime64
) -> tuple[np.ndarray, np.ndarray]:
    """Read the slots before an init time, as they were known then, and fill those that were not observed.

    Parameters
    ----------
    flows
        The city's flows; None where there are none.
    climatology
        The city's climatology.
    init_time
        The init time, naive UTC.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        The history (1, HISTORY, flow kind, row, col) float32, vehicles per slot; and the starts (n) of the filled
        slots, naive UTC. Without any observed slot the activity is 1.
    """
    city = climatology.city
    times = (init_time - city.slot * np.arange(HISTORY, 0, -1)).astype("datetime64[us]")
    history = climatology.at(times).astype(np.float32)
    known = np.zeros(HISTORY, bool)
    if flows is not None:
        observed = flows.isel(time=flows["observed"].values & np.isin(flows["time"].values, times))
        known = np.isin(times, observed["time"].values)
        counts = _known_at(observed, city, init_time)
        expected = history[known].sum(dtype=np.float64)
        history *= np.float32(counts.sum(dtype=np.float64) / expected if expected > 0 else 1.0)
        history[known] = counts
    return history[None], times[~known]
