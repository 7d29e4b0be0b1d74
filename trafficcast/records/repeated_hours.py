"""Local times that occur twice, where clocks are set back, told apart by the order of the records in their file.

Where a vehicle's local time jumps back by about as much as the clocks, its records before the jump are of the first
occurrence, and those after it of the second. A vehicle without such a jump belongs to the occurrence that leaves no gap
to its record before or after the hour. Trips name no vehicle: they jump back together, where the file is in the order
of their pick-ups.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import tzinfo

import numpy as np

from trafficcast.config.city import MINUTE_US
from trafficcast.records.records import HOUR_US, Batch, Points, Records
from trafficcast.records.timestamps import _set_back

_NEAR_US = 3 * HOUR_US  # before and after the clocks are set back
_DISORDER_US = 5 * MINUTE_US  # records of a vehicle may be so much out of order
_MOST_DISORDERED = 0.2  # of all steps from a record to the next
_MOST_UNKNOWN = 0.1  # of the records whose local times occur twice in one night
_FIRST, _SECOND, _UNKNOWN = 0, 1, -1


@dataclass(frozen=True)
class _Part:
    """The records of a batch that lie near a change of the clocks, those times that occur twice as the first time.

    `again` has, by the fields of times, how much later each occurs again, 0 where it does not; `change` when the clocks
    were set back and `shift` by how much, microseconds, (record) each.
    """

    records: Records
    again: dict[str, np.ndarray]
    change: np.ndarray
    shift: np.ndarray


@dataclass
class RepeatedHours:
    """The records of a file whose local times occur twice, until it is read to its end.

    Attributes
    ----------
    zone
        Time zone of the file's times.
    longest_gap_us
        The longest time between two records of a vehicle that leaves no gap, microseconds.
    """

    zone: tzinfo
    longest_gap_us: int
    _parts: list[_Part] = field(default_factory=list)
    _vehicles: dict[str, int] = field(default_factory=dict)

    @property
    def withheld(self) -> int:
        """Return the number of records in memory.

        Returns
        -------
        int
            Those whose times occur twice, and those around them.
        """
        return sum(len(part.records) for part in self._parts)

    def withhold(self, batch: Batch) -> Batch:
        """Take those records out of a batch whose times occur twice.

        Parameters
        ----------
        batch
            A batch of the file, in the file's order.

        Returns
        -------
        Batch
            The batch without these records.
        """
        records = batch.records
        if not len(records):
            return replace(batch, again={})
        changes, shifts = _set_back(self.zone, int(records.time.min()), int(records.time.max()))
        twice = np.zeros(len(records), np.bool_)
        for again in batch.again.values():
            twice |= again > 0
        if not len(changes):
            return replace(batch, again={})
        i = np.searchsorted((changes[1:] + changes[:-1]) // 2, records.time)  # the nearest change
        near = twice | (np.abs(records.time - changes[i]) < _NEAR_US)
        if near.any():
            part = records.take(near)
            if isinstance(part, Points):
                codes = [self._vehicles.setdefault(name, len(self._vehicles)) for name in batch.vehicles]
                part = replace(part, vehicle=np.array(codes, np.int32)[part.vehicle])
            of_part = {name: array[near] for name, array in batch.again.items() if array.any()}
            self._parts.append(_Part(part, of_part, changes[i][near], shifts[i][near]))
        if not twice.any():
            return replace(batch, again={})
        return replace(batch, records=records.take(~twice), rows=batch.rows - int(np.count_nonzero(twice)), again={})

    def told_apart(self) -> Batch | None:
        """Return the records that were withheld with their true times, once the file is read to its end.

        Those of which nothing tells the occurrence are dropped under `clock`; where they are more than a tenth of a
        night's, all of the night's are, so that no slot is counted in part.

        Returns
        -------
        Batch | None
            The records; None where no time occurs twice.
        """
        parts = self._parts
        if not any(part.again for part in parts):
            return None
        kind = type(parts[0].records)
        records = kind.concatenate([part.records for part in parts])
        change, shift = (np.concatenate([getattr(part, name) for part in parts]) for name in ("change", "shift"))
        again = {
            name: np.concatenate([part.again.get(name, np.zeros(len(part.records), np.int64)) for part in parts])
            for name in kind.DTYPES
            if name.endswith("time")
        }
        twice = np.logical_or.reduce([array > 0 for array in again.values()])
        group = records.vehicle if isinstance(records, Points) else np.zeros(len(records), np.int32)
        gap = self.longest_gap_us if isinstance(records, Points) else 0
        which = _occurrences(group, records.time, again["time"], change, shift, gap)
        times = {"time": records.time + again["time"] * (which == _SECOND)}
        if "dropoff_time" in again:
            dropoff, later = records.arrays()["dropoff_time"], again["dropoff_time"]
            # A trip that seems to end before it begins began before the clocks were set back, and ended after that.
            turned = (again["time"] > 0) & (later > 0) & (dropoff < records.time)
            which = np.where(turned, _FIRST, which)
            times["time"] = np.where(turned, records.time, times["time"])
            times["dropoff_time"] = dropoff + later * (dropoff < times["time"])
        unknown = twice & (which == _UNKNOWN)
        for night in np.unique(change[unknown]):
            of_night = twice & (change == night)
            if np.count_nonzero(unknown & of_night) > _MOST_UNKNOWN * np.count_nonzero(of_night):
                unknown |= of_night
        records = kind(**{**records.arrays(), **times}).take(twice & ~unknown)
        rows, dropped = int(np.count_nonzero(twice)), Counter(clock=int(np.count_nonzero(unknown)))
        note = _note(rows, dropped["clock"])
        return Batch(records, rows, list(self._vehicles), +dropped, (note,))


def _note(twice: int, unknown: int) -> str:
    """Say for the user what became of times that occur twice."""
    told = f"{twice:,} records have local times that occur twice, as clocks were set back: "
    if unknown == twice:
        return f"{told}their order does not tell them apart, and they are dropped (write times in UTC)"
    more = f"; {unknown:,} are not told apart by it, and are dropped" if unknown else ""
    return f"{told}their order tells them apart{more}"


def _occurrences(
    group: np.ndarray, time: np.ndarray, again: np.ndarray, change: np.ndarray, shift: np.ndarray, gap_us: int
) -> np.ndarray:
    """Say of which occurrence each record is, whose order in the file is that of the arrays, (record).

    `group` is the vehicle. `time` is the first occurrence of a time that comes again after `again` microseconds, 0 for
    none. Records beside the hour count where they leave no gap of more than `gap_us`; 0 is never. The occurrence of a
    record whose time does not occur twice is the first.
    """
    order = np.lexsort((change, group))  # keeps the order in the file
    clock = (time - shift * (time >= change))[order]  # as if the clocks had gone on
    if _falls(clock, group[order], change[order]) > 0.5:  # the file begins with the newest records
        order = order[::-1]
        clock = clock[::-1]
    group, change, shift, twice = group[order], change[order], shift[order], (again > 0)[order]
    same = (group[1:] == group[:-1]) & (change[1:] == change[:-1])
    number = np.cumsum(np.concatenate([[0], ~same]))  # of the vehicle's night

    def counted(steps: np.ndarray) -> np.ndarray:
        return np.bincount(number[1:][steps], minlength=number[-1] + 1)[number]

    step, both = np.diff(clock), twice[1:] & twice[:-1]
    back = same & (step <= -shift[1:] // 2)
    back_in_hour, disorder = back & both, (back & ~both) | (same & (step < -_DISORDER_US) & ~back)
    told = (counted(disorder) == 0) & (_falls(clock, group, change, back_in_hour) <= _MOST_DISORDERED)
    close = same & (np.abs(step) <= gap_us) & (gap_us > 0)
    begins, ends = counted(close & twice[1:] & ~twice[:-1]) > 0, counted(close & twice[:-1] & ~twice[1:]) > 0
    jumps = counted(back_in_hour)
    after = np.concatenate([[0], np.cumsum(back_in_hour)])
    after -= after[np.searchsorted(number, number)]
    which = np.full(len(time), _UNKNOWN)
    which[told & (jumps == 1)] = after[told & (jumps == 1)]
    which[told & (jumps == 0) & begins & ~ends] = _FIRST
    which[told & (jumps == 0) & ends & ~begins] = _SECOND
    which[~twice] = _FIRST
    found = np.empty_like(which)
    found[order] = which
    return found


def _falls(clock: np.ndarray, group: np.ndarray, change: np.ndarray, but: np.ndarray | None = None) -> float:
    """Return the share of steps that fall, from a record of a vehicle to its next one, `but` for some."""
    counts = (group[1:] == group[:-1]) & (change[1:] == change[:-1]) & (clock[1:] != clock[:-1])
    if but is not None:
        counts &= ~but
    return float(np.mean(clock[1:][counts] < clock[:-1][counts])) if counts.any() else 0.0
