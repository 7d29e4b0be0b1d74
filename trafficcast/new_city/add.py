"""Adding a city: the table that fits its records, written at the end of `config.toml`."""

from __future__ import annotations

import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from trafficcast.config.city import City
from trafficcast.config.city_toml import city_toml
from trafficcast.config.feed import Feed
from trafficcast.config.settings import CITY_NAME, load_config
from trafficcast.errors import InputError, JobError
from trafficcast.files import atomic
from trafficcast.new_city.suggest import (
    _CELL_KM,
    _LEAST_FLOW,
    _SLOT_MINUTES,
    _RecordSample,
    _suggest,
    _Suggestion,
)
from trafficcast.new_city.time_zones import _country_of, _zones_at
from trafficcast.progress import track
from trafficcast.quality.point_density import SHARE_HELD
from trafficcast.records.readers import find_records, read
from trafficcast.records.records import DAY_US, EARLIEST_US, SECOND_US, Points
from trafficcast.records.screening import Screen, Screening

_FEW_OBSERVED = 0.95  # of the slots
_GLOBE = {"west": -180.0, "east": 180.0, "south": -90.0, "north": 90.0}


def add_city(
    config: Path,
    name: str,
    location: str,
    record_format: str | None = None,
    timezone: str | None = None,
    rows: int | None = None,
    cols: int | None = None,
    slot_minutes: int | None = None,
    feed: tuple[str, ...] = (),
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write a table that fits a new city's records at the end of the configuration.

    The rest of the configuration stays as it is, byte for byte.

    Parameters
    ----------
    config
        The file of the configuration.
    name
        Name of the new city.
    location
        File, folder, glob or URL of its records, GPS points or trips.
    record_format
        Format of the records; None recognises it from their content.
    timezone
        The city's IANA time zone; None is the one in use where the records lie.
    rows
        Rows of the grid; None is a number that fits.
    cols
        Columns of the grid; None is a number that fits.
    slot_minutes
        Slot length in minutes; None is 30, 60 or 120, by the number of records.
    feed
        Settings of the city's feed as KEY=VALUE, such as columns.time=when.
    dry_run
        Whether to write nothing.

    Returns
    -------
    dict[str, Any]
        The table as `toml`, its values, the reasons for them, notes on the records, and the commands to run next.

    Raises
    ------
    InputError
        The name exists or is invalid, a setting is invalid, the records cannot be read or are too few, or they lie
        where no time zone is known and none is given. Nothing is written then.
    """
    if name in load_config(config).cities:
        raise InputError(f"{config} has a city '{name}' already: choose another name, or change its table by hand")
    if not CITY_NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot be a city's name: a name consists of lower-case letters, digits and single dashes"
        )
    given = _feed(feed, record_format)
    slot = {} if slot_minutes is None else {"slot_minutes": slot_minutes}
    anywhere = _city(name=name, timezone=timezone or "UTC", feed=given, **_GLOBE, **slot)
    sample, dropped = _read_sample(location, anywhere)
    suggestion = _suggest(sample, rows, cols, slot_minutes)
    zones = _zones_at(*suggestion.middle)
    zone = timezone or _zone_of_records(zones, suggestion)
    if timezone is not None:
        _check_not_swapped(timezone, zones, suggestion)
    box = dict(zip(_GLOBE, suggestion.box, strict=True))
    grid = {"rows": suggestion.rows, "cols": suggestion.cols, "slot_minutes": suggestion.slot_minutes}
    holidays = _country_of(zone)
    city = _city(name=name, timezone=zone, holidays=holidays, feed=given, **box, **grid)
    share_observed, least_observed = sample.observed(city)
    table = (
        f"# From {sample.count:,} {_kind(sample)}: the box holds {suggestion.share:.1%} of their places, a cell is "
        f"{suggestion.cell_m[0]} x {suggestion.cell_m[1]} m.\n{city_toml(city)}"
    )
    if not dry_run:
        _append(config, table, name)
    return {
        "city": name,
        "records": sample.count,
        "kind": _kind(sample),
        "rows_dropped": dropped,
        "box": box,
        "share_in_box": round(suggestion.share, 4),
        **grid,
        "cell_metres": dict(zip(("north_south", "east_west"), suggestion.cell_m, strict=True)),
        "timezone": zone,
        "holidays": holidays,
        "observed": round(share_observed, 4),
        "why": {
            **_reasons(suggestion, rows is not None or cols is not None, slot_minutes is not None),
            "timezone": "as given"
            if timezone
            else f"the middle of the box lies in {' and '.join(zones)}; --timezone gives another",
        },
        "notes": _notes(sample, suggestion, zones, city, share_observed, least_observed),
        "toml": table,
        "written": not dry_run,
        "config": str(config),
        "next": _next_commands(config, name, location),
    }


def _feed(settings: tuple[str, ...], record_format: str | None) -> Feed:
    """Return the feed of KEY=VALUE settings."""
    values: dict[str, Any] = {} if record_format is None else {"format": record_format}
    for setting in settings:
        key, equals, value = setting.partition("=")
        section, _, column = key.partition(".")
        if not equals or (column and section != "columns"):
            raise InputError(f"'{setting}' is not a setting of a feed: write KEY=VALUE, such as columns.time=when")
        if column:
            values.setdefault("columns", {})[column] = value
        else:
            values[key] = value
    try:
        return Feed(**values)
    except ValidationError as error:
        raise InputError(f"the feed is invalid: {_first(error)}; docs/ingestion.md lists its keys") from None


def _city(**values: Any) -> City:
    """Return a city of these values; raise InputError where they are invalid."""
    try:
        return City(**values)
    except ValidationError as error:
        raise InputError(f"the city is invalid: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    """Return the first error as one line, with the key that it is about."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}"


def _read_sample(location: str, city: City) -> tuple[_RecordSample, dict[str, int]]:
    """Read all records once; return their statistics, and how many rows were dropped, by reason."""
    sample = _RecordSample()
    dropped: dict[str, int] = {}
    screen = Screen(city, EARLIEST_US, int(time.time()) * SECOND_US + DAY_US)
    try:
        found, _ = find_records(location, city)
        for source, name in track(found, "reading", len(found)):
            screening = Screening(screen, source)
            for batch in read(source, city, name):
                sample.add(screening.apply(batch), batch.vehicles)
            screening.check_source()
            for reason, rows in screening.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + rows
    except (InputError, JobError) as error:
        if f"[cities.{city.name}.feed" not in str(error):
            raise
        # The readers advise to write into a table that does not exist yet.
        raise InputError(
            f"{error}. Give this command such settings as --feed KEY=VALUE, for example --feed columns.time=NAME"
        ) from None
    return sample, {reason: rows for reason, rows in dropped.items() if rows}


def _zone_of_records(zones: list[str], suggestion: _Suggestion) -> str:
    """Return the first time zone in use at the middle of the box; raise InputError where there is none."""
    if not zones:
        lon, lat = suggestion.middle
        raise InputError(
            f"which time zone? Give --timezone, such as --timezone Asia/Kolkata: the middle of the records (latitude "
            f"{lat:.2f}, longitude {lon:.2f}) lies at sea, where no city's zone is known. If the city lies elsewhere, "
            "check whether longitude and latitude have changed places (--feed swapped=true)"
        )
    return zones[0]


def _check_not_swapped(given: str, zones: list[str], suggestion: _Suggestion) -> None:
    """Raise InputError where the records lie in the given zone only if longitude and latitude change places."""
    lon, lat = suggestion.middle
    if abs(lon) <= 90 and given not in zones and given in _zones_at(lat, lon):
        raise InputError(
            f"longitude and latitude seem to have changed places: the middle of the records is latitude {lat:.2f}, "
            f"longitude {lon:.2f}, which is not in {given}; correct the files, or give --feed swapped=true"
        )


def _kind(sample: _RecordSample) -> str:
    """Name the kind of records."""
    return "GPS points" if sample.kind is Points else "trips"


def _reasons(suggestion: _Suggestion, grid_given: bool, slot_given: bool) -> dict[str, str]:
    """Say why the box, the grid and the slot length were chosen."""
    height, width = suggestion.cell_m
    longest = _SLOT_MINUTES[-1]
    return {
        "box": f"the smallest of whole hundredths of a degree that holds {SHARE_HELD:.0%} of the points, or of the "
        f"trips' ends; it holds {suggestion.share:.1%}",
        "grid": f"{'as given: ' if grid_given else f'cells near {_CELL_KM:g} km, in patches of 4 x 4: '}a cell is "
        f"{height} m from north to south and {width} m from west to east",
        "slot": ("as given: " if slot_given else f"the shortest of {_listed(_SLOT_MINUTES)} minutes with "
        f"{_LEAST_FLOW:g} vehicles or more entering a cell, else {longest}: ")
        + f"about {suggestion.flow:.2f} enter a cell in a slot, on average",
    }  # fmt: skip


def _listed(numbers: tuple[int, ...]) -> str:
    """Return numbers as text, such as "30, 60 and 120"."""
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


def _notes(
    sample: _RecordSample, suggestion: _Suggestion, zones: list[str], city: City, share: float, hours: str
) -> list[str]:
    """List what a person should check before the first ingest; `share` and `hours` are those of observed slots."""
    notes = []
    if suggestion.flow < _LEAST_FLOW:
        notes.append(
            f"the cells are nearly empty, {suggestion.flow:.2f} vehicles a slot: a model learns more from fewer rows "
            "and cols, or from more vehicles"
        )
    if share < _FEW_OBSERVED:
        notes.append(
            f"about {share:.0%} of the slots would count as observed, as the feed is silent in the others"
            + (f", most of them at {hours}" if hours else "")
            + ": look for missing files, or set min_coverage lower in the table"
        )
    last = datetime.fromtimestamp(sample.last_us / SECOND_US, UTC)
    offsets = [last.astimezone(ZoneInfo(zone)).utcoffset() for zone in (city.timezone, *zones)]
    if zones and offsets[0] not in offsets[1:]:
        where = " and ".join(zones)
        notes.append(f"the middle of the box lies in {where}, not in {city.timezone}: check the time zone")
    return notes


def _append(config: Path, table: str, name: str) -> None:
    """Put a table at the end of the configuration, if the whole is valid then; the rest stays byte for byte."""
    file = config.resolve()  # a link stays one
    before, mode = file.read_bytes(), file.stat().st_mode
    gap = b"" if before.endswith(b"\n\n") or not before else b"\n" if before.endswith(b"\n") else b"\n\n"
    with atomic(file) as temporary:
        temporary.write_bytes(before + gap + table.encode())
        try:
            load_config(temporary).city(name)
        except InputError as error:
            why = str(error).replace(str(temporary), str(config))
            raise InputError(f"{config} does not take the table, which you can write into it by hand: {why}") from None
    file.chmod(mode)


def _next_commands(config: Path, name: str, location: str) -> list[str]:
    """Return the commands that lead from the records to the dashboard."""
    where = [] if config == Path("config.toml") else ["--config", str(config)]
    commands = (["ingest", location], ["quality"], ["train"], ["forecast"], ["dashboard"])
    return [shlex.join(["trafficcast", *words, "--city", name, *where]) for words in commands]
