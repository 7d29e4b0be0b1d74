"""Run networks fast on CUDA: in bfloat16 except for the scan, and as CUDA graphs. Other devices call them plainly.

A forecast of VMRNN-B is some five thousand operations, a training step more, and most take longer to start one by one
than to run. A CUDA graph is such a sequence, captured once and started as a whole. A replay repeats the captured
operations at the same addresses: so inputs are copied to the addresses of the capture, weights and moments are changed
in place, and nothing in the sequence may wait for the device or depend on a value that only the host knows.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trafficcast.config.city import HORIZON
from trafficcast.errors import InputError

_log = logging.getLogger("trafficcast")
# Calls of one shape before its graph is captured: the first call compiles kernels and makes the optimizer's moments,
# and a command that makes a forecast or two need not wait for a capture.
EAGER_CALLS = 3

Function = Callable[..., Tensor]


def with_cuda_graphs(function: Function, device: torch.device) -> Function:
    """Run a function as CUDA graphs where the device is a CUDA GPU.

    Parameters
    ----------
    function
        A function of named tensors.
    device
        The device of the tensors.

    Returns
    -------
    Function
        The function with CUDA graphs; on another device the function itself.
    """
    return _CudaGraphs(function, device) if device.type == "cuda" else function


def uses_bfloat16(device: torch.device) -> bool:
    """Tell whether matrix products are computed in bfloat16 on a device.

    Parameters
    ----------
    device
        The device.

    Returns
    -------
    bool
        Whether it is a CUDA GPU of compute capability 8.0 or higher.
    """
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def forecast_function(network: nn.Module, device: torch.device) -> Function:
    """Make a function that forecasts with a network, and move the network to the device.

    Later changes of the network's weights change the function's forecasts.

    Parameters
    ----------
    network
        The network.
    device
        The device on which it runs.

    Returns
    -------
    Function
        A function of `frames` (n, HISTORY, flow kind, row, col) and the network's other inputs, by name, on the
        device. It returns forecasts (n, HORIZON, flow kind, row, col) float32.
    """
    network.to(device)
    bfloat16 = uses_bfloat16(device)

    def _forecast(frames: Tensor, **context: Tensor) -> Tensor:
        network.eval()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            outputs: Tensor = network(frames, horizon=HORIZON, **context)
            return outputs[:, -HORIZON:].float()

    return with_cuda_graphs(_forecast, device)


@dataclass(frozen=True)
class _Captured:
    """A CUDA graph with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    output: Tensor


@dataclass
class _CudaGraphs:
    """A function of named tensors, captured as a CUDA graph for every combination of shapes that repeats.

    Random numbers are new in every replay, because the device's own generator is registered with every graph. A
    function that cannot be captured is called plainly, which is slower and has the same result.
    """

    function: Function
    device: torch.device
    _captured: dict[tuple[object, ...], _Captured] = field(default_factory=dict)
    _calls: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _possible: bool = True

    def __post_init__(self) -> None:
        # A capture needs a stream of its own, on which the eager calls before it have run.
        self._stream = torch.cuda.Stream(self.device)
        self._pool = torch.cuda.graph_pool_handle()  # CUDA graphs that never run at once share their memory

    def __call__(self, **inputs: Tensor) -> Tensor:
        """Return the function's result, a tensor that no later call overwrites."""
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items())
        if self._possible and shapes not in self._captured and self._calls[shapes] >= EAGER_CALLS:
            self._capture(shapes, inputs)
        captured = self._captured.get(shapes)
        if captured is None:
            self._calls[shapes] += 1
            return self._eagerly(inputs)
        for name, tensor in inputs.items():
            captured.inputs[name].copy_(tensor)
        captured.graph.replay()
        return captured.output.clone()

    def _eagerly(self, inputs: dict[str, Tensor]) -> Tensor:
        """Call the function without a CUDA graph, on the stream of the captures."""
        here = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            output = self.function(**inputs)
        here.wait_stream(self._stream)
        return output

    def _capture(self, shapes: tuple[object, ...], inputs: dict[str, Tensor]) -> None:
        """Capture the function's operations without running them."""
        static = {name: torch.empty_like(tensor) for name, tensor in inputs.items()}
        graph = torch.cuda.CUDAGraph()
        try:
            # `thread_local` does not disturb other threads, such as NCCL's watchdog.
            # The outer context is for a capture that fails, after which the inner one does not restore the stream.
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
            ):
                output = self.function(**static)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._possible = False
            _log.warning("no CUDA graph could be captured, which makes every step slower: %s", error)
        else:
            self._captured[shapes] = _Captured(graph, static, output)


def pick_device(name: str) -> torch.device:
    """Choose a device by name.

    Parameters
    ----------
    name
        A device such as `cuda`, `cuda:1`, `mps` or `cpu`; `auto` is the first of these kinds that the machine has.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    InputError
        This machine does not have the device.
    """
    available = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name == "auto":
        return torch.device(available[0])
    if name.split(":")[0] not in available:
        raise InputError(f"this machine has no device '{name}'; it has: {', '.join(available)}")
    return torch.device(name)
