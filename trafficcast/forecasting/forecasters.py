"""Forecasters: history in, four frames out, in vehicles per slot; here the protocol and the networks behind it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import nn

from trafficcast.config.city import HORIZON
from trafficcast.forecasting.climatology import WeekdayClimatology, calendar_features
from trafficcast.forecasting.inference import Function, forecasting

_INFERENCE_BATCH = 16
_CUDA_INFERENCE_BATCH = 256


class Forecaster(Protocol):
    """What every model and every baseline can do."""

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """The HORIZON slots from each init time on.

        Args:
            history: (n, HISTORY, flow kind, row, col) float32, vehicles per slot, the slots just before.
            init_times: (n) datetime64, naive UTC, starts of the first slots forecast.

        Returns
        -------
            (n, HORIZON, flow kind, row, col) float32, vehicles per slot.
        """
        ...


@dataclass(frozen=True)
class _VmrnnForecaster:
    """A trained published network. `scale`: the training maximum, vehicles per slot; it knows frames / scale."""

    network: nn.Module
    scale: float
    device: torch.device

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        frames = np.asarray(history, np.float32) / np.float32(self.scale)
        return in_batches(self._network, self.device, {"frames": frames}) * np.float32(self.scale)

    @cached_property
    def _network(self) -> Function:
        return forecasting(self.network, self.device)


@dataclass(frozen=True)
class _ConditionedForecaster:
    """A trained network that knows vehicles per slot, what is normal and the calendar."""

    network: nn.Module
    normal: WeekdayClimatology
    device: torch.device

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster. What the network forecasts below zero is zero."""
        city = self.normal.city
        times = init_times[:, None] + city.slot * np.arange(-history.shape[1], HORIZON)
        calendar = calendar_features(city, times.ravel()).reshape(*times.shape, -1)
        inputs = {"frames": np.asarray(history, np.float32), "normal": self.normal.at(times), "calendar": calendar}
        return in_batches(self._network, self.device, inputs).clip(min=0)

    @cached_property
    def _network(self) -> Function:
        return forecasting(self.network, self.device)


def in_batches(forecast: Function, device: torch.device, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Forecasts (n, HORIZON, flow kind, row, col) of inputs (n, ...) by name, on their scale (see `forecasting`)."""
    size = _CUDA_INFERENCE_BATCH if device.type == "cuda" else _INFERENCE_BATCH
    tensors = {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}
    batches = [
        forecast(**{name: tensor[first : first + size] for name, tensor in tensors.items()})
        for first in range(0, len(inputs["frames"]), size)
    ]
    return torch.cat(batches).cpu().numpy()
