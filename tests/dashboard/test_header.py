"""The header of all pages, run by Streamlit's own test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.page import clock
from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding

MINUTE = np.timedelta64(1, "m")


def page(file: str, of_forecasts: bool, of_alerts: bool) -> None:
    """A script of the header alone, below a menu without marks until they are told to it."""
    from pathlib import Path

    import streamlit as st

    from dashboard.header import _draw_header
    from dashboard.page.severities import marks
    from dashboard.page.view import View
    from dashboard.reads.alerts import open_alerts
    from trafficcast.config.settings import load_config
    from trafficcast.stores.city_stores import CityStores

    config = load_config(Path(file))
    city = config.city("testville")
    marked = marks(open_alerts(CityStores.of(config, city)))
    st.text(f"menu: {marked}".strip())
    _draw_header(config, View(city), marked, of_forecasts, of_alerts)


def run(place: Any, of_forecasts: bool = True, of_alerts: bool = True) -> AppTest:
    """The header at the time of the clock."""
    app = AppTest.from_function(page, default_timeout=60, args=(str(place.file), of_forecasts, of_alerts))
    app.run()
    assert not app.exception
    return app


def line(app: AppTest) -> str:
    return str(app.caption[0].value).replace("\\", "")


def at(monkeypatch: pytest.MonkeyPatch, time: np.datetime64) -> None:
    """Set the clock of the pages."""
    monkeypatch.setattr(clock, "present", lambda: time)


def test_the_newest_slot_is_one_that_has_ended(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place.add_flows()
    place.add_model()
    place.add_forecast(place.newest)
    at(monkeypatch, place.newest + 29 * MINUTE)
    app = run(place)
    assert line(app) == (
        "testville, Wed 8 May 2024 09:29 CEST: data 29 min old (newest slot Wed 8 May 2024 08:30-09:00 CEST), forecast "
        "made 29 min ago by vmrnn-b-1 (champion); times are Europe/Rome"
    )
    assert not app.warning
    at(monkeypatch, place.newest + 43 * MINUTE)
    app.run()  # nothing was written since
    assert "data 13 min old (newest slot Wed 8 May 2024 09:00-09:30 CEST)" in line(app)
    assert "The forecast is late" in app.warning[0].value
    assert not run(place, of_forecasts=False).warning


def test_a_clock_that_is_behind_makes_no_negative_age(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place.add_flows()
    place.add_model()
    place.add_forecast(place.newest)
    at(monkeypatch, place.start + 31 * MINUTE)
    said = line(run(place))
    assert "data 1 min old" in said and "no forecast yet" in said and "-" not in said.split("slot")[0]


def test_without_anything_it_says_so(place: Any) -> None:
    assert "no data yet, no forecast yet" in line(run(place))


def test_damage_is_said_and_no_traceback(place: Any) -> None:
    place.add_flows()
    for file in place.flows.root.glob("*.nc"):
        file.write_bytes(b"damaged")
    assert "no data yet" in line(run(place))


def test_open_alerts_are_counted_in_the_menu_and_said(place: Any) -> None:
    book = AlertBook(place.stores.alerts)
    assert run(place).text[0].value == "menu:"
    findings = [
        Finding("coverage", "coverage", "warning", f"**too** {where}", 0.1, 0.2, where, None, None) for where in "ab"
    ]
    book.update("testville", [findings[0]], place.start)
    book.update("testville", findings, place.newest)
    app = run(place)
    assert app.text[0].value == "menu: △2"
    assert app.warning[0].value.replace("\\", "") == "2 open alerts in testville: 2 warning. **too** b"
    assert not run(place, of_alerts=False).warning
    place.stores.alerts.write_bytes(b"damaged" * 1000)
    app = run(place)
    assert app.text[0].value == "menu: ?" and "page Alerts says why" in app.warning[0].value
