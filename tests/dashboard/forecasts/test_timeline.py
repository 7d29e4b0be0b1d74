"""Which slots are shown, and which forecast says what of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.forecasts.timeline import _find_forecast, _ForecastSlot, _of_kind, _shown_slots, _slot_texts

INIT = np.datetime64("2024-05-08T07:00", "us")


def test_a_day_back_and_two_hours_ahead_are_shown(place: Any) -> None:
    slots = _shown_slots(place.city, INIT)
    assert len(slots) == 48 + 4
    assert slots[48] == INIT and slots[-1] == INIT + np.timedelta64(90, "m")


def test_the_last_forecast_of_a_slot_counts(place: Any) -> None:
    for ago in (0, 30, 60):
        place.add_forecast(INIT - np.timedelta64(ago, "m"))
    forecasts = [("vmrnn-b-1", place.forecasts().read())]
    now = _find_forecast(forecasts, place.city, INIT)
    assert now is not None and now.lead == 0 and now.forecast["init_time"].values == INIT
    last = _find_forecast(forecasts, place.city, INIT + np.timedelta64(90, "m"))
    assert last is not None and last.lead == 3 and last.forecast["init_time"].values == INIT
    assert _find_forecast(forecasts, place.city, INIT + np.timedelta64(120, "m")) is None


def test_or_the_one_made_so_long_before(place: Any) -> None:
    for ago in (0, 60):
        place.add_forecast(INIT - np.timedelta64(ago, "m"))
    forecasts = [("vmrnn-b-1", place.forecasts().read())]
    earlier = _find_forecast(forecasts, place.city, INIT, 2)
    assert earlier is not None and earlier.forecast["init_time"].values == INIT - np.timedelta64(60, "m")
    assert earlier.flow("inflow")[2, 3] == pytest.approx(20 + 17 + 0.5)
    assert _find_forecast(forecasts, place.city, INIT, 1) is None


def test_forecasts_of_two_champions_are_one_series(place: Any) -> None:
    place.add_forecast(INIT, "vmrnn-b-2")
    place.add_forecast(INIT - place.city.slot, "vmrnn-b-1")
    forecasts = [(version, place.forecasts(version).read()) for version in ("vmrnn-b-2", "vmrnn-b-1")]
    found = [_find_forecast(forecasts, place.city, INIT - place.city.slot * ago) for ago in (0, 1)]
    assert [one.version for one in found if one] == ["vmrnn-b-2", "vmrnn-b-1"]


def test_net_is_inflow_less_outflow() -> None:
    frame = np.array([[[5, 1]], [[2, 4]]], np.int32)
    assert _of_kind(frame, "net").tolist() == [[3, -3]]
    assert _of_kind(frame, "outflow").tolist() == [[2, 4]]


def test_the_width_of_an_interval_is_upper_less_lower(place: Any) -> None:
    forecast = place.add_forecast(INIT)
    shown = _ForecastSlot("vmrnn-b-1", place.bounded(forecast), 1)
    for level, width in ((0.8, 4), (0.95, 6)):
        np.testing.assert_allclose(shown.interval_width("outflow", level), np.full((5, 7), width), rtol=1e-6)
    assert shown.interval_width("net", 0.8) is None
    assert _ForecastSlot("vmrnn-b-1", forecast, 1).interval_width("inflow", 0.8) is None


def test_slots_are_labelled_on_the_citys_clock(place: Any) -> None:
    at = [INIT - np.timedelta64(10, "h"), INIT - np.timedelta64(30, "m"), INIT, INIT + np.timedelta64(90, "m")]
    assert _slot_texts(place.city, INIT, np.array(at)) == [
        "the day before 23:00-23:30 CEST",
        "08:30-09:00 CEST",
        "09:00-09:30 CEST (+0 min)",
        "10:30-11:00 CEST (+90 min)",
    ]
