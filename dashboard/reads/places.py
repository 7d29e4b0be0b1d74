"""Cached reads of areas, cell names and pictures of where vehicles report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from dashboard.reads.stamps import file_state
from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.errors import InputError, JobError
from trafficcast.geography.areas import Area, city_areas
from trafficcast.ingestion.record_store import RecordStore, State
from trafficcast.quality.point_density import png_uri, point_counts, shade_levels


def areas_of(city: City) -> dict[str, Area]:
    """The city's named areas. Raises InputError where their file cannot be read."""
    return _areas(str(city), _changed(city.areas), city)


def _changed(file: Path | None) -> int:
    return 0 if file is None else file_state(file)[1]


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


def records_stamp(config: Config, city: City) -> int | None:
    """Changes with every ingest; None where nothing was ever ingested."""
    try:
        return (config.paths.data / city.name / "records" / "state.sqlite").stat().st_mtime_ns
    except OSError:
        return None


@st.cache_resource(max_entries=16, show_spinner=False)
def _areas(identity: str, changed: int, _city: City) -> dict[str, Area]:
    return city_areas(_city)


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
    return tuple(area.outline for area in areas.values()), _cell_places(_city, areas)


def _cell_places(city: City, areas: dict[str, Area]) -> list[str]:
    """What each cell is called, row after row: the area that covers most of it, its row and column."""
    places = [f"row {row}, column {col}" for row in range(city.rows) for col in range(city.cols)]
    if not areas:
        return places
    shares = np.stack([area.share.ravel() for area in areas.values()])
    names = list(areas)
    return [
        f"{names[most]}, {place}" if share > 0 else place
        for place, most, share in zip(places, shares.argmax(axis=0).tolist(), shares.max(axis=0).tolist(), strict=True)
    ]
