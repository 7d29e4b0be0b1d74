"""Alerts and rules as tables, and alerts' places on the grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from dashboard.alerts.tables import _WHOLE_CITY, _alert_table, _area_and_cell, _rule_table
from dashboard.page.severities import head_line, marks
from trafficcast.alerts.book import Alert
from trafficcast.alerts.findings import Finding
from trafficcast.config.alert_rules import _DEFAULTS, FlowRule
from trafficcast.geography.areas import Area

NOW = np.datetime64("2024-05-08T12:00", "us")


def alert(severity: str = "warning", place: str = "", lon: float | None = None, lat: float | None = None) -> Alert:
    found = Finding("flow above=5.0", "flow", severity, "too\nmuch <b>", None, 5.0, place, lon, lat)
    return Alert("testville", found, NOW, None)


def test_a_row_an_alert_in_the_citys_zone(place: Any) -> None:
    over = Alert("testville", alert().finding, NOW, NOW + np.timedelta64(90, "m"))
    table = _alert_table(place.city, [alert("critical", "Harbour"), over])
    assert table["since"].tolist() == ["2024-05-08 14:00 CEST"] * 2
    assert table["until"].tolist() == ["", "2024-05-08 15:30 CEST"]
    assert table["place"].tolist() == ["Harbour", _WHOLE_CITY]
    assert table["message"].tolist() == ["too much <b>"] * 2
    assert table["value"].isna().all() and table["limit"].tolist() == [5.0, 5.0]
    assert table["severity"].str.split().str[-1].tolist() == ["critical", "warning"]
    assert len(_alert_table(place.city, [])) == 0


def test_the_open_ones_are_counted() -> None:
    assert head_line("testville", []) == "No open alerts in testville"
    assert head_line("testville", [alert()]) == "1 open alert in testville: 1 warning"
    assert head_line("testville", [alert(), alert("critical")]) == "2 open alerts in testville: 1 critical, 1 warning"
    assert marks([alert(), alert(), alert("critical")]) == "▲1 △2" and marks([]) == "" and marks(None) == "?"


def test_where_an_alert_is(place: Any) -> None:
    city = place.city
    lon, lat = float(city.lon[4]), float(city.lat[1])
    assert _area_and_cell(alert(), city, {}) == (None, None)
    assert _area_and_cell(alert(place="row 1, column 4", lon=lon, lat=lat), city, {}) == (None, (1, 4))
    assert _area_and_cell(alert(place="far", lon=0.0, lat=0.0), city, {}) == (None, None)
    assert _area_and_cell(alert(place="nowhere", lon=float("nan"), lat=lat), city, {}) == (None, None)
    area = Area("Harbour", np.eye(5, 7), lon, lat, {})
    share, cell = _area_and_cell(alert(place="Harbour", lon=lon, lat=lat), city, {"Harbour": area})
    assert share is area.share and cell == (1, 4)


def test_the_rules_of_the_city(place: Any) -> None:
    table = _rule_table(place.city, _DEFAULTS)
    assert table["rule"].tolist() == ["forecast-overdue", "feed-silent", "fleet", "skill", "coverage", "model-damaged"]
    assert table["limits"].tolist() == [
        "minutes = 20",
        "minutes = 60",
        "share = 0.5",
        "cycles = 6",
        "level = 0.8, tolerance = 0.15, hours = 24",
        "",
    ]
    assert table["raised when"].str.len().min() > 20
    rules = [
        FlowRule(city="testville", above=400, area="Harbour\n<b>"),
        FlowRule(city="elsewhere", above=1),
        FlowRule(times_typical=2, cell=(1, 2)),
    ]
    assert _rule_table(place.city, rules)["limits"].tolist() == [
        "above = 400, area = Harbour <b>",
        "times_typical = 2, at_least = 20, cell = row 1, column 2",
    ]
