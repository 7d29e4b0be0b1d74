"""The jobs that are at work: how many, for how long, and whose turn it is.

Each job of each city has a worker of its own. Few of a kind work at once, as each needs much of the machine; one that
hangs loses its turn, so that it keeps no other city waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


class _Stopping(Exception):
    """The service stops, and no more work begins."""


@dataclass(frozen=True)
class _Limits:
    """What a kind of job is allowed.

    `at_once` of them work at once, and each counts for `turn_seconds`; one that takes longer than `hangs_seconds` is
    told as a fault.
    """

    hangs_seconds: float
    at_once: int = 1_000_000
    turn_seconds: float = float("inf")


@dataclass
class _Work:
    """The jobs at work, by job and city."""

    limits: Mapping[str, _Limits]
    stop: threading.Event
    _began: dict[tuple[str, str], float] = field(default_factory=dict)
    _turns: dict[tuple[str, str], float] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def active(self) -> int:
        """How many jobs are at work."""
        return len(self._began)

    @contextmanager
    def at_work(self, job: str, city: str) -> Iterator[None]:
        """Count a job as at work within the block."""
        self._began[job, city] = time.monotonic()
        try:
            yield
        finally:
            del self._began[job, city]

    @contextmanager
    def turn(self, job: str, city: str) -> Iterator[None]:
        """Wait until it is the job's turn, and hold it within the block. Raises _Stopping when the service stops."""
        limits = self.limits[job]
        with self._changed:
            while self._counted(job, limits.turn_seconds) >= limits.at_once and not self.stop.is_set():
                self._changed.wait(0.5)
            if self.stop.is_set():
                raise _Stopping
            self._turns[job, city] = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                del self._turns[job, city]
                self._changed.notify_all()

    def hanging(self) -> dict[str, list[str]]:
        """Return for each city a sentence on each job that hangs."""
        found: dict[str, list[str]] = {}
        for (job, city), began in sorted(self._began.copy().items()):
            limit = self.limits[job].hangs_seconds
            if time.monotonic() - began > limit:
                sentence = f"the job {job} has been at work for more than {limit / 60:g} minutes: does its disk hang?"
                found.setdefault(city, []).append(sentence)
        return found

    def _counted(self, job: str, turn_seconds: float) -> int:
        """Return how many jobs of a kind hold a turn and have not lost it."""
        now = time.monotonic()
        return sum(now - began < turn_seconds for (other, _), began in self._turns.items() if other == job)
