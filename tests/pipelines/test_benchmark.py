"""The benchmark's naive ways give what ours give: otherwise their times would not compare."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines import benchmark
from trafficcast.nn import selective_scan


def test_the_naive_scan_is_the_scan() -> None:
    torch.manual_seed(0)
    u, delta = torch.randn(4, 2, 9, 6), torch.rand(4, 2, 9, 6)
    b, c = torch.randn(4, 2, 9, 3), torch.randn(4, 2, 9, 3)
    arguments = (u, delta, -torch.rand(4, 6, 3), b, c, torch.randn(4, 6))
    torch.testing.assert_close(benchmark.naive_scan(*arguments), selective_scan(*arguments))


def test_the_naive_count_is_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "TAXIS", 8)
    monkeypatch.setattr(benchmark, "DAYS", 1)
    (row,) = benchmark._ingest_rows()
    assert row["ours"] > 0 and row["naive"] > 0

    def nothing(folder: object, city: object, slots: np.ndarray) -> np.ndarray:
        return np.zeros((len(slots), 2, 32, 32), np.int32)

    monkeypatch.setattr(benchmark, "count_with_pandas", nothing)
    with pytest.raises(AssertionError, match="disagree"):
        benchmark._ingest_rows()
