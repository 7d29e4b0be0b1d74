"""The whole city over time: observed, typical and forecast totals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.cell_history import FORECAST, OBSERVED, TYPICAL
from dashboard.frames import observed_frame
from dashboard.labels import moment_label
from dashboard.timeline import Expected, of_kind
from trafficcast.baselines import Climatology
from trafficcast.city import City
from trafficcast.normal import Normal
from trafficcast.windows import HORIZON


def city_totals(
    city: City,
    newest: Expected,
    flows: xr.Dataset | None,
    typical: Normal | Climatology | None,
    kind: str,
    slots: np.ndarray,
) -> pd.DataFrame:
    """As `cell_history`, of the sum over all cells, without earlier forecasts and intervals."""
    rows: list[tuple[np.datetime64, str, float]] = []
    for slot in slots:
        seen = observed_frame(flows, slot)
        if seen is not None:
            rows.append((slot, OBSERVED, float(of_kind(seen, kind).sum())))
        if typical is not None:
            rows.append((slot, TYPICAL, float(of_kind(typical.at(np.array([slot]))[0], kind).sum())))
    for lead in range(HORIZON):
        total = Expected(newest.version, newest.forecast, lead).flow(kind).sum()
        rows.append((newest.forecast["valid_time"].values[lead], FORECAST, float(total)))
    table = pd.DataFrame(rows, columns=["time", "what", "vehicles"]).assign(lower=np.nan, upper=np.nan)
    return table.assign(label=[moment_label(city, time) for time in table["time"].values])
