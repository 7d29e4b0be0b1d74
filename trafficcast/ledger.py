"""The run ledger, data/ledger.sqlite: what ran, with what result; one row a (job, city, model, slot)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    job TEXT NOT NULL, city TEXT NOT NULL, model TEXT NOT NULL, slot TEXT NOT NULL,
    result TEXT NOT NULL, finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ')),
    PRIMARY KEY (job, city, model, slot)
)
"""
WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Ledger:
    """Slots are naive UTC slot starts, written with a Z."""

    file: Path

    def record(self, job: str, city: str, model: str, slot: np.datetime64, result: str) -> None:
        """Note a run's result. The same run with the same result changes nothing."""
        with self._open() as database:
            database.execute(
                "INSERT INTO runs (job, city, model, slot, result) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET result = excluded.result, finished = excluded.finished "
                "WHERE result != excluded.result",
                (job, city, model, _text(slot), result),
            )

    def results(self, job: str, city: str, model: str) -> dict[np.datetime64, str]:
        """What is known of a job: the result of each slot."""
        if not self.file.exists():
            return {}
        with self._open() as database:
            rows = database.execute(
                "SELECT slot, result FROM runs WHERE job = ? AND city = ? AND model = ?", (job, city, model)
            ).fetchall()
        return {np.datetime64(slot.removesuffix("Z"), "us"): result for slot, result in rows}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.file, timeout=WAIT_SECONDS)
        try:
            with database:
                database.execute(TABLE)
                yield database
        finally:
            database.close()


def _text(slot: np.datetime64) -> str:
    return str(slot.astype("datetime64[s]")) + "Z"
