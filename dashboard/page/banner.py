"""What stands above the maps when not all is well, and how old what is shown is."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dashboard.page.labels import moment_label
from trafficcast.config.city import City
from trafficcast.config.service import Service
from trafficcast.stores.forecasts import BASELINE, DEGRADED

_MINUTE = np.timedelta64(1, "m")
_HOUR, _DAY = 60 * _MINUTE, 1440 * _MINUTE
# A forecast may take this long after the wait for its data.
_GRACE = 3 * _MINUTE


def warnings(city: City, settings: Service, forecast: xr.Dataset, now: np.datetime64) -> list[str]:
    """Sentences about the newest forecast, the only init time of `forecast`, that an operator must know."""
    told = []
    init_time = forecast["init_time"].values[0]
    if _late_by(city, settings, init_time, now) > np.timedelta64(0):
        told.append(
            f"The forecast is late: the newest starts at {moment_label(city, init_time)}, {age(now - init_time)} ago."
        )
    state, reason = str(forecast["state"].values[0]), str(forecast["reason"].values[0])
    if state == BASELINE:
        told.append(f"This forecast is the baseline {forecast['forecaster'].values[0]}'s, not the model's: {reason}.")
    elif state == DEGRADED:
        told.append(f"This forecast is degraded: {reason}.")
    if bool(forecast["hindcast"].values[0]):
        told.append("This forecast was made afterwards, from the data of its time.")
    return told


def _late_by(city: City, settings: Service, init_time: np.datetime64, now: np.datetime64) -> np.timedelta64:
    """How long the next forecast has been missing; below 0 while it is not due."""
    return now - (init_time + city.slot + settings.wait(city.slot_minutes) + _GRACE)


def age(span: np.timedelta64) -> str:
    """'12 min', '3 h', '9 days': as people say it."""
    if span < 2 * _HOUR:
        return f"{int(span / _MINUTE)} min"
    return f"{int(span / _HOUR)} h" if span < 2 * _DAY else f"{int(span / _DAY):,} days"
