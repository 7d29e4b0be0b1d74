"""Histories with gaps: missing slots have the climatology, scaled by the activity of the others."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.cities import small_city
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.gaps import filled_history
from trafficcast.stores.flows import flows_dataset

CITY = small_city(rows=1, cols=2, timezone="UTC")
INIT = np.datetime64("2024-04-08T10:00", "us")  # a Monday: the history is slots 16 to 19 of a weekday
TIMES = INIT - CITY.slot * np.arange(4, 0, -1)


def climatology(base: float = 10.0) -> Climatology:
    """Slot s of a weekday has `base` + s in each of its four values, that of a weekend day ten times as much."""
    table = np.broadcast_to((base + np.arange(48))[None, :, None, None, None], (2, 48, 2, 1, 2)).copy()
    table[1] *= 10
    return Climatology(CITY, table.astype(np.float32))


def flows(*values: int, times: np.ndarray = TIMES, coverage: tuple[float, ...] = ()) -> xr.Dataset:
    """A slot for each value, which each of its four numbers has."""
    flow = np.broadcast_to(np.array(values)[:, None, None, None], (len(values), 2, 1, 2))
    return flows_dataset(CITY, times[: len(values)], flow, np.full(len(values), 3), coverage or np.ones(len(values)))


def each(history: np.ndarray) -> list[float]:
    """The value of each slot, which all its numbers must have."""
    assert history.shape == (1, 4, 2, 1, 2) and history.dtype == np.float32
    assert (history == history[..., :1, :1, :1]).all()
    return history[0, :, 0, 0, 0].tolist()


def test_what_was_observed_stays_as_it_is() -> None:
    history, filled = filled_history(flows(1, 0, 7, 3), climatology(), INIT)
    assert each(history) == [1, 0, 7, 3]
    assert len(filled) == 0


@pytest.mark.parametrize("absent", range(4))
def test_a_missing_slot_is_the_climatology_times_the_activity_of_the_others(absent: int) -> None:
    counts = np.array([26, 27, 28, 29]) * 3  # three times the climatology
    coverage = tuple(0.1 if slot == absent else 1.0 for slot in range(4))
    history, filled = filled_history(flows(*counts, coverage=coverage), climatology(), INIT)
    assert each(history) == pytest.approx(counts.tolist(), rel=1e-6)
    assert filled.tolist() == TIMES[[absent]].tolist()


def test_the_ratio_is_that_of_sums() -> None:
    # Observed 10 + 90 where the climatology is 26 + 27: the others are 100 / 53 times 28 and 29.
    history, filled = filled_history(flows(10, 90, 500, 500, coverage=(1, 1, 0, 0)), climatology(), INIT)
    assert each(history) == pytest.approx([10, 90, 28 * 100 / 53, 29 * 100 / 53], rel=1e-6)
    assert filled.tolist() == TIMES[2:].tolist()


def test_slots_that_the_store_does_not_hold_are_missing_as_well() -> None:
    history, filled = filled_history(flows(26, 27, times=TIMES[[0, 3]]), climatology(), INIT)
    assert each(history) == pytest.approx([26, 27 * 53 / 55, 28 * 53 / 55, 27], rel=1e-6)
    assert filled.tolist() == TIMES[1:3].tolist()


def test_other_slots_say_nothing() -> None:
    around = flows(1000, 1000, times=np.array([INIT - 5 * CITY.slot, INIT]))
    for known in (None, around, flows(9, 9, 9, 9, coverage=(0, 0, 0, 0))):
        history, filled = filled_history(known, climatology(), INIT)
        assert each(history) == [26, 27, 28, 29]
        assert filled.tolist() == TIMES.tolist()


def test_where_the_climatology_is_zero_a_missing_slot_is_zero() -> None:
    nothing = Climatology(CITY, np.zeros((2, 48, 2, 1, 2), np.float32))
    history, filled = filled_history(flows(5, 5, 5, 5, coverage=(1, 1, 1, 0)), nothing, INIT)
    assert each(history) == [5, 5, 5, 0]
    assert filled.tolist() == TIMES[3:].tolist()


def test_without_traffic_what_is_missing_had_none_either() -> None:
    history, _ = filled_history(flows(0, 0, 0, 9, coverage=(1, 1, 1, 0)), climatology(), INIT)
    assert each(history) == [0, 0, 0, 0]


def test_the_climatology_is_that_of_the_local_day() -> None:
    there = CITY.model_copy(update={"timezone": "America/New_York"})
    sunday = np.datetime64("2024-04-08T03:00", "us")  # 21:00 to 23:00 on Sunday: slots 42 to 45 of a weekend day
    history, _ = filled_history(None, Climatology(there, climatology().table), sunday)
    assert each(history) == [520, 530, 540, 550]


def test_neither_flows_nor_climatology_are_changed() -> None:
    known, means = flows(1, 2, 3, 4, coverage=(1, 0, 1, 1)), climatology()
    before, table = known.copy(deep=True), means.table.copy()
    filled_history(known, means, INIT)
    xr.testing.assert_identical(known, before)
    np.testing.assert_array_equal(means.table, table)
