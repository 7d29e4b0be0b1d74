"""The training loop: windows in, the network of the best validation epoch out, resumable after any epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import mse_loss

from trafficcast.errors import InputError, JobError
from trafficcast.files import atomic
from trafficcast.windows import HISTORY, HORIZON

Progress = Callable[[Iterable[int], str, int], Iterable[int]]


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the defaults follow the published training (arXiv 2403.16536) but for the number of epochs.

    The learning rate rises linearly over `warmup_share` of all steps and then falls to `final_rate` by a cosine.
    """

    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 4e-4
    final_rate: float = 1e-6
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    seed: int = 42


@dataclass(frozen=True)
class Windows:
    """One split: `frames` (slot, flow kind, row, col) in [0, 1]; `starts` (n), where windows begin."""

    frames: torch.Tensor
    starts: torch.Tensor

    def batch(self, index: torch.Tensor) -> torch.Tensor:
        """(len(index), HISTORY + HORIZON, flow kind, row, col)."""
        return self.frames[self.starts[index, None] + torch.arange(HISTORY + HORIZON, device=self.starts.device)]

    def to(self, device: torch.device) -> Windows:
        """The same on a device."""
        return Windows(self.frames.to(device), self.starts.to(device))


@dataclass
class Trained:
    """How far training is: one row of `history` an epoch, and the parameters of the best epoch so far."""

    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) with the lowest validation error; the first of equals."""
        return 1 + min(range(len(self.history)), key=lambda i: self.history[i]["valid_rmse"])


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. Raises InputError for a device this machine does not have."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available.get(name.split(":")[0], False):
        there = ", ".join(kind for kind, there in available.items() if there)
        raise InputError(f"this machine has no device '{name}'; it has: {there}")
    return torch.device(name)


def train(
    network: nn.Module,
    training: Windows,
    validation: Windows,
    scale: float,
    settings: TrainingSettings,
    device: torch.device,
    checkpoint: Path,
    identity: str,
    resume: bool,
    progress: Progress,
    on_epoch: Callable[[Trained], None],
) -> Trained:
    """Train `network` in place and return the best epoch by validation RMSE.

    After every epoch the whole state goes to `checkpoint`; with `resume` training continues there and ends as
    if it had never stopped. `identity` names data and architecture: a checkpoint of other ones is refused.
    Raises JobError when the loss is not finite.
    """
    network.to(device)
    training, validation = training.to(device), validation.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    state = Trained()
    if resume:
        state = _load_checkpoint(checkpoint, network, optimizer, settings, identity)
    steps = math.ceil(len(training.starts) / settings.batch_size)
    for epoch in range(len(state.history), settings.epochs):
        # Order and drop path depend on seed and epoch alone, so that a resumed run draws what it would have drawn.
        torch.manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(training.starts)).to(device)
        network.train()
        total = torch.zeros((), device=device)
        for step in progress(range(steps), f"epoch {epoch + 1} of {settings.epochs}", steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, epoch * steps + step, settings.epochs * steps)
            index = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            frames = training.batch(index)
            loss = rollout_loss(network, frames)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(index)
        mean_loss = float(total) / len(order)
        if not math.isfinite(mean_loss):
            raise JobError(
                f"the loss became {mean_loss} in epoch {epoch + 1}; the last good state is {checkpoint}: "
                "lower --learning-rate"
            )
        valid_rmse = validation_rmse(network, validation, settings.batch_size) * scale
        state.history.append({"epoch": epoch + 1, "train_mse": mean_loss, "valid_rmse": valid_rmse})
        if state.best_epoch == epoch + 1:
            state.best = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        _save_checkpoint(checkpoint, network, optimizer, settings, identity, state)
        on_epoch(state)
    return state


def rollout_loss(network: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    """Mean squared error of all 7 outputs against x1 .. x7, gradient through the feedback (arXiv 2403.16536)."""
    outputs = network(frames[:, :HISTORY], horizon=HORIZON)
    return mse_loss(outputs, frames[:, 1:])


def validation_rmse(network: nn.Module, windows: Windows, batch_size: int) -> float:
    """RMSE of the forecasts over all cells, kinds and leads, on the frames' scale."""
    network.eval()
    squared = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for index in torch.arange(len(windows.starts), device=windows.starts.device).split(batch_size):
            frames = windows.batch(index)
            error = network(frames[:, :HISTORY], horizon=HORIZON)[:, -HORIZON:] - frames[:, HISTORY:]
            squared += error.square().mean(dim=(1, 2, 3, 4)).sum().cpu()  # MPS has no float64
    return math.sqrt(float(squared) / len(windows.starts))


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to the final rate."""
    warmup = settings.warmup_share * steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1.0, steps - warmup)
    return settings.final_rate + (settings.learning_rate - settings.final_rate) * (1 + math.cos(math.pi * share)) / 2


def _save_checkpoint(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    identity: str,
    state: Trained,
) -> None:
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": tensor for name, tensor in values.items()}
    # Memory shared between tensors is not allowed in the format.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    metadata = {"identity": identity, "settings": json.dumps(asdict(settings)), "history": json.dumps(state.history)}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata)


def _load_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, settings: TrainingSettings, identity: str
) -> Trained:
    if not path.exists():
        raise InputError(f"nothing to resume: there is no {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot resume from {path}: {error}") from None
    if metadata.get("identity") != identity:
        raise InputError(f"{path} belongs to other data or another architecture: start anew without --resume")
    if json.loads(metadata["settings"]) != asdict(settings):
        raise InputError(f"{path} was trained with {metadata['settings']}: give the same settings, or start anew")

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    network.load_state_dict(part("network/"))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in part("optimizer/").items():
        number, key = name.split("/")
        moments.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return Trained(json.loads(metadata["history"]), part("best/"))


def windows_of(flows: np.ndarray, scale: float, *starts: np.ndarray) -> tuple[Windows, ...]:
    """Flows (slot, flow kind, row, col) in vehicles per slot, and each split's window positions, as splits."""
    frames = torch.from_numpy(flows.astype(np.float32) / np.float32(scale))
    return tuple(Windows(frames, torch.from_numpy(positions)) for positions in starts)
