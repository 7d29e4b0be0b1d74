"""Charts of slots: a calendar of days and times of day, and vehicles or records over the same days."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from dashboard.data.slots import _RUNNING
from trafficcast.ingestion.quality_report import MISSING, OBSERVED, PARTIAL

# Sky blue, vermilion and yellow of Okabe & Ito and grey: distinguishable for the colour-blind, on light and dark pages.
_COLOURS = {OBSERVED: "#56b4e9", PARTIAL: "#d55e00", MISSING: "#7d7d7d", _RUNNING: "#f0e442"}
_LINE = "#2b8cc4"  # as far from white as from black
_BY_STATE, _BY_COVERAGE = "state", "coverage"
_WEEKS = 8
_DAY = np.timedelta64(1, "D")
_SLOT = "slot"  # the selection of the calendar


def _months(days: list[np.datetime64]) -> list[np.datetime64]:
    """The months from that of the first to that of the last day, the newest first, datetime64[M]."""
    if not days:
        return []
    first, last = (day.astype("datetime64[M]") for day in (days[0], days[-1]))
    return list(np.arange(first, last + 1)[::-1])


def _period_days(days: list[np.datetime64], month: np.datetime64 | None) -> tuple[np.datetime64, np.datetime64]:
    """The first and the last local day shown: those of a month, or of the last weeks, between the store's own.

    `days`: those of the store, in order, one at least.
    """
    if month is None:
        first, last = days[-1] - (7 * _WEEKS - 1) * _DAY, days[-1]
    else:
        first, last = month.astype("datetime64[D]"), (month + 1).astype("datetime64[D]") - _DAY
    return max(first, days[0]), min(last, days[-1])


def _month_label(month: np.datetime64) -> str:
    """'June 2008'."""
    return f"{month.astype('datetime64[M]').item():%B %Y}"


def _calendar_chart(table: pd.DataFrame, by: str, zone: str, height: int) -> alt.Chart:
    """A chart of a `_slot_table`, coloured `by` state or coverage; a click chooses the slot of that time.

    An hour that the clocks repeat stands there twice, side by side; one that they skip is left out. Vega knows the
    browser's zone and UTC only, so days are called UTC.
    """
    width = pd.Timedelta(days=1) / table["parts"]
    left = table["day"] + table["part"] * width
    cells = table.assign(left=left, right=left + width, id=np.arange(len(table)))
    axis = alt.Axis(format="%a %d %b", title=None, grid=False, labelOverlap=True, tickCount="day", labelAngle=0)
    span = [table["day"].min().isoformat(), (table["day"].max() + pd.Timedelta(days=1)).isoformat()]
    hours = alt.Axis(
        values=list(range(0, 25, 6)),
        labelExpr="(datum.value < 10 ? '0' : '') + datum.value + ':00'",
        title=f"local time, {zone}",
        grid=False,
    )
    chosen = alt.selection_point(name=_SLOT, fields=["id"], on="click", empty=True)
    shown = [state for state in _COLOURS if state != _RUNNING or (table["state"] == _RUNNING).any()]
    colour = (
        alt.Color(
            "state:N",
            scale=alt.Scale(domain=shown, range=[_COLOURS[state] for state in shown]),
            legend=alt.Legend(title=None, orient="top"),
        )
        if by == _BY_STATE
        else alt.Color(
            "coverage:Q",
            scale=alt.Scale(domain=[0, 1], scheme="cividis"),
            legend=alt.Legend(
                title="share of minutes with a report",
                orient="top",
                format=".0%",
                titleOrient="left",
                titleLimit=300,
                gradientThickness=8,
            ),
        )
    )
    return (
        alt.Chart(cells[["id", "left", "right", "hour", "until", "state", "coverage", "vehicles", "records", "label"]])
        .mark_rect(stroke=None)
        .encode(
            x=alt.X("left:T", scale=alt.Scale(type="utc", domain=span), axis=axis),
            x2="right:T",
            y=alt.Y("hour:Q", scale=alt.Scale(domain=[0, 24], reverse=True, nice=False), axis=hours),
            y2="until:Q",
            color=colour,
            opacity=alt.condition(chosen, alt.value(1.0), alt.value(0.35)),
            tooltip=[
                alt.Tooltip("label:N", title="slot start"),
                alt.Tooltip("state:N", title="state"),
                alt.Tooltip("coverage:Q", title="minutes with a report", format=".0%"),
                alt.Tooltip("vehicles:Q", title="vehicles", format=",.0f"),
                alt.Tooltip("records:Q", title="records", format=",.0f"),
            ],
        )
        .add_params(chosen)
        .properties(height=height)
    )


def _steps(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The points of a line through a column of a `_slot_table` that holds for each whole slot and stops at gaps.

    Columns: at (local), value, label. What is not a number is a gap, and so are a missing slot and the running one.
    """
    at = table["day"] + pd.to_timedelta(table["hour"], unit="h")
    length = pd.to_timedelta(table["until"] - table["hour"], unit="h")
    value = table[column].where(~table["state"].isin([MISSING, _RUNNING]))
    points = pd.DataFrame({"at": at, "value": value, "label": table["label"], "order": np.arange(len(table)) * 2.0})
    # The last slot before a gap ends where the gap begins.
    closes = value.notna() & value.shift(-1).isna()
    ends = points[closes].assign(at=(at + length)[closes], order=points["order"][closes] + 1)
    return pd.concat([points, ends]).sort_values("order").drop(columns="order").reset_index(drop=True)


def _line_chart(table: pd.DataFrame, column: str, height: int) -> alt.Chart:
    """A column of a `_slot_table` over local time."""
    points = _steps(table, column)
    points = points.assign(order=np.arange(len(points)))
    return (
        alt.Chart(points)
        .mark_line(interpolate="step-after", strokeWidth=1.2, color=_LINE)
        .encode(
            x=alt.X(
                "at:T",
                scale=alt.Scale(type="utc"),
                axis=alt.Axis(format="%d %b", title=None, grid=False, labelOverlap=True),
            ),
            y=alt.Y("value:Q", title=f"{column} per slot"),
            order="order:Q",
            tooltip=[
                alt.Tooltip("label:N", title="slot start"),
                alt.Tooltip("value:Q", title=column, format=",.0f"),
            ],
        )
        .properties(height=height)
    )
