"""Backtests: a model and every baseline on a past period, from the windows that a live forecast would have seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY
from trafficcast.errors import DamagedFile, InputError
from trafficcast.forecasting.forecasters import Forecaster
from trafficcast.forecasting.inference import pick_device
from trafficcast.forecasting.intervals import Intervals
from trafficcast.forecasting.metrics import scores
from trafficcast.forecasting.model import load_model
from trafficcast.forecasting.windows import _windows_as_known, describe_period, window_starts
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
    """Score a model and every baseline on forecasts of a past period.

    Every forecaster makes its forecasts from the same windows of observed slots. The paper's metrics of all are on the
    scale of the model under test, and the baselines were fitted on that model's training days.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        Start of the first target slot, inclusive; text in the city's time zone or naive UTC.
    end
        End of the last target slot, exclusive; text in the city's time zone or naive UTC.
    version
        The model to score; None is the champion.
    device
        "auto", "cpu", "cuda" or "mps".

    Returns
    -------
    dict[str, Any]
        Under "scores" each forecaster's RMSE and MAE, vehicles per slot, and the paper's metrics (see `scores`), all
        leads together and by lead; under "intervals" the coverage of the model's prediction intervals; beside them
        "city", "champion" (the model scored), "start", "end", "forecasts" (how many), "scale", "slot_minutes", and how
        much of the period has windows (see `describe_period`).

    Raises
    ------
    InputError
        There is no model, or the period holds no window of eight contiguous observed slots.

    Examples
    --------
    >>> result = tc.backtest(city, start="2024-04-24", end="2024-04-29")
    >>> result["scores"]["climatology"]["rmse"] < result["scores"]["persistence"]["rmse"]
    True
    """
    city = stores.city
    start, end = city.as_time(start), city.as_time(end)
    city.check_period(start, end)
    chosen_device = pick_device(device)
    model = load_model(stores.registry, version)
    damaged: list[DamagedFile] = []
    flows = read_flows(stores, damaged=damaged)
    for error in damaged:
        log.warning("%s; its slots are left out", error)
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
        **describe_period(flows, city, start, end, starts),
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
    """Score forecasters on the same windows.

    Parameters
    ----------
    forecasters
        Name -> forecaster.
    flows
        Flows (see `flows_dataset`).
    starts
        (n), the positions in `flows` at which windows begin (see `window_starts`).
    scale
        Vehicles per slot that count as 1 in the paper's metrics.
    intervals
        Prediction intervals of the first forecaster; None where it has none.

    Returns
    -------
    tuple[dict[str, dict[str, Any]], dict[str, Any]]
        Each forecaster's scores (see `scores`), and the coverage of the intervals (see `Intervals.coverage`), which is
        empty without intervals.
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
    """Make forecasts from the windows of past flows.

    Parameters
    ----------
    forecaster
        The forecaster.
    flows
        Flows (see `flows_dataset`).
    starts
        (n), the positions in `flows` at which windows begin (see `window_starts`).

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        The forecasts and the observed flows, both (n, HORIZON, flow kind, row, col), vehicles per slot.
    """
    windows = _windows_as_known(flows, starts)
    forecast = forecaster.forecast(windows[:, :HISTORY], flows["time"].values[starts + HISTORY])
    return forecast, windows[:, HISTORY:]
