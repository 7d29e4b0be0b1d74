"""Each cell's errors over the forecasts whose slots were observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.page.labels import lead_name
from dashboard.page.view import KINDS
from dashboard.skill.tables import _ALL_LEADS
from trafficcast.config.city import City
from trafficcast.forecasting.climatology import Climatology, WeekdayClimatology

# Days of forecasts whose errors are drawn: read anew they cost some 50 ms each.
_MOST_DAYS = 7


@dataclass(frozen=True)
class _CellErrors:
    """Sums over forecasts by (lead_time, kind, row, col), `slots` (lead_time) of them; kinds are `KINDS`.

    `error` of predicted less observed, vehicles per slot; `squared` of its square, `typical` of the square of typical
    less observed, None where typical flows are unknown.
    """

    slots: np.ndarray
    error: np.ndarray
    squared: np.ndarray
    typical: np.ndarray | None

    def mean_error(self, kind: str, lead: int | None = None) -> np.ndarray:
        """(row, col), predicted less observed, at a place along leads, or over all."""
        return _mean(self.error, self.slots, kind, lead)

    def rmse(self, kind: str, lead: int | None = None) -> np.ndarray:
        """(row, col) of the model, vehicles per slot."""
        return np.sqrt(_mean(self.squared, self.slots, kind, lead))

    def typical_rmse(self, kind: str, lead: int | None = None) -> np.ndarray | None:
        """(row, col) of typical flows, vehicles per slot; None where they are unknown."""
        return None if self.typical is None else np.sqrt(_mean(self.typical, self.slots, kind, lead))


def _errors_by_cell(
    forecasts: xr.Dataset, flows: xr.Dataset, typical: WeekdayClimatology | Climatology | None
) -> _CellErrors:
    """The errors of forecasts (see `forecast_dataset`) against the observed slots of `flows`."""
    observed = flows["time"].values[flows["observed"].values]
    truth = flows["flow"].values[flows["observed"].values].astype(np.float64)
    predicted, targets = forecasts["flow"].values, forecasts["valid_time"].values
    shape = (targets.shape[1], len(KINDS), *truth.shape[2:])
    slots = np.zeros(shape[0], np.int64)
    error, squared, usual = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for lead in range(shape[0]):
        known = np.isin(targets[:, lead], observed)
        slots[lead] = known.sum()
        times = targets[known, lead]
        seen = truth[np.searchsorted(observed, times)]
        wrong = _with_net(predicted[known, lead] - seen)
        error[lead], squared[lead] = wrong.sum(0), np.square(wrong).sum(0)
        if typical is not None:
            usual[lead] = np.square(_with_net(typical.at(times) - seen)).sum(0)
    return _CellErrors(slots, error, squared, None if typical is None else usual)


def _sum_errors(parts: Sequence[_CellErrors]) -> _CellErrors | None:
    """The errors of several stretches of forecasts as one; None where no slot was observed."""
    if not any(part.slots.any() for part in parts):
        return None
    known = [part.typical for part in parts if part.typical is not None]
    return _CellErrors(
        np.sum([part.slots for part in parts], axis=0),
        np.sum([part.error for part in parts], axis=0),
        np.sum([part.squared for part in parts], axis=0),
        np.sum(known, axis=0) if len(known) == len(parts) else None,
    )


def _cell_table(city: City, errors: _CellErrors, kind: str, cell: tuple[int, int]) -> pd.DataFrame:
    """One cell's errors, a row a lead and one of all: lead, RMSE, mean error, RMSE of typical, slots."""
    places = [None, *(lead for lead in range(len(errors.slots)) if errors.slots[lead])]
    rows = []
    for lead in places:
        usual = errors.typical_rmse(kind, lead)
        rows.append(
            (
                _ALL_LEADS if lead is None else lead_name(lead * city.slot_minutes),
                float(errors.rmse(kind, lead)[cell]),
                float(errors.mean_error(kind, lead)[cell]),
                float("nan") if usual is None else float(usual[cell]),
                int(errors.slots.sum() if lead is None else errors.slots[lead]),
            )
        )
    return pd.DataFrame(rows, columns=["lead", "RMSE", "mean error", "RMSE of typical", "slots"])


def _mean(sums: np.ndarray, slots: np.ndarray, kind: str, lead: int | None) -> np.ndarray:
    """(row, col): the mean of sums (lead_time, kind, row, col) of a kind, NaN where there is no slot."""
    chosen = slice(None) if lead is None else slice(lead, lead + 1)
    count = slots[chosen].sum()
    total: np.ndarray = sums[chosen, KINDS.index(kind)].sum(0)
    return total / count if count else np.full(total.shape, np.nan)


def _with_net(frames: np.ndarray) -> np.ndarray:
    """(n, flow kind, row, col) -> (n, kind, row, col): inflow, outflow and net."""
    return np.concatenate([frames, frames[:, :1] - frames[:, 1:]], axis=1, dtype=np.float64)
