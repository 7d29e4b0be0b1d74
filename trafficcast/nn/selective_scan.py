"""The selective scan: the recurrence inside SS2D, forward and backward.

    s_l = exp(delta_l A) s_{l-1} + delta_l B_l u_l        y_l = C_l . s_l + D u_l        s_0 = 0

Sources: Mamba (arXiv 2312.00752, algorithm 2 and section 3.3.2, recomputation of the states);
VMamba (arXiv 2401.10166), where four such scans read one image.

Dimensions throughout this file: K scan directions, B batch, L tokens, D channels, N states per channel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Tokens between two stored states. Training keeps L / CHUNK states a scan instead of L; the backward holds
# the states of one chunk at a time. At L = 64, 8 took as long as 4 and less than 16.
_CHUNK = 8


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Scan the tokens of every direction.

    Parameters
    ----------
    u
        Inputs (K, B, L, D), in the order in which each direction reads them.
    delta
        Step sizes (K, B, L, D) after softplus, positive.
    A
        Decay rates (K, D, N), negative.
    B
        Input weights (K, B, L, N), shared by the channels of a direction.
    C
        Output weights (K, B, L, N), shared by the channels of a direction.
    D
        Weights (K, D) of the skip connection.

    Returns
    -------
    Tensor
        Outputs (K, B, L, D), float32; float64 where an input is float64.
    """
    inputs = (u, delta, A, B, C, D)
    # The state decays over many tokens, so the scan is never run below float32, also under autocast.
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in inputs) else torch.float32
    u, delta, A, B, C, D = (x.to(dtype) for x in inputs)
    with torch.autocast(u.device.type, enabled=False):
        if u.device.type == "cuda" and dtype == torch.float32 and (kernel := mamba_kernel()) is not None:
            return _scan_with_mamba(kernel, u, delta, A, B, C, D)
        if torch.is_grad_enabled() and any(x.requires_grad for x in (u, delta, A, B, C, D)):
            y: Tensor = _SelectiveScan.apply(u, delta, A, B, C, D)
            return y
        return _scan_forward(u, delta, A, B, C, D)[0]


# ---------------------------------------------------------------------------------------------------------
# PyTorch. All that depends on one token alone is computed for a chunk of tokens at once, so that the loop over tokens
# has only one fused multiply-add over the state (K, B, N, D). Few large operations matter because each one wakes the
# other processor cores (40 microseconds where OpenMP's threads sleep, OMP_WAIT_POLICY=passive). Channels are the last
# dimension, so that every operation is contiguous and vectorised.


def _scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, store: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return y (K, B, L, D) and, with `store`, the states before every chunk (L / CHUNK, K, B, N, D)."""
    rate, L = _channels_last(A), u.shape[2]
    inflow = delta * u  # (K, B, L, D)
    y = torch.empty_like(inflow)
    states = _new_states(u, A, min(_CHUNK, L))  # (CHUNK + 1, K, B, N, D)
    states[0] = 0
    decays = torch.empty_like(states[1:])
    checkpoints = states.new_empty(-(-L // _CHUNK), *states.shape[1:]) if store else None
    for first in range(0, L, _CHUNK):
        tokens = slice(first, min(first + _CHUNK, L))
        n = tokens.stop - first
        if checkpoints is not None:
            checkpoints[first // _CHUNK] = states[0]
        _run_chunk(states, decays, rate, *(_tokens_first(x, tokens) for x in (delta, inflow, B)))
        # (n, K, B, 1, N) @ (n, K, B, N, D) -> (n, K, B, 1, D)
        _tokens_first(y, tokens)[..., None, :] = _tokens_first(C, tokens)[..., None, :] @ states[1 : n + 1]
        states[0] = states[n]
    return y.addcmul_(D[:, None, None], u), checkpoints


def _run_chunk(states: Tensor, decays: Tensor, rate: Tensor, delta: Tensor, inflow: Tensor, B: Tensor) -> None:
    """Fill decays[:n] and states[1 : n + 1] from states[0].

    Inputs are delta and inflow (n, K, B, D) and B (n, K, B, N) of the n tokens of the chunk;
    decays[i] = exp(delta_i A) and states[i + 1] = decays[i] * states[i] + B_i inflow_i, each (K, B, N, D).
    """
    n = len(delta)
    torch.mul(delta[..., None, :], rate, out=decays[:n]).exp_()
    torch.mul(B[..., None], inflow[..., None, :], out=states[1 : n + 1])
    for i in range(n):
        states[i + 1].addcmul_(decays[i], states[i])


def _new_states(u: Tensor, A: Tensor, n: int) -> Tensor:
    """Return uninitialised states before and after n tokens."""
    K, batch, _, channels = u.shape
    return u.new_empty(n + 1, K, batch, A.shape[2], channels)  # (n + 1, K, B, N, D)


def _channels_last(A: Tensor) -> Tensor:
    """Return the decay rates with the channels as the last dimension."""
    return A.transpose(1, 2).contiguous()[:, None]  # (K, D, N) -> (K, 1, N, D)


def _tokens_first(x: Tensor, tokens: slice) -> Tensor:
    """Return a view of some tokens, with the tokens as the first dimension."""
    return x[:, :, tokens].permute(2, 0, 1, 3)  # (K, B, L, ...) -> (n, K, B, ...), a view


class _SelectiveScan(torch.autograd.Function):
    """The scan with its gradient; keeps L / CHUNK states, where autograd would keep several of (L, K, B, N, D)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        y, checkpoints = _scan_forward(u, delta, A, B, C, D, store=True)
        ctx.save_for_backward(u, delta, A, B, C, D, checkpoints)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, D, checkpoints = ctx.saved_tensors
        with torch.autocast(u.device.type, enabled=False):
            return _scan_backward(dy, u, delta, A, B, C, D, checkpoints)


def _scan_backward(
    dy: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, checkpoints: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of the six inputs, from dy (K, B, L, D) and the states before every chunk."""
    rate, L = _channels_last(A), u.shape[2]
    inflow = delta * u  # (K, B, L, D)
    d_inflow, d_delta = torch.empty_like(inflow), torch.empty_like(inflow)
    dB, dC = torch.empty_like(B), torch.empty_like(C)

    states = _new_states(u, A, min(_CHUNK, L))  # (CHUNK + 1, K, B, N, D)
    decays = torch.empty_like(states[1:])
    d_states = torch.empty_like(decays)  # gradients of the states after every token of the chunk
    product = torch.empty_like(decays)
    later = torch.zeros_like(states[0])  # (K, B, N, D), gradient from the chunk after this one
    d_rate = torch.zeros_like(states[0])  # (K, B, N, D), dA before the sum over the batch

    for first in reversed(range(0, L, _CHUNK)):
        tokens = slice(first, min(first + _CHUNK, L))
        n = tokens.stop - first
        delta_n, inflow_n, B_n, C_n, dy_n = (_tokens_first(x, tokens) for x in (delta, inflow, B, C, dy))
        states[0] = checkpoints[first // _CHUNK]
        _run_chunk(states, decays, rate, delta_n, inflow_n, B_n)
        before, after, decay, d_after = states[:n], states[1 : n + 1], decays[:n], d_states[:n]

        torch.mul(C_n[..., None], dy_n[..., None, :], out=d_after)  # (n, K, B, N, D)
        d_after[n - 1] += later
        for i in reversed(range(n - 1)):
            d_after[i].addcmul_(decay[i + 1], d_after[i + 1])

        # A product and a sum over D: three times as fast as the batched matrix-vector product.
        _tokens_first(dC, tokens)[:] = torch.mul(after, dy_n[..., None, :], out=product[:n]).sum(-1)
        _tokens_first(dB, tokens)[:] = torch.mul(d_after, inflow_n[..., None, :], out=product[:n]).sum(-1)
        # (n, K, B, 1, N) @ (n, K, B, N, D) -> (n, K, B, 1, D)
        _tokens_first(d_inflow, tokens)[..., None, :] = B_n[..., None, :] @ d_after

        d_before = d_after.mul_(decay)
        later.copy_(d_before[0])
        d_exponent = d_before.mul_(before)  # the gradient of delta A, (n, K, B, N, D)
        for i in range(n):
            d_rate.addcmul_(d_exponent[i], delta_n[i, :, :, None])
        _tokens_first(d_delta, tokens)[:] = d_exponent.mul_(rate).sum(-2)

    du = (d_inflow * delta).addcmul_(D[:, None, None], dy)
    d_delta.addcmul_(d_inflow, u)
    dA = d_rate.sum(1).transpose(1, 2)  # (K, B, N, D) -> (K, D, N)
    return du, d_delta, dA, dB, dC, (dy * u).sum((1, 2))


# ---------------------------------------------------------------------------------------------------------
# CUDA: the fused kernel of mamba-ssm, where it is installed.


@functools.cache
def mamba_kernel() -> Callable[..., Tensor] | None:
    """Return mamba-ssm's fused scan, which needs CUDA.

    Returns
    -------
    Callable[..., Tensor] | None
        The scan; None where the package or the CUDA libraries are missing.
    """
    try:
        import selective_scan_cuda  # noqa: F401  # a release may import without its kernel and fail at the call
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except (ImportError, OSError, RuntimeError):
        return None
    return selective_scan_fn if callable(selective_scan_fn) else None


def _scan_with_mamba(
    kernel: Callable[..., Tensor], u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """Scan the K directions by one call with K groups; arguments and result as in `selective_scan`."""
    K, batch, L, channels = u.shape
    y = kernel(
        u.permute(1, 0, 3, 2).reshape(batch, K * channels, L),  # (K, B, L, D) -> (B, K * D, L)
        delta.permute(1, 0, 3, 2).reshape(batch, K * channels, L),
        A.reshape(K * channels, -1).contiguous(),  # (K, D, N) -> (K * D, N)
        B.permute(1, 0, 3, 2).contiguous(),  # (K, B, L, N) -> (B, K, N, L)
        C.permute(1, 0, 3, 2).contiguous(),
        D.reshape(K * channels).contiguous(),
        delta_softplus=False,
    )
    return y.reshape(batch, K, channels, L).permute(1, 0, 3, 2)  # (K, B, L, D)
