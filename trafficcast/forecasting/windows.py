"""Windows of contiguous observed slots, and the split of a period into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON, City
from trafficcast.errors import InputError
from trafficcast.stores.flows import late_flow

_TEST_SHARE = 0.15
VALID_SHARE = 0.10
WINDOW_LENGTH = HISTORY + HORIZON  # slots of a window


@dataclass(frozen=True)
class Split:
    """Boundaries of training, validation and test, naive UTC; each begins where the one before it ends.

    Attributes
    ----------
    start
        Start of the first training slot.
    train_end
        End of training.
    valid_end
        End of validation.
    test_end
        End of test.

    Raises
    ------
    InputError
        The boundaries are not in order.
    """

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


def _default_split(city: City, flows: xr.Dataset) -> Split:
    """Split slots: the last 15 % are test, the 10 % before them validation, cut at the nearest local midnights.

    Only slots that windows hold are counted, so that each part has its share of them however sparse the records are.
    """
    time = flows["time"].values
    end = time[-1] + city.slot
    held = np.zeros(len(time), np.bool_)
    held[window_starts(flows, city, time[0], end)[:, None] + np.arange(WINDOW_LENGTH)] = True
    usable = time[held] if held.any() else time
    valid_end, train_end = (
        _nearest_midnight(city, usable[min(round(len(usable) * share), len(usable) - 1)])
        for share in (1 - _TEST_SHARE, 1 - _TEST_SHARE - VALID_SHARE)
    )
    if train_end >= valid_end:
        train_end = _nearest_midnight(city, valid_end - np.timedelta64(1, "D"))
    if not time[0] < train_end < valid_end < end:
        raise InputError(
            f"{len(usable)} slots, {city.isoformat(time[0])} to {city.isoformat(end)}, are too few to split at "
            "midnights into training, validation and test: ingest more days"
        )
    return Split(time[0], train_end, valid_end, end)


def chosen_split(
    city: City,
    flows: xr.Dataset,
    train_end: np.datetime64 | None,
    valid_end: np.datetime64 | None,
    test_end: np.datetime64 | None,
) -> Split:
    """Split slots at given ends, or by default.

    Without any end the last 15 % of the slots that windows hold are test and the 10 % before them validation, cut at
    local midnights.

    Parameters
    ----------
    city
        The city.
    flows
        Its flows.
    train_end
        End of training, naive UTC; None only where the other ends are None too.
    valid_end
        End of validation, naive UTC; None only where the other ends are None too.
    test_end
        End of test, naive UTC; None is the end of the last slot.

    Returns
    -------
    Split
        The boundaries.

    Raises
    ------
    InputError
        Only a part of the ends is given, or they are not in order, or there are too few slots.
    """
    if train_end is None and valid_end is None and test_end is None:
        return _default_split(city, flows)
    if train_end is None or valid_end is None:
        raise InputError("give --train-end and --valid-end together, or neither")
    time = flows["time"].values
    return Split(time[0], train_end, valid_end, time[-1] + city.slot if test_end is None else test_end)


def window_starts(flows: xr.Dataset, city: City, start: np.datetime64, end: np.datetime64) -> np.ndarray:
    """Find the windows whose target slots lie in a period.

    A window is HISTORY + HORIZON contiguous observed slots; its history may lie before the period.

    Parameters
    ----------
    flows
        The city's flows.
    city
        The city.
    start
        Start of the period, naive UTC, inclusive.
    end
        End of the period, naive UTC, exclusive.

    Returns
    -------
    np.ndarray
        Positions (n) in `flows` of the windows' first slots.
    """
    time, observed = flows["time"].values, flows["observed"].values
    if len(time) < WINDOW_LENGTH:
        return np.empty(0, np.int64)
    contiguous = time[WINDOW_LENGTH - 1 :] - time[: 1 - WINDOW_LENGTH] == (WINDOW_LENGTH - 1) * city.slot
    whole = contiguous & np.lib.stride_tricks.sliding_window_view(observed, WINDOW_LENGTH).all(axis=1)
    first, last = time[HISTORY : len(time) - HORIZON + 1], time[WINDOW_LENGTH - 1 :]
    return np.flatnonzero(whole & (first >= start) & (last < end))


def describe_period(
    flows: xr.Dataset, city: City, start: np.datetime64, end: np.datetime64, starts: np.ndarray
) -> dict[str, Any]:
    """Describe how much of a period has windows.

    Parameters
    ----------
    flows
        The city's flows.
    city
        The city.
    start
        Start of the period, naive UTC, inclusive.
    end
        End of the period, naive UTC, exclusive.
    starts
        Positions (n) in `flows` of the windows' first slots (see `window_starts`).

    Returns
    -------
    dict[str, Any]
        The numbers of `slots` of the period and of those `observed`; and `windows_by_hour`, the number of windows by
        the local weekday, Monday first, and hour of their init times, (7, 24).
    """
    time = flows["time"].values
    within = (time >= start) & (time < end)
    init_times = city.local(time[starts + HISTORY]) if len(starts) else city.local(time[:0])
    by_hour = np.bincount(np.asarray(init_times.day_of_week * 24 + init_times.hour, np.int64), minlength=7 * 24)
    return {
        "slots": int((end - start) / city.slot),
        "observed": int(np.count_nonzero(flows["observed"].values & within)),
        "windows_by_hour": by_hour.reshape(7, 24).tolist(),
    }


def _gather(flows: np.ndarray, starts: np.ndarray, length: int = WINDOW_LENGTH) -> np.ndarray:
    """Return windows (n, length, flow kind, row, col) of flows (time, flow kind, row, col)."""
    return flows[starts[:, None] + np.arange(length)]


def _windows_as_known(flows: xr.Dataset, starts: np.ndarray) -> np.ndarray:
    """Return windows (n, HISTORY + HORIZON, flow kind, row, col) float32, whose histories are as known at init time.

    `starts` (n) are the positions in `flows` of their first slots. The target slots are whole.
    """
    return _as_known(_gather(flows["flow"].values, starts).astype(np.float32), late_flow(flows), starts)


def _as_known(windows: np.ndarray, late: np.ndarray | None, starts: np.ndarray) -> np.ndarray:
    """Take from the histories of windows (n, slot, flow kind, row, col), in place, what became known later.

    `late` is (time, age, flow kind, row, col), as `late_flow` returns it.
    """
    if late is not None:
        for age in range(1, late.shape[1] + 1):
            windows[:, HISTORY - age] -= late[starts + HISTORY - age, age - 1]
    return windows


def _known_at(flows: xr.Dataset, city: City, init_time: np.ndarray | np.datetime64) -> np.ndarray:
    """Return flows of slots before an init time, (time, flow kind, row, col) float32, as they were known then."""
    known, late = flows["flow"].values.astype(np.float32), late_flow(flows)
    since: np.ndarray = init_time - flows["time"].values
    for position, age in enumerate((since // city.slot).tolist()):
        if late is not None and age <= late.shape[1]:
            known[position] -= late[position, age - 1]
    return known


def _window_times(city: City, init_times: np.ndarray) -> np.ndarray:
    """Return the slot starts (n, HISTORY + HORIZON) of windows, naive UTC, from their init times (n)."""
    return np.asarray(init_times)[:, None] + city.slot * np.arange(-HISTORY, HORIZON)


def _evenly(number: int, most: int) -> np.ndarray:
    """Return at most so many positions, evenly spread from 0 to number - 1; one at least."""
    return np.linspace(0, number - 1, min(max(1, most), number)).round().astype(int)


def _history_before(flows: xr.Dataset | None, city: City, init_time: np.datetime64) -> np.ndarray:
    """Return the history (1, HISTORY, flow kind, row, col) before an init time, vehicles per slot.

    Raises an InputError that names the slots that are missing or not observed.
    """
    wanted = init_time - city.slot * np.arange(HISTORY, 0, -1)
    if flows is not None:
        flows = flows.isel(time=flows["observed"].values & np.isin(flows["time"].values, wanted))
    observed = np.empty(0, "datetime64[us]") if flows is None else flows["time"].values
    absent = [city.isoformat(t) for t in np.setdiff1d(wanted, observed)]
    if absent or flows is None:
        raise InputError(
            f"a forecast for {city.isoformat(init_time)} needs the {HISTORY} observed slots before it; "
            f"missing or cut off: {', '.join(absent)}"
        )
    return _known_at(flows, city, init_time)[None]


def _nearest_midnight(city: City, time: np.datetime64) -> np.datetime64:
    """Return the local midnight that is nearest to a time, naive UTC."""
    day = city.local_days(np.array([time]))[0]
    midnights = [city.midnight(day), city.midnight(day + np.timedelta64(1, "D"))]
    return min(midnights, key=lambda midnight: abs(midnight - time))
