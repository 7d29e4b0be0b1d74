"""The protocol of all forecasters, and the networks as forecasters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import nn

from trafficcast.forecasting.climatology import WeekdayClimatology, calendar_features
from trafficcast.forecasting.inference import Function, forecast_function
from trafficcast.forecasting.windows import _window_times

_INFERENCE_BATCH = 16
_CUDA_INFERENCE_BATCH = 256


class Forecaster(Protocol):
    """A model or a baseline: forecasts the slots after a history."""

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """Forecast the HORIZON slots from each init time on.

        Parameters
        ----------
        history
            Flows (n, HISTORY, flow kind, row, col) float32 of the slots just before, vehicles per slot.
        init_times
            Init times (n), the starts of the first slots forecast, naive UTC.

        Returns
        -------
        np.ndarray
            Forecasts (n, HORIZON, flow kind, row, col) float32, vehicles per slot.
        """
        ...


@dataclass(frozen=True)
class _VmrnnForecaster:
    """VMRNN-B or VMRNN-D, which reads frames divided by `scale`, the training maximum, vehicles per slot."""

    network: nn.Module
    scale: float
    device: torch.device

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        frames = np.asarray(history, np.float32) / np.float32(self.scale)
        return in_batches(self._network, self.device, {"frames": frames}) * np.float32(self.scale)

    @cached_property
    def _network(self) -> Function:
        return forecast_function(self.network, self.device)


@dataclass(frozen=True)
class _ConditionedForecaster:
    """VMRNN-C or its linear forecast, which reads vehicles per slot, the climatology and the calendar."""

    network: nn.Module
    climatology: WeekdayClimatology
    device: torch.device

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster. Negative outputs of the network become zero."""
        city = self.climatology.city
        times = _window_times(city, init_times)
        inputs = {
            "frames": np.asarray(history, np.float32),
            "climatology": self.climatology.at(times),
            "calendar": calendar_features(city, times.ravel()).reshape(*times.shape, -1),
        }
        return in_batches(self._network, self.device, inputs).clip(min=0)

    @cached_property
    def _network(self) -> Function:
        return forecast_function(self.network, self.device)


def in_batches(forecast: Function, device: torch.device, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Run a network over inputs, batch by batch.

    Parameters
    ----------
    forecast
        The network, see `forecast_function`.
    device
        Its device.
    inputs
        Inputs (n, ...) by name, `frames` among them.

    Returns
    -------
    np.ndarray
        Forecasts (n, HORIZON, flow kind, row, col), in the unit of `frames`.
    """
    size = _CUDA_INFERENCE_BATCH if device.type == "cuda" else _INFERENCE_BATCH
    tensors = {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}
    batches = [
        forecast(**{name: tensor[first : first + size] for name, tensor in tensors.items()})
        for first in range(0, len(inputs["frames"]), size)
    ]
    return torch.cat(batches).cpu().numpy()
