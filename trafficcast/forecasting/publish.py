"""Make a forecast from the last four slots with a model, and store it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY
from trafficcast.errors import InputError
from trafficcast.forecasting.forecasters import Forecaster
from trafficcast.forecasting.inference import pick_device
from trafficcast.forecasting.intervals import Intervals
from trafficcast.forecasting.model import Model, load_model
from trafficcast.forecasting.windows import _history_before
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import judged_otherwise, last_observed
from trafficcast.stores.forecasts import Provenance, check_forecast, forecast_dataset

JOB = "forecast"


def forecast(
    stores: CityStores,
    init_time: str | np.datetime64 | None = None,
    version: str | None = None,
    device: str = "auto",
) -> xr.Dataset:
    """Make one forecast, store it and return it.

    Parameters
    ----------
    stores
        The city and its stores.
    init_time
        Start of the first slot to forecast, text in the city's time zone or naive UTC; None is the slot after the
        newest observed one.
    version
        The model that forecasts; None is the champion.
    device
        "auto", "cpu", "cuda" or "mps".

    Returns
    -------
    xr.Dataset
        The forecast: flow(init_time, lead_time, flow_kind, row, col), vehicles per slot, and the bounds of prediction
        intervals where the model has them (see `forecast_dataset`).

    Raises
    ------
    InputError
        There is no model or no observed slot, `init_time` is no slot start, or a slot of the history is missing.
    JobError
        The forecast is implausible (see `check_forecast`); nothing is stored.

    Examples
    --------
    >>> forecast = tc.forecast(city, init_time="2024-04-28T18:00")
    >>> forecast["flow"].sizes["lead_time"]
    4
    """
    city, flows = stores.city, stores.flows
    init_time = city.as_time(init_time)
    chosen_device = pick_device(device)
    model = load_model(stores.registry, version)
    if init_time is None:
        last = last_observed(flows)
        if last is None:
            raise InputError(f"'{city.name}' has no observed slot yet: run trafficcast ingest PATH --city {city.name}")
        init_time = last + city.slot
    elif city.slot_start(init_time) != init_time:
        raise InputError(
            f"{city.isoformat(init_time)} is no slot start: slots of {city.slot_minutes} minutes start at "
            f"{city.isoformat(city.slot_start(init_time))} and every {city.slot_minutes} minutes after"
        )
    if otherwise := judged_otherwise(stores):
        log.warning(otherwise)
    known = flows.read(init_time - HISTORY * city.slot, init_time)
    return _publish_forecast(stores, model, model.forecaster(chosen_device), known, init_time)


def _publish_forecast(
    stores: CityStores,
    model: Model,
    forecaster: Forecaster,
    flows: xr.Dataset | None,
    init_time: np.datetime64,
) -> xr.Dataset:
    """Forecast from flows, check, store and note the forecast; for a slot that is over it is marked as a hindcast."""
    flow = forecaster.forecast(_history_before(flows, stores.city, init_time), np.array([init_time]))[0]
    check_forecast(flow, model.scale)
    now = np.datetime64(int(time.time()), "s")
    origin = Provenance(model.version, hindcast=bool(now >= init_time + stores.city.slot))
    return publish(stores, model.card, init_time, flow, origin, now, model.intervals)


def publish(
    stores: CityStores,
    card: dict[str, Any],
    init_time: np.datetime64,
    flow: np.ndarray,
    origin: Provenance,
    created: np.datetime64,
    intervals: Intervals | None = None,
    seconds: float = 0.0,
) -> xr.Dataset:
    """Store a checked forecast among those of a model and note it in the ledger.

    A forecast that is stored already, equal in all its values, is left as it is.

    Parameters
    ----------
    stores
        The city and its stores.
    card
        The model's card.
    init_time
        Start of the first slot forecast, naive UTC.
    flow
        (HORIZON, flow kind, row, col), vehicles per slot.
    origin
        Who made the forecast, and how.
    created
        When it was made, naive UTC.
    intervals
        The model's prediction intervals, which are added where the model itself made the forecast.
    seconds
        How long it took, for the ledger.

    Returns
    -------
    xr.Dataset
        The stored forecast (see `forecast_dataset`).
    """
    city, version = stores.city, str(card["version"])
    store, bounds = stores.forecasts(version), None
    if intervals is not None and origin.forecaster == version:
        bounds = intervals.levels, *intervals.around(flow)
    made = forecast_dataset(city, card, init_time, flow, created, bounds, origin)
    stored = store.read(init_time, init_time + city.slot)
    if stored is not None and _same(stored, made):
        made = stored
    else:
        store.write(made)
    stores.ledger.record(JOB, city.name, version, init_time, origin.state, origin.reason, seconds)
    return made


def _same(stored: xr.Dataset, made: xr.Dataset) -> bool:
    """Whether two forecasts are equal but for when they were made: one that was made in time stays one."""
    names = [name for name in made.data_vars if name != "hindcast"]
    return all(name in stored and np.array_equal(stored[name].values, made[name].values) for name in names)
