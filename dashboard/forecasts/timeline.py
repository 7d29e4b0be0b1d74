"""The slots that a page can show, and the forecast of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from dashboard.page.labels import lead_name, slot_labels
from trafficcast.config.city import FLOW_KINDS, HORIZON, City
from trafficcast.stores.forecasts import has_intervals

_BACK = np.timedelta64(24, "h")
_MINUTE = np.timedelta64(1, "m")


@dataclass(frozen=True)
class _ForecastSlot:
    """A slot of a forecast: `forecast` has one init time, without that dimension; `lead` is a position along leads."""

    version: str
    forecast: xr.Dataset
    lead: int

    def flow(self, kind: str) -> np.ndarray:
        """Inflow, outflow, or net (inflow less outflow), (row, col), vehicles per slot."""
        return _of_kind(self.forecast["flow"].values[self.lead], kind)

    def interval_width(self, kind: str, level: float) -> np.ndarray | None:
        """Upper less lower bound of the interval of that level, (row, col); None for net and without intervals."""
        bounds = _interval(self.forecast, kind, level)
        return None if bounds is None else (bounds[1] - bounds[0])[self.lead]


def _of_kind(frame: np.ndarray, kind: str) -> np.ndarray:
    """(..., flow kind, row, col) -> (..., row, col), float64, vehicles per slot; of net inflow less outflow."""
    inflow, outflow = np.moveaxis(np.asarray(frame, np.float64), -3, 0)
    return inflow - outflow if kind == "net" else (inflow, outflow)[FLOW_KINDS.index(kind)]


def _of_place(frames: np.ndarray, kind: str, cell: tuple[int, int] | None) -> np.ndarray:
    """(..., flow kind, row, col) -> (...), vehicles per slot: of a cell, or the sum over the city where it is None."""
    own = _of_kind(frames, kind)
    return np.asarray(own.sum((-2, -1)) if cell is None else own[..., cell[0], cell[1]])


def _interval(forecast: xr.Dataset, kind: str, level: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The lower and the upper bounds, (lead, row, col), at the level nearest to `level`, of a forecast as above.

    None for net and without intervals.
    """
    if kind == "net" or not has_intervals(forecast):
        return None
    place = int(np.argmin(np.abs(forecast["level"].values - level)))
    lower, upper = (_of_kind(forecast[name].values[place], kind) for name in ("lower", "upper"))
    return lower, upper


def _ahead(minutes: int) -> str:
    """A lead time in words: '30 min ahead'."""
    return f"{minutes} min ahead"


def _shown_slots(city: City, newest_init: np.datetime64) -> np.ndarray:
    """The slots of a day before the newest forecast, and those that it forecasts: starts, naive UTC."""
    return np.arange(newest_init - _BACK, newest_init + HORIZON * city.slot, city.slot)


def _find_forecast(
    forecasts: list[tuple[str, xr.Dataset]], city: City, slot: np.datetime64, lead: int | None = None
) -> _ForecastSlot | None:
    """The last forecast of a slot, or the one made `lead` slots ahead of it; None where there is none."""
    for ahead in range(HORIZON) if lead is None else (lead,):
        init_time = slot - ahead * city.slot
        for version, dataset in forecasts:
            if (dataset["init_time"].values == init_time).any():
                return _ForecastSlot(version, dataset.sel(init_time=init_time), ahead)
    return None


def _forecast_frames(
    forecasts: list[tuple[str, xr.Dataset]], city: City, slots: np.ndarray, lead: int
) -> tuple[np.ndarray, np.ndarray]:
    """The slots forecast `lead` slots ahead, and their forecasts: (time, flow kind, row, col), vehicles per slot."""
    times, frames = [], []
    for _, dataset in forecasts:
        targets = dataset["init_time"].values + lead * city.slot
        wanted = np.isin(targets, slots)
        times.append(targets[wanted])
        frames.append(dataset["flow"].values[wanted, lead])
    if not frames:
        return slots[:0], np.zeros((0, len(FLOW_KINDS), city.rows, city.cols))
    return np.concatenate(times), np.concatenate(frames)


def _slot_texts(city: City, newest_init: np.datetime64, slots: np.ndarray) -> list[str]:
    """'18:00-18:30 PDT', with '(+30 min)' for a slot ahead, after the day where it is another one."""
    newest_day = city.local_days(np.array([newest_init]))[0]
    ahead = ((slots - newest_init) // _MINUTE).tolist()
    return [
        ("the day before " if day < newest_day else "") + label + (f" ({lead_name(minutes)})" if minutes >= 0 else "")
        for day, label, minutes in zip(city.local_days(slots), slot_labels(city, slots), ahead, strict=True)
    ]
