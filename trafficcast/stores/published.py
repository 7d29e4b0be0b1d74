"""The published forecasts of a city: one series, whichever champion made each forecast."""

from __future__ import annotations

import numpy as np
import xarray as xr

from trafficcast.config.city import City
from trafficcast.config.service import Service
from trafficcast.errors import DamagedFile
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import last_stored

# After the wait for its data a forecast may take this long, which leaves time for a second attempt.
_GRACE = np.timedelta64(3, "m")


def published(
    stores: CityStores,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    damaged: list[DamagedFile] | None = None,
) -> list[tuple[str, xr.Dataset]]:
    """Read the published forecasts of a period, champion by champion.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        First init time, naive UTC, inclusive; None is the first stored forecast.
    end
        Last init time, naive UTC, exclusive; None is after the last stored forecast.
    damaged
        A list to which damaged files are added, whose days are then left out; with None the first one is raised.

    Returns
    -------
    list[tuple[str, xr.Dataset]]
        Each champion's version and forecasts (see `forecast_dataset`), the newest champion first. A forecast of an
        init time that a newer champion forecast as well is left out.

    Raises
    ------
    InputError
        A day's file is damaged.
    """
    found: list[tuple[str, xr.Dataset]] = []
    taken = np.empty(0, "datetime64[us]")
    for version in stores.registry.champions():
        forecasts = stores.forecasts(version).read(start, end, damaged=damaged)
        if forecasts is not None:
            times = forecasts["init_time"].values
            new = ~np.isin(times, taken)
            taken = np.concatenate([taken, times])
            if new.any():
                found.append((version, forecasts.isel(init_time=new)))
    return found


def latest_forecast(
    stores: CityStores, now: np.datetime64 | None = None, damaged: list[DamagedFile] | None = None
) -> tuple[str, xr.Dataset] | None:
    """Read the published forecast with the newest init time.

    Parameters
    ----------
    stores
        The city and its stores.
    now
        Forecasts with a later init time are left out, naive UTC; None leaves out none.
    damaged
        A list to which damaged files are added, which are then left out; with None the first one is raised.

    Returns
    -------
    tuple[str, xr.Dataset] | None
        The version of the champion and its forecast, with init_time as a dimension of length 1 (see
        `forecast_dataset`); None if no forecast was published.

    Raises
    ------
    InputError
        A day's file is damaged.
    """
    newest: tuple[np.datetime64, str] | None = None
    for version in reversed(stores.registry.champions()):
        last = last_stored(stores.forecasts(version), now, damaged)
        if last is not None and (newest is None or last >= newest[0]):
            newest = last, version
    if newest is None:
        return None
    init_time, version = newest
    forecast = stores.forecasts(version).read(init_time, init_time + stores.city.slot, damaged=damaged)
    return None if forecast is None else (version, forecast)


def is_overdue(city: City, settings: Service, newest: np.datetime64 | None, now: np.datetime64) -> bool:
    """Whether a forecast is overdue: the wait for its data ended three minutes ago, and it is not published.

    Parameters
    ----------
    city
        The city.
    settings
        The service's settings, which say how long data are waited for.
    newest
        Init time of the newest published forecast, naive UTC; None if no forecast was published.
    now
        The present time, naive UTC.

    Returns
    -------
    bool
        Whether the forecast that should be published by now is not.
    """
    return newest is None or bool(newest < city.slot_start(now - settings.wait(city.slot_minutes) - _GRACE))
