"""From a city's flows to the windows that networks train on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON, City
from trafficcast.errors import InputError
from trafficcast.forecasting.climatology import WeekdayClimatology, calendar_features, climatology_of_other_days
from trafficcast.forecasting.model import Network, is_conditioned
from trafficcast.forecasting.patterns import Patterns
from trafficcast.forecasting.windows import Split, window_starts


@dataclass(frozen=True)
class _Windows:
    """One split: `starts` (n), where windows begin in `frames` (slot, flow kind, row, col).

    The published networks read frames in [0, 1]. A conditioned one reads vehicles per slot and the `context` of each
    slot: `normal` (slot, flow kind, row, col), vehicles per slot, and `calendar` (slot, feature). In training its
    windows have the patterns (block, pattern, flow kind, row, col) of other days, and each its `block` (n) of days.
    """

    frames: torch.Tensor
    starts: torch.Tensor
    context: dict[str, torch.Tensor] = field(default_factory=dict)
    patterns: torch.Tensor | None = None
    block: torch.Tensor | None = None

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Frames (len(index), HISTORY + HORIZON, flow kind, row, col), and the context of the same slots."""
        slots = self.starts[index, None] + torch.arange(HISTORY + HORIZON, device=self.starts.device)
        context = {name: values[slots] for name, values in self.context.items()}
        if self.patterns is not None and self.block is not None:
            context["patterns"] = self.patterns[self.block[index]]
        return self.frames[slots], context

    def to(self, device: torch.device) -> _Windows:
        """The same on a device."""
        context = {name: values.to(device) for name, values in self.context.items()}
        patterns, block = (None if tensor is None else tensor.to(device) for tensor in (self.patterns, self.block))
        return _Windows(self.frames.to(device), self.starts.to(device), context, patterns, block)


def _windows_of(
    flows: np.ndarray, scale: float, context: dict[str, np.ndarray], *starts: np.ndarray
) -> tuple[_Windows, ...]:
    """Flows (slot, flow kind, row, col) in vehicles per slot, and each split's window positions, as splits."""
    frames = torch.from_numpy(flows.astype(np.float32) / np.float32(scale))
    tensors = {name: torch.from_numpy(values) for name, values in context.items()}
    return tuple(_Windows(frames, torch.from_numpy(positions), tensors) for positions in starts)


def _flows_before(flows: xr.Dataset, end: np.datetime64) -> xr.Dataset:
    """The slots that start before `end`, naive UTC."""
    return flows.sel(time=flows["time"].values < end)


def _highest_count(city: City, fitted: xr.Dataset) -> float:
    """The maximum over the observed slots, vehicles per slot. Raises InputError where there is no traffic at all."""
    highest = float(fitted["flow"].values[fitted["observed"].values].max())
    if highest <= 0:
        raise InputError(f"the training slots of '{city.name}' have no traffic at all: check the city's box")
    return highest


def _known_beforehand(
    city: City, flows: xr.Dataset, fitted: xr.Dataset, normal: WeekdayClimatology
) -> dict[str, np.ndarray]:
    """What a conditioned network is told of each slot of `flows` (see `training.Windows`).

    The first of them, `fitted`, which are trained on and made `normal`, are told what is normal by all other days than
    their own.
    """
    times = flows["time"].values
    of_others, later = climatology_of_other_days(city, fitted), normal.at(times[len(fitted["time"]) :])
    return {"normal": np.concatenate([of_others, later]), "calendar": calendar_features(city, times)}


def _with_patterns(network: Network, training: _Windows, city: City, time: np.ndarray) -> _Windows:
    """Give a conditioned network the patterns of its training windows, and these the patterns of other days.

    `time`: the slots of the windows' frames, naive UTC. A published network has none, and its windows need none.
    """
    if not is_conditioned(network):
        return training
    starts = training.starts.numpy()
    days = city.local_days(time[starts + HISTORY])
    normal, calendar = (training.context[name].numpy() for name in ("normal", "calendar"))
    patterns = Patterns.fit(training.frames.numpy(), normal, calendar, starts, days, len(network.start.patterns))
    network.start.set(*(torch.from_numpy(values) for values in (patterns.basis, patterns.shares, patterns.left)))
    of_others, block = torch.from_numpy(patterns.of_others), torch.from_numpy(patterns.block)
    return replace(training, patterns=of_others, block=block)


def _starts_by_split(flows: xr.Dataset, city: City, split: Split) -> dict[str, np.ndarray]:
    """Positions in `flows` of each split's windows. Raises InputError without any for training or validation."""
    starts = {
        "training": window_starts(flows, city, split.start, split.train_end),
        "validation": window_starts(flows, city, split.train_end, split.valid_end),
        "test": window_starts(flows, city, split.valid_end, split.test_end),
    }
    for name in ("training", "validation"):
        if not len(starts[name]):
            raise InputError(
                f"'{city.name}' has no {name} window: that needs eight contiguous observed slots; "
                f"the split is {', '.join(f'{k} {city.isoformat(v)}' for k, v in vars(split).items())}"
            )
    return starts


def _hash_of(flows: xr.Dataset, more: str = "") -> str:
    """SHA-256 of flows and whatever else."""
    digest = hashlib.sha256(more.encode())
    for name in ("time", "flow", "observed"):
        digest.update(np.ascontiguousarray(flows[name].values).tobytes())
    return digest.hexdigest()
