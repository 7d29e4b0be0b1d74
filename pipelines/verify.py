"""Verify: stored forecasts against what then came, beside the baselines made from the same history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from trafficcast.baselines import WEEK
from trafficcast.city import City
from trafficcast.errors import InputError
from trafficcast.forecasts import has_intervals, score_dataset
from trafficcast.ledger import Ledger
from trafficcast.model import Model, load_model
from trafficcast.registry import Registry
from trafficcast.stores import flow_store, forecast_store, score_store
from trafficcast.windows import HISTORY, HORIZON


@dataclass(frozen=True)
class Verified:
    """How many forecasts were scored now, and how many wait for a slot that has not come or was not observed."""

    scored: int
    waiting: int


def verify(
    city: City,
    data: Path,
    models: Path,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    version: str | None = None,
) -> tuple[str, Verified]:
    """Score the stored forecasts with init times in [start, end) that are not scored yet; returns the model's version.

    Raises InputError where the model has no forecast in the period.
    """
    model = load_model(Registry(models / city.name, city), version)
    forecasts = forecast_store(data, city, model.version).read(start, end)
    if forecasts is None:
        raise InputError(f"{model.version} has no forecast there: run trafficcast forecast --city {city.name}")
    first, last = forecasts["init_time"].values[[0, -1]]
    flows = flow_store(data, city).read(first - WEEK - HISTORY * city.slot, last + HORIZON * city.slot)
    return model.version, verify_due(city, data, model, forecasts, flows)


def verify_due(city: City, data: Path, model: Model, forecasts: xr.Dataset, flows: xr.Dataset | None) -> Verified:
    """Score those of `forecasts` that have all their slots observed in `flows` and no score yet."""
    if flows is None:
        return Verified(0, len(forecasts["init_time"]))
    ledger, store = Ledger(data / "ledger.sqlite"), score_store(data, city, model.version)
    done = ledger.results("verify", city.name, model.version)
    compared = model.baselines(flows)
    observed = flows.isel(time=flows["observed"].values)
    scored = waiting = 0
    for init_time in forecasts["init_time"].values:
        if init_time in done:
            continue
        wanted = init_time + city.slot * np.arange(-HISTORY, HORIZON)
        if not np.isin(wanted, observed["time"].values).all():
            waiting += 1
            continue
        frames = observed["flow"].sel(time=wanted).values
        history, truth = frames[None, :HISTORY].astype(np.float32), frames[HISTORY:]
        forecast = forecasts.sel(init_time=init_time)
        made = {model.version: forecast["flow"].values}
        for name, forecaster in compared.items():
            made[name] = forecaster.forecast(history, np.array([init_time]))[0]
        store.write(score_dataset(city, init_time, made, truth, forecast if has_intervals(forecast) else None))
        ledger.record("verify", city.name, model.version, init_time, "scored")
        scored += 1
    return Verified(scored, waiting)
