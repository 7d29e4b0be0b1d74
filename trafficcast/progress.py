"""Show the progress of long work on stderr: a bar on a terminal, a log line now and then elsewhere."""

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
    """Yield items while showing the progress.

    Parameters
    ----------
    items
        The items.
    description
        What is being done, for the user.
    total
        Number of the items.

    Yields
    ------
    _T
        The same items.
    """
    with progress_bar(description) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done / total)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[float], None]]:
    """Show a progress bar until the block ends.

    Parameters
    ----------
    description
        What is being done, for the user.

    Yields
    ------
    Callable[[float], None]
        A function to call with the share that is done, 0 to 1.
    """
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
    began = logged = time.monotonic()

    def _log_share(share: float) -> None:
        """Log the share, at most every few seconds."""
        nonlocal logged
        now = time.monotonic()
        if now - logged > _LOG_EVERY_SECONDS or share >= 1:
            logged = now
            log.info("%s: %.0f %%, %.0f s", description, 100 * share, now - began)

    yield _log_share
