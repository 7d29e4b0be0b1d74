"""VMRNN: recurrent networks for maps of city flows, whose cells are stacks of VSS blocks; VMRNN-B has one cell.

Sources: VMRNN (arXiv 2403.16536, section 3); VMamba (arXiv 2401.10166) for SS2D and the VSS block.

Dimensions throughout this file: B batch, T frames, C flow kinds (inflow, outflow), H x W the grid of tokens (rows
and columns of the city divided by the patch side), L = H * W tokens, E embedding width, I = expand * E inner
width of SS2D, K = 4 scan directions, N states per channel, R rank of the step size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trafficcast.nn.cross_scan import _DIRECTIONS, cross_scan

_CellState = tuple[Tensor, Tensor]  # the hidden and the cell state, (B, H, W, E) each
_State = list[_CellState]  # the states of all cells of a network, in the order of their calls
CONVOLUTIONS = ("depthwise", "plain", "dilated")  # the paper's is depthwise


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of a VMRNN; the defaults are those of the paper's VMRNN-B for TaxiBJ.

    Attributes
    ----------
    rows
        Rows of the city's grid.
    cols
        Columns of the city's grid.
    channels
        Flow kinds, the channels of a frame.
    patch
        Side of a patch, cells: 2, 4 or 8.
    depth
        VSS blocks of a cell; in VMRNN-D those of the shallowest cell.
    embed
        Width of a token.
    d_state
        States per channel of the scans.
    d_conv
        Side of the convolution before the scans, tokens; odd.
    expand
        Inner width of SS2D divided by the width of a token.
    drop_path
        Probability with which a sample skips a block in training.
    conv
        Kind of the convolution before the scans, one of CONVOLUTIONS.

    Raises
    ------
    ValueError
        No network can have one of the sizes.
    """

    rows: int = 32
    cols: int = 32
    channels: int = 2
    patch: int = 4
    depth: int = 12
    embed: int = 128
    d_state: int = 16
    d_conv: int = 3
    expand: int = 2
    drop_path: float = 0.1
    conv: str = "depthwise"

    def __post_init__(self) -> None:
        for name in ("embed", "d_conv", "rows", "cols", "channels", "depth", "d_state", "expand"):
            if (size := getattr(self, name)) < 1:
                raise ValueError(f"The network needs {name} of at least 1, but {name} is {size}.")
        if self.patch not in (2, 4, 8):
            # The head doubles patch // 4 + 1 times, and 2^(patch // 4 + 1) is the patch side for these alone.
            raise ValueError(f"The patch side must be 2, 4 or 8 cells, but it is {self.patch}.")
        if self.patch >= 4 and self.embed % 16 != 0:
            raise ValueError(f"The head has 16 groups, so embed must be a multiple of 16, not {self.embed}.")
        if self.d_conv % 2 == 0:
            raise ValueError(f"The depthwise convolution needs an odd side d_conv, but it is {self.d_conv}.")
        if self.conv not in CONVOLUTIONS:
            raise ValueError(f"The convolution is {' or '.join(CONVOLUTIONS)}, not '{self.conv}'.")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path is a probability in [0, 1), but it is {self.drop_path}.")


class SS2D(nn.Module):
    """Four selective scans over an image: by row and by column, forwards and backwards (VMamba, section 4.2).

    Parameters
    ----------
    embed
        Width of a token, E.
    d_state
        States per channel, N.
    d_conv
        Side of the convolution before the scans, tokens; odd.
    expand
        Inner width divided by the width of a token.
    conv
        Kind of the convolution, one of CONVOLUTIONS.
    """

    def __init__(self, embed: int, d_state: int, d_conv: int, expand: int, conv: str = "depthwise") -> None:
        super().__init__()
        inner = expand * embed
        rank = math.ceil(embed / 16)
        self.widths = [rank, d_state, d_state]  # a token's projection holds its step size, B and C
        self.in_proj = nn.Linear(embed, 2 * inner, bias=False)
        # A plain convolution mixes the channels; a dilated one is depthwise and reads every other token.
        groups, dilation = 1 if conv == "plain" else inner, 2 if conv == "dilated" else 1
        padding = dilation * (d_conv // 2)
        self.conv = nn.Conv2d(inner, inner, d_conv, padding=padding, dilation=dilation, groups=groups)
        # Each has a matrix per direction. The first is initialised as in nn.Linear; the second and the bias of the step
        # size as in Mamba (arXiv 2312.00752, section 3.6).
        self.scan_proj = nn.Parameter(_uniform(_DIRECTIONS, sum(self.widths), inner))
        self.dt_weight = nn.Parameter(_uniform(_DIRECTIONS, inner, rank))
        self.dt_bias = nn.Parameter(_initial_dt_bias(_DIRECTIONS, inner))
        rates = torch.arange(1, d_state + 1, dtype=torch.float32).log()
        self.A_log = nn.Parameter(rates.repeat(_DIRECTIONS, inner, 1))  # (K, I, N)
        self.D = nn.Parameter(torch.ones(_DIRECTIONS, inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, embed, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens of an image.

        Parameters
        ----------
        x
            Tokens (B, H, W, E).

        Returns
        -------
        Tensor
            Tokens (B, H, W, E).
        """
        x, z = self.in_proj(x).chunk(2, dim=-1)  # (B, H, W, I) each
        x = F.silu(self.conv(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)  # (B, H, W, I)
        y = self._scan(x).to(z.dtype)
        return self.out_proj(self.out_norm(y) * F.silu(z))

    def _scan(self, x: Tensor) -> Tensor:
        """Return the sum of the four scans of x (B, H, W, I), (B, H, W, I) float32, also under autocast."""
        B, _, _, inner = x.shape
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.A_log.dtype)
            # A token's step size, B and C do not depend on the order of the tokens: one matrix product serves all
            # directions, (B * L, I) @ (I, K * (R + 2N)), and each scan reads it in its own order.
            projected = x.reshape(-1, inner) @ self.scan_proj.flatten(0, 1).T
            projected = projected.unflatten(1, (_DIRECTIONS, -1)).transpose(0, 1)  # (K, B * L, R + 2N)
            dt, b, c = torch.split(projected, self.widths, dim=-1)
            dt = dt @ self.dt_weight.transpose(1, 2)  # (K, B * L, I)
            dt, b, c = (tensor.unflatten(1, (B, -1)) for tensor in (dt, b, c))
            return cross_scan(x, dt, b, c, self.dt_bias, -self.A_log.exp(), self.D)


def _uniform(*shape: int) -> Tensor:
    """Draw matrices (..., outputs, inputs) as nn.Linear does."""
    bound = shape[-1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound)


def _initial_dt_bias(*shape: int) -> Tensor:
    """Draw step sizes log-uniformly from 0.001 to 0.1 and return their inverse softplus."""
    log_dt = torch.empty(shape).uniform_(math.log(0.001), math.log(0.1))
    dt = log_dt.exp().clamp_min(1e-4)
    return dt + torch.log(-torch.expm1(-dt))


class _VSSBlock(nn.Module):
    """x + DropPath(SS2D(n)), n = norm(x). The first block of a cell mixes the hidden state into n."""

    def __init__(self, sizes: NetworkSizes, drop_path: float, reads_hidden: bool) -> None:
        super().__init__()
        embed = sizes.embed
        self.drop_path = drop_path
        self.norm = nn.LayerNorm(embed)
        # The paper's network has this projection in every block and calls it in the first alone.
        self.mix_hidden = nn.Linear(2 * embed, embed) if reads_hidden else None
        self.ss2d = SS2D(embed, sizes.d_state, sizes.d_conv, sizes.expand, sizes.conv)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Mix the tokens x and hidden, (B, H, W, E) each, to (B, H, W, E)."""
        n = self.norm(x)
        if self.mix_hidden is not None:
            n = self.mix_hidden(torch.cat((n, self.norm(hidden)), dim=-1))  # (B, H, W, 2E) -> (B, H, W, E)
        return x + _drop_path(self.ss2d(n), self.drop_path if self.training else 0.0)


def _drop_path(x: Tensor, probability: float) -> Tensor:
    """Set whole samples of x (B, ...) to zero and rescale the others, so that the mean stays (arXiv 1603.09382)."""
    if probability == 0.0:
        return x
    keep = 1.0 - probability
    mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)  # (B, 1, ...)
    return x * (mask / keep)


class _VMRNNCell(nn.Module):
    """A stack of VSS blocks, one for every drop path rate, and the gates of VMRNN."""

    def __init__(self, sizes: NetworkSizes, drop_paths: Sequence[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_VSSBlock(sizes, rate, reads_hidden=i == 0) for i, rate in enumerate(drop_paths))

    def forward(self, x: Tensor, state: _CellState | None) -> _CellState:
        """Return the hidden and cell state after x (B, H, W, E); without a state, both start at zero."""
        hidden, cell = state or (torch.zeros_like(x),) * 2
        for i, block in enumerate(self.blocks):
            x = block(x, hidden) if i == 0 else block(x)
        gate = torch.sigmoid(x)
        # The paper prints gate * tanh(x) + cell; its code, from which its results come, has this form.
        cell = gate * (cell + torch.tanh(x))
        return gate * torch.tanh(cell), cell


class _PatchEmbedding(nn.Module):
    """Cuts a frame into patches and embeds each as one token."""

    def __init__(self, channels: int, patch: int, embed: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, embed, patch, stride=patch)
        self.norm = nn.LayerNorm(embed)

    def forward(self, frame: Tensor) -> Tensor:
        """Embed frame (B, C, rows, cols) as (B, H, W, E)."""
        return self.norm(self.proj(frame).permute(0, 2, 3, 1))


class _Head(nn.Module):
    """Turns the hidden state into a frame: every transposed convolution doubles rows and columns."""

    def __init__(self, channels: int, patch: int, embed: int) -> None:
        super().__init__()
        self.inner = nn.Sequential()
        for _ in range(patch // 4):
            self.inner.extend((_doubling(embed, embed), nn.GroupNorm(16, embed), nn.LeakyReLU(0.2)))
        self.final = _doubling(embed, channels)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the frame (B, C, H * patch, W * patch) of hidden (B, H, W, E), without bounds."""
        return self.final(self.inner(hidden.permute(0, 3, 1, 2)))


def _doubling(channels_in: int, channels_out: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles rows and columns."""
    return nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)


class VMRNN(nn.Module):
    """Base of VMRNN-B and VMRNN-D: reads frames in [0, 1], forecasts the next frame after every frame.

    A subclass implements `_advance`, one step from a frame to the next.

    Parameters
    ----------
    sizes
        Sizes of the network.
    multiple
        Frames are padded with zeros to multiples of so many rows and columns.
    """

    def __init__(self, sizes: NetworkSizes, multiple: int) -> None:
        super().__init__()
        self.rows, self.cols, self.channels, self.multiple = sizes.rows, sizes.cols, sizes.channels, multiple

    def forward(self, frames: Tensor, horizon: int = 4) -> Tensor:
        """Forecast the frame after every frame and `horizon` frames after the last.

        The first T steps read the observed frames, every later step reads the output before it.

        Parameters
        ----------
        frames
            Observed frames (B, T, C, rows, cols) in [0, 1].
        horizon
            Frames to forecast after the last observed one.

        Returns
        -------
        Tensor
            Frames (B, T - 1 + horizon, C, rows, cols) in [0, 1]. Output i predicts frame i + 1; the last `horizon`
            outputs are the forecast.

        Raises
        ------
        ValueError
            The frames do not fit the network, or the horizon is below 1.
        """
        self._check(frames, horizon)
        outputs: list[Tensor] = []
        state = None
        for t in range(frames.shape[1] - 1 + horizon):
            frame = frames[:, t] if t < frames.shape[1] else outputs[-1]
            output, state = self._step(frame, state)
            outputs.append(output)
        return torch.stack(outputs, dim=1)

    def _step(self, frame: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        """Return the frame after (B, C, rows, cols), in [0, 1], and the new state; at the start there is no state."""
        # Zeros below and to the right fill the last patches; the output is cropped, so that a frame that was
        # fed back is padded exactly like an observed one.
        x = F.pad(frame, (0, -self.cols % self.multiple, 0, -self.rows % self.multiple))
        output, state = self._advance(x, state)
        return output[:, :, : self.rows, : self.cols], state

    def _advance(self, frame: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        """Do the same as `_step` for a frame whose rows and columns are multiples of `multiple`."""
        raise NotImplementedError

    def _unused_shapes(self) -> dict[str, torch.Size]:
        """Return the parameters that the paper's network has and never calls: projections of a cell's later blocks."""
        return {
            f"{path}.blocks.{i}.mix_hidden.{name}": parameter.shape
            for path, cell in self.named_modules()
            if isinstance(cell, _VMRNNCell)
            for name, parameter in cell.get_submodule("blocks.0.mix_hidden").named_parameters()
            for i in range(1, len(cell.blocks))
        }

    def _check(self, frames: Tensor, horizon: int) -> None:
        """Raise a ValueError where the frames or the horizon do not fit the network."""
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


class _VMRNNB(VMRNN):
    """One cell between patch embedding and head."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__(sizes, multiple=sizes.patch)
        self.embedding = _PatchEmbedding(sizes.channels, sizes.patch, sizes.embed)
        self.cell = _VMRNNCell(sizes, [sizes.drop_path] * sizes.depth)
        self.head = _Head(sizes.channels, sizes.patch, sizes.embed)

    def _advance(self, frame: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        hidden, cell = self.cell(self.embedding(frame), state[0] if state else None)
        return torch.sigmoid(self.head(hidden)), [(hidden, cell)]


def vmrnn_b(rows: int = 32, cols: int = 32, channels: int = 2, **sizes: Any) -> VMRNN:
    """Build VMRNN-B; the defaults are the paper's network for TaxiBJ.

    Parameters
    ----------
    rows
        Rows of the city's grid.
    cols
        Columns of the city's grid.
    channels
        Flow kinds, the channels of a frame.
    **sizes
        Other sizes, as in NetworkSizes.

    Returns
    -------
    VMRNN
        The network with random weights.
    """
    return _VMRNNB(NetworkSizes(rows, cols, channels, **sizes))


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Count the parameters of a network.

    Parameters
    ----------
    model
        The network.

    Returns
    -------
    dict[str, int]
        `live`: parameters of this network; `published`: with those that the paper's network has and never calls.
    """
    live = sum(p.numel() for p in model.parameters())
    unused = model._unused_shapes() if isinstance(model, VMRNN) else {}
    return {"live": live, "published": live + sum(shape.numel() for shape in unused.values())}
