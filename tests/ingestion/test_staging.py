"""Staging: what was added comes back hour by hour, in the order of its arrival, from memory or from files."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from trafficcast.ingestion import staging as module
from trafficcast.ingestion.spans import Span
from trafficcast.ingestion.staging import _staging
from trafficcast.records.records import HOUR_US, Points, ZoneTrips


def points(times: list[int]) -> Points:
    """Points whose longitude is their number."""
    n = len(times)
    return Points(
        np.zeros(n, np.int32), np.array(times, np.int64), np.arange(float(n)), np.zeros(n), np.zeros(n, np.int8)
    )  # fmt: skip


@pytest.mark.parametrize("in_memory", [0, 2**30])
@pytest.mark.parametrize("segment", [1, 7, 10_000])
@pytest.mark.parametrize("ordered", [True, False])
def test_every_hour_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int, segment: int, ordered: bool
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_RECORDS", segment)
    draw = random.Random(segment)
    expected: dict[int, list[tuple[int, float, int]]] = {}
    with _staging(tmp_path / "store") as staged:
        staged.bytes_in_memory = in_memory
        for source in range(12):
            times = [draw.randrange(5 * HOUR_US) + 10 * HOUR_US for _ in range(draw.randrange(9))]
            batch = points(sorted(times) if ordered else times)
            staged.add(batch, source)
            for time, number in zip(batch.time.tolist(), batch.lon.tolist(), strict=True):
                expected.setdefault(time // HOUR_US, []).append((time, number, source))
        assert sorted(staged.hours()) == sorted(expected)
        for hour, rows in expected.items():
            rows_read = staged.read(Span(hour, hour + 1), Points)
            records, sources = rows_read.records, rows_read.source
            assert isinstance(records, Points)
            assert list(zip(records.time.tolist(), records.lon.tolist(), sources.tolist(), strict=True)) == rows
            assert {name: array.dtype.type for name, array in records.arrays().items()} == Points.DTYPES
    assert list((tmp_path / "store").iterdir()) == []


def test_a_discarded_source_is_forgotten(tmp_path: Path) -> None:
    with _staging(tmp_path) as staged:
        staged.add(points([5, 6]), 0)
        staged.add(points([7]), 1)
        staged.discard(0)
        assert staged.hours() == {0: 3}
        rows = staged.read(Span(0, 1), Points)
        assert rows.records.time.tolist() == [7] and rows.source.tolist() == [1]


def test_other_kinds_and_nothing(tmp_path: Path) -> None:
    with _staging(tmp_path) as staged:
        assert not staged.hours()
        staged.add(points([]), 0)
        assert not staged.hours()
        trips = ZoneTrips(*(np.array([value]) for value in (HOUR_US, 4, 2 * HOUR_US, 7, 0)))
        staged.add(trips, 0)
        assert staged.hours() == {1: 1}
        records = staged.read(Span(1, 2), ZoneTrips).records
        assert isinstance(records, ZoneTrips) and records.dropoff_zone.tolist() == [7]
