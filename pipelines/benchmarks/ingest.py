"""The ingest suite: this package beside DuckDB and pandas on the same points and grid.

Each runs in its own process, so that time and memory are those of a whole run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.benchmarks.peers import _PEERS
from trafficcast.config.city import City
from trafficcast.config.settings import load_config
from trafficcast.errors import JobError
from trafficcast.progress import progress_bar
from trafficcast.records.records import DAY_US, SECOND_US
from trafficcast.simulator.simulator import simulate
from trafficcast.stores.city_stores import CityStores

_CONFIG = """
[cities.benchmark]
west = -122.52
east = -122.36
south = 37.70
north = 37.82
timezone = "America/Los_Angeles"
"""
_TAXIS, _LONG_DAYS = 5_000, 10
_TEXT_TAXIS, _TEXT_DAYS = 537, 21
_CABSPOTTING = Path("../shared/data/cabspotting")  # the real records, where they lie beside the project

_MONDAY_US = 1_712_534_400 * SECOND_US  # 2024-04-08T00:00Z
_TICK_S = 21.6  # 4,000 reports a taxi and day
_STEP_DEGREES = 0.0012  # some 100 m between two reports


def _write_points(file: Path, city: City, vehicles: int, days: int, seed: int = 0) -> int:
    """Write points of vehicles to a zstd Parquet file, ordered by time, and return their number.

    The vehicles wander at random over a box somewhat larger than the city's; each reports every _TICK_S seconds.
    """
    rng = np.random.default_rng(seed)
    phase_us = np.sort(rng.integers(0, int(_TICK_S * SECOND_US), vehicles))
    size = np.array([city.east - city.west, city.north - city.south])
    corner = np.array([city.west, city.south]) - 0.05 * size
    position = rng.random((vehicles, 2)) * 1.1
    vehicle = rng.permutation(vehicles).astype(np.int32)
    ticks = round(days * DAY_US / (_TICK_S * SECOND_US))
    ticks_a_group = max(1, 1_000_000 // vehicles)
    schema = pa.schema(
        {"vehicle": pa.int32(), "time": pa.timestamp("us", "UTC"), "lon": pa.float64(), "lat": pa.float64()}
    )
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for first in range(0, ticks, ticks_a_group):
            n = min(ticks_a_group, ticks - first)
            walk = position + np.cumsum(rng.normal(0, _STEP_DEGREES, (n, vehicles, 2)) / size, axis=0)
            walk = 1.1 - np.abs(1.1 - np.abs(walk) % 2.2)  # reflected at the edges
            position = walk[-1]
            start_us = _MONDAY_US + np.round(np.arange(first, first + n) * _TICK_S * SECOND_US).astype(np.int64)
            lon, lat = (np.round(corner + walk * size, 5).reshape(-1, 2)).T
            columns = [np.tile(vehicle, n), (start_us[:, None] + phase_us).ravel().view("datetime64[us]"), lon, lat]
            table = pa.table([pa.array(np.ascontiguousarray(column)) for column in columns], schema.names)
            writer.write_table(table.cast(schema))
    return ticks * vehicles


def _shuffle(points: Path, out: Path, seed: int = 0) -> None:
    """Write the same points in random order."""
    table = pq.read_table(points)
    order = np.random.default_rng(seed).permutation(len(table))
    pq.write_table(table.take(pa.array(order)), out, compression="zstd", row_group_size=1_000_000)


def _write_late_points(points: Path, out: Path) -> None:
    """Write a point of each of a hundred vehicles, a second after a point in the middle of the day."""
    middle = pq.ParquetFile(points).read_row_group(pq.ParquetFile(points).num_row_groups // 2).slice(0, 100)
    later = pa.array(middle["time"].cast(pa.int64()).to_numpy() + SECOND_US).cast(middle.schema.field("time").type)
    pq.write_table(middle.set_column(1, "time", later), out)


@dataclass
class _Runs:
    """Runs of whole commands, one after the other, with time and memory."""

    config: Path
    rows: list[dict[str, Any]]

    @property
    def data(self) -> Path:
        """Return the folder of the stores."""
        return self.config.parent / "data"

    def ingest(self, what: str, records: Path, *options: str, keep: bool = False) -> None:
        """Run `trafficcast ingest` into new stores, or into those of the last run."""
        if not keep:
            shutil.rmtree(self.data, ignore_errors=True)
        command = [sys.executable, "-m", "pipelines", "ingest", str(records), "--config", str(self.config)]
        self.run(what, "trafficcast", [*command, *options])

    def run(self, what: str, who: str, command: list[str]) -> None:
        """Run a command and add a row with time and memory, also as multiples of the first run's."""
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise JobError(f"{who} failed on {what}: {' '.join(command)}")
        megabytes = usage.ru_maxrss / 1024
        first = self.rows[0] if self.rows else {"seconds": seconds, "peak MB": megabytes}
        self.rows.append(
            {
                "what": what,
                "by": who,
                "seconds": seconds,
                "peak MB": megabytes,
                "times the first's seconds": seconds / first["seconds"],
                "times its memory": megabytes / first["peak MB"],
            }
        )


def _ingest_rows() -> list[dict[str, Any]]:
    """Measure all; a row holds what was ingested by whom, seconds and peak memory, also as multiples of the first.

    Our runs are whole commands, which keep records and write stores and report. Raises JobError where the counts of a
    peer differ. Needs some 5 GB of disk for temporary files.
    """
    # Another process makes the records, because this one's peak memory would count as that of its children.
    maker = ProcessPoolExecutor(1, get_context("spawn"))
    with tempfile.TemporaryDirectory() as name, progress_bar("benchmark") as progress, maker:

        def make(work: Callable[..., Any], *arguments: Any) -> Any:
            return maker.submit(work, *arguments).result()

        folder = Path(name)
        config = folder / "config.toml"
        config.write_text(_CONFIG)
        city = load_config(config).city()
        points, other = folder / "points.parquet", folder / "other.parquet"
        runs = _Runs(config, [])
        n = make(_write_points, points, city, _TAXIS, 1)
        runs.ingest("compilation", points)  # which later runs find in the cache
        runs.rows.clear()
        runs.ingest(f"{n:,} points in the order of time, zstd Parquet", points)
        moves = _moves(CityStores(city, runs.data, runs.data.parent / "models"))
        progress(0.2)
        for peer in _PEERS:
            out = folder / f"{peer}.npy"
            arguments = [peer, str(points), city.model_dump_json(), str(out)]
            runs.run(
                "the same",
                f"{peer}, which only counts",
                [sys.executable, "-m", "pipelines.benchmarks.peers", *arguments],
            )
            if not np.array_equal(np.load(out), moves):
                raise JobError(f"{peer} and trafficcast count different flows")
        progress(0.4)
        runs.ingest("the same, one thread", points, "--workers", "1")
        make(_write_late_points, points, other)
        runs.ingest("then 100 late points", other, keep=True)
        make(_shuffle, points, other)
        runs.ingest("the same, shuffled", other)
        points.unlink()
        progress(0.6)
        n = make(_write_points, other, city, _TAXIS, _LONG_DAYS)
        runs.ingest(f"{n:,} points in the order of time", other)
        other.unlink()
        progress(0.9)
        texts = _CABSPOTTING
        if not texts.is_dir():
            texts = folder / "simulated"
            make(simulate, city, texts, _TEXT_TAXIS, _TEXT_DAYS, 0)
        runs.ingest(f"{len(list(texts.glob('new_*')))} gzipped text files, {texts.name}", texts)
    return runs.rows


def _moves(stores: CityStores) -> np.ndarray:
    """Return the flows of a store as the peers do: slot since 1970, flow kind, cell, number."""
    city, flows = stores.city, stores.flows.read()
    assert flows is not None
    values = flows["flow"].values.reshape(-1, 2, city.rows * city.cols)
    slot, kind, cell = np.nonzero(values)
    number = flows["time"].values.astype("datetime64[us]").astype(np.int64)[slot] // city.slot_us
    return np.column_stack([number, kind, cell, values[slot, kind, cell]])
