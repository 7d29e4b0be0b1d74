"""GPS points in columns, and what is dropped before anything is counted (flows: Records)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
EARLIEST_US = 946_684_800 * SECOND_US  # 2000-01-01T00:00Z
DROP_REASONS = ("unparsable", "coordinates", "timestamp", "duplicate")


@dataclass(frozen=True)
class Points:
    """GPS points, (n) each: integer vehicle code, microseconds since 1970 UTC, degrees, occupied 0/1 (-1 unknown)."""

    vehicle: np.ndarray
    time: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    occupied: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def take(self, index: np.ndarray | slice) -> Self:
        """The points at these positions, or where a mask is true."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """One set of points out of many."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class Batch:
    """What a reader made of one file: the points of its vehicles, rows read, rows dropped by reason.

    `points.vehicle` indexes `vehicles`, the names.
    """

    vehicles: list[str]
    points: Points
    rows: int
    dropped: Counter[str] = field(default_factory=Counter)


def drop_implausible(batch: Batch, earliest_us: int, latest_us: int) -> Batch:
    """Drop, and count, points off the globe or at exactly (0, 0), then those not in [earliest, latest) microseconds."""
    points = batch.points
    on_globe = (np.abs(points.lon) <= 180) & (np.abs(points.lat) <= 90) & ((points.lon != 0) | (points.lat != 0))
    in_time = (points.time >= earliest_us) & (points.time < latest_us)
    dropped = batch.dropped + Counter(
        coordinates=int(np.count_nonzero(~on_globe)), timestamp=int(np.count_nonzero(on_globe & ~in_time))
    )
    keep = on_globe & in_time
    return Batch(batch.vehicles, points if keep.all() else points.take(keep), batch.rows, dropped)


def sort_and_deduplicate(points: Points, epoch_us: int) -> tuple[Points, int]:
    """Sort a day's points by (vehicle, time); of repeated (vehicle, timestamp) the smallest (lon, lat, occupied) stays.

    `epoch_us` is the day's first microsecond. Returns the points and how many were dropped.
    """
    key = points.vehicle.astype(np.int64) * DAY_US + (points.time - epoch_us)
    order = np.argsort(key, kind="stable")  # nearly sorted input, the usual case, takes linear time
    ordered = key[order]
    first = np.ones(len(key), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    if not first.all():
        order = np.lexsort((points.occupied, points.lat, points.lon, key))
    return points.take(order[first]), int(np.count_nonzero(~first))
