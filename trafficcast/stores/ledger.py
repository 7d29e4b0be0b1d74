"""The run ledger, data/ledger.sqlite: which job ran for which city, model and slot, and with what result."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trafficcast.errors import JobError
from trafficcast.progress import log
from trafficcast.stores.sqlite import _WRONG_VALUES, Row, _as_written, check_database, open_database, salvage

_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    job TEXT NOT NULL, city TEXT NOT NULL, model TEXT NOT NULL, slot TEXT NOT NULL,
    result TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 1,
    seconds REAL NOT NULL DEFAULT 0, finished TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ')),
    checksum INTEGER AS (checksum(job, city, model, slot, result, detail, attempts, seconds, finished)) STORED,
    PRIMARY KEY (job, city, model, slot)
);
CREATE TABLE IF NOT EXISTS unreadable (
    row TEXT NOT NULL, noticed TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ'))
)
"""
_KEY = "job, city, model, slot"
# For how long a reader waits for another program's transaction.
_READER_WAIT_SECONDS = 5.0
# Results of a run that failed, and of a run whose product was lost later.
FAILED, LOST = "failed", "lost"


@dataclass(frozen=True)
class Run:
    """A row of the ledger: the last run of a job for a city, a model and a slot.

    Attributes
    ----------
    job
        The job, such as forecast, verify or ingest.
    city
        The city's name.
    model
        The model's version; empty for a job without a model.
    slot
        Start of the slot, naive UTC.
    result
        The result, such as complete, done or failed.
    detail
        A sentence about the result; may be empty.
    attempts
        How often the job ran for this slot.
    seconds
        How long the last run took, in seconds.
    finished
        When the last run ended by the machine's clock, naive UTC.
    """

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
    """The run ledger of all cities. A ledger that was never written has no file and no runs.

    All methods raise DamagedFile where the file is damaged, and JobError where it cannot be used now. A row that cannot
    be read is left out and set aside: it hides no other row.

    Attributes
    ----------
    file
        The SQLite file, which need not exist. It holds slots as text in UTC, with a Z.
    read_only
        Whether the ledger is only read: then a row that cannot be read is left out, and not set aside.
    """

    file: Path
    read_only: bool = False

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
        """Record the result of a run; a repeated run counts as one more attempt.

        Parameters
        ----------
        job
            The job, such as forecast.
        city
            The city's name.
        model
            The model's version; empty for a job without a model.
        slot
            Start of the slot, naive UTC.
        result
            The result, such as complete, done or failed.
        detail
            A sentence about the result.
        seconds
            How long the run took, in seconds.
        """
        key = (job, city, model, _text(slot))
        self._runs("WHERE job = ? AND city = ? AND model = ? AND slot = ?", list(key))  # sets it aside if it is damaged
        with open_database(self.file, _TABLES) as database:
            database.execute(
                "INSERT INTO runs (job, city, model, slot, result, detail, seconds) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET result = excluded.result, detail = excluded.detail, "
                "attempts = attempts + 1, seconds = excluded.seconds, finished = excluded.finished",
                (*key, result, detail, seconds),
            )

    def results(self, job: str, city: str, model: str) -> dict[np.datetime64, str]:
        """Return the result of a job for each slot.

        Parameters
        ----------
        job
            The job.
        city
            The city's name.
        model
            The model's version.

        Returns
        -------
        dict[np.datetime64, str]
            Start of the slot, naive UTC -> result.
        """
        found = self._runs("WHERE job = ? AND city = ? AND model = ?", [job, city, model])
        return {run.slot: run.result for run in found}

    def runs(self, job: str, city: str, since: np.datetime64) -> list[Run]:
        """Return the runs of a job for any model, in the order of their slots.

        Parameters
        ----------
        job
            The job.
        city
            The city's name.
        since
            Start of the first slot, naive UTC, inclusive.

        Returns
        -------
        list[Run]
            The runs.
        """
        return self._runs("WHERE job = ? AND city = ? AND slot >= ? ORDER BY slot", [job, city, _text(since)])

    def first_slot(self, job: str, city: str) -> np.datetime64 | None:
        """Return the oldest slot that a job ran for, with any model and any result.

        Parameters
        ----------
        job
            The job.
        city
            The city's name.

        Returns
        -------
        np.datetime64 | None
            Start of the slot, naive UTC; None if the job never ran.
        """
        found = self._runs("WHERE job = ? AND city = ? ORDER BY slot", [job, city], 1)
        return found[0].slot if found else None

    def last(self, job: str, city: str) -> Run | None:
        """Return the run of a job for the newest slot, with any model.

        Parameters
        ----------
        job
            The job.
        city
            The city's name.

        Returns
        -------
        Run | None
            The run; None if the job never ran.
        """
        found = self._runs("WHERE job = ? AND city = ? ORDER BY slot DESC, finished DESC", [job, city], 1)
        return found[0] if found else None

    def lose(self, job: str, city: str, model: str, start: np.datetime64, end: np.datetime64) -> None:
        """Record that the products of a job were lost, so that they are made again.

        Parameters
        ----------
        job
            The job.
        city
            The city's name.
        model
            The model's version.
        start
            Start of the first slot, naive UTC, inclusive.
        end
            End of the period, naive UTC, exclusive.
        """
        if self.file.exists():
            with open_database(self.file, _TABLES) as database:
                database.execute(
                    f"UPDATE runs SET result = '{LOST}', attempts = 0 "
                    "WHERE job = ? AND city = ? AND model = ? AND slot >= ? AND slot < ?",
                    (job, city, model, _text(start), _text(end)),
                )

    def forget(self, city: str, jobs: Sequence[str], after: np.datetime64) -> int:
        """Remove the runs of jobs for later slots, as if they had never been.

        Parameters
        ----------
        city
            The city's name.
        jobs
            The jobs.
        after
            The last slot whose runs stay, naive UTC.

        Returns
        -------
        int
            How many runs were removed.
        """
        if not self.file.exists():
            return 0
        with open_database(self.file, _TABLES) as database:
            places = ", ".join("?" * len(jobs))
            gone = database.execute(
                f"DELETE FROM runs WHERE city = ? AND job IN ({places}) AND slot > ?", (city, *jobs, _text(after))
            )
            return gone.rowcount

    def check(self) -> None:
        """Read the whole ledger, to find damage."""
        if self.file.exists():
            check_database(self.file, _TABLES, _is_right)

    def salvage(self) -> tuple[Path, int]:
        """Set the damaged ledger aside, and begin a new one with those of its rows that can be read.

        Returns
        -------
        tuple[Path, int]
            Where the damaged ledger lies now, and how many rows were kept.
        """
        return salvage(self.file, _TABLES, _is_right)

    def unreadable(self) -> int:
        """Count the rows that could not be read and were set aside.

        Returns
        -------
        int
            How many rows there are.
        """
        if not self._is_there():
            return 0
        with open_database(self.file, wait_seconds=_READER_WAIT_SECONDS) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'unreadable'").fetchone() is None:
                return 0  # an earlier version made the file
            return int(database.execute("SELECT count(*) FROM unreadable").fetchone()[0])

    def _is_there(self) -> bool:
        return self.file.exists() and self.file.stat().st_size > 0

    def _runs(self, clause: str, values: list[str], most: int | None = None) -> list[Run]:
        """Return the runs, or the first runs, that a clause of SQL selects; rows that cannot be read are set aside."""
        if not self._is_there():
            return []
        found: list[Run] = []
        wrong: list[int] = []
        with open_database(self.file, read_only=self.read_only, wait_seconds=_READER_WAIT_SECONDS) as database:
            database.text_factory = _text_or_bytes
            for number, *key in database.execute(f"SELECT rowid, {_KEY} FROM runs {clause}", values):
                try:
                    # By its number, as SQLite else takes the key's columns from the index, in place of the row.
                    run = _read_run(database, number)
                    if key != [run.job, run.city, run.model, _text(run.slot)]:
                        raise sqlite3.DatabaseError("the table runs and its index differ")
                    found.append(run)
                except _WRONG_VALUES:
                    wrong.append(number)
                if len(found) == most:
                    break
        if wrong and not self.read_only:
            self._set_aside(wrong)
        return found

    def _set_aside(self, numbers: list[int]) -> None:
        """Move rows that cannot be read to a table of their own, unless a writer has replaced them by now."""
        moved: list[Row] = []
        try:
            with open_database(self.file, _TABLES) as database:
                database.text_factory = _text_or_bytes
                # The index may hold what the row held before, and then refuses that the row is removed.
                database.execute("REINDEX runs")
                for number in numbers:
                    row = database.execute("SELECT * FROM runs WHERE rowid = ?", (number,)).fetchone()
                    try:
                        if row is not None:
                            _read_run(database, number)
                    except _WRONG_VALUES:
                        database.execute("INSERT INTO unreadable (row) VALUES (?)", (ascii(row),))
                        database.execute("DELETE FROM runs WHERE rowid = ?", (number,))
                        moved.append(row)
        except JobError as error:  # a reader that may not write, or a full disk: the next one does it
            log.error("%d rows of %s cannot be read, nor be set aside: %s", len(numbers), self.file, error)
        for row in moved:
            log.error("a row of %s cannot be read and was set aside: %s", self.file, ascii(row))


def _read_run(database: sqlite3.Connection, number: int) -> Run:
    """Read a row of the table `runs`. Raises ValueError and the like where it is gone, or not as it was written."""
    rows = database.execute("SELECT * FROM runs WHERE rowid = ?", (number,))
    return _run(_as_written(rows, next(rows, ())))


def _run(row: Row) -> Run:
    """Return a row of the table `runs` as a run. Raises ValueError and the like where its values are wrong."""
    job, city, model, slot, result, detail, attempts, seconds, finished = row
    if not all(isinstance(text, str) for text in (job, city, model, slot, result, detail, finished)):
        raise ValueError("a text is no text")
    return Run(job, city, model, _time(slot), result, detail, int(attempts), float(seconds), _time(finished))


def _is_right(table: str, row: Row) -> None:
    """Raise an error where a row's values are wrong."""
    if table == "runs":
        _run(row)


def _text_or_bytes(content: bytes) -> str | bytes:
    """Return a text, or its bytes where they are no UTF-8, so that one row does not end the reading of all."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _text(slot: np.datetime64) -> str:
    """Return a slot's start as the ledger holds it."""
    return str(slot.astype("datetime64[s]")) + "Z"


def _time(text: str) -> np.datetime64:
    """Return a time of the ledger, naive UTC."""
    return np.datetime64(text.removesuffix("Z"), "us")
