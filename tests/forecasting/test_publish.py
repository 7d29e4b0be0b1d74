"""Forecasts made by hand: what the store says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import trafficcast as tc


def test_a_forecast_for_a_slot_that_is_over_is_marked_as_made_afterwards(
    trained: Path, config: Path, trafficcast: Callable[..., Any]
) -> None:
    assert trafficcast("forecast", "--init-time", "2024-04-14T12:00", "--device", "cpu").code == 0
    city = tc.open_city(config=config)
    stored = city.forecasts("vmrnn-c-1").read()
    assert stored is not None and stored["hindcast"].values.tolist() == [True]


def test_a_forecast_that_was_made_in_time_stays_one(
    trained: Path, config: Path, trafficcast: Callable[..., Any]
) -> None:
    assert (
        trafficcast("replay", "--start", "2024-04-14T12:00", "--end", "2024-04-14T13:00", "--device", "cpu").code == 0
    )
    city = tc.open_city(config=config)
    before = city.forecasts("vmrnn-c-1").read()
    assert before is not None and not before["hindcast"].values.any()
    assert trafficcast("forecast", "--init-time", "2024-04-14T12:00", "--device", "cpu").code == 0
    assert before.identical(city.forecasts("vmrnn-c-1").read())
