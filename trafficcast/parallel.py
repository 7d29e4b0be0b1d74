"""A `map` that runs in a few threads and yields results in order, with a bounded number unfinished."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def parallel_map(work: Callable[[_T], _R], items: Iterable[_T], workers: int) -> Iterator[_R]:
    """Apply a function to items in threads, and yield the results in order.

    The next items are worked on while the caller uses a result; an error is raised when its result is due.

    Parameters
    ----------
    work
        The function; its slow parts must release the interpreter's lock.
    items
        The items.
    workers
        Number of threads, and of results that may be unfinished or wait for the caller.

    Yields
    ------
    _R
        The result of each item, in the order of the items.
    """
    unfinished: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                unfinished.append(pool.submit(work, item))
                if len(unfinished) > workers:
                    yield unfinished.popleft().result()
            while unfinished:
                yield unfinished.popleft().result()
        finally:
            for future in unfinished:
                future.cancel()


def prefetch(items: Iterator[_R]) -> Iterator[_R]:
    """Yield items, while a thread makes the next one.

    Parameters
    ----------
    items
        The items; an error among them is raised in its turn.

    Yields
    ------
    _R
        The same items.
    """
    end = object()
    for item in parallel_map(lambda _: next(items, end), iter(int, 1), 1):
        if item is end:
            return
        yield item  # type: ignore[misc]
