"""Replay: a past period slot by slot, as if live: forecast from what was known then, verify what has come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.forecast import publish_forecast
from pipelines.progress import log, track
from pipelines.verify import verify_due
from trafficcast.baselines import WEEK
from trafficcast.city import City
from trafficcast.errors import InputError
from trafficcast.model import load_model
from trafficcast.registry import Registry
from trafficcast.stores import forecast_store, read_flows, score_store
from trafficcast.training import pick_device
from trafficcast.windows import HISTORY, HORIZON


def replay(
    city: City,
    data: Path,
    models: Path,
    start: np.datetime64,
    end: np.datetime64,
    version: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Forecast every slot of [start, end) with nothing after it known, verify as slots come in, and sum up.

    Raises InputError where there is no model or no flow in the period.
    """
    city.check_period(start, end)
    model = load_model(Registry(models / city.name, city), version)
    forecaster = model.forecaster(pick_device(device))
    flows = read_flows(data, city, start - WEEK - HISTORY * city.slot, end)
    forecasts = forecast_store(data, city, model.version)
    slots = int(np.ceil((end - city.slot_start(start)) / city.slot))
    init_times = city.slot_start(start) + city.slot * np.arange(slots)
    skipped = scored = 0
    for now in track(init_times, f"replaying {city.name}", len(init_times)):
        known = flows.isel(time=flows["time"].values < now)
        try:
            publish_forecast(city, data, model, forecaster, known, now)
        except InputError as reason:
            skipped += 1
            log.info("no forecast: %s", reason)
        recent = forecasts.read(now - HORIZON * city.slot, now)
        if recent is not None:
            scored += verify_due(city, data, model, recent, known).scored
    if skipped == len(init_times):
        raise InputError(
            f"no slot from {city.isoformat(start)} to {city.isoformat(end)} has the {HISTORY} observed slots before "
            "it that a forecast needs"
        )
    last = forecasts.read(init_times[0], end)
    if last is not None:
        scored += verify_due(city, data, model, last, flows).scored
    return {
        "city": city.name,
        "model": model.version,
        "start": city.isoformat(start),
        "end": city.isoformat(end),
        "forecasts": len(init_times) - skipped,
        "skipped": skipped,
        "verified": scored,
        "rmse": _mean_rmse(score_store(data, city, model.version).read(start, end)),
    }


def _mean_rmse(scores: Any) -> dict[str, float]:
    """Each forecaster's RMSE over all verified forecasts and leads, vehicles per slot."""
    if scores is None:
        return {}
    squared = np.square(scores["rmse"]).mean(("init_time", "lead_time"))
    return {
        str(name): float(np.sqrt(value))
        for name, value in zip(squared["forecaster"].values, squared.values, strict=True)
    }
