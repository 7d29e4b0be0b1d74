"""Charts of forecasters' errors and of intervals. A forecaster keeps its colour and its shape on every chart."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from dashboard.page.labels import lead_name
from dashboard.skill.tables import _weekday_names

# Distinguishable for the colour-blind (Okabe & Ito), and on light and dark pages; shapes distinguish
# more forecasters than colours can.
_MODEL = "#d55e00"
_BASELINES = {
    "persistence": ("#888888", "square"),
    "last_week": ("#cc79a7", "triangle-up"),
    "climatology": ("#0072b2", "diamond"),
    "scaled_climatology": ("#56b4e9", "cross"),
    "anomaly_persistence": ("#009e73", "triangle-down"),
    "pattern_persistence": ("#8c6d31", "wedge"),
    "lightgbm": ("#e69f00", "triangle-right"),
}
_OTHER = ("#888888", "triangle-left")
_MOST_MARKS = 6  # dates below a chart
_MANY = 40  # points of a line that stand close together
_UNIT = "vehicles per slot"
_Chart = alt.LayerChart | alt.FacetChart


def _lead_chart(table: pd.DataFrame, version: str, measure: str, height: int) -> _Chart:
    """Errors by lead, of `_errors_by` grouped by lead times in minutes."""
    leads = sorted(table["group"].unique().tolist())
    axis = alt.Axis(title="lead time, minutes", values=leads, grid=False)
    named = table.assign(label=[lead_name(int(minutes)) for minutes in table["group"]])
    return _errors(named, version, measure, alt.X("group:Q", axis=axis), height)


def _day_chart(table: pd.DataFrame, version: str, measure: str, height: int) -> _Chart:
    """Errors by local day, of `_errors_by` grouped by days."""
    # Vega knows the browser's zone and UTC only: a day is its midnight called UTC.
    days = table.assign(group=pd.to_datetime(table["group"]), label=table["group"].astype(str))
    known = days["group"].drop_duplicates().sort_values()
    marks = known.iloc[:: max(len(known) // _MOST_MARKS, 1)]
    values = [alt.DateTime(year=day.year, month=day.month, date=day.day, utc=True) for day in marks]
    axis = alt.Axis(title="local day of the slot", format="%d %b %Y", values=values, grid=False, labelOverlap=True)
    x = alt.X("group:T", scale=alt.Scale(type="utc"), axis=axis)
    return _errors(days, version, measure, x, height)


def _hour_chart(table: pd.DataFrame, version: str, measure: str, zone: str, height: int) -> _Chart:
    """Errors by hour of the day in the city's zone, of `_errors_by` grouped by hours."""
    axis = alt.Axis(title=f"hour of the slot, {zone}", values=list(range(0, 24, 3)), grid=False)
    x = alt.X("group:Q", scale=alt.Scale(domain=[0, 23]), axis=axis)
    return _errors(table, version, measure, x, height)


def _weekday_chart(table: pd.DataFrame, version: str, measure: str, height: int) -> _Chart:
    """Errors by day of the week, of `_errors_by` grouped by days of the week, Monday 0."""
    names = _weekday_names(range(7))
    axis = alt.Axis(title="day of the week of the slot", labelAngle=0)
    x = alt.X("label:O", sort=names, scale=alt.Scale(domain=names), axis=axis)
    return _errors(table.assign(label=_weekday_names(table["group"])), version, measure, x, height)


def _coverage_chart(table: pd.DataFrame, height: int) -> _Chart:
    """The share of observed flows inside intervals by lead time, a line for each level; rules show the levels."""
    shown = table.assign(name=[f"{level:.0%} interval" for level in table["level"]])
    leads = sorted(shown["lead"].unique().tolist())
    names = list(dict.fromkeys(shown["name"]))
    palette = [_MODEL, "#0072b2", "#009e73", "#cc79a7"]
    colour = alt.Color(
        "name:N",
        scale=alt.Scale(domain=names, range=[palette[place % len(palette)] for place in range(len(names))]),
        legend=alt.Legend(title=None, orient="top"),
    )
    axis = alt.Axis(title="lead, minutes", values=leads, grid=False)
    tooltip = [
        alt.Tooltip("name:N", title="level"),
        alt.Tooltip("lead:Q", title="lead, minutes"),
        alt.Tooltip("inside:Q", title="observed flows inside", format=".1%"),
        alt.Tooltip("width:Q", title=f"mean width, {_UNIT}", format=".2f"),
        alt.Tooltip("slots:Q", title="slots scored"),
    ]
    y = alt.Y("inside:Q", title="observed flows inside", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    lines = (
        alt.Chart(shown)
        .mark_line(point=alt.OverlayMarkDef(size=60), strokeWidth=2.5)
        .encode(x=alt.X("lead:Q", axis=axis), y=y, color=colour, tooltip=tooltip)
    )
    nominal = (
        alt.Chart(shown.drop_duplicates("level"))
        .mark_rule(strokeDash=[5, 4], strokeWidth=2)
        .encode(y="level:Q", color=colour)
    )
    return alt.layer(nominal, lines).properties(height=height)


def _errors(table: pd.DataFrame, version: str, measure: str, x: alt.X, height: int) -> _Chart:
    """Lines of `_errors_by`, the model's the widest; `x` is over `group`, or over `label` where there is one."""
    shown = table if "label" in table else table.assign(label=table["group"].astype(str))
    names = sorted(dict.fromkeys(shown["forecaster"]), key=lambda name: name != version)
    shown = shown.sort_values("forecaster", key=lambda column: column == version, kind="stable")  # the model on top
    looks = [(_MODEL, "circle") if name == version else _BASELINES.get(name, _OTHER) for name in names]
    legend = alt.Legend(title=None, orient="top", columns=3, labelLimit=220)
    colour = alt.Color(
        "forecaster:N", scale=alt.Scale(domain=names, range=[colour for colour, _ in looks]), legend=legend
    )
    shape = alt.Shape("forecaster:N", scale=alt.Scale(domain=names, range=[shape for _, shape in looks]), legend=legend)
    y = alt.Y("error:Q", title=f"{measure}, {_UNIT}", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("forecaster:N", title="forecaster"),
        alt.Tooltip("label:N", title=" "),
        alt.Tooltip("error:Q", title=f"{measure}, {_UNIT}", format=".3f"),
        *([alt.Tooltip("slots:Q", title="slots scored")] if "slots" in shown else []),
    ]
    # A name is compared here: in Vega's expression it would be a part of a program.
    shown = shown.assign(is_model=shown["forecaster"] == version)
    width: Any = alt.condition("datum.is_model", alt.value(3.5), alt.value(1.5))
    base = alt.Chart(shown).encode(x=x, y=y, color=colour)
    lines = base.mark_line().encode(strokeWidth=width)
    size = 55 if shown["group"].nunique() <= _MANY else 12
    points = base.mark_point(filled=True, size=size, opacity=1).encode(shape=shape, tooltip=tooltip)
    return alt.layer(lines, points).properties(height=height)
