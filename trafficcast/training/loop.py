"""The training loop: trains a network on windows and keeps the best validation epoch; resumable after any epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel

from trafficcast.config.city import HISTORY, HORIZON
from trafficcast.errors import InputError, JobError
from trafficcast.files import atomic
from trafficcast.forecasting.inference import Function, forecast_function, uses_bfloat16, with_cuda_graphs
from trafficcast.training.dataset import _Windows
from trafficcast.training.distributed import _agree, _processes, _share, _sum_gradients, _sum_over_processes, rank
from trafficcast.training.settings import TrainingSettings

_Progress = Callable[[Iterable[int], str, int], Iterable[int]]


@dataclass
class _Trained:
    """The state of a training: one row of `history` an epoch, and the parameters of the best epoch so far."""

    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int:
        """Return the first epoch (from 1) with the lowest validation error; without validation the last epoch."""
        if "valid_rmse" not in self.history[-1]:
            return len(self.history)
        return 1 + min(range(len(self.history)), key=lambda i: self.history[i]["valid_rmse"])


def _train(
    network: nn.Module,
    training: _Windows,
    validation: _Windows | None,
    scale: float,
    settings: TrainingSettings,
    device: torch.device,
    checkpoint: Path,
    identity: str,
    resume: bool,
    progress: _Progress,
    on_epoch: Callable[[_Trained], None],
) -> _Trained:
    """Train `network` in place and return the best epoch by validation RMSE; without validation the last epoch.

    After every epoch the whole state is written to `checkpoint`; with `resume` training continues there and has the
    same result as without interruption. `identity` identifies data and architecture: a checkpoint with another one is
    refused. Of several processes (see `distributed`) each computes its share of every batch, and all have the same
    result. Raises JobError when the loss is not finite and when memory does not suffice.
    """
    network.to(device)
    training = training.to(device)
    validation = None if validation is None else validation.to(device)
    optimizer = make_optimizer(network, settings, device.type == "cuda")
    averaged = AveragedModel(network, device)
    eager = training_step(network, optimizer, averaged, settings, uses_bfloat16(device))
    captured, forecast = with_cuda_graphs(eager, device), forecast_function(averaged.module, device)
    state = _Trained()
    if resume:
        state = _load_checkpoint(checkpoint, averaged, network, optimizer, settings, identity)
    _agree("flows, settings and checkpoint", f"{identity} {settings} {len(state.history)}")
    steps = math.ceil(len(training.starts) / settings.batch_size)
    for epoch in range(len(state.history), settings.epochs):
        # Order, augmentation and drop path depend on seed and epoch alone, so that a resumed run draws the same.
        torch.manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(training.starts)).to(device)
        draws = torch.rand(steps, 5).tolist()
        if rank():  # each process draws the drop path of its own windows
            torch.manual_seed((rank() << 40) + settings.seed * 1_000_003 + epoch)
        network.train()
        losses = torch.zeros(steps, device=device)
        for step in progress(range(steps), f"epoch {epoch + 1} of {settings.epochs}", steps):
            _set_learning_rate(optimizer, _learning_rate(settings, epoch * steps + step, settings.epochs * steps))
            index = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            own, weight = _share(index)
            with _memory_errors(settings.batch_size):
                frames, context = training.batch(own)
                if settings.views:
                    frames, context = _augment(frames, context, *draws[step])
                # All processes must replay a CUDA graph or none, and their shares of the last batch may differ in size.
                run = captured if len(index) == settings.batch_size else eager
                losses[step] = run(frames=frames, weight=torch.full((), weight, device=device), **context)
            # Reading a loss makes a GPU wait, so on a GPU all are read at the end of the epoch.
            if device.type == "cpu" or step == steps - 1:
                _check_finite(losses[: step + 1], order, epoch, settings, checkpoint)
        state.history.append({"epoch": epoch + 1, "train_loss": float(losses.mean())})
        if validation is not None:
            rmse = _validation_rmse(forecast, validation, settings.batch_size)
            state.history[-1]["valid_rmse"] = rmse * scale
        if state.best_epoch == epoch + 1:
            weights = averaged.module.state_dict()
            state.best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        if rank() == 0:
            _save_checkpoint(checkpoint, averaged, network, optimizer, settings, identity, state)
        on_epoch(state)
    return state


def make_optimizer(network: nn.Module, settings: TrainingSettings, captured: bool) -> torch.optim.Optimizer:
    """Make the optimizer, AdamW.

    Parameters
    ----------
    network
        The network to train.
    settings
        The settings of the training.
    captured
        Whether its steps can be captured in a CUDA graph: learning rate and number of steps are then on the device.

    Returns
    -------
    torch.optim.Optimizer
        The optimizer.
    """
    groups = _parameter_groups(network, settings.weight_decay)
    if not captured:
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    rate = torch.tensor(settings.learning_rate, device=next(network.parameters()).device)
    return torch.optim.AdamW(groups, lr=rate, fused=True, capturable=True)


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedModel,
    settings: TrainingSettings,
    bfloat16: bool,
) -> Function:
    """Make a function that does one training step.

    Nothing in the step waits for the device, so that it can be captured in a CUDA graph.

    Parameters
    ----------
    network
        The network to train.
    optimizer
        Its optimizer.
    averaged
        The moving average of its weights, which the step updates.
    settings
        The settings of the training.
    bfloat16
        Whether matrix products are in bfloat16.

    Returns
    -------
    Function
        A function of `frames` (n, HISTORY + HORIZON, flow kind, row, col), `weight`, their share of the batch, and the
        network's other inputs, by name. It returns the loss, detached.
    """

    def _step(frames: torch.Tensor, weight: torch.Tensor, **context: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=bfloat16):
            loss = weight * _forecast_loss(network, frames, context, settings.loss)
        loss.backward()
        total = loss.detach()
        _sum_gradients(network, total)
        if settings.clip:
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        _update_average(averaged, network, settings.ema)
        return total

    return _step


def _forecast_loss(
    network: nn.Module, frames: torch.Tensor, context: dict[str, torch.Tensor], loss: str = "squared"
) -> torch.Tensor:
    """Return the loss of windows (n, HISTORY + HORIZON, flow kind, row, col).

    For VMRNN-B and VMRNN-D it is the mean squared error of all 7 outputs against x1 .. x7, with the gradient through
    the feedback (arXiv 2403.16536). For VMRNN-C, `counts` is the squared error of the forecast over the standard
    deviation of a count around the climatology, halfway from least squares to the likelihood of overdispersed counts;
    `squared` is the squared error of the forecast.
    """
    outputs = network(frames[:, :HISTORY], horizon=HORIZON, **context)
    if not context:
        return mse_loss(outputs, frames[:, 1:])
    error = outputs - frames[:, HISTORY:]
    if loss == "squared":
        return error.square().mean() / 12  # about as large as `counts` in San Francisco, so that clipping is alike
    return (error.square() / (context["climatology"][:, HISTORY:] + 1.0).sqrt()).mean() / 3


def _validation_rmse(forecast: Function, windows: _Windows, batch_size: int) -> float:
    """Return the RMSE of a network's forecasts over all cells, kinds and leads, in the unit of the frames."""
    device = windows.starts.device
    batches = torch.arange(len(windows.starts), device=device).split(batch_size)
    squared = torch.zeros(len(batches), device=device)
    for number in range(rank(), len(batches), _processes()):
        frames, context = windows.batch(batches[number])
        error = forecast(frames=frames[:, :HISTORY], **context).clamp_min(0) - frames[:, HISTORY:]
        squared[number] = error.square().mean(dim=(1, 2, 3, 4)).sum()
    total = squared.cpu().double().sum()  # MPS has no float64
    _sum_over_processes([total])
    return math.sqrt(float(total) / len(windows.starts))


def _augment(
    frames: torch.Tensor,
    context: dict[str, torch.Tensor],
    west_east: float,
    north_south: float,
    transpose: float,
    south: float,
    east: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Augment windows: mirror, transpose and shift the grid, so that the network cannot memorise locations.

    All five numbers are in [0, 1). From 0.5 on the first three mirror west-east, mirror north-south, and transpose a
    square grid. The last two shift it by a share of its height and width; cells that leave on one side enter on the
    other.
    """
    rows, cols = frames.shape[-2:]
    sides = [dim for dim, draw in ((-1, west_east), (-2, north_south)) if draw >= 0.5]

    def moved(grids: torch.Tensor) -> torch.Tensor:
        grids = grids.roll((int(south * rows), int(east * cols)), (-2, -1)).flip(sides)
        return grids.transpose(-1, -2) if transpose >= 0.5 and rows == cols else grids

    return moved(frames), {name: moved(v) if v.ndim == frames.ndim else v for name, v in context.items()}


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return matrices, with weight decay, and norms, biases and the scan's own parameters, without."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        spared = parameter.ndim < 2 or name.rpartition(".")[2] in ("A_log", "D", "dt_bias", "bias")
        (others if spared else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _update_average(averaged: AveragedModel, network: nn.Module, decay: float) -> None:
    """Update the moving average of the weights, with a smaller decay at the beginning, when the weights are poor.

    AveragedModel's own `update_parameters` reads its counter from the device and waits for it.
    """
    n = averaged.n_averaged
    keep = (n > 0) * ((1 + n) / (10 + n)).clamp(max=decay)
    means: list[torch.Tensor] = list(averaged.module.parameters())
    weights: list[torch.Tensor] = list(network.parameters())
    with torch.no_grad():
        torch._foreach_mul_(means, keep)
        torch._foreach_add_(means, torch._foreach_mul(weights, 1 - keep))
    n += 1


def _set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters, in place where it is on the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


@contextmanager
def _memory_errors(batch_size: int) -> Iterator[None]:
    """Turn the errors by which memory runs out into a JobError that advises smaller batches."""
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
    """Raise a JobError that names the first step whose loss is not finite."""
    wrong = (~losses.isfinite()).nonzero()
    if len(wrong):
        step = int(wrong[0])
        windows = order[step * settings.batch_size : (step + 1) * settings.batch_size].tolist()
        last = f"the last good state is {checkpoint}" if checkpoint.exists() else "there is no good state yet"
        raise JobError(
            f"the loss became {float(losses[step])} in epoch {epoch + 1}, step {step + 1}, whose training windows are "
            f"{windows}; {last}: lower --learning-rate, and look at these windows with trafficcast quality"
        )


def _paper_rate(settings: TrainingSettings, epoch: int) -> float:
    """Return the learning rate of the paper in an epoch (from 0): five linear epochs from 1e-5, then a cosine.

    The cosine begins with the first epoch, not after the warm-up, as in OpenSTL (arXiv 2306.11249), which uses timm's.
    """
    if epoch < 5:
        return 1e-5 + (settings.learning_rate - 1e-5) * epoch / 5
    share = (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
    return settings.final_rate + (settings.learning_rate - settings.final_rate) * share


def _learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Return the learning rate of a step: a linear warm-up, then a cosine down to the final rate."""
    if settings.published_schedule:
        return _paper_rate(settings, step * settings.epochs // steps)
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
    state: _Trained,
) -> None:
    """Write the whole state of a training, atomically."""
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"averaged/{name}": tensor for name, tensor in averaged.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": tensor for name, tensor in values.items()}
    # The format does not allow tensors that share memory.
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
) -> _Trained:
    """Read the state of a training into the networks and the optimizer.

    Raises InputError where the checkpoint is missing or damaged, or is of other data, settings or architecture.
    """
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
    return _Trained(json.loads(metadata["history"]), part("best/"))
