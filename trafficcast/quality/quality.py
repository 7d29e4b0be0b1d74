"""The quality of a city's stores, as numbers and as a page: their content, gaps and suspicious records. Read-only."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.files import write_text
from trafficcast.geography.zones import Zones, zones_of
from trafficcast.ingestion.counting import TOTALS, Count, merge
from trafficcast.ingestion.merging import count
from trafficcast.ingestion.quality_report import (
    SlotSeries,
    counters,
    ends_outside,
    quality_report,
    slot_report,
    stored_slots,
)
from trafficcast.ingestion.record_store import RecordStore, State
from trafficcast.ingestion.spans import Span
from trafficcast.parallel import parallel_map
from trafficcast.progress import track
from trafficcast.quality.point_density import _SIZE, PointDensity, _add_to_raster, _outside_box, _suggested_box, ends
from trafficcast.quality.slot_calendar import _calendar, _per_file, _per_slot
from trafficcast.quality.suspicious_vehicles import _VehicleChecks, _window_of
from trafficcast.records.records import HOUR_US, Points, Records
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import UNKNOWN

_TRIES = 3
_DAYS_AT_A_TIME = 28
_GRIDS = "grids"  # the kind of imported flows, whose records are unknown


@dataclass
class _Survey:
    """Statistics of the records of a period, from one pass.

    `outside` (slot) counts records outside the box. `raster` counts points on pixels of the box.
    """

    outside: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    raster: np.ndarray = field(default_factory=lambda: np.zeros((_SIZE, _SIZE), np.int64))
    density: PointDensity = field(default_factory=PointDensity)
    checks: _VehicleChecks | None = None
    totals: np.ndarray = field(default_factory=lambda: np.zeros(len(TOTALS), np.int64))


def quality(
    stores: CityStores,
    start: str | np.datetime64 | None = None,
    end: str | np.datetime64 | None = None,
    html: Path | None = None,
) -> dict[str, Any]:
    """Report what a city's stores hold of a period, and write the report as a page.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        Start of the period, inclusive, text in the city's time zone or naive UTC; None is the first stored slot.
    end
        End of the period, exclusive; None is the end of the last stored slot.
    html
        The file to write the page to; None writes no page.

    Returns
    -------
    dict[str, Any]
        The report, ready for JSON. Files and rows count everything that was ever ingested. Slots, vehicles and records
        are those of the period. Points, pairs, transitions, suspicious vehicles and the suggested box are those of the
        records of the period that are still kept. A trip belongs to the period by its pick-up, its ends by their own
        times.

    Raises
    ------
    InputError
        There is nothing in the stores or in the period.
    """
    city = stores.city
    start, end = city.as_time(start), city.as_time(end)
    if html is not None and html.is_dir():
        raise InputError(f"{html} is a folder: name the file to write the page to")
    if start is not None and end is not None:
        city.check_period(start, end)
    store, flows = RecordStore(stores.records), stores.flows
    survey = _Survey()
    if store.load().files:
        report, survey = _of_records(city, store, start, end)
    elif flows.days():
        report = _of_grids(city, flows, start, end)
    else:
        raise InputError(f"'{city.name}' has no records yet: run trafficcast ingest PATH --city {city.name}")
    if html is not None:
        from trafficcast.quality.quality_page import _page  # here, because plotting is slow to import

        write_text(html, _page(city, report, survey.raster, survey.density))
    return report


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Shorten a report to the lines that fit a terminal.

    Parameters
    ----------
    report
        A report of `quality`.

    Returns
    -------
    dict[str, Any]
        The counters, the first ten gaps and suspicious vehicles, and the suggested box as TOML.
    """
    period = report["period"]
    lines = {key: value for key, value in period.items() if not isinstance(value, list | dict)}
    suspicious = [f"{entry['vehicle']} ({entry['suspicion']})" for entry in period["suspects"] or []]
    return {
        "city": report["city"],
        "kind": report["kind"],
        **{f"{key} (ever)": report["ever"][key] for key in ("files", "rows_read", "rows_dropped") if report["ever"]},
        **lines,
        "slots": period["slots"],
        "gaps": [f"{gap['start']} to {gap['end']}" for gap in period["gaps"][:10]],
        "more_gaps": max(0, len(period["gaps"]) - 10),
        "suspects": suspicious[:10],
        "more_suspects": max(0, len(suspicious) - 10),
        "suggested_box": period["suggested_box"] and period["suggested_box"]["toml"],
    }


def _of_records(
    city: City, store: RecordStore, start: np.datetime64 | None, end: np.datetime64 | None
) -> tuple[dict[str, Any], _Survey]:
    """Report on a record store; try again where an ingest has replaced files that were being read."""
    for _ in range(_TRIES):
        state = store.load()
        try:
            return _report_records(city, store, state, start, end)
        except InputError:
            if store.load().files == state.files:
                raise
    raise InputError(f"the records of '{city.name}' change faster than they are read: try again")


def _report_records(
    city: City, store: RecordStore, state: State, start: np.datetime64 | None, end: np.datetime64 | None
) -> tuple[dict[str, Any], _Survey]:
    """Report on one state of a record store, and return the survey for the page."""
    everything = start is None and end is None
    zones = zones_of(city) if state.kind == "zone-trips" else None
    every = stored_slots(city, store, state.kind, zones)
    slots = _in_period(city, every, start, end)
    survey = _survey(city, store, state, slots, zones, everything)
    checks = survey.checks
    found: dict[str, Any] = counters(state.totals if everything else survey.totals, 0, ends_outside(state.kind, slots))
    if checks is None:
        found["vehicles"] = None
    else:
        found["vehicles"] = state.vehicles.number_with_points() if everything else int(np.count_nonzero(checks.points))
    found["points_per_vehicle"] = checks.points_per_vehicle() if checks else None
    found["share_outside"] = found["points_outside"] / max(found["points_kept"], 1)
    found["suspects"] = checks.suspicious(city, state.vehicles.names, time.time_ns() // 1000) if checks else None
    found["silence_ends"] = checks.silence_ends() if checks else None
    found["suggested_box"] = _suggested_box(city, survey.density, found["share_outside"])
    report = _report(city, state.kind, everything, slots, found)
    report["records_kept_from"] = city.isoformat(_time(state.retained_from)) if state.retained_from else None
    report["ever"] = quality_report(city, store, state, every)
    report["files"] = _per_file(store.sources())
    if state.kind != "zone-trips":
        kept = (slots.number * city.slot_us >= state.retained_from).tolist()
        outside = zip(survey.outside.tolist(), kept, strict=True)
        report["period"]["per_slot"]["outside"] = [n if known else None for n, known in outside]
    return report, survey


def _of_grids(city: City, flows: DayStore, start: np.datetime64 | None, end: np.datetime64 | None) -> dict[str, Any]:
    """Report on imported flows, whose records are unknown."""
    first = None if start is None else city.slot_start(start)
    months = [city.midnight(day) for day in flows.days()[_DAYS_AT_A_TIME::_DAYS_AT_A_TIME]]
    months = [edge for edge in months if (first is None or first < edge) and (end is None or edge < end)]
    parts = []
    for begin, until in track(pairwise([first, *months, end]), "reading flows", len(months) + 1):
        dataset = flows.read(begin, until)
        if dataset is not None:
            number = dataset["time"].values.astype("datetime64[us]").astype(np.int64) // city.slot_us
            totals = dataset["flow"].values.sum(axis=(2, 3), dtype=np.int64).T
            facts = [dataset[name].values for name in ("vehicles", "coverage", "observed")]
            parts.append((number, *totals, np.full(len(number), UNKNOWN), *facts))
    if not parts:
        raise InputError(f"'{city.name}' has no flows in that period: choose another")
    slots = SlotSeries(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    unknown = ("points_per_vehicle", "share_outside", "suspects", "silence_ends", "suggested_box")
    found = dict.fromkeys((*counters(np.zeros(len(TOTALS)), 0), *unknown))
    report = _report(city, _GRIDS, start is None and end is None, slots, found)
    return {**report, "records_kept_from": None, "ever": None, "files": []}


def _report(city: City, kind: str | None, everything: bool, slots: SlotSeries, found: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a report that records and imported flows share."""
    return {
        "city": city.name,
        "kind": kind,
        "timezone": city.timezone,
        "slot_minutes": city.slot_minutes,
        "box": {edge: getattr(city, edge) for edge in ("west", "east", "south", "north")},
        "period": {
            "everything": everything,
            **slot_report(city, slots),
            **found,
            "calendar": _calendar(city, slots),
            "per_slot": _per_slot(city, slots),
        },
    }


def _in_period(city: City, slots: SlotSeries, start: np.datetime64 | None, end: np.datetime64 | None) -> SlotSeries:
    """Return the slots that touch [start, end); raise InputError where there is none."""
    first = slots.number[0] if start is None else _microseconds(start) // city.slot_us
    last = slots.number[-1] if end is None else -(-_microseconds(end) // city.slot_us) - 1
    within = slots.between(int(first), int(last))
    if not len(within):
        whole = [city.isoformat(time) for time in slots.starts(city)[[0, -1]]]
        raise InputError(f"'{city.name}' has no records in that period; its slots run from {whole[0]} to {whole[1]}")
    return within


def _survey(
    city: City, store: RecordStore, state: State, slots: SlotSeries, zones: Zones | None, everything: bool
) -> _Survey:
    """Read every record of the period once, an hour at a time; count transitions unless the period is everything."""
    survey = _Survey(outside=np.zeros(len(slots), np.int64))
    start, end = (int(edge) * city.slot_us for edge in (slots.number[0], slots.number[-1] + 1))
    spans = sorted(span for span in state.files if start < span.end * HOUR_US and span.first * HOUR_US < end)
    if state.kind == "points":
        vehicles, records_of = len(state.vehicles.names), _records_of_hours(store, state)
        within = {hour: n for hour, n in records_of.items() if start < (hour + 1) * HOUR_US and hour * HOUR_US < end}
        window = _window_of(within, sorted(records_of), vehicles)
        survey.checks = _VehicleChecks(city, vehicles, window)
    zone_ids = None if zones is None else zones.ids
    counted = Count()
    for records in _hours(store, state, spans):
        records = records.take((records.time >= start) & (records.time < end))
        _add(city, slots, survey, records)
        if not everything:
            # Only the totals are needed: without the slots, little is kept in memory.
            counted = replace(merge(city, counted, count(city, records, zone_ids)), slots={})
    survey.totals = counted.totals
    return survey


def _records_of_hours(store: RecordStore, state: State) -> Counter[int]:
    """Return the number of rows of each hour since 1970."""
    records: Counter[int] = Counter()
    for span, (_, n) in state.files.items():
        records.update({span.first: n} if span.end - span.first == 1 else store.hours_of(state, span))
    return records


def _hours(store: RecordStore, state: State, spans: list[Span]) -> Iterator[Records]:
    """Read the records of hours in order, the next file while one is used."""
    files = parallel_map(lambda span: store.read(state, span), spans, 1)
    for records in track(files, "reading records", len(spans)):
        hours = records.time // HOUR_US
        for hour in np.unique(hours).tolist():
            yield records.take(hours == hour)


def _add(city: City, slots: SlotSeries, survey: _Survey, records: Records) -> None:
    """Add the records of an hour to a survey."""
    if isinstance(records, Points) and survey.checks is not None:
        survey.checks.add(records)
    time, lon, lat = ends(records)
    _add_to_raster(survey.raster, city, lon, lat)
    survey.density.add(lon, lat)
    outside = time[_outside_box(city, lon, lat)] // city.slot_us
    outside = outside[(outside >= slots.number[0]) & (outside <= slots.number[-1])]  # a trip may end after the period
    np.add.at(survey.outside, np.searchsorted(slots.number, outside), 1)


def _microseconds(time: np.datetime64) -> int:
    """Return a time as microseconds since 1970."""
    return int(time.astype("datetime64[us]").astype(np.int64))


def _time(microseconds: int) -> np.datetime64:
    """Return microseconds since 1970 as a time."""
    return np.datetime64(microseconds, "us")
