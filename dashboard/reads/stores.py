"""Cached reads of flows, forecasts, scores and climatologies."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from dashboard.page import clock
from dashboard.page.unreadable import readable
from dashboard.reads.cached import cached
from dashboard.reads.stamps import _Stamp, file_stamp, newest_stamp, stamp
from trafficcast.config.city import City
from trafficcast.errors import DamagedFile, InputError
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology, read_climatology
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import last_observed
from trafficcast.stores.published import latest_forecast, published

Forecasts = list[tuple[str, xr.Dataset]]


def forecast_stamp(stores: CityStores) -> tuple[tuple[str, _Stamp], ...]:
    """Return a value that changes when a new forecast is published or another model becomes champion.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    tuple[tuple[str, _Stamp], ...]
        Each champion's version and the stamp of its newest forecasts, the newest champion first.
    """
    return tuple((version, newest_stamp(stores.forecasts(version))) for version in stores.registry.champions())


def _forecast_stamp_between(stores: CityStores, start: np.datetime64, end: np.datetime64) -> list[tuple[str, _Stamp]]:
    return [(version, stamp(stores.forecasts(version), start, end)) for version in stores.registry.champions()]


@cached(stamp=lambda stores: (forecast_stamp(stores), running_slot(stores.city)), entries=16)
def _newest_forecast(stores: CityStores) -> tuple[tuple[str, xr.Dataset] | None, list[DamagedFile]]:
    damaged: list[DamagedFile] = []
    return latest_forecast(stores, clock.present(), damaged), damaged


def newest_forecast(stores: CityStores) -> tuple[str, xr.Dataset] | None:
    """Read the newest published forecast that does not lie ahead of the clock.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    tuple[str, xr.Dataset] | None
        The model's version and the forecast (see `latest_forecast`); None where none is published.
    """
    return readable(_newest_forecast(stores))


@cached(stamp=_forecast_stamp_between, entries=8)
def _forecasts_between(
    stores: CityStores, start: np.datetime64, end: np.datetime64
) -> tuple[Forecasts, list[DamagedFile]]:
    damaged: list[DamagedFile] = []
    return published(stores, start, end, damaged), damaged


def forecasts_between(stores: CityStores, start: np.datetime64, end: np.datetime64) -> Forecasts:
    """Read the published forecasts of a period.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        Start of the period of init times, naive UTC, inclusive.
    end
        End of the period of init times, naive UTC, exclusive.

    Returns
    -------
    Forecasts
        The forecasts by model version (see `published`).
    """
    return readable(_forecasts_between(stores, start, end))


def running_slot(city: City) -> np.datetime64:
    """Return the slot that runs now.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    np.datetime64
        The slot's start, naive UTC.
    """
    return city.slot_start(clock.present())


def known_days(city: City, stores: Iterable[DayStore]) -> np.ndarray:
    """Find the days that any of a city's stores has a file of, up to today; later ones are of a wrong clock.

    Parameters
    ----------
    city
        The city.
    stores
        The stores.

    Returns
    -------
    np.ndarray
        Local days in order, (day), datetime64[D].
    """
    today = city.local_days(np.array([clock.present()]))[0]
    return np.array(sorted({day for store in stores for day in store.days() if day <= today}), "datetime64[D]")


def closed(city: City, flows: xr.Dataset) -> xr.Dataset:
    """Call observed only what has ended: a slot that runs now, or lies ahead by a wrong clock, is not observed yet.

    Parameters
    ----------
    city
        The city.
    flows
        Flows, or their slots alone (see `flows_dataset`).

    Returns
    -------
    xr.Dataset
        The same with `observed` false for the slots that have not ended.
    """
    ended = flows["time"].values + city.slot <= clock.present()
    return flows.assign(observed=("time", flows["observed"].values & ended))


@cached(stamp=lambda stores, start, end: stamp(stores.flows, start, end), entries=32)
def _stored_flows(
    stores: CityStores, start: np.datetime64, end: np.datetime64
) -> tuple[xr.Dataset | None, list[DamagedFile]]:
    damaged: list[DamagedFile] = []
    return stores.flows.read(start, end, damaged=damaged), damaged


def flows_between(stores: CityStores, start: np.datetime64, end: np.datetime64) -> xr.Dataset | None:
    """Read the flows of a period; of them only slots that have ended count as observed (see `closed`).

    Parameters
    ----------
    stores
        The city and its stores.
    start
        Start of the period, naive UTC, inclusive.
    end
        End of the period, naive UTC, exclusive.

    Returns
    -------
    xr.Dataset | None
        The flows (see `flows_dataset`); None where there are none.
    """
    flows = readable(_stored_flows(stores, start, end))
    return None if flows is None else closed(stores.city, flows)


@cached(stamp=lambda stores: (file_stamp(stores.flows.root), running_slot(stores.city)), entries=16)
def _newest_observed(stores: CityStores) -> tuple[np.datetime64 | None, list[DamagedFile]]:
    damaged: list[DamagedFile] = []
    return last_observed(stores.flows, clock.present(), damaged), damaged


def newest_observed(stores: CityStores) -> np.datetime64 | None:
    """Find the newest observed slot.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    np.datetime64 | None
        The slot's start, naive UTC; None where no slot was observed.
    """
    return readable(_newest_observed(stores))


@cached(
    stamp=lambda stores, version, start, end: stamp(stores.scores(version), start, end),
    entries=8,
    spinner="Reading scores",
)
def _scores_between(
    stores: CityStores, version: str, start: np.datetime64 | None, end: np.datetime64
) -> tuple[xr.Dataset | None, list[DamagedFile]]:
    damaged: list[DamagedFile] = []
    return stores.scores(version).read(start, end, damaged=damaged), damaged


def scores_between(
    stores: CityStores, version: str, start: np.datetime64 | None, end: np.datetime64
) -> xr.Dataset | None:
    """Read the scores of a model's forecasts of a period.

    Parameters
    ----------
    stores
        The city and its stores.
    version
        The model's version.
    start
        Start of the period of init times, naive UTC, inclusive; None is the first stored one.
    end
        End of the period of init times, naive UTC, exclusive.

    Returns
    -------
    xr.Dataset | None
        The scores (see `score_dataset`); None where there are none.
    """
    return readable(_scores_between(stores, version, start, end))


@cached(stamp=lambda stores, version: None, entries=16)  # a model's files never change
def climatology_of(stores: CityStores, version: str) -> WeekdayClimatology | Climatology:
    """Read the climatology of a model.

    Parameters
    ----------
    stores
        The city and its stores.
    version
        The model's version.

    Returns
    -------
    WeekdayClimatology | Climatology
        The climatology, which the pages call typical flows.
    """
    return read_climatology(stores.registry, version)


def champion_climatology(stores: CityStores) -> WeekdayClimatology | Climatology | None:
    """Read the climatology of the champion.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    WeekdayClimatology | Climatology | None
        The climatology; None where there is no champion, and where its folder cannot be read.
    """
    version = stores.registry.champion()
    try:
        return None if version is None else climatology_of(stores, version)
    except InputError:  # the page Models says what is wrong; the maps go on without
        return None
