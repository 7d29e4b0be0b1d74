"""Which slots are observed: those in which the feed was alive, judged by its usual records at that time of the week.

A quiet night of a small city is a true zero; the silence of a fleet is not, even where a parked vehicle or one whose
clock is wrong goes on to report.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trafficcast.config.city import City

# The least plausible share of the usual number of vehicles, of points, and of ends of trips: trips vary more.
_VEHICLES, _POINTS, _TRIP_ENDS = 0.25, 0.1, 0.03
_USUAL = 0.75  # the quantile that is usual, so that outages among the weeks do not lower it
_WEEKS_BACK, _FIRST_WEEKS = 8, 4
_FEWEST = 3  # so many values at a time of the week tell what is usual; else those at the time of day do
_SPREADS = 4.0
# Of square roots: their standard deviation is 0.5 where records are independent; a fleet's number varies less.
_SPREAD_OF_RECORDS, _SPREAD_OF_VEHICLES = 0.5, 0.25
_NORMAL = 3.138  # the standard deviation of a normal distribution, in lower quartiles of its distances to the mean
_ENOUGH = 5.0  # a stretch is judged when so many records are plausible in it at least
_DAY_MINUTES = 1440
_WELL_OBSERVED = 0.95  # of an hour's slots


@dataclass(frozen=True)
class Evidence:
    """What the records say of the feed, in the slots that have a record.

    Attributes
    ----------
    number
        Numbers of the slots since 1970, rising, (slot).
    minutes
        Number of records of each minute, of trips the number of their ends, (slot, minute).
    vehicles
        Number of distinct vehicles, (slot); None where they are unknown.
    trips
        Whether the records are ends of trips.
    """

    number: np.ndarray
    minutes: np.ndarray
    vehicles: np.ndarray | None
    trips: bool


def judge_observed(city: City, evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Judge which slots are observed.

    The usual number of records of a slot is the upper quartile at that local time of the week in the eight weeks before
    (the first four weeks are judged by one another). Much less than that is not plausible: less than a share of it that
    also lies four standard deviations below, of the square roots. A minute is silent in a stretch with fewer records
    than plausible; a slot is observed where the feed was not silent in `min_coverage` of its minutes, and reported with
    a plausible number of vehicles. Where clocks are set back, records whose local times do not tell which of two hours
    they are of have been dropped: there no record is no quiet night, and the slot is not observed.

    Parameters
    ----------
    city
        The city; its time zone tells the time of the week, its `min_coverage` the least share of minutes.
    evidence
        The records of the slots.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        Numbers of the slots that have a record or are observed, rising, and whether each is observed, (slot).
    """
    number = evidence.number
    if not len(number):
        return number, np.empty(0, np.bool_)
    # After a silence of all the weeks that are looked at, nothing is usual any more; and a stray record of another year
    # costs no memory.
    apart = np.flatnonzero(np.diff(number) > (_WEEKS_BACK + 1) * 7 * city.slots_per_day) + 1
    parts = [_judge_part(city, evidence, part) for part in np.split(np.arange(len(number)), apart)]
    numbers, observed = (np.concatenate(column) for column in zip(*parts, strict=True))
    return numbers, observed


def heard_to_end(city: City, evidence: Evidence, number: int) -> bool:
    """Say whether the feed was alive to the end of a slot, from the records up to that end.

    Parameters
    ----------
    city
        The city.
    evidence
        The records of the slots.
    number
        Number of the slot since 1970.

    Returns
    -------
    bool
        Whether the slot has records and its last minute is not silent (see `judge_observed`).
    """
    weeks = (_WEEKS_BACK + 1) * 7 * city.slots_per_day
    part = np.flatnonzero((evidence.number > number - weeks) & (evidence.number <= number))
    if not len(part) or evidence.number[part[-1]] != number:
        return False
    numbers, minutes = _minutes_of(city, evidence, part)
    return not _silent_minutes(minutes, _Calendar(city, numbers, minutes.sum(axis=1)), evidence.trips)[-1, -1]


def observed_by_hour(city: City, number: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return which share of the slots of each hour of the day are observed, on the days with any of the slots.

    Parameters
    ----------
    city
        The city, in whose time zone the hours are.
    number
        Numbers of at least one slot, as `judge_observed` returns them, (slot).
    observed
        Whether each is observed, (slot).

    Returns
    -------
    np.ndarray
        Shares from 0 to 1, (24); NaN for an hour that the slots do not reach.
    """
    starts = (number * city.slot_us).astype("datetime64[us]")
    asked = np.concatenate([city.slots_of_day(day) for day in np.unique(city.local_days(starts))])
    asked = asked[(asked >= number[0]) & (asked <= number[-1])]
    hours = city.local((asked * city.slot_us).astype("datetime64[us]")).hour
    whole = np.bincount(hours, minlength=24)
    with np.errstate(invalid="ignore"):
        found: np.ndarray = np.bincount(city.local(starts[observed]).hour, minlength=24) / whole
    return found


def least_observed_hours(shares: np.ndarray) -> str:
    """Name the hours of which most slots are not observed.

    Parameters
    ----------
    shares
        Shares of each hour, as `observed_by_hour` returns them, (24).

    Returns
    -------
    str
        Up to three hours with their shares, the worst first; "" where 95 % or more of every hour are observed.
    """
    worst = [hour for hour in np.argsort(shares, kind="stable")[:3].tolist() if shares[hour] < _WELL_OBSERVED]
    return ", ".join(f"{hour:02d}:00 ({shares[hour]:.0%} observed)" for hour in worst)


def _judge_part(city: City, evidence: Evidence, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Judge slots whose weeks follow one another."""
    numbers, minutes = _minutes_of(city, evidence, part)
    records = minutes.sum(axis=1)
    calendar = _Calendar(city, numbers, records)
    alive = 1 - _silent_minutes(minutes, calendar, evidence.trips).mean(axis=1)
    observed = alive.astype(np.float32) >= np.float32(city.min_coverage)
    if evidence.vehicles is not None:
        vehicles = np.zeros(len(numbers), np.int64)
        vehicles[evidence.number[part] - numbers[0]] = evidence.vehicles[part]
        observed &= vehicles >= calendar.least(vehicles, _VEHICLES, _SPREAD_OF_VEHICLES)
    observed &= (records > 0) | ~calendar.twice
    known = observed | (records > 0)
    return numbers[known], observed[known]


def _minutes_of(city: City, evidence: Evidence, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the slots from the first to the last of a part, and the records of their minutes."""
    first, last = evidence.number[part[[0, -1]]]
    numbers = np.arange(first, last + 1)
    minutes = np.zeros((len(numbers), city.slot_minutes), np.int32)
    minutes[evidence.number[part] - first] = evidence.minutes[part]
    return numbers, minutes


def _silent_minutes(minutes: np.ndarray, calendar: _Calendar, trips: bool) -> np.ndarray:
    """Say which minutes are silent, (slot, minute), from their numbers of records."""
    least = calendar.least(minutes.sum(axis=1), _TRIP_ENDS if trips else _POINTS, _SPREAD_OF_RECORDS)
    slot_minutes = minutes.shape[1]
    return _silent(minutes.ravel(), np.repeat(least / slot_minutes, slot_minutes)).reshape(minutes.shape)


class _Calendar:
    """Places of slots in (week, day of the week, slot of the day), local time; weeks begin on the first slot's day.

    `twice` says of which slots the local time occurs twice, as clocks are set back, (slot).
    """

    def __init__(self, city: City, numbers: np.ndarray, records: np.ndarray) -> None:
        local = city.local((numbers * city.slot_us).astype("datetime64[us]")).tz_localize(None)
        day = local.normalize().to_numpy().astype("datetime64[D]").astype(np.int64)
        day -= day[0]
        slot = ((local.hour * 60 + local.minute) // city.slot_minutes).to_numpy()
        self.twice = local.duplicated(keep=False)
        self._place = day // 7, day % 7, slot
        self._shape = int(day[-1]) // 7 + 1, 7, city.slots_per_day
        # A day without any record says nothing of what is usual.
        self._counts = np.bincount(day, records, minlength=int(day[-1]) + 1)[day] > 0

    def least(self, values: np.ndarray, share: float, least_spread: float) -> np.ndarray:
        """Return the least plausible value of each slot, (slot); square roots spread by `least_spread` at least."""
        table = np.full(self._shape, np.nan)
        table[tuple(axis[self._counts] for axis in self._place)] = values[self._counts]
        usual = np.stack([_usual(table[weeks]) for weeks in self._windows()])
        distance = np.abs(np.sqrt(table) - np.sqrt(usual))
        spread = np.stack([_of_time_of_day(distance[weeks], 1 - _USUAL) for weeks in self._windows()])
        spread = np.maximum(np.nan_to_num(_NORMAL * spread), least_spread)[:, None, :]
        plausible = np.maximum(np.sqrt(usual) - _SPREADS * spread, 0) ** 2
        found: np.ndarray = np.minimum(share * usual, plausible)[self._place]
        return np.nan_to_num(found)

    def _windows(self) -> list[slice]:
        """Return the weeks by which each week is judged."""
        weeks = range(self._shape[0])
        return [slice(max(0, week - _WEEKS_BACK), max(week + 1, _FIRST_WEEKS)) for week in weeks]


def _usual(table: np.ndarray) -> np.ndarray:
    """Return the usual values of a week, (day, slot), from those of some weeks, (week, day, slot)."""
    few = np.count_nonzero(~np.isnan(table), axis=0) < _FEWEST
    return np.where(few, _of_time_of_day(table, _USUAL), _quantile(table, _USUAL, 1))


def _of_time_of_day(table: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile at each time of day, (slot), of (week, day, slot); where few are known, that of all."""
    few = np.count_nonzero(~np.isnan(table), axis=(0, 1)) < _FEWEST
    return np.where(few, _quantile(table, share, 3), _quantile(table, share, 2))


def _quantile(values: np.ndarray, share: float, axes: int) -> np.ndarray:
    """Return a quantile along the first axes; NaN are left out, and where all are NaN the quantile is."""
    ordered = np.sort(values.reshape(-1, *values.shape[axes:]), axis=0)  # NaN come last
    position = share * np.maximum(np.count_nonzero(~np.isnan(ordered), axis=0) - 1, 0)
    low, high = (np.asarray(edge, np.int64)[None] for edge in (np.floor(position), np.ceil(position)))
    below, above = (np.take_along_axis(ordered, at, 0)[0] for at in (low, high))
    found: np.ndarray = below + (position - low[0]) * (above - below)
    return found


def _silent(records: np.ndarray, plausible: np.ndarray) -> np.ndarray:
    """Say in which minutes the feed was silent, (minute), from their records and the least that is plausible."""
    seen = np.concatenate([[0], np.cumsum(records)])
    expected = np.concatenate([[0.0], np.cumsum(plausible)])
    # The shortest stretch from each minute on that can be judged.
    starts = np.arange(len(records))
    ends = np.searchsorted(expected, expected[:-1] + _ENOUGH)
    judged = ends <= len(records)
    starts, ends = starts[judged], ends[judged]
    empty = seen[ends] - seen[starts] < expected[ends] - expected[starts]
    silent = _covered(starts[empty], ends[empty], len(records))
    # A silence begins and ends with a record; a whole day without one is a silence however few are usual.
    begins, ends = _runs(records == 0)
    touched = np.concatenate([[0], np.cumsum(silent)])
    long = (touched[ends] > touched[begins]) | (ends - begins >= _DAY_MINUTES)
    return silent | _covered(begins[long], ends[long], len(records))


def _runs(true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first index of each run of True and the one after its last."""
    edges = np.diff(np.concatenate([[False], true, [False]]).astype(np.int8))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _covered(starts: np.ndarray, ends: np.ndarray, n: int) -> np.ndarray:
    """Say which of n places lie in any of the ranges [start, end)."""
    steps = np.zeros(n + 1, np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return np.cumsum(steps[:-1]) > 0
