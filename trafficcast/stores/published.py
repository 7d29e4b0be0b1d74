"""What was published for a city: one series of forecasts, whichever champion made each."""

from __future__ import annotations

import numpy as np
import xarray as xr

from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import last_stored


def published(
    stores: CityStores, start: np.datetime64 | None = None, end: np.datetime64 | None = None
) -> list[tuple[str, xr.Dataset]]:
    """Each champion's version and forecasts (see `forecast_dataset`) with init times in [start, end), newest first.

    A slot forecast by several of them counts for the newest champion alone. Raises InputError for a damaged file.
    """
    found: list[tuple[str, xr.Dataset]] = []
    taken = np.empty(0, "datetime64[us]")
    for version in stores.registry.champions():
        forecasts = stores.forecasts(version).read(start, end)
        if forecasts is not None:
            times = forecasts["init_time"].values
            new = ~np.isin(times, taken)
            taken = np.concatenate([taken, times])
            if new.any():
                found.append((version, forecasts.isel(init_time=new)))
    return found


def latest_forecast(stores: CityStores) -> tuple[str, xr.Dataset] | None:
    """The version and the forecast with the newest init time (one, its dimension kept); None without any."""
    newest: tuple[np.datetime64, str] | None = None
    for version in reversed(stores.registry.champions()):
        last = last_stored(stores.forecasts(version))
        if last is not None and (newest is None or last >= newest[0]):
            newest = last, version
    if newest is None:
        return None
    init_time, version = newest
    made = stores.forecasts(version).read(init_time, init_time + stores.city.slot)
    return None if made is None else (version, made)
