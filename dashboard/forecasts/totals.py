"""The whole city over time: observed, typical and forecast totals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.forecasts.cell_history import FORECAST, OBSERVED, TYPICAL, line, with_labels
from dashboard.forecasts.frames import observed_frames
from dashboard.forecasts.timeline import Expected, of_kind
from trafficcast.config.city import City
from trafficcast.forecasting.climatology import Climatology, Normal


def city_totals(
    city: City,
    newest: Expected,
    flows: xr.Dataset | None,
    typical: Normal | Climatology | None,
    kind: str,
    slots: np.ndarray,
) -> pd.DataFrame:
    """As `cell_history`, of the sum over all cells, without earlier forecasts and intervals."""

    def total(frames: np.ndarray) -> np.ndarray:
        return of_kind(frames, kind).sum(axis=(1, 2))

    made = newest.forecast
    lines = [line(FORECAST, made["valid_time"].values, total(made["flow"].values))]
    if flows is not None:
        times, frames = observed_frames(flows, slots)
        lines.append(line(OBSERVED, times, total(frames)))
    if typical is not None:
        lines.append(line(TYPICAL, slots, total(typical.at(slots))))
    return with_labels(city, lines)
