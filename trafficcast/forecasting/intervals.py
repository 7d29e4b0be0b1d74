"""Prediction intervals by split conformal prediction: bounds from the residuals of earlier forecasts.

The residuals are those of forecasts that chose nothing. They are grouped by lead, flow kind and activity level, which
is a level of the PREDICTED flow, because that is known when a forecast is made. A group's quantiles bound the next
truth (Lei et al. 2018, arXiv 1604.04173; groups: Vovk 2012, arXiv 1209.2673): of exchangeable truths at least the
nominal share lies inside. See docs/intervals.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load, save_file

from trafficcast.errors import InputError
from trafficcast.files import atomic

_LEVELS = (0.80, 0.95)
# Shares of the predictions below each activity level: every fourth level halves the share above, so that the few cells
# with much traffic have levels of their own.
_SHARES = 1 - 2 ** (-np.arange(1, 41) / 4)
# The fewest residuals of a group: 95 % needs 39, and a quantile out of few is a noisy one.
_FEWEST = 500
# Bounds lie this much further out, vehicles, so that rounding never puts a truth that is the bound outside.
_EDGE = 1e-3
# Predicted flows, vehicles per slot, between which coverage is reported.
_BANDS = (0.0, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class Intervals:
    """Quantiles of the score (truth - prediction) / sqrt(prediction + 1); counts vary with the root of their mean.

    Attributes
    ----------
    levels
        Nominal shares (level) float64 of truths inside, rising.
    edges
        Predicted vehicles per slot, (activity level - 1) float32, rising, at which an activity level ends.
    scores
        Quantiles (level, bound = lower or upper, lead, flow kind, activity level) float32; a lower one of -inf means
        that the lower bound is 0.
    """

    levels: np.ndarray
    edges: np.ndarray
    scores: np.ndarray

    @classmethod
    def fit(cls, prediction: np.ndarray, truth: np.ndarray, levels: tuple[float, ...] = _LEVELS) -> Self:
        """Calibrate on forecasts and their truths, which had no part in training nor in any choice.

        Fewer than about 40 values a lead and kind cannot bound 95 %: then the extreme residuals are the bounds.

        Parameters
        ----------
        prediction
            Forecasts (n, lead, flow kind, row, col), vehicles per slot.
        truth
            Observed flows of the same shape, vehicles per slot.
        levels
            Nominal shares of truths inside, rising between 0 and 1.

        Returns
        -------
        Self
            The intervals.

        Raises
        ------
        InputError
            There is no forecast, the shapes differ, a value is negative or not finite, or the levels do not rise.
        """
        prediction, truth = _checked(prediction, truth)
        if not levels or not np.all(np.diff([0, *levels, 1]) > 0):
            raise InputError(f"the levels {levels} of prediction intervals do not rise between 0 and 1")
        groups = prediction.shape[1:3]
        # (lead, flow kind, n x row x col)
        predicted, true = (np.moveaxis(x, 0, 2).reshape(*groups, -1) for x in (prediction, truth))
        edges = _edges(predicted)
        scores = np.empty((len(levels), 2, *groups, len(edges) + 1), np.float32)
        for lead, kind in np.ndindex(groups):
            activity = np.searchsorted(edges, predicted[lead, kind], side="right")
            score = (true[lead, kind] - predicted[lead, kind]) / _spread(predicted[lead, kind])
            for level in range(len(edges) + 1):
                inside = activity == level
                scores[..., lead, kind, level] = _quantiles(score[inside], true[lead, kind][inside], levels)
        return cls(np.array(levels, np.float64), edges, scores)

    def around(self, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the bounds of a forecast.

        Parameters
        ----------
        flow
            Forecast (..., lead, flow kind, row, col), vehicles per slot.

        Returns
        -------
        tuple[np.ndarray, np.ndarray]
            Lower and upper bounds (level, ..., lead, flow kind, row, col) float32: 0 <= lower <= flow <= upper, and
            the interval of a higher level contains that of a lower one.

        Raises
        ------
        InputError
            The forecast has other leads or kinds, or a value is negative or not finite.
        """
        flow = _valid("forecast", flow)
        groups = self.scores.shape[2:4]
        if flow.shape[-4:-2] != groups:
            raise InputError(f"intervals of (lead, flow kind) = {groups} do not fit a forecast of shape {flow.shape}")
        activity = np.searchsorted(self.edges, flow, side="right")
        lead, kind = np.ogrid[: groups[0], : groups[1]]
        below, above = np.moveaxis(self.scores[:, :, lead[..., None, None], kind[..., None, None], activity], 1, 0)
        lower = flow + below * _spread(flow) - _EDGE
        upper = flow + above * _spread(flow) + _EDGE
        return np.clip(lower, 0, flow), np.maximum(upper, flow)

    def coverage(self, prediction: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        """Compute the share of truths inside and the mean width of each level, as a card holds them.

        Parameters
        ----------
        prediction
            Forecasts (n, lead, flow kind, row, col), vehicles per slot.
        truth
            Observed flows of the same shape, vehicles per slot.

        Returns
        -------
        dict[str, Any]
            `forecasts`, their number. `levels`, by name such as "0.8", with `inside` (share) and `width` (vehicles per
            slot): over all, by lead, by flow kind, and by band of the predicted flow. `bands`: the start of each band
            that has a prediction, vehicles per slot, and its share of the predictions.

        Raises
        ------
        InputError
            The shapes differ or do not fit, there is no forecast, or a value is negative or not finite.
        """
        prediction, truth = _checked(prediction, truth)
        lower, upper = self.around(prediction)
        inside, width = (lower <= truth) & (truth <= upper), upper - lower
        band = np.searchsorted(_BANDS, prediction, side="right") - 1
        counts = np.bincount(band.ravel(), minlength=len(_BANDS))
        shown = np.flatnonzero(counts)

        def _means(values: np.ndarray) -> dict[str, Any]:
            sums = np.bincount(band.ravel(), values.ravel(), minlength=len(_BANDS))
            return {
                "all": float(values.mean(dtype=np.float64)),
                "by_lead": values.mean((0, 2, 3, 4), dtype=np.float64).tolist(),
                "by_kind": values.mean((0, 1, 3, 4), dtype=np.float64).tolist(),
                "by_activity": (sums[shown] / counts[shown]).tolist(),
            }

        return {
            "forecasts": len(prediction),
            "bands": {"from": [_BANDS[i] for i in shown], "share": (counts[shown] / counts.sum()).tolist()},
            "levels": {
                f"{level:g}": {"inside": _means(inside[i]), "width": _means(width[i])}
                for i, level in enumerate(self.levels)
            },
        }


def _save_intervals(path: Path, intervals: Intervals) -> None:
    """Write intervals as a safetensors file, atomically."""
    with atomic(path) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in vars(intervals).items()}, temporary)


def _read_intervals(content: bytes, leads: int, kinds: int, scale: float) -> Intervals:
    """Read intervals from the content of a file.

    Raises ValueError where they do not fit these leads, kinds and the highest flow in training, vehicles per slot.
    """
    intervals = Intervals(**load(content))
    levels, edges, scores = intervals.levels, intervals.edges, intervals.scores
    expected = (len(levels), 2, leads, kinds, len(edges) + 1)
    if scores.shape != expected or np.isnan(scores).any():
        raise ValueError(f"the scores are {scores.shape}, not numbers {expected}")
    if not (np.diff([0, *levels, 1]) > 0).all() or not (np.diff([0, *edges, np.inf]) > 0).all():
        raise ValueError("the levels or the edges do not rise")
    lower, upper = np.moveaxis(scores, 1, 0)
    if (lower[1:] > lower[:-1]).any() or (upper[1:] < upper[:-1]).any() or (upper > 3 * scale).any():
        raise ValueError("the scores are not what they can be")
    return intervals


def _edges(predicted: np.ndarray) -> np.ndarray:
    """Return the edges of the activity levels of predictions (lead, flow kind, n).

    A level with fewer than _FEWEST predictions of a lead and kind is merged with the next one.
    """
    candidates = np.unique(np.quantile(predicted, _SHARES).astype(np.float32))
    # (candidate, lead, flow kind)
    below = np.stack([(predicted < edge).sum(-1) for edge in candidates])
    edges, taken = [], np.zeros_like(below[0])
    for edge, count in zip(candidates, below, strict=True):
        if (count - taken).min() >= _FEWEST and (predicted.shape[-1] - count).min() >= _FEWEST:
            edges.append(edge)
            taken = count
    return np.array(edges, np.float32)


def _quantiles(score: np.ndarray, truth: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Return lower and upper quantiles of one group's scores, (level, bound), by their ranks from 1 on.

    Where truths of 0 are frequent enough for a lower bound of 0, no truth lies below it, and the whole share of truths
    that may be missed lies above the upper bound.
    """
    ordered, zeros, n = np.sort(score), int((truth == 0).sum()), len(score)
    bounds = np.empty((len(levels), 2))
    for i, level in enumerate(levels):
        above = math.ceil((n + 1) * (1 + level) / 2)
        below = max(1, n + 1 - above)
        if zeros >= below:
            bounds[i] = -np.inf, ordered[min(n, math.ceil((n + 1) * level)) - 1]
        else:
            bounds[i] = ordered[below - 1], ordered[min(n, above) - 1]
    # A level that misses truths only above may end below the upper bound of a lower level that misses on both sides.
    return np.stack([bounds[:, 0], np.maximum.accumulate(bounds[:, 1])], axis=1)


def _spread(flow: np.ndarray) -> np.ndarray:
    """Return the standard deviation of truths around a prediction up to a factor, vehicles per slot."""
    return np.sqrt(flow + 1)


def _checked(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float32, or raise an InputError where they do not fit together."""
    if prediction.ndim != 5 or prediction.shape != truth.shape:
        raise InputError(
            f"forecasts {prediction.shape} and truths {truth.shape} must both be (n, lead, flow kind, row, col)"
        )
    if prediction.size == 0:
        raise InputError("there is no forecast to calibrate or check prediction intervals on")
    return _valid("forecast", prediction), _valid("truth", truth)


def _valid(name: str, flow: np.ndarray) -> np.ndarray:
    """Return flows as float32, or raise an InputError where a value is negative or not finite."""
    if not np.isfinite(flow).all() or (flow < 0).any():
        raise InputError(
            f"a {name} holds values that are negative or not finite: prediction intervals need vehicles per slot"
        )
    return np.asarray(flow, np.float32)
