"""The turns of jobs: few at once, and one that hangs keeps no other waiting and is told."""

from __future__ import annotations

import threading
import time

import pytest

from pipelines.service.work import _Limits, _Stopping, _Work


@pytest.fixture
def work() -> _Work:
    return _Work({"ingest": _Limits(0.4, 2, 0.3), "prune": _Limits(60)}, threading.Event())


def test_few_work_at_once_and_one_that_hangs_keeps_no_other_waiting(work: _Work) -> None:
    over, ran = threading.Event(), list[tuple[str, float]]()
    began = time.monotonic()

    def job(city: str, hangs: bool) -> None:
        with work.at_work("ingest", city), work.turn("ingest", city):
            ran.append((city, time.monotonic() - began))
            over.wait(60) if hangs else time.sleep(0.01)

    threads = [threading.Thread(target=job, args=(f"sick {i}", True)) for i in range(3)]
    threads += [threading.Thread(target=job, args=(f"well {i}", False)) for i in range(9)]
    try:
        for thread in threads:
            thread.start()
            time.sleep(0.005)
        for thread in threads[3:]:
            thread.join(30)
        assert len(ran) == len(threads)
        assert min(when for city, when in ran if city.startswith("well")) > 0.25  # two were at work
        time.sleep(0.5)
        sentence = "the job ingest has been at work for more than 0.00666667 minutes: does its disk hang?"
        assert work.hanging() == {f"sick {i}": [sentence] for i in range(3)} and work.active == 3
    finally:
        over.set()
    for thread in threads:
        thread.join(30)
    assert not work.hanging() and not work.active


def test_when_the_service_stops_no_more_work_begins(work: _Work) -> None:
    work.stop.set()
    with pytest.raises(_Stopping), work.turn("ingest", "small"):
        pass
