"""The gpu suite: scans, training steps and forecasts on a CUDA GPU, timed by the GPU's clock."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pipelines.benchmarks.vmrnn import _NETWORKS, _Job, _network_inputs, _Row, _scan_inputs
from trafficcast.config.city import HISTORY, HORIZON
from trafficcast.errors import JobError
from trafficcast.forecasting.inference import EAGER_CALLS, forecast_function, with_cuda_graphs
from trafficcast.nn.cross_scan import CrossScan, scan_by_index
from trafficcast.nn.selective_scan import mamba_kernel
from trafficcast.progress import track
from trafficcast.training.loop import make_optimizer, training_step
from trafficcast.training.settings import TrainingSettings

_SCAN_BATCHES = (16, 256)
_STEP_BATCH = 16
_FORECAST_BATCHES = (1, 16, 256, 1024, 4096)
_REPEATS = 20


def _gpu_rows() -> list[_Row]:
    """Measure all; a row holds what, by whom, milliseconds, windows a second, peak MB of the GPU's memory and the GPU.

    Raises JobError without a CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise JobError("this machine has no CUDA GPU: the suite 'gpu' measures one, 'vmrnn' measures the CPU")
    return _measured("cuda", torch.cuda.get_device_name())


def _measured(device: str, name: str) -> list[_Row]:
    """Return the rows of `_gpu_rows`, measured on a device of this name."""
    plan: list[tuple[str, str, int, Callable[..., _Job], tuple[Any, ...]]] = []
    for batch, backward in itertools.product(_SCAN_BATCHES, (False, True)):
        what = f"scan {'with backward' if backward else 'forward'}, batch {batch}"
        plan += [(what, by, batch, _scan_job, (by, backward, batch, device)) for by in _scans()]
    for network, graph, bfloat16 in itertools.product(_NETWORKS, (False, True), (False, True)):
        by = f"{'CUDA graph' if graph else 'eager'}, {'bfloat16' if bfloat16 else 'float32'}"
        what = f"{network} training step, batch {_STEP_BATCH}"
        plan.append((what, by, _STEP_BATCH, _step_job, (network, graph, bfloat16, device)))
    for network, batch in itertools.product(_NETWORKS, _FORECAST_BATCHES):
        what = f"{network} four-step forecasts, batch {batch}"
        plan.append((what, "CUDA graph, bfloat16", batch, _forecast_job, (network, batch, device)))
    rows = []
    for what, by, windows, make, arguments in track(plan, "benchmark", len(plan)):
        torch.manual_seed(0)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        milliseconds = _milliseconds(make(*arguments))
        rows.append(
            {
                "what": what,
                "by": by,
                "milliseconds": milliseconds,
                "windows a second": 1000 * windows / milliseconds,
                "peak MB": torch.cuda.max_memory_allocated() / 2**20,
                "device": name,
            }
        )
    return rows


def _scans() -> dict[str, CrossScan]:
    """Return the implementations of the cross scan that this machine has, by name."""
    scans: dict[str, CrossScan] = {"PyTorch": _scan_without_mamba}
    if mamba_kernel() is not None:
        scans["mamba-ssm"] = scan_by_index
    try:
        from trafficcast.nn import triton_scan
    except ImportError:
        return scans
    return scans | ({"Triton": triton_scan.cross_scan} if triton_scan.available() else {})


def _scan_without_mamba(*inputs: Tensor) -> Tensor:
    """Scan with PyTorch's operations alone."""
    # By name: the package has a function of the module's name.
    module = importlib.import_module("trafficcast.nn.selective_scan")
    with patch.object(module, "mamba_kernel", lambda: None):
        return scan_by_index(*inputs)


def _scan_job(by: str, backward: bool, batch: int, device: str) -> _Job:
    """Return a job that runs the cross scan on inputs as in VMRNN-B, without a CUDA graph."""
    scan, inputs = _scans()[by], _scan_inputs(batch, 8, 256, 16, device)
    if backward:
        return lambda: torch.autograd.grad(scan(*inputs).sum(), inputs)
    detached = [tensor.detach() for tensor in inputs]
    return lambda: scan(*detached)


def _step_job(name: str, graph: bool, bfloat16: bool, device: str) -> _Job:
    """Return a job that does a training step; `trafficcast train` uses a CUDA graph and bfloat16."""
    settings, network = TrainingSettings(), _NETWORKS[name]().to(device)
    optimizer, averaged = make_optimizer(network, settings, True), AveragedModel(network, torch.device(device))
    step = training_step(network, optimizer, averaged, settings, bfloat16)
    if graph:
        step = with_cuda_graphs(step, torch.device(device))
    inputs = _network_inputs(name, _STEP_BATCH, HISTORY + HORIZON, device)
    return lambda: step(weight=torch.ones((), device=device), **inputs)


def _forecast_job(name: str, batch: int, device: str) -> _Job:
    """Return a job that forecasts four slots, from inputs on the device."""
    forecast = forecast_function(_NETWORKS[name](), torch.device(device))
    inputs = _network_inputs(name, batch, HISTORY, device)
    return lambda: forecast(**inputs)


def _milliseconds(job: _Job) -> float:
    """Return the mean time of some runs, by the GPU's clock, after runs that compile and capture."""
    for _ in range(EAGER_CALLS + 2):
        job()
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began.record()
    for _ in range(_REPEATS):
        job()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / _REPEATS
