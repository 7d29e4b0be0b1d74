"""Merge new records into the stored ones, and compute exactly how that changes the counts.

Each hour that gets records is sorted, deduplicated, written and counted, before and after, on its own. Consecutive
hours are then joined, as a tree of any shape, and completed with each vehicle's points before and after them. The
difference of the two counts is all that the new records change, including the pairs that they undo: a point between
p and q takes back the pair p -> q.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from trafficcast.config.city import City
from trafficcast.ingestion.counting import (
    Count,
    _add_slots,
    _count_points,
    _count_trips,
    _count_zone_trips,
    _difference,
    _first_of_each,
    _merge_all,
    _vehicle_ends,
    merge,
)
from trafficcast.ingestion.deduplication import _sort_and_deduplicate
from trafficcast.ingestion.hour_files import _write_hour_file
from trafficcast.ingestion.record_store import RecordStore, State
from trafficcast.records.records import HOUR_US, Points, Records, Trips, ZoneTrips

_HOURS_A_DAY = 24
_T = TypeVar("_T")


@dataclass(frozen=True)
class _MergedHours:
    """Counts of consecutive hours, before and after new records were merged into them.

    No other stored hour lies between `first` and `last`. `files` are the files written for the hours, each with its
    number of records; an hour that got nothing but repeats has none. `repeats` counts the repeated rows of each source.
    """

    first: int
    last: int
    files: dict[int, tuple[str, int]]
    before: Count
    after: Count
    repeats: Counter[int]


def _merge_hour(
    city: City,
    zone_ids: np.ndarray | None,
    root: Path,
    hour: int,
    generation: int,
    names: list[str],
    old: Records,
    read_staged: Callable[[], tuple[Records, np.ndarray]],
) -> _MergedHours:
    """Merge the new records of an hour into its stored ones, which are sorted and deduplicated.

    `read_staged` returns the new records and the source of each. The vehicles of all records index `names`. No file is
    written where all new records are repeats.
    """
    new, source = read_staged()
    records, repeats = _sort_and_deduplicate(type(new).concatenate([old, new]) if len(old) else new)
    repeated = Counter(source[repeats[repeats >= len(old)] - len(old)].tolist())
    del new, source  # as large as the records that are written next
    before = count(city, old, zone_ids)
    if len(records) == len(old) and all(
        np.array_equal(a, b) for a, b in zip(records.arrays().values(), old.arrays().values(), strict=True)
    ):
        return _MergedHours(hour, hour, {}, before, before, repeated)
    file = _hour_file(hour, generation)
    _write_hour_file(root / file, records, names)
    return _MergedHours(hour, hour, {hour: (file, len(records))}, before, count(city, records, zone_ids), repeated)


def count(city: City, records: Records, zone_ids: np.ndarray | None) -> Count:
    """Count sorted and deduplicated records of any kind.

    Parameters
    ----------
    city
        The city whose grid, slots and limits apply.
    records
        The records.
    zone_ids
        Rising ids of the city's zones, (zone); only trips between zones need them.

    Returns
    -------
    Count
        Their count.
    """
    if isinstance(records, Points):
        return _count_points(city, records)
    if isinstance(records, Trips):
        return _count_trips(city, records)
    assert isinstance(records, ZoneTrips) and zone_ids is not None
    return _count_zone_trips(city, records, zone_ids)


def _hour_file(hour: int, generation: int) -> str:
    """Return the name of an hour's file, relative to the root of the store."""
    return f"{np.datetime64(hour, 'h').astype('datetime64[D]')}/{hour % _HOURS_A_DAY:02d}.{generation}.parquet"


def _consecutive_hours(hours: list[int], stored: Iterable[int]) -> list[list[int]]:
    """Split rising hours into runs within a day that have no other stored hour between them."""
    others = np.array(sorted(set(stored) - set(hours)), np.int64)
    runs: list[list[int]] = []
    for hour in hours:
        last = runs[-1][-1] if runs else None
        if (
            last is None
            or hour // _HOURS_A_DAY != last // _HOURS_A_DAY
            or np.searchsorted(others, hour) != np.searchsorted(others, last)
        ):
            runs.append([])
        runs[-1].append(hour)
    return runs


def _join_hours(city: City, early: _MergedHours, late: _MergedHours) -> _MergedHours:
    """Join two runs of consecutive hours."""
    return _MergedHours(
        early.first,
        late.last,
        {**early.files, **late.files},
        merge(city, early.before, late.before),
        merge(city, early.after, late.after),
        early.repeats + late.repeats,
    )


def _join_neighbours(items: list[_T], join: Callable[[_T, _T], _T]) -> _T:
    """Join neighbours two by two until one item is left, so that little is copied often."""
    while len(items) > 1:
        pairs = [items[i : i + 2] for i in range(0, len(items), 2)]
        items = [join(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return items[0]


def _merge_hours(
    city: City, store: RecordStore, state: State, merged: Iterable[_MergedHours]
) -> tuple[Count, Counter[int]]:
    """Update a state with runs of merged hours, in the order of time.

    Returns the change of the stored slots, and the number of repeats of each source.
    """
    delta = Count()
    repeats: Counter[int] = Counter()
    for run in merged:
        repeats.update(run.repeats)
        state.hours.update(run.files)
        if not run.files:
            continue
        codes = run.after.first.vehicle
        state.vehicles.extend()
        earlier = _count_of_ends(_last_before(store, state, codes, run.first))
        later = _count_of_ends(_first_after(store, state, codes, run.last))
        after = _merge_all(city, [earlier, run.after, later])
        change = _difference(after, _merge_all(city, [earlier, run.before, later]))
        state.vehicles.update(run.after)
        state.totals = state.totals + change.totals
        last = _first_of_each(run.after.last, delta.last)
        delta = Count(_add_slots(delta.slots, change.slots), delta.totals + change.totals, last=last)
    return delta, repeats


def _last_before(store: RecordStore, state: State, codes: np.ndarray, hour: int) -> Points:
    """Return the last point before an hour of each of some vehicles (rising codes) that has one."""
    table, start = state.vehicles, hour * HOUR_US
    exists = table.first_time[codes] < start
    is_last = table.last_time[codes] < start
    known = table.last_points(codes[exists & is_last])
    earlier = sorted((stored for stored in state.hours if stored < hour), reverse=True)
    found, missing = _search(store, state, codes[exists & ~is_last], earlier, last=True)
    return _by_vehicle([known, *found, state.pruned.take(np.isin(state.pruned.vehicle, missing))])


def _first_after(store: RecordStore, state: State, codes: np.ndarray, hour: int) -> Points:
    """Return the first point after an hour of each of some vehicles (rising codes) that has one."""
    wanted = codes[state.vehicles.last_time[codes] >= (hour + 1) * HOUR_US]
    found, _ = _search(store, state, wanted, sorted(stored for stored in state.hours if stored > hour), last=False)
    return _by_vehicle(found)


def _search(
    store: RecordStore, state: State, wanted: np.ndarray, hours: list[int], last: bool
) -> tuple[list[Points], np.ndarray]:
    """Search hours in turn for a point of each of the wanted vehicles: the last or the first one of the hour.

    Returns the points, and the vehicles without one.
    """
    found = []
    for hour in hours:
        if not len(wanted):
            break
        points = store.read_hour(state, hour)
        assert isinstance(points, Points)
        ends = _vehicle_ends(points)[last]
        found.append(ends.take(np.isin(ends.vehicle, wanted)))
        wanted = np.setdiff1d(wanted, ends.vehicle)
    return found, wanted


def _by_vehicle(parts: list[Points]) -> Points:
    """Return all points, sorted by vehicle."""
    points = Points.concatenate(parts)
    return points.take(np.argsort(points.vehicle, kind="stable"))


def _count_of_ends(points: Points) -> Count:
    """Return a count of no slots, whose points begin or end pairs across its seams."""
    return Count(first=points, last=points)
