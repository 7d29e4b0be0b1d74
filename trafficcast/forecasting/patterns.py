"""Patterns: anomalies that many cells of a city have together, and regressions that forecast anomalies from them.

An anomaly is the flow minus the climatology times the city's activity. The anomaly of one cell is mostly noise; the
anomalies of a thousand cells together are not, for instance on a night out or when the morning peak is late. So
standardised anomalies, which are anomalies divided by sqrt(climatology times activity + 1), are projected on empirical
orthogonal functions (Lorenz 1956). Linear regressions forecast the later anomaly from the cell's own anomalies, its
patterns and its climatology; their coefficients depend on the calendar and on the activity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from trafficcast.config.city import HISTORY, HORIZON
from trafficcast.forecasting.baselines import _activity
from trafficcast.forecasting.windows import WINDOW_LENGTH, _as_known, _evenly, _gather
from trafficcast.nn.vmrnn_c import ACTIVITY_LIMIT, ACTIVITY_UNIT, TERMS, VARIANCE_FLOOR

# Folds of days: a window is trained with patterns of the other folds, in which its own day had no part. A window across
# midnight belongs to the later day.
_FOLDS = 5
# Values to fit to, in windows evenly over time.
_VALUES = 100_000_000
# Ridge penalties as shares of the predictor's sum of squares.
_PERSISTENCE_RIDGE, _COEFFICIENTS_RIDGE = 0.1, 0.03
_TINY = 1e-5


@dataclass(frozen=True)
class Patterns:
    """Patterns of training windows, and the coefficients of the linear forecast.

    Attributes
    ----------
    basis
        Patterns (pattern, flow kind, row, col) float32, orthonormal, the strongest first; zeros where there are fewer.
    fold_basis
        Patterns (fold, pattern, flow kind, row, col) float32 of the windows of all other folds of days.
    fold
        Fold (n) int64 of each training window.
    persistence
        Coefficients (lead, pattern, 2) float32 of a pattern's mean amplitude over the history and of its last one.
    coefficients
        Coefficients (lead, regressor, term) float32 of the regressions; terms and regressors as in VMRNN-C.
    """

    basis: np.ndarray
    fold_basis: np.ndarray
    fold: np.ndarray
    persistence: np.ndarray
    coefficients: np.ndarray

    @classmethod
    def fit(
        cls,
        flows: np.ndarray,
        climatology: np.ndarray,
        calendar: np.ndarray,
        starts: np.ndarray,
        days: np.ndarray,
        n: int,
        late: np.ndarray | None = None,
    ) -> Patterns:
        """Fit patterns and coefficients to training windows.

        Parameters
        ----------
        flows
            Flows (slot, flow kind, row, col), vehicles per slot.
        climatology
            Climatology (slot, flow kind, row, col) of other days, vehicles per slot.
        calendar
            Calendar features (slot, feature).
        starts
            Positions (window) of the training windows.
        days
            Local days (window) of their init times.
        n
            Number of patterns.
        late
            What was not known yet of the flows (slot, age, flow kind, row, col); see `late_flow`.

        Returns
        -------
        Patterns
            The patterns and coefficients.
        """
        _, number_of_day = np.unique(days, return_inverse=True)
        fold = number_of_day * _FOLDS // (number_of_day.max() + 1)
        some = _evenly(len(starts), _VALUES // (WINDOW_LENGTH * flows[0].size))
        windows, scaled = (_gather(values, starts[some]).astype(np.float32) for values in (flows, climatology))
        windows = _as_known(windows, late, starts[some])
        activity, shape = _activity(windows[:, :HISTORY], scaled).astype(np.float32), windows.shape[2:]
        scaled *= activity
        scaled, anomalies = (values.reshape(*values.shape[:2], -1) for values in (scaled, windows - scaled))
        deviation = np.sqrt(scaled + VARIANCE_FLOOR)
        standardised = anomalies / deviation
        basis = _fit_basis(standardised, n)
        amplitudes = np.empty((*standardised.shape[:2], n), np.float32)
        fold_basis = np.empty((_FOLDS, *basis.shape), np.float32)
        for number in range(_FOLDS):
            own = fold[some] == number
            fold_basis[number] = _fit_basis(standardised[~own], n)
            amplitudes[own] = standardised[own] @ fold_basis[number].T
        persistence = _fit_persistence(amplitudes)
        later_amplitudes = np.einsum("nip,lpi->nlp", _predictors(amplitudes), persistence)
        regressors = _regressors(calendar[starts[some] + HISTORY], activity.ravel())
        coefficients = np.empty((HORIZON, regressors.shape[1], TERMS), np.float32)
        for lead in range(HORIZON):
            slot, amplitudes_of_lead = HISTORY + lead, later_amplitudes[:, lead]
            explained = np.stack([amplitudes_of_lead[i] @ fold_basis[one] for i, one in enumerate(fold[some])])
            terms = (
                anomalies[:, :HISTORY].mean(1),
                anomalies[:, HISTORY - 1],
                deviation[:, slot] * explained,
                scaled[:, slot],
            )
            coefficients[lead] = _regression(np.stack(terms, axis=1), regressors, anomalies[:, slot])
        return cls(basis.reshape(n, *shape), fold_basis.reshape(_FOLDS, n, *shape), fold, persistence, coefficients)


def _fit_basis(standardised: np.ndarray, number: int) -> np.ndarray:
    """Return the orthonormal patterns (number, cell) of windows (n, slot, cell) that persist after the history.

    They are the leading eigenvectors of the covariance between the history's last slot and the later ones. Noise in one
    slot is not in the next, so that between slots only persistent anomalies are correlated.
    """
    n, _, cells = standardised.shape
    basis = np.zeros((number, cells), np.float32)
    last, later = standardised[:, HISTORY - 1].T, standardised[:, HISTORY:-1].sum(axis=1).T
    axes = np.eye(cells, dtype=np.float32)
    if 2 * n < cells:  # few windows span a small space
        axes, inside = np.linalg.qr(np.concatenate([last, later], axis=1))
        last, later = inside[:, :n], inside[:, n:]
    size = len(last)
    wanted = min(number, size)
    if wanted:
        covariance = last @ later.T
        strongest = (size - wanted, size - 1)
        strength, vectors = eigh(covariance + covariance.T, subset_by_index=strongest, overwrite_a=True)
        # Eigenvectors beyond the rank are arbitrary.
        kept = np.flatnonzero(strength > _TINY * max(strength[-1], _TINY))[::-1]
        basis[: len(kept)] = (axes @ vectors[:, kept]).T
    return basis


def _predictors(amplitudes: np.ndarray) -> np.ndarray:
    """Return the history's mean and last amplitudes, (n, 2, pattern), of amplitudes (n, slot, pattern)."""
    return np.stack([amplitudes[:, :HISTORY].mean(axis=1), amplitudes[:, HISTORY - 1]], axis=1)


def _fit_persistence(amplitudes: np.ndarray) -> np.ndarray:
    """Regress the later amplitudes of each pattern on its predictors: (lead, pattern, 2)."""
    predictors, later = _predictors(amplitudes), amplitudes[:, HISTORY:]
    square = np.einsum("nip,njp->pij", predictors, predictors, dtype=np.float64)
    ridge = _PERSISTENCE_RIDGE * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-9 * np.eye(2)
    product = np.einsum("nip,nlp->pil", predictors, later, dtype=np.float64)
    return np.linalg.solve(square + ridge, product).transpose(2, 0, 1).astype(np.float32)


def _regressors(calendar: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """Return the regressors (n, regressor) of windows with these calendar features (n, feature) and activities (n)."""
    anomaly = ((activity - 1) / ACTIVITY_UNIT).clip(-ACTIVITY_LIMIT, ACTIVITY_LIMIT)
    return np.column_stack([np.ones_like(anomaly), calendar, anomaly, abs(anomaly)])


def _regression(terms: np.ndarray, regressors: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Regress target (n, cell) on all products of regressors (n, regressor) and terms (n, term, cell)."""
    features, number = regressors.shape[1], terms.shape[1]
    squares = terms @ terms.transpose(0, 2, 1)  # (n, term, term)
    square = np.einsum("nij,nf,ng->figj", squares, regressors, regressors, dtype=np.float64, optimize=True)
    square = square.reshape(features * number, -1)
    product = np.einsum("nic,nc,nf->fi", terms, target, regressors, dtype=np.float64, optimize=True).ravel()
    # Regressors are of the order of one, so that a regressor that hardly varies gets small coefficients.
    ridge = np.tile(_COEFFICIENTS_RIDGE * square.diagonal()[:number] + _TINY, features)
    return np.linalg.solve(square + np.diag(ridge), product).reshape(features, number).astype(np.float32)
