"""The book of alerts, data/alerts.sqlite: what was raised and cleared, and who has still to be told.

All is as of a moment that is given, never of the machine's clock: an alert is open from when it was raised until it
was cleared. So the same updates again, from their start after a crash, find what they wrote and change nothing.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trafficcast.alerts.findings import Finding
from trafficcast.errors import InputError, JobError

_TABLES = """
CREATE TABLE IF NOT EXISTS alerts (
    city TEXT NOT NULL, rule TEXT NOT NULL, kind TEXT NOT NULL, severity TEXT NOT NULL, message TEXT NOT NULL,
    value REAL, "limit" REAL NOT NULL, place TEXT NOT NULL, lon REAL, lat REAL,
    raised TEXT NOT NULL, cleared TEXT,
    PRIMARY KEY (city, rule, place, raised)
);
CREATE TABLE IF NOT EXISTS notices (
    id TEXT PRIMARY KEY, city TEXT NOT NULL, rule TEXT NOT NULL, place TEXT NOT NULL, raised TEXT NOT NULL,
    event TEXT NOT NULL, time TEXT NOT NULL, written INTEGER NOT NULL, delivered INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS unwritten ON notices (city) WHERE NOT written;
CREATE INDEX IF NOT EXISTS undelivered ON notices (time) WHERE NOT delivered;
"""
COLUMNS = 'city, rule, kind, severity, message, value, "limit", place, lon, lat, raised, cleared'
_OPEN = "raised <= :now AND (cleared IS NULL OR cleared > :now)"
_NOTICES = f"SELECT id, event, time, {COLUMNS} FROM notices JOIN alerts USING (city, rule, place, raised)"
_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Alert:
    """A finding of a city as it was when it was raised. Times are naive UTC; `cleared` is None while it is open."""

    city: str
    finding: Finding
    raised: np.datetime64
    cleared: np.datetime64 | None


@dataclass(frozen=True)
class _Notice:
    """That an alert was raised or cleared. `id` is the same whenever the same is told again."""

    id: str
    event: Literal["raised", "cleared"]
    time: np.datetime64
    alert: Alert

    def as_json(self) -> dict[str, Any]:
        """What a line of the file and the webhook hold; times are ISO 8601 with a Z, places in degrees."""
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
    """The alerts of all cities. Raises InputError where the file is damaged, JobError where it cannot be used now."""

    file: Path

    def update(
        self, city: str, findings: Iterable[Finding], now: np.datetime64, deliver: bool = False
    ) -> tuple[list[Alert], list[Alert]]:
        """Make what is open as of `now` what is found now; returns what was raised and what was cleared by that.

        Each of both becomes a notice in the same transaction, with `deliver` one for the webhook too.
        """
        now = now.astype("datetime64[s]").astype("datetime64[us]")
        found = {_key(finding): finding for finding in findings}
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            was = _open_alerts(database, city, now)
            known = {_key(alert.finding) for alert in was}
            raised = [Alert(city, finding, now, None) for key, finding in found.items() if key not in known]
            cleared = [replace(alert, cleared=now) for alert in was if _key(alert.finding) not in found]
            for alert in raised + cleared:
                row = _row(alert)
                # Raised again in the second in which it was cleared, it was never cleared.
                database.execute(
                    f"INSERT INTO alerts ({COLUMNS}) VALUES ({', '.join('?' * len(row))}) "
                    "ON CONFLICT DO UPDATE SET cleared = excluded.cleared",
                    row,
                )
                database.execute(
                    "INSERT OR IGNORE INTO notices VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)", _notice(alert, not deliver)
                )
        return raised, cleared

    def open(self, city: str, now: np.datetime64) -> list[Alert]:
        """What is open as of `now`, the oldest first."""
        if not self.file.exists():
            return []
        with self._open() as database:
            return _open_alerts(database, city, now)

    def past(self, city: str, start: np.datetime64, end: np.datetime64) -> list[Alert]:
        """What was open at some time in [start, end), the newest first; also what is open still."""
        if not self.file.exists():
            return []
        with self._open() as database:
            rows = database.execute(
                f"SELECT {COLUMNS} FROM alerts WHERE city = ? AND raised < ? AND (cleared IS NULL OR cleared > ?) "
                "ORDER BY raised DESC, rule, place",
                (city, _text(end), _text(start)),
            )
            return [_alert(row) for row in rows]

    @contextmanager
    def unwritten(self, city: str) -> Iterator[list[_Notice]]:
        """The notices that are not in the log and the file yet, in order; they count as written when the block ends.

        Nobody else writes meanwhile. Where the block fails they stay unwritten.
        """
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            rows = database.execute(f"{_NOTICES} WHERE NOT written AND city = ? ORDER BY time, id", (city,))
            notices = [_read_notice(row) for row in rows]
            yield notices
            _mark(database, "written", notices)

    def undelivered(self, most: int) -> list[_Notice]:
        """The notices of all cities that wait for the webhook, the oldest first."""
        if not self.file.exists():
            return []
        with self._open() as database:
            rows = database.execute(f"{_NOTICES} WHERE NOT delivered ORDER BY time, id LIMIT ?", (most,))
            return [_read_notice(row) for row in rows]

    def delivered(self, notices: list[_Notice]) -> None:
        """Note that the webhook has them."""
        with self._open() as database:
            _mark(database, "delivered", notices)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database; what is written in the block is one transaction."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.file, timeout=_WAIT_SECONDS)) as database, database:
                database.executescript(_TABLES)
                yield database
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise JobError(f"cannot use {self.file}: {error}") from None  # locked, or the disk is full
            raise InputError(f"{self.file} is damaged: {error}; move it away: alerts begin anew") from None


def _key(finding: Finding) -> tuple[str, str]:
    return finding.rule, finding.place


def _open_alerts(database: sqlite3.Connection, city: str, now: np.datetime64) -> list[Alert]:
    rows = database.execute(
        f"SELECT {COLUMNS} FROM alerts WHERE city = :city AND {_OPEN} ORDER BY raised, rule, place",
        {"city": city, "now": _text(now)},
    )
    return [_alert(row) for row in rows]


def _mark(database: sqlite3.Connection, column: str, notices: list[_Notice]) -> None:
    database.executemany(f"UPDATE notices SET {column} = 1 WHERE id = ?", [(notice.id,) for notice in notices])


def _row(alert: Alert) -> tuple[Any, ...]:
    found, cleared = alert.finding, None if alert.cleared is None else _text(alert.cleared)
    return (
        alert.city, found.rule, found.kind, found.severity, found.message, found.value, found.limit,
        found.place, found.lon, found.lat, _text(alert.raised), cleared,
    )  # fmt: skip


def _alert(row: tuple[Any, ...]) -> Alert:
    city, *found, raised, cleared = row
    return Alert(city, Finding(*found), _time(raised), None if cleared is None else _time(cleared))


def _notice(alert: Alert, delivered: bool) -> tuple[Any, ...]:
    event, time = ("raised", alert.raised) if alert.cleared is None else ("cleared", alert.cleared)
    key = (alert.city, alert.finding.rule, alert.finding.place, _text(alert.raised))
    name = hashlib.sha256("\n".join([*key, event]).encode()).hexdigest()[:32]
    return name, *key, event, _text(time), delivered


def _read_notice(row: tuple[Any, ...]) -> _Notice:
    name, event, time, *alert = row
    return _Notice(name, event, _time(time), _alert(tuple(alert)))


def _text(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")) + "Z"


def _time(text: str) -> np.datetime64:
    return np.datetime64(text.removesuffix("Z"), "us")
