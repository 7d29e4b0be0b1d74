"""Log lines of the service: each names the city, the job and the slot that it is about."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_about: ContextVar[dict[str, str]] = ContextVar("about", default={})  # noqa: B039  # never changed in place


@contextmanager
def _context(**about: str) -> Iterator[None]:
    """Add fields, such as city, job and slot, to every line that this thread logs within the block."""
    token = _about.set(_about.get() | about)
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    """Write a log line as a JSON object: time (UTC), level, message, city, job, slot, and an error's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a line.

        Parameters
        ----------
        record
            The log record.

        Returns
        -------
        str
            A JSON object.
        """
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
    """Write a log line as text: time, level, then city, job and slot in brackets, and the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        """Write a line.

        Parameters
        ----------
        record
            The log record.

        Returns
        -------
        str
            The line, without its end.
        """
        words = " ".join(_about.get().values())
        if words:
            record = logging.makeLogRecord({**record.__dict__, "msg": f"[{words}] {record.getMessage()}", "args": ()})
        return super().format(record)
