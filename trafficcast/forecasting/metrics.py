"""Metrics in vehicles per slot, and those that papers give for TaxiBJ, as OpenSTL computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

_WINDOW = 7
_K1, _K2 = 0.01, 0.03


def scores(prediction: np.ndarray, truth: np.ndarray, scale: float) -> dict[str, Any]:
    """Compute all metrics of forecasts.

    Parameters
    ----------
    prediction
        Forecasts (n, lead, flow kind, row, col), vehicles per slot.
    truth
        Observed flows of the same shape, vehicles per slot.
    scale
        Vehicles per slot by which frames are divided for all metrics but `rmse` and `mae`.

    Returns
    -------
    dict[str, Any]
        `rmse` and `mae` over all cells, kinds and leads, vehicles per slot; `mse` and `mae_sum`, the sum over kind, row
        and column of scaled frames, averaged over samples and leads, not clipped; `ssim` with data range 1,
        `ssim_openstl` with data range 2, as papers give it; `psnr` in dB; `by_lead`, each of them as a list.
    """
    leads = [_scores(prediction[:, [lead]], truth[:, [lead]], scale) for lead in range(prediction.shape[1])]
    return _scores(prediction, truth, scale) | {"by_lead": {name: [lead[name] for lead in leads] for name in leads[0]}}


def _scores(prediction: np.ndarray, truth: np.ndarray, scale: float) -> dict[str, float]:
    """Compute all metrics over all leads together; see `scores`."""
    error = prediction.astype(np.float64) - truth
    frame_mse = np.square(error / scale).mean(axis=(-3, -2, -1))
    cells = float(np.prod(error.shape[-3:]))
    frames, true_frames = prediction / scale, truth / scale
    with np.errstate(divide="ignore"):
        psnr = float((-10 * np.log10(frame_mse)).mean())
    return {
        "rmse": float(np.sqrt(np.square(error).mean())),
        "mae": float(np.abs(error).mean()),
        "mse": float(frame_mse.mean() * cells),
        "mae_sum": float(np.abs(error / scale).mean() * cells),
        "ssim": _ssim(frames, true_frames, data_range=1.0),
        "ssim_openstl": _ssim(frames, true_frames, data_range=2.0),
        "psnr": psnr,
    }


def _ssim(prediction: np.ndarray, truth: np.ndarray, data_range: float) -> float:
    """Return the mean structural similarity (Wang et al. 2004, eq. 13) of frames (..., row, col) in [0, 1].

    The prediction is clipped to [0, 1]; the window is uniform, 7 x 7, with sample covariance; a border of 3 cells is
    cropped. NaN where a side is shorter than the window.
    """
    rows, cols = truth.shape[-2:]
    if min(rows, cols) < _WINDOW:
        return float("nan")
    x = torch.from_numpy(np.clip(prediction, 0, 1).reshape(-1, 1, rows, cols).astype(np.float64))
    y = torch.from_numpy(truth.reshape(-1, 1, rows, cols).astype(np.float64))

    def mean(frames: torch.Tensor) -> torch.Tensor:
        return avg_pool2d(frames, _WINDOW, stride=1)  # only whole windows: the cropped border

    sample = _WINDOW**2 / (_WINDOW**2 - 1)
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = sample * (mean(x * x) - mean_x**2), sample * (mean(y * y) - mean_y**2)
    covariance = sample * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity.mean())
