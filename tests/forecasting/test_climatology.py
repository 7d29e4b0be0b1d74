"""The climatology by hand, on a grid of one cell, and the calendar features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.cities import small_city
from trafficcast.config.city import City
from trafficcast.forecasting.climatology import _SCALES, Climatology, WeekdayClimatology, calendar_features
from trafficcast.stores.flows import flows_dataset

MONDAY = np.datetime64("2008-05-19T00:00", "us")
SIX_HOURS = np.timedelta64(6, "h")


def city(timezone: str = "UTC", holidays: str | None = None) -> City:
    """Four slots a day: far wider than the smoothing."""
    return small_city(rows=1, cols=1, slot_minutes=360, timezone=timezone, holidays=holidays)


def flows(values: list[int], observed: list[bool] | None = None) -> xr.Dataset:
    flow = np.array(values)[:, None, None, None] * np.ones((2, 1, 1), int)
    time = MONDAY + SIX_HOURS * np.arange(len(values))
    return flows_dataset(city(), time, flow, np.ones(len(values)), np.array(observed or [True] * len(values), float))


def day(value: int) -> list[int]:
    return [value] * 4


WEEK = day(10) * 4 + day(30) + day(50) + day(70)  # a busier Friday, a weekend of its own


def drawn(days: int, own: float, kind: float) -> float:
    """The climatology of a day of the week of which there are so many, in a city of one cell."""
    for _, prior, _ in _SCALES:
        kind = (days * own + prior * kind) / (days + prior)
    return kind


def test_a_day_of_the_week_is_drawn_towards_its_kind() -> None:
    table = WeekdayClimatology.fit(city(), flows(WEEK * 2)).table
    assert table.shape == (7, 4, 2, 1, 1)
    working, off = (4 * 10 + 30) / 5, (50 + 70) / 2
    for weekday, own, kind in ((0, 10, working), (4, 30, working), (5, 50, off), (6, 70, off)):
        np.testing.assert_allclose(table[weekday], drawn(2, own, kind), rtol=1e-3)


def test_with_many_weeks_it_is_its_own_mean() -> None:
    table = WeekdayClimatology.fit(city(), flows(WEEK * 200)).table
    np.testing.assert_allclose(table[4], 30, rtol=0.04)


def test_a_city_shows_sooner_than_its_cells_what_a_day_is_like() -> None:
    there = city().model_copy(update={"rows": 8, "cols": 8})
    rng = np.random.default_rng(0)
    activity = np.where(np.arange(14) % 7 == 4, 2.0, 1.0)  # twice as busy on both Fridays, every cell in its own way
    days = rng.poisson(5 * activity[:, None, None, None], (14, 2, 8, 8))
    time = MONDAY + SIX_HOURS * np.arange(56)
    dataset = flows_dataset(there, time, days.repeat(4, axis=0), np.ones(56), np.ones(56))
    friday = WeekdayClimatology.fit(there, dataset).table[4]
    assert 8.0 < friday.mean() < 9.5
    alone = drawn(2, 10.0, (8 * 5 + 2 * 10) / 10)
    assert abs(friday.mean() - alone) < 0.3
    assert friday.std() < 0.6 * days[[4, 11]].mean(0).std()  # the cells are drawn together


def test_districts_cover_grids_of_any_size() -> None:
    for rows, cols in ((1, 3), (5, 7), (9, 32)):
        there = city().model_copy(update={"rows": rows, "cols": cols})
        flow = np.full((28, 2, rows, cols), 7)
        dataset = flows_dataset(there, MONDAY + SIX_HOURS * np.arange(28), flow, np.ones(28), np.ones(28))
        np.testing.assert_allclose(WeekdayClimatology.fit(there, dataset).table, 7, rtol=1e-5)


def test_a_holiday_is_a_sunday() -> None:
    # Memorial Day, 26 May 2008, is the second Monday.
    values = day(10) * 5 + day(100) * 2 + day(100) + day(10) * 4 + day(100) * 2
    plain, knowing = (WeekdayClimatology.fit(city(holidays=name), flows(values)) for name in (None, "US"))
    third_monday = np.array([MONDAY + np.timedelta64(14, "D")])
    assert plain.at(third_monday)[0, 0, 0, 0] > 15
    np.testing.assert_allclose(knowing.at(third_monday), 10, rtol=1e-3)
    np.testing.assert_allclose(knowing.at(np.array([MONDAY + np.timedelta64(7, "D")])), 100, rtol=1e-3)


def test_slots_that_were_not_observed_tell_nothing() -> None:
    values, observed = WEEK * 2, [True] * 56
    values[3], observed[3] = 1_000_000, False
    table = WeekdayClimatology.fit(city(), flows(values, observed)).table
    np.testing.assert_allclose(table[0, 3], drawn(1, 10, (10 * 7 + 30 * 2) / 9), rtol=1e-3)


def test_a_kind_of_day_never_seen_takes_the_other_and_a_time_of_day_the_mean_of_all() -> None:
    table = WeekdayClimatology.fit(city(), flows(day(10) * 5)).table
    np.testing.assert_allclose(table, 10, rtol=1e-5)
    holes = WeekdayClimatology.fit(city(), flows([4, 0, 8, 0] * 5, [True, False] * 10)).table
    np.testing.assert_allclose(holes[:, 1], 6, rtol=1e-5)
    np.testing.assert_allclose(holes[:, 0], 4, rtol=1e-5)


def test_smoothing_keeps_a_constant_and_spreads_over_midnight() -> None:
    there = city().model_copy(update={"slot_minutes": 30})
    time = MONDAY + np.timedelta64(30, "m") * np.arange(48 * 7)
    values = np.zeros((48 * 7, 2, 1, 1), int)
    values[::48] = 100  # the first slot of every day
    ones = np.ones(len(time))
    table = WeekdayClimatology.fit(there, flows_dataset(there, time, values, ones, ones)).table
    assert table[0, 0, 0, 0, 0] > table[0, 1, 0, 0, 0] > 1
    np.testing.assert_allclose(table[0, 47], table[0, 1], rtol=1e-5)
    np.testing.assert_allclose(table[0].sum(0), 100, rtol=1e-4)
    even = flows_dataset(there, time, np.full_like(values, 7), ones, ones)
    np.testing.assert_allclose(WeekdayClimatology.fit(there, even).table, 7, rtol=1e-5)


def test_the_calendar_is_local() -> None:
    tokyo = city("Asia/Tokyo", "JP")
    # Monday 15:00 UTC is Tuesday 00:00 in Tokyo.
    found = calendar_features(tokyo, np.array([MONDAY + np.timedelta64(15, "h")]))
    assert found.shape == (1, 6) and found.dtype == np.float32
    assert found[0, 4:].tolist() == [0, 0]
    greenery_day = np.datetime64("2007-05-04T03:00", "us")  # a Friday
    found = calendar_features(tokyo, np.array([greenery_day]))
    assert found[0, 4:].tolist() == [1, 1]
    midnight, noon = calendar_features(tokyo, MONDAY + np.array([15, 3], "m8[h]"))[:, 1]
    assert midnight > 0 > noon  # the first cosine


def test_unknown_holidays_are_refused() -> None:
    for name in ("XX", "US-ZZ"):
        with pytest.raises(ValueError, match=f"'{name}' is no country"):
            city(holidays=name)
            City(**{**city().model_dump(), "holidays": name})


@pytest.mark.parametrize("fit", [Climatology.fit, WeekdayClimatology.fit])
def test_a_night_that_was_never_observed_lies_between_evening_and_morning(fit: Any) -> None:
    there = small_city(rows=1, cols=1, timezone="UTC", slot_minutes=60)
    time = MONDAY + np.timedelta64(1, "h") * np.arange(21 * 24)
    hour = np.arange(len(time)) % 24
    flow = np.where(hour == 22, 12, np.where(hour == 6, 20, 137))[:, None, None, None] * np.ones((2, 1, 1), int)
    observed = ((hour >= 6) & (hour <= 22)).astype(float)
    table = fit(there, flows_dataset(there, time, flow, np.ones(len(time)), observed)).table[:, :, 0, 0, 0]
    night = table[:, [23, 0, 1, 2, 3, 4, 5]]
    assert (night > 0.9 * 12).all() and (night < 1.1 * 20).all()  # and not near the 137 of most of the day


def test_a_city_that_was_never_observed_has_a_climatology_of_zero() -> None:
    assert (Climatology.fit(city(), flows([5] * 8, [False] * 8)).table == 0).all()
