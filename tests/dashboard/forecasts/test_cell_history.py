"""One cell over time, and its chart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.forecasts.cell_history import (
    _EARLIER,
    _FORECAST,
    _OBSERVED,
    _TYPICAL,
    _cell_history,
    _history_chart,
    _history_table,
)
from dashboard.forecasts.timeline import _ForecastSlot, _shown_slots
from trafficcast.forecasting.climatology import Climatology

CELL = (2, 3)  # number 17


def history(place: Any, kind: str = "inflow") -> Any:
    """Of a place with flows, a newest forecast with intervals and one an hour earlier."""
    flows, earlier = place.add_flows(), place.newest - np.timedelta64(60, "m")
    place.add_forecast(earlier)
    made = place.bounded(place.add_forecast(place.newest))
    typical = Climatology(place.city, np.full((2, 48, 2, 5, 7), 2.0, np.float32))
    forecasts = [("vmrnn-b-1", place.forecasts().read())]
    slots = _shown_slots(place.city, place.newest)
    shown = _ForecastSlot("vmrnn-b-1", made, 0)
    return _cell_history(place.city, shown, forecasts, flows, typical, kind, CELL, 0.8, slots)


def test_each_line_is_that_of_the_cell(place: Any) -> None:
    table = history(place)
    at = {what: rows.set_index("time")["vehicles"] for what, rows in table.groupby("what")}
    assert at[_OBSERVED][place.newest] == 66 % 48 + 17
    assert place.down not in at[_OBSERVED].index
    assert set(at[_TYPICAL]) == {2.0} and len(at[_TYPICAL]) == 52
    assert at[_FORECAST].tolist() == pytest.approx([17.5, 27.5, 37.5, 47.5])
    # Lead 2 of the forecast an hour before, and of the newest one.
    assert at[_EARLIER][place.newest] == pytest.approx(37.5)
    assert at[_EARLIER][place.newest + np.timedelta64(60, "m")] == pytest.approx(37.5)


def test_only_the_forecast_has_bounds_and_net_none(place: Any) -> None:
    table = history(place)
    ahead = table[table["what"] == _FORECAST]
    assert (ahead["upper"] - ahead["lower"]).tolist() == pytest.approx([4, 4, 4, 4])
    assert table[table["what"] != _FORECAST]["lower"].isna().all()
    net = history(place, "net")
    assert net["lower"].isna().all()
    assert net[net["what"] == _FORECAST]["vehicles"].tolist() == pytest.approx([-1000] * 4)


def test_the_table_has_a_row_for_each_slot_the_newest_first(place: Any) -> None:
    table = _history_table(history(place))
    assert len(table) == 52
    assert table["slot"].iloc[0] == "Wed 8 May 2024 10:30 CEST"
    assert table[_FORECAST].iloc[0] == 47.5 and table["lower"].iloc[0] == 45.5
    assert np.isnan(table[_OBSERVED].iloc[0])


def test_the_chart_shows_the_citys_clock(place: Any) -> None:
    made = _history_chart(place.city, history(place), place.newest, 200).to_dict()
    rows = [row for data in made["datasets"].values() for row in data if row.get("what") == _OBSERVED]
    assert "2024-05-08T09:00" in max(row["start"] for row in rows)  # 07:00 UTC
    assert "CEST" in str(made["layer"])


@pytest.mark.parametrize(("kind", "one", "forecast"), [("inflow", 0, 0), ("outflow", 100, 1000), ("net", -100, -1000)])
def test_each_line_of_the_city_is_the_sum_over_its_cells(place: Any, kind: str, one: int, forecast: int) -> None:
    flows, made = place.add_flows(), place.add_forecast(place.newest)
    typical = Climatology(place.city, np.full((2, 48, 2, 5, 7), 2.0, np.float32))
    slots = _shown_slots(place.city, place.newest)
    table = _cell_history(place.city, _ForecastSlot("vmrnn-b-1", made, 0), [], flows, typical, kind, None, 0.8, slots)
    cells = 0 if kind == "net" else sum(range(35))
    last = table[(table["what"] == _OBSERVED) & (table["time"] == place.newest)]["vehicles"].item()
    slot_of_day = 0 if kind == "net" else (flows.sizes["time"] - 1) % 48
    assert last == 35 * (slot_of_day + one) + cells
    ahead = table[table["what"] == _FORECAST].sort_values("time")["vehicles"]
    lead = 0 if kind == "net" else 10
    half = 0 if kind == "net" else 0.5
    assert ahead.tolist() == pytest.approx([35 * (lead * i + forecast + half) + cells for i in range(4)])
    assert set(table[table["what"] == _TYPICAL]["vehicles"]) == {0.0 if kind == "net" else 70.0}


def test_a_slot_not_observed_leaves_a_gap(place: Any) -> None:
    made = _ForecastSlot("vmrnn-b-1", place.add_forecast(place.newest), 0)
    table = _cell_history(
        place.city, made, [], place.add_flows(), None, "inflow", None, 0.8, _shown_slots(place.city, place.newest)
    )
    seen = table[table["what"] == _OBSERVED]["time"].to_numpy()
    assert place.down not in seen and len(seen) == 49 - 1
    assert set(table["what"]) == {_OBSERVED, _FORECAST}
    assert table["label"].iloc[0].endswith("CEST")


def test_without_flows_only_the_forecast_is_there(place: Any) -> None:
    made = _ForecastSlot("vmrnn-b-1", place.add_forecast(place.newest), 0)
    table = _cell_history(place.city, made, [], None, None, "inflow", None, 0.8, _shown_slots(place.city, place.newest))
    assert set(table["what"]) == {_FORECAST} and len(table) == 4
