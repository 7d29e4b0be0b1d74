"""The alerts that the service keeps in data/alerts.sqlite, read without ever writing to it or waiting long for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from trafficcast.alerts.book import COLUMNS, Alert
from trafficcast.alerts.findings import Finding
from trafficcast.errors import InputError
from trafficcast.ingestion.record_store import why_not

_WAIT_SECONDS = 0.5  # for a writer: the page is to be drawn within a second
_MOST = 500


def _alert_file(data: Path) -> Path:
    """Where the alerts of all cities are."""
    return data / "alerts.sqlite"


def _read_alerts(file: Path, city: str, now: np.datetime64) -> tuple[list[Alert], list[Alert]]:
    """What is open as of `now` (naive UTC), and the last MOST that are over, the newest first both.

    Nothing where there is no file. Raises InputError where it is damaged or cannot be read now.
    """
    if not file.exists():
        return [], []
    moment = f"{now.astype('datetime64[s]')}Z"
    try:
        # Opened so, SQLite neither makes a file that is gone by now nor changes one.
        with closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT_SECONDS)
        ) as database:
            is_open = "raised <= ? AND (cleared IS NULL OR cleared > ?) ORDER BY raised DESC, rule, place"
            is_over = "cleared <= ? ORDER BY raised DESC, rule, place LIMIT ?"
            return (
                _rows(database, city, is_open, moment, moment),
                _rows(database, city, is_over, moment, _MOST),
            )
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # a book in which nothing was ever written
            return [], []
        raise InputError(f"cannot read the alerts in {file} now: {why_not(error)}; the page tries again") from None
    except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged: {error}; move it away: alerts begin anew") from None


def _rows(database: sqlite3.Connection, city: str, where: str, *values: object) -> list[Alert]:
    rows = database.execute(f"SELECT {COLUMNS} FROM alerts WHERE city = ? AND {where}", (city, *values)).fetchall()
    return [
        Alert(city, _finding(found), _time(raised), cleared and _time(cleared)) for _, *found, raised, cleared in rows
    ]


def _finding(found: list[Any]) -> Finding:
    """A finding whose numbers are numbers and whose texts are texts: SQLite keeps whatever was written."""
    rule, kind, severity, message, value, limit, place, lon, lat = found
    value, lon, lat = (None if number is None else float(number) for number in (value, lon, lat))
    return Finding(str(rule), str(kind), str(severity), str(message), value, float(limit), str(place), lon, lat)


def _time(text: str) -> np.datetime64:
    return np.datetime64(datetime.fromisoformat(text.removesuffix("Z")), "us")
