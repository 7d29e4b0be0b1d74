"""Find what is damaged or missing in a city's stores, and mend it.

Each problem says which file it is about, what is wrong with it, and what mends it; the service mends the one file that
it met, `trafficcast fsck` finds all, and `trafficcast repair` mends all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.notify import alert_files
from trafficcast.config.city import DAY, HORIZON
from trafficcast.config.service import Retention
from trafficcast.errors import DamagedFile, InputError, JobError
from trafficcast.files import json_text, set_aside, writer_lock
from trafficcast.forecasting.model import load_model
from trafficcast.forecasting.publish import JOB
from trafficcast.forecasting.verify import VERIFY
from trafficcast.geography.zones import zones_of
from trafficcast.ingestion.ingest import broken_days, mend_flows
from trafficcast.ingestion.quality_report import quality_report, stored_slots
from trafficcast.ingestion.rebuild import damaged_records, rebuild_records
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.latest_files import write_latest, wrong_latest
from trafficcast.stores.ledger import FAILED, LOST, Ledger
from trafficcast.stores.published import latest_forecast
from trafficcast.stores.registry import VERSION

# What a job makes, as messages and the folders of the stores name it.
_PRODUCTS = {JOB: "forecasts", VERIFY: "scores"}


@dataclass(frozen=True)
class Mended:
    """What became of a problem.

    Attributes
    ----------
    sentence
        What was done, and what was lost.
    lost
        Whether something was lost.
    """

    sentence: str
    lost: bool = False


@dataclass(frozen=True)
class Problem:
    """A file that is damaged or missing.

    Attributes
    ----------
    file
        The file.
    wrong
        What is wrong with it.
    remedy
        What mends it, as far as it can be mended.
    mend
        Mends it.
    lost
        Whether something is lost that nothing else holds.
    """

    file: Path
    wrong: str
    remedy: str
    mend: Callable[[], Mended]
    lost: bool = False


def problems(
    stores: CityStores, keep: Retention, now: np.datetime64, on_read: Callable[[Path], None] = lambda file: None
) -> Iterator[Problem]:
    """Read all that a city's stores and models hold, and find what is damaged or missing.

    The problems come in the order in which they have to be mended: what is made from other stores comes after these.
    Nothing is changed but by mending, and a service that writes meanwhile is no problem.

    Parameters
    ----------
    stores
        The city and its stores.
    keep
        Which days are kept, so that older ones are not missing.
    now
        The present time, naive UTC.
    on_read
        Called with each file, or folder of a model, when it has been read.

    Yields
    ------
    Problem
        The problems, each found when those before it have been mended.
    """
    today = stores.city.local_days(np.array([now]))[0]
    damages = damaged_records(stores, on_read)
    if damages:  # all are mended at once
        yield problem_of(stores, damages[0], [str(damage.file) for damage in damages[1:]])
    yield from _as_far_as_known(_of_report(stores))
    yield from _of_models(stores, on_read)
    for database in (stores.ledger, AlertBook(stores.alerts)):
        try:
            database.check()
        except DamagedFile as error:
            yield problem_of(stores, error)
        on_read(database.file)
    yield from _as_far_as_known(_lost_alerts(stores))
    damages = stores.flows.check(on_read)[1]
    for damage in damages:
        yield problem_of(stores, damage)
    told, first = {damage.file for damage in damages}, _first_day(stores.flows, keep.flow_days, today)
    yield from _as_far_as_known(_missing_flows(stores, first, told))
    for job, days in ((JOB, keep.forecast_days), (VERIFY, keep.score_days)):
        for version in _versions(stores, job):
            yield from _as_far_as_known(_of_model_days(stores, job, version, days, today, on_read))


def _as_far_as_known(found: Iterator[Problem]) -> Iterator[Problem]:
    """Yield problems until a file is met that is damaged itself, which was found before and has not been mended."""
    with suppress(DamagedFile):
        yield from found


def problem_of(stores: CityStores, error: DamagedFile, others: Sequence[str] = ()) -> Problem:
    """Return the problem of a damaged file, by the store in which it lies.

    Parameters
    ----------
    stores
        The city and its stores.
    error
        The error of the reader that met it.
    others
        Other files of the records that are damaged too, and are mended with it.

    Returns
    -------
    Problem
        The problem.
    """
    file, wrong = error.file, str(error).partition("; run trafficcast repair")[0]
    if file == stores.ledger.file:
        return Problem(file, wrong, "its rows that can be read begin a new ledger", lambda: _mend_ledger(stores), True)
    if file == stores.alerts:
        return Problem(file, wrong, "its rows that can be read begin a new book", lambda: _mend_book(stores), True)
    if file == stores.registry.pointer:
        remedy = "it is written anew from the forecasts and models that are stored"
        return Problem(file, wrong, remedy, lambda: _mend_champions(stores))
    if file.is_relative_to(stores.records):
        remedy = "the records' files are read and counted again; those that cannot be read are set aside"
        more = f" (and {len(others)} more: {', '.join(others[:10])})" if others else ""
        hours_are_lost = file != RecordStore(stores.records).file
        return Problem(file, wrong + more, remedy, lambda: _mend_records(stores), hours_are_lost)
    if file.parent == stores.folder:
        return Problem(file, wrong, "it is set aside", lambda: Mended(f"it lies at {set_aside(file)}", True), True)
    store, *version = file.relative_to(stores.folder).parts[:-1]
    day = np.datetime64(file.stem, "D")
    if store == "flows":
        from_records = RecordStore(stores.records).exists()
        remedy = "it is set aside, and the day is " + ("counted again from the records" if from_records else "lost")
        return Problem(file, wrong, remedy, lambda: _mend_flow_day(stores, day), not from_records)
    job = JOB if store == "forecasts" else VERIFY
    remedy = f"it is set aside, and its {'forecasts are made' if job == JOB else 'scores are computed'} again"
    return Problem(file, wrong, remedy, lambda: _mend_model_day(stores, job, version[0], day))


def _first_day(store: DayStore, keep: int | None, today: np.datetime64) -> np.datetime64:
    """Return the first local day that has not been pruned."""
    first = store.kept_from() or np.datetime64("1970-01-01", "D")
    return first if keep is None else max(first, today - np.timedelta64(keep - 1, "D"))


def _mend_records(stores: CityStores) -> Mended:
    aside, lost, lost_slots, knows_sources = rebuild_records(stores)
    done = "the records were counted again" + ("" if aside is None else f"; the old database lies at {aside}")
    if lost:
        names = ", ".join(str(file) for file in lost[:10]) + (f" and {len(lost) - 10} more" if len(lost) > 10 else "")
        done += (
            f"; the records of {len(lost)} hours are lost ({names}), with their flows: ingest the files again that "
            "held them"
        )
    elif not knows_sources:
        done += (
            "; which files were ingested, and how many rows of them were dropped, is lost in part: files that are "
            "ingested again add no record twice"
        )
    if lost_slots:
        done += f"; the flows of {lost_slots} slots are lost, as their records are no longer kept"
    return Mended(done, bool(lost or lost_slots or not knows_sources))


def _of_models(stores: CityStores, on_read: Callable[[Path], None]) -> Iterator[Problem]:
    """Find a damaged list of champions, and models that cannot be loaded."""
    registry = stores.registry
    try:
        named = registry.champions()
        if not named and registry.versions():
            yield problem_of(stores, DamagedFile(registry.pointer, "it is gone, but not the models", stores.city.name))
        if named and named[0] not in registry.versions():
            wrong = f"it names {named[0]}, and there is no such model"
            yield problem_of(stores, DamagedFile(registry.pointer, wrong, stores.city.name))
    except DamagedFile as error:
        yield problem_of(stores, error)
    folders = sorted(file for file in registry.root.glob("*/") if VERSION.fullmatch(file.name))
    for folder in folders:
        try:
            registry.check(folder.name)
            load_model(registry, folder.name)
        except (InputError, JobError) as error:
            remedy = f"nothing but a backup restores a model: restore {folder}, or train again and remove it"
            yield Problem(folder, str(error), remedy, lambda remedy=remedy: Mended(remedy, True), True)  # type: ignore[misc]
        on_read(folder)


def _mend_champions(stores: CityStores) -> Mended:
    """Name the champions anew: those that can be read, or else the models with the newest forecasts first."""
    registry = stores.registry
    try:
        known = [version for version in registry.champions() if version in registry.versions()]
    except DamagedFile:
        known = []
    aside = set_aside(registry.pointer) if registry.pointer.exists() else None

    def age(version: str) -> tuple[str, float]:
        days = stores.forecasts(version).days()
        return str(days[-1]) if days else "", (registry.root / version / "card.json").stat().st_mtime

    versions = sorted(registry.versions(), key=age, reverse=True)
    used = known or [version for version in versions if stores.forecasts(version).days()] or versions[:1]
    where = "" if aside is None else f"; the old list lies at {aside}"
    if not used:
        return Mended(f"the city has no model that can be read{where}", True)
    registry.name_champions(used)
    before = f"; before it {', '.join(used[1:])}" if used[1:] else ""
    return Mended(f"the champion is {used[0]}{before}{where}: see whether that is right")


def _mend_ledger(stores: CityStores) -> Mended:
    with writer_lock(stores.data):
        try:
            stores.ledger.check()
            return Mended("another process has mended the ledger")
        except DamagedFile:
            aside, kept = stores.ledger.salvage()
    return Mended(
        f"{kept:,} rows were kept; runs that are not among them are lost; the old ledger lies at {aside}", True
    )


def _mend_book(stores: CityStores) -> Mended:
    book = AlertBook(stores.alerts)
    with writer_lock(stores.data):
        try:
            book.check()
            return Mended("another process has mended the book of alerts")
        except DamagedFile:
            aside, kept = book.salvage()
            added = sum(book.restore(_notices(file)) for file in _alert_logs(stores))
    return Mended(
        f"{kept:,} rows were kept and {added:,} notices taken from alerts.jsonl; others are lost; the old book lies at "
        f"{aside}",
        True,
    )


def _alert_logs(stores: CityStores) -> list[Path]:
    """Return the files of notices of all cities, as the book is theirs too."""
    return sorted(stores.data.glob(f"*/{alert_files(stores.data, stores.city.name, live=True)[1].name}"))


def _notices(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a file of notices that can be read."""
    found = []
    for line in file.read_bytes().splitlines() if file.exists() else []:
        try:
            notice = json.loads(line)
        except ValueError:
            continue
        if isinstance(notice, dict) and {"id", "city", "raised", "cleared"} <= notice.keys():
            found.append(notice)
    return found


def _lost_alerts(stores: CityStores) -> Iterator[Problem]:
    """Find notices of the city that the book of alerts does not know, as it was emptied or removed."""
    book, file = AlertBook(stores.alerts), alert_files(stores.data, stores.city.name, live=True)[1]
    missing = {notice["id"] for notice in _notices(file)} - AlertBook(stores.alerts, read_only=True).known()
    if missing:
        yield Problem(
            book.file,
            f"{len(missing)} notices of {file} are not in it",
            "they are taken from there",
            lambda: Mended(f"{book.restore(_notices(file))} notices were taken from {file}"),
        )


def _mend_flow_day(stores: CityStores, day: np.datetime64) -> Mended:
    if RecordStore(stores.records).exists():
        aside = stores.flows.set_aside(day)
        mend_flows(stores, [day])
        where = "" if aside is None else f"; its old file lies at {aside}"
        if stores.flows.file(day).exists():
            return Mended(f"the flows of {day} were counted again from the records{where}")
        return Mended(f"the flows of {day} are lost: there are no records of that day{where}", True)
    aside = stores.flows.set_aside(day)
    if aside is None:
        return Mended(f"the flows of {day} can be read again")
    return Mended(f"the flows of {day} are lost: there are no records to count them from; they lie at {aside}", True)


def _missing_flows(stores: CityStores, first: np.datetime64, told: set[Path]) -> Iterator[Problem]:
    """Find days of the flow store that are missing, or not as they were published, beside those that were told."""
    if not RecordStore(stores.records).exists():
        return
    unpublished = set(RecordStore(stores.records, read_only=True).unpublished())  # the next ingest writes them
    for day in broken_days(stores):
        file = stores.flows.file(day)
        if day not in unpublished and file not in told and (day >= first or file.exists()):
            wrong = f"{file} is not as it was published" if file.exists() else f"{file} is missing"
            remedy = "it is compared with the records" if file.exists() else "it is counted again from the records"
            yield Problem(file, wrong, remedy, lambda day=day: _mend_flow_day(stores, day))  # type: ignore[misc]


def _of_report(stores: CityStores) -> Iterator[Problem]:
    """Find a quality report that cannot be read, or is not that of the records."""
    file, store = stores.folder / "quality.json", RecordStore(stores.records, read_only=True)
    if not store.exists() or store.unpublished():  # the next ingest writes it
        return
    city, state, wrong = stores.city, store.load(), ""
    try:
        zones = zones_of(city) if state.kind == "zone-trips" else None
        series = stored_slots(city, store, state.kind, zones)
        if not len(series):  # all records were taken back
            return
        report = quality_report(city, store, state, series)
        if file.read_text(encoding="utf-8") != json_text(report) + "\n":
            wrong = f"{file} is not the report on the records"
    except DamagedFile:
        raise
    except (OSError, ValueError) as error:
        wrong = f"cannot read {file}: {error}"

    def mend() -> Mended:
        mend_flows(stores)
        return Mended("the quality report was written again from the records")

    if wrong:
        yield Problem(file, wrong, "it is written again from the records", mend)


def _versions(stores: CityStores, job: str) -> list[str]:
    """Return the models that have or had forecasts or scores."""
    root = stores.folder / _PRODUCTS[job]
    known = {folder.name for folder in root.glob("*/")} | set(stores.registry.versions())
    return sorted(known)


def _of_model_days(
    stores: CityStores,
    job: str,
    version: str,
    keep: int | None,
    today: np.datetime64,
    on_read: Callable[[Path], None],
) -> Iterator[Problem]:
    """Find damaged and missing days of a model's forecasts or scores, and those that the ledger does not know."""
    store, ledger, city = _store(stores, job, version), Ledger(stores.ledger.file, read_only=True), stores.city
    # What the ledger knew before must be stored, and what is stored the ledger must know by now.
    known = ledger.results(job, city.name, version)
    times, damaged = store.check(on_read)
    for error in damaged:
        yield problem_of(stores, error)
    first = _first_day(store, keep, today)
    done = np.array([slot for slot, result in known.items() if result != FAILED], "datetime64[us]")
    missing = np.setdiff1d(done, times)
    for day in np.unique(city.local_days(missing)) if len(missing) else ():
        file = store.file(day)
        if day >= first and all(error.file != file for error in damaged):
            lost = int(np.count_nonzero(city.local_days(missing) == day))
            wrong = f"{file} " + (f"lacks {lost} {_PRODUCTS[job]}" if file.exists() else "is missing")
            remedy = "they are made again" if job == JOB else "they are computed again"
            yield Problem(file, wrong, remedy, lambda day=day: _mend_model_day(stores, job, version, day))  # type: ignore[misc]
    known = ledger.results(job, city.name, version)
    unknown = np.setdiff1d(times, np.array(list(known), "datetime64[us]"))
    if len(unknown):
        yield Problem(
            stores.ledger.file,
            f"{stores.ledger.file} does not know {len(unknown)} {_PRODUCTS[job]} of {version}",
            "they are noted in it",
            lambda: _note(stores, job, version, unknown),
        )


def _store(stores: CityStores, job: str, version: str) -> DayStore:
    return stores.forecasts(version) if job == JOB else stores.scores(version)


def _mend_model_day(stores: CityStores, job: str, version: str, day: np.datetime64) -> Mended:
    """Set a damaged day aside, and record in the ledger what was lost, so that it is made again."""
    city, ledger, store = stores.city, stores.ledger, _store(stores, job, version)
    aside = store.set_aside(day)
    start, end = city.midnight(day), city.midnight(day + DAY)
    there = store.read_day(day, [])
    stored = np.empty(0, "datetime64[us]") if there is None else there["init_time"].values
    wanted = {slot for slot, result in ledger.results(job, city.name, version).items() if start <= slot < end}
    other = _store(stores, VERIFY if job == JOB else JOB, version).read_day(day, [], [])
    wanted |= set() if other is None or job == VERIFY else set(other["init_time"].values)
    lost = sorted(wanted - set(stored))
    for slot in lost:
        ledger.lose(job, city.name, version, slot, slot + city.slot)
        if slot not in ledger.results(job, city.name, version):
            ledger.record(job, city.name, version, slot, LOST)
    where = "" if aside is None else f"; their old file lies at {aside}"
    if lost or aside is None or job == VERIFY:
        return Mended(f"the {_PRODUCTS[job]} of {version} of {day} are to be made again{where}")
    return Mended(f"the forecasts of {version} of {day} are lost: nobody knows which there were{where}", True)


def _note(stores: CityStores, job: str, version: str, times: np.ndarray) -> Mended:
    """Note forecasts or scores that are stored in the ledger."""
    stored = _store(stores, job, version).read(times[0], times[-1] + stores.city.slot)
    assert stored is not None
    for time in times:
        one = stored.sel(init_time=time)
        if job == JOB:
            result, detail = str(one["state"].item()), str(one["reason"].item())
        else:
            seen = int(np.isfinite(one["rmse"].sel(forecaster=version).values).sum())
            result, detail = f"{seen} of {HORIZON} leads", ""
        stores.ledger.record(job, stores.city.name, version, time, result, detail)
    return Mended(f"{len(times)} {_PRODUCTS[job]} of {version} were noted in the ledger")


def problems_of_latest(stores: CityStores) -> Iterator[Problem]:
    """Find latest files that cannot be read, or that do not hold the newest forecast.

    Parameters
    ----------
    stores
        The city and its stores.

    Yields
    ------
    Problem
        One problem, or none.
    """
    newest = latest_forecast(stores, damaged=[])
    file = stores.folder / "latest.nc"
    if newest is None or not file.parent.is_dir() or not any(file.parent.glob("latest.*")):
        return
    wrong = wrong_latest(stores, newest[1])
    if wrong:
        yield Problem(
            file,
            f"{file.with_suffix('.*')} {wrong}",
            "the files are written again from the newest forecast",
            lambda: _restore_latest(stores),
        )


def _restore_latest(stores: CityStores) -> Mended:
    """Write the latest files from the newest forecast that is stored; without one they are removed."""
    newest = latest_forecast(stores)
    if newest is None:
        for file in stores.folder.glob("latest.*"):
            file.unlink(missing_ok=True)
        return Mended("latest.* were removed, as there is no forecast")
    write_latest(stores, newest[1])
    start = stores.city.isoformat(newest[1]["init_time"].values[0])
    return Mended(f"latest.* were written from the forecast of {start}")


def remove_forecasts_after(stores: CityStores, time: np.datetime64, dry_run: bool = False) -> dict[str, int]:
    """Remove the forecasts with later init times, their scores and their rows of the ledger, and restore `latest.*`.

    They were made by a clock that stood ahead; the service makes the forecasts of these slots when their time comes.

    Parameters
    ----------
    stores
        The city and its stores.
    time
        The last init time that stays, naive UTC.
    dry_run
        Whether to count only.

    Returns
    -------
    dict[str, int]
        How many forecasts, scores and rows of the ledger were removed.
    """
    removed = {"forecasts": 0, "scores": 0, "ledger_rows": 0}
    for job, name in _PRODUCTS.items():
        for folder in sorted((stores.folder / name).glob("*/")):
            store = _store(stores, job, folder.name)
            if dry_run:
                removed[name] += int(np.count_nonzero(store.check()[0] > time))
            else:
                removed[name] += len(store.remove_after(time))
    if dry_run:
        since = time + np.timedelta64(1, "s")
        removed["ledger_rows"] = sum(len(stores.ledger.runs(job, stores.city.name, since)) for job in (JOB, VERIFY))
        return removed
    removed["ledger_rows"] = stores.ledger.forget(stores.city.name, (JOB, VERIFY), time)
    if any(stores.folder.glob("latest.*")):
        _restore_latest(stores)
    return removed
