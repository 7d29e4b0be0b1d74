"""Scoring forecasters on windows: the same windows, the same scale, one table."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from trafficcast.forecasters import Forecaster
from trafficcast.intervals import Intervals
from trafficcast.metrics import scores
from trafficcast.windows import HISTORY, HORIZON, gather


def evaluate(
    forecasters: dict[str, Forecaster],
    flows: xr.Dataset,
    starts: np.ndarray,
    scale: float,
    intervals: Intervals | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Each forecaster's scores (see `metrics.scores`) over the windows at positions `starts` of `flows`.

    Beside them how often the truth lay inside `intervals`, which are those of the first forecaster (see
    `Intervals.coverage`); without intervals nothing.
    """
    truth, made = None, {}
    for name, forecaster in forecasters.items():
        forecast, truth = forecasts_and_truth(forecaster, flows, starts)
        made[name] = forecast
    if truth is None:
        return {}, {}
    coverage = {} if intervals is None else intervals.coverage(next(iter(made.values())), truth)
    return {name: scores(forecast, truth, scale) for name, forecast in made.items()}, coverage


def forecasts_and_truth(forecaster: Forecaster, flows: xr.Dataset, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and what came, both (n, HORIZON, flow kind, row, col) in vehicles per slot."""
    values = flows["flow"].values
    history = gather(values, starts, HISTORY).astype(np.float32)
    forecast = forecaster.forecast(history, flows["time"].values[starts + HISTORY])
    return forecast, gather(values, starts + HISTORY, HORIZON)
