"""Metrics against plain loops over their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trafficcast.forecasting.metrics import _ssim, scores

NAMES = ["rmse", "mae", "mse", "mae_sum", "ssim", "ssim_openstl", "psnr"]


def frames(shape: tuple[int, ...], seed: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


def plain_ssim(prediction: np.ndarray, truth: np.ndarray, data_range: float) -> float:
    """Frame by frame, window by window, with sample variances."""
    rows, cols = truth.shape[-2:]
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = []
    for x, y in zip(prediction.reshape(-1, rows, cols), truth.reshape(-1, rows, cols), strict=True):
        clipped = np.minimum(np.maximum(x, 0), 1)
        for row in range(3, rows - 3):
            for col in range(3, cols - 3):
                a = clipped[row - 3 : row + 4, col - 3 : col + 4].ravel()
                b = y[row - 3 : row + 4, col - 3 : col + 4].ravel()
                (var_a, cov), (_, var_b) = np.cov(a, b)  # divides by 48
                mean_a, mean_b = a.mean(), b.mean()
                luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
                found.append(luminance * (2 * cov + c2) / (var_a + var_b + c2))
    return float(np.mean(found))


@pytest.mark.parametrize("data_range", [1.0, 2.0])
@pytest.mark.parametrize("shape", [(7, 7), (2, 8, 11), (2, 1, 2, 12, 9)])
def test_ssim_against_a_plain_loop(shape: tuple[int, ...], data_range: float) -> None:
    truth = frames(shape, 0)
    prediction = truth + np.random.default_rng(1).normal(0, 0.2, shape)  # goes below 0 and above 1
    assert _ssim(prediction, truth, data_range) == pytest.approx(plain_ssim(prediction, truth, data_range), abs=1e-12)


def test_ssim_of_the_same_frames_is_one() -> None:
    truth = frames((3, 10, 10), 2)
    assert _ssim(truth, truth, 1.0) == pytest.approx(1, abs=1e-12)


def test_ssim_of_constant_frames_by_hand() -> None:
    low, high = np.full((9, 9), 0.2), np.full((9, 9), 0.6)
    assert _ssim(low, high, 1.0) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))
    assert _ssim(low, high, 2.0) == pytest.approx((2 * 0.12 + 4e-4) / (0.04 + 0.36 + 4e-4))


def test_ssim_clips_the_prediction_and_not_the_truth() -> None:
    truth = frames((8, 8), 3, 0, 1.5)
    assert _ssim(truth * 10 - 5, truth, 1.0) == _ssim(np.clip(truth * 10 - 5, 0, 1), truth, 1.0)
    assert _ssim(np.clip(truth, 0, 1), truth, 1.0) < 1


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (1, 1)])
def test_ssim_of_a_grid_smaller_than_its_window_is_not_a_number(shape: tuple[int, int]) -> None:
    assert math.isnan(_ssim(np.zeros(shape), np.zeros(shape), 1.0))


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Three samples of four leads, vehicles per slot; the error grows with the lead."""
    truth = np.random.default_rng(4).integers(0, 50, (3, 4, 2, 8, 9))
    error = np.random.default_rng(5).normal(0, 1, truth.shape) * np.arange(1, 5)[:, None, None, None]
    return (truth + error).astype(np.float32), truth.astype(np.int32)


def plain_scores(prediction: np.ndarray, truth: np.ndarray, scale: float) -> dict[str, float]:
    squares, absolutes, per_frame = [], [], []
    for sample in range(truth.shape[0]):
        for lead in range(truth.shape[1]):
            x = prediction[sample, lead].astype(float).ravel().tolist()
            y = truth[sample, lead].astype(float).ravel().tolist()
            squares.append(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))
            absolutes.append(sum(abs(a - b) for a, b in zip(x, y, strict=True)))
            per_frame.append(squares[-1] / len(x) / scale**2)
    cells, count = truth[0, 0].size, len(squares)
    return {
        "rmse": math.sqrt(sum(squares) / count / cells),
        "mae": sum(absolutes) / count / cells,
        "mse": sum(squares) / count / scale**2,
        "mae_sum": sum(absolutes) / count / scale,
        "ssim": plain_ssim(prediction / scale, truth / scale, 1.0),
        "ssim_openstl": plain_ssim(prediction / scale, truth / scale, 2.0),
        "psnr": sum(-10 * math.log10(value) for value in per_frame) / count,
    }


def test_all_scores_against_a_plain_loop(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = scores(*pair, scale=50.0)
    by_lead = found.pop("by_lead")
    assert list(found) == list(by_lead) == NAMES
    assert found == pytest.approx(plain_scores(*pair, 50.0), rel=1e-6)
    for lead in range(4):
        wanted = plain_scores(pair[0][:, [lead]], pair[1][:, [lead]], 50.0)
        assert {name: values[lead] for name, values in by_lead.items()} == pytest.approx(wanted, rel=1e-6)


def test_an_error_of_one_cell_by_hand() -> None:
    truth = np.zeros((2, 4, 2, 8, 8), np.int32)
    prediction = truth.astype(np.float32)
    prediction[0, 1, 0, 0, 0] = 5
    found = scores(prediction, truth, scale=10.0)
    assert found["mse"] == pytest.approx(0.25 / 8)  # the sum of a frame, over two samples and four leads
    assert found["mae_sum"] == pytest.approx(0.5 / 8)
    assert found["mae"] == pytest.approx(5 / (8 * 128))
    assert found["rmse"] == pytest.approx(math.sqrt(25 / (8 * 128)))
    assert found["by_lead"]["mae_sum"] == pytest.approx([0, 0.25, 0, 0])
    assert found["by_lead"]["psnr"][0] == math.inf


def test_sums_are_not_clipped_and_vehicles_do_not_depend_on_the_scale() -> None:
    truth = np.full((1, 4, 2, 7, 7), 10, np.int32)
    prediction = np.full(truth.shape, 40, np.float32)
    small, large = scores(prediction, truth, 10.0), scores(prediction, truth, 100.0)
    assert small["mae_sum"] == pytest.approx(3 * 98)
    assert small["mse"] == pytest.approx(9 * 98)
    assert large["mse"] == pytest.approx(0.09 * 98)
    assert small["rmse"] == large["rmse"] == small["mae"] == large["mae"] == 30
    assert small["psnr"] == pytest.approx(-10 * math.log10(9))


def test_whole_numbers_do_not_wrap_around() -> None:
    truth, prediction = np.full((1, 4, 2, 7, 7), 200, np.uint8), np.full((1, 4, 2, 7, 7), 100, np.uint8)
    assert scores(prediction, truth, 255.0)["mae"] == 100


def test_a_perfect_forecast() -> None:
    truth = np.random.default_rng(6).integers(0, 9, (2, 4, 2, 8, 8))
    found = scores(truth.astype(np.float32), truth, 8.0)
    assert (found["rmse"], found["mae"], found["mse"], found["mae_sum"]) == (0, 0, 0, 0)
    assert found["ssim"] == pytest.approx(1)
    assert found["psnr"] == math.inf
