"""One way to open a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from trafficcast.errors import InputError, JobError


@contextmanager
def open_database(
    file: Path, tables: str = "", advice: str = "move it away", read_only: bool = False, wait_seconds: float = 30.0
) -> Iterator[sqlite3.Connection]:
    """Open a SQLite file for one transaction, which ends with the block.

    Parameters
    ----------
    file
        The file, which is made with its folder if it does not exist and may be written.
    tables
        The statements that make the tables if they do not exist; not executed for a reader.
    advice
        What the user should do with a damaged file, the end of the error's sentence.
    read_only
        Whether the file is only read: then SQLite neither makes nor changes a file.
    wait_seconds
        How long another process's lock is waited for, in seconds.

    Yields
    ------
    sqlite3.Connection
        The open database.

    Raises
    ------
    InputError
        The file is damaged.
    JobError
        The file cannot be used now: it is locked, it does not exist for a reader, or the disk is full.
    """
    if not read_only:
        file.parent.mkdir(parents=True, exist_ok=True)
    address = f"{file.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=wait_seconds)) as database, database:
            if not read_only:
                database.executescript(tables)
            yield database
    except sqlite3.OperationalError as error:
        raise JobError(f"cannot use {file}: {_reason(error)}") from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"{file} is damaged: {error}; {advice}") from None


def _reason(error: sqlite3.OperationalError) -> str:
    """Return the reason why a database cannot be used, also where SQLite says only that the file is read-only."""
    if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
        return "a writer was stopped midway; the next writer repairs the file"
    return str(error)
