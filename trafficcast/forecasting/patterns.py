"""Patterns: where a city departs from normal together, and how much of a departure lasts.

A departure is one from `expected`, what is normal times how busy the city is. What one cell's says of the next slots is
mostly noise; what a thousand cells say together of a night out, or of a morning that came late, is not. So departures,
in units of sqrt(expected + 1), are projected on empirical orthogonal functions (Lorenz 1956). How much of a departure,
of its patterns and of the city's being busy is left after a while depends on the time of day: linear regressions say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from trafficcast.config.city import HISTORY, HORIZON
from trafficcast.forecasting.baselines import _activity
from trafficcast.forecasting.windows import _gather
from trafficcast.nn.vmrnn_c import MOST_UNUSUAL, TERMS, UNUSUAL, VARIANCE_FLOOR

# Days are left out in as many blocks, so that no window is told patterns that its own day had a part in. A window
# across midnight is of the later day.
_BLOCKS = 5
# Values to learn from, in windows evenly over time.
_VALUES = 100_000_000
# Ridges, as shares of the square of what a coefficient belongs to.
_SHARES_RIDGE, _LEFT_RIDGE = 0.1, 0.03
_TINY = 1e-5


@dataclass(frozen=True)
class Patterns:
    """Patterns of training windows, and what is left of them and of all departures in the slots after a history.

    basis: (pattern, flow kind, row, col) float32, orthonormal, the strongest first; zeros where there are no more.
    of_others: (block, pattern, flow kind, row, col), the same of the windows of all other blocks of days.
    block: (n) int64, each training window's.
    shares: (lead, pattern, 2) float32, of a pattern's mean over the history and of its value in the last slot.
    left: (lead, feature, TERMS) float32, the coefficients of the regressions (see TERMS).
    """

    basis: np.ndarray
    of_others: np.ndarray
    block: np.ndarray
    shares: np.ndarray
    left: np.ndarray

    @classmethod
    def fit(
        cls, flows: np.ndarray, normal: np.ndarray, calendar: np.ndarray, starts: np.ndarray, days: np.ndarray, n: int
    ) -> Patterns:
        """`n` patterns of flows and what is normal, both (slot, flow kind, row, col).

        `calendar`: (slot, feature). `starts`, `days`: each training window's position and local day.
        """
        _, number_of_day = np.unique(days, return_inverse=True)
        block = number_of_day * _BLOCKS // (number_of_day.max() + 1)
        few = max(1, _VALUES // ((HISTORY + HORIZON) * flows[0].size))
        some = np.linspace(0, len(starts) - 1, min(few, len(starts))).round().astype(int)
        windows, usual = (_gather(values, starts[some]).astype(np.float32) for values in (flows, normal))
        busy = _activity(windows[:, :HISTORY], usual)
        expected, shape = busy * usual, windows.shape[2:]
        del usual
        expected, departures = (values.reshape(*values.shape[:2], -1) for values in (expected, windows - expected))
        spread = np.sqrt(expected + VARIANCE_FLOOR)
        unusual = departures / spread
        basis = _lasting(unusual, n)
        amounts = np.empty((*unusual.shape[:2], n), np.float32)
        of_others = np.empty((_BLOCKS, *basis.shape), np.float32)
        for one in range(_BLOCKS):
            own = block[some] == one
            of_others[one] = _lasting(unusual[~own], n)
            amounts[own] = unusual[own] @ of_others[one].T
        shares = _shares(amounts)
        lasting = np.einsum("nip,lpi->nlp", _seen(amounts), shares)
        told = _told(calendar[starts[some] + HISTORY], busy.ravel())
        left = np.empty((HORIZON, told.shape[1], TERMS), np.float32)
        for lead in range(HORIZON):
            together = np.stack([lasting[i, lead] @ of_others[one] for i, one in enumerate(block[some])])
            after = HISTORY + lead
            terms = departures[:, :HISTORY].mean(1), departures[:, HISTORY - 1], spread[:, after] * together
            left[lead] = _regression(np.stack([*terms, expected[:, after]], axis=1), told, departures[:, after])
        return cls(basis.reshape(n, *shape), of_others.reshape(_BLOCKS, n, *shape), block, shares, left)


def _lasting(unusual: np.ndarray, number: int) -> np.ndarray:
    """The orthonormal patterns (number, cell) that last from a history's last slot on, of windows (n, slot, cell)."""
    n, _, cells = unusual.shape
    basis = np.zeros((number, cells), np.float32)
    # Noise in one slot is not in the next, so that between slots only what lasts is correlated.
    last, later = unusual[:, HISTORY - 1].T, unusual[:, HISTORY:-1].sum(axis=1).T
    axes = np.eye(cells, dtype=np.float32)
    if 2 * n < cells:  # few windows span a small space
        axes, inside = np.linalg.qr(np.concatenate([last, later], axis=1))
        last, later = inside[:, :n], inside[:, n:]
    size = len(last)
    wanted = min(number, size)
    if wanted:
        correlation = last @ later.T
        strongest = (size - wanted, size - 1)
        strength, vectors = eigh(correlation + correlation.T, subset_by_index=strongest, overwrite_a=True)
        # Beyond the rank, any vector would do.
        kept = np.flatnonzero(strength > _TINY * max(strength[-1], _TINY))[::-1]
        basis[: len(kept)] = (axes @ vectors[:, kept]).T
    return basis


def _seen(amounts: np.ndarray) -> np.ndarray:
    """What a forecast is made from, of amounts (n, slot, pattern): the history's mean and its last, (n, 2, pattern)."""
    return np.stack([amounts[:, :HISTORY].mean(axis=1), amounts[:, HISTORY - 1]], axis=1)


def _shares(amounts: np.ndarray) -> np.ndarray:
    """Least squares, each pattern for itself: (lead, pattern, 2), of amounts (n, slot, pattern)."""
    seen, later = _seen(amounts), amounts[:, HISTORY:]
    square = np.einsum("nip,njp->pij", seen, seen, dtype=np.float64)
    ridge = _SHARES_RIDGE * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-9 * np.eye(2)
    product = np.einsum("nip,nlp->pil", seen, later, dtype=np.float64)
    return np.linalg.solve(square + ridge, product).transpose(2, 0, 1).astype(np.float32)


def _told(calendar: np.ndarray, busy: np.ndarray) -> np.ndarray:
    """What the coefficients of n windows depend on: (n, feature), of the calendar (n, ...) and how busy it is (n)."""
    busier = ((busy - 1) / UNUSUAL).clip(-MOST_UNUSUAL, MOST_UNUSUAL)
    return np.column_stack([np.ones_like(busier), calendar, busier, abs(busier)])


def _regression(terms: np.ndarray, told: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares of target (n, cell) by all products of told (n, feature) and terms (n, term, cell)."""
    features, number = told.shape[1], terms.shape[1]
    squares = terms @ terms.transpose(0, 2, 1)  # (n, term, term)
    square = np.einsum("nij,nf,ng->figj", squares, told, told, dtype=np.float64, optimize=True)
    square = square.reshape(features * number, -1)
    product = np.einsum("nic,nc,nf->fi", terms, target, told, dtype=np.float64, optimize=True).ravel()
    # What is told is about as large as one, so where it hardly varies nothing is made of it.
    ridge = np.tile(_LEFT_RIDGE * square.diagonal()[:number] + _TINY, features)
    return np.linalg.solve(square + np.diag(ridge), product).reshape(features, number).astype(np.float32)
