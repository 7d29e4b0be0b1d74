"""Records in columns: GPS points, trips, trips between zones.

Times are whole microseconds since 1970 UTC, finer digits cut off; positions are degrees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from trafficcast.config.city import MINUTE_US

SECOND_US = 1_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
EARLIEST_US = 946_684_800 * SECOND_US  # 2000-01-01T00:00Z
# unparsable: a field is missing, superfluous or no finite number. clock: a local time that the clocks skip or repeat.
# too_late: older than the records that are still stored.
DROP_REASONS = ("unparsable", "clock", "coordinates", "timestamp", "too_long", "too_late", "duplicate")


class Records:
    """Arrays of one length, by field; `time` decides in which hour a record is stored.

    Attributes
    ----------
    time
        Microseconds since 1970 UTC, (record).
    DTYPES
        Type of each field's array.
    """

    time: np.ndarray
    DTYPES: ClassVar[dict[str, type]]

    def __len__(self) -> int:
        return len(self.time)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by field.

        Returns
        -------
        dict[str, np.ndarray]
            The arrays, (record) each.
        """
        return {name: getattr(self, name) for name in self.DTYPES}

    def take(self, index: np.ndarray | slice) -> Self:
        """Select records.

        Parameters
        ----------
        index
            Positions, a slice, or a mask.

        Returns
        -------
        Self
            The selected records.
        """
        return type(self)(**{name: array[index] for name, array in self.arrays().items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Concatenate records.

        Parameters
        ----------
        parts
            Records of one kind; there may be none.

        Returns
        -------
        Self
            All of them.
        """
        empty: dict[str, np.ndarray] = {name: np.zeros(0, dtype) for name, dtype in cls.DTYPES.items()}
        return cls(**{name: np.concatenate([empty[name], *(getattr(p, name) for p in parts)]) for name in empty})


@dataclass(frozen=True)
class Points(Records):
    """GPS points.

    Attributes
    ----------
    vehicle
        Codes of the vehicles, (record).
    time
        Microseconds since 1970 UTC, (record).
    lon
        Degrees east, (record).
    lat
        Degrees north, (record).
    occupied
        1 with a passenger, 0 without, -1 unknown, (record).
    DTYPES
        Type of each field's array.
    """

    vehicle: np.ndarray
    time: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    occupied: np.ndarray

    DTYPES = {"vehicle": np.int32, "time": np.int64, "lon": np.float64, "lat": np.float64, "occupied": np.int8}


@dataclass(frozen=True)
class Trips(Records):
    """Trips between positions.

    Attributes
    ----------
    time
        Time of the pick-up, microseconds since 1970 UTC, (record).
    lon
        Longitude of the pick-up, degrees east, (record).
    lat
        Latitude of the pick-up, degrees north, (record).
    dropoff_time
        Time of the drop-off, microseconds since 1970 UTC, (record).
    dropoff_lon
        Longitude of the drop-off, degrees east, (record).
    dropoff_lat
        Latitude of the drop-off, degrees north, (record).
    trip_id
        Hash of the trip's id, (record); 0 for a trip without one.
    DTYPES
        Type of each field's array.
    """

    time: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    dropoff_time: np.ndarray
    dropoff_lon: np.ndarray
    dropoff_lat: np.ndarray
    trip_id: np.ndarray

    DTYPES = {
        "time": np.int64,
        "lon": np.float64,
        "lat": np.float64,
        "dropoff_time": np.int64,
        "dropoff_lon": np.float64,
        "dropoff_lat": np.float64,
        "trip_id": np.int64,
    }


@dataclass(frozen=True)
class ZoneTrips(Records):
    """Trips between zones.

    Attributes
    ----------
    time
        Time of the pick-up, microseconds since 1970 UTC, (record).
    zone
        Id of the zone of the pick-up, (record).
    dropoff_time
        Time of the drop-off, microseconds since 1970 UTC, (record).
    dropoff_zone
        Id of the zone of the drop-off, (record).
    trip_id
        Hash of the trip's id, (record); 0 for a trip without one.
    DTYPES
        Type of each field's array.
    """

    time: np.ndarray
    zone: np.ndarray
    dropoff_time: np.ndarray
    dropoff_zone: np.ndarray
    trip_id: np.ndarray

    DTYPES = dict.fromkeys(("time", "zone", "dropoff_time", "dropoff_zone", "trip_id"), np.int64)


@dataclass(frozen=True)
class Batch:
    """A part of a file.

    Attributes
    ----------
    records
        The records.
    rows
        Number of rows read.
    vehicles
        Names that the vehicles of points index; empty for trips.
    dropped
        Number of dropped rows by reason.
    notes
        Notes for the user.
    columns
        Names of the columns that the fields were read from, by field, where the format is a table.
    again
        How many microseconds later each time occurs again, (record), by the field of times: local times that occur
        twice are as the first time. Empty where none does, and for what a reader returns.
    """

    records: Records
    rows: int
    vehicles: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    again: dict[str, np.ndarray] = field(default_factory=dict)
