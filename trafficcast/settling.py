"""New records settle among the stored ones, and what that changes in the counts, exactly.

An hour that gets records is sorted, rid of repeats, written and counted, before and after, on its own. Hours that
follow one another are merged, and closed with each vehicle's point before and after them, so that the difference of
the two counts is all that the new records change: a point between p and q undoes the pair p -> q as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trafficcast.city import City
from trafficcast.flows import Count, count_points, count_trips, count_zone_trips, difference, first_of_each, merge_all
from trafficcast.hour_files import write_hour
from trafficcast.record_store import RecordStore, State
from trafficcast.records import HOUR_US, Points, Records, Trips, ZoneTrips
from trafficcast.sorting import sort_and_deduplicate

HOURS_A_DAY = 24


@dataclass(frozen=True)
class Settled:
    """An hour with its new records: its new file below the store's root (None: nothing is new) and how many it holds,
    the counts without and with what is new, and how many rows of each source were repeats."""

    hour: int
    file: str | None
    records: int
    before: Count
    after: Count
    repeats: Counter[int]


def count(city: City, records: Records, zone_ids: np.ndarray | None) -> Count:
    """Count sorted records of any kind."""
    if isinstance(records, Points):
        return count_points(city, records)
    if isinstance(records, Trips):
        return count_trips(city, records)
    assert isinstance(records, ZoneTrips) and zone_ids is not None
    return count_zone_trips(city, records, zone_ids)


def settle_hour(
    city: City,
    zone_ids: np.ndarray | None,
    root: Path,
    hour: int,
    generation: int,
    names: list[str],
    old: Records,
    new: Records,
    source: np.ndarray,
) -> Settled:
    """Settle the new records of an hour, with the source of each, among the old ones.

    Vehicles index `names`. Where there are none but repeats, no file is written.
    """
    both = type(new).concatenate([old, new])
    records, repeats = sort_and_deduplicate(both)
    repeated = Counter(source[repeats[repeats >= len(old)] - len(old)].tolist())
    before = count(city, old, zone_ids)
    if len(records) == len(old) and all(
        np.array_equal(a, b) for a, b in zip(records.arrays().values(), old.arrays().values(), strict=True)
    ):
        return Settled(hour, None, len(old), before, before, repeated)
    file = hour_file(hour, generation)
    write_hour(root / file, records, names)
    return Settled(hour, file, len(records), before, count(city, records, zone_ids), repeated)


def hour_file(hour: int, generation: int) -> str:
    """The name, below a store's root, of an hour's file."""
    return f"{np.datetime64(hour, 'h').astype('datetime64[D]')}/{hour % HOURS_A_DAY:02d}.{generation}.parquet"


def settle(city: City, store: RecordStore, state: State, settled: Iterable[Settled]) -> tuple[Count, Counter[int]]:
    """Take settled hours, in the order of time, into a state.

    Returns what to add to the stored slots, and the repeats of each source. Hours are taken together as long as no
    other stored hour lies between them, a day at most, so that memory does not grow with the records.
    """
    delta = Count()
    repeats: Counter[int] = Counter()
    for run in _runs(settled, state):
        for part in run:
            repeats.update(part.repeats)
            if part.file is not None:
                state.hours[part.hour] = (part.file, part.records)
        if all(part.file is None for part in run):
            continue
        after = merge_all(city, [part.after for part in run])
        before = merge_all(city, [part.before for part in run])
        vehicles = after.first.vehicle
        state.fleet.grow()
        earlier = _ends(last_before(store, state, vehicles, run[0].hour))
        later = _ends(first_after(store, state, vehicles, run[-1].hour))
        change = difference(merge_all(city, [earlier, after, later]), merge_all(city, [earlier, before, later]))
        state.fleet.see(after)
        state.totals = state.totals + change.totals
        delta = _sum(delta, Count(change.slots, change.totals, last=after.last))
    return delta, repeats


def last_before(store: RecordStore, state: State, vehicles: np.ndarray, hour: int) -> Points:
    """The last point of each of the vehicles (sorted codes) before an hour; those that have one, sorted."""
    fleet, start = state.fleet, hour * HOUR_US
    recent = fleet.last_time[vehicles] < start
    known = vehicles[recent & (fleet.first[vehicles] < start)]
    wanted = vehicles[~recent & (fleet.first[vehicles] < start)]
    found = [fleet.last_points(known)]
    for earlier in sorted((h for h in state.hours if h < hour), reverse=True):
        if not len(wanted):
            break
        points = store.read_hour(state, earlier)
        assert isinstance(points, Points)
        last = points.take(np.append(np.flatnonzero(np.diff(points.vehicle)), len(points) - 1))
        found.append(last.take(np.isin(last.vehicle, wanted)))
        wanted = np.setdiff1d(wanted, last.vehicle)
    found.append(state.pruned.take(np.isin(state.pruned.vehicle, wanted)))
    points = Points.concatenate(found)
    return points.take(np.argsort(points.vehicle, kind="stable"))


def first_after(store: RecordStore, state: State, vehicles: np.ndarray, hour: int) -> Points:
    """The first point of each of the vehicles (sorted codes) after an hour; those that have one, sorted."""
    wanted = vehicles[state.fleet.last_time[vehicles] >= (hour + 1) * HOUR_US]
    found = [Points.concatenate([])]
    for later in sorted(h for h in state.hours if h > hour):
        if not len(wanted):
            break
        points = store.read_hour(state, later)
        assert isinstance(points, Points)
        first = points.take(np.flatnonzero(np.diff(points.vehicle, prepend=-1)))
        found.append(first.take(np.isin(first.vehicle, wanted)))
        wanted = np.setdiff1d(wanted, first.vehicle)
    points = Points.concatenate(found)
    return points.take(np.argsort(points.vehicle, kind="stable"))


def _ends(points: Points) -> Count:
    """A count of nothing but points that pairs end at."""
    return Count(first=points, last=points)


def _sum(one: Count, other: Count) -> Count:
    """Two changes added up, no pair between them, and the later end of each vehicle."""
    slots = dict(one.slots)
    for number, slot in other.slots.items():
        slots[number] = slots[number].plus(slot) if number in slots else slot
    return Count(slots, one.totals + other.totals, last=first_of_each(other.last, one.last))


def _runs(settled: Iterable[Settled], state: State) -> Iterator[list[Settled]]:
    """Hours that follow one another within a day, no other stored hour between them."""
    run: list[Settled] = []
    stored = np.array(sorted(state.hours), np.int64)
    for part in settled:
        if run:
            last = run[-1].hour
            between = np.searchsorted(stored, part.hour) - np.searchsorted(stored, last, side="right")
            if between or part.hour // HOURS_A_DAY != last // HOURS_A_DAY:
                yield run
                run = []
        run.append(part)
    if run:
        yield run
