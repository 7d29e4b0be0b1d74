"""The staging of an ingest: records sorted by hour, in bounded memory, before they are merged into the store.

Readers yield records in any order: a file a vehicle over weeks, or a file an hour with all vehicles. Records are
pooled, and a full pool becomes a segment, sorted by hour; the segments beyond a budget of memory lie in temporary
files.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trafficcast.ingestion.deduplication import _Rows
from trafficcast.ingestion.spans import Span
from trafficcast.records.records import HOUR_US, Records

_SEGMENT_RECORDS = 400_000
_BYTES_IN_MEMORY = 16 * 2**20
_SOURCE = "source"
_Part = tuple[Records, int]  # records and the number of their source


@dataclass(frozen=True)
class _Segment:
    """Records sorted by hour: the hours, and the position at which each starts.

    The columns, those of the records and `source`, are in memory or in one file each.
    """

    hours: np.ndarray
    starts: np.ndarray
    columns: dict[str, np.ndarray]
    files: dict[str, Path]

    def count(self, span: Span) -> int:
        """Return the number of records of a span of hours."""
        start, end = self._positions(span)
        return end - start

    def records_of_hours(self) -> dict[int, int]:
        """Return the number of records of each hour that has any."""
        return dict(zip(self.hours.tolist(), np.diff(self.starts).tolist(), strict=True))

    def read(self, span: Span, name: str, out: np.ndarray) -> None:
        """Copy a span's part of a column to an array of its length and type."""
        start, end = self._positions(span)
        if self.columns:
            out[:] = self.columns[name][start:end]
        else:
            with open(self.files[name], "rb") as file:
                file.seek(start * out.itemsize)
                file.readinto(out.data)

    def _positions(self, span: Span) -> tuple[int, int]:
        """Return the first position of a span and the one after its last."""
        start, end = self.starts[np.searchsorted(self.hours, [span.first, span.end])].tolist()
        return start, end


def _read_staged(segments: Sequence[_Segment], span: Span, kind: type[Records]) -> _Rows:
    """Return the rows of a span of hours in the order of the segments."""
    counts = [segment.count(span) for segment in segments]
    ends = np.cumsum(counts).tolist()
    columns: dict[str, np.ndarray] = {}
    for name, dtype in {**kind.DTYPES, _SOURCE: np.int32}.items():
        columns[name] = np.empty(sum(counts), dtype)
        for segment, n, end in zip(segments, counts, ends, strict=True):
            if n:
                segment.read(span, name, columns[name][end - n : end])
    source = columns.pop(_SOURCE)
    return _Rows(kind(**columns), source)


@dataclass
class _Staging:
    """The staged records of one kind, that of the first; segments are made in a thread while more records come."""

    folder: Path
    thread: ThreadPoolExecutor
    bytes_in_memory: int = _BYTES_IN_MEMORY
    _pool: list[_Part] = field(default_factory=list)
    _pooled: int = 0
    _segments: list[Future[_Segment]] = field(default_factory=list)
    _discarded: set[int] = field(default_factory=set)

    def add(self, records: Records, source: int) -> None:
        """Add records of a source."""
        if len(records):
            self._pool.append((records, source))
            self._pooled += len(records)
        if self._pooled >= _SEGMENT_RECORDS:
            self._close_pool()

    def discard(self, source: int) -> None:
        """Discard all records of a source."""
        self._discarded.add(source)

    def segments(self) -> list[_Segment]:
        """Return all segments."""
        self._close_pool()
        return [segment.result() for segment in self._segments]

    def hours(self) -> Counter[int]:
        """Return the number of records of each hour since 1970 that has any."""
        hours: Counter[int] = Counter()
        for segment in self.segments():
            hours.update(segment.records_of_hours())
        return hours

    def crowded(self, most: int) -> dict[int, int]:
        """Return the sources that have more than so many records in an hour, and that hour."""
        found: dict[int, int] = {}
        for hour in (hour for hour, n in self.hours().items() if n > most):
            span = Span(hour, hour + 1)
            of_source: Counter[int] = Counter()
            for segment in self.segments():
                source = np.empty(segment.count(span), np.int32)
                if len(source):
                    segment.read(span, _SOURCE, source)
                numbers, n = np.unique(source, return_counts=True)
                of_source.update(dict(zip(numbers.tolist(), n.tolist(), strict=True)))
            found |= {number: hour for number, n in of_source.items() if n > most and number not in self._discarded}
        return found

    def read(self, span: Span, kind: type[Records]) -> _Rows:
        """Return the rows of a span of hours in the order of their arrival."""
        rows = _read_staged([segment.result() for segment in self._segments], span, kind)
        return rows.without(frozenset(self._discarded))

    def _close_pool(self) -> None:
        """Start to make a segment of the pooled records, where there are any."""
        if self._pool:
            if len(self._segments) > 1:
                self._segments[-2].result()  # no more than two at once
            number = len(self._segments)
            record_bytes = sum(np.dtype(d).itemsize for d in self._pool[0][0].DTYPES.values())
            in_memory = (number + 1) * self._pooled * record_bytes
            folder = self.folder / str(number) if in_memory > self.bytes_in_memory else None
            self._segments.append(self.thread.submit(_segment, self._pool, folder))
            self._pool, self._pooled = [], 0


@contextmanager
def _staging(folder: Path) -> Iterator[_Staging]:
    """Yield a staging whose files lie below a folder and are removed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".staging-", dir=folder) as temporary, ThreadPoolExecutor(1) as thread:
        yield _Staging(Path(temporary), thread)


def _segment(pool: list[_Part], folder: Path | None) -> _Segment:
    """Sort a pool by hour, stably, and write it to files in a new folder where one is given."""
    hour = np.concatenate([records.time // HOUR_US for records, _ in pool])
    source = [np.full(len(records), number, np.int32) for records, number in pool]
    order: np.ndarray | None = None
    if (hour[1:] < hour[:-1]).any():
        order = np.argsort(hour, kind="stable")
        hour = hour[order]
    starts = np.flatnonzero(np.diff(hour, prepend=hour[0] - 1))
    segment = _Segment(hour[starts], np.append(starts, len(hour)), {}, {})
    if folder is not None:
        folder.mkdir()
    for name in [*pool[0][0].DTYPES, _SOURCE]:
        parts = source if name == _SOURCE else [getattr(records, name) for records, _ in pool]
        if order is not None or folder is None:
            whole = np.concatenate(parts)
            parts = [whole if order is None else whole[order]]
        if folder is None:
            segment.columns[name] = parts[0]
        else:
            segment.files[name] = folder / name
            with open(folder / name, "wb") as file:
                for part in parts:
                    part.tofile(file)
    return segment
