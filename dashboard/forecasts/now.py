"""The page Now: observed and predicted flows and their difference, over the last day and the next two hours."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st
import xarray as xr

from dashboard.forecasts.cell_history import _cell_history, _history_chart, _history_table
from dashboard.forecasts.download_row import _download_row, _slot_heading
from dashboard.forecasts.downloads import _forecast_grid
from dashboard.forecasts.frames import _STATUS_TEXTS, _observed_frame, _slot_status
from dashboard.forecasts.hot_spots import _hottest_cells
from dashboard.forecasts.playback import _play_switch, _schedule_next_slot, _slot_played, _stop
from dashboard.forecasts.timeline import _find_forecast, _ForecastSlot, _of_kind, _shown_slots, _slot_texts
from dashboard.maps.colours import colour_limit
from dashboard.maps.layers import forecast_layers
from dashboard.maps.maps import Layer, draw_maps
from dashboard.maps.named_areas import named_areas
from dashboard.page.address import change
from dashboard.page.banner import age, warnings
from dashboard.page.choices import choice, choose_kind
from dashboard.page.labels import cell_heading, lead_label, plain
from dashboard.page.nothing_yet import next_step
from dashboard.page.refresh import rerun_when_changed
from dashboard.page.view import View
from dashboard.reads.stores import (
    Forecasts,
    champion_climatology,
    flows_between,
    forecast_stamp,
    forecasts_between,
    newest_forecast,
    newest_observed,
)
from trafficcast.config.city import HORIZON
from trafficcast.config.settings import Config
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology
from trafficcast.stores.city_stores import CityStores

_MAP_HEIGHT, _CHART_HEIGHT = 330, 220
_SLIDER_WIDTH = 780
_LEVEL = 0.8  # of the intervals shown
_HOT_SPOTS = 8
_PAGE = "now"
_THIRD = ("difference", "interval width")


def draw(config: Config, view: View) -> None:
    """Draw the page Now.

    Parameters
    ----------
    config
        The configuration.
    view
        The view, as the address gives it.
    """
    city, stores = view.city, CityStores.of(config, view.city)
    newest = newest_forecast(stores)
    rerun_when_changed(partial(forecast_stamp, stores))
    if newest is None:
        st.info(plain(next_step(stores)))
        return
    version, made = newest
    init_time = made["init_time"].values[0]
    slots = _shown_slots(city, init_time)
    slot = _slot_played(_PAGE, slots, init_time if view.time is None or view.time not in slots else view.time)
    forecasts = forecasts_between(stores, slots[0] - HORIZON * city.slot, init_time + city.slot)
    flows = flows_between(stores, slots[0], slots[-1] + city.slot)

    with (
        st.container()
    ):  # one element whatever it contains: the elements below keep their positions, and maps their frames
        _state_of_forecast(config, view, version, made)
    third = _choices(view, slots, slot, init_time)
    shown = _find_forecast(forecasts, city, slot)
    layers = _layers(stores, view, shown, flows, slot, third)
    frame = _observed_frame(flows, slot)
    grid = _forecast_grid(city, view.kind, slot, shown, None if frame is None else _of_kind(frame, view.kind))
    draw_maps(config, view, layers, _MAP_HEIGHT, "now")
    _download_row(config, view, grid, _slot_heading(city, view.kind, slot), layers, "now")
    _draw_totals_and_cell(
        stores, view, _ForecastSlot(version, made.isel(init_time=0), 0), forecasts, flows, slots, init_time
    )
    _schedule_next_slot(_PAGE, slots, slot)  # last, so that it moves no other element


def _state_of_forecast(config: Config, view: View, version: str, made: xr.Dataset) -> None:
    """Draw the line of ages, and a banner for each problem."""
    stores, now = CityStores.of(config, view.city), np.datetime64("now", "us")
    for sentence in warnings(view.city, config.service, made, now):
        st.warning(plain(sentence))
    observed = newest_observed(stores)
    data = "no data yet" if observed is None else f"data {age(now - observed - view.city.slot)} old"
    role = " (champion)" if version == stores.registry.champion() else ""
    words = f"{view.city.name}: model {version}{role}, {data}, forecast made "
    st.caption(plain(words + f"{age(now - made['created'].values[0])} ago; times are {view.city.timezone}"))


def _choices(view: View, slots: np.ndarray, slot: np.datetime64, init_time: np.datetime64) -> str:
    """Flow kind, third map, playback and the slot's slider; returns what the third map shows."""
    with st.container(horizontal=True, vertical_alignment="bottom"):  # wraps on a narrow screen
        choose_kind(view)
        third = choice(st.segmented_control, "Third map", _THIRD, "third", required=True)
        with st.container(horizontal=True, vertical_alignment="bottom", width=_SLIDER_WIDTH):
            _play_switch(_PAGE, partial(_go_to, view, init_time))
            slider = st.container()
    st.session_state["slot"] = slot
    texts = dict(zip(slots, _slot_texts(view.city, init_time, slots), strict=True))
    slider.select_slider(
        "Slot",
        list(slots),
        key="slot",
        format_func=texts.__getitem__,
        on_change=partial(_choose_slot, view, init_time),
    )
    return third


def _choose_slot(view: View, init_time: np.datetime64) -> None:
    _stop(_PAGE)
    _go_to(view, init_time, st.session_state["slot"])


def _go_to(view: View, init_time: np.datetime64, slot: np.datetime64) -> None:
    change(view, time=None if slot == init_time else slot)


def _layers(
    stores: CityStores,
    view: View,
    shown: _ForecastSlot | None,
    flows: xr.Dataset | None,
    slot: np.datetime64,
    third: str,
) -> list[Layer]:
    """Make the layers of a slot: predicted, observed and the third map."""
    limit, frame = colour_limit(stores), _observed_frame(flows, slot)
    status = _slot_status(frame is not None, slot, newest_observed(stores))
    predicted = None if shown is None else shown.flow(view.kind)
    observed = None if frame is None else _of_kind(frame, view.kind)
    layers = forecast_layers(view.kind, limit, predicted, observed, _STATUS_TEXTS[status])
    if third == _THIRD[0]:
        return layers
    width = None if shown is None else shown.interval_width(view.kind, _LEVEL)
    note = "net flow and forecasts of baselines have no interval" if width is None else f"mean {width.mean():.2f}"
    return [*layers[:2], Layer(f"Width of the {_LEVEL:.0%} interval", width, limit, False, 1, note)]


def _draw_totals_and_cell(
    stores: CityStores,
    view: View,
    newest: _ForecastSlot,
    forecasts: Forecasts,
    flows: xr.Dataset | None,
    slots: np.ndarray,
    init_time: np.datetime64,
) -> None:
    """Draw the city totals and the hot spots, and below them the chosen cell."""
    city, typical = view.city, champion_climatology(stores)
    left, right = st.columns([3, 2])
    left.markdown(f"**City total, {view.kind}**")
    totals = _cell_history(city, newest, forecasts, flows, typical, view.kind, None, _LEVEL, slots)
    left.altair_chart(_history_chart(city, totals, init_time, _CHART_HEIGHT), width="stretch")
    with right:
        st.markdown("**Hot spots**: cells and areas furthest above their typical flow, now and in the next two hours")
        if typical is None or view.kind == "net":
            st.caption(
                "Choose inflow or outflow." if typical is not None else "Typical flows are unknown without a model."
            )
        else:
            _hot_spots(view, newest, typical, init_time)
    if view.cell is None:
        st.caption("Click a cell on any map to see its last 24 hours and its forecast.")
        return
    st.markdown(f"**{cell_heading(view.cell)}**, {view.kind} with the {_LEVEL:.0%} interval")
    history = _cell_history(city, newest, forecasts, flows, typical, view.kind, view.cell, _LEVEL, slots)
    chart, table = st.columns([3, 2])
    chart.altair_chart(_history_chart(city, history, init_time, _CHART_HEIGHT), width="stretch")
    table.dataframe(_history_table(history), hide_index=True, height=_CHART_HEIGHT)


def _hot_spots(
    view: View, newest: _ForecastSlot, typical: WeekdayClimatology | Climatology, init_time: np.datetime64
) -> None:
    at = newest.forecast["valid_time"].values
    frames, usual = {}, {}
    for lead in range(HORIZON):
        label = lead_label(view.city, init_time, at[lead] - init_time)
        frames[label] = _ForecastSlot(newest.version, newest.forecast, lead).flow(view.kind)
        usual[label] = _of_kind(typical.at(at[lead : lead + 1])[0], view.kind)
    table = _hottest_cells(frames, usual, named_areas(view.city), _HOT_SPOTS)
    shown = table[["place", "unusual", "vehicles", "typical", "slot"]]
    chosen = st.dataframe(
        shown,
        hide_index=True,
        height=_CHART_HEIGHT,
        on_select="rerun",
        selection_mode="single-row",
        key="hot spots",
        column_config={
            "vehicles": st.column_config.NumberColumn(format="%.1f"),
            "typical": st.column_config.NumberColumn(format="%.1f"),
            "unusual": st.column_config.NumberColumn(
                "above",
                format="%.1f σ",
                help="The flow less the typical flow, in standard deviations: the square root of the typical flow.",
            ),
        },
    )
    rows = chosen["selection"]["rows"]
    if rows:
        cell = int(table["row"][rows[0]]), int(table["col"][rows[0]])
        if cell != view.cell and st.session_state.get("hot spot") != cell:
            st.session_state["hot spot"] = cell
            change(view, cell=cell)
            st.rerun()
