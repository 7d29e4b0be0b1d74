"""Windows of contiguous observed slots, and splits that do not leak."""

from __future__ import annotations

from datetime import UTC
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cities import small_city
from trafficcast.config.city import HISTORY, HORIZON, City
from trafficcast.errors import InputError
from trafficcast.forecasting.windows import (
    Split,
    _default_split,
    _gather,
    _history_before,
    _windows_as_known,
    describe_period,
    window_starts,
)
from trafficcast.stores.flows import flows_dataset, late_flow
from trafficcast.training.dataset import _windows_of

START = np.datetime64("2008-06-04T00:00", "us")
HALF_HOUR = np.timedelta64(30, "m")
LENGTH = HISTORY + HORIZON


def city(timezone: str = "UTC") -> City:
    return small_city(rows=1, cols=2, timezone=timezone)


def flows(
    observed: list[bool] | np.ndarray, absent: list[int] | None = None, start: np.datetime64 = START
) -> xr.Dataset:
    """Slots from `start` on, the absent ones left out. The flow of a slot is its number."""
    slots = np.setdiff1d(np.arange(len(observed)), absent or [])
    flow = np.broadcast_to(slots[:, None, None, None], (len(slots), 2, 1, 2))
    coverage = np.asarray(observed, float)[slots]
    return flows_dataset(city(), start + HALF_HOUR * slots, flow, np.full(len(slots), 3), coverage)


def starts(dataset: xr.Dataset, first: int = 0, end: int = 10_000) -> list[int]:
    """Numbers of the first slots of all windows whose targets lie in slots [first, end)."""
    found = window_starts(dataset, city(), START + HALF_HOUR * first, START + HALF_HOUR * end)
    return dataset["flow"].values[found, 0, 0, 0].tolist()


def test_a_window_is_four_slots_of_history_and_four_targets() -> None:
    assert (HISTORY, HORIZON) == (4, 4)
    assert starts(flows([True] * 8)) == [0]
    assert starts(flows([True] * 10)) == [0, 1, 2]


@pytest.mark.parametrize("slots", [0, 1, 7])
def test_too_few_slots_hold_no_window(slots: int) -> None:
    assert starts(flows([True] * slots)) == []


def test_no_window_holds_a_slot_that_was_not_observed() -> None:
    observed = [True] * 20
    observed[10] = False
    assert starts(flows(observed)) == [0, 1, 2, 11, 12]


def test_no_window_crosses_a_slot_that_is_not_there() -> None:
    assert starts(flows([True] * 20, absent=[10])) == [0, 1, 2, 11, 12]
    assert starts(flows([True] * 20, absent=list(range(8, 12)))) == [0, 12]


def test_targets_decide_and_history_may_lie_before() -> None:
    whole = flows([True] * 30)
    assert starts(whole, 10, 20) == [6, 7, 8, 9, 10, 11, 12]  # targets 10-13 up to 16-19
    assert starts(whole, 10, 14) == [6]
    assert starts(whole, 10, 13) == []
    assert starts(whole, 0, 8) == [0]


SLOTS = st.lists(st.sampled_from(["observed"] * 9 + ["cut", "absent"]), min_size=1, max_size=90)
HYPOTHESIS = settings(derandomize=True, max_examples=100, deadline=None, database=None)


def dataset_of(slots: list[str]) -> xr.Dataset:
    return flows([slot == "observed" for slot in slots], [i for i, slot in enumerate(slots) if slot == "absent"])


@HYPOTHESIS
@given(SLOTS, st.integers(0, 90), st.integers(0, 90))
def test_windows_are_all_runs_of_eight_observed_slots_and_no_others(slots: list[str], first: int, end: int) -> None:
    wanted = [
        at
        for at in range(len(slots) - LENGTH + 1)
        if slots[at : at + LENGTH] == ["observed"] * LENGTH and first <= at + HISTORY and at + LENGTH <= end
    ]
    assert starts(dataset_of(slots), first, end) == wanted


@pytest.mark.slow
@HYPOTHESIS
@given(SLOTS, st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_nothing_of_a_later_split_is_in_a_window_of_an_earlier_one(
    slots: list[str], train: int, valid: int, test: int
) -> None:
    dataset = dataset_of(slots)
    edges = [0, train, train + valid, train + valid + test]
    targets: list[set[int]] = []
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        at = window_starts(dataset, city(), START + HALF_HOUR * first, START + HALF_HOUR * end)
        windows = _gather(dataset["flow"].values, at)[:, :, 0, 0, 0]
        assert (np.diff(windows, axis=1) == 1).all()  # each is contiguous
        assert windows.size == 0 or windows.max() < end
        assert windows.size == 0 or windows[:, HISTORY:].min() >= first
        targets.append(set(windows[:, HISTORY:].ravel().tolist()))
    assert not targets[0] & targets[1] and not targets[1] & targets[2] and not targets[0] & targets[2]


def test_gather_takes_whole_windows() -> None:
    values = np.arange(20.0).reshape(10, 2, 1, 1)
    windows = _gather(values, np.array([0, 2]))
    assert windows.shape == (2, 8, 2, 1, 1)
    assert (windows[1] == values[2:10]).all()
    assert (_gather(values, np.array([3]), 4)[0] == values[3:7]).all()
    assert _gather(values, np.empty(0, np.int64)).shape == (0, 8, 2, 1, 1)


def test_the_history_of_a_window_is_what_was_known_at_its_init_time() -> None:
    dataset = flows([True] * 20)
    late = np.zeros((20, 2, 2, 1, 2))
    late[:, 0], late[:, 1] = 0.5, 0.25  # not known yet one slot and two slots after a slot began
    with_late = dataset.assign(late_flow=(("time", "age", "flow_kind", "row", "col"), late))
    at = window_starts(dataset, city(), START, START + HALF_HOUR * 20)
    windows = _windows_as_known(with_late, at)
    lacks = _windows_as_known(dataset, at) - windows
    assert (lacks == np.array([0, 0, 0.25, 0.5, 0, 0, 0, 0])[:, None, None, None]).all()
    assert (windows[:, HISTORY:] == _gather(dataset["flow"].values, at)[:, HISTORY:]).all()
    init_time = with_late["time"].values[at[3] + HISTORY]
    assert (_history_before(with_late, city(), init_time)[0] == windows[3, :HISTORY]).all()
    (training,) = _windows_of(dataset["flow"].values, 2.0, {}, at, late=late_flow(with_late))
    frames, _ = training.batch(torch.arange(len(at)))
    assert (frames.numpy() * 2 == windows).all()
    # Slots of an earlier version, and imported ones, lack nothing that is known.
    mixed = xr.concat([dataset.isel(time=slice(10)), with_late.isel(time=slice(10, 20))], "time", data_vars="minimal")
    assert (_windows_as_known(mixed, at[:2]) == _windows_as_known(dataset, at[:2])).all()
    assert (_windows_as_known(mixed, at[-2:]) == _windows_as_known(with_late, at[-2:])).all()


# Splits


def days(number: int, start: str = "2008-06-04T04:00") -> xr.Dataset:
    return flows(np.ones(48 * number), start=np.datetime64(start, "us"))


def test_the_last_15_percent_are_test_and_the_10_before_them_validation_at_local_midnights() -> None:
    split = _default_split(city("America/New_York"), days(20))
    assert split.start == np.datetime64("2008-06-04T04:00")
    assert split.train_end == np.datetime64("2008-06-19T04:00")  # 15 days
    assert split.valid_end == np.datetime64("2008-06-21T04:00")  # 2 days
    assert split.test_end == np.datetime64("2008-06-24T04:00")  # 3 days, up to the end of the last slot


@pytest.mark.parametrize(
    ("number", "train", "valid"),
    [(21, 16, 18), (25, 19, 21), (11, 8, 9), (7, 5, 6), (4, 2, 3), (3, None, None)],  # 15.75 and 17.85 days, ...
)
def test_the_cut_is_at_the_nearest_midnight(number: int, train: int | None, valid: int | None) -> None:
    times = days(number)
    if train is None:  # both cuts would be at the end
        with pytest.raises(InputError, match="too few to split"):
            _default_split(city("America/New_York"), times)
        return
    split = _default_split(city("America/New_York"), times)
    passed = [(edge - split.start) / np.timedelta64(1, "D") for edge in (split.train_end, split.valid_end)]
    shares = [0.75 * number, 0.85 * number]
    assert passed == [train, valid]
    assert all(abs(edge - share) <= 1 for edge, share in zip(passed, shares, strict=True))


def test_midnights_are_local_across_a_clock_change() -> None:
    there = city("America/New_York")
    split = _default_split(there, days(20, "2008-10-20T04:00"))  # clocks go back on 2 November
    for edge in (split.train_end, split.valid_end):
        assert there.local(np.array([edge]))[0].strftime("%H:%M") == "00:00"
    assert split.train_end == np.datetime64("2008-11-04T05:00")


def test_a_split_where_the_clocks_skip_midnight() -> None:
    there = city("America/Sao_Paulo")  # 2008-10-19 began at 01:00
    split = _default_split(there, days(20, "2008-10-02T03:00"))
    assert split.train_end == np.datetime64("2008-10-17T03:00")
    assert split.valid_end == np.datetime64("2008-10-19T03:00")


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 48, 96])
def test_too_little_data_is_refused(slots: int) -> None:
    with pytest.raises(InputError, match=f"{slots} slots.*too few to split"):
        _default_split(city(), days(2, "2008-06-04T00:00").isel(time=slice(slots)))


def test_only_slots_of_windows_count_so_that_each_part_has_its_share() -> None:
    """A city that closes in winter: 100 days, of which the last 60 have a few hours and no window."""
    observed = np.ones(48 * 100, bool)
    observed[48 * 40 :] = np.arange(48 * 60) % 48 < 5
    observed[48 * 10 : 48 * 12] = False
    sparse = flows(observed)
    split = _default_split(city(), sparse)
    edges = [(edge - START) / np.timedelta64(1, "D") for edge in vars(split).values()]
    assert edges == [0, 31, 34, 100]  # of 38 days 28.5, and 32.3
    parts = [window_starts(sparse, city(), *edges) for edges in pairwise(vars(split).values())]
    assert all(len(part) > 100 for part in parts)


def test_without_any_window_all_slots_count() -> None:
    assert _default_split(city(), flows(np.zeros(48 * 20))) == _default_split(city(), flows(np.ones(48 * 20)))


def test_a_period_is_described_by_its_slots_and_the_local_hours_of_its_windows() -> None:
    there = city("America/New_York")
    observed = np.ones(48 * 8, bool)
    observed[[3, 60, 61, 200]] = False
    dataset = flows(observed, absent=[100])
    start, end = START + HALF_HOUR * 2, START + HALF_HOUR * 300
    found = window_starts(dataset, there, start, end)
    described = describe_period(dataset, there, start, end, found)
    assert (described["slots"], described["observed"]) == (298, 298 - 5)
    wanted = np.zeros((7, 24), int)
    for init_time in dataset["time"].values[found + HISTORY].astype("datetime64[s]").tolist():
        local = init_time.replace(tzinfo=UTC).astimezone(ZoneInfo("America/New_York"))
        wanted[local.weekday(), local.hour] += 1
    assert described["windows_by_hour"] == wanted.tolist()
    assert wanted.sum() == len(found) > 200
    assert not np.any(describe_period(dataset, there, start, start + HALF_HOUR, found[:0])["windows_by_hour"])


@pytest.mark.parametrize("edges", [(0, 0, 1, 2), (0, 1, 1, 2), (0, 2, 1, 3), (1, 0, 2, 3), (0, 1, 3, 2)])
def test_a_split_out_of_order_is_refused(edges: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="not in order"):
        Split(*(START + np.timedelta64(1, "D") * edge for edge in edges))


# History


def test_history_is_the_four_slots_before() -> None:
    history = _history_before(flows([True] * 12), city(), START + HALF_HOUR * 9)
    assert history.shape == (1, 4, 2, 1, 2)
    assert history.dtype == np.float32
    assert history[0, :, 0, 0, 0].tolist() == [5, 6, 7, 8]


def test_history_is_there_for_the_slot_after_the_last() -> None:
    assert _history_before(flows([True] * 4), city(), START + HALF_HOUR * 4)[0, :, 1, 0, 1].tolist() == [0, 1, 2, 3]


def test_a_slot_missing_or_cut_off_is_named_in_local_time() -> None:
    observed = [True] * 12
    observed[6] = False
    with pytest.raises(InputError) as error:
        _history_before(flows(observed, absent=[8]), city("America/New_York"), START + HALF_HOUR * 9)
    assert str(error.value).endswith("missing or cut off: 2008-06-03T23:00:00-04:00, 2008-06-04T00:00:00-04:00")
    assert "2008-06-04T00:30:00-04:00 needs the 4 observed slots" in str(error.value)


def test_without_any_flows_all_four_are_missing() -> None:
    with pytest.raises(InputError, match=r"00:00.*00:30.*01:00.*01:30"):
        _history_before(None, city(), START + HALF_HOUR * 4)
