"""The training loop: windows in, the network of the best validation epoch out, resumable after any epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel

from trafficcast.distributed import add_up, add_up_gradients, agree, processes, rank, share
from trafficcast.errors import InputError, JobError
from trafficcast.files import atomic
from trafficcast.windows import HISTORY, HORIZON

Progress = Callable[[Iterable[int], str, int], Iterable[int]]


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the defaults follow the published training (arXiv 2403.16536) but for the number of epochs.

    The learning rate rises linearly over `warmup_share` of all steps and then falls to `final_rate` by a cosine.
    `ema`: decay of the moving average of the weights that is validated and kept, 0 for the weights themselves.
    `clip`: the largest norm of a gradient, 0 for any. `views`: mirror and shift the city, anew for every batch.
    """

    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 4e-4
    final_rate: float = 1e-6
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    ema: float = 0.0
    clip: float = 0.0
    views: bool = False
    seed: int = 42


@dataclass(frozen=True)
class Windows:
    """One split: `starts` (n), where windows begin in `frames` (slot, flow kind, row, col).

    The published networks read frames in [0, 1]. A conditioned one reads vehicles per slot and the `context` of each
    slot: `normal` (slot, flow kind, row, col), vehicles per slot, and `calendar` (slot, feature).
    """

    frames: torch.Tensor
    starts: torch.Tensor
    context: dict[str, torch.Tensor] = field(default_factory=dict)

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Frames (len(index), HISTORY + HORIZON, flow kind, row, col), and the context of the same slots."""
        slots = self.starts[index, None] + torch.arange(HISTORY + HORIZON, device=self.starts.device)
        return self.frames[slots], {name: values[slots] for name, values in self.context.items()}

    def to(self, device: torch.device) -> Windows:
        """The same on a device."""
        context = {name: values.to(device) for name, values in self.context.items()}
        return Windows(self.frames.to(device), self.starts.to(device), context)


@dataclass
class Trained:
    """How far training is: one row of `history` an epoch, and the parameters of the best epoch so far."""

    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) with the lowest validation error, the first of equals; without validation the last."""
        if "valid_rmse" not in self.history[-1]:
            return len(self.history)
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
    validation: Windows | None,
    scale: float,
    settings: TrainingSettings,
    device: torch.device,
    checkpoint: Path,
    identity: str,
    resume: bool,
    progress: Progress,
    on_epoch: Callable[[Trained], None],
) -> Trained:
    """Train `network` in place and return the best epoch by validation RMSE; without validation the last epoch.

    After every epoch the whole state goes to `checkpoint`; with `resume` training continues there and ends as
    if it had never stopped. `identity` names data and architecture: a checkpoint of other ones is refused.
    Of several processes (see `distributed`) each computes its share of every batch, and all have the same result.
    Raises JobError when the loss is not finite and when memory does not suffice.
    """
    network.to(device)
    training = training.to(device)
    validation = None if validation is None else validation.to(device)
    optimizer = torch.optim.AdamW(decayed_or_not(network, settings.weight_decay), lr=settings.learning_rate)
    averaged = AveragedModel(network, avg_fn=_moving_average(settings.ema))
    state = Trained()
    if resume:
        state = _load_checkpoint(checkpoint, averaged, network, optimizer, settings, identity)
    agree("flows, settings and checkpoint", f"{identity} {settings} {len(state.history)}")
    steps = math.ceil(len(training.starts) / settings.batch_size)
    for epoch in range(len(state.history), settings.epochs):
        # Order, views and drop path depend on seed and epoch alone: a resumed run draws what it would have drawn.
        torch.manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(training.starts))
        views = torch.rand(steps, 5).tolist()
        if rank():  # each draws the drop path of its own windows
            torch.manual_seed((rank() << 40) + settings.seed * 1_000_003 + epoch)
        network.train()
        losses = torch.zeros(steps, device=device)
        for step in progress(range(steps), f"epoch {epoch + 1} of {settings.epochs}", steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, epoch * steps + step, settings.epochs * steps)
            index = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            own, weight = share(index)
            with _memory_named(settings.batch_size):
                frames, context = training.batch(own.to(device))
                if settings.views:
                    frames, context = seen_otherwise(frames, context, *views[step])
                loss = weight * forecast_loss(network, frames, context)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            losses[step] = loss.detach()
            add_up_gradients(network, losses[step])
            if settings.clip:
                nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            optimizer.step()
            averaged.update_parameters(network)
            # Reading a loss makes a GPU wait, so there all are read at the end of the epoch.
            if device.type == "cpu" or step == steps - 1:
                _check_finite(losses[: step + 1], order, epoch, settings, checkpoint)
        state.history.append({"epoch": epoch + 1, "train_loss": float(losses.mean())})
        if validation is not None:
            rmse = validation_rmse(averaged.module, validation, settings.batch_size)
            state.history[-1]["valid_rmse"] = rmse * scale
        if state.best_epoch == epoch + 1:
            weights = averaged.module.state_dict()
            state.best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        if rank() == 0:
            _save_checkpoint(checkpoint, averaged, network, optimizer, settings, identity, state)
        on_epoch(state)
    return state


def forecast_loss(network: nn.Module, frames: torch.Tensor, context: dict[str, torch.Tensor]) -> torch.Tensor:
    """What is minimised, of windows (n, HISTORY + HORIZON, flow kind, row, col).

    A published network: mean squared error of all 7 outputs against x1 .. x7, gradient through the feedback (arXiv
    2403.16536). A conditioned one: squared errors of the forecast, in vehicles, over the standard deviation of a count
    around what is normal, which is halfway from least squares to the likelihood of overdispersed counts.
    """
    outputs = network(frames[:, :HISTORY], horizon=HORIZON, **context)
    if not context:
        return mse_loss(outputs, frames[:, 1:])
    error = outputs - frames[:, HISTORY:]
    return (error.square() / (context["normal"][:, HISTORY:] + 1.0).sqrt()).mean() / 3


def validation_rmse(network: nn.Module, windows: Windows, batch_size: int) -> float:
    """RMSE of the forecasts over all cells, kinds and leads, on the frames' scale."""
    network.eval()
    squared = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        batches = torch.arange(len(windows.starts), device=windows.starts.device).split(batch_size)
        for index in batches[rank() :: processes()]:
            frames, context = windows.batch(index)
            forecast = network(frames[:, :HISTORY], horizon=HORIZON, **context)[:, -HORIZON:].clamp_min(0)
            error = forecast - frames[:, HISTORY:]
            squared += error.square().mean(dim=(1, 2, 3, 4)).sum().cpu()  # MPS has no float64
    add_up([squared])
    return math.sqrt(float(squared) / len(windows.starts))


def seen_otherwise(
    frames: torch.Tensor,
    context: dict[str, torch.Tensor],
    west_east: float,
    north_south: float,
    turned: float,
    south: float,
    east: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The same windows of a city that lies otherwise, so that a network cannot learn its places by heart.

    Five numbers in [0, 1): from 0.5 on mirrored west-east, north-south, and with rows as columns where it is square;
    the last two are how far it is shifted, as a share of its height and width. What leaves it on one side comes in on
    the other.
    """
    rows, cols = frames.shape[-2:]
    sides = [dim for dim, draw in ((-1, west_east), (-2, north_south)) if draw >= 0.5]

    def view(grids: torch.Tensor) -> torch.Tensor:
        grids = grids.roll((int(south * rows), int(east * cols)), (-2, -1)).flip(sides)
        return grids.transpose(-1, -2) if turned >= 0.5 and rows == cols else grids

    return view(frames), {name: view(v) if v.ndim == frames.ndim else v for name, v in context.items()}


def decayed_or_not(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay is for matrices: norms, biases and the scan's own parameters keep their scale."""
    kept = ("A_log", "D", "dt_bias", "bias")
    named = list(network.named_parameters())
    decayed = [p for name, p in named if p.ndim >= 2 and name.rpartition(".")[2] not in kept]
    others = [p for name, p in named if p.ndim < 2 or name.rpartition(".")[2] in kept]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _moving_average(decay: float) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | int], torch.Tensor]:
    """An average that forgets its beginning faster: the first weights are far from good ones."""

    def average(mean: torch.Tensor, new: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        n = float(count)
        return torch.lerp(mean, new, 1.0 - min(decay, (1 + n) / (10 + n)))

    return average


@contextmanager
def _memory_named(batch_size: int) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not out_of_memory and "can't allocate memory" not in str(error):
            raise
        raise JobError(
            f"memory does not suffice for batches of {batch_size} windows: lower --batch-size ({error})"
        ) from None


def _check_finite(
    losses: torch.Tensor, order: torch.Tensor, epoch: int, settings: TrainingSettings, checkpoint: Path
) -> None:
    wrong = (~losses.isfinite()).nonzero()
    if len(wrong):
        step = int(wrong[0])
        windows = order[step * settings.batch_size : (step + 1) * settings.batch_size].tolist()
        last = f"the last good state is {checkpoint}" if checkpoint.exists() else "there is no good state yet"
        raise JobError(
            f"the loss became {float(losses[step])} in epoch {epoch + 1}, step {step + 1}, whose training windows are "
            f"{windows}; {last}: lower --learning-rate, and look at these windows with trafficcast quality"
        )


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to the final rate."""
    warmup = settings.warmup_share * steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1.0, steps - warmup)
    return settings.final_rate + (settings.learning_rate - settings.final_rate) * (1 + math.cos(math.pi * share)) / 2


def _save_checkpoint(
    path: Path,
    averaged: nn.Module,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    identity: str,
    state: Trained,
) -> None:
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"averaged/{name}": tensor for name, tensor in averaged.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": tensor for name, tensor in values.items()}
    # Memory shared between tensors is not allowed in the format.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    metadata = {"identity": identity, "settings": json.dumps(asdict(settings)), "history": json.dumps(state.history)}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata)


def _load_checkpoint(
    path: Path,
    averaged: nn.Module,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    identity: str,
) -> Trained:
    if not path.exists():
        raise InputError(f"nothing to resume: there is no {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"cannot resume from {path}, which is cut off or no safetensors file: start anew without --resume ({error})"
        ) from None
    if metadata is None or metadata.get("identity") != identity:
        raise InputError(f"{path} belongs to other data or another architecture: start anew without --resume")
    if metadata.get("settings") != json.dumps(asdict(settings)):
        raise InputError(f"{path} was trained with {metadata.get('settings')}: give the same settings, or start anew")

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    try:
        network.load_state_dict(part("network/"))
        averaged.load_state_dict(part("averaged/"))
    except RuntimeError as error:
        raise InputError(
            f"{path} is of another version of this architecture: start anew without --resume "
            f"({' '.join(str(error).split())})"
        ) from None
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in part("optimizer/").items():
        number, key = name.split("/")
        moments.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return Trained(json.loads(metadata["history"]), part("best/"))


def windows_of(
    flows: np.ndarray, scale: float, context: dict[str, np.ndarray], *starts: np.ndarray
) -> tuple[Windows, ...]:
    """Flows (slot, flow kind, row, col) in vehicles per slot, and each split's window positions, as splits."""
    frames = torch.from_numpy(flows.astype(np.float32) / np.float32(scale))
    tensors = {name: torch.from_numpy(values) for name, values in context.items()}
    return tuple(Windows(frames, torch.from_numpy(positions), tensors) for positions in starts)
