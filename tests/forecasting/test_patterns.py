"""Patterns: found where departures last together, not where they are noise, and never from a window's own days."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from trafficcast.config.city import City
from trafficcast.forecasting.baselines import AnomalyPersistence
from trafficcast.forecasting.climatology import Climatology, calendar_features
from trafficcast.forecasting.model import Model
from trafficcast.forecasting.patterns import _BLOCKS, Patterns
from trafficcast.nn import vmrnn_b, vmrnn_c
from trafficcast.nn.vmrnn_c import MOST_UNUSUAL, UNUSUAL
from trafficcast.stores.flows import flows_dataset

ROWS, COLS, NUMBER = 6, 5, 3
PER_DAY = 48


def city_with_a_pattern(days: int, noise: float = 1.0, lasts: float = 0.9, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Flows, what is normal, both (slot, flow kind, row, col), and a pattern whose amount follows itself over time."""
    rng = np.random.default_rng(seed)
    slots = days * PER_DAY
    pattern = rng.normal(size=(2, ROWS, COLS))
    pattern -= pattern.mean()  # so that it makes the city no busier
    pattern /= np.linalg.norm(pattern)
    amount = np.zeros(slots)
    for t in range(1, slots):
        amount[t] = lasts * amount[t - 1] + np.sqrt(1 - lasts**2) * rng.normal(scale=10)
    normal = np.full((slots, 2, ROWS, COLS), 99.0, np.float32)
    departures = amount[:, None, None, None] * pattern + noise * rng.normal(size=normal.shape)
    return (normal + 10 * departures).astype(np.float32), normal, pattern.astype(np.float32)


def fit(flows: np.ndarray, normal: np.ndarray, number: int = NUMBER) -> tuple[Patterns, np.ndarray, np.ndarray]:
    starts = np.arange(len(flows) - 7)
    days = starts // PER_DAY
    return Patterns.fit(flows, normal, calendar_of(flows), starts, days, number), starts, days


def calendar_of(flows: np.ndarray) -> np.ndarray:
    """Morning or not; the same for all when there are few slots."""
    return (np.arange(len(flows)) % PER_DAY < PER_DAY / 2).astype(np.float32)[:, None]


def test_a_pattern_that_lasts_is_found_and_how_long_it_lasts() -> None:
    flows, normal, pattern = city_with_a_pattern(days=40)
    found, _, _ = fit(flows, normal)
    assert found.basis.shape == (NUMBER, 2, ROWS, COLS) and found.basis.dtype == np.float32
    flat = found.basis.reshape(NUMBER, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(NUMBER), atol=1e-5)
    assert abs((found.basis[0] * pattern).sum()) > 0.99
    # Most is in the last slot, and it fades by a tenth a slot; ridge draws it a little towards nothing.
    left = found.shares[:, 0].sum(-1)
    assert left[0] == pytest.approx(0.85, abs=0.06)
    np.testing.assert_allclose(left[1:] / left[:-1], 0.9, atol=0.05)
    # Noise is in one slot and not in the next: the other patterns, and the cells themselves, say nothing.
    assert abs(found.shares[:, 1:].sum(-1)).max() < 0.1
    departure, last, patterns, _ = found.left[:, 0].T  # the coefficients of one
    assert abs(departure).max() < 0.1 and abs(last).max() < 0.1
    np.testing.assert_allclose(patterns, 1, atol=0.2)
    assert abs(found.left[:, 1:, :3]).max() < 0.2  # at all times alike


def test_no_window_knows_a_pattern_of_its_own_days() -> None:
    flows, normal, _ = city_with_a_pattern(days=10)
    found, starts, days = fit(flows, normal)
    assert found.block.tolist() == (days * _BLOCKS // 10).tolist()
    for one in range(_BLOCKS):
        others = found.block != one
        alone = Patterns.fit(flows, normal, calendar_of(flows), starts[others], days[others], NUMBER)
        signs = np.sign((alone.basis * found.of_others[one]).sum((1, 2, 3)))
        np.testing.assert_allclose(signs[:, None, None, None] * alone.basis, found.of_others[one], atol=1e-4)


def test_what_is_only_noise_is_not_believed() -> None:
    flows, normal, _ = city_with_a_pattern(days=30, lasts=0.0)
    found, _, _ = fit(flows, normal)
    assert abs(found.shares).max() < 0.15
    assert abs(found.left[:, :, :2]).max() < 0.1


def test_how_long_a_city_stays_busy_is_learned() -> None:
    rng = np.random.default_rng(0)
    normal = np.full((60 * PER_DAY, 2, ROWS, COLS), 50.0, np.float32)
    busy = 1 + rng.uniform(-0.4, 0.4, len(normal))  # nothing of it is kept
    found, _, _ = fit((busy[:, None, None, None] * normal).astype(np.float32), normal)
    one, _, busier, unusual = found.left[:, :, 3].T  # of what is expected
    for units in (-2, 0, 2):
        expected = 1 + UNUSUAL * units
        np.testing.assert_allclose(one + units * busier + abs(units) * unusual, 1 / expected - 1, atol=0.05)


def test_the_network_starts_from_them() -> None:
    flows, normal, _ = city_with_a_pattern(days=10)
    flows[:200] *= 1.5  # a busy city
    found, starts, _ = fit(flows, normal)
    torch.manual_seed(0)
    network = vmrnn_c(ROWS, COLS, features=1, depth=1, embed=16, patterns=NUMBER).eval()
    rng = np.random.default_rng(1)
    found = replace(found, left=rng.uniform(-1, 1, found.left.shape).astype(np.float32))
    network.start.set(*(torch.from_numpy(values) for values in (found.basis, found.shares, found.left)))
    for first in (10, 300):
        history, usual = flows[first : first + 4], normal[first : first + 8]
        calendar = rng.normal(size=(8, 1)).astype(np.float32)
        busy = history.sum() / usual[:4].sum()
        busier = np.clip((busy - 1) / UNUSUAL, -MOST_UNUSUAL, MOST_UNUSUAL)
        told = np.array([1, calendar[4, 0], busier, abs(busier)])
        departures = history - busy * usual[:4]
        expected = busy * usual[4:]
        for lead in range(4):
            together = np.zeros_like(expected[lead])
            for number in range(NUMBER):
                basis = found.basis[number]
                amounts = [(d / np.sqrt(busy * u + 1) * basis).sum() for d, u in zip(departures, usual, strict=False)]
                of_mean, of_last = found.shares[lead, number]
                together += (of_mean * np.mean(amounts) + of_last * amounts[-1]) * basis
            together *= np.sqrt(expected[lead] + 1)
            shares = told @ found.left[lead]
            terms = departures.mean(0), departures[-1], together, expected[lead].copy()
            expected[lead] += sum(share * term for share, term in zip(shares, terms, strict=True))
        inputs = [torch.from_numpy(values)[None] for values in (history, usual, calendar)]
        given = torch.from_numpy(found.basis)[None]
        for patterns in (None, given):
            forecast = network(*inputs, patterns=patterns)[0].detach().numpy()
            assert np.array_equal(network.start(*inputs, patterns=patterns)[0].numpy(), forecast)
            np.testing.assert_allclose(forecast, expected, rtol=1e-4, atol=1e-3)
    nothing = network(*inputs, patterns=0 * given)[0].detach().numpy()
    assert abs(nothing - forecast).max() > 0.1


def test_the_start_is_a_baseline_of_every_model_that_has_one() -> None:
    city = City(name="c", west=0, east=1, south=0, north=1, rows=ROWS, cols=COLS, timezone="UTC")
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
    told = anomaly.normal.at(times), calendar_features(city, times.ravel())[None]
    expected = network.start(*(torch.from_numpy(values) for values in (history, *told)))
    np.testing.assert_allclose(forecast, expected.clamp_min(0).numpy(), rtol=1e-5)
    assert abs(forecast - model.forecaster(torch.device("cpu")).forecast(history, init)).max() > 0.1
    assert "pattern_persistence" not in replace(model, network=vmrnn_b(ROWS, COLS, depth=1, embed=16)).baselines(None)


@pytest.mark.parametrize("days", [1, 2, 7])
def test_few_days_are_enough_to_start_with(days: int) -> None:
    flows, normal, _ = city_with_a_pattern(days)
    found, _, _ = fit(flows, normal)
    assert all(np.isfinite(values).all() for values in (found.basis, found.of_others, found.shares, found.left))
    if days == 1:  # there are no others
        assert not found.of_others[0].any() and not found.shares.any() and not found.left[:, :, 2].any()


def test_fewer_cells_than_patterns_and_a_city_without_any_departure() -> None:
    flows = np.full((100, 2, 1, 1), 7, np.float32)
    still, _, _ = fit(flows, flows, 16)
    assert not still.basis.any() and not still.shares.any() and abs(still.left).max() < 1e-5
    rng = np.random.default_rng(0)
    found, _, _ = fit(rng.poisson(7, flows.shape).astype(np.float32), flows, 16)
    assert found.basis.shape == (16, 2, 1, 1) and np.isfinite(found.shares).all()
    assert not found.basis[1:].any()
    none, _, _ = fit(flows, flows, 0)
    assert none.basis.shape == (0, 2, 1, 1) and none.shares.shape == (4, 0, 2)
