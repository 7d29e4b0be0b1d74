"""Stamps: values that change when files are written, so that pages know when to read again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore

DAY = np.timedelta64(1, "D")

_Stamp = tuple[tuple[str, int], ...]


def stamp(store: DayStore, start: np.datetime64 | None = None, end: np.datetime64 | None = None) -> _Stamp:
    """Return the names of a store's files and when each changed last, ns.

    Parameters
    ----------
    store
        The store.
    start
        Start of a period, naive UTC: only the files of days that may hold a part of it count. None is all files.
    end
        End of the period, naive UTC; None is all files.

    Returns
    -------
    _Stamp
        As long as it stays the same, so does what was read from the files.
    """
    if start is None or end is None:
        return _stamp(sorted(store.root.glob("????-??-??.nc")))
    first, last = store.city.local_days(np.array([start, end]))
    return _stamp([store.root / f"{day}.nc" for day in np.arange(first - DAY, last + 2 * DAY)])


def newest_stamp(store: DayStore) -> _Stamp:
    """Return the stamp of the two newest days, which hold the newest values (see `last_stored`).

    Parameters
    ----------
    store
        The store.

    Returns
    -------
    _Stamp
        The stamp.
    """
    return _stamp(sorted(store.root.glob("????-??-??.nc"))[-2:])


def _stamp(files: list[Path]) -> _Stamp:
    found = []
    for file in files:
        with suppress(FileNotFoundError):
            found.append((file.name, file.stat().st_mtime_ns))
    return tuple(found)


def file_stamp(file: Path | None) -> int:
    """Return when a file or a folder changed last.

    Parameters
    ----------
    file
        The file or the folder.

    Returns
    -------
    int
        Nanoseconds; 0 where there is none, or it cannot be looked at.
    """
    try:
        return 0 if file is None else file.stat().st_mtime_ns
    except OSError:
        return 0


def records_stamp(stores: CityStores) -> int:
    """Return when records were ingested last.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    int
        Nanoseconds; 0 where no records were ever ingested.
    """
    return file_stamp(stores.records / "state.sqlite")
