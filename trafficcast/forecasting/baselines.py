"""The baselines that every forecast is scored beside, weak and strong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON, City, target_times
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology, climatology_of_other_days
from trafficcast.forecasting.windows import _gather

WEEK = np.timedelta64(168, "h")


class _Persistence:
    """The last observed slot again."""

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        return np.repeat(history[:, -1:], HORIZON, axis=1)


@dataclass(frozen=True)
class _ScaledClimatology:
    """Climatology times the ratio of the history's sum, both flow kinds, to the same sum of its climatology."""

    climatology: Climatology

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster. Where climatology knows no traffic at all the ratio is 1."""
        city, axes = self.climatology.city, (1, 2, 3, 4)
        past = init_times[:, None] - city.slot * np.arange(history.shape[1], 0, -1)
        seen, normal = history.sum(axes, dtype=np.float64), self.climatology.at(past).sum(axes, dtype=np.float64)
        ratio = np.divide(seen, normal, out=np.ones_like(seen), where=normal > 0)
        return (self.climatology.forecast(history, init_times) * ratio[:, None, None, None, None]).astype(np.float32)


@dataclass(frozen=True)
class _LastWeek:
    """The slot 168 hours earlier; climatology where that slot was not observed."""

    flows: xr.Dataset
    climatology: Climatology

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        wanted = target_times(self.climatology.city, init_times) - WEEK
        time = self.flows["time"].values
        position = np.searchsorted(time, wanted).clip(max=len(time) - 1)
        known = (time[position] == wanted) & self.flows["observed"].values[position]
        values = self.flows["flow"].values[position].astype(np.float32)
        return np.where(known[..., None, None, None], values, self.climatology.at(wanted))


@dataclass(frozen=True)
class AnomalyPersistence:
    """What is normal there and then, as busy as the history was, plus a share of how the history's cells differed.

    `weights`: (lead), that share. The strongest baseline that looks at one cell at a time.
    """

    normal: WeekdayClimatology
    weights: np.ndarray

    @classmethod
    def fit(cls, city: City, flows: xr.Dataset, starts: np.ndarray) -> Self:
        """Least squares over the windows at positions `starts` of training flows; normal is what the other days say."""
        values = flows["flow"].values.astype(np.float32)
        windows, normal = _gather(values, starts), _gather(climatology_of_other_days(city, flows), starts)
        level, departure = _anomaly(windows[:, :HISTORY], normal)
        missing = windows[:, HISTORY:] - level
        axes = (0, 2, 3, 4)
        weights = (departure * missing).sum(axes) / np.maximum((departure**2).sum(axes), 1e-9)
        return cls(WeekdayClimatology.fit(city, flows), weights.clip(0, 1).astype(np.float32))

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        city = self.normal.city
        times = np.asarray(init_times)[:, None] + city.slot * np.arange(-HISTORY, HORIZON)
        level, departure = _anomaly(history, self.normal.at(times))
        return (level + self.weights[:, None, None, None] * departure).clip(min=0)


def _anomaly(history: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From history and what is normal, (n, slot, flow kind, row, col), vehicles per slot, of the same slots and later.

    Normal in the later slots times how busy the history was: (n, HORIZON, ...); the history's mean departure from the
    same: (n, 1, ...).
    """
    before, after = normal[:, :HISTORY], normal[:, HISTORY:]
    busy = _activity(history, normal)
    return busy * after, (history - busy * before).mean(axis=1, keepdims=True)


def _activity(history: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """All of a history over all that is normal in its slots, 1 where nothing is: (n, 1, 1, 1, 1).

    From history and what is normal, (n, slot, flow kind, row, col), of the same slots and maybe later.
    """
    axes = (1, 2, 3, 4)
    seen, expected = history.sum(axes, dtype=np.float64), normal[:, :HISTORY].sum(axes, dtype=np.float64)
    busy = np.divide(seen, expected, out=np.ones_like(seen), where=expected > 0).astype(np.float32)
    return busy[:, None, None, None, None]
