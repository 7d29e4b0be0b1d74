"""Screen records before they are counted: drop implausible ones, and detect swapped coordinates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from trafficcast.config.city import OUTSIDE, City
from trafficcast.errors import JobError
from trafficcast.geography.cells import cell_of
from trafficcast.records.records import DROP_REASONS, Batch, Records
from trafficcast.records.sources import Source

ENDS = (("time", "lon", "lat"), ("dropoff_time", "dropoff_lon", "dropoff_lat"))
# Coordinates count as swapped where at most this share of the ends lies in the box, and swapped at least that share.
_MOST_INSIDE, _LEAST_SWAPPED = 0.01, 0.5


class AllDropped(JobError):
    """All rows of a source were dropped."""


@dataclass(frozen=True)
class Screen:
    """The rules by which records are screened.

    Attributes
    ----------
    city
        The city, whose feed may have swapped coordinates.
    earliest
        Earliest time, microseconds since 1970 UTC, inclusive.
    latest
        Latest time, microseconds since 1970 UTC, exclusive.
    retained_from
        Time before which records are too late to be stored, microseconds since 1970 UTC.
    plausible
        Earliest time, inclusive, and latest time, exclusive, of records that are right, though outside the period that
        is asked for.
    """

    city: City
    earliest: int
    latest: int
    retained_from: int = 0
    plausible: tuple[int, int] = (0, 0)


@dataclass
class Screening:
    """The screening of one source, batch by batch.

    Ends of records are points, pick-ups and drop-offs.

    Attributes
    ----------
    screen
        The rules.
    source
        The source.
    rows
        Number of rows read.
    dropped
        Number of rows dropped by reason.
    notes
        Notes of the reader for the user.
    ends
        Number of ends.
    inside
        Number of ends in the city's box.
    inside_swapped
        Number of ends that would lie in the box if longitude and latitude were swapped.
    outside
        Number of ends outside the box of the records that were not dropped.
    kept
        Number of records that were not dropped.
    not_asked
        Number of records that were dropped because they are too late or outside the period that is asked for.
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
    kept: int = 0
    not_asked: int = 0

    def apply(self, batch: Batch) -> Records:
        """Drop implausible records of a batch, each for the first reason that applies to either of its ends.

        The reasons are `coordinates`, off the globe or exactly (0, 0); `timestamp`, outside the period; `too_late`,
        before the records that are stored.

        Parameters
        ----------
        batch
            A batch of the source.

        Returns
        -------
        Records
            The records that are not dropped.
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
                grid = screen.city.box, screen.city.rows, screen.city.cols
                self.inside_swapped += _check_positions(arrays[lon], arrays[lat], *grid, on_globe, ends_outside)
        ends = sum(lon in arrays for _, lon, _ in ENDS)
        self.inside += ends * len(records) - int(ends_outside.sum(dtype=np.int64))
        keep = on_globe & in_time & (records.time >= screen.retained_from)
        if not keep.all():
            out_of_time = on_globe & ~in_time
            self.dropped["coordinates"] += int(np.count_nonzero(~on_globe))
            self.dropped["timestamp"] += int(np.count_nonzero(out_of_time))
            self.dropped["too_late"] += int(np.count_nonzero(on_globe & ~out_of_time & ~keep))
            plausible = on_globe & ~keep
            for time in (time for time, _, _ in ENDS if time in arrays):
                plausible &= (arrays[time] >= screen.plausible[0]) & (arrays[time] < screen.plausible[1])
            self.not_asked += int(np.count_nonzero(plausible))
            records, ends_outside = records.take(keep), ends_outside[keep]
        self.outside += int(ends_outside.sum(dtype=np.int64))
        self.kept += len(records)
        return records

    def check_some_kept(self) -> None:
        """Check that a record of the source is left, or was not asked for.

        Raises
        ------
        AllDropped
            All rows were dropped, none of them only for the period that was asked for.
        """
        if not self.kept and not self.not_asked and any(self.dropped.values()):
            raise AllDropped(f"no record of {self.source.path} is left to count; dropped were: {reasons(self.dropped)}")

    def check_not_swapped(self) -> None:
        """Check that longitude and latitude of the source are not swapped.

        Raises
        ------
        JobError
            Hardly any end lies in the city's box, but with swapped coordinates most would.
        """
        city = self.screen.city
        if self.inside_swapped > _LEAST_SWAPPED * self.ends and self.inside < _MOST_INSIDE * self.ends:
            raise JobError(
                f"longitude and latitude are swapped in {self.source.path}: as they are, {self.inside:,} of "
                f"{self.ends:,} positions lie in the box of '{city.name}', swapped {self.inside_swapped:,}; "
                f"mend the file, or set swapped = true under [cities.{city.name}.feed]"
            )


def reasons(dropped: Mapping[str, int]) -> str:
    """Write numbers of dropped rows for people.

    Parameters
    ----------
    dropped
        Number of dropped rows by reason.

    Returns
    -------
    str
        The reasons with their numbers, or "none".
    """
    return ", ".join(f"{reason} {dropped[reason]:,}" for reason in DROP_REASONS if dropped.get(reason)) or "none"


def _swapped(records: Records) -> Records:
    """Return records with longitude and latitude swapped."""
    arrays = records.arrays()
    pairs = {name: other for _, lon, lat in ENDS for name, other in ((lon, lat), (lat, lon)) if name in arrays}
    return type(records)(**{name: arrays[pairs.get(name, name)] for name in arrays})


@njit(cache=True, nogil=True)
def _check_positions(x, y, box, rows, cols, on_globe, ends_outside):  # type: ignore[no-untyped-def]
    """Clear `on_globe` and raise `ends_outside` where they apply; return how many ends lie in the box if swapped."""
    swapped = 0
    for i in range(len(x)):
        if abs(x[i]) > 180 or abs(y[i]) > 90 or (x[i] == 0 and y[i] == 0):
            on_globe[i] = False
        ends_outside[i] += cell_of(x[i], y[i], box, rows, cols) == OUTSIDE
        swapped += cell_of(y[i], x[i], box, rows, cols) != OUTSIDE
    return swapped
