"""Forecasters: history in, four frames out, in vehicles per slot; here the protocol and the networks behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from trafficcast.city import City
from trafficcast.normal import Normal, calendar_features
from trafficcast.windows import HORIZON

INFERENCE_BATCH = 16


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


@dataclass(frozen=True)
class VmrnnForecaster:
    """A trained published network. `scale`: the training maximum, vehicles per slot; it knows frames / scale."""

    network: nn.Module
    scale: float
    device: torch.device

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        forecast = in_batches(self.network, self.device, np.asarray(history, np.float32) / np.float32(self.scale))
        return forecast * np.float32(self.scale)


@dataclass(frozen=True)
class ConditionedForecaster:
    """A trained network that knows vehicles per slot, what is normal and the calendar."""

    network: nn.Module
    normal: Normal
    device: torch.device

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster. What the network forecasts below zero is zero."""
        city = self.normal.city
        times = init_times[:, None] + city.slot * np.arange(-history.shape[1], HORIZON)
        calendar = calendar_features(city, times.ravel()).reshape(*times.shape, -1)
        context = {"normal": self.normal.at(times), "calendar": calendar}
        return in_batches(self.network, self.device, np.asarray(history, np.float32), context).clip(min=0)


def in_batches(
    network: nn.Module, device: torch.device, history: np.ndarray, context: dict[str, np.ndarray] | None = None
) -> np.ndarray:
    """A network's forecasts, (n, HORIZON, flow kind, row, col), on the scale of the history it is given."""
    network.eval().to(device)
    inputs = {"frames": history, **(context or {})}
    forecasts = []
    with torch.inference_mode():
        for first in range(0, len(history), INFERENCE_BATCH):
            batch = {k: torch.from_numpy(v[first : first + INFERENCE_BATCH]).to(device) for k, v in inputs.items()}
            forecasts.append(network(**batch, horizon=HORIZON)[:, -HORIZON:].cpu())
    return torch.cat(forecasts).numpy()


def target_times(city: City, init_times: np.ndarray) -> np.ndarray:
    """The HORIZON slot starts forecast from each init time: (n, HORIZON), naive UTC."""
    return np.asarray(init_times)[:, None] + city.slot * np.arange(HORIZON)
