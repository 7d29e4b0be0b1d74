"""VMRNN-C: VMRNN-B's cell, forecasting the departure from what is normal there and then.

The published network sees four frames and nothing else. This one is also told what is normal for each slot and what
the calendar says, reads and writes departures in units of their standard deviation, and starts from anomaly
persistence and the city's patterns (see `trafficcast.patterns`), so that it has to learn only what is left.

Dimensions throughout this file: B batch, T frames observed, S = T + horizon slots, C flows, F calendar features, P
patterns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trafficcast.nn.vmrnn import _check_sizes, _Head, _PatchEmbedding, _VMRNNCell

_HORIZON = 4
# Counts vary around what is expected in proportion to it; one vehicle more keeps empty cells from dominating.
VARIANCE_FLOOR = 1.0
_STEM = 32  # channels at full resolution
# What is left of four terms: of a cell's mean departure over the history and of its last one, of the patterns and of
# being busy. Each share is a sum over one, the calendar, how much busier than normal it is and how far from that, in
# units of UNUSUAL and up to MOST_UNUSUAL of them.
TERMS = 4
_FEATURES_BESIDE_CALENDAR = 3
UNUSUAL, MOST_UNUSUAL = 0.1, 3.0


@dataclass(frozen=True)
class _Started:
    """What is known before the network says more, of S slots and of the history.

    start:     (B, S - 1, C, rows, cols) the forecast to start from, vehicles per slot
    spread:    (B, S, C, rows, cols)     the standard deviation of a count as busy as now
    together:  (B, S - 1, C, rows, cols) what is left of the patterns, in units of that
    departure, last: the history's mean departure from what is normal as busy as now, and its last one
    busier:    (B, 1)                    how much busier than normal, in units of UNUSUAL
    """

    start: Tensor
    spread: Tensor
    together: Tensor
    departure: Tensor
    last: Tensor
    busier: Tensor


class _Start(nn.Module):
    """The city's own linear forecast, fitted to it and not learned: see `trafficcast.patterns.Patterns`."""

    patterns: Tensor
    shares: Tensor
    left: Tensor

    def __init__(self, rows: int, cols: int, channels: int, features: int, patterns: int) -> None:
        super().__init__()
        if patterns < 0:
            raise ValueError(f"The number of patterns must be 0 or more, but it is {patterns}.")
        self.expected_shape = (channels, rows, cols)
        self.register_buffer("patterns", torch.zeros(patterns, channels, rows, cols))
        self.register_buffer("shares", torch.zeros(_HORIZON, patterns, 2))
        self.register_buffer("left", torch.zeros(_HORIZON, features + _FEATURES_BESIDE_CALENDAR, TERMS))
        self.left[:, 0, 0] = 0.4  # unless told otherwise, anomaly persistence

    def set(self, basis: Tensor, shares: Tensor, left: Tensor) -> None:
        """Forecast what these patterns say."""
        self.patterns.copy_(basis)
        self.shares.copy_(shares)
        self.left.copy_(left)

    def forward(
        self, frames: Tensor, normal: Tensor, calendar: Tensor, patterns: Tensor | None = None, horizon: int = _HORIZON
    ) -> Tensor:
        """See VMRNNC."""
        return self.begin(frames, normal, calendar, patterns, horizon).start[:, -horizon:]

    def begin(
        self, frames: Tensor, normal: Tensor, calendar: Tensor, patterns: Tensor | None, horizon: int
    ) -> _Started:
        """All that the network starts from (see VMRNNC); the history's slots are forecast as the first after it is."""
        self._check(frames, normal, calendar, horizon)
        T = frames.shape[1]
        busy = frames.sum((1, 2, 3, 4)) / normal[:, :T].sum((1, 2, 3, 4)).clamp_min(1.0)
        busier = ((busy[:, None] - 1) / UNUSUAL).clamp(-MOST_UNUSUAL, MOST_UNUSUAL)
        expected = busy[:, None, None, None, None] * normal
        spread = (expected + VARIANCE_FLOOR).sqrt()
        departures = frames - expected[:, :T]
        departure, last = departures.mean(1), departures[:, -1]

        def by_slot(leads: Tensor) -> Tensor:
            """Of all slots after the first, from (B, HORIZON, ...)."""
            return torch.cat((*[leads[:, :1]] * (T - 1), leads[:, :horizon]), dim=1)

        together = by_slot(self._lasting(departures / spread[:, :T], patterns))
        told = torch.cat((torch.ones_like(busier), calendar[:, T], busier, busier.abs()), dim=1)
        left = by_slot((told[:, None, :, None] * self.left).sum(2))[..., None, None, None]
        terms = departure[:, None], last[:, None], spread[:, 1:] * together, expected[:, 1:]
        start = expected[:, 1:] + sum(left[:, :, i] * term for i, term in enumerate(terms))
        return _Started(start, spread, together, departure, last, busier)

    def _lasting(self, unusual: Tensor, patterns: Tensor | None) -> Tensor:
        """What is left of departures (B, T, C, rows, cols) as far as they are patterns: (B, HORIZON, C, rows, cols)."""
        # A projection sums thousands of cells.
        with torch.autocast(unusual.device.type, enabled=False):
            basis = (self.patterns[None] if patterns is None else patterns).float()
            basis = basis.expand(len(unusual), -1, -1, -1, -1).flatten(2)  # (B, P, cells)
            amounts = unusual.float().flatten(2) @ basis.mT  # (B, T, P)
            seen = torch.stack((amounts.mean(1), amounts[:, -1]), dim=-1)  # (B, P, 2)
            left = (seen[:, None] * self.shares).sum(-1)  # (B, HORIZON, P)
            return (left @ basis).unflatten(2, unusual.shape[2:])

    def _check(self, frames: Tensor, normal: Tensor, calendar: Tensor, horizon: int) -> None:
        if not 1 <= horizon <= _HORIZON:
            raise ValueError(f"The horizon must be 1 to {_HORIZON} slots, but it is {horizon}.")
        B, slots = len(frames), frames.shape[1] + horizon
        expected = self.expected_shape
        if frames.shape[2:] != expected or normal.shape != (B, slots, *expected) or calendar.shape[:2] != (B, slots):
            raise ValueError(
                f"The network was built for frames of {expected} (channels, rows, cols) and needs what is normal and "
                f"the calendar of all {slots} slots, but was given frames {tuple(frames.shape)}, normal "
                f"{tuple(normal.shape)} and calendar {tuple(calendar.shape)}."
            )


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
        patterns: int,
    ) -> None:
        super().__init__()
        block = {"d_state": d_state, "d_conv": d_conv, "expand": expand}
        sizes = {"rows": rows, "cols": cols, "channels": channels, "depth": depth}
        _check_sizes(patch=patch, embed=embed, drop_path=drop_path, conv=conv, **sizes, **block)
        self.channels, self.rows, self.cols, self.patch = channels, rows, cols, patch
        self.start = _Start(rows, cols, channels, features, patterns)
        # What one cell and its neighbours tell is the same everywhere: it is learned once, at full resolution, and goes
        # around the cell's patches to the output as well as through them.
        self.stem = nn.Sequential(nn.Conv2d(7 * channels + features + 1, _STEM, 3, padding=1), nn.GELU())
        self.embedding = _PatchEmbedding(_STEM, patch, embed)
        self.cell = _VMRNNCell(embed, [drop_path] * depth, **block, conv=conv)
        self.head = _Head(_STEM, patch, embed)
        self.out = nn.Sequential(nn.Conv2d(2 * _STEM, _STEM, 1), nn.GELU(), nn.Conv2d(_STEM, channels, 1))
        # At first the network adds nothing to its start.
        for parameter in self.out[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, frames: Tensor, normal: Tensor, calendar: Tensor, patterns: Tensor | None = None, horizon: int = _HORIZON
    ) -> Tensor:
        """The forecast (B, horizon, C, rows, cols), vehicles per slot; may be slightly negative.

        frames:   (B, T, C, rows, cols) observed, vehicles per slot
        normal:   (B, S, C, rows, cols) what is normal in those slots and the `horizon` after them
        calendar: (B, S, F)             their features
        patterns: (B, P, C, rows, cols) in place of the city's own, in training: those of other days
        """
        T = frames.shape[1]
        begun = self.start.begin(frames, normal, calendar, patterns, horizon)
        forecast: list[Tensor] = []
        state = None
        for t in range(T - 1 + horizon):
            start, spread = begun.start[:, t], begun.spread[:, t + 1]
            frame = frames[:, t] if t < T else forecast[-1]
            told = torch.cat((calendar[:, t + 1], begun.busier), dim=1)
            x = torch.cat(
                (
                    (frame - normal[:, t]) / begun.spread[:, t],
                    (start - normal[:, t + 1]) / spread,
                    begun.departure / spread,
                    begun.last / spread,
                    begun.together[:, t],
                    begun.spread[:, t].log(),
                    spread.log(),
                    told[:, :, None, None].expand(-1, -1, self.rows, self.cols),
                ),
                dim=1,
            )
            x = F.pad(x, (0, -self.cols % self.patch, 0, -self.rows % self.patch))
            near = self.stem(x)
            state = self.cell(self.embedding(near), state)
            if t >= T - 1:
                change = self.out(torch.cat((near, self.head(state[0])), dim=1))[:, :, : self.rows, : self.cols]
                forecast.append(start + spread * change)
        return torch.stack(forecast, dim=1)

    def unused_shapes(self) -> dict[str, torch.Size]:
        """Nothing: there is no published network of this kind."""
        return {}


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
    patterns: int = 16,
) -> VMRNNC:
    """VMRNN-C; the defaults are VMRNN-B's."""
    return VMRNNC(
        rows, cols, channels, features, patch, depth, embed, d_state, d_conv, expand, drop_path, conv, patterns
    )
