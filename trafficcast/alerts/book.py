"""The book of alerts, data/alerts.sqlite: alerts that were raised and cleared, and notices still to be delivered.

Every method works as of a time that is passed to it and never reads the machine's clock: an alert is open from the time
when it was raised until the time when it was cleared. When the same updates are repeated after a crash, they find the
rows that they wrote before and change nothing.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from trafficcast.alerts.findings import Finding
from trafficcast.stores.sqlite import Row, check_database, checked_rows, decoding, open_database, salvage

_T = TypeVar("_T")
_TABLES = """
CREATE TABLE IF NOT EXISTS alerts (
    city TEXT NOT NULL, rule TEXT NOT NULL, kind TEXT NOT NULL, severity TEXT NOT NULL, message TEXT NOT NULL,
    value REAL, "limit" REAL NOT NULL, place TEXT NOT NULL, lon REAL, lat REAL,
    raised TEXT NOT NULL, cleared TEXT,
    checksum INTEGER AS (
        checksum(city, rule, kind, severity, message, value, "limit", place, lon, lat, raised, cleared)
    ) STORED,
    PRIMARY KEY (city, rule, place, raised)
);
CREATE TABLE IF NOT EXISTS notices (
    id TEXT PRIMARY KEY, city TEXT NOT NULL, rule TEXT NOT NULL, place TEXT NOT NULL, raised TEXT NOT NULL,
    event TEXT NOT NULL, time TEXT NOT NULL, written INTEGER NOT NULL, delivered INTEGER NOT NULL,
    checksum INTEGER AS (checksum(id, city, rule, place, raised, event, time, written, delivered)) STORED
);
CREATE INDEX IF NOT EXISTS unwritten ON notices (city) WHERE NOT written;
CREATE INDEX IF NOT EXISTS undelivered ON notices (time) WHERE NOT delivered;
"""
_COLUMNS = 'city, rule, kind, severity, message, value, "limit", place, lon, lat, raised, cleared'
_OPEN = "WHERE city = :city AND raised <= :now AND (cleared IS NULL OR cleared > :now) ORDER BY raised, rule, place"
_PAST = "WHERE city = :city AND cleared <= :now ORDER BY raised DESC, rule, place LIMIT :most"
# For how long another program's transaction is waited for; a reader that draws a page cannot wait.
_WRITER_WAIT_SECONDS, _READER_WAIT_SECONDS = 30.0, 0.2


@dataclass(frozen=True)
class Alert:
    """An alert of a city.

    Attributes
    ----------
    city
        The city's name.
    finding
        The finding as it was when the alert was raised.
    raised
        When it was raised, naive UTC.
    cleared
        When it was cleared, naive UTC; None while it is open.
    """

    city: str
    finding: Finding
    raised: np.datetime64
    cleared: np.datetime64 | None


@dataclass(frozen=True)
class _Notice:
    """The notice that an alert was raised or cleared; the same event always has the same `id`."""

    id: str
    event: Literal["raised", "cleared"]
    time: np.datetime64
    alert: Alert

    def as_json(self) -> dict[str, Any]:
        """Return the content of a line of the alert file and of a call of the webhook.

        Returns
        -------
        dict[str, Any]
            Times are ISO 8601 with a Z; lon and lat are in degrees.
        """
        alert = self.alert
        cleared = None if alert.cleared is None else _text(alert.cleared)
        return {
            "id": self.id,
            "event": self.event,
            "time": _text(self.time),
            "city": alert.city,
            **asdict(alert.finding),
            "raised": _text(alert.raised),
            "cleared": cleared if self.event == "cleared" else None,
        }


@dataclass(frozen=True)
class AlertBook:
    """The alerts of all cities.

    Methods raise DamagedFile where the file is damaged and JobError where it cannot be used now. Where there is no
    file, there are no alerts.

    Attributes
    ----------
    file
        The SQLite file.
    read_only
        Whether the book is only read: it then neither creates nor changes a file, and hardly waits for a writer.
    """

    file: Path
    read_only: bool = False

    def update(
        self,
        city: str,
        findings: Iterable[Finding],
        now: np.datetime64,
        deliver: bool = False,
        undecided: Collection[str] = (),
        unnoted: Iterable[Alert] = (),
        posted: Collection[str] = (),
    ) -> tuple[list[Alert], list[Alert]]:
        """Raise an alert for each finding that has none, and clear the open alerts that are no longer found.

        Each change becomes a notice in the same transaction.

        Parameters
        ----------
        city
            The city's name.
        findings
            All findings of the city at the time `now`.
        now
            The time, naive UTC.
        deliver
            Whether the notices shall also be delivered to the webhook.
        undecided
            Names of rules that could not be examined: their open alerts stay open.
        unnoted
            Alerts that were raised or cleared while the book could not be written, the oldest first; they are noted
            before the findings are examined.
        posted
            Names of the notices about them that the webhook has accepted.

        Returns
        -------
        tuple[list[Alert], list[Alert]]
            The alerts that were raised and those that were cleared.
        """
        findings = list(findings)
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            for alert in unnoted:
                _note(database, alert, not deliver or _notice_of(alert).id in posted)
            was_open = [
                _alert(row) for row in checked_rows(database, "alerts", _OPEN, {"city": city, "now": _text(now)})
            ]
            raised, cleared = _changes(city, was_open, findings, now, undecided)
            for alert in raised + cleared:
                _note(database, alert, not deliver)
        return raised, cleared

    def open(self, city: str, now: np.datetime64) -> list[Alert]:
        """Return the alerts that are open at a time.

        Parameters
        ----------
        city
            The city's name.
        now
            The time, naive UTC.

        Returns
        -------
        list[Alert]
            The alerts, the oldest first.
        """
        values = {"city": city, "now": _text(now)}
        return self._read(lambda database: [_alert(row) for row in checked_rows(database, "alerts", _OPEN, values)])

    def past(self, city: str, now: np.datetime64, most: int) -> list[Alert]:
        """Return the newest alerts that had been cleared at a time.

        Parameters
        ----------
        city
            The city's name.
        now
            The time, naive UTC.
        most
            How many alerts to return at most.

        Returns
        -------
        list[Alert]
            The alerts, the newest first.
        """
        values = {"city": city, "now": _text(now), "most": most}
        return self._read(lambda database: [_alert(row) for row in checked_rows(database, "alerts", _PAST, values)])

    @contextmanager
    def unwritten(self, city: str) -> Iterator[list[_Notice]]:
        """Yield the notices that are not yet in the log and the alert file; they count as written when the block ends.

        Nobody else writes during the block. Where the block fails, the notices stay unwritten.

        Parameters
        ----------
        city
            The city's name.

        Yields
        ------
        list[_Notice]
            The notices in the order of time.
        """
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            notices = _read_notices(database, "WHERE NOT written AND city = ? ORDER BY time, id", [city])
            yield notices
            _mark(database, "written", notices)

    def undelivered(self, most: int) -> list[_Notice]:
        """Return the notices of all cities that wait for the webhook.

        Parameters
        ----------
        most
            How many notices to return at most.

        Returns
        -------
        list[_Notice]
            The notices, the oldest first.
        """
        clause = "WHERE NOT delivered ORDER BY time, id LIMIT ?"
        return self._read(lambda database: _read_notices(database, clause, [most]))

    def delivered(self, notices: list[_Notice]) -> None:
        """Mark notices as delivered to the webhook.

        Parameters
        ----------
        notices
            The notices.
        """
        with self._open() as database:
            _mark(database, "delivered", notices)

    def restore(self, lines: Iterable[Mapping[str, Any]]) -> int:
        """Add the alerts of a city's file of notices that the book does not know; they count as delivered.

        Parameters
        ----------
        lines
            The notices, the oldest first, as `alerts.jsonl` has them.

        Returns
        -------
        int
            How many notices were added.
        """
        added = 0
        with self._open() as database:
            for line in lines:
                try:
                    finding = Finding(*(line[name] for name in Finding.__dataclass_fields__))
                    cleared = None if line["cleared"] is None else _time(line["cleared"])
                    alert = Alert(line["city"], finding, _time(line["raised"]), cleared)
                    notice = (line["id"], *_notice(alert, True)[1:-1], 1, 1)
                    if database.execute("SELECT 1 FROM notices WHERE id = ?", (line["id"],)).fetchone() is None:
                        row = _row(alert)
                        database.execute(
                            f"INSERT INTO alerts ({_COLUMNS}) VALUES ({', '.join('?' * len(row))}) "
                            "ON CONFLICT DO UPDATE SET cleared = coalesce(excluded.cleared, cleared)",
                            row,
                        )
                        database.execute("INSERT INTO notices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", notice)
                        added += 1
                except (KeyError, TypeError, ValueError, AttributeError, sqlite3.IntegrityError):
                    continue  # a line that a crash or a hand has left
        return added

    def known(self) -> set[str]:
        """Return the names of all notices.

        Returns
        -------
        set[str]
            The names.
        """
        return set(self._read(lambda database: [str(row[0]) for row in checked_rows(database, "notices")]))

    def check(self) -> None:
        """Read the whole book, to find damage."""
        if self.file.exists():
            check_database(self.file, _TABLES, _is_right)

    def salvage(self) -> tuple[Path, int]:
        """Set the damaged book aside, and begin a new one with those of its rows that can be read.

        Returns
        -------
        tuple[Path, int]
            Where the damaged book lies now, and how many rows were kept.
        """
        return salvage(self.file, _TABLES, _is_right)

    def _read(self, read: Callable[[sqlite3.Connection], list[_T]]) -> list[_T]:
        """Return what is read of the database; nothing where there is no file, or no table in it yet."""
        if not self.file.exists() or not self.file.stat().st_size:
            return []
        with self._open() as database:
            if database.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
                return []
            return read(database)

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        """Open the database for one transaction."""
        wait = _READER_WAIT_SECONDS if self.read_only else _WRITER_WAIT_SECONDS
        return open_database(self.file, _TABLES, None, self.read_only, wait)


def _changes(
    city: str,
    was_open: Iterable[Alert],
    findings: Iterable[Finding],
    now: np.datetime64,
    undecided: Collection[str],
) -> tuple[list[Alert], list[Alert]]:
    """Return the alerts that findings raise, and those of the open ones that are cleared: their rules find nothing."""
    now = now.astype("datetime64[s]").astype("datetime64[us]")
    found, was_open = {_key(finding): finding for finding in findings}, list(was_open)
    known = {_key(alert.finding) for alert in was_open}
    raised = [Alert(city, finding, now, None) for key, finding in found.items() if key not in known]
    cleared = [
        replace(alert, cleared=now)
        for alert in was_open
        if _key(alert.finding) not in found and alert.finding.rule not in undecided
    ]
    return raised, cleared


def _note(database: sqlite3.Connection, alert: Alert, delivered: bool) -> None:
    """Note that an alert was raised or cleared, with its notice."""
    row = _row(alert)
    # An alert that is raised again in the second in which it was cleared was never cleared.
    database.execute(
        f"INSERT INTO alerts ({_COLUMNS}) VALUES ({', '.join('?' * len(row))}) "
        "ON CONFLICT DO UPDATE SET cleared = excluded.cleared",
        row,
    )
    database.execute("INSERT OR IGNORE INTO notices VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)", _notice(alert, delivered))


def _key(finding: Finding) -> tuple[str, str]:
    return finding.rule, finding.place


def _mark(database: sqlite3.Connection, column: str, notices: list[_Notice]) -> None:
    database.executemany(f"UPDATE notices SET {column} = 1 WHERE id = ?", [(notice.id,) for notice in notices])


def _row(alert: Alert) -> tuple[Any, ...]:
    found, cleared = alert.finding, None if alert.cleared is None else _text(alert.cleared)
    return (
        alert.city, found.rule, found.kind, found.severity, found.message, found.value, found.limit,
        found.place, found.lon, found.lat, _text(alert.raised), cleared,
    )  # fmt: skip


def _alert(row: tuple[Any, ...]) -> Alert:
    """Make an alert of a row, whose columns may hold values of any type: SQLite stores whatever is written."""
    with decoding():
        city, rule, kind, severity, message, value, limit, place, lon, lat, raised, cleared = row
        value, lon, lat = (None if number is None else float(number) for number in (value, lon, lat))
        finding = Finding(str(rule), str(kind), str(severity), str(message), value, float(limit), str(place), lon, lat)
        return Alert(city, finding, _time(raised), None if cleared is None else _time(cleared))


def _is_right(table: str, row: Row) -> None:
    """Raise an error where a row's values are wrong."""
    if table == "alerts":
        _alert(row)
    else:
        for time in (row[4], row[6]):
            _time(time)


def _notice(alert: Alert, delivered: bool) -> tuple[Any, ...]:
    event, time = ("raised", alert.raised) if alert.cleared is None else ("cleared", alert.cleared)
    key = (alert.city, alert.finding.rule, alert.finding.place, _text(alert.raised))
    name = hashlib.sha256("\n".join([*key, event]).encode()).hexdigest()[:32]
    return name, *key, event, _text(time), delivered


def _notice_of(alert: Alert) -> _Notice:
    """Return the notice that an alert was raised or, if it is cleared, that it was cleared."""
    name, *_ = _notice(alert, False)
    return (
        _Notice(name, "raised", alert.raised, alert)
        if alert.cleared is None
        else _Notice(name, "cleared", alert.cleared, alert)
    )


def _read_notices(database: sqlite3.Connection, clause: str, values: list[object]) -> list[_Notice]:
    """Read the notices that a clause of SQL selects, with their alerts."""
    notices = []
    with decoding():
        for name, *key, event, time, _, _ in list(checked_rows(database, "notices", clause, values)):
            for row in checked_rows(database, "alerts", "WHERE (city, rule, place, raised) = (?, ?, ?, ?)", key):
                notices.append(_Notice(name, event, _time(time), _alert(row)))
    return notices


def _text(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")) + "Z"


def _time(text: str) -> np.datetime64:
    return np.datetime64(datetime.fromisoformat(text.removesuffix("Z")), "us")
