"""A simulated taxi fleet that writes GPS records in the Cabspotting layout, for a demo without any download.

The layout of a city, its districts and streets, follows from its box alone. The seed decides what differs
from one realisation to the next: who drives when and where to, and how each day departs from the usual one.
There are tides between homes and work, other weekends, party nights, one match in a stadium, taxis that leave
the box, repeated records and an outage of the whole feed: whatever an ingest and a forecast must cope with.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa
from pyarrow import csv

from trafficcast.city import City
from trafficcast.errors import InputError

DEFAULT_FIRST_DAY = np.datetime64("2024-04-08")  # a Monday, after the clock changes of spring
HOUR_S = 3600
STEP_MINUTES = 15  # demand and speed change in steps
STREET_M = 250.0  # distance between parallel streets
METRES_PER_DEGREE = 111_195.0  # of latitude
REPORT_S, REPORT_JITTER_S = 60.0, 15.0
SPEED_DEVIATION = 0.15  # of the logarithm, from one drive to the next
GPS_NOISE_M = 8.0  # standard deviation along each axis
MIN_SPEED_KMH, MAX_SPEED_KMH = 15.0, 45.0
SPEED_KMH = ((0, 5, 8, 11, 14, 18, 21, 24), (36, 40, 22, 28, 29, 21, 31, 36))  # local hour, mean speed
WAIT_MINUTES = 7.0  # between two passengers at average demand
MIN_DEMAND = 0.3  # of the average; below it waits get no longer
WOBBLE_HOURS = 6  # how long a departure from the usual day lasts
DUPLICATE_SHARE = 0.001
OUTAGE_HOURS = (14 + 1 / 6, 16 + 1 / 6)  # local; neither end is a slot edge, so that slots are cut as well
MIN_DAYS_WITH_OUTAGE = 7  # so that the middle day is none of the last three
MATCH_DAYS_BEFORE_END = 5
COMPRESSION_LEVEL = 3

# Where people go: how many districts, how far from the middle, how wide (both as a share of the box's sides).
HOME, WORK, CENTRE, BARS, STATION, STADIUM, AIRPORT, ANYWHERE = range(8)
DISTRICTS = {
    HOME: (9, 0.36, 0.060),
    WORK: (3, 0.20, 0.045),
    CENTRE: (1, 0.03, 0.090),
    BARS: (2, 0.15, 0.030),
    STATION: (1, 0.13, 0.010),
    STADIUM: (1, 0.40, 0.012),
    AIRPORT: (1, 0.62, 0.010),  # beyond the box, so that taxis leave it and come back
    ANYWHERE: (1, 0.00, 0.220),
}
DISTRICTS_AT_HOME = DISTRICTS[HOME][0]  # they come first

# Why people ride: from, to, then waves of (days, local hour of the peak, half width in hours, strength). An
# hour above 24 belongs to the night that follows the day.
WEEK, WORKDAYS, SATURDAY, SUNDAY, WEEKEND = range(7), range(5), (5,), (6,), (5, 6)
PARTY_NIGHTS = (4, 5)
Wave = tuple[range | tuple[int, ...], float, float, float]
RIDES: tuple[tuple[int, int, tuple[Wave, ...]], ...] = (
    (HOME, WORK, ((WORKDAYS, 8.2, 1.1, 11.0), (SATURDAY, 9.5, 1.5, 1.5))),
    (WORK, HOME, ((WORKDAYS, 18.2, 1.4, 10.0), (SATURDAY, 14.0, 1.5, 1.5))),
    (WORK, CENTRE, ((WORKDAYS, 12.5, 2.0, 1.8),)),
    (CENTRE, WORK, ((WORKDAYS, 14.2, 2.0, 1.8),)),
    (HOME, CENTRE, ((WORKDAYS, 10.5, 2.5, 2.0), (SATURDAY, 14.5, 2.5, 6.0), (SUNDAY, 15.5, 2.5, 4.0))),
    (CENTRE, HOME, ((WORKDAYS, 17.5, 2.5, 2.5), (SATURDAY, 18.5, 2.0, 6.0), (SUNDAY, 18.5, 2.5, 4.0))),
    (HOME, BARS, ((WEEK, 20.2, 1.3, 2.5), (PARTY_NIGHTS, 21.5, 1.6, 9.0))),
    (BARS, HOME, ((WEEK, 23.3, 1.5, 2.0), (PARTY_NIGHTS, 26.0, 1.7, 10.0))),
    (HOME, STATION, ((WORKDAYS, 7.0, 1.2, 2.0), (WEEKEND, 9.5, 2.0, 1.5))),
    (STATION, WORK, ((WORKDAYS, 9.0, 1.5, 2.5),)),
    (WORK, STATION, ((WORKDAYS, 17.0, 1.5, 2.5),)),
    (STATION, HOME, ((WEEK, 19.5, 2.5, 1.0), (SUNDAY, 20.5, 2.0, 3.0))),
    (HOME, AIRPORT, ((WEEK, 6.5, 2.0, 0.5),)),
    (AIRPORT, CENTRE, ((WEEK, 13.0, 5.0, 0.3),)),
    (ANYWHERE, ANYWHERE, ((WEEK, 4.0, 12.0, 0.4), (WEEK, 14.0, 5.0, 2.0))),
)
# On the evening of the match alone: from, to, local hour of the peak, half width in hours, strength.
MATCH_RIDES = ((HOME, STADIUM, 19.8, 0.7, 9.0), (STADIUM, HOME, 22.6, 0.6, 12.0))

# Shifts: local start, hours, chance to drive it on (Monday to Thursday, Friday, Saturday, Sunday). Taxi k
# keeps to shift k modulo their number; the first three cover the day, for small fleets' sake.
SHIFTS = (
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
class SimulationSummary:
    """What was written: records, the repeated ones among them, files; the period [start, end), naive UTC."""

    points: int
    duplicates: int
    files: int
    start: np.datetime64
    end: np.datetime64


class _World(NamedTuple):
    """What all taxis share. Seconds count from the first midnight, metres from the box's south-west."""

    start_s: int  # the first midnight, unix time
    midnights: np.ndarray  # (days + 2): from the day before the period to the end of its last day
    weekdays: np.ndarray  # (days + 1): Monday is 0
    outage: tuple[float, float]  # no taxi is heard from the first to before the second
    metres_per_degree: tuple[float, float]  # of longitude, of latitude
    districts: np.ndarray  # (district, 3): x, y, spread
    rides: np.ndarray  # (ride, 2): kind of the origin, kind of the destination
    ride_odds: np.ndarray  # (step, ride), cumulative
    district_odds: np.ndarray  # (step, kind, district), cumulative
    wait_s: np.ndarray  # (step), mean
    speed_ms: np.ndarray  # (step), mean


def simulate(
    city: City,
    out: Path,
    vehicles: int = 400,
    days: int = 21,
    seed: int = 0,
    start: np.datetime64 | None = None,
    progress: Callable[[float], None] | None = None,
) -> SimulationSummary:
    """Write `days` local days of a taxi fleet's GPS records to the folder `out`, one gzipped file a taxi.

    The period begins at the local midnight of the day that holds `start` (naive UTC), by default Monday
    2024-04-08. Lines read `lat lon occupied unix_seconds` (degrees, 0/1), oldest first, about one a minute
    while a taxi is on shift. The same arguments write the same bytes. `progress` is told the share that is
    done, 0 to 1. `out` appears only when it is complete; raises InputError when it holds anything already.
    """
    for name, value, least in (("vehicles", vehicles, 1), ("days", days, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} is {value}: a simulation needs at least {least}")
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder: remove it or name another folder")
    first_day = DEFAULT_FIRST_DAY if start is None else city.local_days(np.array([start]))[0]
    common_seed, *taxi_seeds = np.random.SeedSequence(seed).spawn(1 + vehicles)
    world = _world(city, first_day, days, np.random.default_rng(common_seed))

    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)

    def write_taxi(taxi: int) -> tuple[int, int]:
        lines, points, duplicates = _taxi(city, world, taxi, np.random.default_rng(taxi_seeds[taxi]))
        if points:
            packed = gzip.compress(lines, COMPRESSION_LEVEL, mtime=0)
            (temporary / f"new_s{seed}t{taxi:04d}.txt.gz").write_bytes(packed)
        return points, duplicates

    try:
        counts = np.zeros((vehicles, 2), np.int64)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the kernels and zlib release the GIL
            for taxi, count in enumerate(pool.map(write_taxi, range(vehicles))):
                counts[taxi] = count
                if progress is not None:
                    progress((taxi + 1) / vehicles)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    begin = np.datetime64(world.start_s, "s").astype("datetime64[us]")
    return SimulationSummary(
        points=int(counts[:, 0].sum()),
        duplicates=int(counts[:, 1].sum()),
        files=int(np.count_nonzero(counts[:, 0])),
        start=begin,
        end=begin + np.timedelta64(int(world.midnights[-1]), "s"),
    )


def _world(city: City, first_day: np.datetime64, days: int, rng: np.random.Generator) -> _World:
    """The city, its usual week and how each day of this realisation departs from it."""
    dates = first_day + np.arange(-1, days + 1)
    unix_s = np.array([city.midnight(date) for date in dates], "datetime64[s]").astype(np.int64)
    midnights = unix_s - unix_s[1]
    steps = np.arange(-(-int(midnights[-1]) // (STEP_MINUTES * 60)))
    local = city.local((unix_s[1] + steps * STEP_MINUTES * 60).astype("datetime64[s]"))
    hour = np.asarray(local.hour + local.minute / 60)
    day_of_week = np.asarray(local.day_of_week)
    match_day = local.tz_localize(None).normalize() == first_day + max(0, days - MATCH_DAYS_BEFORE_END)

    parallel = float(np.cos(np.radians((city.south + city.north) / 2)))
    metres_per_degree = (METRES_PER_DEGREE * parallel, METRES_PER_DEGREE)
    kinds, districts = _layout(city, metres_per_degree)
    rides = [(origin, target) for origin, target, _ in RIDES] + [ride[:2] for ride in MATCH_RIDES]
    hour_of_week = 24 * day_of_week + hour + _wobble(rng, len(steps), 1, 0.2)[:, 0]  # early and late days
    usual = [_usual(hour_of_week, waves) for _, _, waves in RIDES]
    match = [match_day * weight * _bell(hour - peak, width) for _, _, peak, width, weight in MATCH_RIDES]
    demand = np.stack(usual + match, axis=1) * np.exp(_wobble(rng, len(steps), len(rides), 0.25))
    popularity = np.exp(_wobble(rng, len(steps), len(kinds), 0.3))
    of_kind = kinds == np.arange(len(DISTRICTS))[:, None]  # (kind, district)
    speed = np.interp(hour, *SPEED_KMH) * np.where(day_of_week >= 5, 1.12, 1.0)
    total = demand.sum(axis=1)
    outage_day = float(midnights[1 + days // 2]) if days >= MIN_DAYS_WITH_OUTAGE else -np.inf
    return _World(
        start_s=int(unix_s[1]),
        midnights=midnights,
        weekdays=(dates[:-1].astype(np.int64) + 3) % 7,  # unix day 0 was a Thursday
        outage=(outage_day + OUTAGE_HOURS[0] * HOUR_S, outage_day + OUTAGE_HOURS[1] * HOUR_S),
        metres_per_degree=metres_per_degree,
        districts=districts,
        rides=np.array(rides),
        ride_odds=_cumulative(demand),
        district_odds=_cumulative(popularity[:, None, :] * of_kind),
        wait_s=60 * WAIT_MINUTES / np.maximum(total / total.mean(), MIN_DEMAND),
        speed_ms=speed * np.exp(_wobble(rng, len(steps), 1, 0.06)[:, 0]) / 3.6,
    )


def _layout(city: City, metres_per_degree: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A box's districts, whatever the seed: kinds, (district); x, y, spread in metres, (district, 3)."""
    edges = (city.west, city.east, city.south, city.north)
    rng = np.random.default_rng([round((edge + 360) * 1e6) for edge in edges])
    kinds, places = [], []
    for kind, (count, distance, spread) in DISTRICTS.items():
        angle = 2 * np.pi * (rng.random() + np.arange(count) / count) + rng.normal(0, 0.15, count)
        radius = distance * rng.uniform(0.85, 1.1, count)
        if kind == AIRPORT:  # due east or west of the middle, where a box is sure to end
            angle, radius = np.pi * np.round(angle / np.pi), np.full(count, distance)
        x, y = 0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)
        places.append(np.stack([x, y, np.full(count, spread)]))
        kinds.append(np.full(count, kind))
    x, y, spread = np.concatenate(places, axis=1)
    width = (city.east - city.west) * metres_per_degree[0]
    height = (city.north - city.south) * metres_per_degree[1]
    return np.concatenate(kinds), np.stack([x * width, y * height, spread * min(width, height)], axis=1)


def _usual(hour_of_week: np.ndarray, waves: tuple[Wave, ...]) -> np.ndarray:
    """Demand of one kind of ride in a usual week, (step); the week is a circle."""
    demand = np.zeros(len(hour_of_week))
    for days, peak, width, strength in waves:
        for day in days:
            demand += strength * _bell((hour_of_week - 24 * day - peak + 84) % 168 - 84, width)
    return demand


def _bell(hours_off: np.ndarray, width: float) -> np.ndarray:
    """1 at the peak, falling to 0.6 at the half width."""
    bell: np.ndarray = np.exp(-0.5 * (hours_off / width) ** 2)
    return bell


def _wobble(rng: np.random.Generator, steps: int, columns: int, deviation: float) -> np.ndarray:
    """Smooth noise about 0, (step, column)."""
    steps_per_knot = WOBBLE_HOURS * 60 // STEP_MINUTES
    knots = rng.normal(0, deviation, (steps // steps_per_knot + 2, columns))
    at = np.arange(steps) / steps_per_knot
    return np.stack([np.interp(at, np.arange(len(knots)), column) for column in knots.T], axis=1)


def _cumulative(weights: np.ndarray) -> np.ndarray:
    """Weights along the last axis -> cumulative odds that end at exactly 1."""
    total: np.ndarray = np.cumsum(weights, axis=-1)
    total /= total[..., -1:].copy()
    return total


def _taxi(city: City, world: _World, taxi: int, rng: np.random.Generator) -> tuple[bytes, int, int]:
    """One taxi's file: its lines, how many, and how many of them repeat a timestamp."""
    shifts = _shifts(world, taxi, rng)
    x, y, occupied, seconds = _drive(rng, shifts, world).T
    silent = (seconds >= world.outage[0]) & (seconds < world.outage[1])
    heard = np.flatnonzero(~silent)
    repeated = rng.random(len(heard)) < DUPLICATE_SHARE
    index = np.repeat(heard, 1 + repeated)
    metres_x, metres_y = world.metres_per_degree
    lat = np.round((city.south + y[index] / metres_y) * 1e5).astype(np.int64)  # in units of the last decimal
    lon = np.round((city.west + x[index] / metres_x) * 1e5).astype(np.int64)
    second_of_two = np.flatnonzero(np.diff(index, prepend=-1) == 0)
    moved = second_of_two[rng.random(len(second_of_two)) < 0.5]  # the others are exact repetitions
    lat[moved] += rng.choice([-2, -1, 1, 2], len(moved))
    unix_s = seconds[index].astype(np.int64) + world.start_s
    columns = [_decimals(lat), _decimals(lon), pa.array(occupied[index].astype(np.int8)), pa.array(unix_s)]
    lines = io.BytesIO()
    layout = csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
    csv.write_csv(pa.table(columns, ["lat", "lon", "occupied", "unix_s"]), lines, layout)
    return lines.getvalue(), len(index), len(second_of_two)


def _decimals(values: np.ndarray) -> pa.Array:
    """Integers in units of 0.00001 -> decimal numbers, which Arrow keeps as 128 bits, low word first."""
    words = np.stack([values, values >> 63], axis=1).astype("<i8")
    return pa.Array.from_buffers(pa.decimal128(9, 5), len(values), [None, pa.py_buffer(words)])


def _shifts(world: _World, taxi: int, rng: np.random.Generator) -> np.ndarray:
    """When one taxi drives, (shift, 2): start and end within the period, in order, an hour apart at least."""
    begin, hours, chances = SHIFTS[taxi % len(SHIFTS)]
    by_weekday = np.repeat(chances, (4, 1, 1, 1))
    habit = rng.normal(0, 0.4)
    shifts: list[tuple[float, float]] = []
    free_from = -np.inf
    for midnight, weekday in zip(world.midnights[:-1], world.weekdays, strict=True):
        works = rng.random() < by_weekday[weekday]
        start = max(midnight + HOUR_S * (begin + habit + rng.normal(0, 0.3)), free_from)
        end = start + HOUR_S * (hours + rng.normal(0, 0.4))
        if works:
            shifts.append((max(start, 0), min(end, world.midnights[-1])))
            free_from = end + HOUR_S
    return np.array([(start, end) for start, end in shifts if start < end]).reshape(-1, 2)


@numba.njit(cache=True, nogil=True)
def _drive(rng, shifts, world):  # type: ignore[no-untyped-def]
    """One taxi's reports, (n, 4): x, y (metres), occupied (0/1), whole seconds.

    A shift repeats three legs: wait, drive to the next passenger, drive the passenger to the destination.
    """
    most = int(np.sum(shifts[:, 1] - shifts[:, 0]) / (REPORT_S - REPORT_JITTER_S)) + len(shifts)
    reports = np.empty((most, 4))
    n = 0
    for clock, end in shifts:
        due = clock + REPORT_S * rng.random()
        x, y = _address(rng, world.districts[rng.integers(0, DISTRICTS_AT_HOME)])
        leg = 0
        while clock < end:
            step = int(clock / (60 * STEP_MINUTES))
            if leg == 0:
                ride = _draw(rng, world.ride_odds[step])
                goal_x, goal_y, speed = x, y, 0.0
                duration = rng.exponential(world.wait_s[step])
            else:
                kind = world.rides[ride, leg - 1]
                goal_x, goal_y = _address(rng, world.districts[_draw(rng, world.district_odds[step, kind])])
                speed = world.speed_ms[step] * np.exp(rng.normal(0.0, SPEED_DEVIATION))
                speed = min(max(speed, MIN_SPEED_KMH / 3.6), MAX_SPEED_KMH / 3.6)
                duration = (abs(goal_x - x) + abs(goal_y - y)) / speed
            east_west_first = rng.random() < 0.5
            noise_x, noise_y = rng.normal(0.0, GPS_NOISE_M), rng.normal(0.0, GPS_NOISE_M)
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
                n += 1
                due += REPORT_S + rng.uniform(-REPORT_JITTER_S, REPORT_JITTER_S)
                if speed > 0:  # a receiver at rest keeps its fix: no hopping to and fro at a cell's edge
                    noise_x, noise_y = rng.normal(0.0, GPS_NOISE_M), rng.normal(0.0, GPS_NOISE_M)
            clock, x, y = clock + duration, goal_x, goal_y
            leg = (leg + 1) % 3
    return reports[:n]


@numba.njit(cache=True, nogil=True)
def _draw(rng, odds):  # type: ignore[no-untyped-def]
    """An index drawn by cumulative odds."""
    return np.searchsorted(odds, rng.random(), side="right")


@numba.njit(cache=True, nogil=True)
def _address(rng, district):  # type: ignore[no-untyped-def]
    """A crossing of two streets in or near a district: x, y in metres."""
    x, y = rng.normal(district[0], district[2]), rng.normal(district[1], district[2])
    return (np.floor(x / STREET_M) + 0.5) * STREET_M, (np.floor(y / STREET_M) + 0.5) * STREET_M
