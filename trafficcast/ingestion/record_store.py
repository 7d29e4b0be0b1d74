"""The record store: the records as Parquet files by day and hour, and a small database that defines their state.

    data/<city>/records/2008-05-17/14.3.parquet     the records of an hour (UTC), sorted and deduplicated
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
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trafficcast.config.city import FLOW_KINDS, City
from trafficcast.errors import DamagedFile, InputError
from trafficcast.ingestion.counting import TOTALS, Count, _first_of_each, _Slot, _vehicle_ends
from trafficcast.ingestion.hour_files import _read_hour_file
from trafficcast.ingestion.vehicles import _VehicleTable
from trafficcast.records.records import HOUR_US, Points, Records, Trips, ZoneTrips
from trafficcast.records.sources import Source
from trafficcast.stores.observed import Evidence
from trafficcast.stores.sqlite import decoding, open_database

_KINDS: dict[str, type[Records]] = {"points": Points, "trips": Trips, "zone-trips": ZoneTrips}
_WAIT_SECONDS = 30.0
_READER_WAIT_SECONDS = 0.2  # a commit takes some 50 ms
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sources (digest TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS hours (hour INTEGER PRIMARY KEY, file TEXT NOT NULL, records INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS slots (
    slot INTEGER PRIMARY KEY, flow BLOB NOT NULL, minutes BLOB NOT NULL, inflow INTEGER NOT NULL,
    outflow INTEGER NOT NULL, records INTEGER NOT NULL, vehicles INTEGER NOT NULL, covered INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS vehicles (
    code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first INTEGER NOT NULL,
    last INTEGER NOT NULL, lon REAL NOT NULL, lat REAL NOT NULL, occupied INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS pruned (
    code INTEGER PRIMARY KEY, time INTEGER NOT NULL, lon REAL NOT NULL, lat REAL NOT NULL, occupied INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS unpublished (day TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS flows (day TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS observed (day TEXT PRIMARY KEY, slots BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS inbox (name TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL);
"""
_COUNTS = b"\2"  # stands before the counts of minutes; an earlier version had a 0 or 1 for each minute
_LATE = b"\3"  # stands before flows with late flow; an earlier version had none
_SELECT_SLOTS = "SELECT slot, flow, records, vehicles, minutes FROM slots"


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
    hours
        File and number of records of each hour since 1970.
    vehicles
        The vehicle table.
    pruned
        The last point of each vehicle among the records that are no longer stored.
    """

    kind: str | None = None
    rules: dict[str, Any] = field(default_factory=dict)
    generation: int = 0
    retained_from: int = 0
    totals: np.ndarray = field(default_factory=lambda: np.zeros(len(TOTALS), np.int64))
    hours: dict[int, tuple[str, int]] = field(default_factory=dict)
    vehicles: _VehicleTable = field(default_factory=_VehicleTable)
    pruned: Points = field(default_factory=lambda: Points.concatenate([]))


@dataclass(frozen=True)
class SourceFacts:
    """The numbers of one source's rows.

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
    """

    name: str
    digest: str
    format: str
    rows: int
    dropped: dict[str, int]
    outside: int
    notes: list[str]


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
            facts = {name: json.loads(value) for name, value in database.execute("SELECT name, value FROM facts")}
            if not facts:
                return state
            hours = {hour: (file, n) for hour, file, n in database.execute("SELECT hour, file, records FROM hours")}
            vehicles = database.execute("SELECT * FROM vehicles ORDER BY code").fetchall()
            pruned = database.execute("SELECT code, time, lon, lat, occupied FROM pruned ORDER BY code").fetchall()
            state = State(facts["kind"], facts["rules"], facts["generation"], facts["retained_from"])
            state.totals = np.array(facts["totals"], np.int64)
            state.hours = hours
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
    ) -> None:
        """Make a state the current one, in one transaction.

        Parameters
        ----------
        state
            The state, except for slots and sources.
        delta
            Count to add to the stored slots; its last points name the vehicles that changed.
        sources
            New sources.
        days
            Local days whose flows have to be published.
        replace_slots
            Whether the slots of `delta` replace the stored ones instead of being added to them.
        """
        facts = {
            "kind": state.kind,
            "rules": state.rules,
            "generation": state.generation,
            "retained_from": state.retained_from,
            "totals": state.totals.tolist(),
        }
        changed = np.unique(delta.last.vehicle)
        names = [state.vehicles.names[code] for code in changed]
        first = state.vehicles.first_time[changed].tolist()
        last = _rows(state.vehicles.last_points(changed))
        vehicles = [(code, name, f, *rest) for name, f, (code, *rest) in zip(names, first, last, strict=True)]
        with self._database() as database:
            if replace_slots:
                database.execute("DELETE FROM slots")
            found = (database.execute(f"{_SELECT_SLOTS} WHERE slot = ?", (n,)).fetchone() for n in delta.slots)
            stored = dict(_as_slot(row) for row in found if row)
            slots = (_slot_row(n, stored[n].plus(slot) if n in stored else slot) for n, slot in delta.slots.items())
            database.executemany("INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?, ?, ?, ?, ?)", slots)
            hours = [(hour, *file) for hour, file in state.hours.items()]
            database.executemany("INSERT OR REPLACE INTO hours VALUES (?, ?, ?)", hours)
            database.executemany("INSERT OR REPLACE INTO vehicles VALUES (?, ?, ?, ?, ?, ?, ?)", vehicles)
            described = [(source.digest, json.dumps(vars(source))) for source in sources]
            database.executemany("INSERT INTO sources VALUES (?, ?)", described)
            database.executemany("INSERT OR IGNORE INTO unpublished VALUES (?)", [(str(day),) for day in days])
            rows = [(name, json.dumps(value)) for name, value in facts.items()]
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def ingested(self, digests: list[str]) -> set[str]:
        """Return which sources were ingested before.

        Parameters
        ----------
        digests
            Digests of sources.

        Returns
        -------
        set[str]
            Those digests whose source was ingested.
        """
        if not self.exists():
            return set()
        with self._database() as database:
            rows = (database.execute("SELECT digest FROM sources WHERE digest = ?", (d,)).fetchone() for d in digests)
            return {row[0] for row in rows if row}

    def sources(self) -> list[SourceFacts]:
        """Return the facts on every source.

        Returns
        -------
        list[SourceFacts]
            The facts in the order of ingestion.
        """
        with self._database() as database, decoding():
            return [
                SourceFacts(**json.loads(row[0]))
                for row in database.execute("SELECT facts FROM sources ORDER BY rowid")
            ]

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
            where = "slot BETWEEN ? AND ? ORDER BY slot"
            return dict(_as_slot(row) for row in database.execute(f"{_SELECT_SLOTS} WHERE {where}", (first, last)))

    def slot_facts(self) -> np.ndarray:
        """Read the sums of every stored slot.

        Returns
        -------
        np.ndarray
            Number, inflow, outflow, records, vehicles and minutes with a record, (slot, 6), in the order of time.
        """
        with self._database() as database, decoding():
            rows = database.execute(
                "SELECT slot, inflow, outflow, records, vehicles, covered FROM slots ORDER BY slot"
            ).fetchall()
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
            rows = database.execute("SELECT slot, minutes, records, vehicles FROM slots ORDER BY slot").fetchall()
            number, minutes, records, vehicles = list(zip(*rows, strict=True)) or [()] * 4
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
            return [np.datetime64(row[0], "D") for row in database.execute("SELECT day FROM unpublished ORDER BY day")]

    def flow_files(self) -> dict[str, tuple[int, int]]:
        """Return what the flow files were like when they were published.

        Returns
        -------
        dict[str, tuple[int, int]]
            Size in bytes and time of the last change, nanoseconds, by the local day.
        """
        with self._database() as database:
            if self.read_only and not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'flows'").fetchone():
                return {}
            return {day: (size, changed) for day, size, changed in database.execute("SELECT * FROM flows")}

    def published_observed(self) -> dict[str, np.ndarray]:
        """Return which slots were observed in the days that were published.

        Returns
        -------
        dict[str, np.ndarray]
            Numbers of the observed slots since 1970, rising, by the local day.
        """
        with self._database() as database, decoding():
            rows = database.execute("SELECT day, slots FROM observed")
            return {day: np.frombuffer(slots, "<i8") for day, slots in rows}

    def note_flow_file(self, day: np.datetime64, file: Path, observed: np.ndarray) -> None:
        """Note what the flow file of a local day is like, and that the day is published.

        Parameters
        ----------
        day
            The local day.
        file
            Its file.
        observed
            Numbers of the day's observed slots since 1970, rising.
        """
        facts = file.stat()
        with self._database() as database:
            row = str(day), facts.st_size, facts.st_mtime_ns
            database.execute("INSERT OR REPLACE INTO flows VALUES (?, ?, ?)", row)
            slots = observed.astype("<i8").tobytes()
            database.execute("INSERT OR REPLACE INTO observed VALUES (?, ?)", (str(day), slots))
            database.execute("DELETE FROM unpublished WHERE day = ?", (str(day),))

    def inbox_files(self) -> set[_InboxFile]:
        """Return the files of the inbox that were ingested.

        Returns
        -------
        set[_InboxFile]
            The files.
        """
        if not self.exists():
            return set()
        with self._database() as database:
            return {_InboxFile(*row) for row in database.execute("SELECT name, size, changed FROM inbox")}

    def add_inbox_files(self, files: list[_InboxFile]) -> None:
        """Note that files of the inbox were ingested.

        Parameters
        ----------
        files
            The files.
        """
        with self._database() as database:
            database.executemany("INSERT OR REPLACE INTO inbox VALUES (?, ?, ?)", files)

    def restore(self, pruned: Points, inbox: list[tuple[Any, ...]]) -> None:
        """Write what a commit does not write into a database that was made anew.

        Parameters
        ----------
        pruned
            The last point of each vehicle among the records that are no longer stored.
        inbox
            The files of the inbox that were ingested.
        """
        with self._database() as database:
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
        current = {self.root / file for file, _ in state.hours.values()}
        for file in self.root.glob("????-??-??/*.parquet"):
            if file not in current:
                file.unlink()
        for folder in self.root.glob("????-??-??"):
            if not any(folder.iterdir()):
                folder.rmdir()

    def read_hour(self, state: State, hour: int) -> Records:
        """Read the records of an hour.

        Parameters
        ----------
        state
            The state of the store.
        hour
            Number of the hour since 1970.

        Returns
        -------
        Records
            The records, sorted and deduplicated; their vehicles are codes of the state's vehicle table.

        Raises
        ------
        InputError
            The file of the hour is damaged.
        """
        if hour not in state.hours:
            return _KINDS[state.kind or "points"].concatenate([])
        return self.read_file(state, state.hours[hour][0])

    def read_file(self, state: State, file: str) -> Records:
        """Read the records of one of the store's files.

        Parameters
        ----------
        state
            The state of the store.
        file
            Path of the file in the store.

        Returns
        -------
        Records
            The records, as `read_hour` returns them.

        Raises
        ------
        InputError
            The file is damaged.
        """
        names, records = _read_hour_file(self.root / file, _KINDS[state.kind or "points"])
        return _with_codes(records, state.vehicles.codes(names))

    def prune(self, state: State, before: int) -> None:
        """Remove old records, all but the last one of each vehicle.

        Parameters
        ----------
        state
            The state of the store, which is updated.
        before
            Time before which records are removed, microseconds since 1970 UTC; a whole hour.
        """
        old = sorted(hour for hour in state.hours if hour * HOUR_US < before)
        last = state.pruned
        for hour in old:
            records = self.read_hour(state, hour)
            if isinstance(records, Points):
                last = _first_of_each(_vehicle_ends(records)[1], last)
        with self._database() as database:
            database.executemany("INSERT OR REPLACE INTO pruned VALUES (?, ?, ?, ?, ?)", _rows(last))
            database.executemany("DELETE FROM hours WHERE hour = ?", [(hour,) for hour in old])
            database.execute("INSERT OR REPLACE INTO facts VALUES ('retained_from', ?)", (json.dumps(before),))
        state.hours = {hour: file for hour, file in state.hours.items() if hour * HOUR_US >= before}
        state.retained_from, state.pruned = before, last

    def _database(self) -> AbstractContextManager[sqlite3.Connection]:
        """Open the database for one transaction."""
        if self.read_only and self.exists() and self.file.stat().st_size == 0:
            raise DamagedFile(self.file, "it is empty", self.root.parent.name)
        wait = _READER_WAIT_SECONDS if self.read_only else _WAIT_SECONDS
        return open_database(self.file, _TABLES, self.root.parent.name, self.read_only, wait)


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


def _with_codes(records: Records, codes: np.ndarray) -> Records:
    """Return sorted records with vehicle i as codes[i], again in the order of (vehicle, time)."""
    if not isinstance(records, Points) or not len(records):
        return records
    recoded = replace(records, vehicle=codes[records.vehicle])
    if (np.diff(recoded.vehicle) >= 0).all():
        return recoded
    return recoded.take(np.argsort(recoded.vehicle, kind="stable"))


def _slot_row(number: int, slot: _Slot) -> tuple[Any, ...]:
    """Return a slot as a row of the database."""
    inflow, outflow = slot.flow.sum(axis=1).tolist()
    covered = int(np.count_nonzero(slot.minutes))
    late = slot.late.astype("<i4").tobytes()
    flow = _LATE + len(late).to_bytes(4, "little") + zlib.compress(slot.flow.astype(np.int32).tobytes() + late, 1)
    minutes = _COUNTS + slot.minutes.astype("<i4").tobytes()
    return number, flow, minutes, inflow, outflow, int(slot.minutes.sum()), slot.vehicles, covered


def _as_slot(row: tuple[Any, ...]) -> tuple[int, _Slot]:
    """Return the number and the slot of a row that _SELECT_SLOTS selects."""
    number, flow, records, vehicles, minutes = row
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
