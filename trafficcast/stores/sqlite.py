"""One way to open a SQLite file, and one way to make a damaged one anew from the rows that can be read.

A row ends with its checksum, a column that SQLite computes from the others with each write:

    CREATE TABLE hours (hour INTEGER PRIMARY KEY, file TEXT, checksum INTEGER AS (checksum(hour, file)) STORED)

`checked_rows` compares it with the row that is read. Files of earlier versions have no such column: they are read as
they are, and gain it with the next write.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
            _add_functions(database)
            if tables and not read_only:
                _make_tables(database, tables)
            yield database
    except sqlite3.OperationalError as error:
        if _is_damage(error):
            raise DamagedFile(file, error, city) from None
        if str(error) == "database is locked":
            raise JobError(held(file, wait_seconds)) from None
        raise JobError(f"cannot use {file}: {_reason(error)}") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # also names of tables may be no UTF-8
        raise DamagedFile(file, error, city) from None


def checked_rows(
    database: sqlite3.Connection, table: str, clause: str = "", values: Sequence[object] | Mapping[str, object] = ()
) -> Iterator[Row]:
    """Read whole rows of a table, and compare each with its checksum.

    Parameters
    ----------
    database
        The open database.
    table
        The table's name.
    clause
        Which rows, and in which order, in SQL.
    values
        The values of the clause's question marks.

    Yields
    ------
    Row
        The row without its checksum.

    Raises
    ------
    sqlite3.DatabaseError
        A row is not as it was written.
    """
    found = database.execute(f"SELECT * FROM {table} {clause}", values)
    for row in found:
        try:
            yield _as_written(found, row)
        except ValueError as error:
            raise sqlite3.DatabaseError(f"in the table {table} {error}") from None


def _as_written(found: sqlite3.Cursor, row: Row) -> Row:
    """Return a row without its checksum, if its table has one; raise ValueError where the row is another one."""
    if not row:
        raise ValueError("a row is gone")
    if found.description[-1][0] != "checksum":
        return row
    *values, checksum = row
    if checksum != _checksum(*values):
        raise ValueError("a row is not as it was written")
    return tuple(values)


def _checksum(*values: object) -> int:
    """Return the CRC-32 of a row's values, in which any flipped bit shows."""
    sum_ = 0
    for value in values:
        if isinstance(value, float):
            value += 0.0  # SQLite has no negative zero
        sum_ = zlib.crc32(value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogateescape"), sum_)
    return sum_


def _add_functions(database: sqlite3.Connection) -> None:
    """Give SQLite the function by which it computes the checksums of rows."""
    database.create_function("checksum", -1, _checksum, deterministic=True)


def _make_tables(database: sqlite3.Connection, tables: str) -> None:
    """Make the tables that do not exist; those of an earlier version gain their checksums."""
    old = database.execute(_WITHOUT_CHECKSUMS).fetchall()
    wanted = _definitions(tables) if old else {}
    if any("checksum" in wanted.get(name, "") for (name,) in old):
        database.execute("BEGIN IMMEDIATE")
        for (name,) in database.execute(_WITHOUT_CHECKSUMS).fetchall():
            if "checksum" in wanted.get(name, ""):
                database.execute(f"ALTER TABLE {name} RENAME TO earlier")
                database.execute(wanted[name])
                columns = ", ".join(f'"{row[1]}"' for row in database.execute(f"PRAGMA table_info({name})"))
                database.execute(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM earlier ORDER BY rowid")
                database.execute("DROP TABLE earlier")
        database.commit()
    database.executescript(tables)


_WITHOUT_CHECKSUMS = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%checksum%'"


def _definitions(tables: str) -> dict[str, str]:
    """Return the definition of each table that statements make."""
    with closing(sqlite3.connect(":memory:")) as empty:
        _add_functions(empty)
        empty.executescript(tables)
        return dict(empty.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))


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
        _add_functions(new)
        new.executescript(tables)
        for name in _definitions(tables):
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
            rows = old.execute(f"SELECT * FROM {table}{order}")
            for row in rows:
                with suppress(ValueError):
                    found[_as_written(rows, row)] = None
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
    if file.stat().st_size == 0:
        raise DamagedFile(file, "it is empty", city)
    with open_database(file, city=city, read_only=True) as database:
        with decoding():
            (answer,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(str(answer))
        there = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        for name in [name for name in _definitions(tables) if name in there]:
            for row in checked_rows(database, name):
                with decoding():
                    is_right(name, row)


def _is_damage(error: sqlite3.OperationalError) -> bool:
    """Whether SQLite calls damage a failed operation: text that is no UTF-8, and tables that a bad page has lost."""
    text = str(error)
    # The function that computes checksums fails where a text is no UTF-8.
    return "decode to UTF-8" in text or text.startswith(("malformed", "no such column", "user-defined function"))


def _reason(error: sqlite3.OperationalError) -> str:
    """Return the reason why a database cannot be used, also where SQLite says only that the file is read-only."""
    if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
        return "a writer was stopped midway; the next writer repairs the file"
    return str(error)
