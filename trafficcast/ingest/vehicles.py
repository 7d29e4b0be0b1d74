"""The vehicles of a city: a code for each name, its first time and its last point."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from trafficcast.ingest.counting import Count
from trafficcast.records.records import Points, Records

_R = TypeVar("_R", bound=Records)
_NEVER = np.iinfo(np.int64)


@dataclass
class _VehicleTable:
    """`first`, `last_time` (code), microseconds; `place` (code, 2), degrees; `occupied` (code) of the last point."""

    names: list[str] = field(default_factory=list)
    first: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    last_time: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    place: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    occupied: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))

    def __post_init__(self) -> None:
        self._codes = {name: code for code, name in enumerate(self.names)}

    def codes(self, names: list[str]) -> np.ndarray:
        """The names' codes, new ones for new names."""
        codes = np.empty(len(names), np.int32)
        for i, name in enumerate(names):
            code = self._codes.get(name)
            if code is None:
                code = self._codes[name] = len(self.names)
                self.names.append(name)
            codes[i] = code
        return codes

    def coded(self, records: _R, names: list[str]) -> _R:
        """Records whose vehicles index `names`, with the fleet's codes in their place."""
        return replace(records, vehicle=self.codes(names)[records.vehicle]) if isinstance(records, Points) else records

    def last_points(self, codes: np.ndarray) -> Points:
        """The last point of vehicles that were seen."""
        return Points(
            codes, self.last_time[codes], self.place[codes, 0], self.place[codes, 1], self.occupied[codes]
        )  # fmt: skip

    def see(self, count: Count) -> None:
        """Take a count's first and last points into account."""
        self.grow()
        first, last = count.first, count.last
        self.first[first.vehicle] = np.minimum(self.first[first.vehicle], first.time)
        last = last.take(last.time >= self.last_time[last.vehicle])
        self.last_time[last.vehicle] = last.time
        self.place[last.vehicle] = np.column_stack([last.lon, last.lat])
        self.occupied[last.vehicle] = last.occupied

    def grow(self) -> None:
        """Room in the arrays for every name; what was not seen yet was first seen after all time and last before it."""
        new = len(self.names) - len(self.first)
        if new > 0:
            self.first = np.append(self.first, np.full(new, _NEVER.max))
            self.last_time = np.append(self.last_time, np.full(new, _NEVER.min))
            self.place = np.append(self.place, np.zeros((new, 2)), axis=0)
            self.occupied = np.append(self.occupied, np.zeros(new, np.int8))

    def seen(self) -> int:
        """How many vehicles have a point."""
        return int(np.count_nonzero(self.last_time > _NEVER.min))
