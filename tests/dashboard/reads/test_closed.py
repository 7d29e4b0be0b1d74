"""Slots that have not ended are observed by no page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.data.reads import _slots_between
from dashboard.maps.colours import _sample_flows
from dashboard.page import clock
from dashboard.reads.stores import flows_between, known_days, newest_forecast, newest_observed
from dashboard.skill.reads import _cell_errors_between

MINUTE = np.timedelta64(1, "m")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the clock of the pages."""
    return lambda time: monkeypatch.setattr(clock, "present", lambda: time)


def test_a_slot_is_observed_from_its_end_on_though_nothing_is_written(place: Any, at: Any) -> None:
    place.add_flows()
    end = place.newest + 30 * MINUTE
    for now, observed in ((end - MINUTE, False), (end, True)):
        at(now)
        flows = flows_between(place.stores, place.start, end)
        slots, _ = _slots_between(place.stores, place.start, end)
        assert flows is not None and slots is not None
        assert bool(flows["observed"].values[-1]) == bool(slots["observed"].values[-1]) == observed
        assert flows["flow"].values[-1].any()  # what was counted so far
        assert newest_observed(place.stores) == place.newest - (0 if observed else 30) * MINUTE
        assert len(_sample_flows(place.flows, 28)) == 65 + observed


def test_errors_on_the_map_leave_out_the_slot_that_runs(place: Any, at: Any) -> None:
    place.add_flows()
    place.add_forecast(place.newest - 30 * MINUTE)
    period = (place.newest - 60 * MINUTE, place.newest)
    for minutes, slots in ((29, 1), (30, 2)):
        at(place.newest + minutes * MINUTE)
        errors = _cell_errors_between(place.stores, "vmrnn-b-1", *period)
        assert errors is not None and errors.slots.sum() == slots


def test_what_lies_ahead_by_a_wrong_clock_is_not_known(place: Any, at: Any) -> None:
    place.add_flows()
    place.add_model()
    place.add_forecast(place.start)
    place.add_forecast(place.newest)
    at(place.start + 5 * MINUTE)
    assert [str(day) for day in known_days(place.city, [place.flows])] == ["2024-05-07"]
    assert newest_observed(place.stores) is None
    made = newest_forecast(place.stores)
    assert made is not None and made[1]["init_time"].values[0] == place.start
