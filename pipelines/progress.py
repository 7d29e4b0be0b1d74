"""Progress of long work on stderr: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger("trafficcast")
LOG_EVERY_SECONDS = 15.0
T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield the items while showing how far it has come."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            yield from progress.track(items, total=total, description=description)
        return
    began = spoke = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - spoke > LOG_EVERY_SECONDS or done == total:
            spoke = time.monotonic()
            log.info("%s: %d of %d, %.0f s", description, done, total, spoke - began)
