"""Which frames are shown, and what is said where there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.frames import frames_at


def test_predicted_observed_and_difference_are_of_the_same_slot_and_kind(place: Any) -> None:
    flows = place.add_flows()
    init_time = place.newest - np.timedelta64(60, "m")
    shown = frames_at(place.add_forecast(init_time), flows, place.newest, 1, "outflow")
    slot = flows.sel(time=init_time + np.timedelta64(30, "m"), flow_kind="outflow")["flow"].values
    assert shown.status == "observed"
    np.testing.assert_array_equal(shown.observed, slot)
    assert shown.predicted.shape == (5, 7)
    assert shown.predicted[2, 3] == pytest.approx(10 + 1000 + 17 + 0.5)
    np.testing.assert_allclose(shown.difference, shown.predicted - slot)
    assert shown.rmse == pytest.approx(np.sqrt(np.mean((shown.predicted - slot) ** 2)))


def test_a_slot_after_the_newest_is_not_observed_yet(place: Any) -> None:
    forecast = place.add_forecast(place.newest)
    shown = frames_at(forecast, place.add_flows(), place.newest, 1, "inflow")
    assert shown.status == "pending"
    assert shown.observed is shown.difference is shown.rmse is None


@pytest.mark.parametrize("stored", [True, False])
def test_a_slot_before_the_newest_without_records_says_the_feed_was_down(place: Any, stored: bool) -> None:
    flows = place.add_flows()
    if not stored:
        flows = flows.isel(time=flows["time"].values != place.down)
    shown = frames_at(place.add_forecast(place.down), flows, place.newest, 0, "inflow")
    assert shown.status == "down" and shown.observed is None


def test_no_flows_at_all_is_not_observed_yet(place: Any) -> None:
    assert frames_at(place.add_forecast(place.newest), None, None, 0, "inflow").status == "pending"
