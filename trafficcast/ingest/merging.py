"""New records settle among the stored ones, and what that changes in the counts, exactly.

An hour that gets records is sorted, rid of repeats, written and counted, before and after, on its own. Hours that
follow one another are joined, in any shape of tree, and closed with each vehicle's point before and after them, so
that the difference of the two counts is all that the new records change: a point between p and q undoes the pair
p -> q as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trafficcast.config.city import City
from trafficcast.ingest.counting import (  # fmt: skip
    Count,
    _count_points,
    _count_trips,
    _count_zone_trips,
    _difference,
    _first_of_each,
    _merge_all,
    merge,
)
from trafficcast.ingest.deduplication import _sort_and_deduplicate
from trafficcast.ingest.hour_files import _write_hour_file
from trafficcast.ingest.record_store import RecordStore, State
from trafficcast.records.records import HOUR_US, Points, Records, Trips, ZoneTrips

_HOURS_A_DAY = 24


@dataclass(frozen=True)
class _MergedHours:
    """Hours with their new records, `first` to `last`, no other stored hour between them.

    `files` are those written, with how many records each holds: none for an hour that got nothing but repeats.
    `before` and `after` count the hours without and with what is new; `repeats` are the rows of each source that were.
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
    staged: Callable[[], tuple[Records, np.ndarray]],
) -> _MergedHours:
    """Settle the new records of an hour among the old ones, which are settled.

    `staged` reads the new ones and the source of each. Vehicles index `names`. Where there are none but repeats, no
    file is written.
    """
    new, source = staged()
    records, repeats = _sort_and_deduplicate(type(new).concatenate([old, new]) if len(old) else new)
    repeated = Counter(source[repeats[repeats >= len(old)] - len(old)].tolist())
    del new, source  # as large as what is written next
    before = count(city, old, zone_ids)
    if len(records) == len(old) and all(
        np.array_equal(a, b) for a, b in zip(records.arrays().values(), old.arrays().values(), strict=True)
    ):
        return _MergedHours(hour, hour, {}, before, before, repeated)
    file = _hour_file(hour, generation)
    _write_hour_file(root / file, records, names)
    return _MergedHours(hour, hour, {hour: (file, len(records))}, before, count(city, records, zone_ids), repeated)


def count(city: City, records: Records, zone_ids: np.ndarray | None) -> Count:
    """Count settled records of any kind."""
    if isinstance(records, Points):
        return _count_points(city, records)
    if isinstance(records, Trips):
        return _count_trips(city, records)
    assert isinstance(records, ZoneTrips) and zone_ids is not None
    return _count_zone_trips(city, records, zone_ids)


def _hour_file(hour: int, generation: int) -> str:
    """The name, below a store's root, of an hour's file."""
    return f"{np.datetime64(hour, 'h').astype('datetime64[D]')}/{hour % _HOURS_A_DAY:02d}.{generation}.parquet"


def _runs(hours: list[int], stored: Iterable[int]) -> list[list[int]]:
    """Rising hours in stretches of a day at most, no other stored hour within one."""
    others = np.array(sorted(set(stored) - set(hours)), np.int64)
    found: list[list[int]] = []
    for hour in hours:
        last = found[-1][-1] if found else None
        if (
            last is None
            or hour // _HOURS_A_DAY != last // _HOURS_A_DAY
            or np.searchsorted(others, hour) != np.searchsorted(others, last)
        ):
            found.append([])
        found[-1].append(hour)
    return found


def _join_hours(city: City, early: _MergedHours, late: _MergedHours) -> _MergedHours:
    """Two stretches of hours as one."""
    return _MergedHours(
        early.first,
        late.last,
        {**early.files, **late.files},
        merge(city, early.before, late.before),
        merge(city, early.after, late.after),
        early.repeats + late.repeats,
    )


def _join_all(city: City, settled: list[_MergedHours]) -> _MergedHours:
    """Stretches of hours, in the order of time, as one; joined two by two, so that little is copied often."""
    while len(settled) > 1:
        pairs = [settled[i : i + 2] for i in range(0, len(settled), 2)]
        settled = [_join_hours(city, *pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return settled[0]


def _merge_hours(
    city: City, store: RecordStore, state: State, settled: Iterable[_MergedHours]
) -> tuple[Count, Counter[int]]:
    """Take runs of settled hours, in the order of time, into a state.

    Returns what to add to the stored slots, and the repeats of each source.
    """
    delta = Count()
    repeats: Counter[int] = Counter()
    for run in settled:
        repeats.update(run.repeats)
        state.hours.update(run.files)
        if not run.files:
            continue
        vehicles = run.after.first.vehicle
        state.fleet.grow()
        earlier = _ends(_last_before(store, state, vehicles, run.first))
        later = _ends(_first_after(store, state, vehicles, run.last))
        after = _merge_all(city, [earlier, run.after, later])
        change = _difference(after, _merge_all(city, [earlier, run.before, later]))
        state.fleet.see(run.after)
        state.totals = state.totals + change.totals
        delta = _sum(delta, Count(change.slots, change.totals, last=run.after.last))
    return delta, repeats


def _last_before(store: RecordStore, state: State, vehicles: np.ndarray, hour: int) -> Points:
    """The last point of each of the vehicles (rising codes) before an hour; those that have one."""
    fleet, start = state.fleet, hour * HOUR_US
    seen = fleet.first[vehicles] < start
    not_since = fleet.last_time[vehicles] < start
    found = [fleet.last_points(vehicles[seen & not_since])]
    wanted = vehicles[seen & ~not_since]
    for earlier in sorted((stored for stored in state.hours if stored < hour), reverse=True):
        if not len(wanted):
            break
        points = store.read_hour(state, earlier)
        assert isinstance(points, Points)
        last = points.take(np.append(np.flatnonzero(np.diff(points.vehicle)), len(points) - 1))
        found.append(last.take(np.isin(last.vehicle, wanted)))
        wanted = np.setdiff1d(wanted, last.vehicle)
    found.append(state.pruned.take(np.isin(state.pruned.vehicle, wanted)))
    return _by_vehicle(found)


def _first_after(store: RecordStore, state: State, vehicles: np.ndarray, hour: int) -> Points:
    """The first point of each of the vehicles (rising codes) after an hour; those that have one."""
    wanted = vehicles[state.fleet.last_time[vehicles] >= (hour + 1) * HOUR_US]
    found = []
    for later in sorted(stored for stored in state.hours if stored > hour):
        if not len(wanted):
            break
        points = store.read_hour(state, later)
        assert isinstance(points, Points)
        first = points.take(np.flatnonzero(np.diff(points.vehicle, prepend=-1)))
        found.append(first.take(np.isin(first.vehicle, wanted)))
        wanted = np.setdiff1d(wanted, first.vehicle)
    return _by_vehicle(found)


def _by_vehicle(parts: list[Points]) -> Points:
    points = Points.concatenate(parts)
    return points.take(np.argsort(points.vehicle, kind="stable"))


def _ends(points: Points) -> Count:
    """A count of nothing but points that pairs end at."""
    return Count(first=points, last=points)


def _sum(one: Count, other: Count) -> Count:
    """Two changes added up, no pair between them, and the later end of each vehicle."""
    slots = dict(one.slots)
    for number, slot in other.slots.items():
        slots[number] = slots[number].plus(slot) if number in slots else slot
    return Count(slots, one.totals + other.totals, last=_first_of_each(other.last, one.last))
