"""The run ledger, data/ledger.sqlite: what ran, with what result; one row a (job, city, model, slot)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    job TEXT NOT NULL, city TEXT NOT NULL, model TEXT NOT NULL, slot TEXT NOT NULL,
    result TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 1,
    seconds REAL NOT NULL DEFAULT 0, finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ')),
    PRIMARY KEY (job, city, model, slot)
)
"""
# What the ledgers of version 0.1 lack.
_ADDED = {
    "detail": "TEXT NOT NULL DEFAULT ''",
    "attempts": "INTEGER NOT NULL DEFAULT 1",
    "seconds": "REAL NOT NULL DEFAULT 0",
}
_WAIT_SECONDS = 30.0
# Results of a run that did not do what it is for, and of one whose product was lost since.
FAILED, LOST = "failed", "lost"


@dataclass(frozen=True)
class Run:
    """A row: slots are naive UTC slot starts, `finished` is the machine's clock, naive UTC."""

    job: str
    city: str
    model: str
    slot: np.datetime64
    result: str
    detail: str
    attempts: int
    seconds: float
    finished: np.datetime64


@dataclass(frozen=True)
class Ledger:
    """Slots are naive UTC slot starts, written with a Z."""

    file: Path

    def record(
        self,
        job: str,
        city: str,
        model: str,
        slot: np.datetime64,
        result: str,
        detail: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Note a run's result. The same run again counts one more attempt."""
        with self._open() as database:
            database.execute(
                "INSERT INTO runs (job, city, model, slot, result, detail, seconds) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET result = excluded.result, detail = excluded.detail, "
                "attempts = attempts + 1, seconds = excluded.seconds, finished = excluded.finished",
                (job, city, model, _text(slot), result, detail, seconds),
            )

    def results(self, job: str, city: str, model: str) -> dict[np.datetime64, str]:
        """What is known of a job: the result of each slot."""
        found = self._runs("WHERE job = ? AND city = ? AND model = ?", [job, city, model])
        return {run.slot: run.result for run in found}

    def runs(self, job: str, city: str, since: np.datetime64) -> list[Run]:
        """The runs of the slots from `since` on, in their order, whatever the model."""
        return self._runs("WHERE job = ? AND city = ? AND slot >= ? ORDER BY slot", [job, city, _text(since)])

    def first_slot(self, job: str, city: str) -> np.datetime64 | None:
        """The oldest slot that a job ever ran for, whatever the model and the result."""
        found = self._runs("WHERE job = ? AND city = ? ORDER BY slot LIMIT 1", [job, city])
        return found[0].slot if found else None

    def last(self, job: str, city: str) -> Run | None:
        """The run of the newest slot, whatever the model."""
        found = self._runs("WHERE job = ? AND city = ? ORDER BY slot DESC, finished DESC LIMIT 1", [job, city])
        return found[0] if found else None

    def lose(self, job: str, city: str, model: str, start: np.datetime64, end: np.datetime64) -> None:
        """Note that the results of the slots in [start, end) were lost: they are to be made again."""
        if self.file.exists():
            with self._open() as database:
                database.execute(
                    f"UPDATE runs SET result = '{LOST}', attempts = 0 "
                    "WHERE job = ? AND city = ? AND model = ? AND slot >= ? AND slot < ?",
                    (job, city, model, _text(start), _text(end)),
                )

    def _runs(self, clause: str, values: list[str]) -> list[Run]:
        if not self.file.exists():
            return []
        columns = "job, city, model, slot, result, detail, attempts, seconds, finished"
        with self._open() as database:
            rows = database.execute(f"SELECT {columns} FROM runs {clause}", values).fetchall()
        return [
            Run(job, city, model, _time(slot), result, detail, attempts, seconds, _time(finished))
            for job, city, model, slot, result, detail, attempts, seconds, finished in rows
        ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.file, timeout=_WAIT_SECONDS)
        try:
            with database:
                database.execute(_TABLE)
                if _missing(database):
                    database.execute("BEGIN IMMEDIATE")  # another thread may be at it
                    for name in _missing(database):
                        database.execute(f"ALTER TABLE runs ADD COLUMN {name} {_ADDED[name]}")
                yield database
        finally:
            database.close()


def _missing(database: sqlite3.Connection) -> set[str]:
    return _ADDED.keys() - {row[1] for row in database.execute("PRAGMA table_info(runs)")}


def _text(slot: np.datetime64) -> str:
    return str(slot.astype("datetime64[s]")) + "Z"


def _time(text: str) -> np.datetime64:
    return np.datetime64(text.removesuffix("Z"), "us")
