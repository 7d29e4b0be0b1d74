"""A simulated taxi fleet that writes GPS records and the true flows beside them, for a demo without any download.

The layout of a city, its districts and streets, follows from its box alone. The seed decides what differs
from one realisation to the next: who drives when and where to, and how each day departs from the usual one.
There are tides between homes and work, other weekends, party nights, one match in a stadium, taxis that leave
the box, repeated records and an outage of the whole feed: whatever an ingest and a forecast must cope with.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from trafficcast.city import City
from trafficcast.errors import InputError
from trafficcast.simulated_city import World
from trafficcast.simulated_files import (
    FILES_OF_DAYS,
    FILES_OF_TRIPS,
    FORMATS,
    PORTO_INTERVAL_S,
    TRIP_HEADERS,
    as_read,
    porto_lines,
    tlc_lines,
    write_day,
    write_taxi,
)
from trafficcast.simulated_flows import TrueFlows
from trafficcast.simulated_taxis import DUPLICATE_SHARE, Reports, Taxis, rides, with_repeats

DEFAULT_FIRST_DAY = np.datetime64("2024-04-08")  # a Monday, after the clock changes of spring
REPORT_S, REPORT_JITTER_S = 60.0, 15.0
TAXIS_AT_A_TIME = 250  # of one day: about 150,000 reports
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Match:
    """The event: people go to the stadium on this local day, most of them at eight and back at half past ten."""

    day: np.datetime64
    lon: float
    lat: float


@dataclass(frozen=True)
class SimulationSummary:
    """What was written: records (points or trips), the repeated ones among them, files; times are naive UTC.

    The period is [start, end); `outage` is when no taxi was heard, if there was one; `truth` is the file of the true
    flows, which lies beside the folder of the records.
    """

    points: int
    duplicates: int
    files: int
    start: np.datetime64
    end: np.datetime64
    outage: tuple[np.datetime64, np.datetime64] | None
    match: Match
    truth: Path


def simulate(
    city: City,
    out: Path,
    vehicles: int = 400,
    days: int = 21,
    seed: int = 0,
    start: np.datetime64 | None = None,
    progress: Progress | None = None,
    file_format: str = "cabspotting",
) -> SimulationSummary:
    """Write `days` local days of a taxi fleet's records to the folder `out`, and their true flows to `out`.truth.nc.

    The period begins at the local midnight of the day that holds `start` (naive UTC), by default Monday
    2024-04-08. A taxi reports about once a minute while on shift. The same arguments write the same bytes, and the
    reports are the same in all formats of points but for the repeated ones; those of porto are 15 s apart, another
    realisation. The true flows are what ingesting the files into `city` must give. `progress` is told the share
    that is done, 0 to 1. `out` appears only when it is complete; raises InputError when it holds anything already.

    Memory: of parquet and csv one day's reports, else those of a few taxis; and the grids of the whole period.
    """
    for name, value, least in (("vehicles", vehicles, 1), ("days", days, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} is {value}: a simulation needs at least {least}")
    if file_format not in FORMATS:
        raise InputError(f"'{file_format}' is no format of simulated records: choose one of {', '.join(FORMATS)}")
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder: remove it or name another folder")
    first_day = DEFAULT_FIRST_DAY if start is None else city.local_days(np.array([start]))[0]
    interval = (float(PORTO_INTERVAL_S), 0.0) if file_format == "porto" else (REPORT_S, REPORT_JITTER_S)
    taxis = Taxis(city, vehicles, first_day, days, seed, *interval)
    world = taxis.world
    truth = TrueFlows(city, world.start_s, world.start_s + int(world.midnights[-1]), vehicles)
    truth_file = out.with_name(f"{out.name}.truth.nc")

    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the kernels and the writing release the GIL
            if file_format in FILES_OF_DAYS:
                counts = _write_days(file_format, temporary, taxis, first_day, truth, pool, progress)
            elif file_format in FILES_OF_TRIPS:
                counts = _write_trips(file_format, temporary, taxis, truth, pool, progress)
            else:
                counts = _write_taxis(file_format, temporary, taxis, truth, pool, progress)
        files = len(list(temporary.iterdir()))
        truth.write(truth_file)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return SimulationSummary(
        points=counts[0],
        duplicates=counts[1],
        files=files,
        start=_instant(world, 0),
        end=_instant(world, world.midnights[-1]),
        outage=(_instant(world, world.outage[0]), _instant(world, world.outage[1])) if world.outage[1] > 0 else None,
        match=_match(city, world),
        truth=truth_file,
    )


def _write_taxis(
    file_format: str, folder: Path, taxis: Taxis, truth: TrueFlows, pool: ThreadPoolExecutor, progress: Progress | None
) -> tuple[int, int]:
    """A file a taxi. Returns how many records were written and how many of them are repeats."""
    city = taxis.city
    zone = _clock(city)

    def write(taxi: int) -> tuple[Reports, int]:
        reports, repeats = with_repeats(taxis.whole(taxi), taxis.rngs[taxi])
        if len(reports):
            write_taxi(file_format, folder, _name(taxis, taxi), reports, zone)
        if file_format == "tdrive":  # whose times have no offset, and whose readers cannot know the occupancy
            unknown = np.zeros_like(reports.occupied)
            reports = replace(reports, seconds=as_read(reports.seconds, zone), occupied=unknown)
        return reports, repeats

    points = duplicates = 0
    for taxi, (reports, repeats) in enumerate(pool.map(write, range(len(taxis)))):
        truth.add_points(reports)
        points, duplicates = points + len(reports), duplicates + repeats
        if progress is not None:
            progress((taxi + 1) / len(taxis))
    return points, duplicates


def _write_days(
    file_format: str,
    folder: Path,
    taxis: Taxis,
    first_day: np.datetime64,
    truth: TrueFlows,
    pool: ThreadPoolExecutor,
    progress: Progress | None,
) -> tuple[int, int]:
    """A file a local day. Returns how many records were written and how many of them are repeats."""
    names = pa.array([_name(taxis, taxi) for taxi in range(len(taxis))])
    groups = [range(begin, min(begin + TAXIS_AT_A_TIME, len(taxis))) for begin in range(0, len(taxis), TAXIS_AT_A_TIME)]
    ends = taxis.world.midnights[2:] + taxis.world.start_s
    points = duplicates = 0
    night: list[Reports] = []  # of shifts that last beyond midnight
    writing: Future[None] | None = None
    for day, end in enumerate(ends.tolist()):

        def drive(group: int, day: int = day) -> tuple[Reports, int]:
            stream = np.random.SeedSequence(taxis.seed, spawn_key=(0, day, group))  # none that a taxi draws from
            return with_repeats(taxis.of_day(day, groups[group]), np.random.default_rng(stream))

        parts, night = night, []
        for group, (reports, repeats) in enumerate(pool.map(drive, range(len(groups)))):
            truth.add_points(reports)
            parts.append(reports)
            points, duplicates = points + len(reports), duplicates + repeats
            if progress is not None:
                progress((day + (group + 1) / len(groups)) / len(ends))
        everything = Reports.concatenate(parts)
        parts.clear()
        today = everything.seconds < end
        night = [everything.take(~today)]
        if writing is not None:
            writing.result()
        if today.any():
            date = str(first_day + day)
            writing = pool.submit(write_day, file_format, folder, date, everything.take(today), names, taxis.city.zone)
    if writing is not None:
        writing.result()
    return points, duplicates


def _write_trips(
    file_format: str, folder: Path, taxis: Taxis, truth: TrueFlows, pool: ThreadPoolExecutor, progress: Progress | None
) -> tuple[int, int]:
    """One file of rides with a passenger. Returns how many were written and how many of them are repeats."""
    city = taxis.city
    zone = _clock(city)

    def lines(taxi: int) -> tuple[bytes, int, int, Reports, Reports, Reports]:
        reports = taxis.whole(taxi)
        first, last = rides(reports)
        again = taxis.rngs[taxi].random(len(first)) < DUPLICATE_SHARE
        twice = np.repeat(np.arange(len(first)), 1 + again)
        if file_format == "porto":
            text = porto_lines(reports, first[twice], last[twice])
            sampled = reports.take(np.concatenate([np.arange(0), *map(np.arange, first, last + 1)]))
        else:
            text = tlc_lines(reports.take(first[twice]), reports.take(last[twice]), zone)
            reports = sampled = replace(reports, seconds=as_read(reports.seconds, zone))
        return text, len(twice), int(again.sum()), reports.take(first), reports.take(last), sampled

    trips = duplicates = 0
    with open(folder / FILES_OF_TRIPS[file_format], "wb") as file:
        file.write(TRIP_HEADERS[file_format])
        for taxi, (text, written, repeats, pickups, dropoffs, sampled) in enumerate(pool.map(lines, range(len(taxis)))):
            file.write(text)
            if file_format == "porto" and not city.feed.trips:
                truth.add_points(sampled)
            else:
                truth.add_trips(pickups, dropoffs)
            trips, duplicates = trips + written, duplicates + repeats
            if progress is not None:
                progress((taxi + 1) / len(taxis))
    return trips, duplicates


def _name(taxis: Taxis, taxi: int) -> str:
    return f"s{taxis.seed}t{taxi:04d}"


def _clock(city: City) -> ZoneInfo:
    """The zone of times without an offset."""
    return ZoneInfo(city.feed.timezone or city.timezone)


def _instant(world: World, seconds: float) -> np.datetime64:
    """Seconds since the first midnight -> naive UTC."""
    return np.datetime64(world.start_s + round(seconds), "s").astype("datetime64[us]")


def _match(city: City, world: World) -> Match:
    midnight, x, y = world.match
    metres_x, metres_y = world.metres_per_degree
    return Match(
        day=city.local_days(np.array([_instant(world, midnight)]))[0],
        lon=city.west + x / metres_x,
        lat=city.south + y / metres_y,
    )
