"""The frames of one slot that the three maps show: predicted, observed and their difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

Status = Literal["observed", "pending", "down"]

WORDS: dict[Status, str] = {
    "observed": "",
    "pending": "Not observed yet: the records of this slot have not arrived.",
    "down": "Not observed: the feed was down in this slot.",
}


@dataclass(frozen=True)
class Frames:
    """One slot, one flow kind: (row, col), vehicles per slot; `observed` is None where the slot was not."""

    predicted: np.ndarray
    observed: np.ndarray | None
    status: Status

    @property
    def difference(self) -> np.ndarray | None:
        """Predicted - observed, (row, col), vehicles per slot."""
        return None if self.observed is None else self.predicted - self.observed

    @property
    def rmse(self) -> float | None:
        """Root mean square of the difference over the cells, vehicles per slot."""
        difference = self.difference
        return None if difference is None else float(np.sqrt(np.mean(np.square(difference))))


def frames_at(
    forecast: xr.Dataset, flows: xr.Dataset | None, newest: np.datetime64 | None, lead: int, kind: str
) -> Frames:
    """The frames of a forecast's slot number `lead` (0 = the first).

    Args:
        forecast: flow(lead_time, flow_kind, row, col) and valid_time(lead_time) of one init time.
        flows: flow(time, flow_kind, row, col) and observed(time) around it, None where there is nothing.
        newest: the start of the newest observed slot of the whole store, naive UTC.
        lead: position along lead_time.
        kind: inflow or outflow.
    """
    slot = forecast["valid_time"].values[lead]
    predicted = forecast["flow"].isel(lead_time=lead).sel(flow_kind=kind).values.astype(np.float64)
    observed = observed_frame(flows, slot, kind)
    return Frames(predicted, observed, slot_status(observed is not None, slot, newest))


def observed_frame(flows: xr.Dataset | None, slot: np.datetime64, kind: str) -> np.ndarray | None:
    """The observed flows of a slot, (row, col), vehicles per slot; None where it was not observed."""
    if flows is None:
        return None
    position = np.flatnonzero((flows["time"].values == slot) & flows["observed"].values)
    if len(position) == 0:
        return None
    return np.asarray(flows["flow"].isel(time=position[0]).sel(flow_kind=kind).values.astype(np.float64))


def slot_status(observed: bool, slot: np.datetime64, newest: np.datetime64 | None) -> Status:
    """Whether a slot was observed, is yet to come, or was lost: a later slot has come and it has not."""
    if observed:
        return "observed"
    return "pending" if newest is None or slot > newest else "down"
