"""What the page reads from the stores."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dashboard.reads import forecast_versions, sample_flows, stamp
from trafficcast.stores import last_observed


def test_a_local_day_is_read_whole_and_alone(place: Any) -> None:
    place.add_flows()
    flows = place.flows.read_day(np.datetime64("2024-05-07"))
    assert flows is not None and flows.sizes["time"] == 48
    assert flows["time"].values[0] == place.start


def test_only_that_days_file_is_read(place: Any) -> None:
    place.add_flows()
    (place.flows.root / "2024-05-08.nc").write_bytes(b"damaged")
    assert place.flows.read_day(np.datetime64("2024-05-07")) is not None


def test_the_newest_observed_slot_is_not_merely_the_newest(place: Any) -> None:
    assert last_observed(place.flows) is None
    flows = place.add_flows()
    assert last_observed(place.flows) == place.newest
    flows["observed"].values[-3:] = False
    place.flows.write(flows)
    assert last_observed(place.flows) == place.newest - np.timedelta64(90, "m")


def test_samples_leave_out_what_was_not_observed(place: Any) -> None:
    assert sample_flows(place.flows, 3).shape == (0, 2, 5, 7)
    flows = place.add_flows()
    assert len(sample_flows(place.flows, 28)) == flows.sizes["time"] - 1
    assert len(sample_flows(place.flows, 1)) == 48


def test_a_stamp_changes_with_the_files(place: Any) -> None:
    place.add_flows()
    before = stamp(place.flows)
    assert [name for name, _ in before] == ["2024-05-07.nc", "2024-05-08.nc"]
    os.utime(place.flows.root / "2024-05-08.nc", ns=(1, 1))
    assert stamp(place.flows) != before


def test_versions_are_those_with_a_forecast(place: Any) -> None:
    assert forecast_versions(place.config.paths.data, place.city) == []
    place.add_forecast(place.newest, "vmrnn-b-2")
    place.add_forecast(place.newest, "vmrnn-b-1")
    assert forecast_versions(place.config.paths.data, place.city) == ["vmrnn-b-1", "vmrnn-b-2"]
