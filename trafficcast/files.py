"""Writing files so that a reader sees the old one or the new one, never half."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left of `atomic` in a folder. The caller holds the lock of who writes there."""
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically (see `json_text`)."""
    write_text(path, json_text(value) + "\n")


def json_text(value: Any) -> str:
    """Standard JSON, keys as they stand; null for what is not a number."""
    return json.dumps(_without_nan(value), indent=2, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> None:
    """Write text atomically; a file that holds it already is left alone."""
    if path.is_file() and path.read_bytes() == text.encode():
        return
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def writer_lock(folder: Path) -> FileLock:
    """The lock of whoever writes below a folder: one writer at a time; readers need none."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")
