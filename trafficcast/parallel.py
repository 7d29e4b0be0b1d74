"""Work done ahead, in threads, by as much as is waited for: results in order, never more than a few at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def parallel_map(work: Callable[[_T], _R], items: Iterable[_T], workers: int) -> Iterator[_R]:
    """`map`, with the next items worked on in threads while the caller uses a result.

    What is slow in `work` must release the interpreter's lock. An error is raised in its turn.
    """
    waiting: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def next_ahead(items: Iterator[_R]) -> Iterator[_R]:
    """The same items, the next one made in a thread while the caller uses one."""
    end = object()
    for item in parallel_map(lambda _: next(items, end), iter(int, 1), 1):
        if item is end:
            return
        yield item  # type: ignore[misc]
