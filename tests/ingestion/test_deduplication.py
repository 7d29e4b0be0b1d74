"""Sorting and repeats: the law's choice among repeats, whatever the order of arrival."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingestion.rows import rows_of as with_source
from tests.ingestion.rows import sorted_and_deduplicated
from trafficcast.ingestion.deduplication import _deduplicate, _Rows, _sort
from trafficcast.records.records import HOUR_US, Points, Records, Trips, ZoneTrips

Row = tuple[int, int, float, float, int]  # vehicle, time, lon, lat, occupied
LON, LAT = st.sampled_from([-1.0, 0.0, 1.5]), st.sampled_from([0.0, 2.0])
ROWS = st.tuples(st.integers(0, 3), st.integers(0, 6), LON, LAT, st.integers(-1, 1))


def points(*rows: Row) -> Points:
    columns = zip(*rows, strict=True) if rows else [()] * 5
    return Points(*(np.array(c, d) for c, d in zip(columns, Points.DTYPES.values(), strict=True)))


def rows_of_points(records: Records) -> list[Row]:
    return list(zip(*(column.tolist() for column in records.arrays().values()), strict=True))


def with_sources(rows: list[tuple[Row, int]]) -> _Rows:
    return _Rows(points(*(row for row, _ in rows)), np.array([source for _, source in rows], np.int32))


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.lists(st.tuples(ROWS, st.integers(1, 3)), max_size=40))
def test_as_a_plain_sort_has_it(rows: list[tuple[Row, int]]) -> None:
    of_each: dict[tuple[int, int, int], Row] = {}
    repeats: Counter[int] = Counter()
    for row, source in rows:
        key = *row[:2], source
        repeats[source] += key in of_each
        of_each[key] = min(row, of_each.get(key, row))
    best: dict[tuple[int, int], Row] = {}
    of_earlier: Counter[int] = Counter()
    for (*key, source), row in sorted(of_each.items()):
        of_earlier[source] += tuple(key) in best
        best[row[:2]] = min(row, best.get(row[:2], row))
    found, found_repeats = _sort(with_sources(rows))
    assert list(zip(rows_of_points(found.records), found.source.tolist(), strict=True)) == [
        (row, source) for (*_, source), row in sorted(of_each.items())
    ]
    assert +found_repeats == +repeats
    counted, found_of_earlier = _deduplicate(found)
    assert rows_of_points(counted) == sorted(best.values())
    assert +found_of_earlier == +of_earlier


def test_the_smallest_of_repeats_stays_in_whatever_order_they_came() -> None:
    rows: list[Row] = [(1, 5, 2.0, 1.0, 0), (1, 5, 1.0, 9.0, 1), (1, 5, 1.0, 9.0, 0), (1, 5, 1.0, 9.5, -1)]
    for order in permutations(rows):
        found, repeats = sorted_and_deduplicated(points(*order))
        assert rows_of_points(found) == [(1, 5, 1.0, 9.0, 0)]
        assert repeats == 3


def test_types_are_kept() -> None:
    found, _ = sorted_and_deduplicated(points((1, 2, 3.0, 4.0, 1), (0, 2, 3.0, 4.0, 1)))
    assert {name: array.dtype.type for name, array in found.arrays().items()} == Points.DTYPES


TRIPS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(1, 4)), max_size=30)


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(TRIPS)
def test_a_trip_counts_as_often_as_in_the_file_that_has_it_most_often(drawn: list[tuple[int, int, int]]) -> None:
    columns = np.array([(start, 7, end, 9, 0) for start, end, _ in drawn], np.int64).reshape(-1, 5).T
    rows = _Rows(ZoneTrips(*columns), np.array([source for *_, source in drawn], np.int32))
    times = Counter(drawn)
    most: Counter[tuple[int, int]] = Counter()
    of_earlier: Counter[int] = Counter()
    for (start, end, source), n in sorted(times.items(), key=lambda item: item[0][2]):
        of_earlier[source] += min(n, most[start, end])
        most[start, end] = max(n, most[start, end])
    found, repeats = _sort(rows)
    assert len(found) == len(drawn) and not repeats
    counted, found_of_earlier = _deduplicate(found)
    assert isinstance(counted, ZoneTrips)
    assert Counter(zip(counted.time.tolist(), counted.dropoff_time.tolist(), strict=True)) == most
    assert +found_of_earlier == +of_earlier


def test_trips_are_equal_only_when_all_they_have_is() -> None:
    rows = [(9, 1.0, 2.0, 12, 3.0, 4.0, 0), (5, 1.0, 2.0, 12, 3.0, 4.0, 0), (9, 1.0, 2.0, 12, 3.0, 4.5, 0)]
    one = Trips(*(np.array(c, d) for c, d in zip(zip(*rows, strict=True), Trips.DTYPES.values(), strict=True)))
    both = _Rows.concatenate(Trips, [with_source(one, 1), with_source(one, 2)])
    found, repeats = _deduplicate(_sort(both)[0])
    assert list(zip(*(a.tolist() for a in found.arrays().values()), strict=True)) == sorted(rows)
    assert repeats == {2: 3}


IDS = st.lists(
    st.tuples(st.sampled_from([0, 1, HOUR_US]), st.integers(0, 2), st.integers(0, 3), st.integers(1, 3)), max_size=30
)


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(IDS)
def test_only_an_id_makes_a_trip_repeat_where_there_is_one(drawn: list[tuple[int, int, int, int]]) -> None:
    columns = np.array([(start, 7, end, 9, trip) for start, end, trip, _ in drawn], np.int64).reshape(-1, 5).T
    rows = _Rows(ZoneTrips(*columns), np.array([source for *_, source in drawn], np.int32))
    of_id: dict[tuple[int, int], tuple[int, int]] = {}
    without: Counter[tuple[int, int]] = Counter()
    for (start, end, trip, _), n in Counter(drawn).items():
        if trip:
            key = trip, start // HOUR_US
            of_id[key] = min((start, end), of_id.get(key, (start, end)))
        else:
            without[start, end] = max(n, without[start, end])
    found, repeats = _sort(rows)
    counted, of_other_sources = _deduplicate(found)
    assert isinstance(counted, ZoneTrips)
    assert Counter(zip(*(a.tolist() for a in (counted.time, counted.dropoff_time, counted.trip_id)), strict=True)) == {
        **{(*ends, 0): n for ends, n in without.items()},
        **{(*ends, trip): 1 for (trip, _), ends in of_id.items()},
    }
    assert len(counted) == len(drawn) - repeats.total() - of_other_sources.total()


def test_nothing() -> None:
    assert len(sorted_and_deduplicated(points())[0]) == 0
    assert len(sorted_and_deduplicated(Trips.concatenate([]))[0]) == 0
