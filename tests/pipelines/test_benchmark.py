"""The benchmark's other ways give what ours give: otherwise their times would not compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.benchmark import benchmark
from pipelines.benchmark_ingest import _moves, shuffle, write_late_points, write_points
from pipelines.benchmark_peers import PEERS
from pipelines.benchmark_vmrnn import naive_scan
from pipelines.ingest import ingest
from trafficcast.city import City
from trafficcast.errors import InputError
from trafficcast.nn import selective_scan

CITY = City(
    west=-122.52, east=-122.36, south=37.70, north=37.82, timezone="America/Los_Angeles", name="small", rows=8, cols=8
)


def test_the_naive_scan_is_the_scan() -> None:
    torch.manual_seed(0)
    u, delta = torch.randn(4, 2, 9, 6), torch.rand(4, 2, 9, 6)
    b, c = torch.randn(4, 2, 9, 3), torch.randn(4, 2, 9, 3)
    arguments = (u, delta, -torch.rand(4, 6, 3), b, c, torch.randn(4, 6))
    torch.testing.assert_close(naive_scan(*arguments), selective_scan(*arguments))


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_counts_what_we_count(peer: str, tmp_path: Path) -> None:
    if peer == "DuckDB":
        pytest.importorskip("duckdb", reason="DuckDB is not installed")
    n = write_points(tmp_path / "points.parquet", CITY, 20, 1)
    report = ingest(str(tmp_path / "points.parquet"), None, CITY, tmp_path / "data")
    assert report["points_kept"] == n and report["points_outside"] > 0 and report["transitions"] > 1_000
    assert np.array_equal(PEERS[peer](tmp_path / "points.parquet", CITY), _moves(tmp_path / "data", CITY))


def test_the_points_come_in_the_order_of_time_or_not(tmp_path: Path) -> None:
    write_points(tmp_path / "points.parquet", CITY, 20, 1)
    shuffle(tmp_path / "points.parquet", tmp_path / "shuffled.parquet")
    points, shuffled = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("points", "shuffled"))
    times = points["time"].to_numpy()
    assert (np.diff(times) >= np.timedelta64(0)).all()
    assert (np.diff(shuffled["time"].to_numpy()) < np.timedelta64(0)).any()
    keys = [("vehicle", "ascending"), ("time", "ascending")]
    assert points.sort_by(keys).equals(shuffled.sort_by(keys))
    write_late_points(tmp_path / "points.parquet", tmp_path / "late.parquet")
    late = pq.read_table(tmp_path / "late.parquet")
    assert len(late) == 100 and times[0] < late["time"].to_numpy().min() < times[-1]


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(InputError, match="known are: ingest, vmrnn"):
        benchmark("x")
