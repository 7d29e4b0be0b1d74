"""Records in columns - GPS points, trips, trips between zones - and what is dropped before anything is counted.

The terms are those of Zhang, Zheng & Qi, "Deep Spatio-Temporal Residual Networks for Citywide Crowd Flows
Prediction" (AAAI 2017). Times are whole microseconds since 1970 UTC, finer digits cut off; places are degrees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
EARLIEST_US = 946_684_800 * SECOND_US  # 2000-01-01T00:00Z
# unparsable: a field missing, too many, not a finite number. clock: a local time that the clocks skip.
# too_late: older than the records that are still kept.
DROP_REASONS = ("unparsable", "clock", "coordinates", "timestamp", "too_late", "duplicate")


class Records:
    """Arrays of one length, a record a position; `time` says which hour a record is kept under."""

    time: np.ndarray
    DTYPES: ClassVar[dict[str, type]]

    def __len__(self) -> int:
        return len(self.time)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by their names."""
        return {name: getattr(self, name) for name in self.DTYPES}

    def take(self, index: np.ndarray | slice) -> Self:
        """The records at these positions, or where a mask is true."""
        return type(self)(**{name: array[index] for name, array in self.arrays().items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """One set of records out of many, or out of none."""
        empty: dict[str, np.ndarray] = {name: np.zeros(0, dtype) for name, dtype in cls.DTYPES.items()}
        return cls(**{name: np.concatenate([empty[name], *(getattr(p, name) for p in parts)]) for name in empty})


@dataclass(frozen=True)
class Points(Records):
    """GPS points: integer vehicle code, time, degrees, occupied 0/1 (-1 unknown)."""

    vehicle: np.ndarray
    time: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    occupied: np.ndarray

    DTYPES = {"vehicle": np.int32, "time": np.int64, "lon": np.float64, "lat": np.float64, "occupied": np.int8}


@dataclass(frozen=True)
class Trips(Records):
    """Trips: `time`, `lon`, `lat` of the pick-up, then those of the drop-off."""

    time: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    dropoff_time: np.ndarray
    dropoff_lon: np.ndarray
    dropoff_lat: np.ndarray

    DTYPES = {
        "time": np.int64,
        "lon": np.float64,
        "lat": np.float64,
        "dropoff_time": np.int64,
        "dropoff_lon": np.float64,
        "dropoff_lat": np.float64,
    }


@dataclass(frozen=True)
class ZoneTrips(Records):
    """Trips between zones: `time` and `zone` id of the pick-up, then those of the drop-off."""

    time: np.ndarray
    zone: np.ndarray
    dropoff_time: np.ndarray
    dropoff_zone: np.ndarray

    DTYPES = {"time": np.int64, "zone": np.int64, "dropoff_time": np.int64, "dropoff_zone": np.int64}


@dataclass(frozen=True)
class Batch:
    """A part of one file: its records, rows read, rows dropped by reason, and what a person should be told.

    `records.vehicle` of points indexes `vehicles`, the names; trips have none.
    """

    records: Records
    rows: int
    vehicles: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()
