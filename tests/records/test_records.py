"""Records in columns: taking, concatenating, their types."""

from __future__ import annotations

import numpy as np
import pytest

from trafficcast.records.records import DAY_US, EARLIEST_US, HOUR_US, Points, Records, Trips, ZoneTrips

KINDS = (Points, Trips, ZoneTrips)


def some(kind: type[Records], n: int, start: int = 0) -> Records:
    """Records whose columns are numbered on, each column from ten times its place."""
    dtypes = kind.DTYPES.items()
    return kind(**{name: np.arange(n).astype(dtype) + dtype(start + 10 * i) for i, (name, dtype) in enumerate(dtypes)})


@pytest.mark.parametrize("kind", KINDS)
def test_all_columns_are_taken_alike(kind: type[Records]) -> None:
    records = some(kind, 5)
    for index in (np.array([4, 0, 0]), np.array([True, False, True, False, False]), slice(1, 3)):
        taken = records.take(index)
        assert type(taken) is kind
        for name, array in records.arrays().items():
            assert taken.arrays()[name].tolist() == array[index].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_put_one_after_the_other(kind: type[Records]) -> None:
    whole = kind.concatenate([some(kind, 2), some(kind, 0), some(kind, 3, start=50)])
    assert type(whole) is kind and len(whole) == 5
    for i, (name, array) in enumerate(whole.arrays().items()):
        assert array.tolist() == [10 * i, 10 * i + 1, 10 * i + 50, 10 * i + 51, 10 * i + 52]
        assert array.dtype == kind.DTYPES[name]


@pytest.mark.parametrize("kind", KINDS)
def test_none_make_an_empty_set_of_the_right_types(kind: type[Records]) -> None:
    empty = kind.concatenate([])
    assert len(empty) == 0
    assert {name: array.dtype.type for name, array in empty.arrays().items()} == kind.DTYPES


def test_units_are_microseconds() -> None:
    assert (np.timedelta64(1, "h") // np.timedelta64(1, "us"), 24 * HOUR_US) == (HOUR_US, DAY_US)
    assert np.datetime64(EARLIEST_US, "us") == np.datetime64("2000-01-01T00:00")
