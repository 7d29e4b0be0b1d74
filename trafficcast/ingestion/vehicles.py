"""The vehicle table of a city: a code for each name, each vehicle's first time and last point."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from trafficcast.ingestion.counting import Count
from trafficcast.records.records import Points, Records

_R = TypeVar("_R", bound=Records)
_INT64 = np.iinfo(np.int64)


@dataclass
class _VehicleTable:
    """The vehicles of a city, by their code: names, first times and last points.

    Times are microseconds since 1970 UTC, positions (code, 2) longitude and latitude in degrees. The arrays may be
    shorter than `names` until `extend` is called.
    """

    names: list[str] = field(default_factory=list)
    first_time: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    last_time: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    last_position: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    last_occupied: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))

    def __post_init__(self) -> None:
        self._codes = {name: code for code, name in enumerate(self.names)}

    def codes(self, names: list[str]) -> np.ndarray:
        """Return the codes of names, after giving new names the next codes."""
        codes = np.empty(len(names), np.int32)
        for i, name in enumerate(names):
            codes[i] = code = self._codes.setdefault(name, len(self.names))
            if code == len(self.names):
                self.names.append(name)
        return codes

    def forget(self, first: int) -> None:
        """Take back the codes from `first` on, which no vehicle with a point has."""
        for name in self.names[first:]:
            del self._codes[name]
        del self.names[first:]

    def recode(self, records: _R, names: list[str]) -> _R:
        """Return records, whose vehicles index `names`, with the codes of this table."""
        return replace(records, vehicle=self.codes(names)[records.vehicle]) if isinstance(records, Points) else records

    def last_points(self, codes: np.ndarray) -> Points:
        """Return the last point of each of some vehicles that have one."""
        lon, lat = self.last_position[codes, 0], self.last_position[codes, 1]
        return Points(codes, self.last_time[codes], lon, lat, self.last_occupied[codes])

    def update(self, count: Count) -> None:
        """Update the table with a count's first and last points."""
        self.extend()
        first, last = count.first, count.last
        self.first_time[first.vehicle] = np.minimum(self.first_time[first.vehicle], first.time)
        last = last.take(last.time >= self.last_time[last.vehicle])
        self.last_time[last.vehicle] = last.time
        self.last_position[last.vehicle] = np.column_stack([last.lon, last.lat])
        self.last_occupied[last.vehicle] = last.occupied

    def replace_within(
        self, start: int, end: int, codes: np.ndarray, earlier: Points, within: Count, later: Points
    ) -> None:
        """Update the table where the records of some vehicles (codes) from `start` to before `end` were replaced.

        `within` is the count of the new ones, `earlier` and `later` are each vehicle's last point before and first
        point after them. A vehicle may have none of the three.
        """
        self.extend()
        for time, affected, none, ends in (
            (self.first_time, codes[self.first_time[codes] >= start], _INT64.max, (later, within.first)),
            (self.last_time, codes[self.last_time[codes] < end], _INT64.min, (earlier, within.last)),
        ):
            is_affected = np.zeros(len(time), np.bool_)
            is_affected[affected] = True
            time[affected] = none
            for points in ends:
                own = points.take(is_affected[points.vehicle])
                time[own.vehicle] = own.time
                if time is self.last_time:
                    self.last_position[own.vehicle] = np.column_stack([own.lon, own.lat])
                    self.last_occupied[own.vehicle] = own.occupied

    def extend(self) -> None:
        """Extend the arrays to all names.

        Vehicles without a point get first = the largest int64 and last = the smallest.
        """
        new = len(self.names) - len(self.first_time)
        if new > 0:
            self.first_time = np.append(self.first_time, np.full(new, _INT64.max))
            self.last_time = np.append(self.last_time, np.full(new, _INT64.min))
            self.last_position = np.append(self.last_position, np.zeros((new, 2)), axis=0)
            self.last_occupied = np.append(self.last_occupied, np.zeros(new, np.int8))

    def number_with_points(self) -> int:
        """Return the number of vehicles that have a point."""
        return int(np.count_nonzero(self.last_time > _INT64.min))
