"""A simulated taxi fleet that writes GPS records and the true flows beside them, for a demo without any download.

The layout of a city, its districts and streets, follows from its box alone. The seed decides what differs
from one realisation to the next: who drives when and where to, and how each day departs from the usual one.
There are tides between homes and work, other weekends, party nights, one match in a stadium, taxis that leave
the box, repeated records and an outage of the whole feed: whatever an ingest and a forecast must cope with.
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
    _FORMATS,
    _PORTO_INTERVAL_S,
    _TRIP_HEADERS,
    FILES_OF_TRIPS,
    _as_read,
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
    """The event: people go to the stadium on this local day, most of them at eight and back at half past ten."""

    day: np.datetime64
    lon: float
    lat: float


@dataclass(frozen=True)
class _SimulationSummary:
    """What was written: records (points or trips), the repeated ones among them, files; times are naive UTC.

    The period is [start, end); `outage` is when no taxi was heard, if there was one.
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

    write = (
        _write_days
        if file_format in _FILES_OF_DAYS
        else _write_trips
        if file_format in FILES_OF_TRIPS
        else _write_taxis
    )

    points = duplicates = 0
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    pool = ThreadPoolExecutor(os.cpu_count())  # the kernels and the writing release the GIL
    try:
        for done in write(file_format, temporary, taxis, truth, pool):
            points, duplicates = points + done.records, duplicates + done.repeats
            if progress is not None:
                progress(done.share)
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
    """Where the true flows of the records in the folder `out` lie: beside it, so that nobody takes them for records."""
    out = out.absolute()
    return out.with_name(f"{out.name}.truth.nc")


class _Done(NamedTuple):
    """One step: records written, how many of them are repeats, and the share of all that is done by then."""

    records: int
    repeats: int
    share: float


def _write_taxis(
    file_format: str, folder: Path, taxis: _Taxis, truth: _TrueFlows, pool: ThreadPoolExecutor
) -> Iterator[_Done]:
    """A file a taxi."""
    zone = _clock(taxis.city)

    def write(taxi: int) -> tuple[_Reports, int]:
        reports, repeats = _with_repeats(taxis.whole(taxi), taxis.rngs[taxi])
        if len(reports):
            _write_taxi(file_format, folder, _name(taxis, taxi), reports, zone)
        if file_format == "tdrive":  # whose times have no offset and whose readers cannot know the occupancy
            unknown = np.zeros_like(reports.occupied)
            reports = replace(reports, seconds=_as_read(reports.seconds, zone), occupied=unknown)
        return reports, repeats

    for taxi, (reports, repeats) in enumerate(pool.map(write, range(len(taxis)))):
        truth.add_points(reports)
        yield _Done(len(reports), repeats, (taxi + 1) / len(taxis))


def _write_days(
    file_format: str, folder: Path, taxis: _Taxis, truth: _TrueFlows, pool: ThreadPoolExecutor
) -> Iterator[_Done]:
    """A file a local day, which is written while the taxis drive the next."""
    names = pa.array([_name(taxis, taxi) for taxi in range(len(taxis))])
    groups = [
        range(begin, min(begin + _TAXIS_AT_A_TIME, len(taxis))) for begin in range(0, len(taxis), _TAXIS_AT_A_TIME)
    ]
    ends = taxis.world.midnights[2:] + taxis.world.start_s
    night: list[_Reports] = []  # what shifts that last beyond midnight leave to the next day
    writing: list[Future[None]] = []
    for day, end in enumerate(ends.tolist()):

        def drive(group: int, day: int = day) -> tuple[_Reports, int]:
            stream = np.random.SeedSequence(taxis.seed, spawn_key=(0, day, group))  # none that a taxi draws from
            return _with_repeats(taxis.of_day(day, groups[group]), np.random.default_rng(stream))

        parts = night
        for group, (reports, repeats) in enumerate(pool.map(drive, range(len(groups)))):
            truth.add_points(reports)
            parts.append(reports)
            yield _Done(len(reports), repeats, (day + (group + 1) / len(groups)) / len(ends))
        everything = _Reports.concatenate(parts)
        night, today = [everything.take(everything.seconds >= end)], everything.take(everything.seconds < end)
        del parts, everything
        while writing:
            writing.pop().result()
        if len(today):
            date = str(taxis.first_day + day)
            writing = [pool.submit(_write_day, file_format, folder, date, today, names, taxis.city.zone)]
    for written in writing:
        written.result()


def _write_trips(
    file_format: str, folder: Path, taxis: _Taxis, truth: _TrueFlows, pool: ThreadPoolExecutor
) -> Iterator[_Done]:
    """One file of rides with a passenger, taxi after taxi."""
    city = taxis.city
    zone = _clock(city)

    def write(taxi: int) -> tuple[bytes, _Reports, np.ndarray, np.ndarray, int]:
        reports = taxis.whole(taxi)
        first, last = _rides(reports)
        repeated = taxis.rngs[taxi].random(len(first)) < _DUPLICATE_SHARE
        twice = np.repeat(np.arange(len(first)), 1 + repeated)
        if file_format == "porto":
            text = _porto_lines(reports, first[twice], last[twice])
        else:
            text = _tlc_lines(reports.take(first[twice]), reports.take(last[twice]), zone)
            reports = replace(reports, seconds=_as_read(reports.seconds, zone))
        return text, reports, first, last, int(repeated.sum())

    with open(folder / FILES_OF_TRIPS[file_format], "wb") as file:
        file.write(_TRIP_HEADERS[file_format])
        for taxi, (text, reports, first, last, repeats) in enumerate(pool.map(write, range(len(taxis)))):
            file.write(text)
            if file_format == "porto" and not city.feed.trips:
                i = np.arange(len(reports))
                of_rides = np.searchsorted(first, i, side="right") > np.searchsorted(last, i)  # begun and not over
                truth.add_points(reports.take(of_rides))
            else:
                truth.add_trips(reports.take(first), reports.take(last))
            yield _Done(len(first) + repeats, repeats, (taxi + 1) / len(taxis))


def _name(taxis: _Taxis, taxi: int) -> str:
    return f"s{taxis.seed}t{taxi:04d}"


def _clock(city: City) -> ZoneInfo:
    """The zone of times without an offset."""
    return ZoneInfo(city.feed.timezone or city.timezone)


def _instant(world: _World, seconds: float) -> np.datetime64:
    """Seconds since the first midnight -> naive UTC."""
    return np.datetime64(world.start_s + round(seconds), "s").astype("datetime64[us]")


def _match(city: City, world: _World) -> _Match:
    midnight, x, y = world.match
    metres_x, metres_y = world.metres_per_degree
    return _Match(
        day=city.local_days(np.array([_instant(world, midnight)]))[0],
        lon=city.west + x / metres_x,
        lat=city.south + y / metres_y,
    )
