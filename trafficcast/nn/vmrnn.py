"""VMRNN: recurrent networks whose cells are stacks of VSS blocks, for city flow maps; VMRNN-B has one cell.

Sources: VMRNN (arXiv 2403.16536, section 3); VMamba (arXiv 2401.10166) for SS2D and the VSS block.

Dimensions throughout this file: B batch, T frames, C flows (inflow, outflow), H x W the grid of tokens (rows
and columns of the city divided by the patch side), L = H * W tokens, E embedding width, I = expand * E inner
width of SS2D, K = 4 scan directions, N states per channel, R rank of the step size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trafficcast.nn.cross_scan import _DIRECTIONS, cross_scan

_CellState = tuple[Tensor, Tensor]  # the hidden and the cell state, (B, H, W, E) each
_State = list[_CellState]  # of every cell of a network, in the order of their calls
CONVOLUTIONS = ("depthwise", "plain", "dilated")  # depthwise is what is published


class SS2D(nn.Module):
    """Four selective scans over an image, by row and column, forwards and backwards (VMamba, section 4.2)."""

    def __init__(self, embed: int, d_state: int, d_conv: int, expand: int, conv: str = "depthwise") -> None:
        super().__init__()
        inner = expand * embed
        rank = math.ceil(embed / 16)
        self.widths = [rank, d_state, d_state]  # what the projection of a token holds: step size, B, C
        self.in_proj = nn.Linear(embed, 2 * inner, bias=False)
        # A plain one mixes the channels as well; a dilated one is depthwise and leaves out every other cell.
        groups, dilation = 1 if conv == "plain" else inner, 2 if conv == "dilated" else 1
        padding = dilation * (d_conv // 2)
        self.conv = nn.Conv2d(inner, inner, d_conv, padding=padding, dilation=dilation, groups=groups)
        # One matrix per direction: the first drawn as nn.Linear draws it, the second as in Mamba (arXiv
        # 2312.00752, section 3.6), where the bias of the step size is also from.
        self.scan_proj = nn.Parameter(_uniform(_DIRECTIONS, sum(self.widths), inner))
        self.dt_weight = nn.Parameter(_uniform(_DIRECTIONS, inner, rank))
        self.dt_bias = nn.Parameter(_initial_dt_bias(_DIRECTIONS, inner))
        rates = torch.arange(1, d_state + 1, dtype=torch.float32).log()
        self.A_log = nn.Parameter(rates.repeat(_DIRECTIONS, inner, 1))  # (K, I, N)
        self.D = nn.Parameter(torch.ones(_DIRECTIONS, inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, embed, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, E) -> (B, H, W, E)"""
        x, z = self.in_proj(x).chunk(2, dim=-1)  # (B, H, W, I) each
        x = F.silu(self.conv(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)  # (B, H, W, I)
        y = self.scan(x).to(z.dtype)
        return self.out_proj(self.out_norm(y) * F.silu(z))

    def scan(self, x: Tensor) -> Tensor:
        """x: (B, H, W, I) -> (B, H, W, I), the sum of the four scans, in float32 under autocast too"""
        B, _, _, inner = x.shape
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.A_log.dtype)
            # What a token's step size, B and C are does not depend on the order of the tokens: one matrix product for
            # all directions, (B * L, I) @ (I, K * (R + 2N)), and the scan reads each in its order.
            projected = x.reshape(-1, inner) @ self.scan_proj.flatten(0, 1).T
            projected = projected.unflatten(1, (_DIRECTIONS, -1)).transpose(0, 1)  # (K, B * L, R + 2N)
            dt, b, c = torch.split(projected, self.widths, dim=-1)
            dt = dt @ self.dt_weight.transpose(1, 2)  # (K, B * L, I)
            dt, b, c = (tensor.unflatten(1, (B, -1)) for tensor in (dt, b, c))
            return cross_scan(x, dt, b, c, self.dt_bias, -self.A_log.exp(), self.D)


def _uniform(*shape: int) -> Tensor:
    bound = shape[-1] ** -0.5  # the last dimension is what the matrix reads
    return torch.empty(shape).uniform_(-bound, bound)


def _initial_dt_bias(*shape: int) -> Tensor:
    """The inverse softplus of step sizes drawn log-uniformly from 0.001 to 0.1."""
    log_dt = torch.empty(shape).uniform_(math.log(0.001), math.log(0.1))
    dt = log_dt.exp().clamp_min(1e-4)
    return dt + torch.log(-torch.expm1(-dt))


class _VSSBlock(nn.Module):
    """x + DropPath(SS2D(n)), n = norm(x). The first block of a cell mixes the hidden state into n."""

    def __init__(
        self, embed: int, d_state: int, d_conv: int, expand: int, conv: str, drop_path: float, reads_hidden: bool
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm = nn.LayerNorm(embed)
        # The published network builds this projection in every block and calls it in the first alone.
        self.mix_hidden = nn.Linear(2 * embed, embed) if reads_hidden else None
        self.ss2d = SS2D(embed, d_state, d_conv, expand, conv)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x, hidden: (B, H, W, E) -> (B, H, W, E)"""
        n = self.norm(x)
        if self.mix_hidden is not None:
            n = self.mix_hidden(torch.cat((n, self.norm(hidden)), dim=-1))  # (B, H, W, 2E) -> (B, H, W, E)
        return x + _drop_path(self.ss2d(n), self.drop_path if self.training else 0.0)


def _drop_path(x: Tensor, probability: float) -> Tensor:
    """Zero whole samples of x (B, ...) and rescale the others, so that the mean stays (arXiv 1603.09382)."""
    if probability == 0.0:
        return x
    keep = 1.0 - probability
    mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)  # (B, 1, ...)
    return x * (mask / keep)


class _VMRNNCell(nn.Module):
    """A stack of VSS blocks, one for every drop path rate, and the gates of VMRNN."""

    def __init__(
        self, embed: int, drop_paths: Sequence[float], d_state: int, d_conv: int, expand: int, conv: str
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _VSSBlock(embed, d_state, d_conv, expand, conv, rate, reads_hidden=i == 0)
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor, state: _CellState | None) -> _CellState:
        """x: (B, H, W, E) -> the new hidden and cell state; without a state, at the first step, both start at zero"""
        hidden, cell = state or (torch.zeros_like(x),) * 2
        for i, block in enumerate(self.blocks):
            x = block(x, hidden) if i == 0 else block(x)
        gate = torch.sigmoid(x)
        # The paper prints gate * tanh(x) + cell; its published results come from this form.
        cell = gate * (cell + torch.tanh(x))
        return gate * torch.tanh(cell), cell


class _PatchEmbedding(nn.Module):
    """Cut a frame into patches and embed each as one token."""

    def __init__(self, channels: int, patch: int, embed: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, embed, patch, stride=patch)
        self.norm = nn.LayerNorm(embed)

    def forward(self, frame: Tensor) -> Tensor:
        """frame: (B, C, rows, cols) -> (B, H, W, E)"""
        return self.norm(self.proj(frame).permute(0, 2, 3, 1))


class _Head(nn.Module):
    """Turn the hidden state into a frame: every transposed convolution doubles rows and columns."""

    def __init__(self, channels: int, patch: int, embed: int) -> None:
        super().__init__()
        self.inner = nn.Sequential()
        for _ in range(patch // 4):
            self.inner.extend((_doubling(embed, embed), nn.GroupNorm(16, embed), nn.LeakyReLU(0.2)))
        self.final = _doubling(embed, channels)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (B, H, W, E) -> (B, C, H * patch, W * patch), any number"""
        return self.final(self.inner(hidden.permute(0, 3, 1, 2)))


def _doubling(channels_in: int, channels_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)


class VMRNN(nn.Module):
    """What every VMRNN does: frames in [0, 1] in, the next frame after every frame and the forecast out.

    A network of the family says in `advance` how one frame becomes the next. Its frames are padded to rows and cols
    that are multiples of `multiple`.
    """

    def __init__(self, rows: int, cols: int, channels: int, multiple: int) -> None:
        super().__init__()
        self.rows, self.cols, self.channels, self.multiple = rows, cols, channels, multiple

    def forward(self, frames: Tensor, horizon: int = 4) -> Tensor:
        """frames: (B, T, C, rows, cols) in [0, 1] -> (B, T - 1 + horizon, C, rows, cols).

        Output i is the prediction of frame i + 1; the last `horizon` outputs are the forecast. The first T
        steps read the observed frames, every later step reads the output before it.
        """
        self._check(frames, horizon)
        outputs: list[Tensor] = []
        state = None
        for t in range(frames.shape[1] - 1 + horizon):
            frame = frames[:, t] if t < frames.shape[1] else outputs[-1]
            output, state = self.step(frame, state)
            outputs.append(output)
        return torch.stack(outputs, dim=1)

    def step(self, frame: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        """frame: (B, C, rows, cols); state: None at the start -> the next frame, in [0, 1], and the new state"""
        # Zeros below and to the right fill the last patches; the output is cropped, so that a frame that was
        # fed back is padded exactly like an observed one.
        x = F.pad(frame, (0, -self.cols % self.multiple, 0, -self.rows % self.multiple))
        output, state = self.advance(x, state)
        return output[:, :, : self.rows, : self.cols], state

    def advance(self, frame: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        """`step` for frames whose rows and cols are multiples of `multiple`"""
        raise NotImplementedError

    def unused_shapes(self) -> dict[str, torch.Size]:
        """The parameters that the published network has and never calls: projections of a cell's later blocks."""
        return {
            f"{path}.blocks.{i}.mix_hidden.{name}": parameter.shape
            for path, cell in self.named_modules()
            if isinstance(cell, _VMRNNCell)
            for name, parameter in cell.get_submodule("blocks.0.mix_hidden").named_parameters()
            for i in range(1, len(cell.blocks))
        }

    def _check(self, frames: Tensor, horizon: int) -> None:
        if frames.ndim != 5 or frames.shape[1] < 1:
            raise ValueError(
                "The network reads frames (batch, time, channel, row, col) with at least one time, "
                f"but it was given the shape {tuple(frames.shape)}."
            )
        expected = (self.channels, self.rows, self.cols)
        if tuple(frames.shape[2:]) != expected:
            raise ValueError(
                f"The network was built for frames of {expected} (channels, rows, cols), "
                f"but it was given {tuple(frames.shape[2:])}."
            )
        if horizon < 1:
            raise ValueError(f"The horizon must be at least 1 slot, but it is {horizon}.")


def _check_sizes(*, patch: int, embed: int, d_conv: int, drop_path: float, conv: str, **sizes: int) -> None:
    """Raise a ValueError that names the size, or the kind of convolution, that no network can have."""
    for name, size in {"embed": embed, "d_conv": d_conv, **sizes}.items():
        if size < 1:
            raise ValueError(f"The network needs {name} of at least 1, but {name} is {size}.")
    if patch not in (2, 4, 8):
        # The head doubles patch // 4 + 1 times, and 2^(patch // 4 + 1) is the patch side for these alone.
        raise ValueError(f"The patch side must be 2, 4 or 8 cells, but it is {patch}.")
    if patch >= 4 and embed % 16 != 0:
        raise ValueError(f"The head has 16 groups, so embed must be a multiple of 16, not {embed}.")
    if d_conv % 2 == 0:
        raise ValueError(f"The depthwise convolution needs an odd side d_conv, but it is {d_conv}.")
    if conv not in CONVOLUTIONS:
        raise ValueError(f"The convolution is {' or '.join(CONVOLUTIONS)}, not '{conv}'.")
    if not 0.0 <= drop_path < 1.0:
        raise ValueError(f"drop_path is a probability in [0, 1), but it is {drop_path}.")


class _VMRNNB(VMRNN):
    """One cell between patch embedding and head."""

    def __init__(
        self,
        rows: int,
        cols: int,
        channels: int,
        patch: int,
        depth: int,
        embed: int,
        d_state: int,
        d_conv: int,
        expand: int,
        drop_path: float,
        conv: str,
    ) -> None:
        super().__init__(rows, cols, channels, multiple=patch)
        block = {"d_state": d_state, "d_conv": d_conv, "expand": expand}
        sizes = {"rows": rows, "cols": cols, "channels": channels, "depth": depth}
        _check_sizes(patch=patch, embed=embed, drop_path=drop_path, conv=conv, **sizes, **block)
        self.embedding = _PatchEmbedding(channels, patch, embed)
        self.cell = _VMRNNCell(embed, [drop_path] * depth, **block, conv=conv)
        self.head = _Head(channels, patch, embed)

    def advance(self, frame: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        """See VMRNN."""
        hidden, cell = self.cell(self.embedding(frame), state[0] if state else None)
        return torch.sigmoid(self.head(hidden)), [(hidden, cell)]


def vmrnn_b(
    rows: int = 32,
    cols: int = 32,
    channels: int = 2,
    patch: int = 4,
    depth: int = 12,
    embed: int = 128,
    d_state: int = 16,
    d_conv: int = 3,
    expand: int = 2,
    drop_path: float = 0.1,
    conv: str = "depthwise",
) -> _VMRNNB:
    """VMRNN-B; the defaults are the published network for TaxiBJ."""
    return _VMRNNB(rows, cols, channels, patch, depth, embed, d_state, d_conv, expand, drop_path, conv)


class _Counted(Protocol):
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def unused_shapes(self) -> dict[str, torch.Size]: ...


def parameter_counts(model: _Counted) -> dict[str, int]:
    """`live`: what this network has. `published`: with what the published one has and never calls."""
    live = sum(p.numel() for p in model.parameters())
    return {"live": live, "published": live + sum(shape.numel() for shape in model.unused_shapes().values())}
