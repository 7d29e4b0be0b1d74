"""Parallel maps: results in order, few unfinished, errors in their turn."""

from __future__ import annotations

import threading
import time

import pytest

from trafficcast.parallel import parallel_map, prefetch


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers: int) -> None:
    def work(n: int) -> int:
        time.sleep(0.002 * (n % 3))
        return n * n

    assert list(parallel_map(work, range(20), workers)) == [n * n for n in range(20)]


def test_little_is_done_before_it_is_wanted() -> None:
    begun = []
    results = parallel_map(lambda n: begun.append(n), iter(range(100)), 2)
    for done in range(5):
        next(results)
        assert len(begun) <= done + 3


def test_items_are_worked_on_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=10)
    assert list(parallel_map(lambda _: together.wait() >= 0, range(4), 2)) == [True] * 4


def test_an_error_comes_in_its_turn() -> None:
    results = parallel_map(lambda n: 1 // (2 - n), range(9), 3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_next_item_is_prefetched_and_an_error_kept() -> None:
    def items() -> object:
        yield from (1, 2)
        raise KeyError("three")

    found = prefetch(items())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(KeyError, match="three"):
        next(found)
    assert list(prefetch(iter([]))) == []
