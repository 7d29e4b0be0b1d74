"""The header of all pages: the time, the ages of data and forecast, and a banner for what an operator must know.

It has a clock of its own, so that a page that stays open says what a newly opened one says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from dashboard.page import clock
from dashboard.page.banner import age, warnings
from dashboard.page.labels import clock_label, day_label, moment_label, one_line, plain, slot_labels
from dashboard.page.severities import head_line, marks
from dashboard.page.view import View
from dashboard.reads.alerts import open_alerts
from dashboard.reads.stores import newest_forecast, newest_observed
from trafficcast.alerts.book import Alert
from trafficcast.config.settings import Config
from trafficcast.errors import InputError, JobError
from trafficcast.stores.city_stores import CityStores

_EVERY_SECONDS = 5.0


def _draw_header(config: Config, view: View, marked: str, of_forecasts: bool, of_alerts: bool) -> None:
    """Draw the header and draw it again every few seconds.

    `marked`: the marks of the open alerts in the menu; where others are open now, the whole page runs again.
    `of_forecasts` and `of_alerts`: whether the page has banners of forecasts and of alerts.
    """
    stores = CityStores.of(config, view.city)

    @st.fragment(run_every=_EVERY_SECONDS)
    def _header() -> None:
        alerts = open_alerts(stores)
        if marks(alerts) != marked:
            st.rerun()
        if of_alerts:
            _alert_banner(view, alerts)
        try:
            st.caption(plain(_line(stores)))
            made = newest_forecast(stores)
        except (InputError, JobError) as error:  # the page below says what else can be shown
            st.caption(plain(f"{clock_label(view.city, clock.present())}: {error}"))
            return
        for sentence in warnings(view.city, config.service, made[1], clock.present()) if made and of_forecasts else []:
            st.warning(plain(sentence))

    with st.container():  # one element whatever it contains: those below keep their positions, and maps their frames
        _header()


def _alert_banner(view: View, alerts: Sequence[Alert] | None) -> None:
    if alerts is None:
        st.warning("The alerts cannot be read: the page Alerts says why.")
    elif alerts:
        newest = max(alerts, key=lambda alert: alert.raised)
        words = plain(f"{head_line(view.city.name, alerts)}. {one_line(newest.finding.message)}")
        critical = any(alert.finding.severity == "critical" for alert in alerts)
        (st.error if critical else st.warning)(words)


def _line(stores: CityStores) -> str:
    """The time, the newest observed slot and the newest forecast, with their ages."""
    city, now = stores.city, clock.present()
    observed, forecast = newest_observed(stores), newest_forecast(stores)
    said = [f"{city.name}, {moment_label(city, now)}: "]
    if observed is None:
        said.append("no data yet")
    else:
        day = day_label(city.local_days(np.array([observed]))[0])
        slot = f"{day} {slot_labels(city, np.array([observed]))[0]}"
        said.append(f"data {age(now - observed - city.slot)} old (newest slot {slot})")
    if forecast is None:
        said.append(", no forecast yet")
    else:
        version, made = forecast
        role = " (champion)" if version == stores.registry.champion() else ""
        said.append(f", forecast made {age(now - made['created'].values[0])} ago by {version}{role}")
    return "".join([*said, f"; times are {city.timezone}"])
