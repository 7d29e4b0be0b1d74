"""Windows of contiguous observed slots, and the split of time into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON, City
from trafficcast.errors import InputError

_TEST_SHARE = 0.15
VALID_SHARE = 0.10


@dataclass(frozen=True)
class Split:
    """Boundaries, naive UTC: training [start, train_end), validation up to `valid_end`, test up to `test_end`."""

    start: np.datetime64
    train_end: np.datetime64
    valid_end: np.datetime64
    test_end: np.datetime64

    def __post_init__(self) -> None:
        if not self.start < self.train_end < self.valid_end <= self.test_end:
            raise InputError(
                f"the split is not in order: data from {self.start}, training until {self.train_end}, "
                f"validation until {self.valid_end}, test until {self.test_end} (UTC)"
            )


def _default_split(city: City, time: np.ndarray) -> Split:
    """The last 15 % of the slots are test, the 10 % before them validation, cut at the nearest local midnights."""
    end = time[-1] + city.slot
    valid_end, train_end = (
        _nearest_midnight(city, time[min(round(len(time) * share), len(time) - 1)])
        for share in (1 - _TEST_SHARE, 1 - _TEST_SHARE - VALID_SHARE)
    )
    if train_end >= valid_end:
        train_end = _nearest_midnight(city, valid_end - np.timedelta64(1, "D"))
    if not time[0] < train_end < valid_end < end:
        raise InputError(
            f"{len(time)} slots, {city.isoformat(time[0])} to {city.isoformat(end)}, are too few to split at "
            "midnights into training, validation and test: ingest more days"
        )
    return Split(time[0], train_end, valid_end, end)


def chosen_split(
    city: City,
    time: np.ndarray,
    train_end: np.datetime64 | None,
    valid_end: np.datetime64 | None,
    test_end: np.datetime64 | None,
) -> Split:
    """The split of slots `time` (naive UTC) at the ends a person gave; the default one where none was given.

    Without `test_end` test runs to the last slot. Raises InputError where only part is given, or out of order.
    """
    if train_end is None and valid_end is None and test_end is None:
        return _default_split(city, time)
    if train_end is None or valid_end is None:
        raise InputError("give --train-end and --valid-end together, or neither")
    return Split(time[0], train_end, valid_end, time[-1] + city.slot if test_end is None else test_end)


def window_starts(flows: xr.Dataset, city: City, start: np.datetime64, end: np.datetime64) -> np.ndarray:
    """Positions in `flows` of the windows whose four target slots lie in [start, end).

    A window is HISTORY + HORIZON contiguous observed slots; its history may lie before `start`.
    """
    time, observed = flows["time"].values, flows["observed"].values
    length = HISTORY + HORIZON
    if len(time) < length:
        return np.empty(0, np.int64)
    spans = np.lib.stride_tricks.sliding_window_view
    contiguous = time[length - 1 :] - time[: 1 - length] == (length - 1) * city.slot
    whole = contiguous & spans(observed, length).all(axis=1)
    first, last = time[HISTORY : len(time) - HORIZON + 1], time[length - 1 :]
    return np.flatnonzero(whole & (first >= start) & (last < end))


def _gather(flows: np.ndarray, starts: np.ndarray, length: int = HISTORY + HORIZON) -> np.ndarray:
    """Windows (n, length, flow kind, row, col) of flows (time, flow kind, row, col)."""
    return flows[starts[:, None] + np.arange(length)]


def _history_before(flows: xr.Dataset | None, city: City, init_time: np.datetime64) -> np.ndarray:
    """The four observed slots before `init_time`: (1, HISTORY, flow kind, row, col), vehicles per slot.

    Raises InputError that names the slots missing or not observed.
    """
    wanted = init_time - city.slot * np.arange(HISTORY, 0, -1)
    if flows is not None:
        flows = flows.isel(time=flows["observed"].values & np.isin(flows["time"].values, wanted))
    have = np.empty(0, "datetime64[us]") if flows is None else flows["time"].values
    absent = [city.isoformat(t) for t in np.setdiff1d(wanted, have)]
    if absent or flows is None:
        raise InputError(
            f"a forecast for {city.isoformat(init_time)} needs the {HISTORY} observed slots before it; "
            f"missing or cut off: {', '.join(absent)}"
        )
    return np.asarray(flows["flow"].values, np.float32)[None]


def _nearest_midnight(city: City, time: np.datetime64) -> np.datetime64:
    day = city.local_days(np.array([time]))[0]
    midnights = [city.midnight(day), city.midnight(day + np.timedelta64(1, "D"))]
    return min(midnights, key=lambda midnight: abs(midnight - time))
