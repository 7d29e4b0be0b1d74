"""The baseline a data scientist would try first: gradient-boosted trees (LightGBM, Ke et al. 2017), where installed.

The trees forecast what anomaly persistence misses, each cell for itself, from what is known of it and its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON, City
from trafficcast.errors import InputError
from trafficcast.forecasting.baselines import AnomalyPersistence, _anomaly
from trafficcast.forecasting.climatology import _DAYS_OFF, climatology_of_other_days
from trafficcast.forecasting.windows import _gather

if TYPE_CHECKING:
    import lightgbm

_FILE = "lightgbm.txt"
# Rows to learn from, all cells of as many windows, evenly over time; more took longer and forecast no better.
_ROWS = 1_500_000
_FEWEST_WINDOWS = 50
_BATCH = 16  # windows whose features are held at once
_PARAMETERS = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 1000,
    "feature_fraction": 0.7,
    "lambda_l2": 10.0,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
_MOST_TREES, _PATIENCE = 400, 20


@dataclass(frozen=True)
class GradientBoosting:
    """`trees` add to what `start` forecasts."""

    start: AnomalyPersistence
    trees: lightgbm.Booster

    @classmethod
    def fit(cls, city: City, flows: xr.Dataset, starts: np.ndarray, start: AnomalyPersistence) -> Self:
        """Learn from the windows at positions `starts` of training flows; their last fifth chooses how many trees.

        Raises ImportError without LightGBM, InputError with fewer than FEWEST_WINDOWS.
        """
        if len(starts) < _FEWEST_WINDOWS:
            raise InputError(f"trees need {_FEWEST_WINDOWS} windows to learn from, there are {len(starts)}")
        import lightgbm

        values, time = flows["flow"].values.astype(np.float32), flows["time"].values
        normal = climatology_of_other_days(city, flows)
        few = max(1, _ROWS // (HORIZON * values[0].size))
        starts = starts[np.linspace(0, len(starts) - 1, min(few, len(starts))).round().astype(int)]
        # Between the two parts no slot is shared.
        cut = starts[len(starts) * 4 // 5]
        parts = starts[starts + HISTORY + HORIZON <= cut], starts[starts >= cut]
        sets = []
        for part in parts:
            windows, usual = _gather(values, part), _gather(normal, part)
            inputs = _features(city, windows[:, :HISTORY], usual, time[part + HISTORY], start.weights)
            target = windows[:, HISTORY:].ravel() - inputs[:, 0]
            sets.append(lightgbm.Dataset(inputs, target, free_raw_data=True))
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        return cls(start, lightgbm.train(_PARAMETERS, sets[0], _MOST_TREES, valid_sets=[sets[1]], callbacks=[stop]))

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        city, normal = self.start.normal.city, self.start.normal
        init_times = np.asarray(init_times)
        forecasts = []
        for first in range(0, len(history), _BATCH):
            past, begin = history[first : first + _BATCH], init_times[first : first + _BATCH]
            usual = normal.at(begin[:, None] + city.slot * np.arange(-HISTORY, HORIZON))
            inputs = _features(city, past, usual, begin, self.start.weights)
            added = np.asarray(self.trees.predict(inputs), np.float32)
            forecasts.append((inputs[:, 0] + added).clip(min=0).reshape(len(past), HORIZON, *past.shape[2:]))
        return np.concatenate(forecasts)

    def save(self, folder: Path) -> None:
        """Write the trees, as text, to a model's folder."""
        self.trees.save_model(folder / _FILE)

    @classmethod
    def load(cls, folder: Path, start: AnomalyPersistence) -> Self | None:
        """The trees of a model's folder; None where it has none and where LightGBM is not installed."""
        if not (folder / _FILE).exists():
            return None
        try:
            import lightgbm
        except ImportError:
            return None
        return cls(start, lightgbm.Booster(model_file=folder / _FILE))


def _features(
    city: City, history: np.ndarray, normal: np.ndarray, init_times: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """23 features of every forecast value, the first being anomaly persistence: (n x lead x kind x row x col, 23).

    `history` (n, HISTORY, flow kind, row, col) and `normal`, of the same slots and the HORIZON after them.
    """
    n, _, kinds, rows, cols = history.shape
    shape = (n, HORIZON, kinds, rows, cols)
    level, departure = _anomaly(history, normal)
    times = init_times[:, None] + city.slot * np.arange(HORIZON)
    weekday, slot = city.day_of_week(times.ravel()).reshape(times.shape), city.slot_of_day(times.ravel())
    last, usual_last = history[:, -1:], normal[:, HISTORY - 1 : HISTORY]
    usual = normal[:, HISTORY:]
    columns = [
        level + weights[:, None, None, None] * departure,
        *np.split(history, HISTORY, axis=1),
        usual,
        level,
        level / np.maximum(usual, 1e-3),
        departure,
        last - usual_last,
        _neighbours(departure),
        _neighbours(last),
        _neighbours(usual),
        departure[:, :, ::-1],  # the other flow kind's
        _neighbours(departure[:, :, ::-1]),
        usual - usual_last,
        np.arange(rows)[:, None],
        np.arange(cols),
        slot.reshape(n, HORIZON, 1, 1, 1),
        _DAYS_OFF[weekday][:, :, None, None, None],
        weekday[:, :, None, None, None],
        np.arange(kinds)[:, None, None],
        np.arange(HORIZON)[:, None, None, None],
    ]
    return np.stack([np.broadcast_to(column, shape).ravel() for column in columns], axis=1, dtype=np.float32)


def _neighbours(grids: np.ndarray) -> np.ndarray:
    """The mean of the 3 x 3 cells around each of (..., row, col); beyond the edge is the edge."""
    padded = np.pad(grids, [(0, 0)] * (grids.ndim - 2) + [(1, 1)] * 2, mode="edge")
    rows, cols = grids.shape[-2:]
    shifted = [padded[..., i : i + rows, j : j + cols] for i in range(3) for j in range(3)]
    return np.asarray(sum(shifted) / np.float32(9))
