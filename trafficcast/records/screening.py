"""Screen records before they are counted: drop implausible ones, and refuse a file that has no others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from trafficcast.config.city import OUTSIDE, City
from trafficcast.errors import InputError, JobError
from trafficcast.geography.cells import cell_of
from trafficcast.records.coordinates import ENDS, _to_degrees
from trafficcast.records.readers import first_rows
from trafficcast.records.records import DAY_US, DROP_REASONS, EARLIEST_US, HOUR_US, SECOND_US, Batch, Records
from trafficcast.records.refusals import _why_refused
from trafficcast.records.sources import Source

# Coordinates count as swapped where at most this share of the ends lies in the box, and swapped at least that share.
_FIRST, _FEWEST, _FEW = 5_000, 30, 0.2  # records that are looked at for wrong clocks, and the share of these
_YEAR_US = 366 * DAY_US
_MOST_INSIDE, _LEAST_SWAPPED = 0.01, 0.5


class _AllDropped(JobError):
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
    """

    city: City
    earliest: int
    latest: int
    retained_from: int = 0


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
    fair
        Number of records that were not dropped, or only because they lie outside the period.
    early
        Number of records among the first that lie years before all others, their first time, and that of the others.
    kept
        Number of records that were not dropped.
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
    fair: int = 0
    early: tuple[int, int, int] | None = None
    kept: int = 0

    def apply(self, batch: Batch) -> Records:
        """Drop implausible records of a batch, each for the first reason that applies to either of its ends.

        The reasons are `coordinates`, off the globe or exactly (0, 0); `timestamp`, outside the period; `too_long`,
        trips that last longer than `max_trip_hours`; `too_late`, before the records that are stored.

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
        records = _to_degrees(records, screen.city)
        arrays = records.arrays()
        on_globe = np.ones(len(records), np.bool_)
        in_time = np.ones(len(records), np.bool_)
        ends_outside = np.zeros(len(records), np.int8)
        for when, lon, lat in ENDS:
            if when in arrays:
                in_time &= (arrays[when] >= screen.earliest) & (arrays[when] < screen.latest)
            if lon in arrays:
                self.ends += len(records)
                grid = screen.city.box, screen.city.rows, screen.city.cols
                self.inside_swapped += _check_positions(arrays[lon], arrays[lat], *grid, on_globe, ends_outside)
        ends = sum(lon in arrays for _, lon, _ in ENDS)
        self.inside += ends * len(records) - int(ends_outside.sum(dtype=np.int64))
        short = np.ones(len(records), np.bool_)
        if "dropoff_time" in arrays:
            short = arrays["dropoff_time"] - records.time <= screen.city.feed.max_trip_hours * HOUR_US
        keep = on_globe & in_time & short & (records.time >= screen.retained_from)
        self.fair += len(records)
        if self.rows == batch.rows:
            self._look_for_wrong_clocks(records.time[keep][:_FIRST])
        if not keep.all():
            latest = int(time.time()) * SECOND_US + DAY_US
            plausible = on_globe & short & (records.time >= EARLIEST_US) & (records.time < latest)
            self.fair -= len(records) - int(np.count_nonzero(plausible))
            out_of_time = on_globe & ~in_time
            self.dropped["coordinates"] += int(np.count_nonzero(~on_globe))
            self.dropped["timestamp"] += int(np.count_nonzero(out_of_time))
            self.dropped["too_long"] += int(np.count_nonzero(on_globe & in_time & ~short))
            self.dropped["too_late"] += int(np.count_nonzero(on_globe & in_time & short & ~keep))
            records, ends_outside = records.take(keep), ends_outside[keep]
        self.outside += int(ends_outside.sum(dtype=np.int64))
        self.kept += len(records)
        return records

    def _look_for_wrong_clocks(self, times: np.ndarray) -> None:
        """Note where a few of the first times lie more than a year before all others."""
        times = np.sort(times)
        gaps = np.diff(times)
        if len(times) < _FEWEST or gaps.max() < _YEAR_US:
            return
        before = int(gaps.argmax()) + 1
        if before < _FEW * len(times):
            self.early = int(before), int(times[0]), int(times[before])

    def check_source(self) -> None:
        """Check that the source gave records, and that their longitudes and latitudes are not swapped.

        Raises
        ------
        JobError
            Hardly any end lies in the city's box, but with swapped coordinates most would; or every row was dropped,
            and not because of the period alone.
        """
        city, path = self.screen.city, self.source.path
        table = f"[cities.{city.name or 'NAME'}.feed]"
        if self.inside_swapped > _LEAST_SWAPPED * self.ends and self.inside < _MOST_INSIDE * self.ends:
            if city.feed.swapped:
                raise JobError(
                    f"longitude and latitude are right in {path}, and swapped = true turns them round: so "
                    f"{self.inside:,} of {self.ends:,} positions lie in the box of '{city.name}', as they are "
                    f"{self.inside_swapped:,}; remove swapped = true under {table}"
                )
            raise JobError(
                f"longitude and latitude are swapped in {path}: as they are, {self.inside:,} of "
                f"{self.ends:,} positions lie in the box of '{city.name}', swapped {self.inside_swapped:,}; "
                f"mend the file, or set swapped = true under {table}"
            )
        if self.early is not None:
            n, first, others = self.early
            when = [city.isoformat(np.datetime64(us, "us")) for us in (first, others)]
            weeks = " (1,024 weeks before: GPS clocks that count weeks anew)" if _is_rollover(others - first) else ""
            raise JobError(
                f"{n:,} of the first records of {path} lie years before all others{weeks}: the first is of {when[0]}, "
                f"the others begin at {when[1]}; mend the file, or drop them by --start {when[1][:10]}"
            )
        if self.rows and not self.fair and self.dropped.total():
            try:
                why = _why_refused(first_rows(self.source, city), self.dropped, city)
            except InputError:
                why = ""
            raise _AllDropped(
                f"no record of {path} is left to count; dropped were: {reasons(self.dropped)}{why and ': '}{why}"
            )


def _is_rollover(us: int) -> bool:
    """Say whether two times lie 1,024 weeks apart, within some days."""
    return abs(us - 1024 * 7 * DAY_US) < 30 * DAY_US


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


@njit(cache=True, nogil=True)
def _check_positions(x, y, box, rows, cols, on_globe, ends_outside):  # type: ignore[no-untyped-def]
    """Clear `on_globe` and raise `ends_outside` where they apply; return how many ends lie in the box if swapped."""
    swapped = 0
    most = 360 if box[1] > 180 else 180
    for i in range(len(x)):
        if x[i] < -180 or x[i] > most or abs(y[i]) > 90 or (x[i] == 0 and y[i] == 0):
            on_globe[i] = False
        ends_outside[i] += cell_of(x[i], y[i], box, rows, cols) == OUTSIDE
        swapped += cell_of(y[i], x[i], box, rows, cols) != OUTSIDE
    return swapped
