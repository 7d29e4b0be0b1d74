"""Past days: the stored days, their slots, and the forecasts made during a day."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.page.labels import moment_labels
from trafficcast.config.city import City

_MINUTE = np.timedelta64(1, "m")


def _day_slots(city: City, day: np.datetime64) -> np.ndarray:
    """The slots of a local day, fewer or more where clocks change: starts, naive UTC."""
    return (city.slots_of_day(day) * city.slot_us).astype("datetime64[us]")


def _same_clock(city: City, day: np.datetime64, slot: np.datetime64) -> np.datetime64:
    """The slot of a local day at the clock time of another day's slot; where clocks skip it, the nearest."""
    slots = _day_slots(city, day)
    apart = np.abs(city.slot_of_day(slots) - city.slot_of_day(np.array([slot])))
    found: np.datetime64 = slots[np.argmin(apart)]
    return found


def _neighbours(days: np.ndarray, day: np.datetime64) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    """The last of the days before a day and the first one after it."""
    before, after = days[days < day], days[days > day]
    return (before[-1] if len(before) else None), (after[0] if len(after) else None)


def _forecast_table(
    city: City, forecasts: list[tuple[str, xr.Dataset]], scores: dict[str, xr.Dataset | None], slots: np.ndarray
) -> pd.DataFrame:
    """A row for each forecast that starts in one of the slots, by init time.

    `scores` are those of each model's forecasts (see `score_dataset`). Columns: start (of the first slot forecast),
    model, made by, state, reason, hindcast, made, and the RMSE at each lead, vehicles per slot; not a number
    where a slot has not been verified.
    """
    parts = []
    for version, dataset in forecasts:
        own = dataset.isel(init_time=np.isin(dataset["init_time"].values, slots))
        times = own["init_time"].values
        parts.append(
            pd.DataFrame(
                {
                    "init time": times,
                    "start": [f"{local:%H:%M %Z}" for local in city.local(times)],
                    "model": version,
                    "made by": own["forecaster"].values.astype(str),
                    "state": own["state"].values.astype(str),
                    "reason": own["reason"].values.astype(str),
                    "hindcast": own["hindcast"].values.astype(bool),
                    "made": moment_labels(city, own["created"].values),
                    **_rmse(version, own, scores.get(version)),
                }
            )
        )
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["init time"])
    return whole.sort_values("init time").drop(columns="init time").reset_index(drop=True)


def _rmse(version: str, forecasts: xr.Dataset, scores: xr.Dataset | None) -> dict[str, np.ndarray]:
    """RMSE +lead -> (init time), vehicles per slot."""
    leads = forecasts["lead_time"].values
    shape = (len(forecasts["init_time"]), len(leads))
    if scores is None or version not in scores["forecaster"].values:
        own = np.full(shape, np.nan)
    else:
        times = forecasts["init_time"].values
        own = scores["rmse"].sel(forecaster=version).reindex(init_time=times, lead_time=leads).values
    return {f"RMSE +{int(lead / _MINUTE)} min": own[:, i] for i, lead in enumerate(leads)}
