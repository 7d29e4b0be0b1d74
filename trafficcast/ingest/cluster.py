"""The workers of a Dask cluster as the crew of an ingest, for what is too much for one machine.

Sources are read and staged, and hours settled, by the workers, on a file system that all of them and this process
see; counts of neighbouring hours are merged on the cluster, as a tree. What a worker that dies was doing is done again
by another: an attempt writes files of its own, and none counts before the one transaction at the end.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trafficcast import __version__
from trafficcast.config.city import City
from trafficcast.errors import InputError, JobError
from trafficcast.ingest import staging
from trafficcast.ingest.hour_files import _read_hour_file
from trafficcast.ingest.merging import _join_hours, _merge_hour, _MergedHours, _runs
from trafficcast.ingest.record_store import _KINDS, RecordStore, SourceFacts, State, _kind_of, _with_codes
from trafficcast.ingest.staging import _Segment, _Staging
from trafficcast.ingest.threads import _BadSource, _Found, _source_facts
from trafficcast.ingest.vehicles import _VehicleTable
from trafficcast.progress import track
from trafficcast.records.readers import read
from trafficcast.records.records import Points
from trafficcast.records.screening import Screen
from trafficcast.records.sources import Source

_RUNS_AHEAD = 3  # days that are settled on the cluster while one is taken into the state


@dataclass(frozen=True)
class _Staged:
    """A source staged by a worker: its segments, the names that its vehicles' codes index, and its facts."""

    kind: str | None
    names: list[str]
    segments: list[_Segment]
    facts: SourceFacts


@dataclass
class _Cluster:
    """A crew (see `threads.Threads` for the other one)."""

    city: City
    store: RecordStore
    state: State
    zone_ids: np.ndarray | None
    client: Any
    folder: Path
    # For each hour and number of a source: that number, the segments with the hour, its vehicles' codes.
    _parts: dict[int, dict[int, tuple[int, list[_Segment], Any]]] = field(default_factory=lambda: defaultdict(dict))

    def digests(self, found: _Found) -> Iterable[str]:
        """Each source's digest."""
        return self.client.gather(self.client.map(_digest, [source for source, _ in found], pure=False))

    def take_in(self, found: _Found, screen: Screen, on_bad: _BadSource) -> dict[int, SourceFacts]:
        """Stage the records of sources; what became of the rows of each good one, by its number."""
        facts = {}
        futures = [
            self.client.submit(_stage_source, source, name, self.city, screen, self.folder, pure=False)
            for source, name in found
        ]
        for number, future in enumerate(track(futures, "reading", len(futures))):
            taken, source = future.result(), found[number][0]
            future.release()
            if isinstance(taken, _Staged) and taken.kind is not None and taken.kind != self.state.kind:
                try:
                    empty = _KINDS[taken.kind].concatenate([])
                    self.state.kind = _kind_of(empty, source, self.city, self.state.kind)
                except InputError as error:
                    taken = error
            if not isinstance(taken, _Staged):
                on_bad(source, taken)
                continue
            codes = self._shared(self.state.fleet.codes(taken.names))
            for segment in taken.segments:
                for hour in segment.hours.tolist():
                    self._parts[hour].setdefault(number, (number, [], codes))[1].append(segment)
            facts[number] = taken.facts
        return facts

    def hours(self) -> list[int]:
        """The hours that have staged records."""
        return sorted(self._parts)

    def settle(self, hours: list[int], generation: int) -> Iterator[_MergedHours]:
        """The hours settled, in runs (see `settling.settle`)."""
        names = self._shared(self.state.fleet.names)
        todo = _runs(hours, self.state.hours)
        waiting: deque[Any] = deque()
        for run in track(todo, "counting", len(todo)):
            waiting.append(self._join([self._settle_hour(hour, generation, names) for hour in run]))
            if len(waiting) > _RUNS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _shared(self, value: Any) -> Any:
        """A value for many tasks; as a task's result, since scattered data die with the worker that has them."""
        return self.client.submit(_same, value, pure=False)

    def _settle_hour(self, hour: int, generation: int, names: Any) -> Any:
        kind = _KINDS[self.state.kind or "points"]
        old = self.state.hours.get(hour, ("", 0))[0]
        place = self.city, self.zone_ids, self.store.root, hour, generation
        return self.client.submit(_merge_parts, *place, kind, names, old, list(self._parts[hour].values()), pure=False)

    def _join(self, settled: list[Any]) -> Any:
        """Neighbours joined two by two on the cluster, until one is left."""
        while len(settled) > 1:
            pairs = [settled[i : i + 2] for i in range(0, len(settled), 2)]
            settled = [
                self.client.submit(_join_hours, self.city, *pair, pure=False) if len(pair) == 2 else pair[0]
                for pair in pairs
            ]
        return settled[0]


@contextmanager
def _cluster(
    city: City, store: RecordStore, state: State, zone_ids: np.ndarray | None, address: str
) -> Iterator[_Cluster]:
    """The crew of a Dask scheduler's workers. Raises InputError where it cannot be used, JobError where it breaks."""
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


def _stage_source(source: Source, name: str, city: City, screen: Screen, folder: Path) -> _Staged | Exception:
    """Read and stage a source, on a worker; an error that is the source's is returned."""
    screening, fleet, kind = screen.of(source), _VehicleTable(), None
    own = Path(tempfile.mkdtemp(dir=folder))
    try:
        with ThreadPoolExecutor(1) as thread:
            staged = _Staging(own, thread, bytes_in_memory=0)
            for batch in read(source, city, name):
                records = screening.keep(batch)
                kind = _kind_of(records, source, city, kind)
                staged.add(fleet.coded(records, batch.vehicles), 0)
            screening.check_not_swapped()
            return _Staged(kind, fleet.names, staged.segments(), _source_facts(screening, name))
    except (InputError, JobError) as error:
        return error


def _merge_parts(
    city: City,
    zone_ids: np.ndarray | None,
    root: Path,
    hour: int,
    generation: int,
    kind: type[Any],
    names: list[str],
    old_file: str,
    parts: list[tuple[int, list[_Segment], np.ndarray]],
) -> _MergedHours:
    """Settle an hour, on a worker. `parts`: the number of a source, its segments, and its vehicles' codes."""

    def staged() -> tuple[Any, np.ndarray]:
        new, source = [], []
        for number, segments, codes in parts:
            records, _ = staging._read_staged_hour(segments, hour, kind)
            new.append(replace(records, vehicle=codes[records.vehicle]) if isinstance(records, Points) else records)
            source.append(np.full(len(records), number, np.int32))
        return kind.concatenate(new), np.concatenate(source)

    old = kind.concatenate([])
    if old_file:
        known, old = _read_hour_file(root / old_file, kind)
        old = _with_codes(old, _VehicleTable(names).codes(known))
    return _merge_hour(city, zone_ids, root, hour, generation, names, old, staged)


def _same(value: Any) -> Any:
    return value


def _digest(source: Source) -> str:
    return source.digest()


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
