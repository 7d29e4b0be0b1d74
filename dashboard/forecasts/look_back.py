"""The page Look back: a past day's forecasts beside the observed flows, and two moments side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
import xarray as xr

from dashboard.forecasts.cell_day import _cell_day, _day_chart, _day_table
from dashboard.forecasts.download_row import _download_row, _slot_heading
from dashboard.forecasts.downloads import _forecast_grid, _moments_grid
from dashboard.forecasts.frames import _observed_frame, _why_not
from dashboard.forecasts.past_day import (
    _day_slots,
    _forecast_table,
    _neighbours,
    _same_clock,
)
from dashboard.forecasts.playback import _play_switch, _schedule_next_slot, _slot_played, _stop
from dashboard.forecasts.timeline import _ahead, _find_forecast, _ForecastSlot, _of_kind
from dashboard.maps.colours import colour_limit
from dashboard.maps.layers import forecast_layers, moment_layers
from dashboard.maps.maps import Layer, draw_maps
from dashboard.page.address import change
from dashboard.page.choices import choice, choose_kind
from dashboard.page.labels import cell_heading, clock_label, moment_label, plain, slot_labels
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
    known_days,
    newest_observed,
    scores_between,
)
from trafficcast.config.city import HORIZON, City
from trafficcast.config.settings import Config
from trafficcast.stores.city_stores import CityStores

_PAGE = "look back"
_MAP_HEIGHT, _CHART_HEIGHT, _TABLE_HEIGHT = 330, 260, 320
_WEEK = np.timedelta64(7, "D")
_SHOWN = ("forecast and observed", "two moments")
_OF = ("observed", "predicted")


@dataclass(frozen=True)
class _Day:
    """A local day: its slots' starts, naive UTC, the forecasts that any of them is part of, and their flows."""

    slots: np.ndarray
    forecasts: Forecasts
    flows: xr.Dataset | None


@dataclass(frozen=True)
class _Shown:
    """What the maps show: `grid` holds the same values as a dataset (see downloads.py)."""

    layers: list[Layer]
    grid: xr.Dataset
    heading: str
    words: str


def draw(config: Config, view: View) -> None:
    """Draw the page Look back.

    Parameters
    ----------
    config
        The configuration.
    view
        The view, as the address gives it.
    """
    city, stores = view.city, CityStores.of(config, view.city)
    days = known_days(city, [stores.flows, *map(stores.forecasts, stores.registry.champions())])
    if not len(days):
        st.info(plain(next_step(stores)))
        return
    rerun_when_changed(city, lambda: (newest_stamp(stores.flows), forecast_stamp(stores)))
    if view.other is not None and not _known(city, days, view.other):
        view = replace(view, other=None)
    wanted = _wanted(stores, view, days)
    day = _read(stores, _day_of(city, wanted))
    slot = _slot_played(_PAGE, day.slots, wanted)

    lead, of = _choices(view, days, slot)
    bar = st.container()
    if view.other is None:
        shown = _forecast(stores, view, day, slot, lead)
    else:
        other = _read(stores, _day_of(city, view.other))
        shown = _moments(stores, view, of, lead, (day, slot), (other, view.other))
    with bar:
        _draw_sliders(view, days, day.slots, slot)
        st.caption(plain(f"{shown.words}; times are {city.timezone}"))
    draw_maps(config, view, shown.layers, _MAP_HEIGHT, _PAGE)
    _download_row(config, view, shown.grid, f"{shown.heading}\n{shown.words}", shown.layers, _PAGE)
    _cell(stores, view, day, slot)
    _forecasts(stores, day)
    _schedule_next_slot(_PAGE, day.slots, slot)  # last, so that it moves no other element


def _forecast(stores: CityStores, view: View, day: _Day, slot: np.datetime64, lead: int) -> _Shown:
    """Compare the forecast of a slot, made `lead` slots ahead, with the observed flows."""
    city, kind = view.city, view.kind
    made, frame = _find_forecast(day.forecasts, city, slot, lead), _frame(city, day, slot, kind, None)
    predicted = None if made is None else made.flow(kind)
    why_not = _why_not(city, day.flows, slot, newest_observed(stores), kind)
    return _Shown(
        forecast_layers(kind, colour_limit(stores), predicted, frame, why_not),
        _forecast_grid(city, kind, slot, made, frame),
        _slot_heading(city, kind, slot),
        _describe_forecast(city, slot, lead, made),
    )


def _moments(
    stores: CityStores, view: View, of: str, lead: int, one: tuple[_Day, np.datetime64], two: tuple[_Day, np.datetime64]
) -> _Shown:
    """Compare two moments, both observed or both predicted `lead` slots ahead."""
    city, kind = view.city, view.kind
    observed = of == _OF[0]
    what = of if observed else f"{of} {_ahead(lead * city.slot_minutes)}"
    first, second = (_frame(city, day, slot, kind, None if observed else lead) for day, slot in (one, two))
    times = [moment_label(city, slot) for _, slot in (one, two)]
    return _Shown(
        moment_layers(kind, of, colour_limit(stores), (times[0], first), (times[1], second)),
        _moments_grid(city, kind, what, (one[1], first), (two[1], second)),
        f"{city.name}, {kind}: {times[0]} and {times[1]} ({city.timezone})",
        f"{what.capitalize()}: {times[0]} and {times[1]}",
    )


def _wanted(stores: CityStores, view: View, days: np.ndarray) -> np.datetime64:
    """Return the view's slot where it lies within the stored days, else the newest observed slot."""
    if view.time is not None and _known(view.city, days, view.time):
        return view.time
    newest = newest_observed(stores)
    first: np.datetime64 = _day_slots(view.city, days[-1])[0]
    return first if newest is None else newest


def _known(city: City, days: np.ndarray, slot: np.datetime64) -> bool:
    """Whether a slot lies between the first and the last day."""
    return bool(days[0] <= _day_of(city, slot) <= days[-1])


def _day_of(city: City, slot: np.datetime64) -> np.datetime64:
    day: np.datetime64 = city.local_days(np.array([slot]))[0]
    return day


def _read(stores: CityStores, day: np.datetime64) -> _Day:
    city = stores.city
    slots = _day_slots(city, day)
    end = slots[-1] + city.slot
    forecasts = forecasts_between(stores, slots[0] - (HORIZON - 1) * city.slot, end)
    return _Day(slots, forecasts, flows_between(stores, slots[0], end))


def _frame(city: City, day: _Day, slot: np.datetime64, kind: str, lead: int | None) -> np.ndarray | None:
    """A slot of a day as it was forecast at that position along leads, or with None as it was observed: (row, col)."""
    if lead is not None:
        made = _find_forecast(day.forecasts, city, slot, lead)
        return None if made is None else made.flow(kind)
    frame = _observed_frame(day.flows, slot)
    return None if frame is None else _of_kind(frame, kind)


def _choices(view: View, days: np.ndarray, slot: np.datetime64) -> tuple[int, str]:
    """Day, flow kind, what the maps show and how long ahead it was forecast; returns the lead and what moments are of.

    The lead is a position along leads.
    """
    city, day = view.city, _day_of(view.city, slot)
    week_before = day - _WEEK
    other = _same_clock(city, week_before if week_before in days else _neighbours(days, day)[0] or day, slot)
    minutes, of = [lead * city.slot_minutes for lead in range(HORIZON)], _OF[0]
    st.session_state["lead"] = minutes[view.lead]
    st.session_state["two"] = _SHOWN[view.other is not None]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):  # wraps on a narrow screen
        _choose_day(view, "time", days, slot, "Day")
        choose_kind(view)
        st.segmented_control("Maps", _SHOWN, key="two", required=True, on_change=_choose_two, args=(view, slot, other))
        if view.other is not None:
            of = choice(st.segmented_control, "Flows of both moments", _OF, "of", required=True)
        st.segmented_control(
            "Lead time, minutes",
            minutes,
            key="lead",
            required=True,
            disabled=view.other is not None and of == _OF[0],
            on_change=_choose_lead,
            args=(view, minutes),
        )
    return view.lead, of


def _choose_lead(view: View, minutes: list[int]) -> None:
    change(view, lead=minutes.index(st.session_state["lead"]))


def _choose_two(view: View, slot: np.datetime64, other: np.datetime64) -> None:
    _stop(_PAGE)
    change(view, time=slot, other=other if st.session_state["two"] == _SHOWN[1] else None)


def _choose_day(view: View, which: str, days: np.ndarray, slot: np.datetime64, label: str) -> None:
    """A day's date between its neighbours; what is chosen becomes the view's `which`, at the same time of day."""
    city, day = view.city, _day_of(view.city, slot)
    before, after = _neighbours(days, day)
    key = f"{which} day"

    def go(to: np.datetime64 | None) -> None:
        chosen = np.datetime64(st.session_state[key], "D") if to is None else to
        _stop(_PAGE)
        change(view, **{which: _same_clock(city, chosen, slot)})

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", width="content"):
        st.button("◀", key=f"{key} before", help="Day before", disabled=before is None, on_click=go, args=(before,))
        st.session_state[key] = day.item()
        st.date_input(
            label, key=key, min_value=days[0].item(), max_value=days[-1].item(),
            on_change=go, args=(None,), width=130,
        )  # fmt: skip
        st.button("▶", key=f"{key} after", help="Day after", disabled=after is None, on_click=go, args=(after,))


def _draw_sliders(view: View, days: np.ndarray, slots: np.ndarray, slot: np.datetime64) -> None:
    """Draw the playback switch and the slot's slider, and below them the other moment's day and slider."""
    play_place, slider_place = st.columns([0.8, 8.4], vertical_alignment="bottom")
    with play_place:
        _play_switch(_PAGE, lambda to: _go_to(view, "time", to))
    with slider_place:
        _slider(view, "time", slots, slot, "Slot")
    with st.container():
        if view.other is not None:
            day_place, other_place = st.columns([3.2, 7.4], vertical_alignment="bottom")
            with day_place:
                _choose_day(view, "other", days, view.other, "Other day")
            with other_place:
                other_slots = _day_slots(view.city, _day_of(view.city, view.other))
                _slider(view, "other", other_slots, view.other, "Other slot")


def _slider(view: View, which: str, slots: np.ndarray, slot: np.datetime64, label: str) -> None:
    key = f"{which} slot"
    st.session_state[key] = slot
    st.select_slider(
        label,
        list(slots),
        key=key,
        format_func=dict(zip(slots, slot_labels(view.city, slots), strict=True)).__getitem__,
        on_change=lambda: _go_to(view, which, st.session_state[key]),
    )


def _go_to(view: View, which: str, slot: np.datetime64) -> None:
    _stop(_PAGE)
    change(view, **{which: slot})


def _describe_forecast(city: City, slot: np.datetime64, lead: int, shown: _ForecastSlot | None) -> str:
    """Describe the forecast shown: its lead time, forecaster, state and time."""
    ahead = _ahead(lead * city.slot_minutes)
    if shown is None:
        return f"No forecast of this slot was made {ahead}"
    made = shown.forecast
    state, reason = str(made["state"].values), str(made["reason"].values)
    created = moment_label(city, made["created"].values.ravel()[0])
    afterwards = ", after its time from the data known then" if bool(made["hindcast"].values) else ""
    return (
        f"Forecast {ahead}, from {clock_label(city, slot - lead * city.slot)}, by {made['forecaster'].values}: {state}"
        f"{f' ({reason})' if reason else ''}, made {created}{afterwards}"
    )


def _cell(stores: CityStores, view: View, day: _Day, slot: np.datetime64) -> None:
    """Draw the day of the chosen cell, or of the whole city while no cell is chosen."""
    st.markdown(f"**{cell_heading(view.cell)}, {view.kind}** through the day")
    if view.cell is None:
        st.caption("Click a cell on any map to see its day.")
    if day.flows is None and not day.forecasts:
        st.info(
            "This day has neither observed flows nor forecasts: choose another day with the arrows beside the date."
        )
        return
    typical = champion_climatology(stores)
    table = _cell_day(view.city, day.forecasts, day.flows, typical, view.kind, view.cell, day.slots)
    chart_place, table_place = st.columns([3, 2])
    chart_place.altair_chart(_day_chart(view.city, table, day.slots, slot, _CHART_HEIGHT), width="stretch")
    table_place.dataframe(_day_table(table), hide_index=True, height=_CHART_HEIGHT)


def _forecasts(stores: CityStores, day: _Day) -> None:
    """Draw the table of the forecasts that were made during the day."""
    city = stores.city
    end = day.slots[-1] + city.slot
    scores = {version: scores_between(stores, version, day.slots[0], end) for version, _ in day.forecasts}
    table = _forecast_table(city, day.forecasts, scores, day.slots)
    st.markdown("**Forecasts of this day**; the RMSE, in vehicles per slot, appears once a forecast is verified")
    if table.empty:
        st.caption("No forecast was made on this day.")
        return
    numbers = {name: st.column_config.NumberColumn(format="%.2f") for name in map(str, table) if "RMSE" in name}
    st.dataframe(table, hide_index=True, height=_TABLE_HEIGHT, column_config=numbers)
