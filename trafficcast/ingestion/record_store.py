"""The record store: the records as Parquet files by day and hour, and a small database that defines their state.

    data/<city>/records/2008-05-17/14.3.parquet     the records of an hour (UTC), sorted, with the source of each
    data/<city>/records/state.sqlite                which files are current; their counts, slot by slot; each
                                                    vehicle's last point; each source and the numbers of its rows

Files are never changed: an ingest writes new ones and then commits one transaction, which makes the new state current.
After a crash before it the old state is current, after it the new one.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trafficcast.config.city import FLOW_KINDS, City
from trafficcast.errors import DamagedFile, InputError
from trafficcast.ingestion.counting import TOTALS, Count, _first_of_each, _Slot, _vehicle_ends
from trafficcast.ingestion.deduplication import _deduplicate, _Rows
from trafficcast.ingestion.hour_files import (
    _file_of,
    _hours_of_file,
    _read_hour_file,
    _sources_of_file,
    _span_of_file,
    _write_hour_file,
)
from trafficcast.ingestion.spans import Span
from trafficcast.ingestion.vehicles import _VehicleTable
from trafficcast.records.records import HOUR_US, Points, Records, Trips, ZoneTrips
from trafficcast.records.sources import Source
from trafficcast.stores.observed import Evidence
from trafficcast.stores.sqlite import checked_rows, decoding, open_database

_KINDS: dict[str, type[Records]] = {"points": Points, "trips": Trips, "zone-trips": ZoneTrips}
_WAIT_SECONDS = 30.0
_READER_WAIT_SECONDS = 0.2  # a commit takes some 50 ms
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (
    name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER AS (checksum(name, value)) STORED
);
CREATE TABLE IF NOT EXISTS sources (
    digest TEXT PRIMARY KEY, facts TEXT NOT NULL, checksum INTEGER AS (checksum(digest, facts)) STORED
);
CREATE TABLE IF NOT EXISTS hours (
    hour INTEGER PRIMARY KEY, file TEXT NOT NULL, records INTEGER NOT NULL,
    checksum INTEGER AS (checksum(hour, file, records)) STORED
);
CREATE TABLE IF NOT EXISTS slots (
    slot INTEGER PRIMARY KEY, flow BLOB NOT NULL, minutes BLOB NOT NULL, inflow INTEGER NOT NULL,
    outflow INTEGER NOT NULL, records INTEGER NOT NULL, vehicles INTEGER NOT NULL, covered INTEGER NOT NULL,
    checksum INTEGER AS (checksum(slot, flow, minutes, inflow, outflow, records, vehicles, covered)) STORED
);
CREATE TABLE IF NOT EXISTS vehicles (
    code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first INTEGER NOT NULL,
    last INTEGER NOT NULL, lon REAL NOT NULL, lat REAL NOT NULL, occupied INTEGER NOT NULL,
    checksum INTEGER AS (checksum(code, name, first, last, lon, lat, occupied)) STORED
);
CREATE TABLE IF NOT EXISTS pruned (
    code INTEGER PRIMARY KEY, time INTEGER NOT NULL, lon REAL NOT NULL, lat REAL NOT NULL, occupied INTEGER NOT NULL,
    checksum INTEGER AS (checksum(code, time, lon, lat, occupied)) STORED
);
CREATE TABLE IF NOT EXISTS unpublished (day TEXT PRIMARY KEY, checksum INTEGER AS (checksum(day)) STORED);
CREATE TABLE IF NOT EXISTS flows (
    day TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL,
    checksum INTEGER AS (checksum(day, size, changed)) STORED
);
CREATE TABLE IF NOT EXISTS observed (
    day TEXT PRIMARY KEY, slots BLOB NOT NULL, checksum INTEGER AS (checksum(day, slots)) STORED
);
CREATE TABLE IF NOT EXISTS inbox (
    name TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL,
    checksum INTEGER AS (checksum(name, size, changed)) STORED
);
"""
_COUNTS = b"\2"  # stands before the counts of minutes; an earlier version had a 0 or 1 for each minute
_LATE = b"\3"  # stands before flows with late flow; an earlier version had none


@dataclass
class State:
    """The state of a record store, in memory; changes count only after `RecordStore.commit`.

    Attributes
    ----------
    kind
        Kind of the records: points, trips or zone-trips; None in an empty store.
    rules
        The settings by which the flows were counted.
    generation
        Number of the last ingest; part of the names of the files that it wrote.
    retained_from
        Time before which records are no longer stored, microseconds since 1970 UTC.
    totals
        Totals in the order of `counting.TOTALS`, (total).
    files
        File and number of rows of each span of hours; a record that several sources gave has a row for each.
    vehicles
        The vehicle table.
    pruned
        The last point of each vehicle among the records that are no longer stored.
    last_source
        The highest number that a source was ever given.
    """

    kind: str | None = None
    rules: dict[str, Any] = field(default_factory=dict)
    generation: int = 0
    retained_from: int = 0
    totals: np.ndarray = field(default_factory=lambda: np.zeros(len(TOTALS), np.int64))
    files: dict[Span, tuple[str, int]] = field(default_factory=dict)
    vehicles: _VehicleTable = field(default_factory=_VehicleTable)
    pruned: Points = field(default_factory=lambda: Points.concatenate([]))
    last_source: int = 0


@dataclass(frozen=True)
class SourceFacts:
    """What is known of one source: how it was read, and the numbers of its rows.

    Attributes
    ----------
    name
        Name of the source.
    digest
        Name and SHA-256 of the source, by which it is recognised.
    format
        Format of the source.
    rows
        Number of rows read.
    dropped
        Number of dropped rows by reason.
    outside
        Number of stored records outside the box.
    notes
        Notes of the reader for the user.
    number
        Number of the source, which its stored rows have; 0 for a source that an earlier version ingested.
    records
        Number of its records that were not dropped, repeats included; None if an earlier version ingested it.
    way
        All that decided which records it gave (see `way_of_reading`); empty where that is not known.
    taken
        When it was ingested, ISO 8601 in UTC; "" if an earlier version ingested it.
    """

    name: str
    digest: str
    format: str
    rows: int
    dropped: dict[str, int]
    outside: int
    notes: list[str]
    number: int = 0
    records: int | None = None
    way: dict[str, Any] = field(default_factory=dict)
    taken: str = ""

    @property
    def kept(self) -> int:
        """Return the number of records that are counted for this source.

        Returns
        -------
        int
            The records that were neither dropped nor given by an earlier source.
        """
        if self.records is None:
            return self.rows - sum(self.dropped.values())
        return self.records - self.dropped.get("duplicate", 0)


class _InboxFile(NamedTuple):
    """A file of an inbox: its path in it, its size in bytes and the time of its last change, nanoseconds."""

    name: str
    size: int
    changed: int


@dataclass(frozen=True)
class RecordStore:
    """The records of one city.

    Attributes
    ----------
    root
        Folder of the store.
    read_only
        Whether the store never makes or changes a file, and gives up soon while a writer has locked the database.
    """

    root: Path
    read_only: bool = False

    def exists(self) -> bool:
        """Say whether anything was ever ingested.

        Returns
        -------
        bool
            True where there is a database.
        """
        return self.file.exists()

    @property
    def file(self) -> Path:
        """The database.

        Returns
        -------
        Path
            The file state.sqlite, which need not exist.
        """
        return self.root / "state.sqlite"

    def load(self) -> State:
        """Read the current state.

        Returns
        -------
        State
            The state; an empty one where nothing was ever ingested.

        Raises
        ------
        InputError
            The database is damaged.
        """
        state = State()
        if not self.exists():
            return state
        with self._database() as database, decoding():
            facts = {name: json.loads(value) for name, value in checked_rows(database, "facts")}
            if "kind" not in facts:
                return state
            files = {_span_of_file(file): (file, n) for _, file, n in checked_rows(database, "hours")}
            vehicles = list(checked_rows(database, "vehicles", "ORDER BY code"))
            pruned = list(checked_rows(database, "pruned", "ORDER BY code"))
            state = State(facts["kind"], facts["rules"], facts["generation"], facts["retained_from"])
            state.totals = np.array(facts["totals"], np.int64)
            state.last_source = facts.get("last_source", 0)
            state.files = files
            state.pruned = _as_points(pruned)
            columns = list(zip(*vehicles, strict=True)) or [()] * 7
            state.vehicles = _VehicleTable(
                list(columns[1]),
                np.array(columns[2], np.int64),
                np.array(columns[3], np.int64),
                np.column_stack([np.array(columns[4], np.float64), np.array(columns[5], np.float64)]),
                np.array(columns[6], np.int8),
            )
            return state

    def commit(
        self,
        state: State,
        delta: Count,
        sources: list[SourceFacts],
        days: list[np.datetime64],
        replace_slots: bool = False,
        forgotten: Iterable[SourceFacts] = (),
    ) -> None:
        """Make a state the current one, in one transaction.

        Parameters
        ----------
        state
            The state, except for slots and sources.
        delta
            Count to add to the stored slots; its last points name the vehicles that changed.
        sources
            The sources that are new, or whose facts have changed.
        days
            Local days whose flows have to be published.
        replace_slots
            Whether the slots of `delta` replace the stored ones instead of being added to them.
        forgotten
            The sources that are no longer known.
        """
        facts = {
            "kind": state.kind,
            "rules": state.rules,
            "generation": state.generation,
            "retained_from": state.retained_from,
            "totals": state.totals.tolist(),
            "last_source": state.last_source,
        }
        changed = np.unique(delta.last.vehicle)
        names = [state.vehicles.names[code] for code in changed]
        first = state.vehicles.first_time[changed].tolist()
        last = _rows(state.vehicles.last_points(changed))
        vehicles = [(code, name, f, *rest) for name, f, (code, *rest) in zip(names, first, last, strict=True)]
        with self._database() as database:
            if replace_slots:
                database.execute("DELETE FROM slots")
            with decoding():
                found = (row for n in delta.slots for row in checked_rows(database, "slots", "WHERE slot = ?", (n,)))
                stored = dict(map(_as_slot, found))
            for n, slot in delta.slots.items():
                whole = stored[n].plus(slot) if n in stored else slot
                if whole.differs():
                    row = _slot_row(n, whole)
                    database.execute("INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                else:  # its last record was taken back
                    database.execute("DELETE FROM slots WHERE slot = ?", (n,))
            _write_files(database, state.files)
            database.executemany("INSERT OR REPLACE INTO vehicles VALUES (?, ?, ?, ?, ?, ?, ?)", vehicles)
            described = [(source.digest, json.dumps(vars(source))) for source in sources]
            database.executemany("DELETE FROM sources WHERE digest = ?", [(source.digest,) for source in forgotten])
            database.executemany(
                "INSERT INTO sources VALUES (?, ?) ON CONFLICT (digest) DO UPDATE SET facts = excluded.facts", described
            )
            database.executemany("INSERT OR IGNORE INTO unpublished VALUES (?)", [(str(day),) for day in days])
            rows = [(name, json.dumps(value)) for name, value in facts.items()]
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def known(self, digests: list[str]) -> dict[str, SourceFacts]:
        """Return which sources were ingested before.

        Parameters
        ----------
        digests
            Digests of sources.

        Returns
        -------
        dict[str, SourceFacts]
            The facts on those that were ingested, by their digests.
        """
        if not self.exists():
            return {}
        with self._database() as database, decoding():
            rows = (row for d in digests for row in checked_rows(database, "sources", "WHERE digest = ?", (d,)))
            return {digest: SourceFacts(**json.loads(facts)) for digest, facts in rows}

    def sources(self) -> list[SourceFacts]:
        """Return the facts on every source.

        Returns
        -------
        list[SourceFacts]
            The facts in the order of ingestion; none where nothing was ever ingested.
        """
        if not self.exists():
            return []
        with self._database() as database, decoding():
            rows = checked_rows(database, "sources", "ORDER BY rowid")
            return [SourceFacts(**json.loads(facts)) for _, facts in rows]

    def slots(self, first: int, last: int) -> dict[int, _Slot]:
        """Read the stored slots of a period.

        Parameters
        ----------
        first
            Number of the first slot since 1970.
        last
            Number of the last slot, inclusive.

        Returns
        -------
        dict[int, _Slot]
            The slots by number.
        """
        with self._database() as database, decoding():
            where = "WHERE slot BETWEEN ? AND ? ORDER BY slot"
            return dict(_as_slot(row) for row in checked_rows(database, "slots", where, (first, last)))

    def slot_facts(self) -> np.ndarray:
        """Read the sums of every stored slot.

        Returns
        -------
        np.ndarray
            Number, inflow, outflow, records, vehicles and minutes with a record, (slot, 6), in the order of time.
        """
        with self._database() as database, decoding():
            rows = [(slot, *sums) for slot, _, _, *sums in checked_rows(database, "slots", "ORDER BY slot")]
            return np.array(rows, np.int64).reshape(-1, 6)

    def evidence(self, city: City, kind: str | None) -> Evidence:
        """Read what the records say of the feed.

        Parameters
        ----------
        city
            The city.
        kind
            Kind of the stored records; the vehicles of other kinds than points are unknown.

        Returns
        -------
        Evidence
            The evidence of every stored slot.
        """
        with self._database() as database, decoding():
            rows = checked_rows(database, "slots", "ORDER BY slot")
            number, _, minutes, _, _, records, vehicles, _ = list(zip(*rows, strict=True)) or [()] * 8
            counts = [_as_minutes(*pair) for pair in zip(minutes, records, strict=True)]
            return Evidence(
                np.array(number, np.int64),
                np.array(counts, np.int32).reshape(-1, city.slot_minutes),
                np.array(vehicles, np.int64) if kind == "points" else None,
                kind != "points",
            )

    def unpublished(self) -> list[np.datetime64]:
        """Return the local days whose flows changed since they were published.

        Returns
        -------
        list[np.datetime64]
            The days in the order of time.
        """
        with self._database() as database, decoding():
            return [np.datetime64(day, "D") for (day,) in checked_rows(database, "unpublished", "ORDER BY day")]

    def flow_files(self) -> dict[str, tuple[int, int]]:
        """Return what the flow files were like when they were published.

        Returns
        -------
        dict[str, tuple[int, int]]
            Size in bytes and time of the last change, nanoseconds, by the local day.
        """
        with self._database() as database, decoding():
            if self.read_only and not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'flows'").fetchone():
                return {}
            return {day: (size, changed) for day, size, changed in checked_rows(database, "flows")}

    def published_observed(self) -> dict[str, np.ndarray]:
        """Return which slots were observed in the days that were published.

        Returns
        -------
        dict[str, np.ndarray]
            Numbers of the observed slots since 1970, rising, by the local day.
        """
        with self._database() as database, decoding():
            rows = checked_rows(database, "observed")
            return {day: np.frombuffer(slots, "<i8") for day, slots in rows}

    def forget_flow_file(self, day: np.datetime64) -> None:
        """Note that a local day has no flow file any more.

        Parameters
        ----------
        day
            The local day.
        """
        with self._database() as database:
            for table in ("flows", "observed", "unpublished"):
                database.execute(f"DELETE FROM {table} WHERE day = ?", (str(day),))

    def note_flow_files(self, observed: Mapping[np.datetime64, np.ndarray], file_of: Callable[[Any], Path]) -> None:
        """Note what the flow files of local days are like, and that the days are published.

        Parameters
        ----------
        observed
            Numbers of each day's observed slots since 1970, rising.
        file_of
            Returns the file of a day.
        """
        with self._database() as database:
            for day, slots in observed.items():
                facts, name = file_of(day).stat(), str(day)
                row = name, facts.st_size, facts.st_mtime_ns
                database.execute("INSERT OR REPLACE INTO flows VALUES (?, ?, ?)", row)
                row_of_slots = name, slots.astype("<i8").tobytes()
                database.execute("INSERT OR REPLACE INTO observed VALUES (?, ?)", row_of_slots)
                database.execute("DELETE FROM unpublished WHERE day = ?", (name,))

    def inbox_files(self) -> tuple[set[_InboxFile], dict[str, Any] | None]:
        """Return the files of the inbox that were ingested, and how they were read.

        Returns
        -------
        tuple[set[_InboxFile], dict[str, Any] | None]
            The files, and their way of reading (see `way_of_reading`); None where it is not known.
        """
        if not self.exists():
            return set(), None
        with self._database() as database, decoding():
            files = {_InboxFile(*row) for row in checked_rows(database, "inbox")}
            ways = [json.loads(way) for _, way in checked_rows(database, "facts", "WHERE name = 'inbox_way'")]
            return files, ways[0] if ways else None

    def add_inbox_files(self, files: list[_InboxFile], way: dict[str, Any]) -> None:
        """Note that files of the inbox were ingested; those that were read otherwise are no longer known.

        Parameters
        ----------
        files
            The files.
        way
            How they were read.
        """
        _, before = self.inbox_files()
        with self._database() as database:
            if before is not None and before != way:
                database.execute("DELETE FROM inbox")
            database.execute("INSERT OR REPLACE INTO facts VALUES ('inbox_way', ?)", (json.dumps(way),))
            database.executemany("INSERT OR REPLACE INTO inbox VALUES (?, ?, ?)", files)

    def restore(self, pruned: Points, inbox: list[tuple[Any, ...]], inbox_way: dict[str, Any] | None) -> None:
        """Write what a commit does not write into a database that was made anew.

        Parameters
        ----------
        pruned
            The last point of each vehicle among the records that are no longer stored.
        inbox
            The files of the inbox that were ingested.
        inbox_way
            How they were read; None where it is not known.
        """
        with self._database() as database:
            if inbox_way is not None:
                database.execute("INSERT OR REPLACE INTO facts VALUES ('inbox_way', ?)", (json.dumps(inbox_way),))
            database.executemany("INSERT OR REPLACE INTO pruned VALUES (?, ?, ?, ?, ?)", _rows(pruned))
            database.executemany("INSERT OR REPLACE INTO inbox VALUES (?, ?, ?)", inbox)

    def clean(self, state: State) -> None:
        """Remove the files that do not belong to a state, and the staging of an ingest that was killed.

        Parameters
        ----------
        state
            The state.
        """
        for folder in self.root.glob(".staging-*"):
            shutil.rmtree(folder)
        current = {self.root / file for file, _ in state.files.values()}
        for file in self.root.glob("????-??-??/*.parquet"):
            if file not in current:
                file.unlink()
        for folder in self.root.glob("????-??-??"):
            if not any(folder.iterdir()):
                folder.rmdir()

    def read(self, state: State, span: Span) -> Records:
        """Read the records of one of the store's files.

        Parameters
        ----------
        state
            The state of the store.
        span
            The hours of the file.

        Returns
        -------
        Records
            The records, sorted and deduplicated; their vehicles are codes of the state's vehicle table. There is none
            where the store has no such file.

        Raises
        ------
        InputError
            The file is damaged.
        """
        return _deduplicate(self.read_rows(state, span))[0]

    def read_rows(self, state: State, span: Span | None) -> _Rows:
        """Read the rows of one of the store's files.

        Parameters
        ----------
        state
            The state of the store.
        span
            The hours of the file.

        Returns
        -------
        _Rows
            The records of each source, sorted; their vehicles are codes of the state's vehicle table.

        Raises
        ------
        InputError
            The file is damaged.
        """
        if span not in state.files:
            return _Rows.concatenate(_KINDS[state.kind or "points"], [])
        return self.read_file(state, state.files[span][0])

    def files_of(self, state: State, sources: frozenset[int]) -> list[Span]:
        """Find the files to which some sources gave records.

        Parameters
        ----------
        state
            The state of the store.
        sources
            Numbers of the sources.

        Returns
        -------
        list[Span]
            The hours of each file, rising.

        Raises
        ------
        InputError
            A file is damaged.
        """
        if not sources:
            return []
        return [span for span, (file, _) in sorted(state.files.items()) if sources & _sources_of_file(self.root / file)]

    def hours_of(self, state: State, span: Span) -> Counter[int]:
        """Count the rows of a file by hour.

        Parameters
        ----------
        state
            The state of the store.
        span
            The hours of the file.

        Returns
        -------
        Counter[int]
            The number of rows of each hour since 1970 that has any.

        Raises
        ------
        InputError
            The file is damaged.
        """
        return _hours_of_file(self.root / state.files[span][0])

    def read_file(self, state: State, file: str) -> _Rows:
        """Read the rows of a file, of whatever state.

        Parameters
        ----------
        state
            The state of the store, whose vehicle table has, or gets, the codes.
        file
            Name of the file, relative to the root of the store.

        Returns
        -------
        _Rows
            The rows, as `read_rows` returns them.

        Raises
        ------
        InputError
            The file is damaged.
        """
        names, rows = _read_hour_file(self.root / file, _KINDS[state.kind or "points"])
        return _with_codes(rows, state.vehicles.codes(names))

    def prune(self, state: State, before: int) -> None:
        """Remove old records, all but the last one of each vehicle.

        Parameters
        ----------
        state
            The state of the store, which is updated.
        before
            Time before which records are removed, microseconds since 1970 UTC; a whole hour.
        """
        kept, last = {}, state.pruned
        generation = state.generation + 1  # an ingest may have written files of the present one
        for span, file in sorted(state.files.items()):
            if span.first * HOUR_US >= before:
                kept[span] = file
                continue
            rows = self.read_rows(state, span)
            is_old = rows.records.time < before
            records = _deduplicate(rows.take(is_old))[0]
            if isinstance(records, Points):
                last = _first_of_each(_vehicle_ends(records)[1], last)
            hours = rows.records.time // HOUR_US
            for part in span._parts_from(before // HOUR_US):  # no removed record lies in the hours of a file
                of_part = rows.take((hours >= part.first) & (hours < part.end))
                if len(of_part):
                    _write_hour_file(self.root / _file_of(part, generation), of_part, state.vehicles.names)
                    kept[part] = _file_of(part, generation), len(of_part)
        facts = {"retained_from": before, "generation": generation}
        with self._database() as database:
            database.executemany("INSERT OR REPLACE INTO pruned VALUES (?, ?, ?, ?, ?)", _rows(last))
            _write_files(database, kept)
            rows_of_facts = [(name, json.dumps(value)) for name, value in facts.items()]
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows_of_facts)
        state.files, state.generation = kept, generation
        state.retained_from, state.pruned = before, last

    def _database(self) -> AbstractContextManager[sqlite3.Connection]:
        """Open the database for one transaction."""
        if self.read_only and self.exists() and self.file.stat().st_size == 0:
            raise DamagedFile(self.file, "it is empty", self.root.parent.name)
        wait = _READER_WAIT_SECONDS if self.read_only else _WAIT_SECONDS
        return open_database(self.file, _TABLES, self.root.parent.name, self.read_only, wait)


def _write_files(database: sqlite3.Connection, files: Mapping[Span, tuple[str, int]]) -> None:
    """Bring the table of the files of records to these; a row that stays is not written again."""
    stored = {row[0] for row in database.execute("SELECT file FROM hours")}
    current = {file for file, _ in files.values()}
    database.executemany("DELETE FROM hours WHERE file = ?", [(file,) for file in stored - current])
    new = [(span.first, file, n) for span, (file, n) in files.items() if file not in stored]
    database.executemany("INSERT INTO hours VALUES (?, ?, ?)", new)


def _kind_of(records: Records, source: Source, city: City, kind: str | None) -> str:
    """Return the kind of a source's records, which must be the kind of the city's other records.

    Raises InputError for another kind, and for trips between zones where the city's zones are not known.
    """
    (found,) = (name for name, known in _KINDS.items() if isinstance(records, known))
    if kind not in (None, found):
        raise InputError(
            f"{source.path} holds {found}, '{city.name}' holds {kind}: their flows do not mix; ingest it under a city "
            "of another name"
        )
    if found == "zone-trips" and city.feed.zones is None:
        raise InputError(
            f"{source.path} holds trips between zones: name the file of their polygons as zones under "
            f"[cities.{city.name}.feed]"
        )
    return found


def _with_codes(rows: _Rows, codes: np.ndarray) -> _Rows:
    """Return sorted rows with vehicle i as codes[i], again in the order of (vehicle, time, source)."""
    if not isinstance(rows.records, Points) or not len(rows):
        return rows
    vehicle = codes[rows.records.vehicle]
    recoded = _Rows(replace(rows.records, vehicle=vehicle), rows.source)
    return recoded if (np.diff(vehicle) >= 0).all() else recoded.take(np.argsort(vehicle, kind="stable"))


def _slot_row(number: int, slot: _Slot) -> tuple[Any, ...]:
    """Return a slot as a row of the database."""
    inflow, outflow = slot.flow.sum(axis=1).tolist()
    covered = int(np.count_nonzero(slot.minutes))
    late = slot.late.astype("<i4").tobytes()
    flow = _LATE + len(late).to_bytes(4, "little") + zlib.compress(slot.flow.astype(np.int32).tobytes() + late, 1)
    minutes = _COUNTS + slot.minutes.astype("<i4").tobytes()
    return number, flow, minutes, inflow, outflow, int(slot.minutes.sum()), slot.vehicles, covered


def _as_slot(row: tuple[Any, ...]) -> tuple[int, _Slot]:
    """Return the number and the slot of a row of the database."""
    number, flow, minutes, _, _, records, vehicles, _ = row
    flow, late = _as_flow(flow)
    return number, _Slot(flow, vehicles, _as_minutes(minutes, records), late)


def _as_flow(packed: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the flow and the late flow of a slot, as the database has them; an earlier version had no late flow."""
    size = int.from_bytes(packed[1:5], "little") if packed[:1] == _LATE else 0
    numbers = np.frombuffer(zlib.decompress(packed[5:] if packed[:1] == _LATE else packed), np.int32)
    flow, late = np.split(numbers, [len(numbers) - size // numbers.itemsize])
    return flow.reshape(len(FLOW_KINDS), -1), late.reshape(2, -1).astype(np.int64)


def _as_minutes(minutes: bytes, records: int) -> np.ndarray:
    """Return the number of records in each minute of a slot, (minute) int32, as the database has it.

    An earlier version kept which minutes have a record, among which the slot's records are spread.
    """
    if minutes[:1] == _COUNTS:
        return np.frombuffer(minutes, "<i4", offset=1)
    has_record = np.frombuffer(minutes, np.bool_)
    each, left = divmod(records, max(int(np.count_nonzero(has_record)), 1))
    return (has_record * (each + (np.cumsum(has_record) <= left))).astype(np.int32)


def _rows(points: Points) -> Iterator[tuple[Any, ...]]:
    """Yield points as rows of the database."""
    columns = (points.vehicle, points.time, points.lon, points.lat, points.occupied)
    return zip(*(column.tolist() for column in columns), strict=True)


def _as_points(rows: list[tuple[Any, ...]]) -> Points:
    """Return rows of the database as points."""
    columns = list(zip(*rows, strict=True)) or [()] * 5
    return Points(*(np.array(c, d) for c, d in zip(columns, Points.DTYPES.values(), strict=True)))
