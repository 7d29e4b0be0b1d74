"""The fast scans are the plain one: the same sums and the same gradients, whatever the sizes and the threads."""

from __future__ import annotations

import importlib
import threading

import pytest
import torch
from torch import Tensor

from trafficcast.nn.cross_scan import cross_scan, scan_backend, scan_by_index

# The package also exports functions, so the modules are fetched by their paths.
module = importlib.import_module("trafficcast.nn.cross_scan")
cpu_scan = importlib.import_module("trafficcast.nn.cpu_scan")

NAMES = ("x", "dt", "b", "c", "dt_bias", "A", "D")
SIZES = [(2, 3, 5, 70, 5), (1, 9, 9, 128, 16), (3, 1, 7, 8, 1), (2, 4, 1, 130, 4), (1, 8, 8, 256, 16)]


def make_inputs(batch: int, rows: int, cols: int, inner: int, states: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    tokens = rows * cols
    return [
        normal(batch, rows, cols, inner),
        normal(4, batch, tokens, inner) * 3,
        normal(4, batch, tokens, states),
        normal(4, batch, tokens, states),
        normal(4, inner) - 2,
        -torch.rand(4, inner, states, generator=g) * 16,
        normal(4, inner),
    ]


def loop(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """The recurrence as it is written, token by token through the image."""
    batch, rows, cols, inner = x.shape
    by_row = [(r, col) for r in range(rows) for col in range(cols)]
    by_column = [(r, col) for col in range(cols) for r in range(rows)]
    y = torch.zeros_like(x)
    for k, order in enumerate((by_row, by_column, by_row[::-1], by_column[::-1])):
        state = torch.zeros(batch, inner, A.shape[2], dtype=x.dtype)
        for r, col in order:
            at = r * cols + col
            delta = torch.nn.functional.softplus(dt[k, :, at] + dt_bias[k])[..., None]
            state = torch.exp(delta * A[k]) * state + delta * b[k, :, at, None] * x[:, r, col, :, None]
            seen = torch.zeros_like(y)
            seen[:, r, col] = (state * c[k, :, at, None]).sum(-1) + D[k] * x[:, r, col]
            y = y + seen
    return y


def gradients(scan: object, inputs: list[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    y = scan(*inputs)  # type: ignore[operator]
    return y, *torch.autograd.grad(y, inputs, dy.to(y.dtype))


def check(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], within: float) -> None:
    for name, a, b in zip(("y", *NAMES), found, wanted, strict=True):
        assert a.shape == b.shape
        largest = b.abs().max()
        assert (a - b).abs().max() <= within * largest, f"{name}: {(a - b).abs().max() / largest:.1e}"


def test_the_plain_way_is_the_recurrence() -> None:
    inputs = [tensor.double() for tensor in make_inputs(2, 3, 4, 3, 2)]
    dy = torch.randn(2, 3, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    check(gradients(scan_by_index, inputs, dy), gradients(loop, inputs, dy), 1e-12)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_compiled_scan_agrees_to_1e_6(sizes: tuple[int, ...]) -> None:
    inputs = make_inputs(*sizes)
    dy = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    found = gradients(cpu_scan._cross_scan, inputs, dy)
    assert all(tensor.dtype == torch.float32 for tensor in found)
    check(found, gradients(scan_by_index, [tensor.double() for tensor in inputs], dy), 1e-6)


def test_tokens_beyond_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, cols = 2 * cpu_scan._CHUNK // 8 + 1, 8
    inputs = make_inputs(1, rows, cols, 8, 4)
    dy = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    wanted = gradients(scan_by_index, [tensor.double() for tensor in inputs], dy)
    check(gradients(cpu_scan._cross_scan, inputs, dy), wanted, 1e-6)


def test_extreme_step_sizes_stay_finite() -> None:
    inputs = make_inputs(1, 4, 4, 8, 4)
    inputs[1][:] = torch.tensor([-200.0, -20.0, 0.0, 20.0, 60.0, 87.0, -87.0, 500.0])
    dy = torch.ones_like(inputs[0])
    found = gradients(cpu_scan._cross_scan, inputs, dy)
    assert all(torch.isfinite(tensor).all() for tensor in found)
    check(found, gradients(scan_by_index, [tensor.double() for tensor in inputs], dy), 1e-6)


def test_what_is_not_finite_shows() -> None:
    for place in (0, 1, 2):
        inputs = make_inputs(1, 4, 4, 8, 4)
        inputs[place].view(-1)[5] = torch.nan
        assert cpu_scan._cross_scan(*inputs).isnan().any(), NAMES[place]


def test_the_number_of_threads_changes_no_bit() -> None:
    inputs = make_inputs(3, 8, 8, 256, 16)
    dy = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(gradients(cpu_scan._cross_scan, inputs, dy))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_many_threads_may_scan_at_once() -> None:
    inputs = make_inputs(2, 8, 8, 128, 16)
    wanted = cpu_scan._cross_scan(*inputs)
    equal: list[bool] = []
    threads = [
        threading.Thread(target=lambda: equal.append(torch.equal(cpu_scan._cross_scan(*inputs), wanted)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == [True] * 8


def test_nothing_but_the_inputs_is_kept_for_the_backward() -> None:
    inputs = [tensor.requires_grad_() for tensor in make_inputs(2, 8, 8, 128, 16)]
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        cross_scan(*inputs)
    assert sum(kept) == sum(tensor.numel() for tensor in inputs)


def test_inputs_may_be_strided_and_gradients_partial() -> None:
    inputs = make_inputs(2, 8, 4, 64, 4)
    strided = [tensor.transpose(-1, -2).contiguous().transpose(-1, -2) for tensor in inputs]
    strided[2].requires_grad_()
    y = cross_scan(*strided)
    assert torch.equal(y, cross_scan(*inputs))
    y.sum().backward()
    assert strided[2].grad is not None and strided[0].grad is None


def test_autocast_leaves_the_scan_in_float32() -> None:
    inputs = make_inputs(1, 4, 4, 8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cross_scan(*inputs), cross_scan(*inputs).float())
    assert cross_scan(*[tensor.bfloat16() for tensor in inputs]).dtype == torch.float32
    assert cross_scan(*[tensor.double() for tensor in inputs]).dtype == torch.float64


def test_scan_backend_names_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scan_backend("cpu") == "numba"
    assert scan_backend("cpu", torch.float64) == "pytorch"
    with_triton = {**module._backends(), "triton": loop}
    monkeypatch.setattr(module, "_backends", lambda: {"pytorch": scan_by_index})
    monkeypatch.setattr(module, "mamba_kernel", lambda: loop)
    assert scan_backend("cuda") == "mamba-ssm"
    monkeypatch.setattr(module, "mamba_kernel", lambda: None)
    assert scan_backend("cuda:0") == "pytorch"
    monkeypatch.setattr(module, "_backends", lambda: with_triton)
    assert scan_backend("cuda:0") == "triton" and scan_backend("cuda", torch.float64) == "pytorch"


def test_without_numba_the_plain_way_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(1, 4, 4, 8, 4)
    expected = cross_scan(*inputs)
    monkeypatch.setattr(module, "_backends", lambda: {"pytorch": scan_by_index})
    assert scan_backend("cpu") == "pytorch"
    torch.testing.assert_close(cross_scan(*inputs), expected)
