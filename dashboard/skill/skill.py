"""The page Skill: the errors of recent forecasts beside every baseline, in time and space, and interval coverage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st
import xarray as xr
from streamlit.delta_generator import DeltaGenerator

from dashboard.maps.colours import colour_limit, difference_limit, round_up
from dashboard.maps.maps import Layer, draw_maps
from dashboard.page.choices import choice, choose_kind
from dashboard.page.labels import cell_heading, lead_name, moment_label, plain
from dashboard.page.nothing_yet import next_step
from dashboard.page.number_columns import decimals
from dashboard.page.refresh import rerun_when_changed
from dashboard.page.view import View
from dashboard.reads.stamps import DAY, stamp
from dashboard.reads.stores import scores_between
from dashboard.skill.cards import _PARTS, _lookup, _metric_table, _number
from dashboard.skill.charts import _coverage_chart, _day_chart, _hour_chart, _lead_chart, _weekday_chart
from dashboard.skill.error_map import _MOST_DAYS, _cell_table, _CellErrors
from dashboard.skill.reads import _card_of, _cell_errors_between, _newest_score
from dashboard.skill.tables import (
    _ALL_LEADS,
    _MEASURES,
    _PERIODS,
    _at_lead,
    _by_day,
    _by_hour,
    _by_weekday,
    _coverage_table,
    _errors_by,
    _lead_table,
    _leads_of,
    _pivot_forecasters,
    _published_table,
    _scores_by_lead,
    _weekday_names,
)
from trafficcast.config.settings import Config
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.scores import skill

_CHART_HEIGHT, _MAP_HEIGHT, _MODEL_WIDTH = 390, 350, 200
_SECTIONS = ("By lead", "Over time", "By hour and weekday", "On the map", "Intervals", "Published metrics")


def draw(config: Config, view: View) -> None:
    """Draw the page Skill.

    Parameters
    ----------
    config
        The configuration.
    view
        The view, as the address gives it.
    """
    stores = CityStores.of(config, view.city)
    versions = _scored_models(stores)
    if not versions:
        st.info(plain(_next_step(stores)))
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):  # wraps on a narrow screen
        version = choice(st.selectbox, "Model", list(versions), "model", width=_MODEL_WIDTH)
        period = choice(st.segmented_control, "Period", list(_PERIODS), "period", "week", required=True)
        section = choice(st.segmented_control, "Show", _SECTIONS, "show", required=True)
    rerun_when_changed(view.city, lambda: stamp(stores.scores(version)))
    end = versions[version] + view.city.slot
    reach = _PERIODS[period]
    start = None if reach is None else end - reach
    scores = scores_between(stores, version, start, end)
    if scores is None:  # a file that was there when the newest score was looked for
        st.info("The scores of that period have been removed: choose another period.")
        return
    _draw_summary(view, version, scores)
    if section == _SECTIONS[0]:
        _by_lead(version, scores)
    elif section == _SECTIONS[1]:
        _over_time(view, version, scores)
    elif section == _SECTIONS[2]:
        _by_clock(view, version, scores)
    elif section == _SECTIONS[3]:
        _on_the_map(config, view, version, scores, end)
    elif section == _SECTIONS[4]:
        _intervals(scores)
    else:
        _published(stores, version, scores)


def _scored_models(stores: CityStores) -> dict[str, np.datetime64]:
    """Find the models that have scores, champions first, and the newest init time of the scores of each."""
    registry = stores.registry
    versions = dict.fromkeys([*registry.champions(), *reversed(registry.versions())])
    newest = {}
    for version in versions:
        time = _newest_score(stores, version)
        if time is not None:
            newest[version] = time
    return newest


def _next_step(stores: CityStores) -> str:
    if stores.registry.champion() is None:
        return next_step(stores)
    name = stores.city.name
    return (
        f"No forecast of {name} has been compared with observed flows yet: trafficcast schedule does so by itself; "
        f"after trafficcast forecast --city {name} run trafficcast verify --city {name}."
    )


def _draw_summary(view: View, version: str, scores: xr.Dataset) -> None:
    """Draw one line with the period and the skill of the model in it."""
    city, together = view.city, skill(version, scores)
    first, last = scores["init_time"].values[[0, -1]]
    error, best = together.rmse.get(version, float("nan")), together.best_baseline
    said = [f"{together.forecasts:,} forecasts, {moment_label(city, first)} to {moment_label(city, last)}"]
    said.append(f"RMSE {error:.3f} vehicles per slot")
    if best is not None and best[1] > 0 and np.isfinite(error):
        name, least = best
        side = "below" if error < least else "above"
        said.append(f"{abs(1 - error / least):.1%} {side} the best baseline's ({name}, {least:.3f})")
    said += [
        f"{share:.1%} of observed flows inside the {level:.0%} interval" for level, share in together.inside.items()
    ]
    st.caption(plain("; ".join(said) + f"; times are {city.timezone}"))


def _measure_and_lead(scores: xr.Dataset) -> tuple[str, str]:
    """Draw the choices of the measure and the lead time, and return both."""
    with st.container(horizontal=True):
        measure = _measure()
        leads = [_ALL_LEADS, *(lead_name(minutes) for minutes in _leads_of(scores))]
        return measure, choice(st.segmented_control, "Lead", leads, "ahead", required=True)


def _measure() -> str:
    return choice(
        st.segmented_control, "Error", list(_MEASURES), "error", required=True, format_func=_MEASURES.__getitem__
    )


def _by_lead(version: str, scores: xr.Dataset) -> None:
    measure = _measure()
    table = _errors_by(scores, measure, _scores_by_lead(scores))
    if table.empty:
        st.info("No slot that was forecast in that period has been observed.")
        return
    chart, numbers = st.columns([3, 3])
    chart.altair_chart(_lead_chart(table, version, _MEASURES[measure], _CHART_HEIGHT))
    _table(numbers, _lead_table(scores, measure), 3)
    numbers.caption(
        f"{_MEASURES[measure]}, vehicles per slot, over all cells and both flow kinds, the best first. "
        "The lead time is the start of the forecast slot minus the init time."
    )


def _over_time(view: View, version: str, scores: xr.Dataset) -> None:
    measure, lead = _measure_and_lead(scores)
    chosen = _at_lead(scores, lead)
    table = _errors_by(chosen, measure, _by_day(view.city, chosen))
    chart, numbers = st.columns([3, 2])
    chart.altair_chart(_day_chart(table, version, _MEASURES[measure], _CHART_HEIGHT))
    _table(numbers, _pivot_forecasters(table.assign(group=table["group"].astype(str)), "day").iloc[::-1], 3)


def _by_clock(view: View, version: str, scores: xr.Dataset) -> None:
    measure, lead = _measure_and_lead(scores)
    chosen = _at_lead(scores, lead)
    hours = _errors_by(chosen, measure, _by_hour(view.city, chosen))
    weekdays = _errors_by(chosen, measure, _by_weekday(view.city, chosen))
    left, right = st.columns(2)
    left.altair_chart(_hour_chart(hours, version, _MEASURES[measure], view.city.timezone, _CHART_HEIGHT - 40))
    right.altair_chart(_weekday_chart(weekdays, version, _MEASURES[measure], _CHART_HEIGHT - 40))
    _table(left, _pivot_forecasters(hours, "hour"), 3)
    named = _pivot_forecasters(weekdays, "weekday")
    _table(right, named.assign(weekday=_weekday_names(named["weekday"])), 3)


def _on_the_map(config: Config, view: View, version: str, scores: xr.Dataset, end: np.datetime64) -> None:
    """Draw maps of each cell's RMSE, its mean error, and its RMSE less that of typical flows."""
    left, right = st.columns([1, 3])
    choose_kind(view, left)
    leads = [_ALL_LEADS, *(lead_name(minutes) for minutes in _leads_of(scores))]
    lead = choice(right.segmented_control, "Lead", leads, "ahead", required=True)
    first = max(scores["init_time"].values[0], end - _MOST_DAYS * DAY)
    stores, kind = CityStores.of(config, view.city), view.kind
    errors = _cell_errors_between(stores, version, first, end)
    if errors is None:
        st.info("The forecasts behind these scores, or the flows that they were compared with, are no longer stored.")
        return
    position = None if lead == _ALL_LEADS else leads.index(lead) - 1
    draw_maps(config, view, _layers(colour_limit(stores), errors, kind, position), _MAP_HEIGHT, "skill")
    since = moment_label(view.city, first)
    st.caption(plain(f"Forecasts from {since} on, at most {_MOST_DAYS} days, {errors.slots.sum():,} slots, {kind}."))
    if view.cell is None:
        st.caption("Click a cell on any map to see its errors by lead.")
        return
    st.markdown(f"**{cell_heading(view.cell)}**, {kind}, vehicles per slot")
    table = _cell_table(view.city, errors, kind, view.cell)
    st.dataframe(table, hide_index=True, width="content", column_config=decimals(table, 2))


def _layers(limit: float, errors: _CellErrors, kind: str, lead: int | None) -> list[Layer]:
    error, bias, usual = errors.rmse(kind, lead), errors.mean_error(kind, lead), errors.typical_rmse(kind, lead)
    # Errors are small beside flows: the scales end at fixed shares of the flow scale, so that two periods compare.
    error_limit, bias_limit, gain_limit = difference_limit(limit), round_up(limit / 16), round_up(limit / 32)
    whole = f"all cells {np.sqrt(np.square(error).mean()):.2f}"
    layers = [
        Layer("RMSE", error, error_limit, False, 2, whole),
        Layer("Predicted less observed", bias, bias_limit, True, 2, f"mean {bias.mean():+.3f}"),
    ]
    if usual is None:
        note = "the typical flows of the model cannot be read"
        return [*layers, Layer("RMSE less that of typical", None, gain_limit, True, 2, note)]
    note = f"typical {np.sqrt(np.square(usual).mean()):.2f}; blue: the model is better"
    return [*layers, Layer("RMSE less that of typical", error - usual, gain_limit, True, 2, note)]


def _intervals(scores: xr.Dataset) -> None:
    table = _coverage_table(scores)
    if table.empty:
        st.info("The forecasts of that period have no prediction intervals, or none of their slots was observed.")
        return
    chart, numbers = st.columns([3, 3])
    chart.altair_chart(_coverage_chart(table, _CHART_HEIGHT))
    shown = table.assign(nominal=100 * table["level"], inside=100 * table["inside"])
    numbers.dataframe(
        shown[["nominal", "lead", "inside", "width", "slots"]],
        hide_index=True,
        column_config={
            "nominal": st.column_config.NumberColumn("nominal", format="%.0f%%"),
            "lead": st.column_config.NumberColumn("lead, minutes", format="%d"),
            "inside": st.column_config.NumberColumn("observed flows inside", format="%.1f%%"),
            "width": st.column_config.NumberColumn("mean width, vehicles per slot", format="%.2f"),
            "slots": st.column_config.NumberColumn("slots scored", format="%d"),
        },
    )
    numbers.caption(
        "Dashed lines show the levels. Flows are whole numbers: where nearly all observed flows are 0, an interval "
        "that contains 0 contains a larger share than its level."
    )


def _published(stores: CityStores, version: str, scores: xr.Dataset) -> None:
    """Draw the metrics of the TaxiBJ paper: those of the period, and those of the model's card."""
    try:
        card = _card_of(stores.registry, version)
    except InputError as error:
        st.warning(plain(str(error)))
        return
    scale = _number(_lookup(card, "scale"))
    left, right = st.columns([2, 3])
    left.markdown("**The period's forecasts**")
    if scale > 0:
        _table(left, _published_table(scores, scale), 4)
    else:
        left.caption("The model's card does not give the scale by which frames are divided.")
    left.caption(
        "These are the TaxiBJ metrics: frames are divided by the training maximum; squared (MSE) and absolute (MAE) "
        "errors are summed over flow kinds, rows and columns and averaged over slots. SSIM stands on the card only."
    )
    part = choice(right.segmented_control, "Card", _PARTS, "days", required=True)
    _table(right, _metric_table(card, part), 4)
    right.caption(
        "From the model's card. RMSE and MAE are in vehicles per slot; SSIM has the data range 1, OpenSTL's has 2."
    )


def _table(area: DeltaGenerator, table: pd.DataFrame, digits: int) -> None:
    area.dataframe(table, hide_index=True, column_config=decimals(table, digits))
