"""VMRNN-C: VMRNN-B's cell, forecasting the departure from what is normal there and then.

The published network sees four frames and nothing else. This one is also told what is normal for each slot and what
the calendar says, reads and writes departures in units of their standard deviation, and starts from anomaly
persistence, so that it has to learn only what is left.

Dimensions throughout this file: B batch, T frames observed, S = T + horizon slots, C flows, F calendar features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trafficcast.nn.vmrnn import Head, PatchEmbedding, VMRNNCell, check_sizes

HORIZON = 4
# Counts vary around what is normal in proportion to it; one vehicle more keeps empty cells from dominating.
VARIANCE_FLOOR = 1.0
STEM = 32  # channels at full resolution


class VMRNNC(nn.Module):
    """Frames, what is normal and the calendar in; the forecast out; all in vehicles per slot, without a ceiling."""

    def __init__(
        self,
        rows: int,
        cols: int,
        channels: int,
        features: int,
        patch: int,
        depth: int,
        embed: int,
        d_state: int,
        d_conv: int,
        expand: int,
        drop_path: float,
        conv: str,
    ) -> None:
        super().__init__()
        block = {"d_state": d_state, "d_conv": d_conv, "expand": expand}
        sizes = {"rows": rows, "cols": cols, "channels": channels, "depth": depth}
        check_sizes(patch=patch, embed=embed, drop_path=drop_path, conv=conv, **sizes, **block)
        self.channels, self.rows, self.cols, self.patch = channels, rows, cols, patch
        # What one cell and its neighbours tell is the same everywhere: it is learned once, at full resolution, and goes
        # around the cell's patches to the output as well as through them.
        self.stem = nn.Sequential(nn.Conv2d(6 * channels + features, STEM, 3, padding=1), nn.GELU())
        self.embedding = PatchEmbedding(STEM, patch, embed)
        self.cell = VMRNNCell(embed, [drop_path] * depth, **block, conv=conv)
        self.head = Head(STEM, patch, embed)
        self.out = nn.Sequential(nn.Conv2d(2 * STEM, STEM, 1), nn.GELU(), nn.Conv2d(STEM, channels, 1))
        # At first the network adds nothing to anomaly persistence.
        for parameter in self.out[-1].parameters():
            nn.init.zeros_(parameter)
        self.persistence = nn.Parameter(torch.full((HORIZON,), 0.4))  # the share of a departure that is left

    def forward(self, frames: Tensor, normal: Tensor, calendar: Tensor, horizon: int = HORIZON) -> Tensor:
        """The forecast (B, horizon, C, rows, cols), vehicles per slot; may be slightly negative.

        frames:   (B, T, C, rows, cols) observed, vehicles per slot
        normal:   (B, S, C, rows, cols) what is normal in those slots and the `horizon` after them
        calendar: (B, S, F)             their features
        """
        T = frames.shape[1]
        self._check(frames, normal, calendar, horizon)
        busy = frames.sum((1, 2, 3, 4)) / normal[:, :T].sum((1, 2, 3, 4)).clamp_min(1.0)
        busy = busy[:, None, None, None]  # (B, 1, 1, 1), beside normal
        departure = (frames - busy[:, None] * normal[:, :T]).mean(1)  # (B, C, rows, cols)
        last = frames[:, -1] - busy * normal[:, T - 1]
        spread = (normal + VARIANCE_FLOOR).sqrt()
        forecast: list[Tensor] = []
        state = None
        for t in range(T - 1 + horizon):
            lead = max(t + 1 - T, 0)
            start = busy * normal[:, t + 1] + self.persistence[lead] * departure
            frame = frames[:, t] if t < T else forecast[-1]
            x = torch.cat(
                (
                    (frame - normal[:, t]) / spread[:, t],
                    (start - normal[:, t + 1]) / spread[:, t + 1],
                    departure / spread[:, t + 1],
                    last / spread[:, t + 1],
                    spread[:, t].log(),
                    spread[:, t + 1].log(),
                    calendar[:, t + 1, :, None, None].expand(-1, -1, self.rows, self.cols),
                ),
                dim=1,
            )
            x = F.pad(x, (0, -self.cols % self.patch, 0, -self.rows % self.patch))
            near = self.stem(x)
            state = self.cell(self.embedding(near), state)
            if t >= T - 1:
                change = self.out(torch.cat((near, self.head(state[0])), dim=1))[:, :, : self.rows, : self.cols]
                forecast.append(start + spread[:, t + 1] * change)
        return torch.stack(forecast, dim=1)

    def unused_shapes(self) -> dict[str, torch.Size]:
        """Nothing: there is no published network of this kind."""
        return {}

    def _check(self, frames: Tensor, normal: Tensor, calendar: Tensor, horizon: int) -> None:
        if not 1 <= horizon <= HORIZON:
            raise ValueError(f"The horizon must be 1 to {HORIZON} slots, but it is {horizon}.")
        B, slots = len(frames), frames.shape[1] + horizon
        expected = (self.channels, self.rows, self.cols)
        if frames.shape[2:] != expected or normal.shape != (B, slots, *expected) or calendar.shape[:2] != (B, slots):
            raise ValueError(
                f"The network was built for frames of {expected} (channels, rows, cols) and needs what is normal and "
                f"the calendar of all {slots} slots, but was given frames {tuple(frames.shape)}, normal "
                f"{tuple(normal.shape)} and calendar {tuple(calendar.shape)}."
            )


def vmrnn_c(
    rows: int = 32,
    cols: int = 32,
    channels: int = 2,
    features: int = 6,
    patch: int = 4,
    depth: int = 12,
    embed: int = 128,
    d_state: int = 16,
    d_conv: int = 3,
    expand: int = 2,
    drop_path: float = 0.1,
    conv: str = "depthwise",
) -> VMRNNC:
    """VMRNN-C; the defaults are VMRNN-B's."""
    return VMRNNC(rows, cols, channels, features, patch, depth, embed, d_state, d_conv, expand, drop_path, conv)
