"""The log lines of commands, on stderr."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler


def log_to_stderr() -> None:
    """Write the project's log to stderr: in colour on a terminal, with time and time zone elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        _log_through("trafficcast", RichHandler(console=console, show_path=False, show_level=False))
    else:
        log_lines("trafficcast", logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))


def log_lines(name: str, lines: logging.Formatter) -> None:
    """Write the lines of the logger `name` to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(lines)
    _log_through(name, handler)


def _log_through(name: str, handler: logging.Handler) -> None:
    """Make a logger write through one handler, in place of an earlier call's, as stderr may have changed."""
    handler.set_name("trafficcast on stderr")
    logger = logging.getLogger(name)
    logger.handlers = [other for other in logger.handlers if other.name != handler.name] + [handler]
