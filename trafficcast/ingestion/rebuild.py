"""Rebuild a record store's database from its files of records, and from what can still be read of the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from trafficcast.errors import DamagedFile
from trafficcast.files import set_aside, writer_lock
from trafficcast.ingestion.counting import Count, _first_of_each
from trafficcast.ingestion.hour_files import _MAY_BE_MISSING, _sources_of_file, _span_of_file
from trafficcast.ingestion.ingest import _check_is_whole, _count_anew, _local_days, _publish, _rules, _zones
from trafficcast.ingestion.record_store import _KINDS, _TABLES, RecordStore, SourceFacts, State, _as_points, _as_slot
from trafficcast.ingestion.vehicles import _VehicleTable
from trafficcast.records.records import HOUR_US
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.sqlite import Row, check_database, readable_rows


def damaged_records(stores: CityStores, on_read: Callable[[Path], None] = lambda file: None) -> list[DamagedFile]:
    """Read the whole record store, to find damage.

    Parameters
    ----------
    stores
        The city and its stores.
    on_read
        Called with each file when it has been read.

    Returns
    -------
    list[DamagedFile]
        An error for the database, or else for each file of records that cannot be read.
    """
    store = RecordStore(stores.records, read_only=True)
    try:
        _check_database(store)
    except DamagedFile as error:
        return [error]
    if not store.exists():
        return []
    on_read(store.file)
    damaged, state = [], store.load()
    for span in sorted(state.files):
        try:
            store.read(state, span)
        except DamagedFile as error:
            damaged.append(error)
        on_read(store.root / state.files[span][0])
    return damaged


def _check_database(store: RecordStore) -> None:
    """Read the whole database of a record store, to find damage.

    Parameters
    ----------
    store
        The record store.

    Raises
    ------
    DamagedFile
        The database is damaged, empty or gone.
    """
    _check_is_whole(store)
    if store.exists():
        check_database(store.file, _TABLES, _is_right, store.root.parent.name)
        store.load()


def rebuild_records(stores: CityStores) -> tuple[Path | None, list[Path], int, bool]:
    """Make the database of a record store anew, count its records again, and publish the flows.

    Files of records that cannot be read are set aside. What only the database knows is taken from it as far as it can
    be read. Where records were lost, it is no longer known how the files were read, so that each that is ingested again
    takes the place of what is left of it.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    tuple[Path | None, list[Path], int, bool]
        Where the old database lies now, if there was one; the files of records that were set aside or are gone; the
        number of slots whose counts are lost, as their records are no longer kept; and whether all files that were
        ingested are still known.
    """
    city, store = stores.city, RecordStore(stores.records)
    with writer_lock(stores.folder):
        if not damaged_records(stores):
            return None, [], 0, True  # somebody has mended them meanwhile
        wanted = {str(row[1]) for row in readable_rows(store.file, "hours")} if store.exists() else set()
        state, lost = _state_of_files(store, wanted)
        old = _Old(store.file, city.slot_us)
        state.retained_from = old.retained_from
        state.files = {span: file for span, file in state.files.items() if span.end * HOUR_US > old.retained_from}
        _take_pruned(state, old)
        aside = set_aside(store.file) if store.exists() else None
        state.last_source = max([state.last_source, *(source.number for source in old.sources)])
        zones = _zones(city, state)
        state.rules = _rules(city, state, zones)
        # One thread: the vehicles get their codes in the order of the files.
        delta = _count_anew(city, store, state, zones, 1)
        slots = {**delta.slots, **{n: slot for n, slot in old.slots.items() if n * city.slot_us < old.retained_from}}
        delta = Count(slots, delta.totals, last=_first_of_each(delta.last, state.pruned))
        if old.totals is not None and old.retained_from:
            state.totals = old.totals
        sources = [replace(one, way={}) for one in old.sources if one.number] if lost else old.sources
        store.commit(state, delta, sources, _local_days(city, slots), replace_slots=True)
        store.restore(state.pruned, [] if lost else old.inbox, old.inbox_way)
        if state.files:
            _publish(stores, store, state, zones)
    return aside, lost, old.lost_slots, old.knows_sources and not lost


class _Old:
    """What can be read of a damaged database and is not in the files of records."""

    def __init__(self, file: Path, slot_us: int) -> None:
        self.slots: dict[int, Any] = {}
        facts: dict[str, Any] = {}
        self.sources: list[SourceFacts] = []
        self.pruned: list[tuple[str, Row]] = []
        rows = {name: readable_rows(file, name) if file.exists() else [] for name in _READ}
        names = {row[0]: row[1] for row in rows["vehicles"]}
        for table, one in ((name, row) for name in _READ for row in rows[name]):
            with suppress(*_WRONG):
                _is_right(table, one)
                if table == "facts":
                    facts[one[0]] = json.loads(one[1])
                elif table == "sources":
                    self.sources.append(SourceFacts(**json.loads(one[1])))
                elif table == "slots":
                    number, slot = _as_slot(one)
                    self.slots[number] = slot
                elif table == "pruned":
                    self.pruned.append((names[one[0]], one))
        self.inbox, self.inbox_way = rows["inbox"], facts.get("inbox_way")
        self.retained_from = int(facts.get("retained_from", 0))
        self.totals = np.array(facts["totals"], np.int64) if "totals" in facts else None
        self.knows_sources, self.lost_slots = False, 0
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as whole,
        ):
            numbers = whole.execute("SELECT count(*) FROM (SELECT facts FROM sources ORDER BY rowid)").fetchone()
            self.knows_sources = 0 < numbers[0] == len(self.sources)
            known = {number for (number,) in whole.execute("SELECT slot FROM slots")} - self.slots.keys()
            self.lost_slots = sum(number * slot_us < self.retained_from for number in known)


_READ = ("facts", "sources", "slots", "vehicles", "pruned", "inbox")
_WRONG = (sqlite3.Error, ValueError, TypeError, KeyError, IndexError, OverflowError, OSError)


def _is_right(table: str, row: Row) -> None:
    """Raise an error where a row holds other values than a writer gave it."""
    if table in ("facts", "sources"):
        json.loads(row[1])
    elif table == "slots":
        flow = _as_slot(row)[1].flow
        if flow.sum(axis=1).tolist() != [row[3], row[4]]:
            raise ValueError("a slot's flows do not have their sums")
    elif table == "observed":
        np.datetime64(row[0], "D")
        np.frombuffer(row[1], "<i8")
    elif table == "unpublished":
        np.datetime64(row[0], "D")
    elif not all(isinstance(value, str | int | float) for value in row):
        raise ValueError("a row has a value of another kind")


def _state_of_files(store: RecordStore, wanted: set[str]) -> tuple[State, list[Path]]:
    """Return a state of the newest files that can be read, and the files that were set aside or are gone."""
    state, lost = State(), [store.root / name for name in sorted(wanted) if not (store.root / name).exists()]
    files = []
    for file in store.root.glob("????-??-??/*.parquet"):
        name = str(file.relative_to(store.root))
        span, generation = _span_of_file(name), int(file.name.split(".")[1])
        # First the files that the database names, then those that others split, then the newest ones.
        files.append((name not in wanted, span.first - span.end, -generation, name, span))
        state.generation = max(state.generation, generation)
    for *_, name, span in sorted(files):
        if any(span.first < other.end and other.first < span.end for other in state.files):
            continue
        try:
            state.kind = state.kind or _kind_of_file(store.root / name)
            state.last_source = max(state.last_source, *_sources_of_file(store.root / name))
            store.read_file(replace(state, vehicles=_VehicleTable()), name)
        except (DamagedFile, OSError, ValueError):
            lost.append(set_aside(store.root / name))
            continue
        state.files[span] = name, 0
    return state, lost


def _kind_of_file(file: Path) -> str:
    """Return the kind of records that a file has columns for."""
    with closing(pq.ParquetFile(file)) as opened:
        columns = set(opened.schema_arrow.names) - _MAY_BE_MISSING
    return next(name for name, kind in _KINDS.items() if columns == set(kind.DTYPES) - _MAY_BE_MISSING)


def _take_pruned(state: State, old: _Old) -> None:
    """Take over the last points of vehicles before the records that are kept, with new codes of the vehicles."""
    state.vehicles = _VehicleTable([name for name, _ in old.pruned])
    rows = [(code, *row[1:]) for code, (_, row) in enumerate(old.pruned)]
    state.pruned = _as_points(rows)
    state.vehicles.update(Count(first=state.pruned, last=state.pruned))
