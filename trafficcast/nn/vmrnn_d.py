"""VMRNN-D: a VMRNN of several cells for grids finer than 32 x 32; every cell works at a resolution of its own.

On the way down two rows and columns of tokens merge into one, on the way up one expands into two. Only tokens go from
cell to cell: there are no skip connections.

Source: VMRNN (arXiv 2403.16536, section 3) and the paper's code. Dimensions as in `vmrnn.py`, with E the width of the
tokens at the resolution in question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trafficcast.nn.vmrnn import VMRNN, NetworkSizes, _CellState, _Head, _PatchEmbedding, _State, _VMRNNCell


class _PatchMerging(nn.Module):
    """Merges four neighbouring tokens into one of double width."""

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * embed)
        self.reduction = nn.Linear(4 * embed, 2 * embed, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Merge tokens (B, H, W, E) to (B, H / 2, W / 2, 2E)."""
        B, H, W, E = x.shape
        # The order of the four neighbours is column by column, each from top to bottom.
        x = x.view(B, H // 2, 2, W // 2, 2, E).permute(0, 1, 3, 4, 2, 5)  # (B, H / 2, W / 2, column, row, E)
        return self.reduction(self.norm(x.reshape(B, H // 2, W // 2, 4 * E)))


class _PatchExpanding(nn.Module):
    """Expands a token into four neighbouring ones of half its width."""

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.expand = nn.Linear(embed, 2 * embed, bias=False)
        self.norm = nn.LayerNorm(embed // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Expand tokens (B, H, W, E) to (B, 2H, 2W, E / 2)."""
        B, H, W, E = x.shape
        x = self.expand(x).view(B, H, W, 2, 2, E // 2).transpose(2, 3)  # (B, H, row, W, column, E / 2)
        return self.norm(x.reshape(B, 2 * H, 2 * W, E // 2))


class _Level(nn.Module):
    """A cell at one resolution, and the change to the next resolution."""

    def __init__(self, cell: _VMRNNCell, resize: _PatchMerging | _PatchExpanding) -> None:
        super().__init__()
        self.cell = cell
        self.resize = resize

    def forward(self, x: Tensor, state: _CellState | None) -> tuple[Tensor, _CellState]:
        """Return the next level's tokens after x (B, H, W, E), and the cell's new state."""
        state = self.cell(x, state)
        return self.resize(state[0]), state


class _VMRNND(VMRNN):
    """Levels down and the same up again, between patch embedding and head.

    `depths` are the numbers of blocks of the cells on the way down, finest first. The way up has as many cells,
    coarsest first, with the same numbers in the same order: its first, coarsest cell has as many blocks as the finest.
    The paper writes the depths as (2, 6, 6, 2), but its code does this.
    """

    def __init__(self, sizes: NetworkSizes, depths: Sequence[int]) -> None:
        super().__init__(sizes, multiple=sizes.patch * 2 ** len(depths))
        # The rates rise with the blocks of the way down; the way up takes them from the end, cell by cell.
        rates = torch.linspace(0.0, sizes.drop_path, sum(depths))
        down, up = rates.split(list(depths)), rates.split(list(depths[::-1]))[::-1]
        widths = [sizes.embed * 2**i for i in range(len(depths) + 1)]
        self.down_embedding = _PatchEmbedding(sizes.channels, sizes.patch, sizes.embed)
        self.down = nn.ModuleList(
            _Level(_VMRNNCell(replace(sizes, embed=width), cell_rates.tolist()), _PatchMerging(width))
            for cell_rates, width in zip(down, widths[:-1], strict=True)
        )
        self.up = nn.ModuleList(
            _Level(_VMRNNCell(replace(sizes, embed=width), cell_rates.tolist()), _PatchExpanding(width))
            for cell_rates, width in zip(up, widths[:0:-1], strict=True)
        )
        self.up_head = _Head(sizes.channels, sizes.patch, sizes.embed)

    def _advance(self, frame: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        levels = (*self.down, *self.up)
        before: Sequence[_CellState | None] = state or [None] * len(levels)
        x, after = self.down_embedding(frame), []
        for level, cell_state in zip(levels, before, strict=True):
            x, cell_state = level(x, cell_state)
            after.append(cell_state)
        return torch.sigmoid(self.up_head(x)), after

    def _unused_shapes(self) -> dict[str, torch.Size]:
        """See VMRNN. The paper's network also has a second patch embedding, on the way up."""
        second = {f"up_embedding.{name}": parameter.shape for name, parameter in self.down_embedding.named_parameters()}
        return super()._unused_shapes() | second


def vmrnn_d(
    rows: int = 64, cols: int = 64, channels: int = 2, patch: int = 2, depths: Sequence[int] = (2, 6), **sizes: Any
) -> VMRNN:
    """Build VMRNN-D; with one channel the defaults are the paper's network for Moving MNIST.

    Parameters
    ----------
    rows
        Rows of the city's grid.
    cols
        Columns of the city's grid.
    channels
        Flow kinds, the channels of a frame.
    patch
        Side of a patch, cells: 2, 4 or 8.
    depths
        VSS blocks of the cells on the way down, finest first.
    **sizes
        Other sizes, as in NetworkSizes.

    Returns
    -------
    VMRNN
        The network with random weights.
    """
    return _VMRNND(NetworkSizes(rows, cols, channels, patch, min(depths, default=0), **sizes), depths)
