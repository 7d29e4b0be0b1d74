"""The page: choices on top, three maps side by side, and the chosen cell below them. It writes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import streamlit as st
import xarray as xr
from streamlit_folium import st_folium

from dashboard.base_map import base_map, cell_layer
from dashboard.cells import cell_at, cell_ring, cell_rings, feature_collection
from dashboard.colours import (
    difference_colours,
    difference_legend,
    difference_limit,
    flow_colours,
    flow_legend,
    flow_limit,
)
from dashboard.frames import WORDS, Frames, frames_at
from dashboard.labels import clock_label, day_label, lead_label, moment_label, plain
from dashboard.reads import Stamp, forecast_versions, sample_flows, stamp
from dashboard.series import CELL_WORDS, SPAN, cell_series, cell_table, series_chart
from trafficcast.city import FLOW_KINDS, City
from trafficcast.config import Config, load_config
from trafficcast.density import png_uri, point_counts, shade_levels
from trafficcast.errors import InputError
from trafficcast.record_store import RecordStore, State
from trafficcast.registry import Registry
from trafficcast.stores import DayStore, flow_store, forecast_store, last_observed

MAP_HEIGHT = 390
CHART_HEIGHT = 230
# Days read to find where the colour scale ends: a month of them says what a city's flows are.
SCALE_DAYS = 28
# From so many days on the scale is found anew with every day only, so that it does not move while one looks.
SCALE_SETTLED = 7
T = TypeVar("T")
CELL = "cell"
MAPS = ("predicted", "observed", "difference")
# The three maps, their legends and the choices are to fit a screen of 1280 x 720.
STYLE = """<style>
.stMainBlockContainer { padding: 1rem 2rem; }
.stMainBlockContainer h3 { padding: 0 0 1.3rem 0; }
.stAppHeader { background: transparent; pointer-events: none; }
.stMainBlockContainer [data-testid="stVerticalBlock"] { gap: 0.5rem; }
</style>"""


def main(arguments: list[str]) -> None:
    """Draw the page once, top to bottom."""
    st.set_page_config(page_title="Traffic forecast", layout="wide")
    st.html(STYLE)
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("config.toml"))
    parser.add_argument("--city")
    options = parser.parse_args(arguments)
    try:
        draw(load_config(options.config), options.city)
    except InputError as error:
        st.error(plain(str(error)))


def draw(config: Config, city_name: str | None) -> None:
    """The page of a configuration, `city_name` preselected. Raises InputError with what to do about it."""
    first = config.city(city_name).name
    title, *places = st.columns([2.2, 1.3, 1.5, 1.3, 1.1], vertical_alignment="bottom")
    title.markdown("### Traffic forecast")
    city = config.city(choose(places[0], "City", sorted(config.cities), first, str))
    flows = flow_store(config.paths.data, city)
    registry = Registry(config.paths.models / city.name, city)
    versions = forecast_versions(config.paths.data, city)
    missing = what_is_missing(city, bool(flows.days()), bool(registry.versions()), bool(versions))
    if missing:
        st.info(plain(missing))
        return

    champion = registry.champion()
    version = choose(
        places[1],
        "Model",
        versions,
        champion if champion in versions else versions[-1],
        lambda name: f"{name} (champion)" if name == champion else name,
    )
    forecasts = forecast_store(config.paths.data, city, version)
    days = [str(day) for day in reversed(forecasts.days())]
    day = choose(places[2], "Forecast from", days, days[0], lambda text: day_label(np.datetime64(text)))
    of_day = read_forecasts(identity(forecasts), stamp(forecasts), day, forecasts)
    inits = [str(time) for time in of_day["init_time"].values[::-1]]
    init = choose(places[3], "At", inits, inits[0], lambda text: clock_label(city, np.datetime64(text)))

    forecast = of_day.sel(init_time=np.datetime64(init))
    init_time = np.datetime64(init)
    line = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    kind = switch(line, "Flow", list(FLOW_KINDS), str.capitalize)
    leads = forecast["lead_time"].values
    slots = [lead_label(city, init_time, lead) for lead in leads]
    lead = switch(line, "Slot", list(range(len(leads))), lambda i: slots[i])
    observed = read_flows(identity(flows), stamp(flows), init, len(leads), flows)
    newest = newest_observed(identity(flows), stamp(flows), flows)
    shown = frames_at(forecast, observed, newest, lead, kind)

    line.text(WORDS[shown.status])
    draw_maps(config, city, flows, shown, kind)
    draw_cell(city, forecast, observed, newest, kind, init_time)


def what_is_missing(city: City, flows: bool, model: bool, forecast: bool) -> str | None:
    """The one sentence that says what to do before there is anything to show."""
    name = city.name
    if not flows:
        return f"No flows of {name} yet: run trafficcast ingest --city {name} with its GPS records."
    if not model and not forecast:
        return f"No model of {name} yet: run trafficcast train --city {name}."
    if not forecast:
        return (
            f"No forecast of {name} yet: run trafficcast forecast --city {name}, "
            "or trafficcast replay for slots gone by."
        )
    return None


def choose(place: Any, label: str, options: list[str], default: str, show: Callable[[str], str]) -> str:
    """A choice that stays while it can; one that stands on the default (the newest, say) follows it."""
    state, followed = st.session_state, f"{label} default"
    if state.get(label) not in options or state[label] == state.get(followed):
        state[label] = default
    state[followed] = default
    return str(place.selectbox(label, options, key=label, format_func=show))


def switch(place: Any, label: str, options: list[T], show: Callable[[T], str]) -> T:
    """One of a few, all in sight; the first one at first."""
    st.session_state.setdefault(label, options[0])
    chosen: T = place.segmented_control(
        label, options, key=label, required=True, format_func=show, label_visibility="collapsed"
    )
    return chosen


def draw_maps(config: Config, city: City, flows: DayStore, shown: Frames, kind: str) -> None:
    """Predicted, observed and difference with their totals and legends; a click chooses a cell."""
    days = tuple(str(day) for day in flows.days())
    limit = flow_scale(identity(flows), days if len(days) >= SCALE_SETTLED else stamp(flows), flows)
    diverging = difference_limit(limit)
    raster = street_picture(config, city)
    outlines = rings(str(city), city)
    chosen = chosen_cell(city)
    for name, place in zip(MAPS, st.columns(3), strict=True):
        with place:
            values, colours, digits = layer_of(name, shown, limit, diverging)
            st.markdown(f"**{name.capitalize()} {kind}** &ensp; {summary_of(name, shown)}")
            cells = None if values is None else feature_collection(outlines, values, colours, digits)
            st_folium(
                base_map(city, raster, config.map.tiles_url, config.map.tiles_attribution),
                key=f"{name} {city.name}",
                height=MAP_HEIGHT,
                use_container_width=True,
                returned_objects=["last_clicked"],
                feature_group_to_add=cell_layer(cells, cell_ring(city, *chosen) if chosen else None),
                on_change=partial(choose_cell, city, f"{name} {city.name}"),
            )
            st.html(difference_legend(diverging) if name == "difference" else flow_legend(limit))


def layer_of(name: str, shown: Frames, limit: float, diverging: float) -> tuple[np.ndarray | None, list[str], int]:
    """What a map shows: values (row, col) in vehicles per slot, their colours, and the decimals to print."""
    if name == "predicted":
        return shown.predicted, flow_colours(shown.predicted, limit), 1
    if name == "observed":
        return shown.observed, [] if shown.observed is None else flow_colours(shown.observed, limit), 0
    difference = shown.difference
    return difference, [] if difference is None else difference_colours(difference, diverging), 1


def summary_of(name: str, shown: Frames) -> str:
    """A map's sum over the city's cells in words, or that there is none; numbers and fixed words only."""
    if name == "predicted":
        return f"city total {shown.predicted.sum():,.0f}"
    if shown.observed is None or shown.difference is None:
        return CELL_WORDS[shown.status]
    if name == "observed":
        return f"city total {shown.observed.sum():,.0f}"
    return f"city total {shown.difference.sum():+,.0f}, RMSE {shown.rmse:.2f} vehicles per slot"


def draw_cell(
    city: City,
    forecast: xr.Dataset,
    flows: xr.Dataset | None,
    newest: np.datetime64 | None,
    kind: str,
    init_time: np.datetime64,
) -> None:
    """The chosen cell's last day and forecast, as a chart and as numbers."""
    chosen = chosen_cell(city)
    if chosen is None:
        st.caption("Click a cell on any map to see its last 24 hours and its forecast.")
        return
    row, col = chosen
    st.markdown(
        f"**Cell: row {row}, column {col}** &ensp; {kind} in vehicles per slot, "
        f"forecast from {plain(moment_label(city, init_time))}"
    )
    chart, table = st.columns([2, 1])
    series = cell_series(city, forecast, flows, kind, row, col)
    chart.altair_chart(series_chart(city, series, init_time, CHART_HEIGHT), width="stretch")
    table.table(cell_table(city, forecast, flows, newest, kind, row, col))


def choose_cell(city: City, map_key: str) -> None:
    """Remember the cell that was clicked on a map."""
    place = (st.session_state.get(map_key) or {}).get("last_clicked")
    if place:
        st.session_state[CELL] = (city.name, cell_at(city, place["lat"], place["lng"]))


def chosen_cell(city: City) -> tuple[int, int] | None:
    """The (row, col) last clicked in this city."""
    name, cell = st.session_state.get(CELL, (None, None))
    return cell if name == city.name else None


def street_picture(config: Config, city: City) -> str | None:
    """The picture of where vehicles report, None without records.

    A page keeps the one it started with: with another picture the map would lose zoom and position.
    """
    if config.map.tiles_url:
        return None
    key = f"street picture {city.name}"
    if not st.session_state.get(key):
        store = RecordStore(config.paths.data / city.name / "records")
        state = store.load()
        identity = f"{store.root} {city}"
        with suppress(InputError):  # an ingest has just replaced what was to be read: the next run draws them
            st.session_state[key] = read_density(identity, max(state.hours, default=0) // 24, store, state, city)
    picture: str | None = st.session_state.get(key)
    return picture


def identity(store: DayStore) -> str:
    """What tells one store from another in a cache: its folder and its city's grid."""
    return f"{store.root} {store.city}"


# The cached reads below return what all sessions share: nobody changes it.


@st.cache_resource(max_entries=8, show_spinner=False)
def read_forecasts(identity: str, stamp: Stamp, day: str, _store: DayStore) -> xr.Dataset:
    """The forecasts of a local day."""
    dataset = _store.read_day(np.datetime64(day))
    if dataset is None:
        raise InputError(f"the forecasts of {day} are gone: load the page again")
    return dataset


@st.cache_resource(max_entries=32, show_spinner=False)
def read_flows(identity: str, stamp: Stamp, init: str, slots: int, _store: DayStore) -> xr.Dataset | None:
    """The flows from a day before an init time to the end of its forecast."""
    init_time = np.datetime64(init)
    return _store.read(init_time - SPAN, init_time + slots * _store.city.slot)


@st.cache_resource(max_entries=8, show_spinner=False)
def newest_observed(identity: str, stamp: Stamp, _store: DayStore) -> np.datetime64 | None:
    """The newest observed slot's start."""
    return last_observed(_store)


@st.cache_resource(max_entries=8, show_spinner="Reading flows")
def flow_scale(identity: str, state: tuple[str, ...] | Stamp, _store: DayStore) -> float:
    """Where the colour scale of a city's flows ends."""
    return flow_limit(sample_flows(_store, SCALE_DAYS))


@st.cache_resource(max_entries=4, show_spinner="Drawing the streets")
def read_density(identity: str, newest_day: int, _store: RecordStore, _state: State, _city: City) -> str | None:
    """The picture of where vehicles report."""
    counts = point_counts(_store, _state, _city)
    return png_uri(shade_levels(counts)) if counts.any() else None


@st.cache_resource(max_entries=8, show_spinner=False)
def rings(identity: str, _city: City) -> list[list[list[float]]]:
    """The cells' outlines."""
    return cell_rings(_city)
