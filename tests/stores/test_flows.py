"""The number of vehicles that usually report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cities import small_city, stores_in
from trafficcast.stores.flows import flows_dataset, reporting_vehicles

CITY = small_city()
NOON = np.datetime64("2024-04-12T10:00", "us")  # a Friday in Rome
DAY = np.timedelta64(1, "D")


@pytest.mark.parametrize(
    ("before", "usual"),
    [
        ({1: 10, 2: 20, 3: 30}, 25.0),  # three working days
        ({1: 10, 2: 20, 3: 30, 5: 90, 6: 90}, 25.0),  # weekends do not count beside them
        ({1: 10, 5: 90, 6: 90}, 90.0),  # but where there is little else
        ({1: 10, 2: 20}, None),
        ({1: 10, 2: 20, 30: 30}, None),  # more than four weeks ago
        ({1: 10, 2: 20, 3: -1}, None),
    ],
)
def test_what_is_usual_is_known_from_three_days_of_the_last_four_weeks(
    tmp_path: Path, before: dict[int, int], usual: float | None
) -> None:
    flows = stores_in(tmp_path / "data", CITY).flows
    nothing = np.zeros((1, 2, CITY.rows, CITY.cols))
    for days, vehicles in {0: 7, **before}.items():
        time = np.array([NOON - days * DAY])
        flows.write(flows_dataset(CITY, time, nothing, np.array([vehicles]), np.ones(1)))
        flows.write(flows_dataset(CITY, time + CITY.slot, nothing, np.array([500]), np.ones(1)))
    assert reporting_vehicles(flows, NOON) == (None if usual is None else (7, usual))
    assert reporting_vehicles(flows, NOON - 60 * DAY) is None
