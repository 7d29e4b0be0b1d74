"""Cities of the configuration. To list them; and to add one: records -> a box, grid, slot length and time zone that fit
-> the table at the end of `config.toml`.
"""

from __future__ import annotations

import json
import shlex
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.config.settings import CITY_NAME, load_config
from trafficcast.errors import InputError, JobError
from trafficcast.files import atomic
from trafficcast.new_city.suggest import (
    _CELL_KM,
    _HELD,
    _LEAST_FLOW,
    _SLOT_MINUTES,
    _RecordSample,
    _suggest,
    _Suggestion,
)
from trafficcast.new_city.time_zones import _country_of, _nearest_zones, _own_zone
from trafficcast.progress import track
from trafficcast.records.readers import find_records, read
from trafficcast.records.records import DAY_US, EARLIEST_US, SECOND_US, Points
from trafficcast.records.screening import Screen, Screening

_GLOBE = {"west": -180.0, "east": 180.0, "south": -90.0, "north": 90.0}
_ZONES_NAMED = 5
_FAR_KM = 2500.0


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
    """Write the table of a new city that fits the records at a location into the configuration, and say why so.

    `feed` are KEY=VALUE of the city's feed, such as columns.time=when. The file is left as it is but for the table
    at its end, and with `dry_run` altogether. Raises InputError, with nothing written, for a name that exists or
    cannot be one, records that are unreadable or too few, and a time zone that is neither given nor clear.
    """
    if name in load_config(config).cities:
        raise InputError(f"{config} has a city '{name}' already: choose another name, or change its table by hand")
    if not CITY_NAME.fullmatch(name):
        raise InputError(f"'{name}' cannot be a city's name: it takes lower-case letters, digits and single dashes")
    given = _feed(feed, record_format)
    slot = {} if slot_minutes is None else {"slot_minutes": slot_minutes}
    anywhere = _city(name=name, timezone=timezone or "UTC", feed=given, **_GLOBE, **slot)
    seen, dropped = _look_at(location, anywhere)
    found = _suggest(seen, rows, cols, slot_minutes)
    zone, why_zone = _time_zone(timezone, found, seen)
    box = dict(zip(_GLOBE, found.box, strict=True))
    grid = {"rows": found.rows, "cols": found.cols, "slot_minutes": found.slot_minutes}
    holidays = _country_of(zone)
    city = _city(name=name, timezone=zone, holidays=holidays, feed=given, **box, **grid)
    table = _table(city, found, seen)
    if not dry_run:
        _append(config, table, name)
    return {
        "city": name,
        "records": seen.count,
        "kind": _kind(seen),
        "rows_dropped": dropped,
        "box": box,
        "share_in_box": round(found.share, 4),
        **grid,
        "cell_metres": dict(zip(("north_south", "east_west"), found.cell_m, strict=True)),
        "timezone": zone,
        "holidays": holidays,
        "why": _reasons(found, why_zone, rows is not None or cols is not None, slot_minutes is not None),
        "notes": _notes(seen, found, zone, city),
        "toml": table,
        "written": not dry_run,
        "config": str(config),
        "next": _next_commands(config, name, location),
    }


def _feed(settings: tuple[str, ...], record_format: str | None) -> Feed:
    """The feed that KEY=VALUE settings make."""
    values: dict[str, Any] = {} if record_format is None else {"format": record_format}
    for setting in settings:
        key, equals, value = setting.partition("=")
        section, _, column = key.partition(".")
        if not equals or (column and section != "columns"):
            raise InputError(f"'{setting}' is no setting of a feed: write KEY=VALUE, such as columns.time=when")
        if column:
            values.setdefault("columns", {})[column] = value
        else:
            values[key] = value
    try:
        return Feed(**values)
    except ValidationError as error:
        raise InputError(f"the feed cannot be: {_first(error)}; its keys are in docs/ingestion.md") from None


def _city(**values: Any) -> City:
    try:
        return City(**values)
    except ValidationError as error:
        raise InputError(f"the city cannot be: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}"


def _look_at(location: str, city: City) -> tuple[_RecordSample, dict[str, int]]:
    """Read all records once; what is known of them then, and how many rows were dropped, by reason."""
    seen = _RecordSample()
    dropped: dict[str, int] = {}
    screen = Screen(city, EARLIEST_US, int(time.time()) * SECOND_US + DAY_US)
    try:
        found, _ = find_records(location, city)
        for source, name in track(found, "reading", len(found)):
            screening = Screening(screen, source)
            for batch in read(source, city, name):
                seen.add(screening.apply(batch), batch.vehicles)
            screening.check_not_swapped()
            for reason, rows in screening.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + rows
    except (InputError, JobError) as error:
        if f"[cities.{city.name}.feed" not in str(error):
            raise
        # The readers' advice is to write into a table that is not there yet.
        raise InputError(
            f"{error}. This command takes what belongs there as --feed KEY=VALUE, such as --feed columns.time=NAME"
        ) from None
    return seen, {reason: rows for reason, rows in dropped.items() if rows}


def _time_zone(given: str | None, found: _Suggestion, seen: _RecordSample) -> tuple[str, str]:
    """The zone and why it is this one.

    Raises InputError where none is given and the records are not in a zone's own city, and where the records are far
    from the zone but would not be if longitude and latitude changed places.
    """
    lon, lat = found.middle
    if given is not None:
        if abs(lon) <= 90 and _km_to(given, lon, lat) > _FAR_KM > _km_to(given, lat, lon):
            raise InputError(
                f"longitude and latitude seem to have changed places: the middle of the records is latitude {lat:.2f}, "
                f"longitude {lon:.2f}, which is nowhere near {given}; mend the files, or say --feed swapped=true"
            )
        return given, "as given"
    own = _own_zone(lon, lat)
    if own is not None:
        return own.name, f"its own city is {own.km:.0f} km from the middle of the box; --timezone names another"
    last = datetime.fromtimestamp(seen.last_us / SECOND_US, ZoneInfo("UTC"))
    near = (
        f"{zone.name} ({zone.km:,.0f} km away, UTC{last.astimezone(ZoneInfo(zone.name)):%z})"
        for zone in _nearest_zones(lon, lat)[:_ZONES_NAMED]
    )
    raise InputError(
        f"which time zone? Give --timezone: the middle of the records is latitude {lat:.2f}, longitude {lon:.2f}, and "
        f"the zone need not be the one whose city is nearest; the nearest are {', '.join(near)}"
    )


def _km_to(zone: str, lon: float, lat: float) -> float:
    """How far the city is that a zone is named after; 0 of a zone that has none, such as UTC."""
    return next((near.km for near in _nearest_zones(lon, lat) if near.name == zone), 0.0)


def _kind(seen: _RecordSample) -> str:
    return "GPS points" if seen.kind is Points else "trips"


def _reasons(found: _Suggestion, why_zone: str, grid_given: bool, slot_given: bool) -> dict[str, str]:
    height, width = found.cell_m
    longest = _SLOT_MINUTES[-1]
    return {
        "box": f"the smallest of whole hundredths of a degree that holds {_HELD:.0%} of the places; it holds "
        f"{found.share:.1%}",
        "grid": f"{'as given: ' if grid_given else f'cells near {_CELL_KM:g} km, in patches of 4 x 4: '}a cell is "
        f"{height} m from north to south and {width} m from west to east",
        "slot": ("as given: " if slot_given else f"the shortest of {_listed(_SLOT_MINUTES)} minutes with "
        f"{_LEAST_FLOW:g} vehicles or more entering a cell, else {longest}: ")
        + f"about {found.flow:.2f} enter a cell in a slot, on average",
        "timezone": why_zone,
    }  # fmt: skip


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


def _notes(seen: _RecordSample, found: _Suggestion, zone: str, city: City) -> list[str]:
    """What a person should look at before the first ingest."""
    notes = []
    if found.flow < _LEAST_FLOW:
        notes.append(
            f"the cells are nearly empty, {found.flow:.2f} vehicles a slot: a model learns more from fewer rows and "
            "cols, or from more vehicles"
        )
    if seen.coverage() < city.min_coverage:
        notes.append(
            f"a slot counts as observed when {city.min_coverage:.0%} of its minutes have a report, here "
            f"{seen.coverage():.0%} have one: set min_coverage lower in the table"
        )
    away = _km_to(zone, *found.middle)
    if away > _FAR_KM:
        notes.append(f"the city that {zone} is named after is {away:,.0f} km away: check the zone")
    return notes


def _table(city: City, found: _Suggestion, seen: _RecordSample) -> str:
    """The city's table as TOML."""
    lines = [
        f"# From {seen.count:,} {_kind(seen)}: the box holds {found.share:.1%} of their places, a cell is "
        f"{found.cell_m[0]} x {found.cell_m[1]} m.",
        f"[cities.{city.name}]",
        *(f"{key} = {getattr(city, key):.2f}" for key in _GLOBE),
        *(f"{key} = {getattr(city, key)}" for key in ("rows", "cols", "slot_minutes")),
        f'timezone = "{city.timezone}"',
        *([] if city.holidays is None else [f'holidays = "{city.holidays}"']),
    ]
    feed = city.feed.model_dump(mode="json", exclude_unset=True)
    columns = feed.pop("columns", {})
    for header, values in ((f"[cities.{city.name}.feed]", feed), (f"[cities.{city.name}.feed.columns]", columns)):
        if values:
            lines += ["", header, *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: str | int | bool) -> str:
    # A JSON string, number or boolean is one of TOML.
    return json.dumps(value, ensure_ascii=False)


def _append(config: Path, table: str, name: str) -> None:
    """Put a table at the end of the configuration, all else as it is, once the whole is known to be valid."""
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
    where = [] if config == Path("config.toml") else ["--config", str(config)]
    commands = (["ingest", location], ["quality"], ["train"], ["forecast"], ["dashboard"])
    return [shlex.join(["trafficcast", *words, "--city", name, *where]) for words in commands]
