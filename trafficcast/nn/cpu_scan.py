"""The cross scan on a CPU, compiled by numba, in several threads, forward and backward.

The states are not kept between forward and backward; the backward computes them again.

Sources: VMamba (arXiv 2401.10166, section 4.2) for the four directions; Mamba (arXiv 2312.00752, section 3.3.2) for
recomputing the states in the backward.

Dimensions throughout this file: K = 4 scan directions, B batch, L tokens, I inner channels, N states per channel.
The channels are the last dimension everywhere, and the vector units work on them. A task is one sample's block of
channels in all four directions: no two tasks write to the same elements, so that the result does not depend on the
number of threads.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Channels of a task. The states, decays and rates of one direction then fit into a core's level-2 cache.
_BLOCK = 128
# Tokens whose states the backward holds at once; longer sequences are walked twice.
_CHUNK = 64
_LANES = 4  # states worked on together; the number of states is padded to a multiple with states that stay zero
_LOG2_E = math.log2(math.e)
_LN_2 = math.log(2.0)


def _cross_scan(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """Do the same as `trafficcast.nn.cross_scan`, in float32 on the CPU."""
    y: Tensor = _CrossScan.apply(x, dt, b, c, dt_bias, A, D)
    return y


class _CrossScan(torch.autograd.Function):
    """The cross scan with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
        ctx.save_for_backward(x, dt, b, c, dt_bias, A, D)
        arrays = _arrays(x, dt, b, c, dt_bias, A, D)
        y = np.zeros(arrays[0].shape, np.float32)
        _run(_forward, y.shape, *arrays, y)
        return torch.from_numpy(y)[..., : x.shape[3]].view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, dt, b, c, dt_bias, A, D = ctx.saved_tensors
        arrays = _arrays(x, dt, b, c, dt_bias, A, D)
        batch, tokens, inner = arrays[0].shape
        directions, blocks, padded = arrays[5].shape[:3]
        dx, ddt = np.zeros_like(arrays[0]), np.empty_like(arrays[1])
        # Gradients to which several tasks contribute are kept per task and summed afterwards, always in the same order.
        db, dc = np.empty((2, blocks, directions, batch, tokens, padded), np.float32)
        dA = np.empty((batch, directions, blocks, padded, _BLOCK), np.float32)
        dbias, dD = np.empty((2, batch, directions, inner), np.float32)
        grad = _padded(dy.reshape(batch, tokens, -1), -dy.shape[3] % _BLOCK).contiguous().numpy()
        _run(_backward, arrays[0].shape, *arrays, grad, dx, ddt, db, dc, dA, dbias, dD)
        width, states = A.shape[1:]
        return (
            torch.from_numpy(dx)[..., :width].view(x.shape),
            torch.from_numpy(ddt)[..., :width],
            torch.from_numpy(db.sum(0))[..., :states],
            torch.from_numpy(dc.sum(0))[..., :states],
            torch.from_numpy(dbias.sum(0))[..., :width],
            torch.from_numpy(dA.sum(0)).transpose(2, 3).reshape(directions, inner, padded)[:, :width, :states],
            torch.from_numpy(dD.sum(0))[..., :width],
        )


def _arrays(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> tuple[Any, ...]:
    """Return the kernels' inputs, padded with zeros to whole blocks and lanes.

    They are x (B, L, I), dt, b, c, bias, the rates as exponents of two (K, I / BLOCK, N, BLOCK), D and the orders
    (K, L).
    """
    batch, rows, cols, inner = x.shape
    channels, states = -inner % _BLOCK, -A.shape[2] % _LANES
    rates = _padded(_padded(A * _LOG2_E, states).transpose(1, 2), channels)  # (K, N, I)
    tensors = (
        _padded(x.reshape(batch, rows * cols, inner), channels),
        _padded(dt, channels),
        _padded(b, states),
        _padded(c, states),
        _padded(dt_bias, channels),
        rates.unflatten(2, (-1, _BLOCK)).transpose(1, 2),
        _padded(D, channels),
    )
    return *(tensor.detach().contiguous().numpy() for tensor in tensors), _scan_orders(rows, cols)


def _padded(tensor: Tensor, n: int) -> Tensor:
    """Append n zeros to the last dimension."""
    return torch.nn.functional.pad(tensor, (0, n)) if n else tensor


@functools.lru_cache(maxsize=16)
def _scan_orders(rows: int, cols: int) -> np.ndarray:
    """Return the row-major indices (K, L) of each direction's tokens: by row, by column, and both backwards."""
    tokens = np.arange(rows * cols).reshape(rows, cols)
    both = np.stack([tokens.ravel(), tokens.T.ravel()])
    return np.ascontiguousarray(np.concatenate([both, both[:, ::-1]]))


# ---------------------------------------------------------------------------------------------------------
# Threads. Each takes the next task when it is free, so that a core which other processes use takes fewer tasks.


def _run(kernel: Callable[..., None], shape: tuple[int, ...], *arrays: np.ndarray) -> None:
    """Run a kernel over all tasks of an image of padded shape (B, L, I)."""
    tasks = shape[0] * (shape[2] // _BLOCK)
    threads = min(torch.get_num_threads(), tasks)
    if threads == 1:
        kernel(0, tasks, *arrays)
        return
    share = max(1, tasks // (8 * threads))
    starts = itertools.count(0, share)

    def work() -> None:
        while (first := next(starts)) < tasks:
            kernel(first, min(first + share, tasks), *arrays)

    others = [_pool(os.getpid()).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads of this process; a forked process does not have its parent's."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="scan")


# ---------------------------------------------------------------------------------------------------------
# The kernels. `contract` allows fused multiply-adds and nothing else; `reassoc` is for the backward's sums alone, since
# re-association would undo the exponential's rounding.

_compile = functools.partial(numba.njit, nogil=True, cache=True, error_model="numpy", boundscheck=False)


@_compile(fastmath={"contract"})
def _exp2(t: np.float32) -> np.float32:
    """Compute 2^t for t <= 0, relative error 2e-7: 2^k by the exponent's bits, 2^f for |f| <= 1/2 by a polynomial."""
    t = max(t, np.float32(-126.0))
    shifted = t + np.float32(12582912.0)  # 1.5 * 2^23: the mantissa's last bits are k
    f = t - (shifted - np.float32(12582912.0))
    p = np.float32(1.5403530e-4)
    p = p * f + np.float32(1.3333558e-3)
    p = p * f + np.float32(9.6181291e-3)
    p = p * f + np.float32(5.5504109e-2)
    p = p * f + np.float32(2.4022651e-1)
    p = p * f + np.float32(6.9314718e-1)
    p = p * f + np.float32(1.0)
    bits = np.float32(p).view(np.int32) + (np.float32(shifted).view(np.int32) << 23)
    return np.int32(bits).view(np.float32)


@_compile(fastmath={"contract"})
def _softplus(raw: np.ndarray, bias: np.ndarray, delta: np.ndarray, slope: np.ndarray) -> None:
    """Compute delta = ln(1 + e^v) and its slope 1 / (1 + e^-v) for v = raw + bias."""
    for i in range(_BLOCK):
        v = raw[i] + bias[i]
        t = _exp2(np.float32(-_LOG2_E) * abs(v))  # e^-|v|
        z = t / (np.float32(2.0) + t)  # ln(1 + t) = 2 artanh(z), z <= 1/3
        q = z * z
        s = np.float32(1 / 13)
        s = s * q + np.float32(1 / 11)
        s = s * q + np.float32(1 / 9)
        s = s * q + np.float32(1 / 7)
        s = s * q + np.float32(1 / 5)
        s = s * q + np.float32(1 / 3)
        s = s * q + np.float32(1.0)
        delta[i] = max(v, np.float32(0.0)) + np.float32(2.0) * z * s
        slope[i] = (np.float32(1.0) if v >= 0 else t) / (np.float32(1.0) + t)


@_compile(fastmath={"contract"})
def _advance(
    state: np.ndarray,
    delta: np.ndarray,
    inflow: np.ndarray,
    rates: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    out: np.ndarray,
) -> None:
    """Advance by one token: state (N, n) = 2^(delta rate) state + b inflow; out (n) += c . state."""
    for j in range(0, len(b), _LANES):
        b0, b1, b2, b3 = b[j], b[j + 1], b[j + 2], b[j + 3]
        c0, c1, c2, c3 = c[j], c[j + 1], c[j + 2], c[j + 3]
        s0, s1, s2, s3 = state[j], state[j + 1], state[j + 2], state[j + 3]
        r0, r1, r2, r3 = rates[j], rates[j + 1], rates[j + 2], rates[j + 3]
        for i in range(_BLOCK):
            d, u = delta[i], inflow[i]
            t0 = _exp2(d * r0[i]) * s0[i] + b0 * u
            t1 = _exp2(d * r1[i]) * s1[i] + b1 * u
            t2 = _exp2(d * r2[i]) * s2[i] + b2 * u
            t3 = _exp2(d * r3[i]) * s3[i] + b3 * u
            s0[i], s1[i], s2[i], s3[i] = t0, t1, t2, t3
            out[i] += (c0 * t0 + c1 * t1) + (c2 * t2 + c3 * t3)


@_compile(fastmath={"contract"})
def _forward(
    first: int,
    last: int,
    x: np.ndarray,
    dt: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    bias: np.ndarray,
    rates: np.ndarray,
    skip: np.ndarray,
    orders: np.ndarray,
    y: np.ndarray,
) -> None:
    """Scan the tasks `first` to `last` - 1 and add the result to y."""
    blocks = x.shape[2] // _BLOCK
    state = np.empty((rates.shape[2], _BLOCK), np.float32)
    delta, slope, inflow = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for task in range(first, last):
        sample, block = task // blocks, task % blocks
        start, end = block * _BLOCK, (block + 1) * _BLOCK
        for k in range(len(orders)):
            state[:] = np.float32(0.0)
            for token in orders[k]:
                out, u = y[sample, token, start:end], x[sample, token, start:end]
                _softplus(dt[k, sample, token, start:end], bias[k, start:end], delta, slope)
                for i in range(_BLOCK):
                    inflow[i] = delta[i] * u[i]
                    out[i] += skip[k, start + i] * u[i]
                _advance(state, delta, inflow, rates[k, block], b[k, sample, token], c[k, sample, token], out)


@_compile(fastmath={"contract"})
def _record(
    before: np.ndarray,
    after: np.ndarray,
    decay: np.ndarray,
    delta: np.ndarray,
    inflow: np.ndarray,
    rates: np.ndarray,
    b: np.ndarray,
) -> None:
    """Compute one token's states and decays, (N, n) each, again for the backward."""
    for j in range(len(b)):
        bj = b[j]
        s, t, a, r = before[j], after[j], decay[j], rates[j]
        for i in range(_BLOCK):
            e = _exp2(delta[i] * r[i])
            a[i] = e
            t[i] = e * s[i] + bj * inflow[i]


@_compile(fastmath={"contract", "reassoc", "nsz"})
def _retreat(
    grad: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    decay: np.ndarray,
    delta: np.ndarray,
    inflow: np.ndarray,
    dy: np.ndarray,
    rates: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    d_inflow: np.ndarray,
    d_delta: np.ndarray,
    d_rates: np.ndarray,
    db: np.ndarray,
    dc: np.ndarray,
) -> None:
    """Go back by one token.

    `grad` (N, n) is the gradient of the token's states from later tokens and becomes that of the states before it.
    d_inflow and d_delta (n) and d_rates (N, n) are added to; db and dc (N) are set.
    """
    for j in range(len(b)):
        bj, cj = b[j], c[j]
        g, s, t, a, r, dr = grad[j], before[j], after[j], decay[j], rates[j], d_rates[j]
        sum_b = np.float32(0.0)
        sum_c = np.float32(0.0)
        for i in range(_BLOCK):
            of_state = g[i] + cj * dy[i]
            sum_c += t[i] * dy[i]
            sum_b += of_state * inflow[i]
            d_inflow[i] += bj * of_state
            of_before = of_state * a[i]
            g[i] = of_before
            of_exponent = of_before * s[i]
            d_delta[i] += of_exponent * r[i]
            dr[i] += of_exponent * delta[i]
        db[j] = sum_b
        dc[j] = sum_c


@_compile(fastmath={"contract"})
def _backward(
    first: int,
    last: int,
    x: np.ndarray,
    dt: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    bias: np.ndarray,
    rates: np.ndarray,
    skip: np.ndarray,
    orders: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    ddt: np.ndarray,
    db: np.ndarray,
    dc: np.ndarray,
    dA: np.ndarray,
    dbias: np.ndarray,
    dD: np.ndarray,
) -> None:
    """Compute the gradients of the tasks `first` to `last` - 1."""
    tokens, blocks, states = x.shape[1], x.shape[2] // _BLOCK, rates.shape[2]
    chunks = (tokens + _CHUNK - 1) // _CHUNK
    held = min(_CHUNK, tokens)
    starts = np.empty((chunks, states, _BLOCK), np.float32)  # the states before every chunk
    kept = np.empty((held + 1, states, _BLOCK), np.float32)
    decays = np.empty((held, states, _BLOCK), np.float32)
    deltas, slopes = np.empty((held, _BLOCK), np.float32), np.empty((held, _BLOCK), np.float32)
    inflows = np.empty((held, _BLOCK), np.float32)
    grads = np.empty((states, _BLOCK), np.float32)
    d_inflow, d_delta = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    nothing = np.zeros(states, np.float32)
    for task in range(first, last):
        sample, block = task // blocks, task % blocks
        start, end = block * _BLOCK, (block + 1) * _BLOCK
        for k in range(len(orders)):
            rate, of_rate = rates[k, block], dA[sample, k, block]
            of_bias, of_skip = dbias[sample, k, start:end], dD[sample, k, start:end]
            grads[:] = np.float32(0.0)
            of_rate[:] = np.float32(0.0)
            of_bias[:] = np.float32(0.0)
            of_skip[:] = np.float32(0.0)
            starts[0] = np.float32(0.0)
            for chunk in range(chunks - 1):
                starts[chunk + 1] = starts[chunk]
                for token in orders[k, chunk * _CHUNK : (chunk + 1) * _CHUNK]:
                    _step(x, dt, bias, k, sample, token, start, deltas[0], slopes[0], inflows[0])
                    _advance(starts[chunk + 1], deltas[0], inflows[0], rate, b[k, sample, token], nothing, d_delta)
            for chunk in range(chunks - 1, -1, -1):
                order = orders[k, chunk * _CHUNK : (chunk + 1) * _CHUNK]
                kept[0] = starts[chunk]
                for t in range(len(order)):
                    token = order[t]
                    _step(x, dt, bias, k, sample, token, start, deltas[t], slopes[t], inflows[t])
                    _record(kept[t], kept[t + 1], decays[t], deltas[t], inflows[t], rate, b[k, sample, token])
                for t in range(len(order) - 1, -1, -1):
                    token = order[t]
                    of_y = dy[sample, token, start:end]
                    d_inflow[:] = np.float32(0.0)
                    d_delta[:] = np.float32(0.0)
                    _retreat(
                        grads,
                        kept[t],
                        kept[t + 1],
                        decays[t],
                        deltas[t],
                        inflows[t],
                        of_y,
                        rate,
                        b[k, sample, token],
                        c[k, sample, token],
                        d_inflow,
                        d_delta,
                        of_rate,
                        db[block, k, sample, token],
                        dc[block, k, sample, token],
                    )
                    u, of_u = x[sample, token, start:end], dx[sample, token, start:end]
                    of_dt, delta, slope = ddt[k, sample, token, start:end], deltas[t], slopes[t]
                    for i in range(_BLOCK):
                        of_u[i] += d_inflow[i] * delta[i] + skip[k, start + i] * of_y[i]
                        # The rates are exponents of two: d 2^(delta r) / d delta has the factor ln 2.
                        of_dt[i] = (d_delta[i] * np.float32(_LN_2) + d_inflow[i] * u[i]) * slope[i]
                        of_bias[i] += of_dt[i]
                        of_skip[i] += of_y[i] * u[i]


@_compile(fastmath={"contract"})
def _step(
    x: np.ndarray,
    dt: np.ndarray,
    bias: np.ndarray,
    k: int,
    sample: int,
    token: int,
    start: int,
    delta: np.ndarray,
    slope: np.ndarray,
    inflow: np.ndarray,
) -> None:
    """Compute a token's step sizes, their slopes and the inflow of its states."""
    _softplus(dt[k, sample, token, start : start + _BLOCK], bias[k, start : start + _BLOCK], delta, slope)
    for i in range(_BLOCK):
        inflow[i] = delta[i] * x[sample, token, start + i]
