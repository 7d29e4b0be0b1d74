"""The threads of one machine as the crew of an ingest: they read sources, settle hours, and join them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa

from trafficcast.config.city import City
from trafficcast.errors import InputError, JobError
from trafficcast.ingest.merging import _join_all, _merge_hour, _MergedHours, _runs
from trafficcast.ingest.record_store import RecordStore, SourceFacts, State, _kind_of
from trafficcast.ingest.staging import _Staging, _staging
from trafficcast.parallel import next_ahead, parallel_map
from trafficcast.progress import track
from trafficcast.records.readers import read
from trafficcast.records.records import Batch
from trafficcast.records.screening import Screen, Screening
from trafficcast.records.sources import Source

_SMALL_SOURCE_BYTES = 8 * 2**20  # read whole, several at a time; a larger one is read in batches
_BadSource = Callable[[Source, Exception], None]
_Found = list[tuple[Source, str]]  # sources, each with its format


@dataclass
class _Threads:
    """A crew (see `cluster.Cluster` for the other one)."""

    city: City
    store: RecordStore
    state: State
    zone_ids: np.ndarray | None
    workers: int
    staged: _Staging

    def digests(self, found: _Found) -> Iterable[str]:
        """Each source's digest."""
        return parallel_map(lambda entry: entry[0].digest(), found, self.workers)

    def take_in(self, found: _Found, screen: Screen, on_bad: _BadSource) -> dict[int, SourceFacts]:
        """Stage the records of sources; what became of the rows of each good one, by its number."""
        facts = {}
        reading = track(parallel_map(self._batches, found, self.workers), "reading", len(found))
        for number, ((source, name), batches) in enumerate(zip(found, reading, strict=True)):
            screening = screen.of(source)
            try:
                if isinstance(batches, Exception):
                    raise batches
                for batch in batches:
                    records = screening.keep(batch)
                    self.state.kind = _kind_of(records, source, self.city, self.state.kind)
                    self.staged.add(self.state.fleet.coded(records, batch.vehicles), number)
                screening.check_not_swapped()
            except (InputError, JobError) as error:
                self.staged.discard(number)
                on_bad(source, error)
            else:
                facts[number] = _source_facts(screening, name)
        pa.default_memory_pool().release_unused()
        return facts

    def hours(self) -> list[int]:
        """The hours that have staged records."""
        return self.staged.hours()

    def settle(self, hours: list[int], generation: int) -> Iterator[_MergedHours]:
        """The hours settled, in runs (see `settling.settle`)."""

        def work(hour: int) -> _MergedHours:
            old = self.store.read_hour(self.state, hour)
            names = self.state.fleet.names
            return _merge_hour(
                self.city, self.zone_ids, self.store.root, hour, generation, names, old, partial(self.staged.read, hour)
            )

        return _joined(self.city, self.state, work, hours, self.workers)

    def _batches(self, entry: tuple[Source, str]) -> Iterator[Batch] | list[Batch] | Exception:
        source, name = entry
        if source.size is None or source.size > _SMALL_SOURCE_BYTES:
            return next_ahead(read(source, self.city, name))
        try:
            return list(read(source, self.city, name))
        except (InputError, JobError) as error:
            return error


@contextmanager
def _threads(
    city: City, store: RecordStore, state: State, zone_ids: np.ndarray | None, workers: int
) -> Iterator[_Threads]:
    """A crew of that many threads."""
    with _staging(store.root) as staged:
        yield _Threads(city, store, state, zone_ids, workers, staged)


def _joined(
    city: City, state: State, work: Callable[[int], _MergedHours], hours: list[int], workers: int
) -> Iterator[_MergedHours]:
    """Hours worked on in threads, in runs."""
    done = track(parallel_map(work, hours, workers), "counting", len(hours))
    for run in _runs(hours, state.hours):
        yield _join_all(city, list(islice(done, len(run))))


def _source_facts(screening: Screening, format_name: str) -> SourceFacts:
    """What became of a source's rows, but for its digest and repeats, which are not known here."""
    dropped, source = dict(screening.dropped), screening.source
    return SourceFacts(source.name, "", format_name, screening.rows, dropped, screening.outside, screening.notes)
