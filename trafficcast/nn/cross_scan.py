"""The cross scan of SS2D: four selective scans over one image, summed, by the fastest backend of the device.

    delta = softplus(dt + bias)
    s_l = exp(delta_l A) s_{l-1} + delta_l B_l u_l        y_l = C_l . s_l + D u_l        s_0 = 0

The four directions read the image by row, by column and both backwards; their outputs are put back into image order
and added. Sources: VMamba (arXiv 2401.10166, section 4.2), Mamba (arXiv 2312.00752, algorithm 2).

Dimensions: K = 4 scan directions, B batch, H x W the image, L = H * W tokens, I channels, N states per channel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from trafficcast.nn.selective_scan import mamba_kernel, selective_scan

_DIRECTIONS = 4
CrossScan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def cross_scan(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """Scan an image in the four directions and sum the results.

    All inputs are in image order (token = row * W + col).

    Parameters
    ----------
    x
        The image (B, H, W, I).
    dt
        Step sizes (K, B, L, I) before bias and softplus.
    b
        Input weights (K, B, L, N), shared by the channels of a direction.
    c
        Output weights (K, B, L, N), shared by the channels of a direction.
    dt_bias
        Bias (K, I) of the step sizes.
    A
        Decay rates (K, I, N), negative.
    D
        Weights (K, I) of the skip connection.

    Returns
    -------
    Tensor
        The sum (B, H, W, I), float32; float64 where an input is float64.
    """
    inputs = (x, dt, b, c, dt_bias, A, D)
    # The state decays over many tokens, so the scan is never run below float32, also under autocast.
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in inputs) else torch.float32
    backend = scan_backend(x.device, dtype)
    with torch.autocast(x.device.type, enabled=False):
        if backend != "triton":  # the Triton kernels convert their inputs themselves
            x, dt, b, c, dt_bias, A, D = (tensor.to(dtype) for tensor in inputs)
        return _backends()[backend](x, dt, b, c, dt_bias, A, D)


def scan_backend(device: torch.device | str, dtype: torch.dtype = torch.float32) -> str:
    """Name the backend of the cross scan on a device.

    Parameters
    ----------
    device
        The device of the inputs.
    dtype
        The type in which the scan computes.

    Returns
    -------
    str
        "numba" on CPUs; "triton", or else "mamba-ssm", on CUDA; "pytorch" where none of these is available.
    """
    kind = torch.device(device).type
    if dtype == torch.float32:
        if kind == "cpu" and "numba" in _backends():
            return "numba"
        if kind == "cuda" and "triton" in _backends():
            return "triton"
        if kind == "cuda" and mamba_kernel() is not None:
            return "mamba-ssm"
    return "pytorch"


@functools.cache
def _backends() -> dict[str, CrossScan]:
    """Return the backends that this machine has, by name."""
    backends: dict[str, CrossScan] = {"pytorch": scan_by_index, "mamba-ssm": scan_by_index}
    try:
        from trafficcast.nn import cpu_scan
    except ImportError:  # no numba for this machine
        pass
    else:
        backends["numba"] = cpu_scan._cross_scan
    if torch.cuda.is_available():
        try:
            from trafficcast.nn import triton_scan
        except ImportError:  # no triton, for instance on Windows
            return backends
        if triton_scan.available():
            backends["triton"] = triton_scan.cross_scan
    return backends


def scan_by_index(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """Scan an image in the four directions with `selective_scan`, each direction's tokens copied into its order.

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
        The sum (B, H, W, I).
    """
    _, rows, cols, _ = x.shape
    image = x.flatten(1, 2).expand(_DIRECTIONS, -1, -1, -1)  # (K, B, L, I)
    u, dt, b, c = (_into_order(tensor, rows, cols) for tensor in (image, dt, b, c))
    y = selective_scan(u, softplus(dt + dt_bias[:, None, None]), A, b, c, D)
    both = y[:2] + y[2:].flip(2)  # (2, B, L, I)
    by_column = both[1].unflatten(1, (cols, rows)).transpose(1, 2)
    return both[0].unflatten(1, (rows, cols)) + by_column


def _into_order(tensor: Tensor, rows: int, cols: int) -> Tensor:
    """Reorder (K, B, L, ...) from image order into the order in which each direction reads its tokens."""
    by_column = tensor[1::2].unflatten(2, (rows, cols)).transpose(2, 3).flatten(2, 3)
    return torch.stack((tensor[0], by_column[0], tensor[2].flip(1), by_column[1].flip(1)))
