"""What the page reads from the stores: only the days it shows."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from trafficcast.stores.day_store import DayStore

DAY = np.timedelta64(1, "D")

Stamp = tuple[tuple[str, int], ...]
DAY = np.timedelta64(1, "D")


def stamp(store: DayStore, start: np.datetime64 | None = None, end: np.datetime64 | None = None) -> Stamp:
    """(name, mtime in ns) of a store's files: as long as it is the same, what was read from them is.

    With a period, naive UTC, of the days that may hold something of it alone.
    """
    if start is None or end is None:
        return _stamp(sorted(store.root.glob("????-??-??.nc")))
    first, last = store.city.local_days(np.array([start, end]))
    return _stamp([store.root / f"{day}.nc" for day in np.arange(first - DAY, last + 2 * DAY)])


def newest_stamp(store: DayStore) -> Stamp:
    """That of the newest two days, which hold the newest values (see `last_stored`)."""
    names = sorted(file.name for file in store.root.glob("????-??-??.nc"))
    return _stamp([store.root / name for name in names[-2:]])


def _folder_stamp(store: DayStore) -> int:
    """Changes with whatever is written to a store, ns; 0 where there is nothing."""
    try:
        return store.root.stat().st_mtime_ns
    except OSError:
        return 0


def _stamp(files: list[Path]) -> Stamp:
    found = []
    for file in files:
        with suppress(FileNotFoundError):
            found.append((file.name, file.stat().st_mtime_ns))
    return tuple(found)


def sample_flows(store: DayStore, days: int) -> np.ndarray:
    """Observed flows of at most so many days, spread over the store: (time, flow kind, row, col)."""
    known = store.days()
    parts = [store.read_day(known[i]) for i in _sample_places(len(known), days)]
    values = [part["flow"].values[part["observed"].values] for part in parts if part is not None]
    return np.concatenate(values) if values else np.zeros((0, 2, store.city.rows, store.city.cols), np.int32)


def _sample_places(known: int, days: int) -> list[int]:
    """At most so many of the `known` days in a row, spread, each the next day of the week: not all of them Sundays."""
    weeks = np.linspace(0, max(known - 1, 0), days).astype(int) // 7
    places: list[int] = np.unique(weeks * 7 + np.arange(days) % 7).tolist()
    return [place for place in places if place < known]


def file_state(file: Path) -> tuple[str, int]:
    """A file's name and when it changed last, ns; 0 where it cannot be looked at."""
    try:
        return str(file), file.stat().st_mtime_ns
    except OSError:
        return str(file), 0
