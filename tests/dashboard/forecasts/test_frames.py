"""What was observed in a slot, or why it was not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.forecasts.frames import _STATUS_TEXTS, _observed_frame, _slot_status


def test_a_frame_is_that_of_its_slot(place: Any) -> None:
    flows = place.add_flows()
    frame = _observed_frame(flows, place.newest)
    assert frame is not None and frame.dtype == np.float64
    np.testing.assert_array_equal(frame, flows["flow"].values[-1])


@pytest.mark.parametrize("stored", [True, False])
def test_a_slot_without_enough_data_has_no_frame_and_the_feed_was_down(place: Any, stored: bool) -> None:
    flows = place.add_flows()
    if not stored:
        flows = flows.isel(time=flows["time"].values != place.down)
    assert _observed_frame(flows, place.down) is None
    assert _slot_status(False, place.down, place.newest) == "down"


def test_a_slot_after_the_newest_is_yet_to_come(place: Any) -> None:
    after = place.newest + place.city.slot
    assert _observed_frame(place.add_flows(), after) is None
    assert _slot_status(False, after, place.newest) == "pending"


def test_without_flows_nothing_has_come_yet(place: Any) -> None:
    assert _observed_frame(None, place.newest) is None
    assert _slot_status(False, place.newest, None) == "pending"


def test_every_status_has_its_words() -> None:
    assert _slot_status(True, np.datetime64("2024-05-07"), None) == "observed"
    assert (
        _STATUS_TEXTS["observed"] == ""
        and "not observed" in _STATUS_TEXTS["pending"]
        and "down" in _STATUS_TEXTS["down"]
    )
