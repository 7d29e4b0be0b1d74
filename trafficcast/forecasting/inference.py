"""How networks run on CUDA: in bfloat16 around the scan, and as CUDA graphs. Elsewhere they are just called.

A forecast of VMRNN-B is some five thousand operations, a training step more, and most take longer to start one by one
than to run. A CUDA graph is such a sequence captured once and started as a whole. A replay does what was captured, at
the addresses of then: so the inputs are copied to where they were, what stays (weights, moments) is changed in place,
and nothing in the sequence may wait for the device or depend on a value that only the host knows.
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
# Calls of one shape before its graph is captured: kernels are compiled and the optimizer's moments made in the first,
# and who asks for a forecast or two need not wait for a capture.
EAGER_CALLS = 3

Function = Callable[..., Tensor]


def graphed(function: Function, device: torch.device) -> Function:
    """`function` of named tensors as CUDA graphs (see `Graphs`), on another device as it is."""
    return _Graphs(function, device) if device.type == "cuda" else function


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether matrix products shall be in bfloat16 there: on CUDA from compute capability 8.0 on."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def forecasting(network: nn.Module, device: torch.device) -> Function:
    """A function of `frames` (n, HISTORY, flow kind, row, col) and context, by name, on the device.

    It returns the network's forecasts, (n, HORIZON, flow kind, row, col) float32. Later changes of the weights count.
    """
    network.to(device)
    bfloat16 = fast_in_bfloat16(device)

    def forecast(frames: Tensor, **context: Tensor) -> Tensor:
        network.eval()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            outputs: Tensor = network(frames, horizon=HORIZON, **context)
            return outputs[:, -HORIZON:].float()

    return graphed(forecast, device)


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    output: Tensor


@dataclass
class _Graphs:
    """A function of named tensors, captured as a CUDA graph for every shape of theirs that comes up again and again.

    Random numbers are new in every replay, for the device's own generator is registered with every graph. Where a
    function cannot be captured it is called as it is, which is slower and gives the same.
    """

    function: Function
    device: torch.device
    _captured: dict[tuple[object, ...], _Captured] = field(default_factory=dict)
    _calls: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _possible: bool = True

    def __post_init__(self) -> None:
        # Capturing needs a stream of its own, on which the eager calls before it have run.
        self._stream = torch.cuda.Stream(self.device)
        self._pool = torch.cuda.graph_pool_handle()  # graphs that never run at once share their memory

    def __call__(self, **inputs: Tensor) -> Tensor:
        """The function's result, a tensor of the caller's own."""
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
        here = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            output = self.function(**inputs)
        here.wait_stream(self._stream)
        return output

    def _capture(self, shapes: tuple[object, ...], inputs: dict[str, Tensor]) -> None:
        """Record what the function does; nothing of it is done yet."""
        static = {name: torch.empty_like(tensor) for name, tensor in inputs.items()}
        graph = torch.cuda.CUDAGraph()
        try:
            # `thread_local`: other threads, such as the one that watches over NCCL, go on as they are.
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
    """`auto` is CUDA, else MPS, else the CPU. Raises InputError for a device this machine does not have."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available.get(name.split(":")[0], False):
        there = ", ".join(kind for kind, there in available.items() if there)
        raise InputError(f"this machine has no device '{name}'; it has: {there}")
    return torch.device(name)
