"""Forecasters: history in, four frames out, in vehicles per slot; the baselines and the network alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import xarray as xr

from trafficcast.city import City
from trafficcast.nn import VMRNN
from trafficcast.windows import HORIZON

INFERENCE_BATCH = 16
WEEK = np.timedelta64(168, "h")


class Forecaster(Protocol):
    """What every model and every baseline can do."""

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """The HORIZON slots from each init time on.

        Args:
            history: (n, HISTORY, flow kind, row, col) float32, vehicles per slot, the slots just before.
            init_times: (n) datetime64, naive UTC, starts of the first slots forecast.

        Returns:
            (n, HORIZON, flow kind, row, col) float32, vehicles per slot.
        """
        ...


class Persistence:
    """The last observed slot again."""

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        return np.repeat(history[:, -1:], HORIZON, axis=1)


@dataclass(frozen=True)
class Climatology:
    """The mean over the observed training slots by local slot of day and weekday/weekend.

    `table`: (weekday = 0 or weekend = 1, slot of day, flow kind, row, col) float32, vehicles per slot.
    """

    city: City
    table: np.ndarray

    @classmethod
    def fit(cls, city: City, flows: xr.Dataset) -> Climatology:
        """Average flows. A slot of day never observed takes the other kind of day's mean, or the overall one."""
        flows = flows.isel(time=flows["observed"].values)
        values, time = flows["flow"].values, flows["time"].values
        shape = (2, city.slots_per_day)
        sums, counts = np.zeros(shape + values.shape[1:]), np.zeros(shape)
        key = city.is_weekend(time).astype(int), city.slot_of_day(time)
        np.add.at(sums, key, values)
        np.add.at(counts, key, 1)
        with np.errstate(invalid="ignore"):
            table = sums / counts[..., None, None, None]
        table = np.where(np.isnan(table), table[::-1], table)
        return cls(city, np.where(np.isnan(table), values.mean(axis=0), table).astype(np.float32))

    def at(self, times: np.ndarray) -> np.ndarray:
        """What is normal at slot starts of any shape (...): (..., flow kind, row, col)."""
        flat = times.ravel()
        normal = self.table[self.city.is_weekend(flat).astype(int), self.city.slot_of_day(flat)]
        return normal.reshape(times.shape + self.table.shape[2:])

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        return self.at(target_times(self.city, init_times))


@dataclass(frozen=True)
class ScaledClimatology:
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
class LastWeek:
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
class VmrnnForecaster:
    """A trained network. `scale`: the training split's maximum, vehicles per slot; the network knows frames / scale."""

    network: VMRNN
    scale: float
    device: torch.device

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        self.network.eval().to(self.device)
        frames = torch.from_numpy(np.asarray(history, np.float32) / np.float32(self.scale))
        with torch.inference_mode():
            parts = [
                self.network(part.to(self.device), horizon=HORIZON)[:, -HORIZON:].cpu()
                for part in frames.split(INFERENCE_BATCH)
            ]
        return torch.cat(parts).numpy() * np.float32(self.scale)


def target_times(city: City, init_times: np.ndarray) -> np.ndarray:
    """The HORIZON slot starts forecast from each init time: (n, HORIZON), naive UTC."""
    return np.asarray(init_times)[:, None] + city.slot * np.arange(HORIZON)


def baselines(flows: xr.Dataset, climatology: Climatology) -> dict[str, Forecaster]:
    """All baselines by the names that scores use. `flows` is where `last_week` looks things up."""
    return {
        "persistence": Persistence(),
        "last_week": LastWeek(flows, climatology),
        "climatology": climatology,
        "scaled_climatology": ScaledClimatology(climatology),
    }
