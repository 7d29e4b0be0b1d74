"""Records on their way into a store, put in order of the hour they belong to, in bounded memory.

Readers yield records in any order: a file a vehicle over weeks, or a file an hour over a fleet. They are pooled,
sorted by hour in segments, and segments beyond a budget go to files that are removed in the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trafficcast.records import HOUR_US, Records

SEGMENT_RECORDS = 1_000_000
BYTES_IN_MEMORY = 64 * 2**20


@dataclass(frozen=True)
class Segment:
    """Records sorted by hour: `hours` and where each starts in the columns, held in memory or in one file a column."""

    hours: np.ndarray
    starts: np.ndarray
    columns: dict[str, np.ndarray]
    files: dict[str, Path]

    def read(self, hour: int, name: str, dtype: type) -> np.ndarray | None:
        """One column of an hour; None where the segment has nothing of it."""
        i = int(np.searchsorted(self.hours, hour))
        if i == len(self.hours) or self.hours[i] != hour:
            return None
        start, end = int(self.starts[i]), int(self.starts[i + 1])
        if self.columns:
            return self.columns[name][start:end]
        return np.fromfile(self.files[name], dtype, end - start, offset=start * np.dtype(dtype).itemsize)


@dataclass
class Staging:
    """Records of one kind, that of the first, each with the number of the source that it came from."""

    folder: Path
    _kind: type[Records] = Records
    _pool: list[tuple[Records, np.ndarray]] = field(default_factory=list)
    _pooled: int = 0
    _segments: list[Segment] = field(default_factory=list)
    _bytes: int = 0
    _discarded: set[int] = field(default_factory=set)

    def add(self, records: Records, source: int) -> None:
        """Take records of a source."""
        if len(records):
            self._kind = type(records)
            self._pool.append((records, np.full(len(records), source, np.int32)))
            self._pooled += len(records)
        if self._pooled >= SEGMENT_RECORDS:
            self._close_segment()

    def discard(self, source: int) -> None:
        """Forget all records of a source."""
        self._discarded.add(source)

    def hours(self) -> list[int]:
        """The hours since 1970 that have records, in order."""
        self._close_segment()
        return sorted({int(hour) for segment in self._segments for hour in segment.hours})

    def read(self, hour: int) -> tuple[Records, np.ndarray]:
        """An hour's records in the order of their arrival, and the source of each."""
        parts = {}
        for name, dtype in [*self._kind.DTYPES.items(), ("source", np.int32)]:
            found = [part for segment in self._segments if (part := segment.read(hour, name, dtype)) is not None]
            parts[name] = np.concatenate(found)
        source = parts.pop("source")
        records = self._kind(**parts)
        if self._discarded:
            keep = ~np.isin(source, list(self._discarded))
            records, source = records.take(keep), source[keep]
        return records, source

    def _close_segment(self) -> None:
        if not self._pooled:
            return
        records = self._kind.concatenate([part for part, _ in self._pool])
        source = np.concatenate([part for _, part in self._pool])
        self._pool.clear()
        self._pooled = 0
        hour = records.time // HOUR_US
        order, hours, starts = _by_hour(hour)
        columns = {name: array[order] for name, array in {**records.arrays(), "source": source}.items()}
        files = {}
        self._bytes += sum(array.nbytes for array in columns.values())
        if self._bytes > BYTES_IN_MEMORY:
            files = {name: self.folder / f"{len(self._segments)}.{name}" for name in columns}
            for name, array in columns.items():
                array.tofile(files[name])
            columns = {}
        self._segments.append(Segment(hours, starts, columns, files))


@contextmanager
def staging(folder: Path) -> Iterator[Staging]:
    """A staging whose files lie below a folder and are removed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".staging-", dir=folder) as temporary:
        yield Staging(Path(temporary))


def _by_hour(hour: np.ndarray) -> tuple[np.ndarray | slice, np.ndarray, np.ndarray]:
    """The stable order by hour, the distinct hours and where each starts; one more start marks the end."""
    order: np.ndarray | slice = slice(None)
    if (hour[1:] < hour[:-1]).any():
        order = np.argsort(hour, kind="stable")
        hour = hour[order]
    starts = np.flatnonzero(np.diff(hour, prepend=hour[0] - 1))
    return order, hour[starts], np.append(starts, len(hour))
