"""Patterns: found where anomalies last explained, not where they are noise, and never from a window's own days."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.cities import small_city
from trafficcast.forecasting.baselines import AnomalyPersistence
from trafficcast.forecasting.climatology import Climatology, calendar_features
from trafficcast.forecasting.model import Model
from trafficcast.forecasting.patterns import _FOLDS, Patterns
from trafficcast.nn import vmrnn_b, vmrnn_c
from trafficcast.nn.vmrnn_c import ACTIVITY_LIMIT, ACTIVITY_UNIT
from trafficcast.stores.flows import flows_dataset

ROWS, COLS, NUMBER = 6, 5, 3
PER_DAY = 48


def city_with_a_pattern(days: int, noise: float = 1.0, lasts: float = 0.9, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Flows, the climatology, both (slot, flow kind, row, col), and a pattern whose amount follows itself over time."""
    rng = np.random.default_rng(seed)
    slots = days * PER_DAY
    pattern = rng.normal(size=(2, ROWS, COLS))
    pattern -= pattern.mean()  # so that it makes the city no more active
    pattern /= np.linalg.norm(pattern)
    amount = np.zeros(slots)
    for t in range(1, slots):
        amount[t] = lasts * amount[t - 1] + np.sqrt(1 - lasts**2) * rng.normal(scale=10)
    climatology = np.full((slots, 2, ROWS, COLS), 99.0, np.float32)
    anomalies = amount[:, None, None, None] * pattern + noise * rng.normal(size=climatology.shape)
    return (climatology + 10 * anomalies).astype(np.float32), climatology, pattern.astype(np.float32)


def fit(flows: np.ndarray, climatology: np.ndarray, number: int = NUMBER) -> tuple[Patterns, np.ndarray, np.ndarray]:
    starts = np.arange(len(flows) - 7)
    days = starts // PER_DAY
    return Patterns.fit(flows, climatology, calendar_of(flows), starts, days, number), starts, days


def calendar_of(flows: np.ndarray) -> np.ndarray:
    """Morning or not; the same for all when there are few slots."""
    return (np.arange(len(flows)) % PER_DAY < PER_DAY / 2).astype(np.float32)[:, None]


def test_a_pattern_that_lasts_is_found_and_how_long_it_lasts() -> None:
    flows, climatology, pattern = city_with_a_pattern(days=40)
    found, _, _ = fit(flows, climatology)
    assert found.basis.shape == (NUMBER, 2, ROWS, COLS) and found.basis.dtype == np.float32
    flat = found.basis.reshape(NUMBER, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(NUMBER), atol=1e-5)
    assert abs((found.basis[0] * pattern).sum()) > 0.99
    # Most is in the last slot, and it fades by a tenth a slot; ridge draws it a little towards nothing.
    left = found.persistence[:, 0].sum(-1)
    assert left[0] == pytest.approx(0.85, abs=0.06)
    np.testing.assert_allclose(left[1:] / left[:-1], 0.9, atol=0.05)
    # Noise is in one slot and not in the next: the other patterns, and the cells themselves, say nothing.
    assert abs(found.persistence[:, 1:].sum(-1)).max() < 0.1
    anomaly, last, patterns, _ = found.coefficients[:, 0].T  # the coefficients of one
    assert abs(anomaly).max() < 0.1 and abs(last).max() < 0.1
    np.testing.assert_allclose(patterns, 1, atol=0.2)
    assert abs(found.coefficients[:, 1:, :3]).max() < 0.2  # at all times alike


def test_no_window_knows_a_pattern_of_its_own_days() -> None:
    flows, climatology, _ = city_with_a_pattern(days=10)
    found, starts, days = fit(flows, climatology)
    assert found.fold.tolist() == (days * _FOLDS // 10).tolist()
    for one in range(_FOLDS):
        others = found.fold != one
        alone = Patterns.fit(flows, climatology, calendar_of(flows), starts[others], days[others], NUMBER)
        signs = np.sign((alone.basis * found.fold_basis[one]).sum((1, 2, 3)))
        np.testing.assert_allclose(signs[:, None, None, None] * alone.basis, found.fold_basis[one], atol=1e-4)


def test_what_is_only_noise_is_not_believed() -> None:
    flows, climatology, _ = city_with_a_pattern(days=30, lasts=0.0)
    found, _, _ = fit(flows, climatology)
    assert abs(found.persistence).max() < 0.15
    assert abs(found.coefficients[:, :, :2]).max() < 0.1


def test_how_long_the_activity_of_a_city_lasts_is_learned() -> None:
    rng = np.random.default_rng(0)
    climatology = np.full((60 * PER_DAY, 2, ROWS, COLS), 50.0, np.float32)
    activity = 1 + rng.uniform(-0.4, 0.4, len(climatology))  # nothing of it is kept
    found, _, _ = fit((activity[:, None, None, None] * climatology).astype(np.float32), climatology)
    one, _, activity_anomaly, unusual = found.coefficients[:, :, 3].T  # of the climatology
    for units in (-2, 0, 2):
        expected = 1 + ACTIVITY_UNIT * units
        np.testing.assert_allclose(one + units * activity_anomaly + abs(units) * unusual, 1 / expected - 1, atol=0.05)


def test_the_network_starts_from_them() -> None:
    flows, climatology, _ = city_with_a_pattern(days=10)
    flows[:200] *= 1.5  # a city with much activity
    found, starts, _ = fit(flows, climatology)
    torch.manual_seed(0)
    network = vmrnn_c(ROWS, COLS, features=1, depth=1, embed=16, patterns=NUMBER).eval()
    rng = np.random.default_rng(1)
    found = replace(found, coefficients=rng.uniform(-1, 1, found.coefficients.shape).astype(np.float32))
    network.start.set_coefficients(
        *(torch.from_numpy(values) for values in (found.basis, found.persistence, found.coefficients))
    )
    for first in (10, 300):
        history, of_slots = flows[first : first + 4], climatology[first : first + 8]
        calendar = rng.normal(size=(8, 1)).astype(np.float32)
        activity = history.sum() / of_slots[:4].sum()
        activity_anomaly = np.clip((activity - 1) / ACTIVITY_UNIT, -ACTIVITY_LIMIT, ACTIVITY_LIMIT)
        regressors = np.array([1, calendar[4, 0], activity_anomaly, abs(activity_anomaly)])
        anomalies = history - activity * of_slots[:4]
        expected = activity * of_slots[4:]
        for lead in range(4):
            explained = np.zeros_like(expected[lead])
            for number in range(NUMBER):
                basis = found.basis[number]
                amplitudes = [
                    (d / np.sqrt(activity * u + 1) * basis).sum() for d, u in zip(anomalies, of_slots, strict=False)
                ]
                of_mean, of_last = found.persistence[lead, number]
                explained += (of_mean * np.mean(amplitudes) + of_last * amplitudes[-1]) * basis
            explained *= np.sqrt(expected[lead] + 1)
            coefficients = regressors @ found.coefficients[lead]
            terms = anomalies.mean(0), anomalies[-1], explained, expected[lead].copy()
            expected[lead] += sum(coefficient * term for coefficient, term in zip(coefficients, terms, strict=True))
        inputs = [torch.from_numpy(values)[None] for values in (history, of_slots, calendar)]
        given = torch.from_numpy(found.basis)[None]
        for patterns in (None, given):
            forecast = network(*inputs, patterns=patterns)[0].detach().numpy()
            assert np.array_equal(network.start(*inputs, patterns=patterns)[0].numpy(), forecast)
            np.testing.assert_allclose(forecast, expected, rtol=1e-4, atol=1e-3)
    nothing = network(*inputs, patterns=0 * given)[0].detach().numpy()
    assert abs(nothing - forecast).max() > 0.1


def test_the_start_is_a_baseline_of_every_model_that_has_one() -> None:
    city = small_city(rows=ROWS, cols=COLS, timezone="UTC")
    rng = np.random.default_rng(0)
    time = np.datetime64("2024-04-08", "us") + city.slot * np.arange(2 * PER_DAY)
    counts = rng.poisson(9, (len(time), 2, ROWS, COLS))
    flows = flows_dataset(city, time, counts, np.ones(len(time)), np.ones(len(time)))
    anomaly = AnomalyPersistence.fit(city, flows, np.arange(len(time) - 7))
    torch.manual_seed(0)
    network = vmrnn_c(ROWS, COLS, depth=1, embed=16)
    network.start.patterns.normal_()
    network.start.shares.normal_()
    network.start.left.normal_()
    torch.nn.init.normal_(network.out[-1].bias)
    model = Model({}, network, Climatology.fit(city, flows), anomaly)
    history, init = counts[None, 8:12].astype(np.float32), time[12:13]
    forecast = model.baselines(None)["pattern_persistence"].forecast(history, init)
    times = init[:, None] + city.slot * np.arange(-4, 4)
    inputs = anomaly.climatology.at(times), calendar_features(city, times.ravel())[None]
    expected = network.start(*(torch.from_numpy(values) for values in (history, *inputs)))
    np.testing.assert_allclose(forecast, expected.clamp_min(0).numpy(), rtol=1e-5)
    assert abs(forecast - model.forecaster(torch.device("cpu")).forecast(history, init)).max() > 0.1
    assert "pattern_persistence" not in replace(model, network=vmrnn_b(ROWS, COLS, depth=1, embed=16)).baselines(None)


@pytest.mark.parametrize("days", [1, 2, 7])
def test_few_days_are_enough_to_start_with(days: int) -> None:
    flows, climatology, _ = city_with_a_pattern(days)
    found, _, _ = fit(flows, climatology)
    assert all(
        np.isfinite(values).all() for values in (found.basis, found.fold_basis, found.persistence, found.coefficients)
    )
    if days == 1:  # there are no others
        assert not found.fold_basis[0].any() and not found.persistence.any() and not found.coefficients[:, :, 2].any()


def test_fewer_cells_than_patterns_and_a_city_without_any_anomaly() -> None:
    flows = np.full((100, 2, 1, 1), 7, np.float32)
    still, _, _ = fit(flows, flows, 16)
    assert not still.basis.any() and not still.persistence.any() and abs(still.coefficients).max() < 1e-5
    rng = np.random.default_rng(0)
    found, _, _ = fit(rng.poisson(7, flows.shape).astype(np.float32), flows, 16)
    assert found.basis.shape == (16, 2, 1, 1) and np.isfinite(found.persistence).all()
    assert not found.basis[1:].any()
    none, _, _ = fit(flows, flows, 0)
    assert none.basis.shape == (0, 2, 1, 1) and none.persistence.shape == (4, 0, 2)
