"""The record store: every kept record as Parquet, by day and hour, and one small database that makes a state whole.

    data/<city>/records/2008-05-17/14.3.parquet     the records of an hour (UTC), sorted, each once
    data/<city>/records/state.sqlite                which files are current; what was counted of them, slot by slot;
                                                    each vehicle's last point; each source and what became of its rows

Files are never changed: an ingest writes new ones and then commits one transaction, the moment at which its state
becomes true. A crash before leaves the old state, one after leaves the new.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trafficcast.config.city import FLOW_KINDS, City
from trafficcast.errors import InputError, JobError
from trafficcast.ingest.counting import TOTALS, Count, _first_of_each, _Slot
from trafficcast.ingest.hour_files import _read_hour_file
from trafficcast.ingest.vehicles import _VehicleTable
from trafficcast.records.records import HOUR_US, Points, Records, Trips, ZoneTrips
from trafficcast.records.sources import Source

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
CREATE TABLE IF NOT EXISTS inbox (name TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL);
"""


@dataclass
class State:
    """What a store holds, in memory: changes count only after `RecordStore.commit`.

    `rules` are what the flows were counted by; `totals` as in flows.TOTALS; `hours` maps an hour since 1970 to its
    file and number of records; records before `retained_from` (microseconds) are no longer kept, `pruned` is the last
    of each vehicle's among them.
    """

    kind: str | None = None
    rules: dict[str, Any] = field(default_factory=dict)
    generation: int = 0
    retained_from: int = 0
    totals: np.ndarray = field(default_factory=lambda: np.zeros(len(TOTALS), np.int64))
    hours: dict[int, tuple[str, int]] = field(default_factory=dict)
    fleet: _VehicleTable = field(default_factory=_VehicleTable)
    pruned: Points = field(default_factory=lambda: Points.concatenate([]))


@dataclass(frozen=True)
class SourceFacts:
    """What became of one source's rows; `outside` counts its kept records outside the box."""

    name: str
    digest: str
    format: str
    rows: int
    dropped: dict[str, int]
    outside: int
    notes: list[str]


class _InboxFile(NamedTuple):
    """A file of an inbox: its path in it, its size in bytes and when it was changed (nanoseconds)."""

    name: str
    size: int
    changed: int


@dataclass(frozen=True)
class RecordStore:
    """All kept records of one city.

    `read_only`: it makes and changes no file, and gives up soon where a writer has the database to itself.
    """

    root: Path
    read_only: bool = False

    def exists(self) -> bool:
        """Whether anything was ever ingested."""
        return (self.root / "state.sqlite").exists()

    def load(self) -> State:
        """The current state; an empty one where nothing was ever ingested. Raises InputError where it is damaged."""
        state = State()
        if not self.exists():
            return state
        with self._database() as database:
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
        state.fleet = _VehicleTable(
            list(columns[1]),
            np.array(columns[2], np.int64),
            np.array(columns[3], np.int64),
            np.column_stack([np.array(columns[4], np.float64), np.array(columns[5], np.float64)]),
            np.array(columns[6], np.int8),
        )
        return state

    def commit(
        self, state: State, delta: Count, sources: list[SourceFacts], days: list[np.datetime64], anew: bool = False
    ) -> None:
        """Make a state the current one.

        Args:
            state: everything but slots and sources.
            delta: what to add to the stored slots; its ends name the vehicles that changed.
            sources: new sources.
            days: local days whose flows have to be published.
            anew: what was stored of slots and hours is replaced, not added to.
        """
        facts = {
            "kind": state.kind,
            "rules": state.rules,
            "generation": state.generation,
            "retained_from": state.retained_from,
            "totals": state.totals.tolist(),
        }
        changed = np.unique(delta.last.vehicle)
        names = [state.fleet.names[code] for code in changed]
        first = state.fleet.first[changed].tolist()
        last = _rows(state.fleet.last_points(changed))
        vehicles = [(code, name, f, *rest) for name, f, (code, *rest) in zip(names, first, last, strict=True)]
        with self._database() as database:
            stored = {} if anew else self._slots(database, list(delta.slots))
            if anew:
                database.execute("DELETE FROM slots")
            slots = (_slot_row(n, stored[n].plus(slot) if n in stored else slot) for n, slot in delta.slots.items())
            database.executemany("INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?, ?, ?, ?, ?)", slots)
            hours = [(hour, *entry) for hour, entry in state.hours.items()]
            database.executemany("INSERT OR REPLACE INTO hours VALUES (?, ?, ?)", hours)
            database.executemany("INSERT OR REPLACE INTO vehicles VALUES (?, ?, ?, ?, ?, ?, ?)", vehicles)
            described = [(source.digest, json.dumps(vars(source))) for source in sources]
            database.executemany("INSERT INTO sources VALUES (?, ?)", described)
            database.executemany("INSERT OR IGNORE INTO unpublished VALUES (?)", [(str(day),) for day in days])
            rows = [(name, json.dumps(value)) for name, value in facts.items()]
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def known(self, digests: list[str]) -> set[str]:
        """Those of the digests whose source was ingested."""
        if not self.exists():
            return set()
        with self._database() as database:
            rows = (database.execute("SELECT digest FROM sources WHERE digest = ?", (d,)).fetchone() for d in digests)
            return {row[0] for row in rows if row}

    def sources(self) -> list[SourceFacts]:
        """Every source, in the order in which they came."""
        with self._database() as database:
            return [
                SourceFacts(**json.loads(row[0]))
                for row in database.execute("SELECT facts FROM sources ORDER BY rowid")
            ]

    def slots(self, first: int, last: int) -> dict[int, _Slot]:
        """The stored slots from `first` to `last`."""
        with self._database() as database:
            rows = database.execute("SELECT slot FROM slots WHERE slot BETWEEN ? AND ?", (first, last)).fetchall()
            return self._slots(database, [row[0] for row in rows])

    def slot_facts(self) -> np.ndarray:
        """(slot, inflow, outflow, records, vehicles, minutes with a report) of every stored slot, in order: (n, 6)."""
        with self._database() as database:
            rows = database.execute(
                "SELECT slot, inflow, outflow, records, vehicles, covered FROM slots ORDER BY slot"
            ).fetchall()
        return np.array(rows, np.int64).reshape(-1, 6)

    def unpublished(self) -> list[np.datetime64]:
        """The local days whose flows changed since they were published."""
        with self._database() as database:
            return [np.datetime64(row[0], "D") for row in database.execute("SELECT day FROM unpublished ORDER BY day")]

    def published(self, days: list[np.datetime64]) -> None:
        """Note that the flows of these local days are published."""
        with self._database() as database:
            database.executemany("DELETE FROM unpublished WHERE day = ?", [(str(day),) for day in days])

    def seen(self) -> set[_InboxFile]:
        """The files of an inbox that were taken."""
        if not self.exists():
            return set()
        with self._database() as database:
            return {_InboxFile(*row) for row in database.execute("SELECT name, size, changed FROM inbox")}

    def remember(self, files: list[_InboxFile]) -> None:
        """Note that files of an inbox were taken."""
        with self._database() as database:
            database.executemany("INSERT OR REPLACE INTO inbox VALUES (?, ?, ?)", files)

    def clean(self, state: State) -> None:
        """Remove the files that do not belong to a state, and what an ingest that was killed left of its staging."""
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
        """The records of an hour, vehicles as codes of the state's fleet. Raises InputError where it is damaged."""
        if hour not in state.hours:
            return _KINDS[state.kind or "points"].concatenate([])
        return self.read_file(state, state.hours[hour][0])

    def read_file(self, state: State, file: str) -> Records:
        """The records of one of the store's files (see `read_hour`)."""
        names, records = _read_hour_file(self.root / file, _KINDS[state.kind or "points"])
        return _with_codes(records, state.fleet.codes(names))

    def prune(self, state: State, before: int) -> None:
        """Forget the records before that time (microseconds, a whole hour), all but each vehicle's last one."""
        gone = sorted(hour for hour in state.hours if hour * HOUR_US < before)
        last = state.pruned
        for hour in gone:
            records = self.read_hour(state, hour)
            if isinstance(records, Points):
                ends = np.append(np.flatnonzero(np.diff(records.vehicle)), len(records) - 1)
                last = _first_of_each(records.take(ends), last)
        with self._database() as database:
            database.executemany("INSERT OR REPLACE INTO pruned VALUES (?, ?, ?, ?, ?)", _rows(last))
            database.executemany("DELETE FROM hours WHERE hour = ?", [(hour,) for hour in gone])
            database.execute("INSERT OR REPLACE INTO facts VALUES ('retained_from', ?)", (json.dumps(before),))
        state.hours = {hour: entry for hour, entry in state.hours.items() if hour * HOUR_US >= before}
        state.retained_from, state.pruned = before, last

    def _slots(self, database: sqlite3.Connection, numbers: list[int]) -> dict[int, _Slot]:
        slots = {}
        for number in numbers:
            row = database.execute(
                "SELECT flow, records, vehicles, minutes FROM slots WHERE slot = ?", (number,)
            ).fetchone()
            if row:
                flow = np.frombuffer(zlib.decompress(row[0]), np.int32).reshape(len(FLOW_KINDS), -1)
                slots[number] = _Slot(flow, row[1], row[2], np.frombuffer(row[3], np.bool_))
        return slots

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The database in one transaction. Raises InputError where it is damaged, JobError where it cannot be used."""
        file = self.root / "state.sqlite"
        mode, wait = ("ro", _READER_WAIT_SECONDS) if self.read_only else ("rwc", _WAIT_SECONDS)
        if not self.read_only:
            self.root.mkdir(parents=True, exist_ok=True)
        try:
            address = f"{file.absolute().as_uri()}?mode={mode}"
            with closing(sqlite3.connect(address, uri=True, timeout=wait)) as database, database:
                if not self.read_only:
                    database.executescript(_TABLES)
                yield database
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise JobError(f"cannot use {file}: {why_not(error)}") from None  # locked, or the disk is full
            raise InputError(
                f"{file} is damaged: {error}; move {self.root} away and ingest its sources again"
            ) from None


def why_not(error: sqlite3.OperationalError) -> str:
    """What keeps a database from being used; SQLite says of a killed writer's only that it is read-only."""
    half_done = getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK"
    return "a writer was stopped midway, the next one puts it right" if half_done else str(error)


def _kind_of(records: Records, source: Source, city: City, kind: str | None) -> str:
    """The kind of a source's records, which must be that of the records known so far (None: there are none).

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
    """Settled records, vehicle i being vehicle codes[i], in the order of (vehicle, time) again."""
    if not isinstance(records, Points) or not len(records):
        return records
    recoded = replace(records, vehicle=codes[records.vehicle])
    if (np.diff(recoded.vehicle) >= 0).all():
        return recoded
    return recoded.take(np.argsort(recoded.vehicle, kind="stable"))


def _slot_row(number: int, slot: _Slot) -> tuple[Any, ...]:
    inflow, outflow = slot.flow.sum(axis=1).tolist()
    covered = int(np.count_nonzero(slot.minutes))
    flow = zlib.compress(slot.flow.astype(np.int32).tobytes(), 1)
    return number, flow, slot.minutes.tobytes(), inflow, outflow, slot.records, slot.vehicles, covered


def _rows(points: Points) -> Iterator[tuple[Any, ...]]:
    columns = (points.vehicle, points.time, points.lon, points.lat, points.occupied)
    return zip(*(column.tolist() for column in columns), strict=True)


def _as_points(rows: list[tuple[Any, ...]]) -> Points:
    columns = list(zip(*rows, strict=True)) or [()] * 5
    return Points(*(np.array(c, d) for c, d in zip(columns, Points.DTYPES.values(), strict=True)))
