# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The cross scan on a GPU: two Triton kernels, forward and backward. Importing this module needs Triton.

    delta = softplus(dt + dt_bias)
    s_l = exp(delta_l A) s_{l-1} + delta_l B_l u_l        y_l = C_l . s_l + D u_l        s_0 = 0

Sources: VMamba (arXiv 2401.10166, section 4.2) for the four directions; Mamba (arXiv 2312.00752, algorithm 2 and
section 3.3.2) for the scan and for recomputing its states in the backward.

Dimensions throughout this file: K = 4 scan directions, B batch, H x W the image, L = H * W tokens, I channels, N states
per channel.

A program is one warp. It takes a sample, a direction and a block of channels and walks along the tokens, which it finds
by index, with its states in registers: a tile (block, N). Every tile in memory has the states innermost, from which the
compiler derives one layout for all: a lane holds 4 neighbouring states of every eighth channel. The forward sums over
states and the backward over states and over channels, and either sum lies mostly within a lane (40 shuffles a token in
the backward of 32 channels and 16 states, where a lane for each channel would need 160).

Sums over several programs are written in parts and added afterwards, never atomically, so that results are
reproducible. Nothing waits for the host, and shapes alone decide every size, so both passes can be captured in a CUDA
graph once a first call has compiled them.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_DIRECTIONS = 4
# Tokens between two stored states. The backward holds the states and decays of so many tokens in registers: with 4 they
# fit but for a few values, with 8 they do not (machine code for sm_90, 16 states).
_CHUNK = 4
# Warps that an H200 issues from at a time: 4 on each of 132 multiprocessors.
_SCHEDULERS = 4 * 132

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)


def available() -> bool:
    """Tell whether `cross_scan` can run on this machine.

    Returns
    -------
    bool
        Whether there is a GPU of compute capability 8.0, which Triton needs.
    """
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def cross_scan(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """Scan an image in the four directions and sum the results, on the GPU.

    Inputs are float32, bfloat16 or float16. All arithmetic is in float32; a gradient has the type of its input.

    Parameters
    ----------
    x
        The image (B, H, W, I).
    dt
        Step sizes (K, B, L, I) before bias and softplus.
    b
        Input weights (K, B, L, N).
    c
        Output weights (K, B, L, N).
    dt_bias
        Bias (K, I) of the step sizes.
    A
        Decay rates (K, I, N), negative.
    D
        Weights (K, I) of the skip connection.

    Returns
    -------
    Tensor
        The sum (B, H, W, I), float32.

    Raises
    ------
    ValueError
        The shape of an input does not fit x; the kernels would read past its end.
    """
    inputs = (x, dt, b, c, dt_bias, A, D)
    _check_shapes(*inputs)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        y: Tensor = _CrossScan.apply(*inputs)
        return y
    return _forward(False, *inputs)[0]


def _check_shapes(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> None:
    """Raise a ValueError that names the input whose shape does not fit x."""
    batch, H, W, channels = x.shape
    K, L, N = _DIRECTIONS, H * W, A.shape[-1]
    shapes: list[tuple[str, Tensor, tuple[int, ...]]] = [
        ("dt", dt, (K, batch, L, channels)),
        ("b", b, (K, batch, L, N)),
        ("c", c, (K, batch, L, N)),
        ("dt_bias", dt_bias, (K, channels)),
        ("A", A, (K, channels, N)),
        ("D", D, (K, channels)),
    ]
    for name, tensor, shape in shapes:
        if tensor.shape != shape:
            raise ValueError(f"For x of {tuple(x.shape)}, {name} must be {shape}, but it is {tuple(tensor.shape)}.")


class _CrossScan(torch.autograd.Function):
    """The cross scan with its gradient."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        y, states = _forward(True, *inputs)
        ctx.save_for_backward(*inputs, states)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        return _backward(dy, *ctx.saved_tensors)


def _forward(
    store: bool, x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return y and, with `store`, the states before every chunk of tokens, (B, blocks, K, L / CHUNK, block, N)."""
    batch, H, W, channels = x.shape
    x, dt, dt_bias, A, D = (tensor.contiguous() for tensor in (x, dt, dt_bias, A, D))
    b, c = _contiguous_rows(b), _contiguous_rows(c)
    grid, sizes = _launch(x, A)
    y_parts = x.new_empty(grid[2], batch, H, W, channels, dtype=torch.float32)
    states = None
    if store:
        tile = sizes["BLOCK"], sizes["STATES"]
        states = x.new_empty(*grid[:2], _DIRECTIONS, triton.cdiv(H * W, _CHUNK), *tile, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _forward_kernel[grid](
            x, dt, b, c, dt_bias, A, D, states, y_parts,
            channels, *b.stride()[:3], *c.stride()[:3], **sizes, STORE=store, num_warps=1,
        )  # fmt: skip
    return _sum_parts(y_parts), states


def _backward(
    dy: Tensor, x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, states: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of the seven inputs of `cross_scan`, from dy (B, H, W, I) and the stored states."""
    inputs = (x, dt, b, c, dt_bias, A, D)
    batch, H, W, channels = x.shape
    N = A.shape[2]
    dy, x, dt, dt_bias, A, D = (tensor.contiguous() for tensor in (dy, x, dt, dt_bias, A, D))
    b, c = _contiguous_rows(b), _contiguous_rows(c)
    grid, sizes = _launch(x, A)
    ddt = torch.empty_like(dt)
    dx_parts = x.new_empty(grid[2], batch, H, W, channels, dtype=torch.float32)
    dbc_parts = x.new_empty(grid[1], 2, *b.shape, dtype=torch.float32)  # every block of channels: db and dc
    # Every sample: dA (K, I, N), ddt_bias (K, I) and dD (K, I), one after the other.
    sections = (A.numel(), dt_bias.numel(), D.numel())
    weight_parts = x.new_empty(batch, sum(sections), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _backward_kernel[grid](
            x, dt, b, c, dt_bias, A, D, states, dy, dx_parts, ddt, dbc_parts, weight_parts,
            channels, *b.stride()[:3], *c.stride()[:3], **sizes, num_warps=1,
        )  # fmt: skip
    db, dc = _sum_parts(dbc_parts)
    dA, ddt_bias, dD = _sum_parts(weight_parts).split(sections)
    weights = (ddt_bias.view(-1, channels), dA.view(-1, channels, N), dD.view(-1, channels))
    gradients = (_sum_parts(dx_parts), ddt, db, dc, *weights)
    return tuple(gradient.to(tensor.dtype) for gradient, tensor in zip(gradients, inputs, strict=True))


def _launch(x: Tensor, A: Tensor) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Return the grid (B, blocks of channels, parts of y and dx) and the sizes for which the kernels are compiled."""
    batch, H, W, channels = x.shape
    N = A.shape[2]
    states = triton.next_power_of_2(N)
    block = max(8, min(32, 512 // states))  # 16 states a lane at most, unless N itself is larger
    # Wide blocks need the fewest instructions, but more, narrower programs finish a small batch sooner.
    while block > 8 and 2 * batch * triton.cdiv(channels, block) * _DIRECTIONS <= _SCHEDULERS:
        block //= 2
    blocks = triton.cdiv(channels, block)
    # A large batch keeps the GPU busy with programs that take the four directions in turn and add to y and dx
    # themselves; the four parts (1 GB for 4096 samples) are then neither written nor summed.
    joined = batch * blocks >= 4 * _SCHEDULERS
    sizes = {"H": H, "W": W, "N": N, "STATES": states, "BLOCK": block, "TOKENS": _CHUNK, "JOINED": joined}
    return (batch, blocks, 1 if joined else _DIRECTIONS), sizes


def _contiguous_rows(tensor: Tensor) -> Tensor:
    """Return a tensor with contiguous rows; b and c, slices of one projection, are read in place."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _sum_parts(parts: Tensor) -> Tensor:
    """Sum over the first dimension."""
    return parts[0] if len(parts) == 1 else parts.sum(0)


# ---------------------------------------------------------------------------------------------------------
# The kernels. Indices of samples and directions are 64 bits wide: B * K * L * I may exceed 2^31.


@triton.jit
def _forward_kernel(
    x_ptr, dt_ptr, b_ptr, c_ptr, dt_bias_ptr, A_ptr, D_ptr, states_ptr, y_ptr,
    channels, b_direction, b_sample, b_token, c_direction, c_sample, c_token,
    H: tl.constexpr, W: tl.constexpr, N: tl.constexpr, STATES: tl.constexpr,
    BLOCK: tl.constexpr, TOKENS: tl.constexpr, JOINED: tl.constexpr, STORE: tl.constexpr,
):  # fmt: skip
    """Scan one program's sample, direction and channels; see the module."""
    L: tl.constexpr = H * W
    CHUNKS: tl.constexpr = (L + TOKENS - 1) // TOKENS
    TILE: tl.constexpr = BLOCK * STATES
    sample, block, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    batch = tl.num_programs(0).to(tl.int64)
    i, n = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, STATES)
    tile = tl.arange(0, BLOCK)[:, None] * STATES + n[None, :]
    has_i, has_n = i < channels, n < N
    image = sample * L * channels + i
    y_ptr += part * batch * L * channels

    for direction in range(0 if JOINED else part, 4 if JOINED else part + 1):
        k = tl.cast(direction, tl.int64)
        dt_bias, A, D = _read_weights(dt_bias_ptr, A_ptr, D_ptr, k * channels + i, n, has_i, has_n, N)
        dt_k = dt_ptr + k * batch * L * channels
        b_k = b_ptr + k * b_direction + sample * b_sample + n
        c_k = c_ptr + k * c_direction + sample * c_sample + n
        stored = ((sample * tl.num_programs(1) + block) * 4 + k) * CHUNKS * TILE
        s = tl.zeros((BLOCK, STATES), tl.float32)
        for chunk in range(CHUNKS):
            if STORE:  # the first is zero and is not read
                tl.store(states_ptr + stored + chunk * TILE + tile, s, chunk > 0)
            first = chunk * TOKENS
            # All loads of a chunk come first, so that they wait together.
            zs = _read(dt_k + image, channels, has_i, direction, first, H, W, TOKENS)
            us = _read(x_ptr + image, channels, has_i, direction, first, H, W, TOKENS)
            bs = _read(b_k, b_token, has_n, direction, first, H, W, TOKENS)
            cs = _read(c_k, c_token, has_n, direction, first, H, W, TOKENS)
            if JOINED:
                ys = _read(y_ptr + image, channels, has_i & (direction > 0), direction, first, H, W, TOKENS)
            for t in tl.static_range(TOKENS):
                delta, _ = _softplus(zs[t] + dt_bias)  # (BLOCK)
                s = tl.exp2(delta[:, None] * A) * s + (delta * us[t])[:, None] * bs[t][None, :]
                y = tl.sum(s * cs[t][None, :], 1) + D * us[t]
                if JOINED:
                    y += ys[t]
                tl.store(y_ptr + image + _token(direction, first + t, H, W) * channels, y, has_i & (first + t < L))
        if JOINED:
            tl.debug_barrier()  # the next direction may read y in other lanes


@triton.jit
def _backward_kernel(
    x_ptr, dt_ptr, b_ptr, c_ptr, dt_bias_ptr, A_ptr, D_ptr, states_ptr,
    dy_ptr, dx_ptr, ddt_ptr, dbc_ptr, dweights_ptr,
    channels, b_direction, b_sample, b_token, c_direction, c_sample, c_token,
    H: tl.constexpr, W: tl.constexpr, N: tl.constexpr, STATES: tl.constexpr,
    BLOCK: tl.constexpr, TOKENS: tl.constexpr, JOINED: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of one program's sample, direction and channels; see the module."""
    L: tl.constexpr = H * W
    CHUNKS: tl.constexpr = (L + TOKENS - 1) // TOKENS
    TILE: tl.constexpr = BLOCK * STATES
    sample, block, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    batch = tl.num_programs(0).to(tl.int64)
    i, n = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, STATES)
    tile = tl.arange(0, BLOCK)[:, None] * STATES + n[None, :]
    has_i, has_n = i < channels, n < N
    image = sample * L * channels + i
    dx_ptr += part * batch * L * channels
    dweights_ptr += sample * (4 * (N + 2)) * channels

    for direction in range(0 if JOINED else part, 4 if JOINED else part + 1):
        k = tl.cast(direction, tl.int64)
        weight = k * channels + i
        dt_bias, A, D = _read_weights(dt_bias_ptr, A_ptr, D_ptr, weight, n, has_i, has_n, N)
        dt_k = dt_ptr + k * batch * L * channels
        b_k = b_ptr + k * b_direction + sample * b_sample + n
        c_k = c_ptr + k * c_direction + sample * c_sample + n
        stored = ((sample * tl.num_programs(1) + block) * 4 + k) * CHUNKS * TILE
        ddt_k = ddt_ptr + k * batch * L * channels
        db_k = dbc_ptr + ((block * 8 + k) * batch + sample) * L * N + n
        dc_k = db_k + 4 * batch * L * N
        ds = tl.zeros((BLOCK, STATES), tl.float32)  # gradient from the later tokens
        dA = tl.zeros((BLOCK, STATES), tl.float32)
        dD = tl.zeros((BLOCK,), tl.float32)
        ddt_bias = tl.zeros((BLOCK,), tl.float32)
        for back in range(CHUNKS):
            chunk = CHUNKS - 1 - back
            s = tl.load(states_ptr + stored + chunk * TILE + tile, chunk > 0, 0.0)
            # Steps past the last token read zeros, dy among them: they come before ds is anything but zero.
            first = chunk * TOKENS
            zs = _read(dt_k + image, channels, has_i, direction, first, H, W, TOKENS)
            us = _read(x_ptr + image, channels, has_i, direction, first, H, W, TOKENS)
            bs = _read(b_k, b_token, has_n, direction, first, H, W, TOKENS)
            cs = _read(c_k, c_token, has_n, direction, first, H, W, TOKENS)
            dys = _read(dy_ptr + image, channels, has_i, direction, first, H, W, TOKENS)
            if JOINED:
                dxs = _read(dx_ptr + image, channels, has_i & (direction > 0), direction, first, H, W, TOKENS)

            deltas, slopes, decays, states = (), (), (), (s,)
            for t in tl.static_range(TOKENS):
                delta, slope = _softplus(zs[t] + dt_bias)  # (BLOCK)
                decay = tl.exp2(delta[:, None] * A)
                s = decay * s + (delta * us[t])[:, None] * bs[t][None, :]
                deltas, slopes = deltas + (delta,), slopes + (slope,)  # type: ignore[assignment]
                decays, states = decays + (decay,), states + (s,)  # type: ignore[assignment]

            for t in tl.static_range(TOKENS - 1, -1, -1):
                delta, u, dy = deltas[t], us[t], dys[t]
                ds += cs[t][None, :] * dy[:, None]
                dc = tl.sum(states[t + 1] * dy[:, None], 0)
                db = tl.sum(ds * (delta * u)[:, None], 0)
                d_inflow = tl.sum(ds * bs[t][None, :], 1)  # inflow = delta u
                ds *= decays[t]
                d_exponent = ds * states[t]  # exponent = delta A
                dA += d_exponent * delta[:, None]
                ddt = (tl.sum(d_exponent * A, 1) * _LN2 + d_inflow * u) * slopes[t]
                ddt_bias += ddt
                dD += dy * u
                dx = d_inflow * delta + D * dy
                if JOINED:
                    dx += dxs[t]
                token, inside = _token(direction, first + t, H, W), first + t < L
                tl.store(dx_ptr + image + token * channels, dx, has_i & inside)
                tl.store(ddt_k + image + token * channels, ddt, has_i & inside)
                tl.store(db_k + token * N, db, has_n & inside)
                tl.store(dc_k + token * N, dc, has_n & inside)
        dA_ptr = dweights_ptr + weight[:, None] * N + n[None, :]
        tl.store(dA_ptr, dA, has_i[:, None] & has_n[None, :])
        tl.store(dweights_ptr + 4 * N * channels + weight, ddt_bias, has_i)
        tl.store(dweights_ptr + 4 * (N + 1) * channels + weight, dD, has_i)
        if JOINED:
            tl.debug_barrier()  # the next direction may read dx in other lanes


@triton.jit
def _token(direction, step, H: tl.constexpr, W: tl.constexpr):
    """Return the row-major index of the token that a direction reads at a step of its scan."""
    step = tl.where(direction < 2, step, H * W - 1 - step)
    return tl.where(direction % 2 == 0, step, step % H * W + step // H)


@triton.jit
def _read(ptr, stride, mask, direction, first, H: tl.constexpr, W: tl.constexpr, TOKENS: tl.constexpr):
    """Read the tokens of TOKENS steps, from the step `first` on; zeros past the last token."""
    values = ()
    for t in tl.static_range(TOKENS):
        address = ptr + _token(direction, first + t, H, W) * stride
        values += (tl.load(address, mask & (first + t < H * W), 0.0).to(tl.float32),)  # type: ignore[assignment]
    return values


@triton.jit
def _read_weights(dt_bias_ptr, A_ptr, D_ptr, weight, n, has_i, has_n, N: tl.constexpr):
    """Read dt_bias (BLOCK), A (BLOCK, STATES) times log2(e), since the GPU computes exp2, and D (BLOCK)."""
    dt_bias = tl.load(dt_bias_ptr + weight, has_i, 0.0).to(tl.float32)
    D = tl.load(D_ptr + weight, has_i, 0.0).to(tl.float32)
    has_A = has_i[:, None] & has_n[None, :]
    A = tl.load(A_ptr + weight[:, None] * N + n[None, :], has_A, 0.0).to(tl.float32)
    return dt_bias, A * _LOG2E, D


@triton.jit
def _softplus(z):
    """Compute softplus(z) = max(z, 0) + log(1 + e), e = exp(-|z|), and its derivative, the logistic function."""
    e = tl.exp2(tl.abs(z) * -_LOG2E)
    # log(1 + e) = 2 artanh(r), r = e / (2 + e) <= 1/3, as a series: exact to float32 for small e too, that is for the
    # step sizes of 0.001 that training starts from.
    r = e / (2.0 + e)
    q = r * r
    series = 1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13 + q * (1 / 15))))))
    return tl.maximum(z, 0.0) + 2.0 * (r + r * q * series), tl.where(z >= 0, 1.0, e) / (1.0 + e)
