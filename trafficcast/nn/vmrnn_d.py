"""VMRNN-D: a VMRNN of several cells, for grids finer than 32 x 32; every cell works at a resolution of its own.

On the way down two rows and columns of tokens merge into one, on the way up one expands into two. Nothing but the
tokens goes from cell to cell: there are no skip connections.

Source: VMRNN (arXiv 2403.16536, section 3) and the network published with it. Dimensions as in `vmrnn.py`, with E
the width of the tokens where they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trafficcast.nn.vmrnn import VMRNN, _CellState, _check_sizes, _Head, _PatchEmbedding, _State, _VMRNNCell


class _PatchMerging(nn.Module):
    """Four neighbouring tokens become one of double width."""

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * embed)
        self.reduction = nn.Linear(4 * embed, 2 * embed, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, E) -> (B, H / 2, W / 2, 2E)"""
        B, H, W, E = x.shape
        # A column of neighbours after the other, from top to bottom.
        x = x.view(B, H // 2, 2, W // 2, 2, E).permute(0, 1, 3, 4, 2, 5)  # (B, H / 2, W / 2, column, row, E)
        return self.reduction(self.norm(x.reshape(B, H // 2, W // 2, 4 * E)))


class _PatchExpanding(nn.Module):
    """A token becomes four neighbouring ones of half its width."""

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.expand = nn.Linear(embed, 2 * embed, bias=False)
        self.norm = nn.LayerNorm(embed // 2)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, E) -> (B, 2H, 2W, E / 2)"""
        B, H, W, E = x.shape
        x = self.expand(x).view(B, H, W, 2, 2, E // 2).transpose(2, 3)  # (B, H, row, W, column, E / 2)
        return self.norm(x.reshape(B, 2 * H, 2 * W, E // 2))


class _Level(nn.Module):
    """A cell at one resolution and the way to the next one."""

    def __init__(self, cell: _VMRNNCell, resize: _PatchMerging | _PatchExpanding) -> None:
        super().__init__()
        self.cell = cell
        self.resize = resize

    def forward(self, x: Tensor, state: _CellState | None) -> tuple[Tensor, _CellState]:
        """x: (B, H, W, E) -> the next level's x and the cell's new state"""
        state = self.cell(x, state)
        return self.resize(state[0]), state


class _VMRNND(VMRNN):
    """Levels down and the same up again, between patch embedding and head.

    `depths`: the numbers of blocks of the cells on the way down, finest first. The way up has as many cells, coarsest
    first, with the same numbers in the same order: its first, coarsest cell has as many blocks as the finest. The
    paper writes the depths as (2, 6, 6, 2); this is what its published network does.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        channels: int,
        patch: int,
        depths: Sequence[int],
        embed: int,
        d_state: int,
        d_conv: int,
        expand: int,
        drop_path: float,
        conv: str,
    ) -> None:
        super().__init__(rows, cols, channels, multiple=patch * 2 ** len(depths))
        block = {"d_state": d_state, "d_conv": d_conv, "expand": expand}
        sizes = {"rows": rows, "cols": cols, "channels": channels, "depth": min(depths, default=0)}
        _check_sizes(patch=patch, embed=embed, drop_path=drop_path, conv=conv, **sizes, **block)
        # The rates rise with the blocks of the way down; the way up takes them from the end, cell by cell.
        rates = torch.linspace(0.0, drop_path, sum(depths))
        down, up = rates.split(list(depths)), rates.split(list(depths[::-1]))[::-1]
        self.down_embedding = _PatchEmbedding(channels, patch, embed)
        self.down = nn.ModuleList(
            _Level(_VMRNNCell(width, own.tolist(), **block, conv=conv), _PatchMerging(width))
            for own, width in zip(down, (embed * 2**i for i in range(len(down))), strict=True)
        )
        self.up = nn.ModuleList(
            _Level(_VMRNNCell(width, own.tolist(), **block, conv=conv), _PatchExpanding(width))
            for own, width in zip(up, (embed * 2**i for i in range(len(up), 0, -1)), strict=True)
        )
        self.up_head = _Head(channels, patch, embed)

    def advance(self, frame: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        """See VMRNN."""
        levels = (*self.down, *self.up)
        before: Sequence[_CellState | None] = state or [None] * len(levels)
        x, after = self.down_embedding(frame), []
        for level, cell_state in zip(levels, before, strict=True):
            x, cell_state = level(x, cell_state)
            after.append(cell_state)
        return torch.sigmoid(self.up_head(x)), after

    def unused_shapes(self) -> dict[str, torch.Size]:
        """See VMRNN. The published network also has a second patch embedding, on the way up."""
        second = {f"up_embedding.{name}": parameter.shape for name, parameter in self.down_embedding.named_parameters()}
        return super().unused_shapes() | second


def vmrnn_d(
    rows: int = 64,
    cols: int = 64,
    channels: int = 2,
    patch: int = 2,
    depths: Sequence[int] = (2, 6),
    embed: int = 128,
    d_state: int = 16,
    d_conv: int = 3,
    expand: int = 2,
    drop_path: float = 0.1,
    conv: str = "depthwise",
) -> _VMRNND:
    """VMRNN-D; with one channel the defaults are the published network for Moving MNIST."""
    return _VMRNND(rows, cols, channels, patch, depths, embed, d_state, d_conv, expand, drop_path, conv)
