"""Scoring forecasters on windows: the same windows, the same scale, one table."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from trafficcast.forecasters import Forecaster
from trafficcast.metrics import scores
from trafficcast.windows import HISTORY, HORIZON, gather


def evaluate(
    forecasters: dict[str, Forecaster], flows: xr.Dataset, starts: np.ndarray, scale: float
) -> dict[str, dict[str, Any]]:
    """Each forecaster's scores (see `metrics.scores`) over the windows at positions `starts` of `flows`."""
    values = flows["flow"].values
    history = gather(values, starts, HISTORY).astype(np.float32)
    truth = gather(values, starts + HISTORY, HORIZON)
    init_times = flows["time"].values[starts + HISTORY]
    return {
        name: scores(forecaster.forecast(history, init_times), truth, scale) for name, forecaster in forecasters.items()
    }
