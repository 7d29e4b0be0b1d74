"""Log lines of the service: each names the city, the job and the slot that it is about.

A line is one line, whatever stands in the name of a file, and an error that comes again and again is one line an hour.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_EQUAL_SECONDS = 3600.0  # an equal error is logged again after so long
_MOST_ERRORS = 1000  # different errors that are remembered
_TEMPORARY = re.compile(r"[0-9a-z_]+\.tmp\b")  # the random part of a temporary file's name

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
        return printable(json.dumps(line, ensure_ascii=False))


class TextLines(logging.Formatter):
    """Write a log line as text: time, level, then city, job and slot in brackets, and the message.

    The lines of a traceback are indented, so that none of them looks like a line of the log.
    """

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
        message = printable(f"[{words}] {record.getMessage()}" if words else record.getMessage())
        return super().format(logging.makeLogRecord({**record.__dict__, "msg": message, "args": (), "exc_text": None}))

    def formatException(self, ei: Any) -> str:
        """Write a traceback.

        Parameters
        ----------
        ei
            The exception's type, value and traceback.

        Returns
        -------
        str
            The indented lines.
        """
        return "\n".join(f"    {printable(line)}" for line in super().formatException(ei).splitlines())


class EqualErrors(logging.Filter):
    """Lets the first of equal errors through, and then one an hour, which says how many came since.

    Errors are equal where their messages, cities and jobs are: a fault that comes every few seconds does not fill the
    disk with lines. Warnings, such as alerts, all pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()  # when logged, how often since
        self._changing = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide about a line.

        Parameters
        ----------
        record
            The log record.

        Returns
        -------
        bool
            False for an error that was logged within the last hour. A record that passes is given the number of equal
            ones that did not.
        """
        if record.levelno < logging.ERROR:
            return True
        about = _about.get()
        key = _TEMPORARY.sub("tmp", record.getMessage()), about.get("city", ""), about.get("job", "")
        with self._changing:
            now = time.monotonic()
            logged, since = self._seen.get(key, (float("-inf"), 0))
            if now - logged < _EQUAL_SECONDS:
                self._seen[key] = logged, since + 1
                return False
            self._seen[key] = now, 0
            self._seen.move_to_end(key)
            if len(self._seen) > _MOST_ERRORS:
                self._seen.popitem(last=False)
        if since:
            hours = (now - logged) / 3600
            record.msg, record.args = f"{record.getMessage()} ({since} times more in the {hours:.1f} h before)", ()
        return True


def printable(text: str) -> str:
    """Escape what does not print, such as the ends of lines, so that no text can look like another line.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        The text, with escapes such as those of JSON.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
