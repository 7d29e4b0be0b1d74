"""Score stored forecasts against the flows observed since, beside the baselines made from the same history."""

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
# If a target slot is still missing after this many later slots were observed, score the forecast without it.
_PATIENCE = HORIZON
_ALL_LEADS = f"{HORIZON} of {HORIZON} leads"


@dataclass(frozen=True)
class _Verified:
    """How many forecasts were scored, and how many wait for a target slot to be observed."""

    scored: int
    waiting: int


def verify(
    stores: CityStores,
    start: str | np.datetime64 | None = None,
    end: str | np.datetime64 | None = None,
    version: str | None = None,
) -> tuple[str, _Verified]:
    """Score the stored forecasts of a period whose target slots have been observed since.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        First init time, inclusive, text in the city's time zone or naive UTC; None is the first stored.
    end
        End of the init times, exclusive; None is the end of the last stored.
    version
        The model whose forecasts are scored; None is the champion.

    Returns
    -------
    tuple[str, _Verified]
        The model's version, and how many forecasts were scored and how many wait.

    Raises
    ------
    InputError
        There is no model, or it has no forecast in the period.
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
    """Select the forecasts that are not scored at every lead yet.

    Parameters
    ----------
    stores
        The city and its stores.
    version
        The model that made them.
    forecasts
        Forecasts (see `forecast_dataset`).

    Returns
    -------
    xr.Dataset
        Those of them that lack a score, by the ledger.
    """
    done = stores.ledger.results(VERIFY, stores.city.name, version)
    keep = [done.get(init_time) != _ALL_LEADS for init_time in forecasts["init_time"].values]
    return forecasts.isel(init_time=keep)


def verify_due(stores: CityStores, model: Model, forecasts: xr.Dataset, flows: xr.Dataset | None) -> _Verified:
    """Score forecasts beside the baselines, made from the same history, where their target slots have been observed.

    A forecast whose last target slots are still to come waits. Where a target slot is missing although `_PATIENCE`
    later slots were observed, the forecast is scored without it, and its score at that lead is not a number. The
    history of the baselines is filled as the forecast's was (see `filled_history`).

    Parameters
    ----------
    stores
        The city and its stores.
    model
        The model that made the forecasts.
    forecasts
        Forecasts (see `forecast_dataset`).
    flows
        Flows (see `flows_dataset`) from a week before the first forecast to the end of the last one; None where there
        are none.

    Returns
    -------
    _Verified
        How many forecasts were scored, and how many wait.
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
