"""Quality: what a city's stores hold and what is wrong with it, as numbers and as a page. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.files import write_text
from trafficcast.geography.zones import read_zones
from trafficcast.ingest.counting import TOTALS, Count, merge
from trafficcast.ingest.merging import count
from trafficcast.ingest.quality_report import SlotSeries, counters, quality_report, slot_report, stored_slots
from trafficcast.ingest.record_store import RecordStore, State
from trafficcast.parallel import parallel_map
from trafficcast.progress import track
from trafficcast.quality.point_density import _SIZE, Places, _add_to_raster, _outside_box, _suggested_box, ends
from trafficcast.quality.slot_calendar import _calendar, _per_file, _per_slot
from trafficcast.quality.suspicious_vehicles import _VehicleChecks, _window_of
from trafficcast.records.records import HOUR_US, Points, Records
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import UNKNOWN, flow_store

_TRIES = 3
_DAYS_AT_A_TIME = 28
_GRIDS = "grids"  # the kind of flows that were imported: their records are unknown


@dataclass
class _Survey:
    """What one pass over the records of a period found: (slot) records outside the box, and where all of them lie."""

    outside: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    raster: np.ndarray = field(default_factory=lambda: np.zeros((_SIZE, _SIZE), np.int64))
    places: Places = field(default_factory=Places)
    watch: _VehicleChecks | None = None
    totals: np.ndarray = field(default_factory=lambda: np.zeros(len(TOTALS), np.int64))


def quality(
    city: City,
    data: Path,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    html: Path | None = None,
) -> dict[str, Any]:
    """What a city's stores hold of the slots in [start, end) (naive UTC; by default all), and a page of it in `html`.

    Rows read and dropped are of everything that was ever ingested. Of the period are: the slots with their vehicles
    and records; and, of the records that are still kept, points, pairs and transitions within it, suspicious vehicles
    and a box to suggest. Trips belong to the period by their pick-up, their ends by their own time.
    Raises InputError where there is nothing, in the stores or in the period.
    """
    if html is not None and html.is_dir():
        raise InputError(f"{html} is a folder: name the file that the page is to be written to")
    if start is not None and end is not None:
        city.check_period(start, end)
    store, flows = RecordStore(data / city.name / "records"), flow_store(data, city)
    survey = _Survey()
    if store.load().hours:
        report, survey = _of_records(city, store, start, end)
    elif flows.days():
        report = _of_grids(city, flows, start, end)
    else:
        raise InputError(f"'{city.name}' has no records yet: run trafficcast ingest PATH --city {city.name}")
    if html is not None:
        from trafficcast.quality.quality_page import _page  # here, because plotting is slow to import

        write_text(html, _page(city, report, survey.raster, survey.places))
    return report


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The few lines of a report that fit a terminal."""
    period = report["period"]
    lines = {key: value for key, value in period.items() if not isinstance(value, list | dict)}
    suspects = [f"{entry['vehicle']} ({entry['suspicion']})" for entry in period["suspects"] or []]
    return {
        "city": report["city"],
        "kind": report["kind"],
        **{f"{key} (ever)": report["ever"][key] for key in ("files", "rows_read", "rows_dropped") if report["ever"]},
        **lines,
        "slots": period["slots"],
        "gaps": [f"{gap['start']} to {gap['end']}" for gap in period["gaps"][:10]],
        "more_gaps": max(0, len(period["gaps"]) - 10),
        "suspects": suspects[:10],
        "more_suspects": max(0, len(suspects) - 10),
        "suggested_box": period["suggested_box"] and period["suggested_box"]["toml"],
    }


def _of_records(
    city: City, store: RecordStore, start: np.datetime64 | None, end: np.datetime64 | None
) -> tuple[dict[str, Any], _Survey]:
    """The report of a record store; tried again where an ingest has replaced what was being read."""
    for _ in range(_TRIES):
        state = store.load()
        try:
            return _report_records(city, store, state, start, end)
        except InputError:
            if store.load().hours == state.hours:
                raise
    raise InputError(f"the records of '{city.name}' change faster than they are read: try again")


def _report_records(
    city: City, store: RecordStore, state: State, start: np.datetime64 | None, end: np.datetime64 | None
) -> tuple[dict[str, Any], _Survey]:
    everything = start is None and end is None
    slots = _in_period(city, stored_slots(city, store, state.kind), start, end)
    survey = _survey(city, store, state, slots, everything)
    watch = survey.watch
    found: dict[str, Any] = counters(state.totals if everything else survey.totals, 0)
    if watch is None:
        found["vehicles"] = None
    else:
        found["vehicles"] = state.vehicles.number_with_points() if everything else int(np.count_nonzero(watch.points))
    found["points_per_vehicle"] = watch.points_per_vehicle() if watch else None
    found["share_outside"] = found["points_outside"] / max(found["points_kept"], 1)
    found["suspects"] = watch.suspects(city, state.vehicles.names) if watch else None
    found["silence_ends"] = watch.silence_ends() if watch else None
    found["suggested_box"] = _suggested_box(city, survey.places, found["share_outside"])
    report = _report(city, state.kind, everything, slots, found)
    report["records_kept_from"] = city.isoformat(_time(state.retained_from)) if state.retained_from else None
    report["ever"] = quality_report(city, store, state)
    report["files"] = _per_file(store.sources())
    if state.kind != "zone-trips":
        kept = (slots.number * city.slot_us >= state.retained_from).tolist()
        outside = zip(survey.outside.tolist(), kept, strict=True)
        report["period"]["per_slot"]["outside"] = [n if known else None for n, known in outside]
    return report, survey


def _of_grids(city: City, flows: DayStore, start: np.datetime64 | None, end: np.datetime64 | None) -> dict[str, Any]:
    """The report of flows that were imported: of their records nothing is known."""
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
    """The slots that touch [start, end). Raises InputError where there is none."""
    first = slots.number[0] if start is None else _microseconds(start) // city.slot_us
    last = slots.number[-1] if end is None else -(-_microseconds(end) // city.slot_us) - 1
    within = slots.between(int(first), int(last))
    if not len(within):
        whole = [city.isoformat(time) for time in slots.starts(city)[[0, -1]]]
        raise InputError(f"'{city.name}' has no records in that period; its slots run from {whole[0]} to {whole[1]}")
    return within


def _survey(city: City, store: RecordStore, state: State, slots: SlotSeries, everything: bool) -> _Survey:
    """Look at every record of the period once, an hour at a time; count their transitions where not all are asked."""
    survey = _Survey(outside=np.zeros(len(slots), np.int64))
    start, end = (int(edge) * city.slot_us for edge in (slots.number[0], slots.number[-1] + 1))
    hours = sorted(hour for hour in state.hours if start < (hour + 1) * HOUR_US and hour * HOUR_US < end)
    if state.kind == "points":
        vehicles = len(state.vehicles.names)
        window = _window_of({hour: state.hours[hour][1] for hour in hours}, sorted(state.hours), vehicles)
        survey.watch = _VehicleChecks(city, vehicles, window)
    zone_ids = None
    if not everything and city.feed.zones is not None:
        zone_ids = read_zones(city.feed.zones, city.feed.zone_id, city).ids
    counted = Count()
    for records in track(_hours(store, state, hours), "looking at records", len(hours)):
        records = records.take((records.time >= start) & (records.time < end))
        _look(city, slots, survey, records)
        if not everything:
            # Only the totals are wanted: without the slots, little is carried along.
            counted = replace(merge(city, counted, count(city, records, zone_ids)), slots={})
    survey.totals = counted.totals
    return survey


def _hours(store: RecordStore, state: State, hours: list[int]) -> Iterator[Records]:
    return parallel_map(lambda hour: store.read_hour(state, hour), hours, 1)


def _look(city: City, slots: SlotSeries, survey: _Survey, records: Records) -> None:
    if isinstance(records, Points) and survey.watch is not None:
        survey.watch.see(records)
    time, lon, lat = ends(records)
    _add_to_raster(survey.raster, city, lon, lat)
    survey.places.add(lon, lat)
    beyond = time[_outside_box(city, lon, lat)] // city.slot_us
    beyond = beyond[(beyond >= slots.number[0]) & (beyond <= slots.number[-1])]  # a trip may end after the period
    np.add.at(survey.outside, np.searchsorted(slots.number, beyond), 1)


def _microseconds(time: np.datetime64) -> int:
    return int(time.astype("datetime64[us]").astype(np.int64))


def _time(microseconds: int) -> np.datetime64:
    return np.datetime64(microseconds, "us")
