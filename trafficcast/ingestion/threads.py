"""Ingest on one machine: its threads read sources, merge hours, and join them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np
import pyarrow as pa

from trafficcast.config.city import City
from trafficcast.errors import InputError, JobError
from trafficcast.ingestion.merging import _join_hours, _join_neighbours, _merge_span, _MergedHours
from trafficcast.ingestion.record_store import _KINDS, RecordStore, SourceFacts, State, _kind_of
from trafficcast.ingestion.spans import _Merge, _runs
from trafficcast.ingestion.staging import _Staging, _staging
from trafficcast.parallel import parallel_map, prefetch
from trafficcast.progress import track
from trafficcast.records.readers import read
from trafficcast.records.records import Batch
from trafficcast.records.screening import Screen, Screening
from trafficcast.records.sources import Source

_SMALL_SOURCE_BYTES = 8 * 2**20  # read whole, several at a time; a larger one is read in batches
_SMALL_SOURCE_RECORDS = 1_000_000  # a packed one may have many more
_HOUR_RECORDS = 8_000_000  # of a source; an hour is merged in memory, 85 bytes a record
_NEW_VEHICLES = 2_000_000  # of a source; all names of a city are in memory
_BadSource = Callable[[Source, Exception], None]
_Found = list[tuple[Source, str]]  # sources, each with its format
_New = dict[int, tuple[Source, str]]  # sources by their numbers, each with its format


@dataclass
class _Threads:
    """The workers of one machine; `cluster._Cluster` has the same methods for those of a cluster."""

    city: City
    store: RecordStore
    state: State
    zone_ids: np.ndarray | None
    workers: int
    staged: _Staging

    def digests(self, found: _Found) -> Iterable[str]:
        """Return each source's digest, empty where it cannot be read, which staging reports."""
        return parallel_map(lambda item: _digest(item[0]), found, self.workers)

    def stage(self, new: _New, screen: Screen, on_bad: _BadSource) -> dict[int, SourceFacts]:
        """Stage the records of sources; return the facts on each good source by its number."""
        facts: dict[int, SourceFacts] = {}
        reading = track(parallel_map(self._read, new.values(), self.workers), "reading", len(new))
        for (number, (source, name)), batches in zip(new.items(), reading, strict=True):
            screening, vehicles = Screening(screen, source), len(self.state.vehicles.names)
            try:
                if isinstance(batches, Exception):
                    raise batches
                for batch in batches:
                    records = screening.apply(batch)
                    self.state.kind = _kind_of(records, source, self.city, self.state.kind)
                    self.staged.add(self.state.vehicles.recode(records, batch.vehicles), number)
                    if len(self.state.vehicles.names) - vehicles > _NEW_VEHICLES:
                        raise InputError(
                            f"{source.path} names more than {_NEW_VEHICLES:,} vehicles: check which column names them"
                        )
                screening.check_source()
            except (InputError, JobError) as error:
                self.staged.discard(number)
                self.state.vehicles.forget(vehicles)
                on_bad(source, error)
            else:
                facts[number] = _source_facts(screening, name, number)
        for number, hour in self.staged.crowded(_HOUR_RECORDS).items():
            self.staged.discard(number)
            del facts[number]
            source, moment = new[number][0], np.datetime64(hour, "h")
            on_bad(
                source, InputError(f"{source.path} has more than {_HOUR_RECORDS:,} records in the hour of {moment} h")
            )
        pa.default_memory_pool().release_unused()
        return facts

    def hours(self) -> Counter[int]:
        """Return the number of staged records of each hour."""
        return self.staged.hours()

    def merge(self, merges: list[_Merge], generation: int, removed: frozenset[int]) -> Iterator[_MergedHours]:
        """Merge the staged rows into the stored ones, and take out the rows of the removed sources.

        Yield runs of consecutive hours.
        """
        kind = _KINDS[self.state.kind or "points"]

        def work(merge: _Merge) -> _MergedHours:
            old, new = self.store.read_rows(self.state, merge.stored), partial(self.staged.read, merge.span, kind)
            where = self.city, self.zone_ids, self.store.root, merge, generation
            return _merge_span(*where, self.state.vehicles.names, old, removed, new)

        return _joined(self.city, self.state, work, merges, self.workers)

    def _read(self, found: tuple[Source, str]) -> Iterator[Batch] | list[Batch] | Exception:
        """Read a small source whole; return its batches, or the error where it is bad. Larger ones are read later."""
        source, name = found
        if source.size is None or source.size > _SMALL_SOURCE_BYTES:
            return prefetch(read(source, self.city, name))
        first: list[Batch] = []
        try:
            batches = iter(read(source, self.city, name))
            while sum(batch.rows for batch in first) < _SMALL_SOURCE_RECORDS:
                batch = next(batches, None)
                if batch is None:
                    return first
                first.append(batch)
        except (InputError, JobError) as error:
            return error
        return prefetch(chain(first, batches))


@contextmanager
def _threads(
    city: City, store: RecordStore, state: State, zone_ids: np.ndarray | None, workers: int
) -> Iterator[_Threads]:
    """Yield the workers of an ingest in threads."""
    with _staging(store.root) as staged:
        yield _Threads(city, store, state, zone_ids, workers, staged)


def _digest(source: Source) -> str:
    """Return a source's digest, empty where it cannot be read."""
    try:
        return source.digest()
    except InputError:
        return ""


def _joined(
    city: City, state: State, work: Callable[[_Merge], _MergedHours], merges: list[_Merge], workers: int
) -> Iterator[_MergedHours]:
    """Yield runs of consecutive hours, each merge done by `work` in threads."""
    done = track(parallel_map(work, merges, workers), "counting", len(merges))
    for run in _runs(merges, state.files):
        yield _join_neighbours(list(islice(done, len(run))), partial(_join_hours, city))


def _source_facts(screening: Screening, format_name: str, number: int) -> SourceFacts:
    """Return the facts on a source, except for its digest and its repeats, which are not known yet."""
    return SourceFacts(
        screening.source.name, "", format_name, screening.rows, dict(screening.dropped), screening.outside,
        screening.notes, number, screening.kept,
    )  # fmt: skip
