"""Write files atomically: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trafficcast.errors import JobError

# For how long a writer waits for another one.
_LOCK_SECONDS = 30.0


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write a file in one step, with the permissions that the process's umask leaves.

    The temporary file replaces the file when the block ends without an error, and is removed otherwise.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    Path
        Path of a temporary file beside it, to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace(file: Path, path: Path) -> None:
    """Move a file to a path, in place of the file there, so that it is still there after a loss of power.

    Parameters
    ----------
    file
        The file, whose content is on the disk.
    path
        The path, on the same file system.
    """
    os.replace(file, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write the names of a folder's files to the disk, on systems that can.

    Parameters
    ----------
    folder
        The folder.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such call
            raise
    finally:
        os.close(handle)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that killed writers left.

    Parameters
    ----------
    folder
        A folder whose writer lock the caller holds.
    """
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically.

    Parameters
    ----------
    path
        The file.
    value
        Value that `json_text` writes.
    """
    write_text(path, json_text(value) + "\n")


def json_text(value: Any) -> str:
    """Write a value as standard JSON; numbers that are not finite become null.

    Parameters
    ----------
    value
        Plain numbers, texts, lists and dictionaries.

    Returns
    -------
    str
        Indented JSON, keys in their order.
    """
    return json.dumps(_without_nan(value), indent=2, allow_nan=False)


def _without_nan(value: Any) -> Any:
    """Replace numbers that are not finite by None."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> None:
    """Write a text atomically, unless the file holds it already.

    Parameters
    ----------
    path
        The file.
    text
        The text, written as UTF-8.
    """
    if path.is_file() and path.read_bytes() == text.encode():
        return
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def set_aside(file: Path) -> Path:
    """Rename a damaged file, or a database with its journal, to the next free name of a damaged file.

    Parameters
    ----------
    file
        The file.

    Returns
    -------
    Path
        The new path, `NAME.damaged-N`.
    """
    number = 1
    while (aside := file.with_name(f"{file.name}.damaged-{number}")).exists():
        number += 1
    journal = file.with_name(f"{file.name}-journal")
    if journal.exists():
        os.rename(journal, aside.with_name(f"{aside.name}-journal"))
    replace(file, aside)
    return aside


@contextmanager
def writer_lock(folder: Path, wait_seconds: float = _LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of the one writer below a folder within the block; readers need none.

    Parameters
    ----------
    folder
        The folder, made if it does not exist.
    wait_seconds
        How long another writer is waited for, in seconds.

    Yields
    ------
    None
        While the lock is held.

    Raises
    ------
    JobError
        Another writer has not released the lock in that time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise JobError(held(folder / ".lock", wait_seconds)) from None
    try:
        yield
    finally:
        lock.release()


def held(file: Path, seconds: float) -> str:
    """Say that a lock on a file was waited for in vain.

    Parameters
    ----------
    file
        The file.
    seconds
        How long it was waited for.

    Returns
    -------
    str
        A sentence with the process that holds the lock, where the system tells it, and what to do.
    """
    who = "another process"
    with suppress(OSError, ValueError, LookupError):
        facts = os.stat(file)
        name = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
        # Linux: number, kind, advice, access, process, file, first byte, last byte; "->" is one who waits.
        locks = (line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line)
        number = next(words[4] for words in locks if words[5] == name)
        who = f"process {number}"
        who += f" ({Path('/proc', number, 'comm').read_text().strip()})"
    return f"{file} is locked by {who}, for more than {seconds:g} s: wait until it has ended, or end it"
