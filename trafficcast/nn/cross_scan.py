"""The cross scan of SS2D: four selective scans over one image, merged; one interface, the fastest way there is.

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
    """Scan in the four directions and return their sum: (B, H, W, I), float32 (float64 for float64 inputs).

    Everything is in image order (token = row * W + col); no direction's inputs are copied into its own order.

    x:       (B, H, W, I) the image
    dt:      (K, B, L, I) step sizes before bias and softplus
    b, c:    (K, B, L, N) input and output weights, shared by the channels of a direction
    dt_bias: (K, I)
    A:       (K, I, N)    decay rates, negative
    D:       (K, I)       weight of the skip connection
    """
    inputs = (x, dt, b, c, dt_bias, A, D)
    # The state decays over many tokens, so the scan is never run below float32, whatever autocast says.
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in inputs) else torch.float32
    backend = scan_backend(x.device, dtype)
    with torch.autocast(x.device.type, enabled=False):
        if backend != "triton":  # which converts what it reads as it reads it
            x, dt, b, c, dt_bias, A, D = (tensor.to(dtype) for tensor in inputs)
        return _backends()[backend](x, dt, b, c, dt_bias, A, D)


def scan_backend(device: torch.device | str, dtype: torch.dtype = torch.float32) -> str:
    """Which scan runs there: "numba" on CPUs; "triton", or else "mamba-ssm", on CUDA; "pytorch" anywhere."""
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
    """The plain way: every direction's tokens in its own order, `selective_scan`, and back."""
    _, rows, cols, _ = x.shape
    image = x.flatten(1, 2).expand(_DIRECTIONS, -1, -1, -1)  # (K, B, L, I)
    u, dt, b, c = (_into_order(tensor, rows, cols) for tensor in (image, dt, b, c))
    y = selective_scan(u, softplus(dt + dt_bias[:, None, None]), A, b, c, D)
    both = y[:2] + y[2:].flip(2)  # (2, B, L, I)
    by_column = both[1].unflatten(1, (cols, rows)).transpose(1, 2)
    return both[0].unflatten(1, (rows, cols)) + by_column


def _into_order(tensor: Tensor, rows: int, cols: int) -> Tensor:
    """(K, B, L, ...) in image order -> each direction's tokens in the order in which it reads them."""
    by_column = tensor[1::2].unflatten(2, (rows, cols)).transpose(2, 3).flatten(2, 3)
    return torch.stack((tensor[0], by_column[0], tensor[2].flip(1), by_column[1].flip(1)))
