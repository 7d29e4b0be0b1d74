"""What pages read from the stores, kept as long as the files stay the same; shared by all sessions, changed by none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st
import xarray as xr

from dashboard.reads.stamps import DAY, Stamp, _folder_stamp, newest_stamp, stamp
from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.errors import InputError
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology, read_climatology
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import last_observed
from trafficcast.stores.published import latest_forecast, published
from trafficcast.stores.registry import Registry
from trafficcast.stores.scores import ScoreDay, as_datasets, joined, read_score_day

Forecasts = list[tuple[str, xr.Dataset]]


def registry_of(config: Config, city: City) -> Registry:
    """The city's models."""
    return Registry(config.paths.models / city.name, city)


def forecast_stamp(config: Config, city: City) -> tuple[tuple[str, Stamp], ...]:
    """Changes when a new forecast is published, or the champion is another one."""
    return tuple((version, newest_stamp(store)) for version, store in _forecast_stores(config, city))


def newest_forecast(config: Config, city: City) -> tuple[str, xr.Dataset] | None:
    """The newest published forecast and its model's version (see `latest_forecast`)."""
    return _newest(f"{config.paths.data} {city}", forecast_stamp(config, city), config.paths.data, config, city)


def forecasts_between(config: Config, city: City, start: np.datetime64, end: np.datetime64) -> Forecasts:
    """Published forecasts with init times in [start, end) (see `published`)."""
    stamps = tuple((version, stamp(store, start, end)) for version, store in _forecast_stores(config, city))
    return _published(f"{config.paths.data} {city}", stamps, str(start), str(end), config, city)


def flows_between(config: Config, city: City, start: np.datetime64, end: np.datetime64) -> xr.Dataset | None:
    """The flows of the slots in [start, end)."""
    store = CityStores.of(config, city).flows
    return _flows(identity(store), stamp(store, start, end), str(start), str(end), store)


def newest_observed(config: Config, city: City) -> np.datetime64 | None:
    """The newest observed slot's start."""
    store = CityStores.of(config, city).flows
    return _observed(identity(store), _folder_stamp(store), store)


def scores_between(
    config: Config, city: City, version: str, start: np.datetime64 | None, end: np.datetime64
) -> xr.Dataset | None:
    """A model's scores with init times in [start, end), from the first one without `start`."""
    store = CityStores.of(config, city).scores(version)
    first = "" if start is None else str(city.local_days(np.array([start]))[0] - DAY)
    days = tuple((name, changed) for name, changed in stamp(store) if name >= first)
    return _scores(identity(store), days, str(start or ""), str(end), store)


def typical_of(config: Config, city: City) -> WeekdayClimatology | Climatology | None:
    """What the champion takes for typical; None without one, and where its folder cannot be read."""
    registry = registry_of(config, city)
    version = registry.champion()
    try:
        return None if version is None else cached_typical(f"{registry.root} {city}", version, registry)
    except InputError:  # the Models page says what is wrong; the maps go on without
        return None


def identity(store: DayStore) -> str:
    """What tells one store from another in a cache: its folder and its city's grid."""
    return f"{store.root} {store.city}"


def _forecast_stores(config: Config, city: City) -> list[tuple[str, DayStore]]:
    """Each champion's version and forecasts, the newest champion first."""
    versions = registry_of(config, city).champions()
    return [(version, CityStores.of(config, city).forecasts(version)) for version in versions]


@st.cache_resource(max_entries=16, show_spinner=False)
def _newest(
    identity: str, stamps: tuple[tuple[str, Stamp], ...], _data: Path, _config: Config, _city: City
) -> tuple[str, xr.Dataset] | None:
    return latest_forecast(CityStores.of(_config, _city))


@st.cache_resource(max_entries=8, show_spinner=False)
def _published(
    identity: str, stamps: tuple[tuple[str, Stamp], ...], start: str, end: str, _config: Config, _city: City
) -> Forecasts:
    return published(CityStores.of(_config, _city), np.datetime64(start), np.datetime64(end))


@st.cache_resource(max_entries=32, show_spinner=False)
def _flows(identity: str, stamp: Stamp, start: str, end: str, _store: DayStore) -> xr.Dataset | None:
    return _store.read(np.datetime64(start), np.datetime64(end))


@st.cache_resource(max_entries=8, show_spinner="Reading scores")
def _scores(identity: str, days: Stamp, start: str, end: str, _store: DayStore) -> xr.Dataset | None:
    parts = [_score_day(identity, name, changed, _store) for name, changed in days]
    known = as_datasets(part for part in parts if part is not None)
    return joined(known, np.datetime64(start or "NaT"), np.datetime64(end))


# Of a year of days only the newest one changes.
@st.cache_resource(max_entries=1000, show_spinner=False)
def _score_day(identity: str, name: str, changed: int, _store: DayStore) -> ScoreDay | None:
    return read_score_day(_store, np.datetime64(name.removesuffix(".nc"), "D"))


@st.cache_resource(max_entries=16, show_spinner=False)
def _observed(identity: str, changed: int, _store: DayStore) -> np.datetime64 | None:
    return last_observed(_store)


@st.cache_resource(max_entries=16, show_spinner=False)
def cached_typical(identity: str, version: str, _registry: Registry) -> WeekdayClimatology | Climatology:
    return read_climatology(_registry, version)
