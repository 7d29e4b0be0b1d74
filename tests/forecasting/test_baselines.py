"""Each baseline by hand on a grid of one row and two columns."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.cities import small_city
from trafficcast.config.city import City, target_times
from trafficcast.errors import InputError
from trafficcast.forecasting.baselines import (
    AnomalyPersistence,
    ScaledClimatology,
    _LastWeek,
    _Persistence,
    _scaled_and_anomaly,
)
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology, climatology_of_other_days
from trafficcast.forecasting.gradient_boosting import GradientBoosting, _features
from trafficcast.forecasting.model import Model
from trafficcast.nn import vmrnn_b
from trafficcast.stores.flows import flows_dataset

SIX_HOURS = np.timedelta64(6, "h")
MONDAY = np.datetime64("2008-06-02T00:00", "us")
FRAME = (2, 1, 2)


def city(timezone: str = "UTC") -> City:
    """Four slots a day, so that a table is small enough to write down."""
    return small_city(rows=1, cols=2, slot_minutes=360, timezone=timezone)


def flows(values: list[float | None], start: np.datetime64 = MONDAY) -> xr.Dataset:
    """Six-hour slots from Monday on with the same number in every cell; None is a slot that was cut off, full of 99."""
    flow = np.array([99 if value is None else value for value in values])[:, None, None, None] * np.ones(FRAME, int)
    observed = np.array([value is not None for value in values], float)
    time = start + SIX_HOURS * np.arange(len(values))
    return flows_dataset(city(), time, flow, np.ones(len(values)), observed)


def history(*values: float) -> np.ndarray:
    return np.float32(values)[None, :, None, None, None] * np.ones(FRAME, np.float32)


def at(*slots: int) -> np.ndarray:
    """Slot starts, so many slots after Monday."""
    return MONDAY + SIX_HOURS * np.array(slots)


def numbers(forecast: np.ndarray) -> list[list[float]]:
    """A forecast that is the same in every cell: its four numbers, for each init time."""
    assert forecast.shape[1:] == (4, *FRAME)
    assert forecast.dtype == np.float32
    assert (forecast == forecast[..., :1, :1, :1]).all()
    return forecast[..., 0, 0, 0].tolist()


def test_target_times_are_the_init_time_and_the_three_slots_after() -> None:
    assert (target_times(city(), at(0, 3)) == np.stack([at(0, 1, 2, 3), at(3, 4, 5, 6)])).all()


def test_persistence_repeats_the_last_slot_of_each_cell() -> None:
    past = np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, *FRAME)
    forecast = _Persistence().forecast(past, at(0, 1))
    assert forecast.shape == (2, 4, *FRAME)
    assert (forecast == past[:, [3, 3, 3, 3]]).all()


# Monday to Sunday: weekdays 10, 20, 30, 40 by slot of day, the Monday one more; weekends 1, 2, 3, 4.
WEEK: list[float | None] = [15, 25, 35, 45, *[10, 20, 30, 40] * 4, *[1, 2, 3, 4] * 2]


def test_climatology_is_the_mean_by_slot_of_day_and_kind_of_day() -> None:
    climatology = Climatology.fit(city(), flows(WEEK))
    assert climatology.table[:, :, 0, 0, 0].tolist() == [[11, 21, 31, 41], [1, 2, 3, 4]]
    # From Friday 12:00 into Saturday, and from Sunday 18:00 into the next Monday.
    assert numbers(climatology.forecast(history(0, 0, 0, 0), at(18))) == [[31, 41, 1, 2]]
    assert numbers(climatology.forecast(history(0, 0, 0, 0), at(27))) == [[4, 11, 21, 31]]


def test_climatology_keeps_kinds_and_cells_apart() -> None:
    dataset = flows(WEEK)
    dataset["flow"][:] = dataset["flow"].values + np.arange(4).reshape(FRAME) * 100
    forecast = Climatology.fit(city(), dataset).forecast(history(0, 0, 0, 0), at(20))
    assert forecast[0, 0].tolist() == [[[1, 101]], [[201, 301]]]


def test_climatology_leaves_out_slots_that_were_not_observed() -> None:
    week = list(WEEK)
    week[0] = None
    assert Climatology.fit(city(), flows(week)).table[0, 0, 0, 0, 0] == 10


def test_a_slot_of_day_never_observed_takes_the_other_kind_of_day_or_lies_between_its_neighbours() -> None:
    week = [None if slot % 4 == 3 or (slot >= 20 and slot % 4 == 0) else value for slot, value in enumerate(WEEK)]
    table = Climatology.fit(city(), flows(week)).table[:, :, 0, 0, 0]
    between = ((5 * 31 + 2 * 3) / 7 + 11) / 2  # of the means of all days at 12:00 and at 0:00
    assert table.tolist() == [[11, 21, 31, between], [11, 2, 3, between]]


def test_weekends_and_slots_of_day_are_local() -> None:
    there = city("America/Los_Angeles")  # UTC-7: slots start at 17:00, 23:00, 05:00 and 11:00
    climatology = Climatology.fit(there, flows(WEEK))
    first = np.array([np.datetime64("2008-06-07T00:00", "us")])  # Friday 17:00
    assert there.slot_of_day(target_times(there, first)[0]).tolist() == [2, 3, 0, 1]
    by_hand: dict[tuple[bool, int], list[float]] = {}
    for slot, value in enumerate(WEEK):
        hour = slot * 6 - 7  # local hours since Monday 00:00
        by_hand.setdefault((hour // 24 in (-1, 5, 6), hour % 24 // 6), []).append(float(value or 0))
    wanted = [[np.float32(np.mean(by_hand[weekend, slot])) for slot in range(4)] for weekend in (False, True)]
    assert climatology.table[:, :, 0, 0, 0].tolist() == wanted
    forecast = numbers(climatology.forecast(history(0, 0, 0, 0), first))
    assert forecast == [[wanted[0][2], wanted[0][3], wanted[1][0], wanted[1][1]]]


def test_climatology_at_times_of_any_shape() -> None:
    climatology = Climatology.fit(city(), flows(WEEK))
    means = climatology.at(at(0, 1, 20, 21, 2, 3).reshape(2, 3))
    assert means.shape == (2, 3, *FRAME)
    assert means[..., 0, 0, 0].tolist() == [[11, 21, 1], [2, 31, 41]]


def test_scaled_climatology_multiplies_by_the_activity_of_the_history() -> None:
    scaled = ScaledClimatology(Climatology.fit(city(), flows(WEEK)))
    # From Monday 00:00 the climatology is 11 + 21 + 31 + 41 = 104 a cell; half of it is observed, in a single slot.
    assert numbers(scaled.forecast(history(0, 0, 52, 0), at(4))) == [[5.5, 10.5, 15.5, 20.5]]
    assert numbers(scaled.forecast(history(104, 104, 0, 0), at(4))) == [[22, 42, 62, 82]]


def test_scaled_climatology_has_one_ratio_for_both_kinds_and_all_cells_of_each_sample() -> None:
    scaled = ScaledClimatology(Climatology.fit(city(), flows(WEEK)))
    past = np.concatenate([history(0, 0, 0, 0), history(11, 21, 31, 41), history(11, 21, 31, 41)])
    past[0, 0, 0, 0, 0] = 4 * 104  # all of it in one cell and one kind
    past[2] *= 3
    assert numbers(scaled.forecast(past, at(4, 4, 4))) == [[11, 21, 31, 41], [11, 21, 31, 41], [33, 63, 93, 123]]


def test_scaled_climatology_of_an_empty_history_is_zero() -> None:
    scaled = ScaledClimatology(Climatology.fit(city(), flows(WEEK)))
    assert numbers(scaled.forecast(history(0, 0, 0, 0), at(4))) == [[0, 0, 0, 0]]


def test_where_climatology_knows_no_traffic_the_ratio_is_one() -> None:
    week: list[float | None] = [0] * 20 + [7] * 8  # no traffic on weekdays
    scaled = ScaledClimatology(Climatology.fit(city(), flows(week)))
    assert numbers(scaled.forecast(history(5, 5, 5, 5), at(20))) == [[7, 7, 7, 7]]


def test_last_week_looks_168_hours_back() -> None:
    dataset = flows([float(slot) for slot in range(28)])
    last_week = _LastWeek(dataset, Climatology.fit(city(), flows(WEEK)))
    assert numbers(last_week.forecast(history(0, 0, 0, 0), at(28))) == [[0, 1, 2, 3]]
    assert numbers(last_week.forecast(np.zeros((2, 4, *FRAME), np.float32), at(40, 30))) == [
        [12, 13, 14, 15],
        [2, 3, 4, 5],
    ]


def test_last_week_takes_climatology_where_the_slot_was_cut_missing_or_out_of_range() -> None:
    values: list[float | None] = [float(100 + slot) for slot in range(28)]
    values[9] = None
    dataset = flows(values).isel(time=[slot for slot in range(28) if slot != 10])
    last_week = _LastWeek(dataset, Climatology.fit(city(), flows(WEEK)))
    past = history(0, 0, 0, 0)
    assert numbers(last_week.forecast(past, at(28 + 8))) == [[108, 21, 31, 111]]
    assert numbers(last_week.forecast(past, at(26))) == [[3, 4, 100, 101]]  # before the first slot
    assert numbers(last_week.forecast(past, at(28 + 26))) == [[126, 127, 11, 21]]  # after the last


def test_last_week_never_reads_what_the_forecast_time_did_not_know() -> None:
    dataset = flows([float(slot) for slot in range(60)])
    known = dataset.isel(time=slice(0, 40))
    climatology = Climatology.fit(city(), flows(WEEK))
    past = history(0, 0, 0, 0)
    assert (
        _LastWeek(dataset, climatology).forecast(past, at(40)) == _LastWeek(known, climatology).forecast(past, at(40))
    ).all()


def test_all_baselines_by_the_names_that_scores_use() -> None:
    dataset = flows(WEEK)
    named = Model({}, vmrnn_b(8, 8, depth=1, embed=16), Climatology.fit(city(), dataset)).baselines(dataset)
    past = history(11, 21, 31, 82)
    assert {name: numbers(forecaster.forecast(past, at(28)))[0] for name, forecaster in named.items()} == {
        "persistence": [82, 82, 82, 82],
        "last_week": [15, 25, 35, 45],
        "climatology": [11, 21, 31, 41],
        "scaled_climatology": pytest.approx(
            [11 * 14.5, 21 * 14.5, 31 * 14.5, 41 * 14.5]
        ),  # 145 observed, climatology 10
    }


# A city of 4 x 5 cells whose days follow a pattern, over three weeks of hours; its anomalies persist.
def pattern_city() -> City:
    return small_city(rows=4, cols=5, slot_minutes=60, timezone="UTC")


def lasting(persistence: float, days: int = 21, noise: float = 6.0) -> xr.Dataset:
    """An anomaly of each cell that shrinks to `persistence` of itself from slot to slot, around a daily pattern."""
    rng = np.random.default_rng(0)
    time = MONDAY + np.timedelta64(1, "h") * np.arange(24 * days)
    hour = np.arange(24 * days) % 24
    climatology = 60 + 30 * np.sin(2 * np.pi * hour / 24)[:, None, None, None] * np.ones((2, 4, 5))
    anomaly = np.zeros((24 * days, 2, 4, 5))
    for t in range(1, len(time)):
        anomaly[t] = persistence * anomaly[t - 1] + rng.normal(0, noise, (2, 4, 5))
    flow = (climatology + anomaly).clip(0).round().astype(int)
    return flows_dataset(pattern_city(), time, flow, np.ones(len(time)), np.ones(len(time)))


def starts_of(flows: xr.Dataset) -> np.ndarray:
    return np.arange(len(flows["time"]) - 7)


def test_anomaly_persistence_finds_how_long_anomalies_persist() -> None:
    for persistence in (0.0, 0.9):
        flows = lasting(persistence)
        weights = AnomalyPersistence.fit(pattern_city(), flows, starts_of(flows)).weights
        assert weights.shape == (4,) and (np.diff(weights) <= 0.02).all()
        # The best linear weight of the mean of four for a first-order autoregression.
        lags = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
        variance = (persistence**lags).mean() if persistence else 0.25
        expected = [np.mean([persistence ** (lead + lag) for lag in (1, 2, 3, 4)]) / variance for lead in range(4)]
        np.testing.assert_allclose(weights, expected, atol=0.08)


def test_anomaly_persistence_beats_what_it_is_made_of() -> None:
    flows = lasting(0.9)
    training, later = flows.isel(time=slice(0, 24 * 14)), flows.isel(time=slice(24 * 14, None))
    fitted = AnomalyPersistence.fit(pattern_city(), training, starts_of(training))
    starts, values = starts_of(later), later["flow"].values.astype(np.float32)
    past = np.stack([values[s : s + 4] for s in starts])
    truth = np.stack([values[s + 4 : s + 8] for s in starts])
    init_times = later["time"].values[starts + 4]

    def error(forecast: np.ndarray) -> float:
        return float(np.sqrt(np.square(forecast - truth).mean()))

    scaled = ScaledClimatology(Climatology.fit(pattern_city(), training)).forecast(past, init_times)
    assert error(fitted.forecast(past, init_times)) < 0.9 * error(scaled)
    assert (fitted.forecast(past, init_times) >= 0).all()


def test_the_activity_is_one_where_the_climatology_is_zero() -> None:
    scaled, anomaly = _scaled_and_anomaly(history(1, 2, 3, 4), np.zeros((1, 8, *FRAME), np.float32))
    assert (scaled == 0).all() and (anomaly == 2.5).all()


def test_the_climatology_of_other_days_is_a_fit_without_the_day() -> None:
    there = pattern_city()
    flows = lasting(0.5, days=16)
    flows["observed"][30:40] = False
    left_out = climatology_of_other_days(there, flows)
    days = there.local_days(flows["time"].values)
    for day in np.unique(days)[[0, 5, 15]]:
        rest = flows.isel(time=days != day)
        expected = WeekdayClimatology.fit(there, rest).at(flows["time"].values[days == day])
        np.testing.assert_allclose(left_out[days == day], expected, rtol=1e-5)


@pytest.mark.slow
def test_trees_learn_what_cells_cannot_tell_alone() -> None:
    pytest.importorskip("lightgbm", reason="LightGBM is not installed")
    rng = np.random.default_rng(0)
    flows = lasting(0.0, noise=1.0)
    # Whatever a cell's western neighbour had too much of arrives one slot later.
    wave = rng.normal(0, 8, (len(flows["time"]), 2, 4, 5)).round().astype(int)
    arriving = np.roll(wave, (1, 1), axis=(0, 3))
    flows["flow"].values[:] = (flows["flow"].values + wave + arriving).clip(0)
    training, later = flows.isel(time=slice(0, 24 * 14)), flows.isel(time=slice(24 * 14, None))
    start = AnomalyPersistence.fit(pattern_city(), training, starts_of(training))
    trees = GradientBoosting.fit(pattern_city(), training, starts_of(training), start)
    again = GradientBoosting.fit(pattern_city(), training, starts_of(training), start)
    starts, values = starts_of(later), later["flow"].values.astype(np.float32)
    past, init_times = np.stack([values[s : s + 4] for s in starts]), later["time"].values[starts + 4]
    truth = np.stack([values[s + 4 : s + 8] for s in starts])
    forecast = trees.forecast(past, init_times)
    np.testing.assert_array_equal(forecast, again.forecast(past, init_times))
    assert forecast.shape == truth.shape and (forecast >= 0).all()
    without = start.forecast(past, init_times)
    assert np.square(forecast - truth)[:, 0].mean() < 0.97 * np.square(without - truth)[:, 0].mean()


def test_too_few_windows_for_trees_are_refused() -> None:
    pytest.importorskip("lightgbm", reason="LightGBM is not installed")
    flows = lasting(0.5, days=3)
    start = AnomalyPersistence.fit(pattern_city(), flows, starts_of(flows))
    with pytest.raises(InputError, match="trees need 50 windows to learn from, there are 49"):
        GradientBoosting.fit(pattern_city(), flows, starts_of(flows)[:49], start)
    GradientBoosting.fit(pattern_city(), flows, starts_of(flows)[:50], start)


def test_there_are_23_features_and_the_first_is_anomaly_persistence() -> None:
    there, flows = pattern_city(), lasting(0.5)
    start = AnomalyPersistence.fit(there, flows, starts_of(flows))
    values, times = flows["flow"].values.astype(np.float32), flows["time"].values
    past, climatology = values[None, 40:44], start.climatology.at(times[None, 40:48])
    found = _features(there, past, climatology, times[[44]], start.weights)
    assert found.shape == (4 * 2 * 4 * 5, 23)
    np.testing.assert_allclose(found[:, 0], start.forecast(past, times[[44]]).ravel(), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 4].reshape(4, 2, 4, 5), np.broadcast_to(past[0, 3], (4, 2, 4, 5)))
