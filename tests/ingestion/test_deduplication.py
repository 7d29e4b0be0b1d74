"""Sorting and repeats: the law's choice among repeats, whatever the order of arrival."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficcast.ingestion.deduplication import _sort_and_deduplicate
from trafficcast.records.records import Points, Trips, ZoneTrips

Row = tuple[int, int, float, float, int]  # vehicle, time, lon, lat, occupied
LON, LAT = st.sampled_from([-1.0, 0.0, 1.5]), st.sampled_from([0.0, 2.0])
ROWS = st.tuples(st.integers(0, 3), st.integers(0, 6), LON, LAT, st.integers(-1, 1))


def points(*rows: Row) -> Points:
    columns = zip(*rows, strict=True) if rows else [()] * 5
    return Points(*(np.array(c, d) for c, d in zip(columns, Points.DTYPES.values(), strict=True)))


def rows_of(records: Points) -> list[Row]:
    return list(zip(*(column.tolist() for column in records.arrays().values()), strict=True))


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.lists(ROWS, max_size=40))
def test_as_a_plain_sort_has_it(rows: list[Row]) -> None:
    best: dict[tuple[int, int], Row] = {}
    later = []
    for i, row in enumerate(rows):
        if row[:2] in best:
            later.append(i)
        best[row[:2]] = min(row, best.get(row[:2], row))
    found, repeats = _sort_and_deduplicate(points(*rows))
    assert rows_of(found) == sorted(best.values())
    assert sorted(repeats.tolist()) == later


def test_the_smallest_of_repeats_stays_in_whatever_order_they_came() -> None:
    rows: list[Row] = [(1, 5, 2.0, 1.0, 0), (1, 5, 1.0, 9.0, 1), (1, 5, 1.0, 9.0, 0), (1, 5, 1.0, 9.5, -1)]
    for order in permutations(rows):
        found, repeats = _sort_and_deduplicate(points(*order))
        assert rows_of(found) == [(1, 5, 1.0, 9.0, 0)]
        assert sorted(repeats.tolist()) == [1, 2, 3]


def test_types_are_kept() -> None:
    found, _ = _sort_and_deduplicate(points((1, 2, 3.0, 4.0, 1), (0, 2, 3.0, 4.0, 1)))
    assert {name: array.dtype.type for name, array in found.arrays().items()} == Points.DTYPES


def test_trips_repeat_only_when_all_they_have_does() -> None:
    rows = [(9, 1.0, 2.0, 12, 3.0, 4.0), (5, 1.0, 2.0, 12, 3.0, 4.0), (9, 1.0, 2.0, 12, 3.0, 4.5)]
    rows += [rows[0], rows[1], rows[0]]
    columns = zip(*rows, strict=True)
    trips = Trips(*(np.array(c, d) for c, d in zip(columns, Trips.DTYPES.values(), strict=True)))
    found, repeats = _sort_and_deduplicate(trips)
    assert list(zip(*(a.tolist() for a in found.arrays().values()), strict=True)) == sorted(set(rows))
    assert sorted(repeats.tolist()) == [3, 4, 5]


def test_zone_trips_and_nothing() -> None:
    trips = ZoneTrips(*(np.array(a, np.int64) for a in ([5, 5], [1, 1], [9, 9], [2, 2])))
    assert len(_sort_and_deduplicate(trips)[0]) == 1
    assert len(_sort_and_deduplicate(points())[0]) == 0
