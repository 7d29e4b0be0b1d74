"""The page Alerts: the open and the past alerts, with their area or cell on the map, and the rules."""

from __future__ import annotations

import time

import numpy as np
import streamlit as st

from dashboard.alerts.tables import _alert_table, _area_and_cell, _rule_table
from dashboard.maps.cells import cell_words
from dashboard.maps.city_map import draw_map
from dashboard.maps.named_areas import named_areas
from dashboard.page import clock
from dashboard.page.address import change
from dashboard.page.labels import moment_label, one_line, plain
from dashboard.page.navigation import LOOK_BACK, NOW, open_page
from dashboard.page.refresh import rerun_when_changed
from dashboard.page.severities import head_line
from dashboard.page.view import View
from dashboard.reads.areas import outlines_and_cells
from dashboard.reads.stamps import file_stamp
from trafficcast.alerts.book import Alert, AlertBook
from trafficcast.config.settings import Config
from trafficcast.errors import InputError, JobError
from trafficcast.stores.city_stores import CityStores

_MAP_HEIGHT, _TABLE_HEIGHT, _ROW_HEIGHT = 330, 230, 31
_AREA_COLOUR, _AREA_OPACITY = "#d55e00", 0.7  # vermilion of Okabe & Ito
_RETRY_SECONDS = 10
_MOST = 500  # past alerts
_OPEN, _PAST, _RULES = "Open", "Past", "Rules"


def draw(config: Config, view: View) -> None:
    """Draw the page Alerts.

    Parameters
    ----------
    config
        The configuration.
    view
        The view, as the address gives it.
    """
    file, now = CityStores.of(config, view.city).alerts, clock.present()
    book = AlertBook(file, read_only=True)
    try:
        open_alerts = sorted(book.open(view.city.name, now), key=lambda alert: alert.raised, reverse=True)
        past_alerts = book.past(view.city.name, now, _MOST)
    except (InputError, JobError) as error:
        st.error(plain(f"{error}{'; the page tries again' if isinstance(error, JobError) else ''}"))
        rerun_when_changed(view.city, lambda: int(time.monotonic() / _RETRY_SECONDS))
        _rules(config, view)
        return
    rerun_when_changed(view.city, lambda: file_stamp(file))
    _head(view, open_alerts, file.exists())
    section = _choose_section(view, bool(open_alerts), bool(past_alerts))
    if section == _OPEN:
        _alerts(config, view, open_alerts, section)
    elif section == _PAST:
        _alerts(config, view, past_alerts, section)
    else:
        _rules(config, view)


def _head(view: View, open_alerts: list[Alert], book_exists: bool) -> None:
    """Say how many alerts are open."""
    words = plain(head_line(view.city.name, open_alerts))
    if any(alert.finding.severity == "critical" for alert in open_alerts):
        st.error(words)
    elif open_alerts:
        st.warning(words)
    elif book_exists:
        st.success(words)
    else:
        st.info(
            words + plain(": the rules were never checked. Run trafficcast schedule: it checks them in every cycle.")
        )


def _choose_section(view: View, any_open: bool, any_past: bool) -> str:
    key = f"alerts section {view.city.name}"
    st.session_state.setdefault(key, _OPEN if any_open or not any_past else _PAST)
    section = st.segmented_control(
        "Alerts", (_OPEN, _PAST, _RULES), key=key, required=True, label_visibility="collapsed"
    )
    return str(section)


def _alerts(config: Config, view: View, alerts: list[Alert], section: str) -> None:
    """Draw the table of the alerts, and the details of the chosen one, which is at first the newest."""
    if not alerts:
        st.caption("No alert is open." if section == _OPEN else "No alert has been cleared yet.")
        return
    if len(alerts) == _MOST and section == _PAST:
        st.caption(f"The table shows the last {_MOST} alerts.")
    newest = alerts[0]
    chosen = st.dataframe(
        _alert_table(view.city, alerts).drop(columns=["until"] if section == _OPEN else []),
        hide_index=True,
        height=min(_TABLE_HEIGHT, _ROW_HEIGHT * (len(alerts) + 1) + 3),
        on_select="rerun",
        selection_mode="single-row",
        # Another row than the one chosen would stand there when a new alert comes.
        key=f"alerts {section} {view.city.name} {newest.raised} {len(alerts)}",
        column_config={
            "message": st.column_config.TextColumn(width="large"),
            "value": st.column_config.NumberColumn(format="%.4g"),
            "limit": st.column_config.NumberColumn(format="%.4g"),
        },
    )
    rows = chosen["selection"]["rows"]
    _alert(config, view, alerts[rows[0]] if rows and rows[0] < len(alerts) else newest)


def _alert(config: Config, view: View, alert: Alert) -> None:
    """Draw an alert's area or cell on the map, its message, and the buttons to the pages that show more of it."""
    city = view.city
    share, cell = _area_and_cell(alert, city, named_areas(city))
    left, right = st.columns([1.1, 1])
    with right:
        st.text(one_line(alert.finding.message))
        until = "still open" if alert.cleared is None else f"until {moment_label(city, alert.cleared)}"
        st.caption(plain(f"{alert.finding.severity}, since {moment_label(city, alert.raised)}, {until}"))
        if share is not None:
            st.caption("The map shows how much of each cell lies in the area, in percent.")
        with st.container(horizontal=True):
            if st.button("Show on the page Now", key="alert now", disabled=cell is None and alert.cleared is not None):
                change(view, cell=cell, time=None)
                open_page(NOW)
            if st.button("Look back at its time", key="alert look back"):
                change(view, cell=cell, time=city.slot_start(alert.raised))
                open_page(LOOK_BACK)
    with left:
        if cell is None and share is None:
            st.caption("This alert is about the whole city, not about a cell or an area.")
        _map(config, view, share, cell)


def _map(config: Config, view: View, share: np.ndarray | None, cell: tuple[int, int] | None) -> None:
    """Draw the map of an area, with the share of each cell that lies in it, or of a cell."""
    city = view.city
    _, cells = outlines_and_cells(city)
    colours, words, chosen = [], [], cell
    if share is not None:
        colours = [f"{_AREA_COLOUR}{round(_AREA_OPACITY * 255 * one):02x}" for one in share.ravel().tolist()]
        words, chosen = [f"{words} %" for words in cell_words(cells, 100 * share, 0)], None
    draw_map(config, city, colours, words, chosen, _MAP_HEIGHT, f"alerts map {city.name}")


def _rules(config: Config, view: View) -> None:
    st.markdown("**Rules of this city**: the conditions that raise an alert, from alerts.rules of the configuration")
    st.dataframe(
        _rule_table(view.city, config.alerts.rules),
        hide_index=True,
        column_config={"raised when": st.column_config.TextColumn(width="large")},
    )
