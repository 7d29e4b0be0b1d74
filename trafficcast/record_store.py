"""The record store: every kept GPS point as Parquet, one file a UTC day, and the manifest that makes a state whole.

    data/<city>/records/2008-05-17.3.parquet    vehicle, time, lon, lat, occupied; sorted by (vehicle, time)
    data/<city>/records/manifest.json           which files are current, what each ingest read and dropped

Files are never changed: a new state writes new ones and then replaces the manifest, the one moment at which it
becomes true. A crash before leaves the old state, one after leaves the new.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trafficcast.errors import InputError
from trafficcast.files import atomic, write_json
from trafficcast.points import DAY_US, DROP_REASONS, Batch, Points, sort_and_deduplicate


@dataclass
class Manifest:
    """The state of a record store: `days` maps a UTC day to its file, `sources` are the digests of the files read."""

    generation: int = 0
    rows: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DROP_REASONS, 0))
    days: dict[str, str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RecordStore:
    """All kept points of one city."""

    root: Path

    def manifest(self) -> Manifest:
        """The current state; an empty one where nothing was ever ingested."""
        file = self.root / "manifest.json"
        if not file.exists():
            return Manifest()
        try:
            return Manifest(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{file} is damaged: {error}; move {self.root} away and ingest its sources again"
            ) from None

    def read_days(self, manifest: Manifest) -> Iterator[tuple[list[str], Points]]:
        """Each day's vehicle names and points, in the order of time."""
        for day in sorted(manifest.days):
            yield self._read(manifest.days[day])

    def add(self, manifest: Manifest, batches: Iterable[Batch], sources: list[str]) -> Manifest:
        """Add batches to a state and return the new one, which counts only after `publish`."""
        names: dict[str, int] = {}
        parts: list[Points] = []
        rows, dropped = manifest.rows, Counter(manifest.dropped)
        for batch in batches:
            codes = np.array([names.setdefault(name, len(names)) for name in batch.vehicles], np.int32)
            points = batch.points
            parts.append(replace(points, vehicle=codes[points.vehicle]))
            rows += batch.rows
            dropped.update(batch.dropped)
        new = Manifest(manifest.generation + 1, rows, {}, dict(manifest.days), manifest.sources + sources)
        if parts:
            everything = Points.concatenate(parts)
            parts.clear()
            for day, points in _by_day(everything):
                dropped["duplicate"] += self._add_day(new, day, list(names), points)
        new.dropped = {reason: dropped[reason] for reason in DROP_REASONS}
        return new

    def publish(self, manifest: Manifest) -> None:
        """Make a state the current one and remove the files of earlier ones."""
        write_json(self.root / "manifest.json", vars(manifest))
        self.clean(manifest)

    def clean(self, manifest: Manifest) -> None:
        """Remove the files that do not belong to a state."""
        for file in set(self.root.glob("*.parquet")) - {self.root / name for name in manifest.days.values()}:
            file.unlink()

    def _add_day(self, manifest: Manifest, day: int, names: list[str], points: Points) -> int:
        label = str(np.datetime64(day, "D"))
        if label in manifest.days:
            old_names, old = self._read(manifest.days[label])
            points = Points.concatenate([old, replace(points, vehicle=points.vehicle + len(old_names))])
            names = old_names + names
        names, points = _sorted_names(names, points)
        points, duplicates = sort_and_deduplicate(points, day * DAY_US)
        manifest.days[label] = f"{label}.{manifest.generation}.parquet"
        columns: dict[str, Any] = {
            "vehicle": pa.DictionaryArray.from_arrays(points.vehicle, names),
            "time": pa.array(points.time, pa.timestamp("us", "UTC")),
            "lon": points.lon,
            "lat": points.lat,
            "occupied": points.occupied,
        }
        with atomic(self.root / manifest.days[label]) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd", use_dictionary=["vehicle"])
        return duplicates

    def _read(self, name: str) -> tuple[list[str], Points]:
        file = self.root / name
        try:
            table = pq.read_table(file, read_dictionary=["vehicle"], partitioning=None).combine_chunks()
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"cannot read {file}: {error}; move {self.root} away and ingest its sources again"
            ) from None
        vehicle = table["vehicle"].combine_chunks()
        time = table["time"].to_numpy().astype("datetime64[us]").astype(np.int64)
        columns = (table[key].to_numpy() for key in ("lon", "lat", "occupied"))
        return vehicle.dictionary.to_pylist(), Points(vehicle.indices.to_numpy(), time, *columns)


def digest(file: Path) -> str:
    """What tells one source from another, in whatever folder: its name and the SHA-256 of its bytes."""
    try:
        with open(file, "rb") as stream:
            return f"{file.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError as error:
        raise InputError(f"cannot read {file}: {error}") from None


def _by_day(points: Points) -> Iterator[tuple[int, Points]]:
    day = points.time // DAY_US
    order = np.argsort(day, kind="stable")
    days, starts = np.unique(day[order], return_index=True)
    for number, start, end in zip(days, starts, [*starts[1:], len(order)], strict=False):  # no points, no days
        yield int(number), points.take(order[start:end])


def _sorted_names(names: list[str], points: Points) -> tuple[list[str], Points]:
    """Recode vehicles so that codes follow the order of the names that occur, each name once."""
    present = np.unique(points.vehicle)
    kept = sorted({names[code] for code in present})
    rank = {name: i for i, name in enumerate(kept)}
    recode = np.zeros(len(names), np.int32)
    recode[present] = [rank[names[code]] for code in present]
    return kept, replace(points, vehicle=recode[points.vehicle])
