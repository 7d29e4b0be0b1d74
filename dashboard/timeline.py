"""The slots that a page can show, and which forecast says what was, or is, expected of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from dashboard.labels import clock_label, slot_label
from trafficcast.city import City
from trafficcast.forecasts import has_intervals
from trafficcast.windows import HORIZON

BACK = np.timedelta64(24, "h")
MINUTE = np.timedelta64(1, "m")


@dataclass(frozen=True)
class Expected:
    """A slot of a forecast: `forecast` has one init time, without that dimension; `lead` is a position along leads."""

    version: str
    forecast: xr.Dataset
    lead: int

    def flow(self, kind: str) -> np.ndarray:
        """Inflow, outflow, or net (inflow less outflow), (row, col), vehicles per slot."""
        return of_kind(self.forecast["flow"].values[self.lead], kind)

    def interval_width(self, kind: str, level: float) -> np.ndarray | None:
        """Upper less lower bound of the interval of that level, (row, col); None for net and without intervals."""
        if kind == "net" or not has_intervals(self.forecast):
            return None
        place = int(np.argmin(np.abs(self.forecast["level"].values - level)))
        upper, lower = (self.forecast[name].values[place, self.lead] for name in ("upper", "lower"))
        return of_kind(upper, kind) - of_kind(lower, kind)


def of_kind(frame: np.ndarray, kind: str) -> np.ndarray:
    """(flow kind, row, col) -> (row, col), float64, vehicles per slot; of net inflow less outflow."""
    values = np.asarray(frame, np.float64)
    return values[0] - values[1] if kind == "net" else values[("inflow", "outflow").index(kind)]


def shown_slots(city: City, newest_init: np.datetime64) -> np.ndarray:
    """The slots of a day before the newest forecast, and those that it forecasts: starts, naive UTC."""
    return np.arange(newest_init - BACK, newest_init + HORIZON * city.slot, city.slot)


def expected(
    forecasts: list[tuple[str, xr.Dataset]], city: City, slot: np.datetime64, lead: int | None = None
) -> Expected | None:
    """The last forecast of a slot, or the one made `lead` slots ahead of it; None where there is none."""
    for ahead in range(HORIZON) if lead is None else (lead,):
        init_time = slot - ahead * city.slot
        for version, dataset in forecasts:
            if (dataset["init_time"].values == init_time).any():
                return Expected(version, dataset.sel(init_time=init_time), ahead)
    return None


def slot_text(city: City, newest_init: np.datetime64, slot: np.datetime64) -> str:
    """'18:00-18:30 PDT', with '(+30 min)' for a slot ahead, after the day where it is another one."""
    day, newest_day = city.local_days(np.array([slot, newest_init]))
    before = "the day before " if day < newest_day else ""
    zone = clock_label(city, slot).split(" ", 1)[1]
    ahead = int((slot - newest_init) / MINUTE)
    return f"{before}{slot_label(city, slot)} {zone}" + (f" (+{ahead} min)" if ahead >= 0 else "")
