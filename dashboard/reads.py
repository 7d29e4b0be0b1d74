"""What the page reads from the stores: only the days it shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trafficcast.city import City
from trafficcast.stores import DayStore

Stamp = tuple[tuple[str, int], ...]


def stamp(store: DayStore) -> Stamp:
    """(name, mtime in ns) of a store's files: as long as it is the same, what was read from them is."""
    files = sorted(store.root.glob("????-??-??.nc"))
    return tuple((file.name, file.stat().st_mtime_ns) for file in files)


def forecast_versions(data: Path, city: City) -> list[str]:
    """The model versions that have a forecast of the city stored."""
    return sorted({file.parent.name for file in (data / city.name / "forecasts").glob("*/????-??-??.nc")})


def sample_flows(store: DayStore, days: int) -> np.ndarray:
    """Observed flows of at most so many days, spread evenly over the store: (time, flow kind, row, col)."""
    known = store.days()
    places = np.unique(np.linspace(0, max(len(known) - 1, 0), days).round().astype(int))
    parts = [store.read_day(known[i]) for i in places if known]
    values = [part["flow"].values[part["observed"].values] for part in parts if part is not None]
    return np.concatenate(values) if values else np.zeros((0, 2, store.city.rows, store.city.cols), np.int32)
