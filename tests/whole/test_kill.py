"""Killed at any moment, the same command gives what an uninterrupted run gives."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cities import small_city, stores_in
from trafficcast.config.settings import load_config
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.simulator.simulator import simulate

pytestmark = pytest.mark.slow

# What is run in place of the command's entry: the n-th call of a function kills the process, before or after it.
KILLER = """
import os, signal, sys
import {module} as module
from pipelines.cli.main import main

owner, name = {owner}, {name!r}
whole, calls = getattr(owner, name), 0

def deadly(*arguments, **named):
    global calls
    calls += 1
    if calls == {at} and not {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    result = whole(*arguments, **named)
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, deadly)
main()
"""
MOMENTS = {
    "while hours are written": ("trafficcast.ingestion.merging", "module", "_write_hour_file", 1, False),
    "before the commit": ("trafficcast.ingestion.record_store", "module.RecordStore", "commit", 1, False),
    "after the commit": ("trafficcast.ingestion.record_store", "module.RecordStore", "commit", 1, True),
    "between two days": ("trafficcast.stores.day_store", "module.DayStore", "write", 2, False),
    "while a day is written": ("trafficcast.files", "module.os", "replace", 1, False),
    "while the report is written": ("trafficcast.files", "module.os", "replace", 3, False),
    "before the report": ("trafficcast.ingestion.ingest", "module", "quality_report", 1, False),
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three days of a small fleet: the second, and then all."""
    folder = tmp_path_factory.mktemp("simulated") / "records"
    simulate(small_city(), folder, 20, 3, 3, file_format="parquet")
    return [sorted(folder.iterdir())[1], folder]


def command(records: Path, config: Path) -> list[str]:
    return ["ingest", str(records), "--config", str(config), "--json"]


def run(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "pipelines", *words], check=True, capture_output=True)


def contents(folder: Path) -> tuple[Any, Any, list[Any]]:
    """Flows, report and records below a folder, of which nothing else may be left."""
    city = load_config(folder / "config.toml").city()
    store = RecordStore(folder / "data" / "small" / "records")
    state = store.load()
    records = [store.read(state, span) for span in state.files]
    rows = [
        (state.vehicles.names[vehicle], *rest)
        for hour in records
        for vehicle, *rest in zip(*(array.tolist() for array in hour.arrays().values()), strict=True)
    ]
    files = {str(file.relative_to(store.root)) for file in store.root.rglob("*") if file.is_file()}
    assert files == {"state.sqlite", *(file for file, _ in state.files.values())}
    assert not [path for path in (folder / "data").rglob("*") if path.name.endswith(".tmp")]
    report = json.loads((folder / "data" / "small" / "quality.json").read_text())
    return stores_in(folder / "data", city).flows.read(), report, sorted(rows)


@pytest.fixture(scope="module")
def uninterrupted(records: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, list[Any]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "config.toml").write_text(CONFIG)
    for part in records:
        run(command(part, folder / "config.toml"))
    return contents(folder)


CONFIG = """
[cities.small]
west = 9.10
east = 9.26
south = 45.42
north = 45.52
rows = 10
cols = 6
slot_minutes = 60
timezone = "Europe/Rome"
"""


def assert_same(one: tuple[Any, Any, list[Any]], other: tuple[Any, Any, list[Any]]) -> None:
    assert one[0].identical(other[0])
    assert one[1:] == other[1:]


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_a_moment(
    moment: str, records: list[Path], uninterrupted: tuple[Any, Any, list[Any]], tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    run(command(records[0], config))
    module, owner, name, at, after = MOMENTS[moment]
    script = KILLER.format(module=module, owner=owner, name=name, at=at, after=after)
    killed = subprocess.run([sys.executable, "-c", script, *command(records[1], config)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run(command(records[1], config))
    assert_same(contents(tmp_path), uninterrupted)


def test_killed_at_any_time(records: list[Path], uninterrupted: tuple[Any, Any, list[Any]], tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    draw = random.Random(1)
    run(command(records[0], config))
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", *command(records[1], config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(draw.uniform(0.8, 2.2))
        process.kill()
        process.wait()
    run(command(records[1], config))
    assert_same(contents(tmp_path), uninterrupted)
