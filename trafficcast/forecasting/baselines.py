"""The baselines beside which every forecast is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON, City, target_times
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology, climatology_of_other_days
from trafficcast.forecasting.windows import _gather, _window_times, _windows_as_known

WEEK = np.timedelta64(168, "h")


class _Persistence:
    """Forecasts the last observed slot again."""

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        return np.repeat(history[:, -1:], HORIZON, axis=1)


@dataclass(frozen=True)
class ScaledClimatology:
    """Forecasts the climatology times the activity of the history.

    Attributes
    ----------
    climatology
        The climatology.
    """

    climatology: Climatology

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
        climatology = self.climatology.at(_window_times(self.climatology.city, init_times))
        return (climatology[:, HISTORY:] * _activity(history, climatology)).astype(np.float32)


@dataclass(frozen=True)
class _LastWeek:
    """Forecasts the slot 168 hours earlier; climatology where that slot was not observed."""

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
    """The strongest baseline that forecasts each cell from the cell itself and the city's activity.

    Anomaly persistence: climatology scaled by the history's activity, plus a fitted share of each cell's mean anomaly.

    Attributes
    ----------
    climatology
        The climatology by day of the week.
    weights
        Shares (lead) of the mean anomaly, between 0 and 1.
    """

    climatology: WeekdayClimatology
    weights: np.ndarray

    @classmethod
    def fit(cls, city: City, flows: xr.Dataset, starts: np.ndarray) -> Self:
        """Fit the weights by least squares, with the climatology of other days.

        Parameters
        ----------
        city
            The city.
        flows
            Its training flows.
        starts
            Positions (n) of windows in `flows`.

        Returns
        -------
        Self
            The baseline.
        """
        windows, climatology = _windows_as_known(flows, starts), _gather(climatology_of_other_days(city, flows), starts)
        scaled, anomaly = _scaled_and_anomaly(windows[:, :HISTORY], climatology)
        later_anomaly = windows[:, HISTORY:] - scaled
        axes = (0, 2, 3, 4)
        weights = (anomaly * later_anomaly).sum(axes) / np.maximum((anomaly**2).sum(axes), 1e-9)
        return cls(WeekdayClimatology.fit(city, flows), weights.clip(0, 1).astype(np.float32))

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
        climatology = self.climatology.at(_window_times(self.climatology.city, init_times))
        scaled, anomaly = _scaled_and_anomaly(history, climatology)
        return (scaled + self.weights[:, None, None, None] * anomaly).clip(min=0)


def _scaled_and_anomaly(history: np.ndarray, climatology: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the later slots' climatology times the activity, (n, HORIZON, ...), and the mean anomaly, (n, 1, ...).

    The mean anomaly is that of the history (n, HISTORY, flow kind, row, col) from its climatology times the activity;
    `climatology` is of the history's slots and of the later ones.
    """
    activity = _activity(history, climatology).astype(np.float32)
    anomaly = (history - activity * climatology[:, :HISTORY]).mean(axis=1, keepdims=True)
    return activity * climatology[:, HISTORY:], anomaly


def _activity(history: np.ndarray, climatology: np.ndarray) -> np.ndarray:
    """Return the history's sum over that of its climatology, (n, 1, 1, 1, 1) float64; 1 where the latter is 0.

    Both are (n, slot, flow kind, row, col); `climatology` may go on after the history.
    """
    axes = (1, 2, 3, 4)
    total, expected = (x[:, :HISTORY].sum(axes, dtype=np.float64, keepdims=True) for x in (history, climatology))
    return np.divide(total, expected, out=np.ones_like(total), where=expected > 0)
