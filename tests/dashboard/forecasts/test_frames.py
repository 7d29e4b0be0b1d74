"""What was observed in a slot, or why it was not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.forecasts.frames import _observed_frame, _why_not
from dashboard.page import clock


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
    assert _why_not(place.city, flows, place.down, place.newest, "inflow") == "not observed: the feed was down"


def test_a_slot_after_the_newest_has_not_come_yet(place: Any) -> None:
    after, flows = place.newest + place.city.slot, place.add_flows()
    assert _observed_frame(flows, after) is None
    assert _why_not(place.city, flows, after, place.newest, "inflow") == "not observed yet"
    assert _why_not(place.city, None, place.newest, None, "inflow") == "not observed yet"


def test_a_slot_that_still_runs_says_what_was_counted_so_far(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "present", lambda: place.newest + np.timedelta64(25, "m"))
    flows = place.add_flows()
    flows["coverage"].values[-1] = 24 / 30
    total = int(flows["flow"].values[-1, 1].sum())
    words = _why_not(place.city, flows, place.newest, None, "outflow")
    assert words == f"still runs: so far, 24 of 30 min, city total {total:,}"
    assert _why_not(place.city, None, place.newest, None, "outflow") == "still runs: no record yet"
    assert _why_not(place.city, flows, place.newest + place.city.slot, None, "outflow") == "is still to come"
