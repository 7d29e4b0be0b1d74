"""What is dropped before anything is counted: places, times, repeats."""

from __future__ import annotations

import random
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from trafficcast.points import DAY_US, EARLIEST_US, Batch, Points, drop_implausible, sort_and_deduplicate

LATEST = EARLIEST_US + 10 * DAY_US
Row = tuple[int, int, float, float, int]  # vehicle, time, lon, lat, occupied


def points(*rows: Row) -> Points:
    vehicle, time, lon, lat, occupied = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return Points(
        np.array(vehicle, np.int32),
        np.array(time, np.int64),
        np.array(lon, np.float64),
        np.array(lat, np.float64),
        np.array(occupied, np.int8),
    )


def rows_of(what: Points) -> list[Row]:
    columns = (what.vehicle, what.time, what.lon, what.lat, what.occupied)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def kept(lon: float, lat: float, time: int) -> Batch:
    batch = Batch(["a"], points((0, time, lon, lat, 0)), 1)
    return drop_implausible(batch, EARLIEST_US, LATEST)


@pytest.mark.parametrize(
    ("lon", "lat"), [(180, 90), (-180, -90), (0, 1e-9), (1e-9, 0), (-122.4, 37.7), (0, 51.5), (9.2, 0)]
)
def test_places_on_the_globe_are_kept(lon: float, lat: float) -> None:
    assert rows_of(kept(lon, lat, EARLIEST_US).points) == [(0, EARLIEST_US, lon, lat, 0)]


@pytest.mark.parametrize("place", [(180.0001, 0), (-180.0001, 0), (10, 90.0001), (10, -90.0001), (0, 0), (-0.0, 0.0)])
def test_places_off_the_globe_and_null_island_are_dropped_and_counted(place: tuple[float, float]) -> None:
    batch = kept(*place, EARLIEST_US)
    assert len(batch.points) == 0
    assert +batch.dropped == Counter(coordinates=1)


@pytest.mark.parametrize(("time", "keeps"), [(EARLIEST_US - 1, 0), (EARLIEST_US, 1), (LATEST - 1, 1), (LATEST, 0)])
def test_the_range_of_time_is_half_open(time: int, keeps: int) -> None:
    batch = kept(10, 45, time)
    assert len(batch.points) == keeps
    assert +batch.dropped == Counter(timestamp=1 - keeps)


def test_the_first_instant_allowed_by_default_is_the_year_2000() -> None:
    assert np.datetime64(EARLIEST_US, "us") == np.datetime64("2000-01-01T00:00")


def test_a_row_wrong_in_both_is_counted_once_as_coordinates() -> None:
    assert +kept(0, 0, 5).dropped == Counter(coordinates=1)


def test_earlier_drops_and_the_rest_of_the_batch_stay() -> None:
    some = points((0, EARLIEST_US, 10, 45, 1), (1, EARLIEST_US, 200, 45, 0), (1, LATEST, 10, 45, 0))
    batch = drop_implausible(Batch(["a", "b"], some, 7, Counter(unparsable=4)), EARLIEST_US, LATEST)
    assert rows_of(batch.points) == [(0, EARLIEST_US, 10, 45, 1)]
    assert batch.vehicles == ["a", "b"]
    assert batch.rows == 7
    assert batch.dropped == Counter(unparsable=4, coordinates=1, timestamp=1)


def test_sorting_is_by_vehicle_and_then_time() -> None:
    some = [(1, 3, 0.1, 0.2, 0), (0, 9, 0.3, 0.4, 1), (1, 2, 0.5, 0.6, 0), (0, 4, 0.7, 0.8, 1)]
    ordered, repeats = sort_and_deduplicate(points(*some), 0)
    assert rows_of(ordered) == [some[3], some[1], some[2], some[0]]
    assert repeats == 0


@pytest.mark.parametrize("day", [0, 14_034])
def test_the_last_and_first_microseconds_of_a_day_do_not_mix_vehicles(day: int) -> None:
    start = day * DAY_US
    some = [(1, start, 1.0, 1.0, 0), (0, start + DAY_US - 1, 2.0, 2.0, 0)]
    ordered, repeats = sort_and_deduplicate(points(*some), start)
    assert rows_of(ordered) == [some[1], some[0]]
    assert repeats == 0


@pytest.mark.parametrize(
    ("stays", "goes"),
    [
        ((1.0, 9.0, 1), (2.0, 0.0, 0)),  # longitude decides first
        ((1.0, 1.0, 1), (1.0, 2.0, 0)),  # then latitude
        ((1.0, 1.0, 0), (1.0, 1.0, 1)),  # then occupied
        ((-2.0, 1.0, 0), (-1.0, 1.0, 0)),  # smaller, not nearer to zero
    ],
)
def test_of_a_repeated_pair_the_smallest_stays_in_any_order(
    stays: tuple[float, float, int], goes: tuple[float, float, int]
) -> None:
    others: list[Row] = [(0, 100, 5.0, 5.0, 0), (3, 7, -5.0, 5.0, 1)]
    rows: list[Row] = [(0, 7, *stays), (0, 7, *goes), (0, 7, *goes), *others]
    for order in permutations(rows):
        ordered, repeats = sort_and_deduplicate(points(*order), 0)
        assert rows_of(ordered) == [(0, 7, *stays), *others]
        assert repeats == 2


def test_the_same_time_of_two_vehicles_is_no_repeat() -> None:
    ordered, repeats = sort_and_deduplicate(points((1, 7, 1.0, 1.0, 0), (0, 7, 1.0, 1.0, 0)), 0)
    assert [row[0] for row in rows_of(ordered)] == [0, 1]
    assert repeats == 0


def test_no_points_at_all() -> None:
    ordered, repeats = sort_and_deduplicate(points(), 0)
    assert len(ordered) == 0
    assert repeats == 0


def test_many_repeats_against_a_dictionary() -> None:
    draw = random.Random(1)
    rows: list[Row] = [
        (draw.randrange(4), draw.randrange(30), draw.randrange(3) / 2, draw.randrange(3) / 2, draw.randrange(2))
        for _ in range(400)
    ]
    smallest: dict[tuple[int, int], Row] = {}
    for row in rows:
        smallest[row[:2]] = min(row, smallest.get(row[:2], row))
    ordered, repeats = sort_and_deduplicate(points(*rows), 0)
    assert rows_of(ordered) == [smallest[key] for key in sorted(smallest)]
    assert repeats == 400 - len(smallest)


def test_concatenate_and_take_keep_rows_together() -> None:
    a: list[Row] = [(0, 1, 1.0, 2.0, 0), (1, 2, 3.0, 4.0, 1)]
    b: list[Row] = [(2, 3, 5.0, 6.0, -1)]
    both = Points.concatenate([points(*a), points(*b)])
    assert rows_of(both) == a + b
    assert rows_of(both.take(np.array([False, True, True]))) == [a[1], b[0]]
    assert rows_of(both.take(slice(0, 1))) == a[:1]
