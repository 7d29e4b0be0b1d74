"""Merge new records into the stored ones, and compute exactly how that changes the counts.

Each hour that gets records is sorted, deduplicated, written and counted, before and after, on its own. Consecutive
hours are then joined, as a tree of any shape, and completed with each vehicle's points before and after them. The
difference of the two counts is all that the new records change, including the pairs that they undo: a point between
p and q takes back the pair p -> q.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
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
from trafficcast.ingestion.deduplication import _deduplicate, _Rows, _same_records, _sort
from trafficcast.ingestion.hour_files import _file_of, _write_hour_file
from trafficcast.ingestion.record_store import RecordStore, State
from trafficcast.ingestion.spans import Span, _Merge
from trafficcast.records.records import HOUR_US, Points, Records, Trips, ZoneTrips

_T = TypeVar("_T")


@dataclass(frozen=True)
class _MergedHours:
    """Counts of consecutive hours, before and after new records were merged into them and others were taken out.

    No stored hour outside `span` lies within it. `files` are the files written, by their spans, each with its number of
    rows, or None for a span that has no file any more; a span whose rows did not change is left out. `repeats` is by
    how much the number of repeated rows of each source grows.
    """

    span: Span
    files: dict[Span, tuple[str, int] | None]
    before: Count
    after: Count
    repeats: Counter[int]


def _merge_span(
    city: City,
    zone_ids: np.ndarray | None,
    root: Path,
    merge: _Merge,
    generation: int,
    names: list[str],
    old: _Rows,
    removed: frozenset[int],
    read_staged: Callable[[], _Rows],
) -> _MergedHours:
    """Take the rows of the removed sources out of the old ones of a file, which are sorted, and merge new ones into it.

    `old` are all rows of the stored file. `read_staged` returns the new rows. The vehicles of all rows index `names`.
    No file is written where no row changes.
    """
    span = merge.span
    files: dict[Span, tuple[str, int] | None] = {}
    if merge.stored is not None and merge.stored != span:  # the stored file is split
        files[merge.stored] = None
        hours = old.records.time // HOUR_US
        old = old.take((hours >= span.first) & (hours < span.end))
    new, stay = read_staged(), old.without(removed)
    rows, repeats = _sort(_Rows.concatenate(type(new.records), [stay, new]) if len(stay) else new)
    del new, stay  # as large as the rows that are written next
    records, of_earlier = _deduplicate(rows)
    old_records, of_earlier_before = _deduplicate(old)
    repeats.update(of_earlier)
    repeats.subtract({source: n for source, n in of_earlier_before.items() if source not in removed})
    before = after = count(city, old_records, zone_ids)
    if (
        not files
        and len(rows) == len(old)
        and np.array_equal(rows.source, old.source)
        and _same_records(rows.records, old.records)
    ):
        return _MergedHours(span, {}, before, after, repeats)
    file = _file_of(span, generation)
    if len(rows):
        _write_hour_file(root / file, rows, names)
    if len(records) != len(old_records) or not _same_records(records, old_records):
        after = count(city, records, zone_ids)
    return _MergedHours(span, {**files, span: (file, len(rows)) if len(rows) else None}, before, after, repeats)


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


def _join_hours(city: City, early: _MergedHours, late: _MergedHours) -> _MergedHours:
    """Join two runs of consecutive hours."""
    repeats = early.repeats.copy()
    repeats.update(late.repeats)
    return _MergedHours(
        Span(early.span.first, late.span.end),
        {**early.files, **late.files},
        merge(city, early.before, late.before),
        merge(city, early.after, late.after),
        repeats,
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

    Returns the change of the stored slots, and by how much the number of repeats of each source grows. The last points
    of the change name the vehicles of which a record changed.
    """
    delta = Count()
    repeats: Counter[int] = Counter()
    for run in merged:
        repeats.update(run.repeats)
        if not run.files:
            continue
        for span, file in run.files.items():
            if file is None:
                state.files.pop(span, None)
            else:
                state.files[span] = file
        ends = _first_of_each(run.after.last, run.before.last)
        state.vehicles.extend()
        earlier = _last_before(store, state, ends.vehicle, run.span.first)
        later = _first_after(store, state, ends.vehicle, run.span.end)
        around = _count_of_ends(earlier), _count_of_ends(later)
        after = _merge_all(city, [around[0], run.after, around[1]])
        change = _difference(after, _merge_all(city, [around[0], run.before, around[1]]))
        start, end = (hour * HOUR_US for hour in run.span)
        state.vehicles.replace_within(start, end, ends.vehicle, earlier, run.after, later)
        state.totals = state.totals + change.totals
        last = _first_of_each(ends, delta.last)
        delta = Count(_add_slots(delta.slots, change.slots), delta.totals + change.totals, last=last)
    changed = {number: slot for number, slot in delta.slots.items() if slot.differs()}
    return replace(delta, slots=changed), repeats


def _last_before(store: RecordStore, state: State, codes: np.ndarray, hour: int) -> Points:
    """Return the last point before an hour of each of some vehicles (rising codes) that has one."""
    table, start = state.vehicles, hour * HOUR_US
    exists = table.first_time[codes] < start
    is_last = table.last_time[codes] < start
    known = table.last_points(codes[exists & is_last])
    earlier = sorted((stored for stored in state.files if stored.first < hour), reverse=True)
    found, missing = _search(store, state, codes[exists & ~is_last], earlier, last=True)
    return _by_vehicle([known, *found, state.pruned.take(np.isin(state.pruned.vehicle, missing))])


def _first_after(store: RecordStore, state: State, codes: np.ndarray, hour: int) -> Points:
    """Return the first point from an hour on of each of some vehicles (rising codes) that has one."""
    wanted = codes[state.vehicles.last_time[codes] >= hour * HOUR_US]
    later = sorted(stored for stored in state.files if stored.first >= hour)
    found, _ = _search(store, state, wanted, later, last=False)
    return _by_vehicle(found)


def _search(
    store: RecordStore, state: State, wanted: np.ndarray, spans: list[Span], last: bool
) -> tuple[list[Points], np.ndarray]:
    """Search files in turn for a point of each of the wanted vehicles: the last or the first one of the file.

    Returns the points, and the vehicles without one.
    """
    found = []
    for span in spans:
        if not len(wanted):
            break
        points = store.read(state, span)
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
