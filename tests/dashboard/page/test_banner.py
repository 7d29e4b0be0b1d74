"""When an operator is warned, and of what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from dashboard.page.banner import age, warnings
from trafficcast.config.service import Service
from trafficcast.stores.forecasts import BASELINE, COMPLETE, DEGRADED, Provenance, forecast_dataset

INIT = np.datetime64("2024-05-08T07:00", "us")
MINUTE = np.timedelta64(1, "m")
SETTINGS = Service(wait_minutes=5)


def forecast(place: Any, origin: Provenance | None = None) -> xr.Dataset:
    """A forecast of so an origin."""
    card = {"version": "vmrnn-b-1", "architecture": {"name": "vmrnn-b"}}
    return forecast_dataset(place.city, card, INIT, np.zeros((4, 2, 5, 7)), INIT, origin=origin)


def test_a_fresh_forecast_of_the_model_needs_no_word(place: Any) -> None:
    assert warnings(place.city, SETTINGS, forecast(place), INIT + 31 * MINUTE) == []
    assert warnings(place.city, SETTINGS, forecast(place, Provenance("vmrnn-b-1", COMPLETE)), INIT) == []


def test_a_forecast_is_late_once_the_next_one_should_be_there(place: Any) -> None:
    limit = INIT + (30 + 5 + 3) * MINUTE  # a slot, the wait for its data, and the three minutes of docs/operations.md
    assert warnings(place.city, SETTINGS, forecast(place), limit - np.timedelta64(1, "s")) == []
    for now in (limit, limit + 60 * MINUTE):
        (sentence,) = warnings(place.city, SETTINGS, forecast(place), now)
        assert "late" in sentence and "Wed 8 May 2024 09:00 CEST" in sentence


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (Provenance("persistence", BASELINE, "no model"), ("persistence", "no model")),
        (Provenance("vmrnn-b-1", DEGRADED, "a slot was filled in"), ("degraded", "a slot was filled in")),
        (Provenance("vmrnn-b-1", COMPLETE, "", hindcast=True), ("after its time",)),
    ],
)
def test_what_is_not_the_models_own_from_whole_data_is_said(
    place: Any, origin: Provenance, words: tuple[str, ...]
) -> None:
    (sentence,) = warnings(place.city, SETTINGS, forecast(place, origin), INIT)
    assert all(word in sentence for word in words)


def test_ages_are_said_as_people_say_them() -> None:
    assert [age(minutes * MINUTE) for minutes in (0, 119, 120, 47 * 60, 48 * 60, 3_000_000)] == [
        "0 min", "119 min", "2 h", "47 h", "2 days", "2,083 days",
    ]  # fmt: skip
