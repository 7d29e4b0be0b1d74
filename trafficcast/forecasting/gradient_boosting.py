"""The baseline of gradient-boosted trees (LightGBM, Ke et al. 2017), where LightGBM is installed.

The trees forecast the error of anomaly persistence, each cell for itself, from features of the cell and its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON, City, target_times
from trafficcast.errors import InputError
from trafficcast.forecasting.baselines import AnomalyPersistence, _scaled_and_anomaly
from trafficcast.forecasting.climatology import _DAYS_OFF, climatology_of_other_days
from trafficcast.forecasting.windows import _evenly, _gather, _window_times

if TYPE_CHECKING:
    import lightgbm

_FILE = "lightgbm.txt"
# Training rows: all cells of so many windows, evenly over time; more took longer and forecast no better.
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
    """Gradient-boosted trees that correct anomaly persistence.

    Attributes
    ----------
    start
        The forecast that the trees correct.
    trees
        The trees, which forecast its error, vehicles per slot.
    """

    start: AnomalyPersistence
    trees: lightgbm.Booster

    @classmethod
    def fit(cls, city: City, flows: xr.Dataset, starts: np.ndarray, start: AnomalyPersistence) -> Self:
        """Train the trees; the last fifth of the windows chooses how many there are.

        Parameters
        ----------
        city
            The city.
        flows
            Its training flows.
        starts
            Positions (n) of windows in `flows`.
        start
            The forecast to correct.

        Returns
        -------
        Self
            The baseline.

        Raises
        ------
        ImportError
            LightGBM is not installed.
        InputError
            There are too few windows.
        """
        if len(starts) < _FEWEST_WINDOWS:
            raise InputError(f"trees need {_FEWEST_WINDOWS} windows to learn from, there are {len(starts)}")
        import lightgbm

        values, time = flows["flow"].values.astype(np.float32), flows["time"].values
        climatology = climatology_of_other_days(city, flows)
        starts = starts[_evenly(len(starts), _ROWS // (HORIZON * values[0].size))]
        # The two parts share no slot.
        cut = starts[len(starts) * 4 // 5]
        parts = starts[starts + HISTORY + HORIZON <= cut], starts[starts >= cut]
        sets = []
        for part in parts:
            windows = _gather(values, part)
            init_times = time[part + HISTORY]
            inputs = _features(city, windows[:, :HISTORY], _gather(climatology, part), init_times, start.weights)
            target = windows[:, HISTORY:].ravel() - inputs[:, 0]
            sets.append(lightgbm.Dataset(inputs, target, free_raw_data=True))
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        return cls(start, lightgbm.train(_PARAMETERS, sets[0], _MOST_TREES, valid_sets=[sets[1]], callbacks=[stop]))

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """Forecast the slots after a history; see Forecaster.

        Parameters
        ----------
        history
            Flows (n, HISTORY, flow kind, row, col), vehicles per slot.
        init_times
            Init times (n), naive UTC.

        Returns
        -------
        np.ndarray
            Forecasts (n, HORIZON, flow kind, row, col), vehicles per slot.
        """
        city, init_times = self.start.climatology.city, np.asarray(init_times)
        forecasts = []
        for first in range(0, len(history), _BATCH):
            past, begin = history[first : first + _BATCH], init_times[first : first + _BATCH]
            climatology = self.start.climatology.at(_window_times(city, begin))
            inputs = _features(city, past, climatology, begin, self.start.weights)
            added = np.asarray(self.trees.predict(inputs), np.float32)
            forecasts.append((inputs[:, 0] + added).clip(min=0).reshape(len(past), HORIZON, *past.shape[2:]))
        return np.concatenate(forecasts)

    def save(self, folder: Path) -> None:
        """Write the trees as text.

        Parameters
        ----------
        folder
            The model's folder.
        """
        self.trees.save_model(folder / _FILE)

    @classmethod
    def load(cls, folder: Path, start: AnomalyPersistence) -> Self | None:
        """Read the trees of a model.

        Parameters
        ----------
        folder
            The model's folder.
        start
            The model's anomaly persistence.

        Returns
        -------
        Self | None
            The baseline; None where the model has none and where LightGBM is not installed.
        """
        if not (folder / _FILE).exists():
            return None
        try:
            import lightgbm
        except ImportError:
            return None
        return cls(start, lightgbm.Booster(model_file=folder / _FILE))


def _features(
    city: City, history: np.ndarray, climatology: np.ndarray, init_times: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return 23 features of every forecast value, (n x lead x kind x row x col, 23); the first is anomaly persistence.

    `history` is (n, HISTORY, flow kind, row, col), `climatology` of the same slots and the HORIZON after them.
    """
    n, _, kinds, rows, cols = history.shape
    shape = (n, HORIZON, kinds, rows, cols)
    scaled, anomaly = _scaled_and_anomaly(history, climatology)
    times = target_times(city, init_times)
    weekday, slot = city.day_of_week(times.ravel()).reshape(times.shape), city.slot_of_day(times.ravel())
    last, last_climatology = history[:, -1:], climatology[:, HISTORY - 1 : HISTORY]
    climatology = climatology[:, HISTORY:]
    columns = [
        scaled + weights[:, None, None, None] * anomaly,
        *np.split(history, HISTORY, axis=1),
        climatology,
        scaled,
        scaled / np.maximum(climatology, 1e-3),
        anomaly,
        last - last_climatology,
        _neighbours(anomaly),
        _neighbours(last),
        _neighbours(climatology),
        anomaly[:, :, ::-1],  # the other flow kind's
        _neighbours(anomaly[:, :, ::-1]),
        climatology - last_climatology,
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
    """Return the mean of the 3 x 3 cells around each of (..., row, col); the edge is repeated beyond the edge."""
    padded = np.pad(grids, [(0, 0)] * (grids.ndim - 2) + [(1, 1)] * 2, mode="edge")
    rows, cols = grids.shape[-2:]
    shifted = [padded[..., i : i + rows, j : j + cols] for i in range(3) for j in range(3)]
    return np.asarray(sum(shifted) / np.float32(9))
