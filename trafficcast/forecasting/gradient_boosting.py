"""The baseline of gradient-boosted trees (LightGBM, Ke et al. 2017), where LightGBM is installed.

The trees forecast the error of anomaly persistence, each cell for itself, from features of the cell and its neighbours.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON, City, target_times
from trafficcast.errors import InputError
from trafficcast.forecasting.baselines import AnomalyPersistence, _scaled_and_anomaly
from trafficcast.forecasting.climatology import _DAYS_OFF, climatology_of_other_days
from trafficcast.forecasting.windows import _evenly, _gather, _window_times, _windows_as_known

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
# What the text of such trees holds, as LightGBM writes it.
_FEATURES = 23
_HEADER = {
    "num_class": "1",
    "num_tree_per_iteration": "1",
    "label_index": "0",
    "max_feature_idx": str(_FEATURES - 1),
    "objective": "regression",
}
_TREE = (
    "num_leaves", "num_cat", "split_feature", "threshold", "decision_type", "left_child", "right_child", "leaf_value",
    "is_linear",
)  # fmt: skip
_MOST_LEAVES, _MOST_VEHICLES = 1024, 1e6
_VERSION, _INTEGER = re.compile("v[0-9]"), re.compile(r"-?[0-9]{1,6}")
_REAL = re.compile(r"-?[0-9]{1,25}(\.[0-9]{1,25})?(e[+-]?[0-9]{1,3})?")


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

        time, cells = flows["time"].values, flows["flow"][0].size
        climatology = climatology_of_other_days(city, flows)
        starts = starts[_evenly(len(starts), _ROWS // (HORIZON * cells))]
        # The two parts share no slot.
        cut = starts[len(starts) * 4 // 5]
        parts = starts[starts + HISTORY + HORIZON <= cut], starts[starts >= cut]
        sets = []
        for part in parts:
            windows = _windows_as_known(flows, part)
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
    def read(cls, content: bytes, start: AnomalyPersistence) -> Self | None:
        """Read the trees of a model.

        Parameters
        ----------
        content
            What `save` wrote.
        start
            The model's anomaly persistence.

        Returns
        -------
        Self | None
            The baseline; None where LightGBM is not installed.

        Raises
        ------
        ValueError
            The trees are damaged.
        """
        text = _checked(content.decode("ascii"))
        try:
            import lightgbm
        except ImportError:
            return None
        try:
            return cls(start, lightgbm.Booster(model_str=text))
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(error) from None


def _checked(text: str) -> str:
    """Write LightGBM's text of regression trees anew, with all that a forecast needs and nothing else.

    LightGBM trusts a file: a wrong number in it may end the process, or keep it busy for ever. Therefore LightGBM gets
    no line that was not examined here. Raises ValueError where the text cannot be right.
    """
    whole, end, _ = text.partition("\nend of trees\n")
    header, *trees = re.split(r"^Tree=\d+$", whole, flags=re.MULTILINE)
    known = _lines(header)
    if not end or len(known["tree_sizes"].split()) != len(trees):
        raise ValueError("the trees are not all there")
    if not _VERSION.fullmatch(known["version"]) or any(known[key] != value for key, value in _HEADER.items()):
        raise ValueError("the trees are not those of this baseline")
    names = " ".join(f"Column_{i}" for i in range(_FEATURES)), " ".join(["none"] * _FEATURES)
    lines = ["tree", f"version={known['version']}", *(f"{key}={value}" for key, value in _HEADER.items())]
    lines += [f"feature_names={names[0]}", f"feature_infos={names[1]}", ""]
    for number, tree in enumerate(trees):
        lines += [f"Tree={number}", *_checked_tree(_lines(tree)), "", ""]
    return "\n".join([*lines, "end of trees", ""])


def _checked_tree(tree: dict[str, str]) -> list[str]:
    """Return the lines of a tree that forecasts need, or raise ValueError where the tree cannot be right."""
    leaves = int(_numbers(tree, "num_leaves", _INTEGER, 1, 1, _MOST_LEAVES)[0])
    splits = leaves - 1
    _numbers(tree, "num_cat", _INTEGER, 1, 0, 0)
    _numbers(tree, "is_linear", _INTEGER, 1, 0, 0)
    _numbers(tree, "leaf_value", _REAL, leaves, -_MOST_VEHICLES, _MOST_VEHICLES)
    _numbers(tree, "threshold", _REAL, splits, -sys.float_info.max, sys.float_info.max)
    _numbers(tree, "split_feature", _INTEGER, splits, 0, _FEATURES - 1)
    # An odd number would be a split by categories, which these trees have not.
    if any(kind % 2 for kind in _numbers(tree, "decision_type", _INTEGER, splits, 0, 10)):
        raise ValueError("decision_type holds what it cannot hold")
    children = [_numbers(tree, side, _INTEGER, splits, -leaves, splits - 1) for side in ("left_child", "right_child")]
    # Splits are numbered from 0 on, each after its parent, and leaves from -1 down; each has one parent.
    reached = sorted(child for side in children for child in side)
    if splits and reached != [*range(-leaves, 0), *range(1, splits)]:
        raise ValueError("a tree is no tree")
    if any(0 <= child <= parent for side in children for parent, child in enumerate(side)):
        raise ValueError("a tree is no tree")
    return [f"{key}={tree[key]}" for key in _TREE] + ["shrinkage=1"]


def _numbers(
    tree: dict[str, str], key: str, kind: re.Pattern[str], count: int, lowest: float, highest: float
) -> list[float]:
    """Return the numbers of a line, or raise ValueError where they cannot be right."""
    words = tree[key].split(" ") if tree[key] else []
    if len(words) == count and all(kind.fullmatch(word) and lowest <= float(word) <= highest for word in words):
        return [float(word) for word in words]
    raise ValueError(f"{key} holds what it cannot hold")


def _lines(text: str) -> dict[str, str]:
    """Return the values of the lines `key=value` of a text by their keys."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


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
