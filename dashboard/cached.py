"""What pages read from the stores, kept as long as the files stay the same; shared by all sessions, changed by none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
import xarray as xr

from dashboard.cells import cell_places
from dashboard.colours import flow_limit
from dashboard.model_cards import read_curve, read_text
from dashboard.reads import Stamp, folder_stamp, newest_stamp, sample_flows, stamp
from dashboard.score_files import ScoreDay, as_datasets, read_score_day
from dashboard.skill_map import CellErrors, cell_errors, together
from dashboard.skill_tables import DAY, joined
from dashboard.slots import Slots, read_slots
from trafficcast.areas import Area, city_areas
from trafficcast.baselines import Climatology
from trafficcast.city import City
from trafficcast.config import Config
from trafficcast.density import png_uri, point_counts, shade_levels
from trafficcast.errors import InputError, JobError
from trafficcast.normal import Normal
from trafficcast.published import latest_forecast, published
from trafficcast.record_store import RecordStore, State
from trafficcast.registry import Registry
from trafficcast.stores import DayStore, flow_store, forecast_store, last_observed, last_stored, score_store
from trafficcast.typical import read_typical
from trafficcast.windows import HORIZON

# Days read to find where the colour scale ends: two weeks of them say what a city's flows are.
SCALE_DAYS = 14
# From so many days on the scale is found anew with every day only, so that it does not move while one looks.
SCALE_SETTLED = 7
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
    store = flow_store(config.paths.data, city)
    return _flows(identity(store), stamp(store, start, end), str(start), str(end), store)


def newest_observed(config: Config, city: City) -> np.datetime64 | None:
    """The newest observed slot's start."""
    store = flow_store(config.paths.data, city)
    return _observed(identity(store), folder_stamp(store), store)


def newest_score(config: Config, city: City, version: str) -> np.datetime64 | None:
    """The newest init time of a model's scores; None without any."""
    store = score_store(config.paths.data, city, version)
    return _newest_time(identity(store), newest_stamp(store), store)


def scores_between(
    config: Config, city: City, version: str, start: np.datetime64 | None, end: np.datetime64
) -> xr.Dataset | None:
    """A model's scores with init times in [start, end), from the first one without `start`."""
    store = score_store(config.paths.data, city, version)
    first = "" if start is None else str(city.local_days(np.array([start]))[0] - DAY)
    days = tuple((name, changed) for name, changed in stamp(store) if name >= first)
    return _scores(identity(store), days, str(start or ""), str(end), store)


def cell_errors_between(
    config: Config, city: City, version: str, start: np.datetime64, end: np.datetime64
) -> CellErrors | None:
    """The errors, cell by cell, of a model's forecasts with init times in [start, end); None without an observed slot.

    What is typical is the model's own word.
    """
    forecasts, flows = forecast_store(config.paths.data, city, version), flow_store(config.paths.data, city)
    made, seen = dict(stamp(forecasts)), dict(stamp(flows))
    first, last = city.local_days(np.array([start, end]))
    parts = []
    for day in (day for day in forecasts.days() if first <= day <= last):
        since, until = max(start, city.midnight(day)), min(end, city.midnight(day + DAY))
        if since < until:
            # The slots forecast lie on the init time's day and the next one.
            stamps = [made.get(f"{day}.nc"), *(seen.get(f"{day + ahead * DAY}.nc") for ahead in (-1, 0, 1))]
            key = f"{identity(forecasts)} {stamps} {since} {until}"
            parts.append(_cell_errors(key, version, since, until, forecasts, flows, registry_of(config, city)))
    return together([part for part in parts if part is not None])


def registry_stamp(registry: Registry) -> tuple[tuple[str, int], ...]:
    """Changes when a model is trained or removed, its card is another one, or another version is champion."""
    files = [registry.root / "champion", *(registry.root / version / "card.json" for version in registry.versions())]
    return tuple(_file_state(file) for file in files)


def card_of(registry: Registry, version: str) -> dict[str, Any]:
    """A model's card. Raises InputError where it cannot be read."""
    return _card(*_file_state(registry.root / version / "card.json"), version, registry)


def card_text_of(registry: Registry, version: str) -> str | None:
    """A model's card as it was written for people; None where there is none."""
    return _text(*_file_state(registry.root / version / "CARD.md"))


def curve_of(registry: Registry, version: str) -> pd.DataFrame | None:
    """A model's training curve (see `read_curve`)."""
    return _curve(*_file_state(registry.root / version / "curve.csv"))


def colour_limit(config: Config, city: City) -> float:
    """Where the colour scale of a city's flows ends, vehicles per slot: the same for every slot of a day."""
    store = flow_store(config.paths.data, city)
    days = tuple(str(day) for day in store.days())
    return _limit(identity(store), str(days) if len(days) >= SCALE_SETTLED else str(stamp(store)), store)


def typical_of(config: Config, city: City) -> Normal | Climatology | None:
    """What the champion takes for typical; None without one, and where its folder cannot be read."""
    registry = registry_of(config, city)
    version = registry.champion()
    try:
        return None if version is None else _typical(f"{registry.root} {city}", version, registry)
    except InputError:  # the Models page says what is wrong; the maps go on without
        return None


def areas_of(city: City) -> dict[str, Area]:
    """The city's named areas. Raises InputError where their file cannot be read."""
    return _areas(str(city), _changed(city.areas), city)


def _changed(file: Path | None) -> int:
    return 0 if file is None else _file_state(file)[1]


def places_of(city: City) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """The outlines of the city's areas, GeoJSON geometries, and what each cell is called (see `cell_places`).

    Maps go on without areas where their file cannot be read; hot spots and alerts say what is wrong with it.
    """
    return _places(str(city), _changed(city.areas), city)


def street_picture(config: Config, city: City) -> str | None:
    """The picture of where vehicles report, as a data URI; None without records, and where a tile server is used.

    A page keeps the one it started with: with another picture the map would lose zoom and position.
    """
    if config.map.tiles_url:
        return None
    key = f"street picture {city.name}"
    if not st.session_state.get(key):
        try:
            st.session_state[key] = record_picture(config, city)
        except (InputError, JobError):  # an ingest is writing what was to be read: the next run draws them
            return None
    picture: str | None = st.session_state.get(key)
    return picture


def record_picture(config: Config, city: City) -> str | None:
    """The picture of where vehicles report, as a data URI; None without records. Raises InputError and JobError."""
    changed = records_stamp(config, city)
    if changed is None:
        return None
    store = RecordStore(config.paths.data / city.name / "records", read_only=True)
    state = _state(str(store.root), changed, store)
    newest_day = max(state.hours, default=0) // 24
    return _density(f"{store.root} {city}", newest_day, store, state, city)


def slots_between(config: Config, city: City, first: np.datetime64, last: np.datetime64) -> Slots:
    """What is known of the slots of the local days from the first to the last (see `read_slots`)."""
    store = flow_store(config.paths.data, city)
    days = tuple(day for day in store.days() if first <= day <= last)
    names = {f"{day}.nc" for day in days}
    state = tuple(entry for entry in stamp(store) if entry[0] in names)
    return _slots(identity(store), state, str(first), str(last), store, days)


def records_stamp(config: Config, city: City) -> int | None:
    """Changes with every ingest; None where nothing was ever ingested."""
    try:
        return (config.paths.data / city.name / "records" / "state.sqlite").stat().st_mtime_ns
    except OSError:
        return None


def records_of_slots(config: Config, city: City) -> pd.Series | None:
    """Records of each slot, by its number since 1970; None without records. Raises InputError and JobError."""
    changed = records_stamp(config, city)
    store = RecordStore(config.paths.data / city.name / "records", read_only=True)
    return None if changed is None else _records(f"{store.root} {city}", changed, store)


def identity(store: DayStore) -> str:
    """What tells one store from another in a cache: its folder and its city's grid."""
    return f"{store.root} {store.city}"


def _forecast_stores(config: Config, city: City) -> list[tuple[str, DayStore]]:
    """Each champion's version and forecasts, the newest champion first."""
    versions = registry_of(config, city).champions()
    return [(version, forecast_store(config.paths.data, city, version)) for version in versions]


@st.cache_resource(max_entries=16, show_spinner=False)
def _newest(
    identity: str, stamps: tuple[tuple[str, Stamp], ...], _data: Path, _config: Config, _city: City
) -> tuple[str, xr.Dataset] | None:
    return latest_forecast(_data, registry_of(_config, _city))


@st.cache_resource(max_entries=8, show_spinner=False)
def _published(
    identity: str, stamps: tuple[tuple[str, Stamp], ...], start: str, end: str, _config: Config, _city: City
) -> Forecasts:
    return published(_config.paths.data, registry_of(_config, _city), np.datetime64(start), np.datetime64(end))


@st.cache_resource(max_entries=32, show_spinner=False)
def _flows(identity: str, stamp: Stamp, start: str, end: str, _store: DayStore) -> xr.Dataset | None:
    return _store.read(np.datetime64(start), np.datetime64(end))


# The newest time of every model that has scores: of 30 models a page asks each time.
@st.cache_resource(max_entries=256, show_spinner=False)
def _newest_time(identity: str, stamp: Stamp, _store: DayStore) -> np.datetime64 | None:
    return last_stored(_store)


@st.cache_resource(max_entries=8, show_spinner="Reading scores")
def _scores(identity: str, days: Stamp, start: str, end: str, _store: DayStore) -> xr.Dataset | None:
    parts = [_score_day(identity, name, changed, _store) for name, changed in days]
    known = as_datasets(part for part in parts if part is not None)
    return joined(known, np.datetime64(start or "NaT"), np.datetime64(end))


# Of a year of days only the newest one changes.
@st.cache_resource(max_entries=1000, show_spinner=False)
def _score_day(identity: str, name: str, changed: int, _store: DayStore) -> ScoreDay | None:
    return read_score_day(_store, np.datetime64(name.removesuffix(".nc"), "D"))


@st.cache_resource(max_entries=64, show_spinner="Comparing forecasts with what came")
def _cell_errors(
    key: str,
    version: str,
    _start: np.datetime64,
    _end: np.datetime64,
    _forecasts: DayStore,
    _flows: DayStore,
    _registry: Registry,
) -> CellErrors | None:
    made = _forecasts.read(_start, _end, ["flow"])
    flows = _flows.read(_start, _end + HORIZON * _flows.city.slot)
    if made is None or flows is None:
        return None
    try:
        typical = _typical(f"{_registry.root} {_registry.city}", version, _registry)
    except InputError:  # the errors of the model are to be seen without its typical flows as well
        typical = None
    return cell_errors(made, flows, typical)


@st.cache_resource(max_entries=256, show_spinner=False)
def _card(file: str, changed: int, version: str, _registry: Registry) -> dict[str, Any]:
    return _registry.card(version)


@st.cache_resource(max_entries=16, show_spinner=False)
def _text(file: str, changed: int) -> str | None:
    return read_text(Path(file))


@st.cache_resource(max_entries=32, show_spinner=False)
def _curve(file: str, changed: int) -> pd.DataFrame | None:
    return read_curve(Path(file))


def _file_state(file: Path) -> tuple[str, int]:
    """A file's name and when it changed last, ns; 0 where it cannot be looked at."""
    try:
        return str(file), file.stat().st_mtime_ns
    except OSError:
        return str(file), 0


@st.cache_resource(max_entries=16, show_spinner=False)
def _observed(identity: str, changed: int, _store: DayStore) -> np.datetime64 | None:
    return last_observed(_store)


@st.cache_resource(max_entries=16, show_spinner="Reading flows")
def _limit(identity: str, state: str, _store: DayStore) -> float:
    return flow_limit(sample_flows(_store, SCALE_DAYS))


@st.cache_resource(max_entries=16, show_spinner=False)
def _typical(identity: str, version: str, _registry: Registry) -> Normal | Climatology:
    return read_typical(_registry, version)


@st.cache_resource(max_entries=16, show_spinner=False)
def _areas(identity: str, changed: int, _city: City) -> dict[str, Area]:
    return city_areas(_city)


@st.cache_resource(max_entries=16, show_spinner="Reading slots")
def _slots(
    identity: str, stamp: Stamp, first: str, last: str, _store: DayStore, _days: tuple[np.datetime64, ...]
) -> Slots:
    return read_slots(_store, _days)


@st.cache_resource(max_entries=4, show_spinner=False)
def _records(identity: str, changed: int, _store: RecordStore) -> pd.Series:
    facts = _store.slot_facts()
    return pd.Series(facts[:, 3], index=facts[:, 0])


@st.cache_resource(max_entries=2, show_spinner=False)
def _state(root: str, changed: int, _store: RecordStore) -> State:
    return _store.load()


@st.cache_resource(max_entries=4, show_spinner="Drawing the streets")
def _density(identity: str, newest_day: int, _store: RecordStore, _state: State, _city: City) -> str | None:
    counts = point_counts(_store, _state, _city)
    return png_uri(shade_levels(counts)) if counts.any() else None


@st.cache_resource(max_entries=16, show_spinner=False)
def _places(identity: str, changed: int, _city: City) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    try:
        areas = areas_of(_city)  # geopandas is slow: the file is read once for maps and hot spots
    except InputError:
        areas = {}
    return tuple(area.outline for area in areas.values()), cell_places(_city, areas)
