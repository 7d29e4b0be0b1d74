"""What is suggested for a new city: box, grid, slot length."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cities import small_city
from trafficcast.errors import InputError
from trafficcast.new_city.suggest import (
    _Distinct,
    _fitting_grid,
    _fitting_slot,
    _RecordSample,
    _sides_km,
    _suggest,
)
from trafficcast.records.records import SECOND_US, Points, Trips, ZoneTrips

START_US = 1_712_514_600 * SECOND_US


def _points(lon: np.ndarray, lat: np.ndarray, seconds: np.ndarray, vehicle: np.ndarray | None = None) -> Points:
    code = np.zeros(len(lon), np.int32) if vehicle is None else vehicle.astype(np.int32)
    return Points(code, START_US + seconds.astype(np.int64) * SECOND_US, lon, lat, np.full(len(lon), -1, np.int8))


def _sample(n: int = 20_000, every_s: int = 60, spread: float = 0.02) -> _RecordSample:
    rng = np.random.default_rng(0)
    sample = _RecordSample()
    lon, lat = 9.18 + spread * rng.standard_normal(n), 45.47 + spread * rng.standard_normal(n)
    sample.add(_points(lon, lat, every_s * np.arange(n), rng.integers(0, 50, n)), [f"t{i}" for i in range(50)])
    return sample


def test_sides_are_those_of_the_globe() -> None:
    assert _sides_km((-122.52, -122.36, 37.70, 37.82)) == pytest.approx((13.34, 14.07), abs=0.01)


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        (14.0, 14.0, (32, 32)),  # cells of 440 m
        (20.0, 17.0, (32, 32)),  # 625 x 531 m
        (10.0, 12.0, (20, 24)),
        (25.6, 12.8, (52, 24)),  # 800 x 400 m would be too long and too far from square
        (100.0, 50.0, (64, 32)),  # 1.6 km
        (2.0, 3.0, (8, 12)),  # 250 m
        (4.0, 40.0, (8, 64)),
    ],
)
def test_cells_are_square_and_near_half_a_kilometre_where_that_can_be(
    height: float, width: float, grid: tuple[int, int]
) -> None:
    assert _fitting_grid(height, width) == grid


@pytest.mark.parametrize(("flow", "minutes"), [(4.0, 30), (0.25, 30), (0.24, 60), (0.125, 60), (0.1, 120), (0.0, 120)])
def test_the_slot_is_the_shortest_that_fills_the_cells(flow: float, minutes: int) -> None:
    assert _fitting_slot(flow) == minutes


def test_what_is_given_is_kept() -> None:
    sample = _sample()
    chosen = _suggest(sample)
    given = _suggest(sample, rows=10, slot_minutes=15)
    assert (given.rows, given.cols, given.slot_minutes) == (10, chosen.cols, 15)
    assert given.box == chosen.box and given.cell_m[0] > chosen.cell_m[0]


def test_reporting_more_often_is_not_more_traffic() -> None:
    """A vehicle that crosses the city, sample every minute or every ten seconds."""
    flows = []
    for every in (60, 10):
        seconds = np.arange(0, 10 * 86400, every)
        lon = 9.10 + 0.08 * (1 + np.sin(seconds / 600))
        sample = _RecordSample()
        sample.add(_points(lon, np.full(len(lon), 45.47), seconds), ["t"])
        flows.append(sample.flow(0.5))
    assert flows[0] == pytest.approx(flows[1], rel=0.15)


def test_the_flow_of_trips_is_their_number() -> None:
    n = 4800
    rng = np.random.default_rng(4)
    time = START_US + np.sort(rng.integers(0, 86400, n)) * SECOND_US
    lon, lat = rng.uniform(9.10, 9.20, n), rng.uniform(45.40, 45.50, n)
    sample = _RecordSample()
    sample.add(Trips(time, lon, lat, time, lon, lat, 0 * time), [])
    assert sample.flow(0.5) == sample.flow(1.0) == pytest.approx(100, rel=0.03)  # of 48 half hours, or 49
    found = _suggest(sample)
    assert found.flow == pytest.approx(100 / (found.rows * found.cols), rel=0.03)


def test_the_share_of_observed_slots_and_the_hours_that_lose_most() -> None:
    city = small_city(timezone="Europe/Rome", slot_minutes=60)
    assert _sample(every_s=60).observed(city) == (1.0, "")
    seconds = np.arange(0, 10 * 86400, 60)
    hour, odd = (START_US // SECOND_US + seconds) % 86400 // 3600, seconds // 86400 % 2 == 1
    seconds = seconds[~odd | (hour != 4)]  # on every other day the feed is off from 4:00 to 5:00 UTC, 6:00 in Rome
    sample = _RecordSample()
    sample.add(_points(np.full(len(seconds), 9.15), np.full(len(seconds), 45.47), seconds), ["t"])
    share, hours = sample.observed(city)
    assert share == pytest.approx(1 - 5 / 240, abs=0.01)
    assert hours.startswith("06:00 (5")


def test_distinct_counts_few_exactly_and_many_nearly() -> None:
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2**64, 200_000, dtype=np.uint64)
    few, many = _Distinct(), _Distinct()
    few.add(np.repeat(hashes[:1000], 3))
    for part in np.array_split(np.concatenate([hashes, hashes[::-1]]), 50):
        many.add(part)
    assert few.estimate() == 1000
    assert many.estimate() == pytest.approx(200_000, rel=0.06)


def test_memory_does_not_grow_with_the_records() -> None:
    sample = _sample(1000)
    rng = np.random.default_rng(6)
    n = 100_000
    for _ in range(20):
        lon, lat = rng.uniform(-179, 179, n), rng.uniform(-89, 89, n)
        sample.add(_points(lon, lat, rng.integers(0, 86400, n), np.arange(n)), [f"t{i}" for i in range(n)])
    assert sample.count == 2_001_000
    assert len(sample.density.cells()[2]) <= 2**19
    assert len(sample.visits._smallest) <= 4096 and len(sample.minutes) < 100


def test_the_order_and_the_batches_do_not_matter() -> None:
    rng = np.random.default_rng(7)
    n = 30_000
    points = _points(
        9.18 + 0.02 * rng.standard_normal(n),
        45.47 + 0.02 * rng.standard_normal(n),
        60 * np.arange(n),
        np.arange(n) % 50,
    )
    names = [f"t{i}" for i in range(50)]
    whole, parts = _RecordSample(), _RecordSample()
    whole.add(points, names)
    for index in np.array_split(rng.permutation(n), 7):
        parts.add(points.take(index), names)
    assert _suggest(whole) == _suggest(parts)


def test_what_is_no_city_is_refused() -> None:
    with pytest.raises(InputError, match="999 records are too few"):
        _suggest(_sample(999))
    with pytest.raises(InputError, match="spread over"):
        _suggest(_sample(spread=3.0))
    with pytest.raises(InputError, match="too few"):
        _suggest(_RecordSample())


def test_trips_between_zones_and_mixtures_are_refused() -> None:
    one = np.array([1])
    with pytest.raises(InputError, match="zones under"):
        _RecordSample().add(ZoneTrips(START_US * one, one, START_US * one, one, 0 * one), [])
    sample = _sample(1000)
    with pytest.raises(InputError, match="both GPS points and trips"):
        sample.add(Trips(START_US * one, one * 9.1, one * 45.4, START_US * one, one * 9.1, one * 45.4, 0 * one), [])
