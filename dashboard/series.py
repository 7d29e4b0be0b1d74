"""One cell over time: the last day observed, the forecast, and what came."""

from __future__ import annotations

from datetime import timedelta

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from dashboard.frames import observed_frame, slot_status
from dashboard.labels import lead_label, moment_label
from trafficcast.city import City

SPAN = np.timedelta64(24, "h")
OBSERVED, FORECAST = "observed", "forecast"
COLOURS = {OBSERVED: "#444444", FORECAST: "#d95f02"}
CELL_WORDS = {"pending": "not observed yet", "down": "the feed was down"}


def cell_series(
    city: City, forecast: xr.Dataset, flows: xr.Dataset | None, kind: str, row: int, col: int
) -> pd.DataFrame:
    """The 24 hours before the init time and the slots forecast, of one cell and one flow kind.

    `forecast` and `flows` as in `frames.frames_at`. Columns: time (slot start, naive UTC), what (observed or
    forecast), vehicles (per slot; NaN where a slot was not observed), label (the slot in the city's zone).
    """
    targets = forecast["valid_time"].values
    slots = np.arange(targets[0] - SPAN, targets[-1] + city.slot, city.slot)
    observed = [_value(observed_frame(flows, slot, kind), row, col) for slot in slots]
    predicted = forecast["flow"].sel(flow_kind=kind).values[:, row, col].astype(float)
    table = pd.DataFrame(
        {
            "time": np.concatenate([slots, targets]),
            "what": [OBSERVED] * len(slots) + [FORECAST] * len(targets),
            "vehicles": np.concatenate([observed, predicted]),
        }
    )
    table["label"] = [moment_label(city, time) for time in table["time"].values]
    return table


def cell_table(
    city: City,
    forecast: xr.Dataset,
    flows: xr.Dataset | None,
    newest: np.datetime64 | None,
    kind: str,
    row: int,
    col: int,
) -> pd.DataFrame:
    """The slots forecast as text: slot, forecast, observed (or why not), difference; vehicles per slot."""
    lines = []
    init_time = forecast["valid_time"].values[0]
    for lead, slot in enumerate(forecast["valid_time"].values):
        predicted = float(forecast["flow"].sel(flow_kind=kind).values[lead, row, col])
        observed = _value(observed_frame(flows, slot, kind), row, col)
        status = slot_status(not np.isnan(observed), slot, newest)
        lines.append(
            {
                "Slot": lead_label(city, init_time, slot - init_time),
                "Forecast": f"{predicted:.1f}",
                "Observed": f"{observed:.0f}" if status == "observed" else CELL_WORDS[status],
                "Difference": f"{predicted - observed:+.1f}" if status == "observed" else "n/a",
            }
        )
    return pd.DataFrame(lines).set_index("Slot")


def series_chart(
    city: City, series: pd.DataFrame, init_time: np.datetime64, height: int
) -> alt.LayerChart | alt.FacetChart:
    """A chart of `cell_series`: the lines hold for their whole slot, a gap is a slot not observed.

    The axis shows the city's clock as it stands at the init time. Vega knows the browser's zone and UTC only,
    so the times are moved by the offset and called UTC.
    """
    local = city.local(np.array([init_time]))[0]
    offset = local.utcoffset() or timedelta(0)
    start = series["time"] + offset
    lines = series.assign(start=start, end=start + timedelta(minutes=city.slot_minutes))
    axis = alt.Axis(format="%H:%M", title=f"slot start, {local:%Z}", grid=False)
    x = alt.X("start:T", scale=alt.Scale(type="utc"), axis=axis)
    colour = alt.Color(
        "what:N",
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=alt.Legend(title=None, orient="top"),
    )
    y = alt.Y("vehicles:Q", title="vehicles per slot", scale=alt.Scale(domainMin=0))
    tooltip = [
        alt.Tooltip("label:N", title="slot start"),
        alt.Tooltip("what:N", title="what"),
        alt.Tooltip("vehicles:Q", title="vehicles", format=".1f"),
    ]
    base = alt.Chart(lines)
    steps = base.mark_rule(strokeWidth=2.5).encode(x=x, x2="end:T", y=y, color=colour, tooltip=tooltip)
    joins = base.mark_line(interpolate="step-after", strokeWidth=1, opacity=0.6)
    now = alt.Chart(pd.DataFrame({"start": [pd.Timestamp(init_time) + offset]}))
    now = now.mark_rule(strokeDash=[4, 4], color="#999999").encode(x=x)
    return alt.layer(now, joins.encode(x=x, y=y, color=colour), steps).properties(height=height)


def _value(frame: np.ndarray | None, row: int, col: int) -> float:
    return float("nan") if frame is None else float(frame[row, col])
