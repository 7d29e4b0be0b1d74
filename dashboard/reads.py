"""What the page reads from the stores: only the days it shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from trafficcast.city import City
from trafficcast.stores import DayStore

MICROSECOND = np.timedelta64(1, "us")
DAY = np.timedelta64(1, "D")

Stamp = tuple[tuple[str, int], ...]


def stamp(store: DayStore) -> Stamp:
    """(name, mtime in ns) of a store's files: as long as it is the same, what was read from them is."""
    files = sorted(store.root.glob("????-??-??.nc"))
    return tuple((file.name, file.stat().st_mtime_ns) for file in files)


def forecast_versions(data: Path, city: City) -> list[str]:
    """The model versions that have a forecast of the city stored."""
    return sorted({file.parent.name for file in (data / city.name / "forecasts").glob("*/????-??-??.nc")})


def read_local_day(store: DayStore, day: np.datetime64) -> xr.Dataset | None:
    """What a store holds for a local day of the city."""
    return store.read(_midnight(store.city, day), _midnight(store.city, day + DAY) - MICROSECOND)


def last_observed(store: DayStore) -> np.datetime64 | None:
    """The start of the newest observed slot of a flow store, naive UTC; later slots are yet to come."""
    for day in reversed(store.days()):
        flows = read_local_day(store, day)
        if flows is not None and flows["observed"].values.any():
            newest: np.datetime64 = flows["time"].values[flows["observed"].values].max()
            return newest
    return None


def sample_flows(store: DayStore, days: int) -> np.ndarray:
    """Observed flows of at most so many days, spread evenly over the store: (time, flow kind, row, col)."""
    known = store.days()
    places = np.unique(np.linspace(0, max(len(known) - 1, 0), days).round().astype(int))
    parts = [read_local_day(store, known[i]) for i in places if known]
    values = [part["flow"].values[part["observed"].values] for part in parts if part is not None]
    return np.concatenate(values) if values else np.zeros((0, 2, store.city.rows, store.city.cols), np.int32)


def _midnight(city: City, day: np.datetime64) -> np.datetime64:
    """The first instant of a local day; where the clocks skip midnight, the first one after the gap."""
    start = pd.Timestamp(day).tz_localize(city.zone, ambiguous=True, nonexistent="shift_forward")
    return start.tz_convert("UTC").tz_localize(None).to_datetime64().astype("datetime64[us]")
