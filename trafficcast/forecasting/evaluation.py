"""Backtest: a model and every baseline on a past period, from the very windows a forecast would have seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON
from trafficcast.errors import InputError
from trafficcast.forecasting.forecasters import Forecaster
from trafficcast.forecasting.inference import pick_device
from trafficcast.forecasting.intervals import Intervals
from trafficcast.forecasting.metrics import scores
from trafficcast.forecasting.model import load_model
from trafficcast.forecasting.windows import _gather, window_starts
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import read_flows


def backtest(
    stores: CityStores,
    start: str | np.datetime64,
    end: str | np.datetime64,
    version: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Score the model (default: the champion) and the baselines on forecasts whose target slots lie in [start, end).

    Every forecaster is scored on the scale of the model under test, and the baselines use its climatology. Raises
    InputError where there is no model, or no window of eight contiguous observed slots.
    """
    city = stores.city
    start, end = city.as_time(start), city.as_time(end)
    city.check_period(start, end)
    chosen_device = pick_device(device)
    model = load_model(stores.registry, version)
    flows = read_flows(stores)
    starts = window_starts(flows, city, start, end)
    if not len(starts):
        first, last = flows["time"].values[[0, -1]]
        raise InputError(
            f"no window of eight contiguous observed slots has its targets between {city.isoformat(start)} and "
            f"{city.isoformat(end)}; the store holds {city.isoformat(first)} to {city.isoformat(last + city.slot)}"
        )
    split = {name: city.parse_time(text) for name, text in model.card["split"].items()}
    if start < split["train_end"] and end > split["start"]:
        log.warning("the period overlaps the training of %s: these scores flatter it", model.version)
    forecasters = {model.version: model.forecaster(chosen_device)} | model.baselines(flows)
    scores, coverage = evaluate(forecasters, flows, starts, model.scale, model.intervals)
    return {
        "city": city.name,
        "champion": model.version,
        "start": city.isoformat(start),
        "end": city.isoformat(end),
        "forecasts": len(starts),
        "scale": model.scale,
        "slot_minutes": city.slot_minutes,
        "scores": scores,
        "intervals": coverage,
    }


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
    history = _gather(values, starts, HISTORY).astype(np.float32)
    forecast = forecaster.forecast(history, flows["time"].values[starts + HISTORY])
    return forecast, _gather(values, starts + HISTORY, HORIZON)
