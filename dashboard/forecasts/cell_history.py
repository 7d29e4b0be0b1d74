"""One cell or the whole city over time: observed and typical flows, the forecast with its interval, earlier ones."""

from __future__ import annotations

from datetime import timedelta

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from dashboard.forecasts.frames import _observed_frames
from dashboard.forecasts.timeline import _forecast_frames, _ForecastSlot, _interval, _of_place
from dashboard.page.labels import moment_labels
from trafficcast.config.city import City
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology

_OBSERVED, _FORECAST, _TYPICAL, _EARLIER = "observed", "forecast", "typical", "forecast 1 h before"
# Distinguishable for the colour-blind (Okabe & Ito), and on light and dark pages.
_COLOURS = {_OBSERVED: "#888888", _FORECAST: "#d55e00", _TYPICAL: "#0072b2", _EARLIER: "#cc79a7"}
_NAN = float("nan")
_EARLIER_LEAD = 2  # slots ahead of those that the earlier forecasts were of


def _cell_history(
    city: City,
    newest: _ForecastSlot,
    forecasts: list[tuple[str, xr.Dataset]],
    flows: xr.Dataset | None,
    typical: WeekdayClimatology | Climatology | None,
    kind: str,
    cell: tuple[int, int] | None,
    level: float,
    slots: np.ndarray,
) -> pd.DataFrame:
    """A row for each slot and line: time (naive UTC), what, vehicles (per slot), lower, upper (of FORECAST), label.

    `newest` is the forecast shown as FORECAST, at its first lead; `forecasts` are those around it. `cell`: (row, col);
    None is the sum over the city, which has neither an interval nor EARLIER. Net has no interval.
    """

    def vehicles(frames: np.ndarray) -> np.ndarray:
        return _of_place(frames, kind, cell)

    made = newest.forecast
    bounds = None if cell is None else _interval(made, kind, level)
    edges = [] if cell is None or bounds is None else [frames[:, cell[0], cell[1]] for frames in bounds]
    lines = [_line(_FORECAST, made["valid_time"].values, vehicles(made["flow"].values), *edges)]
    if flows is not None:
        times, frames = _observed_frames(flows, slots)
        lines.append(_line(_OBSERVED, times, vehicles(frames)))
    if typical is not None:
        lines.append(_line(_TYPICAL, slots, vehicles(typical.at(slots))))
    if cell is not None:
        times, frames = _forecast_frames(forecasts, city, slots, _EARLIER_LEAD)
        lines.append(_line(_EARLIER, times, vehicles(frames)))
    table = pd.concat([line for line in lines if len(line)], ignore_index=True)
    return table.assign(label=moment_labels(city, table["time"].to_numpy()))


def _line(
    what: str,
    times: np.ndarray,
    vehicles: np.ndarray,
    lower: np.ndarray | float = _NAN,
    upper: np.ndarray | float = _NAN,
) -> pd.DataFrame:
    """A line of `_cell_history` without its labels."""
    return pd.DataFrame({"time": times, "what": what, "vehicles": vehicles, "lower": lower, "upper": upper})


def _history_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each slot of `_cell_history`, the newest first, a column for each line; rounded, vehicles per slot."""
    wide = table.pivot(index="time", columns="what", values="vehicles")
    bounds = table[table["what"] == _FORECAST].set_index("time")[["lower", "upper"]]
    labels = table.drop_duplicates("time").set_index("time")["label"]
    names = [name for name in _COLOURS if name in wide]
    whole = wide[names].join(bounds).sort_index(ascending=False).round(1)
    return whole.assign(slot=labels)[["slot", *names, "lower", "upper"]]


def _history_chart(
    city: City, table: pd.DataFrame, init_time: np.datetime64, height: int
) -> alt.LayerChart | alt.FacetChart:
    """A chart of `_cell_history`: lines hold for their whole slot; a gap is a slot not observed.

    The axis shows the city's clock as it stands at the init time. Vega knows the browser's zone and UTC only, so the
    times are moved by the offset and called UTC.
    """
    local = city.local(np.array([init_time]))[0]
    offset = local.utcoffset() or timedelta(0)
    start = table["time"] + offset
    lines = table.assign(start=start, end=start + timedelta(minutes=city.slot_minutes))
    shown = [what for what in _COLOURS if (table["what"] == what).any()]
    axis = alt.Axis(format="%H:%M", title=f"slot start, {local:%Z}", grid=False)
    # Channels as objects: Altair looks a string's up in its whole schema.
    x, end = alt.X("start:T", scale=alt.Scale(type="utc"), axis=axis), alt.X2("end:T")
    colour = alt.Color(
        "what:N",
        scale=alt.Scale(domain=shown, range=[_COLOURS[what] for what in shown]),
        legend=alt.Legend(title=None, orient="top"),
    )
    y = alt.Y("vehicles:Q", title="vehicles per slot")
    tooltip = [
        alt.Tooltip("label:N", title="slot start"),
        alt.Tooltip("what:N", title="line"),
        alt.Tooltip("vehicles:Q", title="vehicles per slot", format=".1f"),
        alt.Tooltip("lower:Q", title="interval from", format=".1f"),
        alt.Tooltip("upper:Q", title="to", format=".1f"),
    ]
    bounded = alt.Chart(lines[lines["what"] == _FORECAST].dropna())
    band = bounded.mark_rect(opacity=0.25, color=_COLOURS[_FORECAST]).encode(
        x=x, x2=end, y=alt.Y("lower:Q"), y2=alt.Y2("upper:Q")
    )
    steps = alt.Chart(lines).mark_rule(strokeWidth=2.5).encode(x=x, x2=end, y=y, color=colour, tooltip=tooltip)
    now = alt.Chart(pd.DataFrame({"start": [pd.Timestamp(init_time) + offset]}))
    now = now.mark_rule(strokeDash=[4, 4], color="#999999").encode(x=x)
    return alt.layer(now, band, steps).properties(height=height)
