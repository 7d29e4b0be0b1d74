"""The simulated taxis: their shifts, their drives along the streets, and their reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numba
import numpy as np

from trafficcast.config.city import City
from trafficcast.simulator.city_plan import _DISTRICTS_AT_HOME, _HOUR_S, _STEP_MINUTES, _make_world, _World

_STREET_M = 250.0  # distance between parallel streets
_SPEED_DEVIATION = 0.15  # of the logarithm, from one drive to the next
_GPS_NOISE_M = 8.0  # standard deviation along each axis
_MIN_SPEED_KMH, _MAX_SPEED_KMH = 15.0, 45.0
_DUPLICATE_SHARE = 0.001
_DEGREE = 100_000  # positions are written with five decimals

# Shifts: local start, hours, chance to drive it on (Monday to Thursday, Friday, Saturday, Sunday). Taxi k
# keeps to shift k modulo their number; the first three cover the day, so that a few taxis do too.
_SHIFTS = (
    (6.5, 9.5, (0.92, 0.92, 0.60, 0.45)),
    (20.5, 10.5, (0.90, 0.95, 0.95, 0.90)),
    (15.5, 9.5, (0.92, 0.95, 0.92, 0.80)),
    (5.5, 9.5, (0.90, 0.90, 0.55, 0.40)),
    (16.0, 10.0, (0.92, 0.95, 0.95, 0.80)),
    (7.0, 10.0, (0.92, 0.92, 0.75, 0.55)),
    (11.5, 10.0, (0.88, 0.90, 0.92, 0.85)),
    (19.0, 10.0, (0.25, 0.95, 0.97, 0.25)),
    (7.0, 12.5, (0.92, 0.92, 0.65, 0.50)),
    (7.5, 11.0, (0.90, 0.90, 0.85, 0.75)),
)


@dataclass(frozen=True)
class _Reports:
    """GPS reports as they are written, positions in units of the last decimal: whole numbers of 0.00001 degrees."""

    taxi: np.ndarray  # int32
    seconds: np.ndarray  # int64, unix time
    lon: np.ndarray  # int32
    lat: np.ndarray  # int32
    occupied: np.ndarray  # int8, 0 or 1
    leg: np.ndarray  # int32, another number for each drive or wait of a taxi, and for what an outage leaves of one

    def __len__(self) -> int:
        return len(self.seconds)

    def take(self, index: np.ndarray) -> Self:
        """Return the reports at these positions, or where a mask is true."""
        return type(self)(**{name: array[index] for name, array in vars(self).items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Concatenate one or more sets of reports."""
        return cls(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


class _Taxis:
    """The taxis of a city; each draws from a random stream of its own, whatever the order in which they drive.

    A taxi reports each `every_s` seconds, give or take up to `jitter_s`. Drive it either for the whole period or day
    after day.
    """

    def __init__(
        self, city: City, vehicles: int, first_day: np.datetime64, days: int, seed: int, every_s: float, jitter_s: float
    ) -> None:
        common_seed, *taxi_seeds = np.random.SeedSequence(seed).spawn(1 + vehicles)
        self.city = city
        self.seed = seed
        self.first_day = first_day
        self.interval = (every_s, jitter_s)
        self.world = _make_world(city, first_day, days, np.random.default_rng(common_seed))
        self.rngs = [np.random.default_rng(taxi_seed) for taxi_seed in taxi_seeds]
        self.shifts = [_shifts(self.world, taxi, rng) for taxi, rng in enumerate(self.rngs)]

    def __len__(self) -> int:
        return len(self.rngs)

    def reports_of(self, taxi: int) -> _Reports:
        """Return all reports of one taxi, in the order of time."""
        return self._drive([taxi], -np.inf, np.inf)

    def reports_of_day(self, day: int, taxis: Sequence[int]) -> _Reports:
        """Return the reports of the shifts that begin on a day (from 0), taxi by taxi in the order of time."""
        return self._drive(taxis, *self.world.midnights[1 + day : 3 + day])

    def _drive(self, taxis: Sequence[int], start: float, end: float) -> _Reports:
        """Return the reports of the shifts that begin in [start, end), except those that the outage swallows."""
        drives = []
        for taxi in taxis:
            shifts = self.shifts[taxi]
            begins = shifts[:, 0]
            drives.append(
                _drive(self.rngs[taxi], shifts[(begins >= start) & (begins < end)], self.world, *self.interval)
            )
        numbers = np.repeat(np.array(taxis, np.int32), [len(drive) for drive in drives])
        x, y, occupied, seconds, leg = np.concatenate(drives).T
        outage_start, outage_end = self.world.outage
        sent = np.flatnonzero(~((seconds >= outage_start) & (seconds < outage_end)))
        metres_x, metres_y = self.world.metres_per_degree
        return _Reports(
            taxi=numbers[sent],
            seconds=seconds[sent].astype(np.int64) + self.world.start_s,
            lon=np.round((self.city.west + x[sent] / metres_x) * _DEGREE).astype(np.int32),
            lat=np.round((self.city.south + y[sent] / metres_y) * _DEGREE).astype(np.int32),
            occupied=occupied[sent].astype(np.int8),
            leg=(2 * leg[sent] + (seconds[sent] >= outage_end)).astype(np.int32),
        )


def _with_repeats(reports: _Reports, rng: np.random.Generator) -> tuple[_Reports, int]:
    """Repeat some reports, half of the repeats a little displaced; return all reports, and the number of repeats."""
    repeated = rng.random(len(reports)) < _DUPLICATE_SHARE
    all_reports = reports.take(np.repeat(np.arange(len(reports)), 1 + repeated))
    second_of_two = np.flatnonzero(repeated) + np.arange(1, 1 + np.count_nonzero(repeated))
    moved = second_of_two[rng.random(len(second_of_two)) < 0.5]  # the others are exact repetitions
    all_reports.lat[moved] += rng.choice([-2, -1, 1, 2], len(moved))
    return all_reports, len(second_of_two)


def _rides(reports: _Reports) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last report of each of one taxi's rides with a passenger, (ride) each.

    A ride of a single report does not count.
    """
    occupied = reports.occupied == 1
    first = np.flatnonzero(occupied & (np.diff(reports.leg, prepend=-1) != 0))
    last = np.flatnonzero(occupied & (np.diff(reports.leg, append=-1) != 0))
    return first[last > first], last[last > first]


def _shifts(world: _World, taxi: int, rng: np.random.Generator) -> np.ndarray:
    """Return when one taxi drives, (shift, 2): start and end within the period, in order, at least an hour apart."""
    begin, hours, chances = _SHIFTS[taxi % len(_SHIFTS)]
    by_weekday = np.repeat(chances, (4, 1, 1, 1))
    habit = rng.normal(0, 0.4)
    shifts: list[tuple[float, float]] = []
    free_from = -np.inf
    for midnight, weekday in zip(world.midnights[:-1], world.weekdays, strict=True):
        works = rng.random() < by_weekday[weekday]
        start = max(midnight + _HOUR_S * (begin + habit + rng.normal(0, 0.3)), free_from)
        end = start + _HOUR_S * (hours + rng.normal(0, 0.4))
        if works:
            shifts.append((max(start, 0), min(end, world.midnights[-1])))
            free_from = end + _HOUR_S
    return np.array([(start, end) for start, end in shifts if start < end]).reshape(-1, 2)


@numba.njit(cache=True, nogil=True)
def _drive(rng, shifts, world, every_s, jitter_s):  # type: ignore[no-untyped-def]
    """Return one taxi's reports, (report, 5): x, y (metres), occupied (0/1), whole seconds, number of the leg.

    A shift repeats three legs: wait, drive to the next passenger, drive the passenger to the destination.
    """
    most = int(np.sum(shifts[:, 1] - shifts[:, 0]) / (every_s - jitter_s)) + len(shifts)
    reports = np.empty((most, 5))
    n, legs = 0, 0
    for clock, end in shifts:
        due = clock + every_s * rng.random()
        x, y = _address(rng, world.districts[rng.integers(0, _DISTRICTS_AT_HOME)])
        leg = 0
        while clock < end:
            step = int(clock / (60 * _STEP_MINUTES))
            if leg == 0:
                ride = _draw(rng, world.ride_odds[step])
                goal_x, goal_y, speed = x, y, 0.0
                duration = rng.exponential(world.wait_s[step])
            else:
                kind = world.rides[ride, leg - 1]
                goal_x, goal_y = _address(rng, world.districts[_draw(rng, world.district_odds[step, kind])])
                speed = world.speed_ms[step] * np.exp(rng.normal(0.0, _SPEED_DEVIATION))
                speed = min(max(speed, _MIN_SPEED_KMH / 3.6), _MAX_SPEED_KMH / 3.6)
                duration = (abs(goal_x - x) + abs(goal_y - y)) / speed
            east_west_first = rng.random() < 0.5
            noise_x, noise_y = rng.normal(0.0, _GPS_NOISE_M), rng.normal(0.0, _GPS_NOISE_M)
            while due < min(clock + duration, end):
                driven = (due - clock) * speed
                if east_west_first:
                    dx = min(driven, abs(goal_x - x))
                    dy = driven - dx
                else:
                    dy = min(driven, abs(goal_y - y))
                    dx = driven - dy
                reports[n, 0] = x + np.sign(goal_x - x) * dx + noise_x
                reports[n, 1] = y + np.sign(goal_y - y) * dy + noise_y
                reports[n, 2] = leg == 2
                reports[n, 3] = np.floor(due)
                reports[n, 4] = legs
                n += 1
                due += every_s + rng.uniform(-jitter_s, jitter_s)
                if speed > 0:  # a receiver at rest keeps its fix: no hopping to and fro at a cell's edge
                    noise_x, noise_y = rng.normal(0.0, _GPS_NOISE_M), rng.normal(0.0, _GPS_NOISE_M)
            clock, x, y = clock + duration, goal_x, goal_y
            leg = (leg + 1) % 3
            legs += 1
    return reports[:n]


@numba.njit(cache=True, nogil=True)
def _draw(rng, odds):  # type: ignore[no-untyped-def]
    """Draw an index by cumulative odds."""
    return np.searchsorted(odds, rng.random(), side="right")


@numba.njit(cache=True, nogil=True)
def _address(rng, district):  # type: ignore[no-untyped-def]
    """Draw a crossing of two streets in or near a district: x, y in metres."""
    x, y = rng.normal(district[0], district[2]), rng.normal(district[1], district[2])
    return (np.floor(x / _STREET_M) + 0.5) * _STREET_M, (np.floor(y / _STREET_M) + 0.5) * _STREET_M
