"""The benchmark's other ways give what ours give: otherwise their times would not compare."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.benchmarks import gpu as benchmark_gpu
from pipelines.benchmarks import vmrnn as benchmark_vmrnn
from pipelines.benchmarks.ingest import _moves, _shuffle, _write_late_points, _write_points
from pipelines.benchmarks.peers import _PEERS
from pipelines.benchmarks.suites import benchmark
from pipelines.benchmarks.vmrnn import _naive_cross_scan, _scan_inputs, _vmrnn_rows
from pipelines.cli import main as cli
from tests.cities import stores_in
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.ingestion.ingest import ingest
from trafficcast.nn import vmrnn_b, vmrnn_c
from trafficcast.nn.cross_scan import cross_scan

CITY = City(
    west=-122.52, east=-122.36, south=37.70, north=37.82, timezone="America/Los_Angeles", name="small", rows=8, cols=8
)


def test_the_naive_scan_is_the_scan() -> None:
    torch.manual_seed(0)
    inputs = [tensor[:, :, :3] if number == 0 else tensor for number, tensor in enumerate(_scan_inputs(2, 4, 6, 3))]
    for number in (1, 2, 3):
        inputs[number] = inputs[number][:, :, :12]  # of an image of 4 x 3
    naive, ours = _naive_cross_scan(*inputs), cross_scan(*inputs)
    torch.testing.assert_close(naive, ours)
    weights = torch.randn_like(ours)
    for expected, got in zip(*(torch.autograd.grad((y * weights).sum(), inputs) for y in (naive, ours)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


class Clock:
    def __init__(self, enable_timing: bool) -> None:
        self.seconds = 0.0

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Clock) -> float:
        return 1000 * (end.seconds - self.seconds)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same measurements of networks of one block, with the fewest repeats."""
    monkeypatch.setitem(benchmark_vmrnn._NETWORKS, "VMRNN-B", lambda: vmrnn_b(depth=1))
    monkeypatch.setitem(benchmark_vmrnn._NETWORKS, "VMRNN-C", lambda: vmrnn_c(depth=1))
    monkeypatch.setattr(benchmark_vmrnn, "_BATCH", 3)
    monkeypatch.setattr(benchmark_vmrnn, "_SIDES", (2, 4))
    monkeypatch.setattr(benchmark_gpu, "_SCAN_BATCHES", (1, 2))
    monkeypatch.setattr(benchmark_gpu, "_STEP_BATCH", 1)
    monkeypatch.setattr(benchmark_gpu, "_FORECAST_BATCHES", (1, 2))
    monkeypatch.setattr(benchmark_gpu, "_REPEATS", 1)
    monkeypatch.setattr(benchmark_gpu, "EAGER_CALLS", 0)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call `trafficcast benchmark` as a shell would: exit status, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trafficcast", "benchmark", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


class Here:
    """Stands in for a process of its own."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, measure: Callable[..., object], make: Callable[..., Any], arguments: tuple) -> Here:
        make(*arguments)()
        self.result = lambda: (10.0, 100.0)
        return self


def test_the_vmrnn_suite_has_a_row_for_every_way_and_draws_the_growth(
    small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmark_vmrnn, "ProcessPoolExecutor", Here)
    naive, calls = _naive_cross_scan, []

    def counted(*inputs: torch.Tensor) -> torch.Tensor:
        calls.append(inputs)
        return naive(*inputs)

    monkeypatch.setattr(benchmark_vmrnn, "_naive_cross_scan", counted)
    rows = _vmrnn_rows(tmp_path / "growth.png")
    # Two scans, and seven steps of one block in a training step and in a forecast.
    assert len(calls) == 2 + 7 + 7
    assert len({(row["what"], row["by"]) for row in rows}) == len(rows) == 15
    assert all(row["times ours"] == 1.0 for row in rows)
    assert [row["microseconds a token"] for row in rows if "SS2D" in row["what"]] == [2500.0, 625.0]
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_a_measurement_is_of_a_process_of_its_own() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        took = process.submit(benchmark_vmrnn._measure, benchmark_vmrnn._tokens_job, (4,)).result()
    assert 0 < took[0] < 1000 and 100 < took[1] < 2000


def test_the_gpu_suite_is_ready_to_run(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Clock)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5 * 2**20)
    rows = benchmark_gpu._measured("cpu", "none at all")
    assert len({(row["what"], row["by"]) for row in rows}) == len(rows) == 2 * 2 * len(benchmark_gpu._scans()) + 8 + 4
    for row in rows:
        windows = int(row["what"].rpartition(" ")[2])
        assert row["windows a second"] == pytest.approx(1000 * windows / row["milliseconds"])
        assert row["peak MB"] == 5.0 and row["device"] == "none at all"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_without_a_gpu_its_suite_says_so(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, err = command("--suite", "gpu", "--json", tmp_path / "gpu.json")
    assert code == 1 and not out and "this machine has no CUDA GPU" in err
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.parametrize("peer", _PEERS)
def test_a_peer_counts_what_we_count(peer: str, tmp_path: Path) -> None:
    stores = stores_in(tmp_path / "data", CITY)
    if peer == "DuckDB":
        pytest.importorskip("duckdb", reason="DuckDB is not installed")
    n = _write_points(tmp_path / "points.parquet", CITY, 20, 1)
    report = ingest(str(tmp_path / "points.parquet"), stores)
    assert report["points_kept"] == n and report["points_outside"] > 0 and report["transitions"] > 1_000
    assert np.array_equal(
        _PEERS[peer](tmp_path / "points.parquet", CITY),
        _moves(stores),
    )


def test_the_points_come_in_the_order_of_time_or_not(tmp_path: Path) -> None:
    _write_points(tmp_path / "points.parquet", CITY, 20, 1)
    _shuffle(tmp_path / "points.parquet", tmp_path / "shuffled.parquet")
    points, shuffled = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("points", "shuffled"))
    times = points["time"].to_numpy()
    assert (np.diff(times) >= np.timedelta64(0)).all()
    assert (np.diff(shuffled["time"].to_numpy()) < np.timedelta64(0)).any()
    keys = [("vehicle", "ascending"), ("time", "ascending")]
    assert points.sort_by(keys).equals(shuffled.sort_by(keys))
    _write_late_points(tmp_path / "points.parquet", tmp_path / "late.parquet")
    late = pq.read_table(tmp_path / "late.parquet")
    assert len(late) == 100 and times[0] < late["time"].to_numpy().min() < times[-1]


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(InputError, match="known are: ingest, vmrnn, service, dashboard, gpu"):
        benchmark("x")
    with pytest.raises(InputError, match="--picture goes with --suite vmrnn"):
        benchmark("ingest", Path("growth.png"))


def test_the_rows_come_as_json_or_as_a_file_beside_tables(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmark_vmrnn, "_vmrnn_rows", lambda picture: [{"what": "a scan", "milliseconds": 2.5}])
    whole = {"vmrnn": [{"what": "a scan", "milliseconds": 2.5}]}
    code, out, _ = command("--suite", "vmrnn", "--json")
    assert code == 0 and json.loads(out) == whole
    code, out, _ = command("--suite", "vmrnn", "--json", tmp_path / "rows.json")
    assert code == 0 and json.loads((tmp_path / "rows.json").read_text()) == whole and "2.500" in out


def test_the_service_is_measured_on_cycles_that_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.benchmarks import service as benchmark_service

    monkeypatch.setattr(benchmark_service, "_TRAINING_DAYS", 8)
    monkeypatch.setattr(benchmark_service, "_RECORD_SLOTS", 5)
    monkeypatch.setattr(benchmark_service, "_CITIES", 2)
    rows = benchmark_service._from_records() + benchmark_service._cities()
    assert [row["times"] for row in rows] == [5, 2, 4, 2]
    assert all(0 < row["median_s"] <= row["p99_s"] and row["per_minute"] > 0 for row in rows)
