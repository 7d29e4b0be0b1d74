"""One day of a cell or of the whole city: observed and typical flows, and the forecasts of each lead time."""

from __future__ import annotations

import json

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from dashboard.forecasts.cell_history import _OBSERVED, _TYPICAL
from dashboard.forecasts.timeline import _ahead, _of_place
from dashboard.page.labels import moment_labels
from trafficcast.config.city import City
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology

_MINUTE = np.timedelta64(1, "m")
_HOUR = 60 * _MINUTE
# Distinguishable for the colour-blind (Okabe & Ito), and on light and dark pages.
_OBSERVED_COLOUR, _TYPICAL_COLOUR = "#888888", "#0072b2"
_LEAD_COLOURS = ("#d55e00", "#e69f00", "#cc79a7", "#009e73")
_TICK_HOURS = 3


def _cell_day(
    city: City,
    forecasts: list[tuple[str, xr.Dataset]],
    flows: xr.Dataset | None,
    typical: WeekdayClimatology | Climatology | None,
    kind: str,
    cell: tuple[int, int] | None,
    slots: np.ndarray,
) -> pd.DataFrame:
    """A row for each slot and line: time (slot start, naive UTC), what, vehicles (per slot), label.

    `cell`: (row, col); None is the sum over the city. `slots`: those of the day. Lines: OBSERVED, TYPICAL and
    `_ahead` of every lead. Slots not observed or not forecast have no row.
    """
    parts = []
    if flows is not None:
        seen = flows["observed"].values
        parts.append(_line(flows["time"].values[seen], _OBSERVED, _of_place(flows["flow"].values[seen], kind, cell)))
    if typical is not None:
        parts.append(_line(slots, _TYPICAL, _of_place(typical.at(slots), kind, cell)))
    for _, dataset in forecasts:
        values = _of_place(dataset["flow"].values, kind, cell)  # (init time, lead)
        for lead, ahead in enumerate(dataset["lead_time"].values):
            times = dataset["valid_time"].values[:, lead]
            parts.append(_line(times, _ahead(int(ahead / _MINUTE)), values[:, lead]))
    columns = ["time", "what", "vehicles", "label"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns[:3])
    table = table[table["time"].isin(slots)].sort_values("time", kind="stable").reset_index(drop=True)
    labels = pd.Series(moment_labels(city, slots), index=slots)
    return table.assign(label=table["time"].map(labels))[columns]


def _day_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each slot of `_cell_day`, a column for each line, vehicles per slot."""
    wide = table.pivot(index="time", columns="what", values="vehicles")
    labels = table.drop_duplicates("time").set_index("time")["label"].str.split().str[-2:].str.join(" ").rename("slot")
    names = list(dict.fromkeys(table["what"]))
    ordered = [name for name in (_OBSERVED, _TYPICAL) if name in names]
    ordered += sorted((name for name in names if name not in ordered), key=_minutes)
    return pd.concat([labels, wide[ordered].round(1)], axis=1).reset_index(drop=True)


def _day_chart(
    city: City, table: pd.DataFrame, slots: np.ndarray, slot: np.datetime64, height: int
) -> alt.LayerChart | alt.FacetChart:
    """A chart of `_cell_day`; a gap is a slot not observed or not forecast, the dashed line the slot shown on the maps.

    The axis counts the hours gone by since midnight and shows the city's clock, so that a day with a change of clocks
    has its 23 or 25 hours.
    """
    since = ((table["time"].to_numpy("datetime64[us]") - slots[0]) / _HOUR).astype(float)
    lines = table.drop(columns="time").assign(start=since, end=since + city.slot_minutes / 60)
    forecast = sorted({name for name in table["what"] if name not in (_OBSERVED, _TYPICAL)}, key=_minutes)
    colours = {_OBSERVED: _OBSERVED_COLOUR, _TYPICAL: _TYPICAL_COLOUR}
    colours |= {name: _LEAD_COLOURS[i % len(_LEAD_COLOURS)] for i, name in enumerate(forecast)}
    shown = [name for name in colours if name in set(table["what"])]
    whole = len(slots) * city.slot_minutes / 60
    x = alt.X("start:Q", scale=alt.Scale(domain=[0, whole], nice=False), axis=_axis(city, slots))
    chosen = alt.selection_point(fields=["what"], bind="legend")
    steps = (
        alt.Chart(lines)
        .mark_rule(strokeWidth=2.5)
        .encode(
            x=x,
            x2="end:Q",
            y=alt.Y("vehicles:Q", title="vehicles per slot"),
            color=alt.Color(
                "what:N",
                scale=alt.Scale(domain=shown, range=[colours[name] for name in shown]),
                legend=alt.Legend(title=None, orient="top", columns=3),
            ),
            opacity=alt.condition(chosen, alt.value(1.0), alt.value(0.1)),
            tooltip=[
                alt.Tooltip("label:N", title="slot start"),
                alt.Tooltip("what:N", title="line"),
                alt.Tooltip("vehicles:Q", title="vehicles per slot", format=".1f"),
            ],
        )
        .add_params(chosen)
    )
    marks = alt.Chart(pd.DataFrame({"start": [float((slot - slots[0]) / _HOUR)]}))
    mark = marks.mark_rule(strokeDash=[4, 4], color="#999999").encode(x=x)
    return alt.layer(mark, steps).properties(height=height)


def _axis(city: City, slots: np.ndarray) -> alt.Axis:
    """Every few hours of the city's clock, at hours gone by since the first slot."""
    local = city.local(slots)
    marks = {
        float((slot - slots[0]) / _HOUR): f"{clock:%H:%M}"
        for slot, clock in zip(slots, local, strict=True)
        if clock.hour % _TICK_HOURS == 0 and clock.minute == 0
    }
    zones = " then ".join(dict.fromkeys(f"{clock:%Z}" for clock in local))
    labels = f"{json.dumps({f'{at:g}': text for at, text in marks.items()})}[datum.value]"
    return alt.Axis(values=list(marks), labelExpr=labels, title=f"slot start, {zones}", grid=False)


def _line(times: np.ndarray, what: str, vehicles: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"time": times, "what": what, "vehicles": vehicles})


def _minutes(name: str) -> int:
    digits = "".join(character for character in name if character.isdigit())
    return int(digits or 0)
