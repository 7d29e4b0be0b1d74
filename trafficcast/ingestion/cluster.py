"""Ingest on the workers of a Dask cluster, for more records than one machine can process.

The workers read and stage sources and merge hours, on a file system that all of them and this process share; the counts
of neighbouring hours are joined on the cluster, as a tree. Another worker repeats the task of one that dies: each
attempt writes files of its own, and none counts before the one transaction at the end.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trafficcast import __version__
from trafficcast.config.city import City
from trafficcast.errors import InputError, JobError
from trafficcast.ingestion import staging
from trafficcast.ingestion.deduplication import _Rows
from trafficcast.ingestion.hour_files import _read_hour_file
from trafficcast.ingestion.merging import _join_hours, _join_neighbours, _merge_span, _MergedHours
from trafficcast.ingestion.record_store import _KINDS, RecordStore, SourceFacts, State, _kind_of, _with_codes
from trafficcast.ingestion.spans import _Merge, _runs
from trafficcast.ingestion.staging import _Segment, _Staging
from trafficcast.ingestion.threads import _BadSource, _digest, _Found, _New, _source_facts
from trafficcast.ingestion.vehicles import _VehicleTable
from trafficcast.progress import track
from trafficcast.records.readers import read
from trafficcast.records.records import Points
from trafficcast.records.screening import Screen, Screening
from trafficcast.records.sources import Source

_RUNS_AHEAD = 3  # days that are merged on the cluster while the state is updated with one


@dataclass(frozen=True)
class _Staged:
    """A source that a worker staged: its kind, the names that its vehicle codes index, its segments and facts."""

    kind: str | None
    names: list[str]
    segments: list[_Segment]
    facts: SourceFacts


@dataclass
class _Cluster:
    """The workers of a cluster; `threads._Threads` has the same methods for those of one machine."""

    city: City
    store: RecordStore
    state: State
    zone_ids: np.ndarray | None
    client: Any
    folder: Path
    # By hour and by the number of a source: its segments, its vehicles' codes.
    _parts: dict[int, dict[int, tuple[list[_Segment], Any]]] = field(default_factory=lambda: defaultdict(dict))
    _records: Counter[int] = field(default_factory=Counter)  # by hour

    def digests(self, found: _Found) -> Iterable[str]:
        """Return each source's digest, empty where it cannot be read, which staging reports."""
        return self.client.gather(self.client.map(_digest, [source for source, _ in found], pure=False))

    def stage(self, new: _New, screen: Screen, on_bad: _BadSource) -> dict[int, SourceFacts]:
        """Stage the records of sources; return the facts on each good source by its number."""
        facts = {}
        futures = [
            self.client.submit(_stage_source, source, name, number, self.city, screen, self.folder, pure=False)
            for number, (source, name) in new.items()
        ]
        for (number, (source, _)), future in zip(new.items(), track(futures, "reading", len(futures)), strict=True):
            staged = future.result()
            future.release()
            if isinstance(staged, _Staged) and staged.kind is not None and staged.kind != self.state.kind:
                try:
                    empty = _KINDS[staged.kind].concatenate([])
                    self.state.kind = _kind_of(empty, source, self.city, self.state.kind)
                except InputError as error:
                    staged = error
            if not isinstance(staged, _Staged):
                on_bad(source, staged)
                continue
            codes = self._shared(self.state.vehicles.codes(staged.names))
            for segment in staged.segments:
                self._records.update(segment.records_of_hours())
                for hour in segment.hours.tolist():
                    self._parts[hour][number] = staged.segments, codes
            facts[number] = staged.facts
        return facts

    def hours(self) -> Counter[int]:
        """Return the number of staged records of each hour."""
        return self._records

    def merge(self, merges: list[_Merge], generation: int, removed: frozenset[int]) -> Iterator[_MergedHours]:
        """Merge the staged rows into the stored ones, and take out the rows of the removed sources.

        Yield runs of consecutive hours.
        """
        names = self._shared(self.state.vehicles.names)
        runs = _runs(merges, self.state.files)
        unfinished: deque[Any] = deque()
        for run in track(runs, "counting", len(runs)):
            merged = [self._merge(merge, generation, names, removed) for merge in run]
            unfinished.append(_join_neighbours(merged, partial(self.client.submit, _join_hours, self.city, pure=False)))
            if len(unfinished) > _RUNS_AHEAD:
                yield unfinished.popleft().result()
        while unfinished:
            yield unfinished.popleft().result()

    def _of(self, hour: int) -> Iterable[tuple[int, tuple[list[_Segment], Any]]]:
        """Return the sources that have staged records of an hour."""
        return self._parts.get(hour, {}).items()

    def _shared(self, value: Any) -> Any:
        """Return a value for many tasks as a task's result, since scattered data die with the worker that has them."""
        return self.client.submit(_same, value, pure=False)

    def _merge(self, merge: _Merge, generation: int, names: Any, removed: frozenset[int]) -> Any:
        """Submit one merge."""
        kind = _KINDS[self.state.kind or "points"]
        old = "" if merge.stored is None else self.state.files[merge.stored][0]
        parts: dict[int, tuple[list[_Segment], Any]] = {}
        for number, (segments, codes) in ((n, one) for hour in range(*merge.span) for n, one in self._of(hour)):
            if number not in parts:
                parts[number] = [segment for segment in segments if segment.count(merge.span)], codes
        where = self.city, self.zone_ids, self.store.root, merge, generation
        return self.client.submit(_merge_parts, *where, kind, names, old, removed, list(parts.values()), pure=False)


@contextmanager
def _cluster(
    city: City, store: RecordStore, state: State, zone_ids: np.ndarray | None, address: str
) -> Iterator[_Cluster]:
    """Yield the workers of a Dask scheduler.

    Raises InputError where the scheduler or a worker cannot be used, JobError where the cluster breaks down.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed.client import FutureCancelledError
        from distributed.comm.core import CommClosedError
    except ImportError:
        raise InputError("--dask needs the cluster extra: pip install 'trafficcast[cluster]'") from None
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise InputError(f"there is no Dask scheduler at {address}: {error}") from None
    store.root.mkdir(parents=True, exist_ok=True)
    with client, tempfile.TemporaryDirectory(prefix=".staging-", dir=store.root) as folder:
        _check_workers(client, address, Path(folder))
        try:
            yield _Cluster(city, store, state, zone_ids, client, Path(folder))
        except (KilledWorker, FutureCancelledError, CommClosedError) as error:
            raise JobError(f"the Dask cluster at {address} broke down: {error}; run the same command again") from None


def _stage_source(
    source: Source, name: str, number: int, city: City, screen: Screen, folder: Path
) -> _Staged | Exception:
    """Read and stage a source, on a worker; return the error where the source is bad."""
    screening, vehicles, kind = Screening(screen, source), _VehicleTable(), None
    own = Path(tempfile.mkdtemp(dir=folder))
    try:
        with ThreadPoolExecutor(1) as thread:
            staged = _Staging(own, thread, bytes_in_memory=0)
            for batch in read(source, city, name):
                records = screening.apply(batch)
                kind = _kind_of(records, source, city, kind)
                staged.add(vehicles.recode(records, batch.vehicles), number)
            screening.check_source()
            return _Staged(kind, vehicles.names, staged.segments(), _source_facts(screening, name, number))
    except (InputError, JobError) as error:
        return error


def _merge_parts(
    city: City,
    zone_ids: np.ndarray | None,
    root: Path,
    merge: _Merge,
    generation: int,
    kind: type[Any],
    names: list[str],
    old_file: str,
    removed: frozenset[int],
    parts: list[tuple[list[_Segment], np.ndarray]],
) -> _MergedHours:
    """Merge, on a worker.

    Each of `parts` is the segments of a source and its vehicles' codes.
    """

    def read_staged() -> _Rows:
        new = []
        for segments, codes in parts:
            rows = staging._read_staged(segments, merge.span, kind)
            if isinstance(rows.records, Points):
                rows = replace(rows, records=replace(rows.records, vehicle=codes[rows.records.vehicle]))
            new.append(rows)
        return _Rows.concatenate(kind, new)

    old = _Rows.concatenate(kind, [])
    if old_file:
        old_names, old = _read_hour_file(root / old_file, kind)
        old = _with_codes(old, _VehicleTable(names).codes(old_names))
    return _merge_span(city, zone_ids, root, merge, generation, names, old, removed, read_staged)


def _same(value: Any) -> Any:
    return value


def _check_workers(client: Any, address: str, folder: Path) -> None:
    """Raise InputError where there are no workers, or one has another version or does not see the stores."""
    if not client.scheduler_info()["workers"]:
        raise InputError(f"the Dask scheduler at {address} has no workers")
    for worker, version in client.run(_version).items():
        if version != __version__:
            raise InputError(f"the Dask worker {worker} has trafficcast {version}, this is {__version__}")
    for worker, sees in client.run(folder.is_dir).items():
        if not sees:
            raise InputError(f"the Dask worker {worker} does not see {folder.parent}: the stores must lie on a file "
                             "system that all workers and this machine share under the same path")  # fmt: skip


def _version() -> str:
    return __version__
