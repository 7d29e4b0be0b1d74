"""The city's sums over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.forecasts.cell_history import _FORECAST, _OBSERVED, _TYPICAL
from dashboard.forecasts.timeline import _ForecastSlot, _shown_slots
from dashboard.forecasts.totals import _city_totals
from trafficcast.forecasting.climatology import Climatology


@pytest.mark.parametrize(("kind", "one", "forecast"), [("inflow", 0, 0), ("outflow", 100, 1000), ("net", -100, -1000)])
def test_each_line_is_the_sum_over_the_cells(place: Any, kind: str, one: int, forecast: int) -> None:
    flows, made = place.add_flows(), place.add_forecast(place.newest)
    typical = Climatology(place.city, np.full((2, 48, 2, 5, 7), 2.0, np.float32))
    slots = _shown_slots(place.city, place.newest)
    table = _city_totals(place.city, _ForecastSlot("vmrnn-b-1", made, 0), flows, typical, kind, slots)
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
    table = _city_totals(place.city, made, place.add_flows(), None, "inflow", _shown_slots(place.city, place.newest))
    seen = table[table["what"] == _OBSERVED]["time"].to_numpy()
    assert place.down not in seen and len(seen) == 49 - 1
    assert set(table["what"]) == {_OBSERVED, _FORECAST}
    assert table["label"].iloc[0].endswith("CEST")


def test_without_flows_only_the_forecast_is_there(place: Any) -> None:
    made = _ForecastSlot("vmrnn-b-1", place.add_forecast(place.newest), 0)
    table = _city_totals(place.city, made, None, None, "inflow", _shown_slots(place.city, place.newest))
    assert set(table["what"]) == {_FORECAST} and len(table) == 4
