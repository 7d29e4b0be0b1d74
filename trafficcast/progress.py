"""Progress of long work on stderr: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger("trafficcast")
_LOG_EVERY_SECONDS = 15.0
_T = TypeVar("_T")


def track(items: Iterable[_T], description: str, total: int) -> Iterator[_T]:
    """Yield the items while showing how far it has come."""
    with progress_bar(description) as progress:
        for done, item in enumerate(items, 1):
            yield item
            progress(done / total)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[float], None]]:
    """A function to call with the share done, from 0 to 1."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=1.0)
            yield lambda share: bar.update(task, completed=share)
        return
    began = spoke = time.monotonic()

    def say(share: float) -> None:
        nonlocal spoke
        now = time.monotonic()
        if now - spoke > _LOG_EVERY_SECONDS or share >= 1:
            spoke = now
            log.info("%s: %.0f %%, %.0f s", description, 100 * share, now - began)

    yield say
