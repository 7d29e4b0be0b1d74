"""VMRNN-C: VMRNN-B's cell, which forecasts the anomaly of the flows: their difference from the climatology.

The paper's network reads four frames and nothing else. This one also reads the climatology of each slot and calendar
features. It reads and writes standardised anomalies, and adds its output to a linear forecast made of anomaly
persistence and the city's patterns (see `trafficcast.forecasting.patterns`), so that it learns only the remainder.

Dimensions throughout this file: B batch, T observed frames, S = T + horizon slots, C flow kinds, F calendar features,
P patterns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trafficcast.config.city import HORIZON
from trafficcast.nn.vmrnn import NetworkSizes, _Head, _PatchEmbedding, _VMRNNCell

# The variance of a count is about its mean; one vehicle more keeps empty cells from dominating.
VARIANCE_FLOOR = 1.0
_STEM = 32  # channels at full resolution
# The linear forecast adds four terms: the cell's mean anomaly over the history, its last anomaly, the part explained by
# the patterns, and the climatology. The coefficient of each is a linear function of the regressors: one, the calendar
# features of the init time, the activity anomaly and its absolute value.
TERMS = 4
_REGRESSORS_BESIDE_CALENDAR = 3
# The activity anomaly is activity - 1, in units of ACTIVITY_UNIT and clipped to so many of them.
ACTIVITY_UNIT, ACTIVITY_LIMIT = 0.1, 3.0


@dataclass(frozen=True)
class _LinearForecast:
    """The linear forecast of the slots after the first, and the quantities of which it is made.

    forecast:         (B, S - 1, C, rows, cols) vehicles per slot
    deviation:        (B, S, C, rows, cols)     standard deviation of a count, vehicles per slot
    pattern_anomaly:  (B, S - 1, C, rows, cols) standardised anomaly that the patterns explain
    mean_anomaly:     (B, C, rows, cols)        mean over the history, vehicles per slot
    last_anomaly:     (B, C, rows, cols)        of the last observed slot, vehicles per slot
    activity_anomaly: (B, 1)                    in units of ACTIVITY_UNIT
    """

    forecast: Tensor
    deviation: Tensor
    pattern_anomaly: Tensor
    mean_anomaly: Tensor
    last_anomaly: Tensor
    activity_anomaly: Tensor


class _LinearStart(nn.Module):
    """The linear forecast that the network starts from, with coefficients fitted by `Patterns` and not by training."""

    patterns: Tensor
    shares: Tensor
    left: Tensor

    def __init__(self, sizes: NetworkSizes, features: int, patterns: int) -> None:
        super().__init__()
        if patterns < 0:
            raise ValueError(f"The number of patterns must be 0 or more, but it is {patterns}.")
        self.frame_shape = (sizes.channels, sizes.rows, sizes.cols)
        # The names are those of the weight files: `shares` holds the persistence of each pattern, `left` the
        # coefficients of the terms.
        self.register_buffer("patterns", torch.zeros(patterns, *self.frame_shape))
        self.register_buffer("shares", torch.zeros(HORIZON, patterns, 2))
        self.register_buffer("left", torch.zeros(HORIZON, features + _REGRESSORS_BESIDE_CALENDAR, TERMS))
        self.left[:, 0, 0] = 0.4  # anomaly persistence, until `set_coefficients` is called

    def set_coefficients(self, basis: Tensor, persistence: Tensor, coefficients: Tensor) -> None:
        """Take over the results of `Patterns.fit`."""
        self.patterns.copy_(basis)
        self.shares.copy_(persistence)
        self.left.copy_(coefficients)

    def forward(
        self,
        frames: Tensor,
        climatology: Tensor,
        calendar: Tensor,
        patterns: Tensor | None = None,
        horizon: int = HORIZON,
    ) -> Tensor:
        """Return the linear forecast (B, horizon, C, rows, cols), vehicles per slot; inputs as in VMRNNC."""
        return self.predict(frames, climatology, calendar, patterns, horizon).forecast[:, -horizon:]

    def predict(
        self, frames: Tensor, climatology: Tensor, calendar: Tensor, patterns: Tensor | None, horizon: int
    ) -> _LinearForecast:
        """Forecast all slots after the first, those of the history with the coefficients of the first lead."""
        self._check(frames, climatology, calendar, horizon)
        T = frames.shape[1]
        activity = frames.sum((1, 2, 3, 4)) / climatology[:, :T].sum((1, 2, 3, 4)).clamp_min(1.0)
        activity_anomaly = ((activity[:, None] - 1) / ACTIVITY_UNIT).clamp(-ACTIVITY_LIMIT, ACTIVITY_LIMIT)
        scaled = activity[:, None, None, None, None] * climatology
        deviation = (scaled + VARIANCE_FLOOR).sqrt()
        anomalies = frames - scaled[:, :T]
        mean_anomaly, last_anomaly = anomalies.mean(1), anomalies[:, -1]

        def by_slot(leads: Tensor) -> Tensor:
            """Repeat the first lead of (B, HORIZON, ...) for the slots of the history after the first."""
            return torch.cat((*[leads[:, :1]] * (T - 1), leads[:, :horizon]), dim=1)

        pattern_anomaly = by_slot(self._pattern_anomaly(anomalies / deviation[:, :T], patterns))
        regressors = (torch.ones_like(activity_anomaly), calendar[:, T], activity_anomaly, activity_anomaly.abs())
        coefficients = by_slot((torch.cat(regressors, dim=1)[:, None, :, None] * self.left).sum(2))
        terms = mean_anomaly[:, None], last_anomaly[:, None], deviation[:, 1:] * pattern_anomaly, scaled[:, 1:]
        added = sum(coefficients[:, :, i, None, None, None] * term for i, term in enumerate(terms))
        return _LinearForecast(
            scaled[:, 1:] + added, deviation, pattern_anomaly, mean_anomaly, last_anomaly, activity_anomaly
        )

    def _pattern_anomaly(self, standardised: Tensor, patterns: Tensor | None) -> Tensor:
        """Forecast (B, HORIZON, C, rows, cols) from the patterns in standardised anomalies (B, T, C, rows, cols)."""
        # A projection sums thousands of cells, for which bfloat16 is too coarse.
        with torch.autocast(standardised.device.type, enabled=False):
            basis = (self.patterns[None] if patterns is None else patterns).float()
            basis = basis.expand(len(standardised), -1, -1, -1, -1).flatten(2)  # (B, P, cells)
            amplitudes = standardised.float().flatten(2) @ basis.mT  # (B, T, P)
            predictors = torch.stack((amplitudes.mean(1), amplitudes[:, -1]), dim=-1)  # (B, P, 2)
            later = (predictors[:, None] * self.shares).sum(-1)  # (B, HORIZON, P)
            return (later @ basis).unflatten(2, standardised.shape[2:])

    def _check(self, frames: Tensor, climatology: Tensor, calendar: Tensor, horizon: int) -> None:
        """Raise a ValueError where an input does not fit the network."""
        if not 1 <= horizon <= HORIZON:
            raise ValueError(f"The horizon must be 1 to {HORIZON} slots, but it is {horizon}.")
        shape = self.frame_shape
        slots = (len(frames), frames.shape[1] + horizon)
        if frames.shape[2:] != shape or climatology.shape != (*slots, *shape) or calendar.shape[:2] != slots:
            raise ValueError(
                f"The network was built for frames of {shape} (channels, rows, cols) and needs the climatology and "
                f"the calendar of all {slots[1]} slots, but was given frames {tuple(frames.shape)}, climatology "
                f"{tuple(climatology.shape)} and calendar {tuple(calendar.shape)}."
            )


class VMRNNC(nn.Module):
    """VMRNN-C: reads frames, climatology and calendar and forecasts flows, all in vehicles per slot.

    Parameters
    ----------
    sizes
        Sizes of the network.
    features
        Calendar features of a slot.
    patterns
        Number of patterns of the linear forecast.
    """

    def __init__(self, sizes: NetworkSizes, features: int, patterns: int) -> None:
        super().__init__()
        channels, patch = sizes.channels, sizes.patch
        self.rows, self.cols, self.patch = sizes.rows, sizes.cols, patch
        self.start = _LinearStart(sizes, features, patterns)
        # A cell and its neighbours mean the same everywhere, so the stem is learned once for all cells, at full
        # resolution; its result goes both through the patches and around them to the output.
        self.stem = nn.Sequential(nn.Conv2d(7 * channels + features + 1, _STEM, 3, padding=1), nn.GELU())
        self.embedding = _PatchEmbedding(_STEM, patch, sizes.embed)
        self.cell = _VMRNNCell(sizes, [sizes.drop_path] * sizes.depth)
        self.head = _Head(_STEM, patch, sizes.embed)
        self.out = nn.Sequential(nn.Conv2d(2 * _STEM, _STEM, 1), nn.GELU(), nn.Conv2d(_STEM, channels, 1))
        # Before training the network adds nothing to the linear forecast.
        for parameter in self.out[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        frames: Tensor,
        climatology: Tensor,
        calendar: Tensor,
        patterns: Tensor | None = None,
        horizon: int = HORIZON,
    ) -> Tensor:
        """Forecast the slots after the observed ones.

        Parameters
        ----------
        frames
            Observed flows (B, T, C, rows, cols), vehicles per slot.
        climatology
            Climatology (B, S, C, rows, cols) of the observed slots and the `horizon` after them, vehicles per slot.
        calendar
            Calendar features (B, S, F) of the same slots.
        patterns
            Patterns (B, P, C, rows, cols) in place of the network's own: in training, patterns of other days.
        horizon
            Slots to forecast, at most 4.

        Returns
        -------
        Tensor
            Forecast (B, horizon, C, rows, cols), vehicles per slot; may be slightly negative.
        """
        T = frames.shape[1]
        linear = self.start.predict(frames, climatology, calendar, patterns, horizon)
        forecast: list[Tensor] = []
        state = None
        for t in range(T - 1 + horizon):
            start, deviation = linear.forecast[:, t], linear.deviation[:, t + 1]
            frame = frames[:, t] if t < T else forecast[-1]
            features = torch.cat((calendar[:, t + 1], linear.activity_anomaly), dim=1)
            x = torch.cat(
                (
                    (frame - climatology[:, t]) / linear.deviation[:, t],
                    (start - climatology[:, t + 1]) / deviation,
                    linear.mean_anomaly / deviation,
                    linear.last_anomaly / deviation,
                    linear.pattern_anomaly[:, t],
                    linear.deviation[:, t].log(),
                    deviation.log(),
                    features[:, :, None, None].expand(-1, -1, self.rows, self.cols),
                ),
                dim=1,
            )
            x = F.pad(x, (0, -self.cols % self.patch, 0, -self.rows % self.patch))
            local = self.stem(x)
            state = self.cell(self.embedding(local), state)
            if t >= T - 1:
                change = self.out(torch.cat((local, self.head(state[0])), dim=1))[:, :, : self.rows, : self.cols]
                forecast.append(start + deviation * change)
        return torch.stack(forecast, dim=1)


def vmrnn_c(
    rows: int = 32, cols: int = 32, channels: int = 2, features: int = 6, patterns: int = 16, **sizes: Any
) -> VMRNNC:
    """Build VMRNN-C; the defaults are VMRNN-B's.

    Parameters
    ----------
    rows
        Rows of the city's grid.
    cols
        Columns of the city's grid.
    channels
        Flow kinds, the channels of a frame.
    features
        Calendar features of a slot.
    patterns
        Number of patterns of the linear forecast.
    **sizes
        Other sizes, as in NetworkSizes.

    Returns
    -------
    VMRNNC
        The network with random weights; the linear forecast is anomaly persistence.
    """
    return VMRNNC(NetworkSizes(rows, cols, channels, **sizes), features, patterns)
