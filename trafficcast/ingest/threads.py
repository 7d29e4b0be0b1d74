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
from trafficcast.ingest.merging import Settled, join_all, runs, settle_hour
from trafficcast.ingest.record_store import RecordStore, SourceFacts, State, kind_of
from trafficcast.ingest.staging import Staging, staging
from trafficcast.parallel import ahead, next_ahead
from trafficcast.progress import track
from trafficcast.records.readers import read
from trafficcast.records.records import Batch
from trafficcast.records.screening import Screen, Screening
from trafficcast.records.sources import Source

SMALL_SOURCE_BYTES = 8 * 2**20  # read whole, several at a time; a larger one is read in batches
BadSource = Callable[[Source, Exception], None]
Found = list[tuple[Source, str]]  # sources, each with its format


@dataclass
class Threads:
    """A crew (see `cluster.Cluster` for the other one)."""

    city: City
    store: RecordStore
    state: State
    zone_ids: np.ndarray | None
    workers: int
    staged: Staging

    def digests(self, found: Found) -> Iterable[str]:
        """Each source's digest."""
        return ahead(lambda entry: entry[0].digest(), found, self.workers)

    def take_in(self, found: Found, screen: Screen, on_bad: BadSource) -> dict[int, SourceFacts]:
        """Stage the records of sources; what became of the rows of each good one, by its number."""
        facts = {}
        reading = track(ahead(self._batches, found, self.workers), "reading", len(found))
        for number, ((source, name), batches) in enumerate(zip(found, reading, strict=True)):
            screening = screen.of(source)
            try:
                if isinstance(batches, Exception):
                    raise batches
                for batch in batches:
                    records = screening.keep(batch)
                    self.state.kind = kind_of(records, source, self.city, self.state.kind)
                    self.staged.add(self.state.fleet.coded(records, batch.vehicles), number)
                screening.check_not_swapped()
            except (InputError, JobError) as error:
                self.staged.discard(number)
                on_bad(source, error)
            else:
                facts[number] = source_facts(screening, name)
        pa.default_memory_pool().release_unused()
        return facts

    def hours(self) -> list[int]:
        """The hours that have staged records."""
        return self.staged.hours()

    def settle(self, hours: list[int], generation: int) -> Iterator[Settled]:
        """The hours settled, in runs (see `settling.settle`)."""

        def work(hour: int) -> Settled:
            old = self.store.read_hour(self.state, hour)
            names = self.state.fleet.names
            return settle_hour(
                self.city, self.zone_ids, self.store.root, hour, generation, names, old, partial(self.staged.read, hour)
            )

        return joined(self.city, self.state, work, hours, self.workers)

    def _batches(self, entry: tuple[Source, str]) -> Iterator[Batch] | list[Batch] | Exception:
        source, name = entry
        if source.size is None or source.size > SMALL_SOURCE_BYTES:
            return next_ahead(read(source, self.city, name))
        try:
            return list(read(source, self.city, name))
        except (InputError, JobError) as error:
            return error


@contextmanager
def threads(
    city: City, store: RecordStore, state: State, zone_ids: np.ndarray | None, workers: int
) -> Iterator[Threads]:
    """A crew of that many threads."""
    with staging(store.root) as staged:
        yield Threads(city, store, state, zone_ids, workers, staged)


def joined(
    city: City, state: State, work: Callable[[int], Settled], hours: list[int], workers: int
) -> Iterator[Settled]:
    """Hours worked on in threads, in runs."""
    done = track(ahead(work, hours, workers), "counting", len(hours))
    for run in runs(hours, state.hours):
        yield join_all(city, list(islice(done, len(run))))


def source_facts(screening: Screening, format_name: str) -> SourceFacts:
    """What became of a source's rows, but for its digest and repeats, which are not known here."""
    dropped, source = dict(screening.dropped), screening.source
    return SourceFacts(source.name, "", format_name, screening.rows, dropped, screening.outside, screening.notes)
