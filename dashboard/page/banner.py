"""The warnings above the maps, and the ages of data and forecasts in words."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dashboard.page.labels import moment_label
from trafficcast.config.city import City
from trafficcast.config.service import Service
from trafficcast.stores.forecasts import BASELINE, DEGRADED
from trafficcast.stores.published import is_overdue

_MINUTE = np.timedelta64(1, "m")
_HOUR, _DAY = 60 * _MINUTE, 1440 * _MINUTE


def warnings(city: City, settings: Service, forecast: xr.Dataset, now: np.datetime64) -> list[str]:
    """List what an operator must know about the newest forecast.

    Parameters
    ----------
    city
        The city.
    settings
        The service's settings, which say how long data are waited for.
    forecast
        The newest published forecast, with init_time as a dimension of length 1 (see `forecast_dataset`).
    now
        The present time, naive UTC.

    Returns
    -------
    list[str]
        A sentence for each warning; none for a complete forecast in time.
    """
    found = []
    init_time = forecast["init_time"].values[0]
    if is_overdue(city, settings, init_time, now):
        found.append(
            f"The forecast is late: the newest starts at {moment_label(city, init_time)}, {age(now - init_time)} ago."
        )
    state, reason = str(forecast["state"].values[0]), str(forecast["reason"].values[0])
    if state == BASELINE:
        found.append(
            f"This forecast was made by the baseline {forecast['forecaster'].values[0]}, not by the model: {reason}."
        )
    elif state == DEGRADED:
        found.append(f"This forecast is degraded: {reason}.")
    if bool(forecast["hindcast"].values[0]):
        found.append("This forecast was made after its time, from the data known at its time.")
    return found


def age(span: np.timedelta64) -> str:
    """Write an age in words, such as '12 min', '3 h' or '9 days'; what has yet to happen by another clock is 0 min old.

    Parameters
    ----------
    span
        The age.

    Returns
    -------
    str
        Whole minutes below two hours, whole hours below two days, whole days from then on.
    """
    if span < 2 * _HOUR:
        return f"{max(int(span / _MINUTE), 0)} min"
    return f"{int(span / _HOUR)} h" if span < 2 * _DAY else f"{int(span / _DAY):,} days"
