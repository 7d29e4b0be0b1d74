import importlib

import pytest
import torch
from torch import Tensor

from trafficcast.nn import selective_scan

# The package exports the function under the module's name, so the module is fetched by its path.
scan_module = importlib.import_module("trafficcast.nn.selective_scan")

NAMES = ("u", "delta", "A", "B", "C", "D")


def make_inputs(
    K: int = 2, batch: int = 2, L: int = 13, channels: int = 3, N: int = 4, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    g = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=dtype)

    return [
        normal(K, batch, L, channels),
        torch.nn.functional.softplus(normal(K, batch, L, channels)),
        -normal(K, channels, N).exp(),
        normal(K, batch, L, N),
        normal(K, batch, L, N),
        normal(K, channels),
    ]


def reference(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence, token by token and one direction at a time, left to autograd."""
    directions = []
    for k in range(u.shape[0]):
        state = torch.zeros(u.shape[1], *A[k].shape, dtype=u.dtype)  # (B, D, N)
        ys = []
        for t in range(u.shape[2]):
            step = delta[k, :, t, :, None]  # (B, D, 1)
            state = torch.exp(step * A[k]) * state + step * B[k, :, t, None] * u[k, :, t, :, None]
            ys.append((state * C[k, :, t, None]).sum(-1) + D[k] * u[k, :, t])
        directions.append(torch.stack(ys, dim=1))  # (B, L, D)
    return torch.stack(directions)


@pytest.mark.parametrize("L", [1, 7, 8, 9, 13, 32])
def test_output_and_gradients_equal_the_plain_loop(L: int) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(L=L)]
    y, expected = selective_scan(*inputs), reference(*inputs)
    torch.testing.assert_close(y, expected)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    for name, got, want in zip(
        NAMES, torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, inputs, dy), strict=True
    ):
        torch.testing.assert_close(got, want, msg=lambda m, name=name: f"gradient of {name}: {m}")


def test_float32_agrees_with_float64() -> None:
    inputs = make_inputs(L=64, N=16)
    y = selective_scan(*[x.float() for x in inputs])
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), reference(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("L", [1, 10])
def test_gradcheck(L: int) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(K=2, batch=1, L=L, channels=2, N=2)]
    assert torch.autograd.gradcheck(selective_scan, inputs)


def test_inputs_may_be_strided_and_gradients_partial() -> None:
    inputs = make_inputs()
    expected = reference(*inputs)
    strided = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in inputs]
    strided[1].requires_grad_()
    y = selective_scan(*strided)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert strided[1].grad is not None and strided[0].grad is None


def test_training_saves_no_state_for_every_token() -> None:
    K, batch, L, channels, N = 2, 2, 64, 32, 16
    inputs = [x.requires_grad_() for x in make_inputs(K, batch, L, channels, N)]
    sizes: list[int] = []

    def note(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        y = selective_scan(*inputs)
    assert y.grad_fn is not None and sizes
    assert max(sizes) <= K * batch * N * channels * L // scan_module._CHUNK
    all_states = K * batch * N * channels * L
    assert sum(sizes) < all_states / 2


def test_without_gradients_no_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    forward = scan_module._scan_forward

    def spy(*args: Tensor, store: bool = False) -> tuple[Tensor, Tensor | None]:
        y, checkpoints = forward(*args, store=store)
        kept.append(checkpoints is not None)
        return y, checkpoints

    monkeypatch.setattr(scan_module, "_scan_forward", spy)
    inputs = [x.requires_grad_() for x in make_inputs()]
    with torch.no_grad():
        assert not selective_scan(*inputs).requires_grad
    selective_scan(*[x.detach() for x in inputs])
    selective_scan(*inputs)
    assert kept == [False, False, True]


def test_autocast_leaves_the_scan_in_float32() -> None:
    inputs = [x.float().requires_grad_() for x in make_inputs()]
    expected = selective_scan(*inputs)
    wanted = torch.autograd.grad(expected.sum(), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = selective_scan(*inputs)
        grads = torch.autograd.grad(y.sum(), inputs)
    assert torch.equal(y, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, wanted, strict=True))
    assert selective_scan(*[x.bfloat16() for x in inputs]).dtype == torch.float32


def test_fused_kernel_gets_directions_as_groups() -> None:
    def kernel(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_softplus: bool) -> Tensor:
        """The contract of mamba-ssm's selective_scan_fn: u (B, G * D, L), A (G * D, N), B (B, G, N, L)."""
        assert not delta_softplus
        assert all(x.is_contiguous() for x in (u, delta, A, B, C, D))
        channels = u.shape[1] // B.shape[1]
        state, ys = torch.zeros(*u.shape[:2], A.shape[1], dtype=u.dtype), []
        for t in range(u.shape[2]):
            b, c = (x[..., t].repeat_interleave(channels, dim=1) for x in (B, C))  # (B, G * D, N)
            state = torch.exp(delta[..., t, None] * A) * state + (delta * u)[..., t, None] * b
            ys.append((state * c).sum(-1) + D * u[..., t])
        return torch.stack(ys, dim=-1)

    inputs = make_inputs(K=4)
    torch.testing.assert_close(scan_module._scan_with_mamba(kernel, *inputs), reference(*inputs))


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_a_broken_mamba_ssm_counts_as_none(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    real_import = __import__

    def broken(name: str, *args: object, **kwargs: object) -> object:
        if name in ("selective_scan_cuda", "mamba_ssm.ops.selective_scan_interface"):
            raise error(name)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("builtins.__import__", broken)
    assert scan_module.mamba_kernel.__wrapped__() is None
