"""A simulator of taxis that writes GPS records and their true flows, for a demo without any download.

The layout of a city, its districts and streets, follows from its box alone. The seed decides who drives when and where
to, and how each day varies at random. There are tides between homes and work, other weekends, party nights, a match in
a stadium, taxis that leave the box, repeated records and an outage of the whole feed, so that an ingest and a forecast
meet what they have to cope with.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.simulator.city_plan import _World
from trafficcast.simulator.files import (
    _FILES_OF_DAYS,
    _FILES_OF_TAXIS,
    _FORMATS,
    _PORTO_INTERVAL_S,
    _TRIP_HEADERS,
    FILES_OF_TRIPS,
    _occurs_twice,
    _porto_lines,
    _tlc_lines,
    _write_day,
    _write_taxi,
)
from trafficcast.simulator.taxis import _DUPLICATE_SHARE, _Reports, _rides, _Taxis, _with_repeats
from trafficcast.simulator.true_flows import _TrueFlows

_DEFAULT_FIRST_DAY = np.datetime64("2024-04-08")  # a Monday, after the clock changes of spring
_REPORT_S, _REPORT_JITTER_S = 60.0, 15.0
_TAXIS_AT_A_TIME = 250  # of one day: about 150,000 reports
_Progress = Callable[[float], None]


@dataclass(frozen=True)
class _Match:
    """The event: most people go to the stadium on this local day at eight, and go back at half past ten."""

    day: np.datetime64
    lon: float
    lat: float


@dataclass(frozen=True)
class _SimulationSummary:
    """The numbers of written records (points or trips), repeats and files; the period, outage and match.

    Times are naive UTC; the period is [start, end), and no taxi reports during the outage, if there is one.
    """

    points: int
    duplicates: int
    files: int
    start: np.datetime64
    end: np.datetime64
    outage: tuple[np.datetime64, np.datetime64] | None
    match: _Match


def simulate(
    city: City,
    out: Path,
    vehicles: int = 400,
    days: int = 21,
    seed: int = 0,
    start: np.datetime64 | None = None,
    progress: _Progress | None = None,
    file_format: str = "cabspotting",
) -> _SimulationSummary:
    """Write the records of simulated taxis, and their true flows beside them.

    The same arguments write the same bytes, and the same reports in all formats of points except for repeats; those of
    porto are 15 s apart, another realisation. The true flows are those that an ingest of the files into the city must
    find. The memory needed is that of one day's reports for parquet and csv, of a few taxis' reports for other formats,
    and of the grids of the whole period.

    Parameters
    ----------
    city
        The city in which the taxis drive.
    out
        Folder of the records, which appears only when it is complete; the true flows go to `truth_file(out)`.
    vehicles
        Number of taxis.
    days
        Number of local days.
    seed
        Seed of the random variation.
    start
        Naive UTC time in the first local day; None is Monday 2024-04-08.
    progress
        Function that is called with the share that is done, 0 to 1.
    file_format
        Format of the files: cabspotting, tdrive, parquet, csv, porto or tlc.

    Returns
    -------
    _SimulationSummary
        Numbers of records, repeats and files, the period, outage and match.

    Raises
    ------
    InputError
        A number is too small, the format is unknown, or the folder holds files already.
    """
    for name, value, least in (("vehicles", vehicles, 1), ("days", days, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} is {value}: a simulation needs at least {least}")
    if file_format not in _FORMATS:
        raise InputError(f"'{file_format}' is no format of simulated records: choose one of {', '.join(_FORMATS)}")
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder: remove it or name another folder")
    first_day = _DEFAULT_FIRST_DAY if start is None else city.local_days(np.array([start]))[0]
    interval = (float(_PORTO_INTERVAL_S), 0.0) if file_format == "porto" else (_REPORT_S, _REPORT_JITTER_S)
    taxis = _Taxis(city, vehicles, first_day, days, seed, *interval)
    world = taxis.world
    truth = _TrueFlows(city, world.start_s, world.start_s + int(world.midnights[-1]), vehicles)

    write = _write_taxis if file_format in _FILES_OF_TAXIS else _write_trips
    write = _write_days if file_format in _FILES_OF_DAYS else write

    points = duplicates = 0
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    pool = ThreadPoolExecutor(os.cpu_count())  # driving and writing release the GIL
    try:
        for step in write(file_format, temporary, taxis, truth, pool):
            points, duplicates = points + step.records, duplicates + step.repeats
            if progress is not None:
                progress(step.share)
        files = len(list(temporary.iterdir()))
        truth.write(truth_file(out))
        os.replace(temporary, out)
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(temporary, ignore_errors=True)
    return _SimulationSummary(
        points=points,
        duplicates=duplicates,
        files=files,
        start=_instant(world, 0),
        end=_instant(world, world.midnights[-1]),
        outage=(_instant(world, world.outage[0]), _instant(world, world.outage[1])) if world.outage[1] > 0 else None,
        match=_match(city, world),
    )


def truth_file(out: Path) -> Path:
    """Return the file of the true flows, which lies beside the folder of the records.

    Parameters
    ----------
    out
        Folder of the records.

    Returns
    -------
    Path
        Absolute path of the NetCDF file.
    """
    out = out.absolute()
    return out.with_name(f"{out.name}.truth.nc")


class _Step(NamedTuple):
    """One step: numbers of records and of repeats among them, and the share of all that is done by then."""

    records: int
    repeats: int
    share: float


def _write_taxis(
    file_format: str, folder: Path, taxis: _Taxis, truth: _TrueFlows, pool: ThreadPoolExecutor
) -> Iterator[_Step]:
    """Write a file a taxi."""
    zone = _time_zone(taxis.city)

    def write(taxi: int) -> tuple[_Reports, int]:
        reports, repeats = _with_repeats(taxis.reports_of(taxi), taxis.rngs[taxi])
        if len(reports):
            _write_taxi(file_format, folder, _name(taxis, taxi), reports, zone)
        if file_format == "tdrive":  # its readers cannot know the occupancy
            reports = replace(reports, occupied=np.zeros_like(reports.occupied))
        return reports, repeats

    for taxi, (reports, repeats) in enumerate(pool.map(write, range(len(taxis)))):
        truth.add_points(reports)
        yield _Step(len(reports), repeats, (taxi + 1) / len(taxis))


def _write_days(
    file_format: str, folder: Path, taxis: _Taxis, truth: _TrueFlows, pool: ThreadPoolExecutor
) -> Iterator[_Step]:
    """Write a file a local day, while the taxis drive the next one."""
    names = pa.array([_name(taxis, taxi) for taxi in range(len(taxis))])
    groups = [
        range(begin, min(begin + _TAXIS_AT_A_TIME, len(taxis))) for begin in range(0, len(taxis), _TAXIS_AT_A_TIME)
    ]
    ends = taxis.world.midnights[2:] + taxis.world.start_s
    night: list[_Reports] = []  # reports after midnight of shifts that began before
    writing: list[Future[None]] = []
    for day, end in enumerate(ends.tolist()):

        def drive(group: int, day: int = day) -> tuple[_Reports, int]:
            stream = np.random.SeedSequence(taxis.seed, spawn_key=(0, day, group))  # no taxi draws from it
            return _with_repeats(taxis.reports_of_day(day, groups[group]), np.random.default_rng(stream))

        parts = night
        for group, (reports, repeats) in enumerate(pool.map(drive, range(len(groups)))):
            truth.add_points(reports)
            parts.append(reports)
            yield _Step(len(reports), repeats, (day + (group + 1) / len(groups)) / len(ends))
        reports = _Reports.concatenate(parts)
        night, today = [reports.take(reports.seconds >= end)], reports.take(reports.seconds < end)
        del parts, reports
        while writing:
            writing.pop().result()
        if len(today):
            date = str(taxis.first_day + day)
            writing = [pool.submit(_write_day, file_format, folder, date, today, names, taxis.city.zone)]
    for written in writing:
        written.result()


def _write_trips(
    file_format: str, folder: Path, taxis: _Taxis, truth: _TrueFlows, pool: ThreadPoolExecutor
) -> Iterator[_Step]:
    """Write one file of rides with a passenger, taxi after taxi."""
    city = taxis.city
    zone = _time_zone(city)

    def write(taxi: int) -> tuple[bytes, _Reports, np.ndarray, np.ndarray, int, int]:
        reports = taxis.reports_of(taxi)
        first, last = _rides(reports)
        rides = len(first)
        repeated = taxis.rngs[taxi].random(len(first)) < _DUPLICATE_SHARE
        twice = np.repeat(np.arange(len(first)), 1 + repeated)
        if file_format == "porto":
            text = _porto_lines(reports, first[twice], last[twice])
        else:  # without ids equal rides count each
            every_first, every_last = first[twice], last[twice]
            text = _tlc_lines(reports.take(every_first), reports.take(every_last), zone)
            # Rides of all taxis in turn do not tell which of two occurrences of a local time is meant: none is read.
            told = ~(
                _occurs_twice(reports.seconds[every_first], zone) | _occurs_twice(reports.seconds[every_last], zone)
            )
            first, last = every_first[told], every_last[told]
        return text, reports, first, last, rides, int(repeated.sum())

    with open(folder / FILES_OF_TRIPS[file_format], "wb") as file:
        file.write(_TRIP_HEADERS[file_format])
        for taxi, (text, reports, first, last, rides, repeats) in enumerate(pool.map(write, range(len(taxis)))):
            file.write(text)
            if file_format == "porto" and not city.feed.trips:
                i = np.arange(len(reports))
                of_rides = np.searchsorted(first, i, side="right") > np.searchsorted(last, i)  # begun and not over
                truth.add_points(reports.take(of_rides))
            else:
                truth.add_trips(reports.take(first), reports.take(last))
            yield _Step(rides + repeats, repeats, (taxi + 1) / len(taxis))


def _name(taxis: _Taxis, taxi: int) -> str:
    """Return the name of a taxi."""
    return f"s{taxis.seed}t{taxi:04d}"


def _time_zone(city: City) -> ZoneInfo:
    """Return the zone of times without an offset."""
    return ZoneInfo(city.feed.timezone or city.timezone)


def _instant(world: _World, seconds: float) -> np.datetime64:
    """Return seconds since the first midnight as naive UTC."""
    return np.datetime64(world.start_s + round(seconds), "s").astype("datetime64[us]")


def _match(city: City, world: _World) -> _Match:
    """Return the day and the position of the match."""
    midnight, x, y = world.match
    metres_x, metres_y = world.metres_per_degree
    return _Match(
        day=city.local_days(np.array([_instant(world, midnight)]))[0],
        lon=city.west + x / metres_x,
        lat=city.south + y / metres_y,
    )
