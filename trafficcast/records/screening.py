"""What is dropped, and counted, before a record counts (flows: Records), and a source whose coordinates are swapped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from trafficcast.config.city import OUTSIDE, City
from trafficcast.errors import JobError
from trafficcast.geography.cells import cell_of
from trafficcast.records.records import Batch, Records
from trafficcast.records.sources import Source

ENDS = (("time", "lon", "lat"), ("dropoff_time", "dropoff_lon", "dropoff_lat"))
# Coordinates have changed places where hardly any record lies in the box and, the other way round, most do.
_HARDLY_ANY, _MOST = 0.01, 0.5


@dataclass(frozen=True)
class Screen:
    """What is kept: times in [earliest, latest); those before `retained_from` are too late (all microseconds)."""

    city: City
    earliest: int
    latest: int
    retained_from: int = 0

    def of(self, source: Source) -> Screening:
        """The screening of one source."""
        return Screening(self, source)


@dataclass
class Screening:
    """One source's batches on their way through a screen.

    Counts rows read, rows dropped by reason, and the ends of records (a point, a pick-up, a drop-off): all of them,
    those within the box, those that would be if longitude and latitude changed places, and those kept outside it.
    """

    screen: Screen
    source: Source
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    ends: int = 0
    inside: int = 0
    inside_swapped: int = 0
    outside: int = 0

    def keep(self, batch: Batch) -> Records:
        """The records of a batch that stay; one goes for the first reason that applies to either of its ends.

        Off the globe or at exactly (0, 0): `coordinates`; out of time: `timestamp`; before what is kept: `too_late`.
        """
        screen, records = self.screen, batch.records
        self.rows += batch.rows
        self.dropped.update(batch.dropped)
        self.notes.extend(note for note in batch.notes if note not in self.notes)
        if screen.city.feed.swapped:
            records = _swapped(records)
        arrays = records.arrays()
        on_globe = np.ones(len(records), np.bool_)
        in_time = np.ones(len(records), np.bool_)
        ends_outside = np.zeros(len(records), np.int8)
        for time, lon, lat in ENDS:
            if time in arrays:
                in_time &= (arrays[time] >= screen.earliest) & (arrays[time] < screen.latest)
            if lon in arrays:
                self.ends += len(records)
                rules = _box(screen.city), screen.city.rows, screen.city.cols
                self.inside_swapped += _look(arrays[lon], arrays[lat], *rules, on_globe, ends_outside)
        ends = sum(lon in arrays for _, lon, _ in ENDS)
        self.inside += ends * len(records) - int(ends_outside.sum(dtype=np.int64))
        keep = on_globe & in_time & (records.time >= screen.retained_from)
        if not keep.all():
            out_of_time = on_globe & ~in_time
            self.dropped["coordinates"] += int(np.count_nonzero(~on_globe))
            self.dropped["timestamp"] += int(np.count_nonzero(out_of_time))
            self.dropped["too_late"] += int(np.count_nonzero(on_globe & ~out_of_time & ~keep))
            records, ends_outside = records.take(keep), ends_outside[keep]
        self.outside += int(ends_outside.sum(dtype=np.int64))
        return records

    def check_not_swapped(self) -> None:
        """Raise JobError where the source's longitudes and latitudes have changed places."""
        city = self.screen.city
        if self.inside_swapped > _MOST * self.ends and self.inside < _HARDLY_ANY * self.ends:
            raise JobError(
                f"longitude and latitude have changed places in {self.source.path}: as they are, {self.inside:,} of "
                f"{self.ends:,} places lie in the box of '{city.name}', the other way round {self.inside_swapped:,}; "
                f"mend the file, or set swapped = true under [cities.{city.name}.feed]"
            )


def _swapped(records: Records) -> Records:
    arrays = records.arrays()
    pairs = {name: other for _, lon, lat in ENDS for name, other in ((lon, lat), (lat, lon)) if name in arrays}
    return type(records)(**{name: arrays[pairs.get(name, name)] for name in arrays})


def _box(city: City) -> np.ndarray:
    return np.array([city.west, city.east, city.south, city.north])


@njit(cache=True, nogil=True)
def _look(x, y, box, rows, cols, on_globe, ends_outside):  # type: ignore[no-untyped-def]
    """Clear `on_globe` and raise `ends_outside` where they apply; return how many ends lie in the box swapped."""
    swapped = 0
    for i in range(len(x)):
        if abs(x[i]) > 180 or abs(y[i]) > 90 or (x[i] == 0 and y[i] == 0):
            on_globe[i] = False
        ends_outside[i] += cell_of(x[i], y[i], box, rows, cols) == OUTSIDE
        swapped += cell_of(y[i], x[i], box, rows, cols) != OUTSIDE
    return swapped
