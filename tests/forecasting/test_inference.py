"""CUDA graphs: captured equals eager, shown on a CPU by a stand-in for a graph, and on a GPU where there is one.

The stand-in records the operations on tensors between begin and end, undoes them, and does them again on the same
memory when it is replayed: like a CUDA graph it knows nothing of the Python around them, and refuses to wait for a
number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import trafficcast.forecasting.inference
import trafficcast.training.loop
from trafficcast.forecasting import forecasters
from trafficcast.forecasting.forecasters import _VmrnnForecaster
from trafficcast.forecasting.inference import EAGER_CALLS, _CudaGraphs, forecast_function, with_cuda_graphs
from trafficcast.nn import VMRNN, VMRNNC, vmrnn_b, vmrnn_c
from trafficcast.nn.cross_scan import scan_by_index
from trafficcast.training.dataset import _windows_of
from trafficcast.training.loop import _train, _Trained, make_optimizer, training_step
from trafficcast.training.settings import TrainingSettings

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(batch_size=4, learning_rate=3e-3, weight_decay=0.1, ema=0.9, clip=1.0)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class Recording(TorchDispatchMode):
    """The stand-in for `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __enter__(self) -> Recording:
        self._made: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._random = torch.get_rng_state()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        with torch.no_grad():
            for tensor, value in self._before.values():
                tensor.copy_(value)
        torch.set_rng_state(self._random)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if op is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        given = dict(zip((argument.name for argument in op._schema.arguments), args, strict=False)) | kwargs
        for argument in op._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(given.get(argument.name)):
                    memory = tensor.untyped_storage().data_ptr()
                    if memory not in self._made and memory not in self._before:
                        self._before[memory] = tensor, tensor.clone()
        known = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        outputs = op(*args, **kwargs)
        self._made |= {tensor.untyped_storage().data_ptr() for tensor in _tensors(outputs)} - known
        self.calls.append((op, args, kwargs, outputs))
        return outputs

    def replay(self) -> None:
        with torch.inference_mode():
            for op, args, kwargs, outputs in self.calls:
                for made, again in zip(_tensors(outputs), _tensors(op(*args, **kwargs)), strict=True):
                    if made.data_ptr() != again.data_ptr():
                        made.copy_(again)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Stream:
    def __init__(self, device: object = None) -> None:
        pass

    def wait_stream(self, other: Stream) -> None:
        pass


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Graphs on the CPU, by stand-ins; returns what has been captured."""
    captured: list[Recording] = []

    @contextmanager
    def graph(recording: Recording, pool: object, stream: object, capture_error_mode: str) -> Iterator[None]:
        with recording:
            yield
        captured.append(recording)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recording)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    # What numba does is no operation on tensors.
    monkeypatch.setattr("trafficcast.nn.vmrnn.cross_scan", scan_by_index)
    for module in (trafficcast.forecasting.inference, trafficcast.training.loop):
        monkeypatch.setattr(module, "with_cuda_graphs", _CudaGraphs)
    return captured


def published() -> VMRNN:
    torch.manual_seed(0)
    return vmrnn_b(4, 4, depth=1, embed=16, d_state=2, drop_path=0.5)


def conditioned() -> VMRNNC:
    torch.manual_seed(0)
    network = vmrnn_c(4, 4, depth=1, embed=16, d_state=2, drop_path=0.5)
    nn.init.normal_(network.out[-1].weight, std=0.1)  # zero at first, and then the others get no gradient
    return network


NETWORKS = [published, conditioned]


def inputs_of(network: VMRNN | VMRNNC, n: int, slots: int) -> dict[str, Tensor]:
    if isinstance(network, VMRNN):
        return {"frames": torch.rand(n, slots, 2, network.rows, network.cols)}
    climatology = 5 + 10 * torch.rand(n, 8, 2, network.rows, network.cols)
    return {
        "frames": torch.poisson(climatology[:, :slots]),
        "climatology": climatology,
        "calendar": torch.rand(n, 8, 6),
    }


def make_steps(network: VMRNN | VMRNNC, graph: bool, device: torch.device = CPU, steps: int = 8) -> list[float]:
    """Training steps on windows and with learning rates that are others every time; the losses."""
    network.train().to(device)
    optimizer, averaged = make_optimizer(network, SETTINGS, captured=True), AveragedModel(network, device)
    step = training_step(network, optimizer, averaged, SETTINGS, bfloat16=False)
    step = _CudaGraphs(step, device) if graph else step
    torch.manual_seed(1)
    losses = []
    for number in range(steps):
        inputs = {name: tensor.to(device) for name, tensor in inputs_of(network, 4, 8).items()}
        for group in optimizer.param_groups:
            group["lr"].fill_(1e-2 / (1 + number))
        losses.append(step(weight=torch.full((), 1 / (1 + number), device=device), **inputs))
    return [float(loss) for loss in losses]


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
def test_captured_training_steps_are_the_eager_ones(
    make: Callable[[], VMRNN | VMRNNC], stand_in: list[Recording]
) -> None:
    eager, captured = make(), make()
    # Inputs, weight of the batch, learning rate, drop path and the number of steps are new in every replay.
    assert make_steps(captured, graph=True) == make_steps(eager, graph=False)
    assert len(stand_in) == 1
    for (name, value), expected in zip(captured.named_parameters(), eager.parameters(), strict=True):
        assert torch.equal(value, expected), name


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
def test_a_whole_training_with_graphs_is_one_without(
    make: Callable[[], VMRNN | VMRNNC],
    stand_in: list[Recording],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    flows = rng.integers(0, 50, (40, 2, 4, 4))
    context, unit = {}, 50.0
    if make is conditioned:
        context, unit = {"climatology": flows.astype(np.float32), "calendar": np.zeros((40, 6), np.float32)}, 1.0
    # Four full batches and one of two windows, and when validated two and one of two.
    windows = _windows_of(flows, unit, context, np.arange(18), np.arange(20, 30))
    settings = TrainingSettings(epochs=2, batch_size=4, learning_rate=3e-3, ema=0.9, clip=1.0, views=True)

    def run(name: str) -> _Trained:
        rest = (CPU, tmp_path / name, "data", False, lambda items, *_: items, lambda state: None)
        return _train(make(), *windows, unit, settings, *rest)

    monkeypatch.setattr(trafficcast.training.loop, "make_optimizer", lambda *of: make_optimizer(*of[:2], captured=True))
    captured = run("captured")
    assert len(stand_in) == 2  # a training step and a forecast of four
    for module in (trafficcast.forecasting.inference, trafficcast.training.loop):
        monkeypatch.setattr(module, "with_cuda_graphs", with_cuda_graphs)
    eager = run("eager")
    assert captured.history == eager.history and len(stand_in) == 2
    for name, value in eager.best.items():
        assert torch.equal(captured.best[name], value), name


@pytest.mark.parametrize("make", NETWORKS)
def test_the_optimizer_for_graphs_is_the_other_one(make: Callable[[], VMRNN | VMRNNC]) -> None:
    networks = [make().eval(), make().eval()]
    inputs = inputs_of(networks[0], 4, 8)
    for network, captured in zip(networks, (True, False), strict=True):
        optimizer = make_optimizer(network, SETTINGS, captured)
        for _ in range(3):
            training_step(network, optimizer, AveragedModel(network), SETTINGS, False)(weight=torch.ones(()), **inputs)
    fused, plain = (nn.utils.parameters_to_vector(network.parameters()) for network in networks)
    start = nn.utils.parameters_to_vector(make().parameters())
    assert (fused - plain).norm() < 1e-2 * (plain - start).norm()


def test_the_average_of_the_weights_forgets_its_beginning(stand_in: list[Recording]) -> None:
    network = published()
    averaged = AveragedModel(network)
    step = _CudaGraphs(training_step(network, make_optimizer(network, SETTINGS, True), averaged, SETTINGS, False), CPU)
    expected: list[Tensor] = []
    for n in range(EAGER_CALLS + 3):
        step(weight=torch.ones(()), **inputs_of(network, 4, 8))
        weights = nn.utils.parameters_to_vector(network.parameters()).detach()
        keep = min(SETTINGS.ema, (1 + n) / (10 + n)) if n else 0.0
        expected = [keep * expected[0] + (1 - keep) * weights] if n else [weights]
    assert int(averaged.n_averaged) == EAGER_CALLS + 3
    torch.testing.assert_close(nn.utils.parameters_to_vector(averaged.module.parameters()), expected[0])


@pytest.mark.parametrize("make", NETWORKS)
def test_captured_forecasts_are_the_eager_ones(
    make: Callable[[], VMRNN | VMRNNC], stand_in: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make()
    forecast = forecast_function(network, CPU)
    batches = [inputs_of(network, n, 4) for n in (3, 1, 3, 3, 3, 1, 3, 3)]
    forecasts = [forecast(**inputs) for inputs in batches]
    assert len(stand_in) == 1  # of three windows; batches of one came up too rarely
    with torch.no_grad():
        for inputs, got in zip(batches, forecasts, strict=True):  # none was overwritten by a later one
            assert torch.equal(got, network(**inputs)[:, -4:])
        for parameter in network.parameters():
            parameter += 0.01
        assert torch.equal(forecast(**batches[0]), network(**batches[0])[:, -4:])


def test_what_cannot_be_captured_is_called_as_it_is(
    stand_in: list[Recording], caplog: pytest.LogCaptureFixture
) -> None:
    halves = _CudaGraphs(lambda x: x / 2 if float(x) % 2 == 0 else x, CPU)  # `float` waits for the device
    with caplog.at_level(logging.WARNING, logger="trafficcast"):
        results = [float(halves(x=torch.tensor(float(i)))) for i in range(EAGER_CALLS + 3)]
    assert results == [0.0, 1.0, 1.0, 3.0, 2.0, 5.0]
    assert len(stand_in) == 0 and len(caplog.records) == 1
    assert "no CUDA graph could be captured" in caplog.text and "not permitted" in caplog.text


def test_memory_that_does_not_suffice_for_a_graph_is_an_error(stand_in: list[Recording]) -> None:
    calls = 0

    def greedy(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > EAGER_CALLS:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x

    graphs = _CudaGraphs(greedy, CPU)
    for _ in range(EAGER_CALLS):
        graphs(x=torch.ones(2))
    with pytest.raises(torch.OutOfMemoryError):
        graphs(x=torch.ones(2))


def test_elsewhere_nothing_is_captured() -> None:
    assert with_cuda_graphs(published, CPU) is published


def test_forecasts_come_in_batches_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasters, "_INFERENCE_BATCH", 3)
    network = published().train()
    history = np.random.default_rng(0).random((7, 4, 2, 4, 4)).astype(np.float32)
    got = _VmrnnForecaster(network, 2.0, CPU).forecast(history, np.empty(7, "datetime64[us]"))
    with torch.no_grad():
        expected = 2.0 * network.eval()(torch.from_numpy(history) / 2.0)[:, -4:]
    torch.testing.assert_close(torch.from_numpy(got), expected)


@pytest.mark.parametrize("make", [vmrnn_b, vmrnn_c])
def test_bfloat16_around_the_scan_is_within_a_hundredth(make: Callable[[], VMRNN | VMRNNC]) -> None:
    torch.manual_seed(0)
    network = make().eval()
    if isinstance(network, VMRNNC):
        nn.init.normal_(network.out[-1].weight, std=0.1)
    inputs = inputs_of(network, 1, 4)
    with torch.inference_mode():
        expected = network(**inputs)
        with torch.autocast("cpu", torch.bfloat16):
            got = network(**inputs)
    assert not torch.equal(got.float(), expected)
    assert (got - expected).norm() < 1e-2 * expected.norm()


@needs_cuda
@pytest.mark.parametrize("make", NETWORKS)
def test_on_a_gpu_captured_training_steps_are_the_eager_ones(make: Callable[[], VMRNN | VMRNNC]) -> None:
    cuda = torch.device("cuda")
    eager, captured = make(), make()
    losses = make_steps(captured, graph=True, device=cuda), make_steps(eager, graph=False, device=cuda)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    weights = (nn.utils.parameters_to_vector(network.parameters()) for network in (captured, eager))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


@needs_cuda
def test_on_a_gpu_every_replay_draws_new_numbers_that_the_seed_decides() -> None:
    cuda = torch.device("cuda")
    draw = _CudaGraphs(lambda x: torch.empty_like(x).bernoulli_(0.5), cuda)
    ones = torch.ones(1000, device=cuda)

    def drawn() -> list[list[float]]:
        torch.manual_seed(0)
        return [draw(x=ones).tolist() for _ in range(EAGER_CALLS + 3)]

    first = drawn()
    assert len({str(numbers) for numbers in first}) == EAGER_CALLS + 3
    assert drawn() == first  # replays alone, where the first were eager


@needs_cuda
@pytest.mark.parametrize("make", [vmrnn_b, vmrnn_c])
def test_on_a_gpu_forecasts_are_those_of_the_cpu(make: Callable[[], VMRNN | VMRNNC]) -> None:
    torch.manual_seed(0)
    network = make().eval()
    inputs = inputs_of(network, 2, 4)
    with torch.inference_mode():
        expected = network(**inputs)[:, -4:]
    forecast = forecast_function(network, torch.device("cuda"))
    for _ in range(EAGER_CALLS + 2):
        got = forecast(**{name: tensor.cuda() for name, tensor in inputs.items()}).cpu()
        assert (got - expected).norm() < 1e-2 * expected.norm()
