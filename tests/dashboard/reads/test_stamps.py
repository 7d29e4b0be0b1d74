"""What the page reads from the stores."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dashboard.maps.colours import _sample_flows, _sample_positions
from dashboard.reads.stamps import file_stamp, newest_stamp, stamp
from trafficcast.stores.flows import last_observed


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
    assert _sample_flows(place.flows, 3).shape == (0, 2, 5, 7)
    flows = place.add_flows()
    assert len(_sample_flows(place.flows, 28)) == flows.sizes["time"] - 1
    assert len(_sample_flows(place.flows, 1)) == 48


def test_sampled_days_are_spread_over_the_year_and_the_week() -> None:
    positions = _sample_positions(365, 14)
    assert len(positions) >= 13 and positions[0] == 0 and positions[-1] > 330
    assert {position % 7 for position in positions} == set(range(7))
    assert _sample_positions(5, 14) == [0, 1, 2, 3, 4]
    assert _sample_positions(0, 14) == []


def test_a_stamp_changes_with_the_files(place: Any) -> None:
    place.add_flows()
    before = stamp(place.flows)
    assert [name for name, _ in before] == ["2024-05-07.nc", "2024-05-08.nc"]
    assert newest_stamp(place.flows) == before
    os.utime(place.flows.root / "2024-05-08.nc", ns=(1, 1))
    assert stamp(place.flows) != before and newest_stamp(place.flows) != before


def test_the_stamp_of_a_period_is_that_of_its_days(place: Any) -> None:
    place.add_flows()
    noon, hour = np.datetime64("2024-05-04T12", "us"), np.timedelta64(1, "h")
    assert stamp(place.flows, noon, noon + hour) == ()
    whole = stamp(place.flows)
    assert stamp(place.flows, place.newest - 24 * hour, place.newest) == whole
    assert stamp(place.flows, place.newest + 24 * hour, place.newest + 25 * hour) == whole[1:]  # a day's margin


def test_a_folder_changes_with_what_is_written_to_it(place: Any) -> None:
    assert file_stamp(place.flows.root) == 0
    flows = place.add_flows()
    before = file_stamp(place.flows.root)
    place.flows.write(flows)
    place.flows.write(flows.assign(flow=flows["flow"] + 1))
    assert file_stamp(place.flows.root) != before
