"""Ingest: from sources to the record store, the counts, the flow store and the quality report.

_stage    reads the new sources, a batch at a time, and stages their records hour by hour
_merge    deduplicates each hour, merges it into the stored records and counts it (merging.py); then one transaction
          makes records and counts valid
_publish  writes the changed days of the flow store from the counts; a crash before it only delays them
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trafficcast.config.city import City
from trafficcast.errors import DamagedFile, InputError, JobError
from trafficcast.files import remove_temporaries, write_json, writer_lock
from trafficcast.geography.zones import QUOTA_DECIMALS, Zones, zones_of
from trafficcast.ingestion.cluster import _Cluster, _cluster
from trafficcast.ingestion.counting import Count, _slots_dataset
from trafficcast.ingestion.deduplication import _deduplicate
from trafficcast.ingestion.merging import _merge_hours, _MergedHours, count
from trafficcast.ingestion.quality_report import SlotSeries, quality_report, slot_starts, stored_slots
from trafficcast.ingestion.record_store import _KINDS, RecordStore, SourceFacts, State
from trafficcast.ingestion.spans import _Merge, _plan_merges
from trafficcast.ingestion.threads import _BadSource, _Found, _joined, _Threads, _threads
from trafficcast.ingestion.vehicles import _VehicleTable
from trafficcast.ingestion.way_of_reading import _Period, _way_as_text, _way_of_reading
from trafficcast.progress import log, track
from trafficcast.records.readers import find_records
from trafficcast.records.records import DAY_US, EARLIEST_US, HOUR_US, SECOND_US, ZoneTrips
from trafficcast.records.screening import Screen, reasons
from trafficcast.records.sources import Source
from trafficcast.stores.city_stores import CityStores

_Executor = _Threads | _Cluster
_MOST_NAMED = 3  # files of a message
_UNREAD = "unread:"  # stands for the digest of a source that cannot be read


class _NothingToCount(InputError):
    """No record is left to count, and the stores hold none."""


def ingest(
    location: str | Path,
    stores: CityStores,
    record_format: str | None = None,
    start: str | np.datetime64 | None = None,
    end: str | np.datetime64 | None = None,
    workers: int = 2,
    dask: str | None = None,
) -> dict[str, Any]:
    """Add records to a city's stores and count what they change of its flows.

    A source whose very bytes were ingested before is passed over, so a repeated call changes nothing. If it was read
    otherwise then, its records now take the place of those that it gave before.

    Parameters
    ----------
    location
        File, folder, glob or URL of GPS points or trips.
    stores
        The city and its stores.
    record_format
        The records' format; None recognises it from each file's content.
    start
        Records before this time are dropped; text in the city's time zone or naive UTC; None is the year 2000.
    end
        Records from this time on are dropped; None is a day from now.
    workers
        Threads that read, count and write.
    dask
        Address of a Dask scheduler whose workers read and count instead; None uses threads of this process.

    Returns
    -------
    dict[str, Any]
        The quality report of all records that the stores now hold (see `quality_report`).

    Raises
    ------
    InputError
        The only source cannot be read, or no record is left to count; every store is as it was.
    JobError
        Longitudes and latitudes of a source are swapped, all its rows are dropped, or one of several sources cannot be
        read; all that are bad are named, and every store is as it was.

    Examples
    --------
    >>> report = tc.ingest("gps/", city)
    >>> report["rows_dropped"]["duplicate"] >= 0
    True
    """
    found, passed_over = find_records(str(location), stores.city, record_format)
    for line in passed_over:
        log.info("passed over: %s", line)
    formats = Counter(name for _, name in found)
    log.info("found %s", ", ".join(f"{n} {name or 'unreadable'}" for name, n in formats.items()) or "no records")
    period = stores.city.as_time(start), stores.city.as_time(end)
    return _ingest_sources(found, stores, *period, workers, dask)


def _ingest_sources(
    found: _Found,
    stores: CityStores,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    workers: int = 2,
    dask: str | None = None,
    on_bad: _BadSource | None = None,
) -> dict[str, Any]:
    """Ingest sources that were found; one that cannot be read is left out and handed to `on_bad`, if given."""
    period = start, end
    earliest = EARLIEST_US if start is None else _microseconds(start)
    latest = int(time.time()) * SECOND_US + DAY_US if end is None else _microseconds(end)
    screen = Screen(stores.city, earliest, latest)

    def add(executor: _Executor, store: RecordStore, state: State, zones: Zones | None) -> None:
        retained = replace(screen, retained_from=state.retained_from)
        _add_new(executor, store, state, zones, found, retained, period, on_bad)
        _prune(stores.city, store, state)
        if not state.files:
            raise _NothingToCount("there are no records to count")

    return _change(stores, add, workers, dask)


def _change(
    stores: CityStores,
    change: Callable[[_Executor, RecordStore, State, Zones | None], None],
    workers: int,
    dask: str | None = None,
) -> dict[str, Any]:
    """Change the stored records, publish the flows that this changes, and return the quality report."""
    city, store = stores.city, RecordStore(stores.records)
    with writer_lock(stores.folder):
        remove_temporaries(stores.folder)
        _check_is_whole(store)
        if not store.exists() and stores.flows.days():
            raise InputError(
                f"the flows of '{city.name}' were not counted from the records here but imported, or by an earlier "
                f"version: use another city name, or move {stores.folder} away"
            )
        state = store.load()
        zones = _zones(city, state)
        _follow_rules(city, store, state, zones, workers)
        store.clean(state)
        zone_ids = None if zones is None else zones.ids
        at_work = (
            _threads(city, store, state, zone_ids, workers)
            if dask is None
            else _cluster(city, store, state, zone_ids, dask)
        )
        try:
            with at_work as executor:
                change(executor, store, state, zones)
        except BaseException:
            store.clean(store.load())  # of hours that were written and never committed
            raise
        return _publish(stores, store, state, zones)


def _publish(stores: CityStores, store: RecordStore, state: State, zones: Zones | None) -> dict[str, Any]:
    """Write the days of the flow store that changed, are missing or damaged, and the quality report, which is returned.

    A day has also changed where other slots of it are observed now, because of records of other days. A day whose last
    record was taken back has no flows, and the report is empty where no record is left. What is replaced is removed.
    """
    city, flows = stores.city, stores.flows
    series = stored_slots(city, store, state.kind, zones)
    with_records = set(_local_days(city, series.number[series.records > 0]))
    for day in set(store.unpublished()) - with_records:
        flows.remove(day)
        store.forget_flow_file(day)
    if not len(series):
        (stores.folder / "quality.json").unlink(missing_ok=True)
        store.clean(state)
        return {}
    broken = broken_days(stores)
    changed = set(store.unpublished())
    days = sorted({*changed, *broken, *_judged_otherwise(stores, store, series)})
    published: dict[np.datetime64, np.ndarray] = {}
    for day in track(days, "writing flows", len(days)):
        slots = city.slots_of_day(day)
        slots = slots[(slots >= series.number[0]) & (slots <= series.number[-1])]
        observed = np.isin(slots, series.number[series.observed])
        stored = store.slots(int(slots[0]), int(slots[-1]))
        kind = _KINDS[state.kind or "points"]
        aside = flows.set_aside(day)
        if aside is not None:
            log.warning("the flows of %s could not be read: their file now lies at %s", day, aside)
        if aside is not None or day in broken and day not in changed:
            log.info("the flows of %s were counted again from the records", day)
        dataset = _slots_dataset(city, slots, stored, observed, kind, zones if kind is ZoneTrips else None)
        flows.write(dataset, whole_days=True)
        published[day] = slots[observed]
    store.note_flow_files(published, flows.file)  # at once: each transaction waits for the disk
    report = quality_report(city, store, state, series)
    write_json(stores.folder / "quality.json", report)
    store.clean(state)
    return report


def _judged_otherwise(stores: CityStores, store: RecordStore, series: SlotSeries) -> list[np.datetime64]:
    """Return the published days in which other slots are observed now than when they were published."""
    city, published = stores.city, store.published_observed()
    observed = series.number[series.observed]
    day_of = city.local_days(slot_starts(city, observed))
    days = [day for day in _local_days(city, series.number[series.records > 0]) if stores.flows.file(day).exists()]
    order = np.argsort(day_of, kind="stable")  # clocks set back over midnight interleave the slots of two days
    edges = [np.searchsorted(day_of[order], days, side) for side in ("left", "right")]
    return [
        day
        for day, begin, end in zip(days, *edges, strict=True)
        if not np.array_equal(published.get(str(day)), observed[order][begin:end])  # type: ignore[arg-type]
    ]


def broken_days(stores: CityStores) -> list[np.datetime64]:
    """Find the days of the flow store that are missing, or whose files are not as they were published.

    No file is read, so that this costs next to nothing.

    Parameters
    ----------
    stores
        The city and its stores, which have records.

    Returns
    -------
    list[np.datetime64]
        The local days, in order.
    """
    store, flows = RecordStore(stores.records, read_only=True), stores.flows
    published, kept_from = store.flow_files(), flows.kept_from()
    broken = []
    for day in _local_days(stores.city, store.slot_facts()[:, 0]):
        if kept_from is None or day >= kept_from:
            file = flows.file(day)
            facts = file.stat() if file.exists() else None
            if facts is None or published.get(str(day)) != (facts.st_size, facts.st_mtime_ns):
                broken.append(day)
    return broken


def mend_flows(stores: CityStores, days: Iterable[np.datetime64] = ()) -> None:
    """Write the missing and damaged days of the flow store, and the quality report, anew from the counts of records.

    Parameters
    ----------
    stores
        The city and its stores, which have records.
    days
        Other local days to write anew.
    """
    store = RecordStore(stores.records)
    with writer_lock(stores.folder):
        state = store.load()
        store.commit(state, Count(), [], list(days))
        _publish(stores, store, state, _zones(stores.city, state))


def _check_is_whole(store: RecordStore) -> None:
    """Raise DamagedFile where the database is gone or empty, and the files of records must not count as leftovers.

    A first ingest that was killed has left files too, but none of a second one, and no quality report.
    """
    if store.exists() and store.file.stat().st_size and store.load().generation:
        return
    files = list(store.root.glob("????-??-??/*.parquet"))
    second = any(int(file.name.split(".")[1]) > 1 for file in files)
    if files and (second or (store.root.parent / "quality.json").exists()):
        what = "it is empty, but there are records beside it" if store.exists() else "it is gone, but not its records"
        raise DamagedFile(store.file, what, store.root.parent.name)


def _add_new(
    executor: _Executor,
    store: RecordStore,
    state: State,
    zones: Zones | None,
    found: _Found,
    screen: Screen,
    period: _Period,
    on_bad: _BadSource | None,
) -> None:
    """Add the records of those sources that were not ingested before, or were read otherwise then."""
    new = _to_ingest(executor, screen.city, store, state, found, period)
    sources = _stage(executor, new, screen, state, on_bad) if new else {}
    if not sources:
        return
    if not executor.hours() and not state.files:
        raise _NothingToCount(_nothing_left(found, sources))
    removed = frozenset(number for number in sources if new[number].before is not None)
    _merge(executor, screen.city, store, state, zones, sources, removed)


@dataclass(frozen=True)
class _ToIngest:
    """A source that is to be ingested, its format, its identity, and what is known of it if it was read otherwise."""

    source: Source
    format: str
    digest: str
    way: dict[str, Any]
    before: SourceFacts | None


def _to_ingest(
    executor: _Executor, city: City, store: RecordStore, state: State, found: _Found, period: _Period
) -> dict[int, _ToIngest]:
    """Return the sources that are to be ingested, each once, by their numbers.

    A source that was read otherwise before keeps its number.
    """
    new: dict[str, tuple[Source, str]] = {}
    for digest, entry in zip(executor.digests(found), found, strict=True):
        new.setdefault(digest or f"{_UNREAD}{entry[0].path}", entry)
    known = store.known(list(new))
    numbered: dict[int, _ToIngest] = {}
    for digest, (source, name) in new.items():
        before, way = known.get(digest), _way_of_reading(city, name, period)
        if before is None:
            state.last_source += 1
            numbered[state.last_source] = _ToIngest(source, name, digest, way, None)
        elif before.number and before.way != way:
            numbered[before.number] = _ToIngest(source, name, digest, way, before)
    otherwise = [one for one in numbered.values() if one.before is not None]
    for one in otherwise[:_MOST_NAMED]:
        assert one.before is not None
        log.info(
            "%s was read otherwise before (%s): it is read anew (%s), in place of what it gave then",
            one.source.name, _way_as_text(one.before.way), _way_as_text(one.way),
        )  # fmt: skip
    if len(otherwise) > _MOST_NAMED:
        log.info("and so are %d more files", len(otherwise) - _MOST_NAMED)
    if len(numbered) < len(found):
        log.info("%d of %d files were ingested before and are passed over", len(found) - len(numbered), len(found))
    if any(facts.number == 0 for facts in known.values()):
        log.info(
            "an earlier version ingested some of them and did not note how it read them: to read them otherwise, move "
            "%s away and ingest all files again", store.root.parent,
        )  # fmt: skip
    return numbered


def _bad_among_others(bad: list[Exception]) -> JobError:
    """Return the error that names all bad files of an ingest."""
    return JobError(f"{'; '.join(map(str, bad))}; no file was ingested: mend what is named, or leave it out")


def _stage(
    executor: _Executor, new: dict[int, _ToIngest], screen: Screen, state: State, on_bad: _BadSource | None
) -> dict[int, SourceFacts]:
    """Stage the records of new sources and return the facts of each source, by its number."""
    bad: list[Exception] = []
    found = {number: (one.source, one.format) for number, one in new.items()}
    facts = executor.stage(found, screen, on_bad or (lambda source, error: bad.append(error)))
    if bad:
        raise bad[0] if len(new) == 1 else _bad_among_others(bad)
    for number in facts:
        if new[number].digest.startswith(_UNREAD):
            raise InputError(f"{new[number].source.path} could not be read at first: run the same command again")
    now = f"{np.datetime64(int(time.time()), 's')}Z"
    for number, source in facts.items():
        for note in source.notes:
            log.info("%s: %s", source.name, note)
        facts[number] = replace(source, digest=new[number].digest, way=new[number].way, taken=now)
    return facts


def _merge(
    executor: _Executor,
    city: City,
    store: RecordStore,
    state: State,
    zones: Zones | None,
    sources: dict[int, SourceFacts],
    removed: frozenset[int],
    forgotten: Iterable[SourceFacts] = (),
) -> None:
    """Take the rows of the removed sources out of the stored ones, merge the staged rows into them, and commit.

    `sources` are the facts on the sources whose rows are staged.
    """
    state.generation += 1
    state.rules = _rules(city, state, zones)
    stored = {span: n for span, (_, n) in state.files.items()}
    changed_files, hours_of = store.files_of(state, removed), partial(store.hours_of, state)
    merges = _plan_merges(stored, executor.hours(), changed_files, hours_of, state.retained_from // HOUR_US)
    delta, repeats = _merge_hours(city, store, state, executor.merge(merges, state.generation, removed))
    if sources and not state.files:
        raise _NothingToCount("the files, read in this way, have no record, and no other file gave any")
    changed = dict(sources)
    if removed:  # what repeated a record that was taken back does so no more
        changed |= {one.number: one for one in store.sources() if one.number in repeats.keys() - removed - {0}}
    for number in changed.keys() & repeats.keys():
        if n := repeats[number]:
            dropped = changed[number].dropped
            dropped["duplicate"] = dropped.get("duplicate", 0) + n
    days = _changed_days(city, store.slot_facts(), delta)
    if not state.files and not state.retained_from:
        state.kind = None  # the records that come next may be of another kind
    store.commit(state, delta, list(changed.values()), days, forgotten=forgotten)


def _changed_days(city: City, facts: np.ndarray, delta: Count) -> list[np.datetime64]:
    """Return the local days whose flows change: also those that were first and last, or are so now.

    These may have to be continued to their ends, or to begin later and end earlier. `facts` are those of the stored
    slots.
    """
    records = dict(facts[:, [0, 3]].tolist())
    ends = list(records)[:1] + list(records)[-1:]
    for number, slot in delta.slots.items():
        records[number] = records.get(number, 0) + int(slot.minutes.sum())
    left = [number for number, n in records.items() if n]
    ends += [min(left), max(left)] if left else []
    return _local_days(city, {*delta.slots, *ends})


def _follow_rules(city: City, store: RecordStore, state: State, zones: Zones | None, workers: int) -> None:
    """Count all stored records anew if the counting rules have changed since. What can be counted no more stays.

    Raises InputError where the grid has changed, or records that would have to be counted are no longer kept.
    """
    rules = _rules(city, state, zones)
    old, state.rules = state.rules, rules
    changed = sorted(key for key in rules if old.get(key) != rules[key]) if old else []
    if not changed:
        return
    for key in city.grid():
        if key in changed:
            raise InputError(
                f"the records of '{city.name}' were counted with {key} = {old[key]}, the configuration says "
                f"{rules[key]}: use another city name, or set [paths] data elsewhere"
            )
    why = ", ".join(f"{key} is now {rules[key]}" if key in old else f"{key} was not counted" for key in changed)
    log.info("%s: every flow is made anew", why)
    known = store.slot_facts()[:, 0]
    if state.retained_from and any(key in old for key in changed):
        raise InputError(f"{why}, but the records before the last {city.feed.retain_days} days are no longer kept")
    totals, state.totals = state.totals, state.totals * 0
    state.vehicles = _VehicleTable(list(state.vehicles.names))
    state.vehicles.update(Count(first=state.pruned, last=state.pruned))
    delta = _count_anew(city, store, state, zones, workers)
    if state.retained_from:
        kept = store.slots(int(known[0]), state.retained_from // city.slot_us - 1)
        state.totals, delta = totals, replace(delta, slots=delta.slots | kept)
    store.commit(state, delta, [], _local_days(city, known), replace_slots=True)


def _count_anew(city: City, store: RecordStore, state: State, zones: Zones | None, workers: int) -> Count:
    """Count the records of all hours of a state, whose totals and vehicles the caller has emptied."""
    files, state.files = state.files, {}
    zone_ids = None if zones is None else zones.ids

    def work(merge: _Merge) -> _MergedHours:
        file, _ = files[merge.span]
        rows = store.read_file(state, file)
        counted = count(city, _deduplicate(rows)[0], zone_ids)
        return _MergedHours(merge.span, {merge.span: (file, len(rows))}, Count(), counted, Counter())

    merges = [_Merge(span, None) for span in sorted(files)]
    delta, _ = _merge_hours(city, store, state, _joined(city, state, work, merges, workers))
    return delta


def _zones(city: City, state: State) -> Zones | None:
    """Return the city's zones, if it has any. Raises InputError where the store needs them."""
    zones = zones_of(city)
    if zones is None and state.kind == "zone-trips":
        raise InputError(
            f"'{city.name}' holds trips between zones: name the file of their polygons as zones under "
            f"[cities.{city.name}.feed]"
        )
    return zones


def _rules(city: City, state: State, zones: Zones | None) -> dict[str, Any]:
    """Return the rules that flows are counted by."""
    return {
        **city.grid(),
        "max_gap_minutes": city.max_gap_minutes,
        "max_speed_kmh": city.max_speed_kmh,
        "trips": city.feed.trips,
        "late_flow": True,  # an earlier version did not count it
        "zones": _fingerprint(zones) if zones is not None and state.kind == "zone-trips" else None,
    }


def _fingerprint(zones: Zones) -> str:
    """Return a digest that differs between two files of zones."""
    digest = hashlib.sha256()
    for array in (zones.ids, zones.starts, zones.cells, zones.shares.round(QUOTA_DECIMALS)):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _prune(city: City, store: RecordStore, state: State) -> None:
    """Forget the records that are older than `retain_days`, compared with the newest record."""
    if city.feed.retain_days is None or not state.files:
        return
    newest = max(store.hours_of(state, max(state.files)))
    before = (newest + 1) * HOUR_US - city.feed.retain_days * DAY_US
    if before > state.retained_from:
        store.prune(state, before)


def _local_days(city: City, slots: Iterable[int]) -> list[np.datetime64]:
    """Return the local days that slots belong to."""
    starts = (np.array(sorted(slots), np.int64) * city.slot_us).astype("datetime64[us]")
    return list(np.unique(city.local_days(starts)))


def _nothing_left(found: _Found, sources: dict[int, SourceFacts]) -> str:
    dropped: Counter[str] = Counter()
    for source in sources.values():
        dropped.update(source.dropped)
    paths = found[0][0].path if len(found) == 1 else f"{found[0][0].path} and {len(found) - 1} more files"
    return f"no record of {paths} is left to count; dropped were: {reasons(dropped)}"


def _microseconds(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[us]").astype(np.int64))
