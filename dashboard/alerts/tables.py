"""Tables of alerts and of the rules that raise them, and the position of an alert on the grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from dashboard.page.labels import one_line
from dashboard.page.severities import SIGNS
from trafficcast.alerts.book import Alert
from trafficcast.config.alert_rules import Rule
from trafficcast.config.city import City
from trafficcast.geography.areas import Area
from trafficcast.geography.cells import cell_at, cell_name

_WHOLE_CITY = "the whole city"
_UNITS = {
    "forecast-overdue": "minutes",
    "feed-silent": "minutes",
    "fleet": "share",
    "skill": "vehicles per slot",
    "coverage": "share",
    "flow": "vehicles per slot",
}
_RAISED_WHEN = {
    "forecast-overdue": "a slot began more minutes ago than the limit, and no forecast starts with it or later",
    "feed-silent": "a slot ended more minutes ago than the limit, and is not observed",
    "fleet": "few of the usual vehicles reported in the slot before the newest forecast",
    "skill": "the RMSE was above that of persistence in each of the last scored forecasts (cycles: how many)",
    "coverage": "the share of observed flows inside the interval differs from the level by more than the tolerance",
    "model-damaged": "files of the champion are damaged, so that another model or none replaces it",
    "flow": "a forecast flow, in vehicles per slot, is above the limit, or above times_typical times the typical flow",
}


def _alert_table(city: City, alerts: Iterable[Alert]) -> pd.DataFrame:
    """A row for each alert, in their order.

    Columns: severity, since and until (the city's zone; empty while it is open), place, message, value and limit (in
    `unit`; the value is not a number where there is none), rule.
    """
    alerts = list(alerts)
    return pd.DataFrame(
        {
            "severity": [_severity(alert.finding.severity) for alert in alerts],
            "since": [_moment(city, alert.raised) for alert in alerts],
            "until": ["" if alert.cleared is None else _moment(city, alert.cleared) for alert in alerts],
            "place": [one_line(alert.finding.place) or _WHOLE_CITY for alert in alerts],
            "message": [one_line(alert.finding.message) for alert in alerts],
            "value": np.array([alert.finding.value for alert in alerts], np.float64),
            "limit": np.array([alert.finding.limit for alert in alerts], np.float64),
            "unit": [_UNITS.get(alert.finding.kind, "") for alert in alerts],
            "rule": [one_line(alert.finding.rule) for alert in alerts],
        }
    )


def _rule_table(city: City, rules: Iterable[Rule]) -> pd.DataFrame:
    """The rules that hold for a city: kind, severity, raised when, and their limits as the configuration has them."""
    rows = []
    for rule in rules:
        if rule.city not in (None, city.name):
            continue
        limits = rule.model_dump(exclude={"kind", "city", "severity"}, exclude_none=True)
        if limits.get("above") and "times_typical" not in limits:
            del limits["at_least"]  # belongs to times_typical
        limits_text = ", ".join(f"{name} = {_limit(value)}" for name, value in limits.items())
        rows.append((rule.kind, _severity(rule.severity), _RAISED_WHEN.get(rule.kind, ""), one_line(limits_text)))
    return pd.DataFrame(rows, columns=["rule", "severity", "raised when", "limits"])


def _area_and_cell(
    alert: Alert, city: City, areas: Mapping[str, Area]
) -> tuple[np.ndarray | None, tuple[int, int] | None]:
    """The share of each cell that the alert's area covers, (row, col), and the cell, (row, col), to look at.

    Of an area the cell is the one that holds its point. None both: the alert is about the whole city, or about a place
    that the grid does not have.
    """
    found = alert.finding
    area = areas.get(found.place)
    share = None if area is None else area.share
    if found.lon is None or found.lat is None or not np.isfinite([found.lon, found.lat]).all():
        return share, None
    return share, cell_at(city, found.lat, found.lon)


def _severity(name: str) -> str:
    """A severity with its sign."""
    return f"{SIGNS[name]} {name}" if name in SIGNS else one_line(name)


def _limit(value: object) -> str:
    if isinstance(value, tuple):
        return cell_name(*value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _moment(city: City, time: np.datetime64) -> str:
    return f"{city.local(np.array([time]))[0]:%Y-%m-%d %H:%M %Z}"
