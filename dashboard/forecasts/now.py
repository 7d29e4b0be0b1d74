"""The page Now: predicted flows beside the observed or the typical ones, over the last day and the next two hours."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st
import xarray as xr

from dashboard.forecasts.cell_history import _cell_history, _history_chart, _history_table
from dashboard.forecasts.download_row import _download_row, _slot_heading
from dashboard.forecasts.downloads import _forecast_grid
from dashboard.forecasts.frames import _observed_frame, _why_not
from dashboard.forecasts.hot_spots import _hottest_cells
from dashboard.forecasts.playback import _play_switch, _schedule_next_slot, _slot_played, _stop
from dashboard.forecasts.timeline import _find_forecast, _ForecastSlot, _of_kind, _shown_slots, _slot_texts
from dashboard.maps.colours import colour_limit
from dashboard.maps.layers import forecast_layers
from dashboard.maps.maps import Layer, draw_maps
from dashboard.maps.named_areas import named_areas
from dashboard.page import clock
from dashboard.page.address import change
from dashboard.page.choices import choice, choose_kind
from dashboard.page.labels import cell_heading, day_label, lead_label, plain, slot_labels
from dashboard.page.nothing_yet import next_step
from dashboard.page.refresh import rerun_when_changed
from dashboard.page.view import View
from dashboard.reads.stamps import newest_stamp
from dashboard.reads.stores import (
    Forecasts,
    champion_climatology,
    flows_between,
    forecast_stamp,
    forecasts_between,
    newest_forecast,
    newest_observed,
)
from trafficcast.config.city import HORIZON, City
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
    rerun_when_changed(city, lambda: (newest_stamp(stores.flows), forecast_stamp(stores)))
    newest = newest_forecast(stores)
    if newest is None:
        st.info(plain(next_step(stores)))
        return
    version, made = newest
    init_time = made["init_time"].values[0]
    slots = _shown_slots(city, init_time)
    forecasts = forecasts_between(stores, slots[0] - HORIZON * city.slot, init_time + city.slot)
    flows = flows_between(stores, slots[0], slots[-1] + city.slot)

    first = _first_shown(city, forecasts, flows, champion_climatology(stores) is not None, slots, init_time)
    slot = _slot_played(_PAGE, slots, first if view.time is None or view.time not in slots else view.time)

    third = _choices(view, slots, slot, init_time, first)
    shown = _find_forecast(forecasts, city, slot)
    what, frame = _beside(stores, view, flows, slot)
    st.caption(plain(_in_words(city, flows, slot, view.kind, what)))
    layers = _layers(stores, view, shown, flows, slot, what, frame, third)
    grid = _forecast_grid(city, view.kind, slot, shown, frame, what)
    draw_maps(config, view, layers, _MAP_HEIGHT, "now")
    _download_row(config, view, grid, _slot_heading(city, view.kind, slot), layers, "now")
    _draw_totals_and_cell(
        stores, view, _ForecastSlot(version, made.isel(init_time=0), 0), forecasts, flows, slots, init_time
    )
    _schedule_next_slot(_PAGE, slots, slot)  # last, so that it moves no other element


def _first_shown(
    city: City,
    forecasts: Forecasts,
    flows: xr.Dataset | None,
    typical_known: bool,
    slots: np.ndarray,
    init_time: np.datetime64,
) -> np.datetime64:
    """The slot that the page opens on, where all three maps have something to show.

    It is the first slot of the newest forecast that is not over; where all are, or typical flows are unknown, the
    newest observed slot with a forecast.
    """
    ahead = slots[(slots >= init_time) & (slots + city.slot > clock.present())]
    if len(ahead) and typical_known:
        found: np.datetime64 = ahead[0]
        return found
    for slot in slots[::-1]:
        if _observed_frame(flows, slot) is not None and _find_forecast(forecasts, city, slot) is not None:
            return slot
    return init_time


def _beside(
    stores: CityStores, view: View, flows: xr.Dataset | None, slot: np.datetime64
) -> tuple[str, np.ndarray | None]:
    """What stands beside the forecast: the observed flows of a slot that is over, else the typical ones; (row, col)."""
    if _is_over(view.city, slot):
        frame = _observed_frame(flows, slot)
        return "observed", None if frame is None else _of_kind(frame, view.kind)
    typical = champion_climatology(stores)
    return "typical", None if typical is None else _of_kind(typical.at(np.array([slot]))[0], view.kind)


def _is_over(city: City, slot: np.datetime64) -> bool:
    return bool(slot + city.slot <= clock.present())


def _in_words(city: City, flows: xr.Dataset | None, slot: np.datetime64, kind: str, what: str) -> str:
    """Say whether a slot is over, runs, or is still to come, and what the maps show therefore."""
    state = "is over" if _is_over(city, slot) else _why_not(city, flows, slot, None, kind)
    day = day_label(city.local_days(np.array([slot]))[0])
    return f"{day} {slot_labels(city, np.array([slot]))[0]} {state}. The maps compare its forecast with {what} flows."


def _choices(view: View, slots: np.ndarray, slot: np.datetime64, init_time: np.datetime64, first: np.datetime64) -> str:
    """Flow kind, third map, playback and the slot's slider; returns what the third map shows."""
    with st.container(horizontal=True, vertical_alignment="bottom"):  # wraps on a narrow screen
        choose_kind(view)
        third = choice(st.segmented_control, "Third map", _THIRD, "third", required=True)
        with st.container(horizontal=True, vertical_alignment="bottom", width=_SLIDER_WIDTH):
            _play_switch(_PAGE, partial(_go_to, view, first))
            slider = st.container()
    st.session_state["slot"] = slot
    texts = dict(zip(slots, _slot_texts(view.city, init_time, slots), strict=True))
    slider.select_slider(
        "Slot",
        list(slots),
        key="slot",
        format_func=texts.__getitem__,
        on_change=partial(_choose_slot, view, first),
    )
    return third


def _choose_slot(view: View, first: np.datetime64) -> None:
    _stop(_PAGE)
    _go_to(view, first, st.session_state["slot"])


def _go_to(view: View, first: np.datetime64, slot: np.datetime64) -> None:
    change(view, time=None if slot == first else slot)


def _layers(
    stores: CityStores,
    view: View,
    shown: _ForecastSlot | None,
    flows: xr.Dataset | None,
    slot: np.datetime64,
    what: str,
    frame: np.ndarray | None,
    third: str,
) -> list[Layer]:
    """Make the layers of a slot: predicted, what stands beside it (see `_beside`), and the third map."""
    limit, unknown = colour_limit(stores), "typical flows are unknown without a model"
    if what == "observed":
        unknown = _why_not(view.city, flows, slot, newest_observed(stores), view.kind)
    predicted = None if shown is None else shown.flow(view.kind)
    layers = forecast_layers(view.kind, limit, predicted, frame, unknown, what)
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
