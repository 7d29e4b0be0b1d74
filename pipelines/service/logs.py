"""Log lines of the service: each says, beside its message, of which city, job and slot it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_about: ContextVar[dict[str, str]] = ContextVar("about", default={})  # noqa: B039  # never changed in place


@contextmanager
def _context(**what: str) -> Iterator[None]:
    """Within the block every line of this thread carries `what`, such as city, job and slot."""
    token = _about.set(_about.get() | what)
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, message, what it is about, and an error's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **_about.get(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextLines(logging.Formatter):
    """Time, level, what it is about in brackets, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        words = " ".join(_about.get().values())
        if words:
            record = logging.makeLogRecord({**record.__dict__, "msg": f"[{words}] {record.getMessage()}", "args": ()})
        return super().format(record)
