"""The vmrnn suite: scan, training step and forecast beside naive implementations, and time by number of tokens.

Every measurement runs in its own process, so that its peak memory is its own.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim.swa_utils import AveragedModel

from trafficcast.config.city import HISTORY, HORIZON
from trafficcast.files import atomic
from trafficcast.forecasting.inference import forecast_function
from trafficcast.nn import VMRNN, VMRNNC, vmrnn_b, vmrnn_c
from trafficcast.nn.cross_scan import cross_scan, scan_by_index
from trafficcast.nn.vmrnn import SS2D
from trafficcast.progress import track
from trafficcast.training.loop import make_optimizer, training_step
from trafficcast.training.settings import TrainingSettings

_BATCH = 16
# The naive network keeps every state for its backward: at the full batch some 30 GB.
_NAIVE_BATCH = 2
_SIDES = (8, 16, 32, 64)  # of the square grids of tokens
_NETWORKS: dict[str, Callable[[], VMRNN | VMRNNC]] = {"VMRNN-B": vmrnn_b, "VMRNN-C": vmrnn_c}
_OURS, _PLAIN, _NAIVE = "trafficcast", "plain PyTorch", "naive loop"
_Row = dict[str, Any]
_Job = Callable[[], object]


def _vmrnn_rows(picture: Path | None = None) -> list[_Row]:
    """Measure all; a row holds what, by whom, the shortest time of some runs and the process's peak memory.

    The times of other implementations are also given as multiples of ours. `picture` is a PNG file of time by number of
    tokens.
    """
    plan: list[tuple[str, str, Callable[..., _Job], tuple[Any, ...]]] = []
    size = f"batch {_BATCH}, 8 x 8 tokens, width 256, 16 states"
    for what, backward in ((f"scan forward, {size}", False), ("the same with backward", True)):
        plan += [(what, by, _scan_job, (by, backward)) for by in (_OURS, _PLAIN, _NAIVE)]
    for name in _NETWORKS:
        plan.append((f"{name} training step, batch {_BATCH}", _OURS, _step_job, (name, _BATCH, _OURS)))
        if name == "VMRNN-B":
            what = f"{name} training step, batch {_NAIVE_BATCH}"
            plan += [(what, by, _step_job, (name, _NAIVE_BATCH, by)) for by in (_OURS, _NAIVE)]
        what = f"{name} four-step forecast, batch 1"
        implementations = (_OURS, _NAIVE) if name == "VMRNN-B" else (_OURS,)
        plan += [(what, by, _forecast_job, (name, by)) for by in implementations]
    tokens = {f"SS2D forward and backward, batch 1, {side} x {side} tokens": side**2 for side in _SIDES}
    plan += [(what, _OURS, _tokens_job, (side,)) for what, side in zip(tokens, _SIDES, strict=True)]

    rows: list[_Row] = []
    for what, by, make, arguments in track(plan, "benchmark", len(plan)):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            milliseconds, megabytes = process.submit(_measure, make, arguments).result()
        ours = next((row["milliseconds"] for row in rows if row["what"] == what), milliseconds)
        rows.append(
            {
                "what": what,
                "by": by,
                "milliseconds": milliseconds,
                "peak MB": megabytes,
                "times ours": milliseconds / ours,
                "microseconds a token": 1000 * milliseconds / tokens[what] if what in tokens else None,
            }
        )
    if picture is not None:
        growth = {tokens[row["what"]]: row["milliseconds"] for row in rows if row["what"] in tokens}
        with atomic(picture) as temporary:
            _draw_growth(growth).savefig(temporary, format="png", dpi=120)
    return rows


def _scan_job(by: str, backward: bool) -> _Job:
    """Return a job that runs one implementation of the cross scan on inputs as in SS2D."""
    scan = {_OURS: cross_scan, _PLAIN: scan_by_index, _NAIVE: _naive_cross_scan}[by]
    inputs = _scan_inputs(_BATCH, 8, 256, 16)
    if backward:
        return lambda: torch.autograd.grad(scan(*inputs).sum(), inputs)
    inputs = [tensor.detach() for tensor in inputs]
    return lambda: scan(*inputs)


def _scan_inputs(batch: int, side: int, width: int, states: int, device: str = "cpu") -> list[Tensor]:
    """Return inputs of `cross_scan` that require gradients, for a square of tokens."""
    L = side**2
    drawn = [
        torch.randn(batch, side, side, width),
        torch.randn(4, batch, L, width),
        torch.randn(4, batch, L, states),
        torch.randn(4, batch, L, states),
        torch.randn(4, width) - 4,  # steps of some hundredths, as at the start of training
        -torch.arange(1.0, states + 1).repeat(4, width, 1),
        torch.ones(4, width),
    ]
    return [tensor.to(device).requires_grad_() for tensor in drawn]


def _step_job(name: str, batch: int, by: str) -> _Job:
    """Return a job that does a training step as in `trafficcast train`."""
    network = _NETWORKS[name]()
    settings = TrainingSettings()
    step = training_step(network, make_optimizer(network, settings, False), AveragedModel(network), settings, False)
    inputs = _network_inputs(name, batch, HISTORY + HORIZON)
    return _with_scan(by, lambda: step(weight=torch.ones(()), **inputs))


def _forecast_job(name: str, by: str) -> _Job:
    """Return a job that forecasts four slots."""
    forecast, inputs = forecast_function(_NETWORKS[name](), torch.device("cpu")), _network_inputs(name, 1, HISTORY)
    return _with_scan(by, lambda: forecast(**inputs))


def _network_inputs(name: str, batch: int, slots: int, device: str = "cpu") -> dict[str, Tensor]:
    """Return random frames of `slots` slots, and for VMRNN-C climatology and calendar."""
    inputs = {"frames": torch.rand(batch, slots, 2, 32, 32)}
    if name == "VMRNN-C":
        inputs["climatology"] = torch.rand(batch, HISTORY + HORIZON, 2, 32, 32)
        inputs["calendar"] = torch.rand(batch, HISTORY + HORIZON, 6)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def _tokens_job(side: int) -> _Job:
    """Return a job that runs SS2D over a square of tokens, as wide as in VMRNN-B."""
    block: nn.Module = SS2D(embed=128, d_state=16, d_conv=3, expand=2)
    x = torch.randn(1, side, side, 128, requires_grad=True)

    def run() -> None:
        block(x).sum().backward()

    return run


def _naive_cross_scan(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """Scan by the recurrence as it is written, a step a token, with autograd; arguments as in `cross_scan`."""
    tokens = torch.arange(x.shape[1] * x.shape[2]).view(x.shape[1:3])
    both = torch.stack((tokens.flatten(), tokens.T.flatten()))
    orders = torch.cat((both, both.flip(1)))  # (K, L): by row, by column, and both backwards
    k = torch.arange(4)[:, None]
    u = x.flatten(1, 2)[:, orders].transpose(0, 1)  # (K, B, L, I)
    dt, b, c = (tensor.transpose(1, 2)[k, orders].transpose(1, 2) for tensor in (dt, b, c))  # (K, B, L, I or N)
    delta = softplus(dt + dt_bias[:, None, None])
    state = torch.zeros(*u.shape[:2], *A.shape[1:])  # (K, B, I, N)
    outputs = []
    for t in range(u.shape[2]):
        decay = torch.exp(delta[:, :, t, :, None] * A[:, None])
        state = decay * state + (delta * u)[:, :, t, :, None] * b[:, :, t, None, :]
        outputs.append((state * c[:, :, t, None, :]).sum(-1))
    y = torch.stack(outputs, dim=1) + (D[:, None, None] * u).transpose(1, 2)  # (K, L, B, I)
    return y[k, orders.argsort(dim=1)].sum(0).transpose(0, 1).reshape(x.shape)


def _draw_growth(milliseconds: dict[int, float]) -> Figure:
    """Draw milliseconds by number of tokens, beside a proportional line through the last measurement."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    tokens, most = list(milliseconds), max(milliseconds)
    axes.loglog(tokens, list(milliseconds.values()), "o-", color="#0072B2", label="measured")
    line = [milliseconds[most] * n / most for n in tokens]
    axes.loglog(tokens, line, "--", color="#B8BFC9", label="proportional to the tokens")
    axes.set_xticks(tokens, [f"{n:,}\n{round(n**0.5)} x {round(n**0.5)}" for n in tokens])
    axes.minorticks_off()
    axes.set_xlabel("tokens")
    axes.set_ylabel("milliseconds")
    axes.set_title("SS2D, forward and backward, batch 1")
    axes.legend()
    return figure


def _with_scan(by: str, job: _Job) -> _Job:
    """Return the job itself, or a job that does the same with the naive scan."""
    if by == _OURS:
        return job

    def with_naive_scan() -> object:
        with patch("trafficcast.nn.vmrnn.cross_scan", _naive_cross_scan):
            return job()

    return with_naive_scan


def _measure(make: Callable[..., _Job], arguments: tuple[Any, ...]) -> tuple[float, float]:
    """Return the shortest time of some runs, milliseconds, after one to warm up, and this process's peak MB."""
    torch.manual_seed(0)
    job = make(*arguments)
    times: list[float] = []
    ended = time.perf_counter() + 2
    job()
    while len(times) < 2 or (time.perf_counter() < ended and len(times) < 100):
        began = time.perf_counter()
        job()
        times.append(time.perf_counter() - began)
    return 1000 * min(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
