"""Verify: stored forecasts against what then came, beside the baselines made from the same history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON
from trafficcast.errors import InputError
from trafficcast.forecasting.baselines import WEEK
from trafficcast.forecasting.gaps import filled_history
from trafficcast.forecasting.model import Model, load_model
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.forecasts import has_intervals
from trafficcast.stores.scores import score_dataset

VERIFY = "verify"
# Slots after the last one forecast that are observed, while one of the four is not: then it is not waited for.
_PATIENCE = HORIZON
_ALL_LEADS = f"{HORIZON} of {HORIZON} leads"


@dataclass(frozen=True)
class _Verified:
    """How many forecasts were scored now, and how many wait for a slot that has not come or was not observed."""

    scored: int
    waiting: int


def verify(
    stores: CityStores,
    start: str | np.datetime64 | None = None,
    end: str | np.datetime64 | None = None,
    version: str | None = None,
) -> tuple[str, _Verified]:
    """Score the stored forecasts with init times in [start, end) that are not scored yet; returns the model's version.

    Raises InputError where the model has no forecast in the period.
    """
    city = stores.city
    model = load_model(stores.registry, version)
    forecasts = stores.forecasts(model.version).read(city.as_time(start), city.as_time(end))
    if forecasts is None:
        raise InputError(f"{model.version} has no forecast there: run trafficcast forecast --city {city.name}")
    first, last = forecasts["init_time"].values[[0, -1]]
    flows = stores.flows.read(first - WEEK - HISTORY * city.slot, last + HORIZON * city.slot)
    return model.version, verify_due(stores, model, forecasts, flows)


def unverified(stores: CityStores, version: str, forecasts: xr.Dataset) -> xr.Dataset:
    """Those of `forecasts` that are not scored at every lead."""
    done = stores.ledger.results(VERIFY, stores.city.name, version)
    keep = [done.get(init_time) != _ALL_LEADS for init_time in forecasts["init_time"].values]
    return forecasts.isel(init_time=keep)


def verify_due(stores: CityStores, model: Model, forecasts: xr.Dataset, flows: xr.Dataset | None) -> _Verified:
    """Score those of `forecasts` whose slots have been observed in `flows` since, and who have no such score yet.

    Where one of the four slots is not observed although later ones are, the others are scored, and that one is not a
    number. A baseline's history is filled as the forecast's was (see `filled_history`).
    """
    if flows is None or not flows["observed"].values.any():
        return _Verified(0, len(forecasts["init_time"]))
    city, ledger, store = stores.city, stores.ledger, stores.scores(model.version)
    done = ledger.results(VERIFY, city.name, model.version)
    compared = model.baselines(flows)
    observed = flows.isel(time=flows["observed"].values)
    newest = observed["time"].values[-1]
    scored = waiting = 0
    for init_time in forecasts["init_time"].values:
        targets = init_time + city.slot * np.arange(HORIZON)
        seen = np.isin(targets, observed["time"].values)
        result = f"{seen.sum()} of {HORIZON} leads"
        if done.get(init_time) in (result, _ALL_LEADS):
            continue
        if not seen.all() and (not seen.any() or newest < targets[-1] + _PATIENCE * city.slot):
            waiting += 1
            continue
        truth = np.full((HORIZON, *observed["flow"].shape[1:]), np.nan, np.float32)
        truth[seen] = observed["flow"].sel(time=targets[seen]).values
        history, _ = filled_history(flows, model.climatology, init_time)
        forecast = forecasts.sel(init_time=init_time)
        made = {model.version: forecast["flow"].values}
        for name, forecaster in compared.items():
            made[name] = forecaster.forecast(history, np.array([init_time]))[0]
        store.write(score_dataset(city, init_time, made, truth, forecast if has_intervals(forecast) else None))
        ledger.record(VERIFY, city.name, model.version, init_time, result)
        scored += 1
    return _Verified(scored, waiting)
