"""Cached reads of the pages Skill and Models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.reads.stamps import DAY, Stamp, file_state, newest_stamp, stamp
from dashboard.reads.stores import cached_typical, identity, registry_of
from dashboard.skill.cards import _read_curve, _read_text
from dashboard.skill.error_map import _CellErrors, _errors_by_cell, _together
from trafficcast.config.city import HORIZON, City
from trafficcast.config.settings import Config
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore, last_stored
from trafficcast.stores.registry import Registry


def _newest_score(config: Config, city: City, version: str) -> np.datetime64 | None:
    """The newest init time of a model's scores; None without any."""
    store = CityStores.of(config, city).scores(version)
    return _newest_time(identity(store), newest_stamp(store), store)


def _cell_errors_between(
    config: Config, city: City, version: str, start: np.datetime64, end: np.datetime64
) -> _CellErrors | None:
    """The errors, cell by cell, of a model's forecasts with init times in [start, end); None without an observed slot.

    What is typical is the model's own word.
    """
    forecasts, flows = CityStores.of(config, city).forecasts(version), CityStores.of(config, city).flows
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
    return _together([part for part in parts if part is not None])


def _registry_stamp(registry: Registry) -> tuple[tuple[str, int], ...]:
    """Changes when a model is trained or removed, its card is another one, or another version is champion."""
    files = [registry.root / "champion", *(registry.root / version / "card.json" for version in registry.versions())]
    return tuple(file_state(file) for file in files)


def _card_of(registry: Registry, version: str) -> dict[str, Any]:
    """A model's card. Raises InputError where it cannot be read."""
    return _card(*file_state(registry.root / version / "card.json"), version, registry)


def _card_text_of(registry: Registry, version: str) -> str | None:
    """A model's card as it was written for people; None where there is none."""
    return _text(*file_state(registry.root / version / "CARD.md"))


def _curve_of(registry: Registry, version: str) -> pd.DataFrame | None:
    """A model's training curve (see `read_curve`)."""
    return _curve(*file_state(registry.root / version / "curve.csv"))


# The newest time of every model that has scores: of 30 models a page asks each time.
@st.cache_resource(max_entries=256, show_spinner=False)
def _newest_time(identity: str, stamp: Stamp, _store: DayStore) -> np.datetime64 | None:
    return last_stored(_store)


@st.cache_resource(max_entries=64, show_spinner="Comparing forecasts with what came")
def _cell_errors(
    key: str,
    version: str,
    _start: np.datetime64,
    _end: np.datetime64,
    _forecasts: DayStore,
    _flows: DayStore,
    _registry: Registry,
) -> _CellErrors | None:
    made = _forecasts.read(_start, _end, ["flow"])
    flows = _flows.read(_start, _end + HORIZON * _flows.city.slot)
    if made is None or flows is None:
        return None
    try:
        typical = cached_typical(f"{_registry.root} {_registry.city}", version, _registry)
    except InputError:  # the errors of the model are to be seen without its typical flows as well
        typical = None
    return _errors_by_cell(made, flows, typical)


@st.cache_resource(max_entries=256, show_spinner=False)
def _card(file: str, changed: int, version: str, _registry: Registry) -> dict[str, Any]:
    return _registry.card(version)


@st.cache_resource(max_entries=16, show_spinner=False)
def _text(file: str, changed: int) -> str | None:
    return _read_text(Path(file))


@st.cache_resource(max_entries=32, show_spinner=False)
def _curve(file: str, changed: int) -> pd.DataFrame | None:
    return _read_curve(Path(file))
