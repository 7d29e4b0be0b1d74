"""The windows of a city's flows on which networks train."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xarray as xr

from trafficcast.config.city import HISTORY, City
from trafficcast.errors import InputError
from trafficcast.forecasting.climatology import WeekdayClimatology, calendar_features, climatology_of_other_days
from trafficcast.forecasting.model import Network, is_conditioned
from trafficcast.forecasting.patterns import Patterns
from trafficcast.forecasting.windows import WINDOW_LENGTH, Split, window_starts


@dataclass(frozen=True)
class _Windows:
    """The windows of a split: `starts` (n), their first slots in `frames` (slot, flow kind, row, col).

    `late` (slot, age, flow kind, row, col) is what the histories of the windows lack of the frames; see `late_flow`.

    VMRNN-B and VMRNN-D read frames in [0, 1]. VMRNN-C reads vehicles per slot and the `context` of each slot:
    `climatology` (slot, flow kind, row, col), vehicles per slot, and `calendar` (slot, feature). Its training windows
    also have `patterns` (fold, pattern, flow kind, row, col) of other days, and each its `fold` (n) of days.
    """

    frames: torch.Tensor
    starts: torch.Tensor
    late: torch.Tensor | None = None
    context: dict[str, torch.Tensor] = field(default_factory=dict)
    patterns: torch.Tensor | None = None
    fold: torch.Tensor | None = None

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return frames (len(index), HISTORY + HORIZON, flow kind, row, col), and the context of the same slots."""
        slots = self.starts[index, None] + torch.arange(WINDOW_LENGTH, device=self.starts.device)
        context = {name: values[slots] for name, values in self.context.items()}
        if self.patterns is not None and self.fold is not None:
            context["patterns"] = self.patterns[self.fold[index]]
        frames = self.frames[slots]
        if self.late is not None:
            for age in range(1, self.late.shape[1] + 1):
                frames[:, HISTORY - age] -= self.late[slots[:, HISTORY - age], age - 1]
        return frames, context

    def to(self, device: torch.device) -> _Windows:
        """Copy the windows to a device."""
        context = {name: values.to(device) for name, values in self.context.items()}
        late, patterns, fold = (
            None if tensor is None else tensor.to(device) for tensor in (self.late, self.patterns, self.fold)
        )
        return _Windows(self.frames.to(device), self.starts.to(device), late, context, patterns, fold)


def _windows_of(
    flows: np.ndarray,
    scale: float,
    context: dict[str, np.ndarray],
    *starts: np.ndarray,
    late: np.ndarray | None = None,
) -> tuple[_Windows, ...]:
    """Return the windows of each split from flows (slot, flow kind, row, col), vehicles per slot, divided by scale.

    `late` (slot, age, flow kind, row, col) is their late flow, vehicles per slot.
    """
    frames, lacked = (
        None if values is None else torch.from_numpy(values.astype(np.float32) / np.float32(scale))
        for values in (flows, late)
    )
    assert frames is not None
    tensors = {name: torch.from_numpy(values) for name, values in context.items()}
    return tuple(_Windows(frames, torch.from_numpy(positions), lacked, tensors) for positions in starts)


def _flows_before(flows: xr.Dataset, end: np.datetime64) -> xr.Dataset:
    """Return the slots that start before `end`, naive UTC."""
    return flows.sel(time=flows["time"].values < end)


def _highest_count(city: City, fitted: xr.Dataset) -> float:
    """Return the maximum of the observed slots, vehicles per slot. Raises InputError where there is no traffic."""
    highest = float(fitted["flow"].values[fitted["observed"].values].max())
    if highest <= 0:
        raise InputError(f"the training slots of '{city.name}' have no traffic at all: check the city's box")
    return highest


def _slot_context(
    city: City, flows: xr.Dataset, fitted: xr.Dataset, climatology: WeekdayClimatology
) -> dict[str, np.ndarray]:
    """Return the climatology and the calendar of each slot of `flows`, which VMRNN-C reads.

    The first slots are `fitted`, the training slots to which `climatology` was fitted; they have that of other days.
    """
    times = flows["time"].values
    of_others, later = climatology_of_other_days(city, fitted), climatology.at(times[len(fitted["time"]) :])
    return {"climatology": np.concatenate([of_others, later]), "calendar": calendar_features(city, times)}


def _with_patterns(network: Network, training: _Windows, city: City, time: np.ndarray) -> _Windows:
    """Give VMRNN-C the patterns of its training windows, and the windows the patterns of other days.

    `time` holds the slots of the windows' frames, naive UTC. Other networks have no patterns.
    """
    if not is_conditioned(network):
        return training
    starts = training.starts.numpy()
    days = city.local_days(time[starts + HISTORY])
    climatology, calendar = (training.context[name].numpy() for name in ("climatology", "calendar"))
    late = None if training.late is None else training.late.numpy()
    frames, number = training.frames.numpy(), len(network.start.patterns)
    fitted = Patterns.fit(frames, climatology, calendar, starts, days, number, late)
    basis, persistence, coefficients, fold_basis, fold = (
        torch.from_numpy(values)
        for values in (fitted.basis, fitted.persistence, fitted.coefficients, fitted.fold_basis, fitted.fold)
    )
    network.start.set_coefficients(basis, persistence, coefficients)
    return replace(training, patterns=fold_basis, fold=fold)


def _starts_by_split(flows: xr.Dataset, city: City, split: Split) -> dict[str, np.ndarray]:
    """Return the positions of each split's windows. Raises InputError without any for training or validation."""
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


def _hash_of(flows: xr.Dataset, text: str = "") -> str:
    """Return the SHA-256 of flows and a text."""
    digest = hashlib.sha256(text.encode())
    for name in ("time", "flow", "observed", "late_flow"):
        if name in flows:
            digest.update(np.ascontiguousarray(flows[name].values).tobytes())
    return digest.hexdigest()
