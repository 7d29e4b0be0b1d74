"""The Triton kernels against plain loops: on a GPU where there is one, and anywhere through Triton's interpreter.

Triton decides between its compiler and its interpreter when it is imported, by TRITON_INTERPRET. So this file runs
itself once more in a process of its own with the variable set; there `DEVICE` is the CPU.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
NAMES = ("x", "dt", "b", "c", "dt_bias", "A", "D")

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed (it exists for Linux alone)", allow_module_level=True)

runs_kernels = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()),
    reason="no CUDA device; the interpreter runs these in its own process",
)
needs_gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def scan() -> ModuleType:
    return importlib.import_module("trafficcast.nn.triton_scan")


def make_inputs(batch: int, H: int, W: int, channels: int, N: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    g = torch.Generator().manual_seed(7)
    L = H * W

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    _, b, c = normal(4, batch, L, 3 + 2 * N).to(DEVICE, dtype).split((3, N, N), dim=-1)  # views, as in SS2D
    x, dt = normal(batch, H, W, channels), normal(4, batch, L, channels)
    weights = normal(4, channels) - 3, -normal(4, channels, N).exp(), normal(4, channels)
    inputs = [x.to(DEVICE, dtype), dt.to(DEVICE, dtype), b, c, *(weight.to(DEVICE) for weight in weights)]
    return [tensor.requires_grad_() for tensor in inputs]


def reference(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """The recurrence, token by token and one direction at a time, left to autograd."""
    _, H, W, _ = x.shape
    by_row = [(row, col) for row in range(H) for col in range(W)]
    by_col = [(row, col) for col in range(W) for row in range(H)]
    total = torch.zeros_like(x)
    for k, order in enumerate((by_row, by_col, by_row[::-1], by_col[::-1])):
        state = torch.zeros(x.shape[0], *A[k].shape, dtype=x.dtype, device=x.device)  # (B, I, N)
        ys: dict[tuple[int, int], Tensor] = {}
        for row, col in order:
            u, token = x[:, row, col], row * W + col
            delta = F.softplus(dt[k, :, token] + dt_bias[k])
            state = torch.exp(delta[..., None] * A[k]) * state + (delta * u)[..., None] * b[k, :, token, None]
            ys[row, col] = (state * c[k, :, token, None]).sum(-1) + D[k] * u
        total = total + torch.stack([ys[place] for place in by_row], dim=1).view_as(x)
    return total


def assert_near(got: Tensor, want: Tensor, tolerance: float, name: str) -> None:
    """The largest error, relative to the largest value."""
    error, scale = (got - want).abs().max().item(), want.abs().max().item()
    assert error <= tolerance * scale, f"{name}: off by {error:.1e} at values up to {scale:.1e}"


def assert_equals_reference(scan: ModuleType, inputs: list[Tensor], tolerance: float) -> None:
    """Against the plain loop in float32 and in float64."""
    y = scan.cross_scan(*inputs)
    assert y.dtype == torch.float32
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    gradients = torch.autograd.grad(y, inputs, dy)
    assert all(got.dtype == tensor.dtype for got, tensor in zip(gradients, inputs, strict=True))
    for dtype in (torch.float32, torch.float64):
        exact = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
        expected = reference(*exact)
        assert_near(y.to(dtype), expected, tolerance, "y")
        for name, got, want in zip(NAMES, gradients, torch.autograd.grad(expected, exact, dy.to(dtype)), strict=True):
            assert_near(got.to(dtype), want, tolerance, f"gradient of {name}")


@runs_kernels
@pytest.mark.parametrize(
    ("schedulers", "sizes"),  # sizes: batch, H, W, channels, N
    [
        pytest.param(528, (1, 2, 3, 5, 1), id="one-state"),
        pytest.param(528, (2, 1, 2, 5, 3), id="padded-states-and-channels"),
        pytest.param(8, (1, 2, 3, 40, 16), id="wide-blocks"),
        pytest.param(0, (1, 3, 2, 40, 16), id="directions-joined"),
    ],
)
def test_output_and_gradients_equal_the_plain_loop(
    scan: ModuleType, monkeypatch: pytest.MonkeyPatch, schedulers: int, sizes: tuple[int, int, int, int, int]
) -> None:
    monkeypatch.setattr(scan, "_SCHEDULERS", schedulers)
    assert_equals_reference(scan, make_inputs(*sizes), 1e-5)


@runs_kernels
def test_bfloat16_inputs_are_scanned_in_float32(scan: ModuleType) -> None:
    assert_equals_reference(scan, make_inputs(1, 1, 3, 8, 4, torch.bfloat16), 1e-2)


@runs_kernels
def test_step_sizes_are_exact_where_they_are_small(scan: ModuleType) -> None:
    # One token: y is the sum of the four directions' delta b c x, the step size itself four times.
    dt = torch.linspace(-14, 30, 8, device=DEVICE)
    one = torch.ones(4, 1, 1, 1, device=DEVICE)
    zero = torch.zeros(4, 8, device=DEVICE)
    y = scan.cross_scan(one[:1].expand(1, 1, 1, 8), dt.expand(4, 1, 1, 8), one, one, zero, zero[..., None] - 1, zero)
    torch.testing.assert_close(y.flatten().double(), 4 * F.softplus(dt.double()), rtol=5e-6, atol=0)


@runs_kernels
def test_strided_images_and_inference(scan: ModuleType) -> None:
    x, *others = make_inputs(1, 2, 2, 9, 4)
    expected = scan.cross_scan(x, *others)
    channels_first = x.detach().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    with torch.no_grad():
        assert torch.equal(scan.cross_scan(channels_first, *others), expected)


@runs_kernels
def test_shapes_that_do_not_fit_are_refused(scan: ModuleType) -> None:
    x, dt, *others = make_inputs(1, 2, 2, 9, 4)
    with pytest.raises(ValueError, match=r"dt must be \(4, 1, 4, 9\), but it is \(4, 1, 3, 9\)"):
        scan.cross_scan(x, dt[:, :, :3], *others)


def test_small_batches_get_narrow_programs_and_large_ones_join_the_directions() -> None:
    launch = importlib.import_module("trafficcast.nn.triton_scan")._launch
    A = torch.empty(4, 256, 16)
    grids = {batch: launch(torch.empty(batch, 8, 8, 256, device="meta"), A)[0] for batch in (1, 16, 4096)}
    assert grids == {1: (1, 32, 4), 16: (16, 8, 4), 4096: (4096, 8, 1)}


@pytest.mark.skipif(INTERPRETED, reason="is this very process")
def test_the_kernels_in_the_interpreter() -> None:
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 and "passed" in run.stdout, run.stdout + run.stderr


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    ("kernel", "switches"),
    [
        pytest.param("_forward_kernel", {"JOINED": False, "STORE": True}, id="training"),
        pytest.param("_forward_kernel", {"JOINED": True, "STORE": False}, id="inference"),
        pytest.param("_backward_kernel", {"JOINED": False}, id="backward"),
    ],
)
def test_the_kernels_compile_for_a_hopper_gpu(
    kernel: str, switches: dict[str, bool], scan: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The interpreter accepts what the compiler refuses; the compiler needs no GPU."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"H": 8, "W": 8, "N": 16, "STATES": 16, "BLOCK": 32, "TOKENS": scan._CHUNK, **switches}
    if switches.get("STORE") is False:
        constants["states_ptr"] = None
    function = getattr(scan, kernel)
    types = {name: "*fp32" if name.endswith("_ptr") else "i32" for name in function.arg_names}
    types |= dict.fromkeys(("x_ptr", "dt_ptr", "b_ptr", "c_ptr"), "*bf16") | dict.fromkeys(constants, "constexpr")
    source = ASTSource(function, {name: types[name] for name in function.arg_names}, constants)
    assert compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1}).asm["cubin"]


@needs_gpu
def test_results_are_reproducible_at_full_size(scan: ModuleType) -> None:
    inputs = make_inputs(16, 8, 8, 256, 16)
    assert_equals_reference(scan, inputs, 1e-5)
    first, second = (torch.autograd.grad(scan.cross_scan(*inputs).square().sum(), inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_gpu
def test_a_cuda_graph_replays_both_passes(scan: ModuleType) -> None:
    inputs = make_inputs(2, 8, 8, 64, 16)

    def both_passes() -> tuple[Tensor, ...]:
        y = scan.cross_scan(*inputs)
        return (y, *torch.autograd.grad(y, inputs, torch.ones_like(y)))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        both_passes()  # compiles
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both_passes()
    with torch.no_grad():
        inputs[0].mul_(2)
    graph.replay()
    for name, got, want in zip(("y", *NAMES), captured, both_passes(), strict=True):
        assert torch.equal(got, want), name


@pytest.mark.skipif(INTERPRETED, reason="checked once, outside")
def test_importing_the_networks_does_not_import_triton() -> None:
    code = "import sys, trafficcast.nn; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
