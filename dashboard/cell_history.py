"""One cell over time: the last day observed, the forecast with its interval, what is typical, and earlier forecasts."""

from __future__ import annotations

from datetime import timedelta

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from dashboard.frames import observed_frame
from dashboard.labels import moment_label
from dashboard.timeline import Expected, expected, of_kind
from trafficcast.baselines import Climatology
from trafficcast.city import City
from trafficcast.forecasts import has_intervals
from trafficcast.normal import Normal
from trafficcast.windows import HORIZON

OBSERVED, FORECAST, TYPICAL, EARLIER = "observed", "forecast", "typical", "forecast 1 h before"
# Distinguishable for the colour-blind (Okabe & Ito), and on light and dark pages.
COLOURS = {OBSERVED: "#888888", FORECAST: "#d55e00", TYPICAL: "#0072b2", EARLIER: "#cc79a7"}
EARLIER_LEAD = 2  # slots ahead of those that the earlier forecasts were of


def cell_history(
    city: City,
    newest: Expected,
    forecasts: list[tuple[str, xr.Dataset]],
    flows: xr.Dataset | None,
    typical: Normal | Climatology | None,
    kind: str,
    cell: tuple[int, int],
    level: float,
    slots: np.ndarray,
) -> pd.DataFrame:
    """A row for each slot and line: time (naive UTC), what, vehicles (per slot), lower, upper (of FORECAST), label.

    `newest` is the forecast shown as FORECAST, at its first lead; `forecasts` are those around it. Net has no interval.
    """
    made = newest.forecast
    targets = made["valid_time"].values
    rows: list[tuple[np.datetime64, str, float, float, float]] = []
    nan = float("nan")
    for slot in slots:
        seen = None if flows is None else observed_frame(flows, slot)
        if seen is not None:
            rows.append((slot, OBSERVED, float(of_kind(seen, kind)[cell]), nan, nan))
        if typical is not None:
            rows.append((slot, TYPICAL, float(of_kind(typical.at(np.array([slot]))[0], kind)[cell]), nan, nan))
        earlier = expected(forecasts, city, slot, EARLIER_LEAD)
        if earlier is not None:
            rows.append((slot, EARLIER, float(earlier.flow(kind)[cell]), nan, nan))
    bounds = _bounds(made, kind, cell, level)
    for lead in range(HORIZON):
        vehicles = float(Expected(newest.version, made, lead).flow(kind)[cell])
        rows.append((targets[lead], FORECAST, vehicles, *bounds[lead]))
    table = pd.DataFrame(rows, columns=["time", "what", "vehicles", "lower", "upper"])
    return table.assign(label=[moment_label(city, time) for time in table["time"].values])


def history_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each slot of `cell_history`, the newest first, a column for each line; rounded, vehicles per slot."""
    wide = table.pivot(index="time", columns="what", values="vehicles")
    bounds = table[table["what"] == FORECAST].set_index("time")[["lower", "upper"]]
    labels = table.drop_duplicates("time").set_index("time")["label"]
    names = [name for name in COLOURS if name in wide]
    whole = wide[names].join(bounds).sort_index(ascending=False).round(1)
    return whole.assign(slot=labels)[["slot", *names, "lower", "upper"]]


def history_chart(
    city: City, table: pd.DataFrame, init_time: np.datetime64, height: int
) -> alt.LayerChart | alt.FacetChart:
    """A chart of `cell_history`: lines hold for their whole slot; a gap is a slot not observed.

    The axis shows the city's clock as it stands at the init time. Vega knows the browser's zone and UTC only, so the
    times are moved by the offset and called UTC.
    """
    local = city.local(np.array([init_time]))[0]
    offset = local.utcoffset() or timedelta(0)
    start = table["time"] + offset
    lines = table.assign(start=start, end=start + timedelta(minutes=city.slot_minutes))
    shown = [what for what in COLOURS if (table["what"] == what).any()]
    axis = alt.Axis(format="%H:%M", title=f"slot start, {local:%Z}", grid=False)
    x = alt.X("start:T", scale=alt.Scale(type="utc"), axis=axis)
    colour = alt.Color(
        "what:N",
        scale=alt.Scale(domain=shown, range=[COLOURS[what] for what in shown]),
        legend=alt.Legend(title=None, orient="top"),
    )
    y = alt.Y("vehicles:Q", title="vehicles per slot")
    tooltip = [
        alt.Tooltip("label:N", title="slot start"),
        alt.Tooltip("what:N", title="what"),
        alt.Tooltip("vehicles:Q", title="vehicles per slot", format=".1f"),
        alt.Tooltip("lower:Q", title="interval from", format=".1f"),
        alt.Tooltip("upper:Q", title="to", format=".1f"),
    ]
    bounded = alt.Chart(lines[lines["what"] == FORECAST].dropna())
    band = bounded.mark_rect(opacity=0.25, color=COLOURS[FORECAST]).encode(x=x, x2="end:T", y="lower:Q", y2="upper:Q")
    steps = alt.Chart(lines).mark_rule(strokeWidth=2.5).encode(x=x, x2="end:T", y=y, color=colour, tooltip=tooltip)
    now = alt.Chart(pd.DataFrame({"start": [pd.Timestamp(init_time) + offset]}))
    now = now.mark_rule(strokeDash=[4, 4], color="#999999").encode(x=x)
    return alt.layer(now, band, steps).properties(height=height)


def _bounds(made: xr.Dataset, kind: str, cell: tuple[int, int], level: float) -> list[tuple[float, float]]:
    if kind == "net" or not has_intervals(made):
        return [(float("nan"), float("nan"))] * HORIZON
    place = int(np.argmin(np.abs(made["level"].values - level)))
    lower, upper = (made[name].values[place] for name in ("lower", "upper"))
    return [(float(of_kind(lower[i], kind)[cell]), float(of_kind(upper[i], kind)[cell])) for i in range(HORIZON)]
