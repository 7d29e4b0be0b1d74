"""One cell over time."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from dashboard.series import cell_series, cell_table, series_chart

HALF_HOUR = np.timedelta64(30, "m")


def test_a_series_is_the_last_day_the_forecast_and_what_came(place: Any) -> None:
    flows = place.add_flows()
    init_time = place.newest - HALF_HOUR
    series = cell_series(place.city, place.add_forecast(init_time), flows, "inflow", 3, 5)
    observed, forecast = (series[series["what"] == what].set_index("time") for what in ("observed", "forecast"))
    assert observed.index[0] == init_time - np.timedelta64(24, "h") and len(observed) == 48 + 4
    assert list(forecast["vehicles"]) == [26.5, 36.5, 46.5, 56.5]
    truth = flows["flow"].sel(flow_kind="inflow").values[:, 3, 5]
    at_newest = observed.loc[place.newest, "vehicles"]
    assert at_newest == truth[-1]
    # Neither the lost slot nor those to come are 0.
    assert np.isnan(observed.loc[place.down, "vehicles"])
    assert observed["vehicles"].isna().sum() == 1 + 2


def test_the_table_says_why_a_slot_has_no_value(place: Any) -> None:
    flows = place.add_flows()
    late = cell_table(place.city, place.add_forecast(place.newest), flows, place.newest, "inflow", 0, 6)
    assert list(late.index)[:2] == ["09:00-09:30 (+0 min)", "09:30-10:00 (+30 min)"]
    assert list(late["Forecast"]) == ["6.5", "16.5", "26.5", "36.5"]
    assert list(late["Observed"]) == ["24", "not observed yet", "not observed yet", "not observed yet"]
    assert list(late["Difference"]) == ["-17.5", "n/a", "n/a", "n/a"]
    early = cell_table(place.city, place.add_forecast(place.down), flows, place.newest, "inflow", 0, 6)
    assert early["Observed"].iloc[0] == "the feed was down"


def test_the_chart_shows_the_citys_clock(place: Any) -> None:
    init_time = place.newest - HALF_HOUR
    series = cell_series(place.city, place.add_forecast(init_time), place.add_flows(), "inflow", 3, 5)
    chart = json.loads(series_chart(place.city, series, init_time, 200).to_json())
    assert "slot start, CEST" in json.dumps(chart)
    rows = max(chart["datasets"].values(), key=len)
    first = rows[0]
    assert first["start"].startswith("2024-05-07T08:30") and first["label"] == "Tue 7 May 2024 08:30 CEST"
