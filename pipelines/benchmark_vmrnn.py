"""The benchmark's vmrnn suite: scan, training step and forecast, each beside its naive counterpart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pipelines.progress import track
from trafficcast.nn import selective_scan, vmrnn_b
from trafficcast.training import forecast_loss
from trafficcast.windows import HISTORY, HORIZON

BATCH = 16
# The naive network keeps every state for its backward: at the full batch some 30 GB.
NAIVE_BATCH = 2
Row = dict[str, Any]


def vmrnn_rows() -> list[Row]:
    """One row a measurement: what, seconds here, seconds the naive way, and their ratio."""
    torch.manual_seed(0)
    jobs: list[Callable[[], list[Row]]] = [_scan_rows, _network_rows]
    return [row for job in track(jobs, "benchmark", len(jobs)) for row in job()]


def _row(what: str, ours: float, naive: float | None) -> Row:
    return {"what": what, "ours": ours, "naive": naive, "naive / ours": naive / ours if naive else None}


def _scan_rows() -> list[Row]:
    def inputs(*shape: int) -> Tensor:
        return torch.randn(*shape, requires_grad=True)

    u, delta, a = inputs(4, BATCH, 64, 256), softplus(inputs(4, BATCH, 64, 256)).detach(), -torch.rand(4, 256, 16)
    arguments = (
        u,
        delta.requires_grad_(),
        a.requires_grad_(),
        inputs(4, BATCH, 64, 16),
        inputs(4, BATCH, 64, 16),
        inputs(4, 256),
    )

    def forward(scan: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            scan(*arguments)

    def both(scan: Callable[..., Tensor]) -> None:
        torch.autograd.grad(scan(*arguments).sum(), arguments)

    size = f"B = {BATCH}, 4 directions, width 256, L = 64, N = 16"
    return [
        _row(f"scan forward, {size}", _best(lambda: forward(selective_scan)), _best(lambda: forward(naive_scan))),
        _row(f"scan with backward, {size}", _best(lambda: both(selective_scan)), _best(lambda: both(naive_scan), 1)),
    ]


def _network_rows() -> list[Row]:
    network = vmrnn_b()
    optimizer = torch.optim.AdamW(network.parameters())
    frames = torch.rand(BATCH, HISTORY + HORIZON, 2, 32, 32)

    def step(batch: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        forecast_loss(network, frames[:batch], {}).backward()
        optimizer.step()

    def forecast() -> None:
        with torch.inference_mode():
            network(frames[:1, :HISTORY])

    def naively(job: Callable[[], None]) -> float:
        with patch("trafficcast.nn.vmrnn.selective_scan", naive_scan):
            return _best(job, 1)

    rows = [
        _row(
            f"VMRNN-B training step, batch {NAIVE_BATCH}",
            _best(lambda: step(NAIVE_BATCH)),
            naively(lambda: step(NAIVE_BATCH)),
        ),
        _row(f"VMRNN-B training step, batch {BATCH} (naive: not run, some 30 GB)", _best(lambda: step(BATCH), 2), None),
    ]
    network.eval()
    return [*rows, _row("VMRNN-B four-step forecast, batch 1", _best(forecast), naively(forecast))]


def naive_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence as it is written, left to autograd; arguments as in `selective_scan`."""
    state = torch.zeros(*u.shape[:2], *A.shape[1:])  # (K, B, D, N)
    outputs = []
    for t in range(u.shape[2]):
        decay = torch.exp(delta[:, :, t, :, None] * A[:, None])
        state = decay * state + (delta * u)[:, :, t, :, None] * B[:, :, t, None, :]
        outputs.append((state * C[:, :, t, None, :]).sum(-1))
    return torch.stack(outputs, dim=2) + D[:, None, None] * u


def _timed(job: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = job()
    return time.perf_counter() - began, result


def _best(job: Callable[[], Any], repeats: int = 3) -> float:
    """The shortest of some runs in seconds, after one that does not count."""
    job()
    return min(_timed(job)[0] for _ in range(repeats))
