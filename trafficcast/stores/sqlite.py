"""One way to open a SQLite file, and one way to make a damaged one anew from the rows that can be read."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from trafficcast.errors import DamagedFile, JobError
from trafficcast.files import held, replace, set_aside

Row = tuple[Any, ...]
# What is raised where a row holds other values than a writer gave it.
_WRONG_VALUES = (ValueError, TypeError, LookupError, AttributeError, OverflowError, zlib.error)


@contextmanager
def open_database(
    file: Path, tables: str = "", city: str | None = None, read_only: bool = False, wait_seconds: float = 30.0
) -> Iterator[sqlite3.Connection]:
    """Open a SQLite file for one transaction, which ends with the block.

    Parameters
    ----------
    file
        The file, which is made with its folder if it does not exist and may be written.
    tables
        The statements that make the tables if they do not exist; not executed for a reader.
    city
        The city whose file it is; None for a file of all cities.
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
    DamagedFile
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
        if _is_damage(error):
            raise DamagedFile(file, error, city) from None
        if str(error) == "database is locked":
            raise JobError(held(file, wait_seconds)) from None
        raise JobError(f"cannot use {file}: {_reason(error)}") from None
    except sqlite3.DatabaseError as error:
        raise DamagedFile(file, error, city) from None


@contextmanager
def decoding() -> Iterator[None]:
    """Make an error of the database of whatever a row with wrong values raises in the block.

    Raises
    ------
    sqlite3.DatabaseError
        A row holds other values than a writer gave it.
    """
    try:
        yield
    except _WRONG_VALUES as error:
        raise sqlite3.DatabaseError(f"a row holds wrong values: {error}") from None


def salvage(file: Path, tables: str, is_right: Callable[[str, Row], object]) -> tuple[Path, int]:
    """Set a damaged SQLite file aside, and make it anew of those of its rows that can be read.

    Parameters
    ----------
    file
        The damaged file, in a folder whose writer lock the caller holds.
    tables
        The statements that make its tables.
    is_right
        Called with a table's name and a row of it; raises an error where the row's values are wrong.

    Returns
    -------
    tuple[Path, int]
        Where the damaged file lies now, and how many rows were kept.
    """
    kept = 0
    temporary = file.with_name(f".{file.name}.repair.tmp")
    temporary.unlink(missing_ok=True)
    with closing(sqlite3.connect(temporary)) as new, new:
        new.executescript(tables)
        names = [name for (name,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            width = len(new.execute(f"PRAGMA table_info({name})").fetchall())
            for row in readable_rows(file, name):
                with suppress(*_WRONG_VALUES, sqlite3.Error):
                    if len(row) == width:
                        is_right(name, row)
                        places = ", ".join("?" * width)
                        kept += new.execute(f"INSERT OR IGNORE INTO {name} VALUES ({places})", row).rowcount
    aside = set_aside(file)
    replace(temporary, file)
    return aside, kept


def readable_rows(file: Path, table: str) -> list[Row]:
    """Read those rows of a table of a damaged SQLite file that can be read.

    Parameters
    ----------
    file
        The file, which is not changed.
    table
        The table's name.

    Returns
    -------
    list[Row]
        The rows, in the order of their numbers where the whole table can be read.
    """
    found: dict[Row, None] = {}
    # From both ends, as a reader goes no further than a damaged page.
    for order in ("", " ORDER BY rowid DESC"):
        with (
            suppress(sqlite3.Error, OSError),
            closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as old,
        ):
            old.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
            found.update((row, None) for row in old.execute(f"SELECT * FROM {table}{order}"))
    return list(found)


def check_database(file: Path, tables: str, is_right: Callable[[str, Row], object], city: str | None = None) -> None:
    """Read a whole SQLite file, to find damage.

    Parameters
    ----------
    file
        The file.
    tables
        The statements that make its tables.
    is_right
        Called with a table's name and a row of it; raises an error where the row's values are wrong.
    city
        The city whose file it is; None for a file of all cities.

    Raises
    ------
    DamagedFile
        The file cannot be read, or holds wrong values.
    """
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(tables)
        names = [name for (name,) in empty.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if file.stat().st_size == 0:
        raise DamagedFile(file, "it is empty", city)
    with open_database(file, city=city, read_only=True) as database:
        with decoding():
            (answer,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(str(answer))
        there = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        for name in there.intersection(names):
            for row in database.execute(f"SELECT * FROM {name}"):
                with decoding():
                    is_right(name, row)


def _is_damage(error: sqlite3.OperationalError) -> bool:
    """Whether SQLite calls damage a failed operation: text that is no UTF-8, and tables that a bad page has lost."""
    text = str(error)
    return "decode to UTF-8" in text or text.startswith(("malformed", "no such column"))


def _reason(error: sqlite3.OperationalError) -> str:
    """Return the reason why a database cannot be used, also where SQLite says only that the file is read-only."""
    if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
        return "a writer was stopped midway; the next writer repairs the file"
    return str(error)
