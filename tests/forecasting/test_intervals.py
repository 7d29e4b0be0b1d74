"""Prediction intervals: exact quantiles, honest coverage, and their way from a model's folder to scores."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.service.replay import replay
from tests.cities import small_city, stores_in, unsealed
from trafficcast.errors import InputError
from trafficcast.forecasting.baselines import _Persistence
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.intervals import _BANDS, _FEWEST, Intervals, _save_intervals
from trafficcast.forecasting.model import Model, build, load_model, publish_model
from trafficcast.forecasting.publish import _publish_forecast
from trafficcast.forecasting.verify import verify_due
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.forecasts import forecast_dataset, has_intervals
from trafficcast.stores.registry import Registry
from trafficcast.training.card import _card_text
from trafficcast.training.settings import TrainingSettings

CITY = small_city(rows=8, cols=12, timezone="UTC")
INIT = np.datetime64("2024-04-08T10:00", "us")
CARD: dict[str, Any] = {
    "version": "vmrnn-b-1",
    "architecture": {"name": "vmrnn-b", "rows": 8, "cols": 12, "channels": 2, "depth": 1, "embed": 16},
    "grid": CITY.grid(),
    "scale": 100.0,
}


def one_group(prediction: list[float], truth: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Values of one lead and one kind as (n, 1, 1, 1, 1)."""
    return (np.array(prediction)[:, None, None, None, None], np.array(truth)[:, None, None, None, None])


def drawn(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and negative binomial truths (n, 4, 2, 8, 12), variance 1.8 times the mean, many cells near zero."""
    draw = np.random.default_rng(seed)
    mean = np.exp(draw.normal(0.5, 2, (n, 4, 2, 8, 12))).clip(max=150)
    return mean.astype(np.float32), draw.negative_binomial(mean / 0.8, 1 / 1.8)


@pytest.fixture(scope="module")
def fitted() -> Intervals:
    return Intervals.fit(*drawn(0))


def test_quantiles_of_a_known_sample_are_exact() -> None:
    # Errors -9 .. 9 around 15: of 19 the 2nd and the 18th bound 80 %, the 1st and the 19th 90 % and, too few, 95 %.
    intervals = Intervals.fit(*one_group([15.0] * 19, list(range(6, 25))), levels=(0.8, 0.9, 0.95))
    lower, upper = intervals.around(np.full((1, 1, 1, 1), 15.0))
    assert lower.ravel() == pytest.approx([7, 6, 6], abs=0.01)
    assert upper.ravel() == pytest.approx([23, 24, 24], abs=0.01)
    assert all(lower.ravel() <= [7, 6, 6]) and all(upper.ravel() >= [23, 24, 24])


def test_a_forecast_that_always_errs_to_one_side_is_a_bound() -> None:
    flow = np.full((1, 1, 1, 1), 20.0)
    for truths, low, high in ((range(30, 49), 20, 47), (range(1, 20), 2, 20)):
        lower, upper = Intervals.fit(*one_group([20.0] * 19, list(truths)), levels=(0.8,)).around(flow)
        assert (lower.item(), upper.item()) == pytest.approx((low, high), abs=0.01)
        assert lower.item() <= 20 <= upper.item()


def test_errors_grow_with_the_root_of_the_prediction() -> None:
    intervals = Intervals.fit(*one_group([15.0] * 19, list(range(6, 25))), levels=(0.8,))
    lower, upper = intervals.around(np.full((1, 1, 1, 1), 63.0))
    assert (lower.item(), upper.item()) == pytest.approx((63 - 8 * 2, 63 + 8 * 2), abs=0.01)


def test_where_zero_is_the_lower_bound_all_misses_are_above() -> None:
    # Of 19 truths 3 are 0, and the 2nd is to bound 80 % below: so the 16th bounds it above, and not the 18th.
    intervals = Intervals.fit(*one_group([3.0] * 19, [0, 0, 0, *range(1, 17)]), levels=(0.8,))
    lower, upper = intervals.around(np.full((1, 1, 1, 1), 3.0))
    assert lower.item() == 0
    assert upper.item() == pytest.approx(13, abs=0.01)


def test_leads_and_kinds_have_their_own_quantiles() -> None:
    prediction = np.full((40, 2, 2, 1, 1), 1000.0)
    size = np.array([[1.0, 2], [3, 4]])[..., None, None]
    truth = prediction + size * np.linspace(-10, 10, 40)[:, None, None, None, None]
    lower, upper = Intervals.fit(prediction, truth).around(prediction[0])
    np.testing.assert_allclose((upper - lower)[1].squeeze() / size.squeeze(), 20, atol=0.01)


@pytest.mark.parametrize(("level", "share"), [(0, 0.80), (1, 0.95)])
def test_coverage_of_new_counts_is_nominal_at_every_activity(fitted: Intervals, level: int, share: float) -> None:
    prediction, truth = drawn(1)
    lower, upper = (bound[level] for bound in fitted.around(prediction))
    inside = (lower <= truth) & (truth <= upper)
    for lead, kind in np.ndindex(4, 2):
        assert inside[:, lead, kind].mean() >= share - 0.02
    for low, high in itertools.pairwise(_BANDS[2:]):
        band = (low <= prediction) & (prediction < high)
        assert share - 0.02 <= inside[band].mean() <= share + 0.04
    # Nearly all truths are 0, and 0 is inside: more than the share cannot be helped.
    assert inside[prediction < 0.1].mean() >= share
    assert (lower[prediction < 0.1] == 0).all()


def test_bounds_hold_the_forecast_are_never_negative_and_nested(fitted: Intervals) -> None:
    flow = np.geomspace(1e-3, 500, 3 * 4 * 2 * 50).reshape(3, 4, 2, 5, 10).astype(np.float32)
    flow[0, 0, 0, 0] = 0
    lower, upper = fitted.around(flow)
    assert lower.shape == upper.shape == (2, 3, 4, 2, 5, 10)
    assert lower.dtype == upper.dtype == np.float32
    assert (lower >= 0).all() and (lower <= flow).all() and (flow <= upper).all() and np.isfinite(upper).all()
    assert (lower[1] <= lower[0]).all() and (upper[0] <= upper[1]).all()


def test_levels_stay_nested_where_one_misses_above_only() -> None:
    # 5 of 39 truths are 0: below 80 % the 4th is 0 and all misses are above, at 60 % the 8th is not.
    truths = [0.0] * 5 + list(range(1, 35))
    lower, upper = Intervals.fit(*one_group([9.0] * 39, truths), levels=(0.7, 0.75)).around(np.full((1, 1, 1, 1), 9.0))
    assert lower[0].item() > 0 == lower[1].item()
    assert upper[1].item() >= upper[0].item() == pytest.approx(29, abs=0.01)


def test_the_same_forecast_alone_and_among_others(fitted: Intervals) -> None:
    flow = drawn(2, 3)[0]
    for whole, alone in zip(fitted.around(flow), fitted.around(flow[1]), strict=True):
        np.testing.assert_array_equal(whole[:, 1], alone)


def test_every_activity_level_has_enough_residuals_and_busy_cells_their_own(fitted: Intervals) -> None:
    prediction, _ = drawn(0)
    activity = np.searchsorted(fitted.edges, prediction, side="right")
    for lead, kind in np.ndindex(4, 2):
        assert np.bincount(activity[:, lead, kind].ravel(), minlength=len(fitted.edges) + 1).min() >= _FEWEST
    assert fitted.scores.shape == (2, 2, 4, 2, len(fitted.edges) + 1)
    assert len(fitted.edges) >= 5 and fitted.edges[-1] > np.quantile(prediction, 0.85)


@pytest.mark.parametrize("value", [0.0, 0.3, 7.0])
def test_constant_forecasts_and_few_of_them_are_one_group(value: float) -> None:
    truth = np.random.default_rng(0).integers(0, 5, (3, 4, 2, 8, 12))
    intervals = Intervals.fit(np.full(truth.shape, value), truth)
    assert len(intervals.edges) == 0
    lower, upper = intervals.around(np.full(truth.shape[1:], value, np.float32))
    # Rounding does not put a truth outside that is the bound: of 0 .. 4 each holds a fifth.
    assert ((lower[1] <= truth) & (truth <= upper[1])).mean() > 0.99
    lower, upper = intervals.around(np.full((4, 2, 1, 1), 300.0, np.float32))
    assert np.isfinite(upper).all() and (upper >= 300).all() and (lower <= 300).all()


def test_a_city_without_any_traffic() -> None:
    nothing = np.zeros((3, 4, 2, 8, 12))
    lower, upper = Intervals.fit(nothing, nothing).around(nothing)
    assert (lower == 0).all() and (upper < 0.01).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_what_is_no_number_of_vehicles_is_refused(fitted: Intervals, wrong: float) -> None:
    good, bad = np.ones((2, 4, 2, 8, 12)), np.ones((2, 4, 2, 8, 12))
    bad[1, 2, 0, 3, 4] = wrong
    for call in (Intervals.fit, fitted.coverage):
        with pytest.raises(InputError, match="forecast holds values"):
            call(bad, good)
        with pytest.raises(InputError, match="truth holds values"):
            call(good, bad)
    with pytest.raises(InputError, match="forecast holds values"):
        fitted.around(bad[1])


def test_shapes_and_levels_that_do_not_fit_are_refused(fitted: Intervals) -> None:
    ones = np.ones((2, 4, 2, 8, 12))
    for prediction, truth, sentence in (
        (ones, ones[:1], "must both be"),
        (ones[0], ones[0], "must both be"),
        (ones[:0], ones[:0], "no forecast"),
    ):
        with pytest.raises(InputError, match=sentence):
            Intervals.fit(prediction, truth)
    for levels in ((), (0.95, 0.8), (0.8, 1.0), (0.0, 0.8), (0.8, 0.8)):
        with pytest.raises(InputError, match="do not rise"):
            Intervals.fit(ones, ones, levels)
    with pytest.raises(InputError, match="do not fit"):
        fitted.around(ones[0, :3])


def test_coverage_counts_what_lies_inside(fitted: Intervals) -> None:
    prediction, truth = drawn(3, 20)
    found = fitted.coverage(prediction, truth)
    lower, upper = fitted.around(prediction)
    assert (found["forecasts"], list(found["levels"])) == (20, ["0.8", "0.95"])
    band = (prediction >= 3) & (prediction < 10)
    place = found["bands"]["from"].index(3.0)
    assert found["bands"]["share"][place] == pytest.approx(band.mean())
    assert sum(found["bands"]["share"]) == pytest.approx(1)
    for i, values in enumerate(found["levels"].values()):
        for name, value in (("inside", (lower[i] <= truth) & (truth <= upper[i])), ("width", upper[i] - lower[i])):
            assert values[name]["all"] == pytest.approx(value.mean(), rel=1e-4)
            assert values[name]["by_lead"] == pytest.approx(value.mean((0, 2, 3, 4)), rel=1e-4)
            assert values[name]["by_kind"] == pytest.approx(value.mean((0, 1, 3, 4)), rel=1e-4)
            assert values[name]["by_activity"][place] == pytest.approx(value[band].mean(), rel=1e-4)


def model(intervals: Intervals | None) -> Model:
    torch.manual_seed(0)
    table = np.ones((2, 48, 2, 8, 12), np.float32)
    return Model(CARD, build(CARD["architecture"]), Climatology(CITY, table), intervals=intervals)


def test_the_model_folder_keeps_them(tmp_path: Path, fitted: Intervals) -> None:
    registry = Registry(tmp_path / "small", CITY)
    publish_model(registry, model(fitted), lambda folder: None)
    loaded = load_model(registry).intervals
    assert loaded is not None
    for name, value in vars(fitted).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
        assert getattr(loaded, name).dtype == value.dtype
    flow = drawn(4, 1)[0]
    np.testing.assert_array_equal(loaded.around(flow), fitted.around(flow))


def test_a_model_without_them_loads(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "small", CITY)
    publish_model(registry, model(None), lambda folder: None)
    assert load_model(registry).intervals is None
    assert not (registry.root / "vmrnn-b-1" / "intervals.safetensors").exists()


def test_a_damaged_file_is_named(tmp_path: Path, fitted: Intervals) -> None:
    registry = Registry(tmp_path / "small", CITY)
    file = registry.root / "vmrnn-b-1" / "intervals.safetensors"
    publish_model(registry, model(fitted), lambda folder: None)
    unsealed(registry, "vmrnn-b-1")
    for change in (
        {"scores": fitted.scores[:, :, :3]},
        {"scores": np.full_like(fitted.scores, np.nan)},
        {"scores": fitted.scores * np.float32(1e37)},
        {"scores": -fitted.scores},
        {"levels": fitted.levels[::-1].copy()},
        {"edges": fitted.edges[::-1].copy()},
        {"edges": np.full_like(fitted.edges, np.nan)},
    ):
        _save_intervals(file, replace(fitted, **change))
        with pytest.raises(InputError, match=r"is damaged: intervals\.safetensors: "):
            load_model(registry)
    for content in (b"", b"no tensors", file.with_name("climatology.safetensors").read_bytes()):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"is damaged: intervals\.safetensors: "):
            load_model(registry)


def made(hours: int, intervals: Intervals | None) -> xr.Dataset:
    flow = drawn(hours, 1)[0][0]
    bounds = None if intervals is None else (intervals.levels, *intervals.around(flow))
    return forecast_dataset(CITY, CARD, INIT + np.timedelta64(hours, "h"), flow, INIT, bounds)


def test_a_forecast_carries_its_bounds(fitted: Intervals) -> None:
    forecast = made(0, fitted)
    assert forecast["level"].values.tolist() == [0.80, 0.95]
    lower, upper = fitted.around(forecast["flow"].values[0])
    for name, bound in (("lower", lower), ("upper", upper)):
        assert forecast[name].dims == ("init_time", "level", "lead_time", "flow_kind", "row", "col")
        np.testing.assert_array_equal(forecast[name].values[0], bound)
        assert forecast[name].attrs["units"] == "1" and name in forecast[name].attrs["long_name"]
    assert has_intervals(forecast)


def test_a_forecast_without_them_is_as_before() -> None:
    forecast = made(0, None)
    assert not {"lower", "upper"} & set(forecast.data_vars) and "level" not in forecast.coords
    assert not has_intervals(forecast)


@pytest.fixture
def store(tmp_path: Path) -> DayStore:
    return stores_in(tmp_path, CITY).forecasts("v1")


def test_the_store_gives_them_back(store: DayStore, fitted: Intervals) -> None:
    written = xr.concat([made(0, fitted), made(1, fitted)], "init_time", data_vars="minimal")
    store.write(made(0, fitted))
    store.write(made(1, fitted))
    found = store.read()
    assert found is not None
    xr.testing.assert_identical(found, written)


@pytest.mark.parametrize("order", [(True, False), (False, True)])
@pytest.mark.parametrize("hours", [1, 24])
def test_forecasts_with_and_without_them_in_one_store(
    store: DayStore, fitted: Intervals, order: tuple[bool, bool], hours: int
) -> None:
    """In one file (an hour apart) and in two (a day apart)."""
    written = [made(hours * i, fitted if bounded else None) for i, bounded in enumerate(order)]
    for forecast in (*written, *written):
        store.write(forecast)
    found = store.read()
    assert found is not None
    for i, bounded in enumerate(order):
        one = found.isel(init_time=i)
        np.testing.assert_array_equal(one["flow"], written[i]["flow"][0])
        assert has_intervals(one) == bounded
        if bounded:
            np.testing.assert_array_equal(one["lower"], written[i]["lower"][0])
            np.testing.assert_array_equal(one["upper"], written[i]["upper"][0])
            assert one["level"].values.tolist() == [0.80, 0.95]


def flows() -> xr.Dataset:
    time = INIT - np.timedelta64(10, "h") + CITY.slot * np.arange(40)
    flow = np.random.default_rng(5).poisson(4, (40, 2, 8, 12))
    return flows_dataset(CITY, time, flow, np.full(40, 9), np.ones(40))


def test_verifying_scores_them_where_they_are(tmp_path: Path, fitted: Intervals) -> None:
    stores = stores_in(tmp_path, CITY)
    seen, later = flows(), INIT + CITY.slot
    bounded = _publish_forecast(stores, model(fitted), _Persistence(), seen, INIT)
    _publish_forecast(stores, model(None), _Persistence(), seen, later)
    forecasts = stores.forecasts("vmrnn-b-1").read()
    assert forecasts is not None
    assert verify_due(stores, model(fitted), forecasts, seen).scored == 2
    scores = stores.scores("vmrnn-b-1").read()
    assert scores is not None
    truth = seen["flow"].sel(time=INIT + CITY.slot * np.arange(4)).values
    lower, upper = bounded["lower"].values[0], bounded["upper"].values[0]
    inside = ((lower <= truth) & (truth <= upper)).mean((2, 3, 4))
    scored = scores.sel(init_time=INIT)
    np.testing.assert_allclose(scored["inside"].transpose("level", "lead_time"), inside)
    np.testing.assert_allclose(
        scored["width"].transpose("level", "lead_time"), (upper - lower).mean((2, 3, 4)), rtol=1e-5
    )
    assert 0 < inside[0].max() < inside[1].min() <= 1
    assert scores.sel(init_time=later)[["inside", "width"]].isnull().all()
    assert np.isfinite(scores["rmse"].sel(forecaster="vmrnn-b-1")).all()


def test_a_forecast_made_again_is_left_and_one_that_lacks_bounds_gets_them(tmp_path: Path, fitted: Intervals) -> None:
    stores = stores_in(tmp_path, CITY)
    seen, store = flows(), stores.forecasts("vmrnn-b-1")

    def publish(intervals: Intervals | None) -> int:
        _publish_forecast(stores, model(intervals), _Persistence(), seen, INIT)
        return (store.root / "2024-04-08.nc").stat().st_mtime_ns

    first = publish(None)
    assert publish(None) == first
    second = publish(fitted)
    assert second > first
    found = store.read()
    assert found is not None and has_intervals(found)
    assert publish(fitted) == second


@pytest.mark.slow
def test_a_replay_forecasts_and_scores_with_the_model_folders_intervals(tmp_path: Path, fitted: Intervals) -> None:
    seen, data, models = flows(), tmp_path / "data", tmp_path / "models"
    stores = stores_in(data, CITY)
    stores.flows.write(seen)
    publish_model(Registry(models / "small", CITY), model(fitted), lambda folder: None)
    replayed = replay(stores, INIT, INIT + 6 * CITY.slot, device="cpu")
    assert (replayed["forecasts"], replayed["verified"]) == (6, 3)
    forecasts = stores.forecasts("vmrnn-b-1").read()
    scores = stores.scores("vmrnn-b-1").read()
    assert forecasts is not None and scores is not None
    assert has_intervals(forecasts)
    assert (forecasts["lower"] <= forecasts["flow"]).all() and (forecasts["flow"] <= forecasts["upper"]).all()
    assert scores["inside"].sizes == {"init_time": 3, "level": 2, "lead_time": 4}
    assert (scores["width"].sel(level=0.8) < scores["width"].sel(level=0.95)).all()


def test_the_card_has_a_table_of_coverage_by_level_and_lead_and_by_activity(fitted: Intervals) -> None:
    card = {
        **CARD,
        "city": "small",
        "parameters": {"live": 1, "published": 1},
        "split": dict.fromkeys(("start", "train_end", "valid_end", "test_end"), "2024-04-08"),
        "windows": {"training": 1, "validation": 1, "test": 1},
        "training": asdict(TrainingSettings()) | {"device": "cpu", "best_epoch": 1},
        "metrics": {"test": {}, "validation": {}},
        **dict.fromkeys(("data_hash", "code_version", "created", "command"), "-"),
    }
    assert "Prediction intervals" not in _card_text(card)
    coverage = fitted.coverage(*drawn(6, 5))
    text = _card_text(card | {"intervals": {"test": coverage}})
    inside, width = (coverage["levels"]["0.95"][name] for name in ("inside", "width"))
    assert "## Prediction intervals on test" in text and "intervals on validation" not in text
    assert f"| 95% | all | {inside['all']:.1%} | {width['all']:.2f} |" in text
    assert f"|  | +90 min | {inside['by_lead'][3]:.1%} | {width['by_lead'][3]:.2f} |" in text
    assert f"| from 30 | {coverage['bands']['share'][5]:.1%} |" in text


def around_one(intervals: Intervals, flow: float) -> tuple[list[float], list[float]]:
    """Lower and upper bounds of one value, by level."""
    lower, upper = intervals.around(np.full((1, 1, 1, 1), flow))
    return lower.ravel().tolist(), upper.ravel().tolist()


def test_ranks_are_those_of_one_error_more() -> None:
    # Of 20 errors the 19th (0.9 * 21, rounded up) and the 2nd bound 80 %.
    lower, upper = around_one(Intervals.fit(*one_group([15.0] * 20, list(range(6, 26))), levels=(0.8,)), 15.0)
    assert (lower, upper) == ([pytest.approx(7, abs=0.01)], [pytest.approx(24, abs=0.01)])
    # Of 20 truths 3 are 0: the 17th (0.8 * 21, rounded up) bounds 80 % above.
    zeros = Intervals.fit(*one_group([3.0] * 20, [0, 0, 0, *range(1, 18)]), levels=(0.8,))
    assert around_one(zeros, 3.0) == ([0], [pytest.approx(14, abs=0.01)])
    # Too few for 95 %: the extreme errors are the bounds.
    assert around_one(Intervals.fit(*one_group([1.0] * 3, [0, 1, 2]), levels=(0.95,)), 1.0) == (
        [0],
        [pytest.approx(2, abs=0.01)],
    )


@pytest.mark.parametrize(
    ("numbers", "levels"),
    [
        ((600, 500), 2),  # a level begins with its edge
        ((600, 499), 1),
        ((500, 600), 2),
        ((499, 600), 1),
        ((600, 400, 600), 2),  # the ones are merged with the next level, the twos
        ((600, 500, 600), 3),
    ],
)
def test_a_level_with_fewer_than_500_errors_is_merged(numbers: tuple[int, ...], levels: int) -> None:
    prediction = np.repeat(np.arange(len(numbers), dtype=float), numbers)
    intervals = Intervals.fit(*one_group(prediction.tolist(), prediction.tolist()))
    assert intervals.edges.tolist() == list(range(1, levels))


def test_a_level_has_500_errors_of_each_kind() -> None:
    prediction = np.zeros((1100, 1, 2, 1, 1))
    prediction[600:, 0, 0], prediction[601:, 0, 1] = 1, 1
    assert len(Intervals.fit(prediction, prediction).edges) == 0  # 500 and 499 above
    assert Intervals.fit(prediction[:, :, :1], prediction[:, :, :1]).edges.tolist() == [1]
    prediction[:, 0, 1] = 1
    prediction[:499, 0, 1] = 0
    assert len(Intervals.fit(prediction, prediction).edges) == 0  # 600 and 499 below


def test_after_every_four_levels_half_as_many_predictions_are_above() -> None:
    prediction = np.random.default_rng(6).permutation(20_000.0 / 100 * np.linspace(0, 1, 20_000))
    edges = Intervals.fit(*one_group(prediction.tolist(), prediction.tolist())).edges
    above = [(prediction >= edge).mean() for edge in edges[:10]]
    assert above == pytest.approx([2 ** (-k / 4) for k in range(1, 11)], abs=1e-3)


def test_coverage_is_reported_by_bands_of_the_prediction() -> None:
    prediction, truth = one_group([0.0, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0], [0, 0, 1, 3, 10, 30, 100])
    found = Intervals.fit(prediction, truth).coverage(prediction, truth)
    assert found["bands"]["from"] == [0.0, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0]
    assert found["bands"]["share"] == pytest.approx([1 / 7] * 7)
    below, _ = one_group([0.09, 0.9, 2.9, 9.9, 29.0, 99.0, 101.0], [0] * 7)
    assert Intervals.fit(prediction, truth).coverage(below, truth)["bands"]["share"] == pytest.approx([1 / 7] * 7)


@pytest.mark.parametrize("truths", [range(30, 49), range(1, 20)])
def test_a_truth_that_is_a_bound_lies_inside(truths: range) -> None:
    intervals = Intervals.fit(*one_group([20.0] * 19, list(truths)), levels=(0.8,))
    assert 20.0 in np.ravel(around_one(intervals, 20.0))
    assert intervals.coverage(*one_group([20.0], [20.0]))["levels"]["0.8"]["inside"]["all"] == 1
