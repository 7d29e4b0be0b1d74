"""The log lines of commands, on stderr."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler

from pipelines.service.logs import TextLines, printable


def log_to_stderr() -> None:
    """Write the project's log to stderr: in colour on a terminal, with time and time zone elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False)
        handler.setFormatter(_Messages())
        log_through("trafficcast", handler)
    else:
        log_through("trafficcast", lines_handler(TextLines()))


class _Messages(logging.Formatter):
    """Write the message alone, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a line."""
        return printable(record.getMessage())


def lines_handler(lines: logging.Formatter) -> logging.Handler:
    """Return a handler that writes lines to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(lines)
    return handler


def log_through(name: str, handler: logging.Handler) -> None:
    """Make a logger write through one handler, in place of an earlier call's, as stderr may have changed."""
    handler.set_name("trafficcast on stderr")
    logger = logging.getLogger(name)
    logger.handlers = [other for other in logger.handlers if other.name != handler.name] + [handler]
