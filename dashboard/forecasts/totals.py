"""The whole city over time: observed, typical and forecast totals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.forecasts.cell_history import _FORECAST, _OBSERVED, _TYPICAL, _line, _with_labels
from dashboard.forecasts.frames import _observed_frames
from dashboard.forecasts.timeline import _ForecastSlot, _of_kind
from trafficcast.config.city import City
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology


def _city_totals(
    city: City,
    newest: _ForecastSlot,
    flows: xr.Dataset | None,
    typical: WeekdayClimatology | Climatology | None,
    kind: str,
    slots: np.ndarray,
) -> pd.DataFrame:
    """As `_cell_history`, of the sum over all cells, without earlier forecasts and intervals."""

    def total(frames: np.ndarray) -> np.ndarray:
        return _of_kind(frames, kind).sum(axis=(1, 2))

    made = newest.forecast
    lines = [_line(_FORECAST, made["valid_time"].values, total(made["flow"].values))]
    if flows is not None:
        times, frames = _observed_frames(flows, slots)
        lines.append(_line(_OBSERVED, times, total(frames)))
    if typical is not None:
        lines.append(_line(_TYPICAL, slots, total(typical.at(slots))))
    return _with_labels(city, lines)
