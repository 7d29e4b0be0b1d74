"""The service killed at any moment: what it does next makes every store what it would have been."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipelines.forecast import JOB
from pipelines.replay import replay
from pipelines.verify import VERIFY
from trafficcast.city import City
from trafficcast.config import load_config
from trafficcast.ledger import Ledger
from trafficcast.stores import flow_store, forecast_store, score_store

MODEL = "vmrnn-c-1"
START, END = np.datetime64("2024-04-13T04:00", "us"), np.datetime64("2024-04-13T16:00", "us")
MISSING = np.array(["2024-04-13T07:00", "2024-04-13T11:00", "2024-04-13T12:00"], "datetime64[us]")
KILLS = 20
FIRST = np.datetime64("1970-01-01", "us")

# Python with torch takes seconds to start: forked from a process that has imported it, a replay takes none.
fork = multiprocessing.get_context("forkserver")


def start_replay(folder: Path, city: City) -> Any:
    """A process that replays the day."""
    config = load_config(folder / "config.toml")
    paths = config.paths
    process = fork.Process(
        target=replay, args=(city, paths.data, paths.models, START, END, config.service, None, "cpu")
    )
    process.start()
    return process


def wait(process: Any, until: Callable[[int], bool], folder: Path) -> None:
    """Until something is so that depends on the number of the ledger's rows, or the process has ended."""
    while process.is_alive() and not until(len(runs(folder / "data"))):
        time.sleep(0.005)


def runs(data: Path) -> list[tuple[Any, ...]]:
    """The ledger's rows but for attempts and the machine's clock."""
    ledger = Ledger(data / "ledger.sqlite")
    return [
        (run.job, run.city, run.model, run.slot, run.result, run.detail)
        for job in (JOB, VERIFY)
        for run in ledger.runs(job, "small", FIRST)
    ]


def stores(folder: Path, city: City) -> dict[str, xr.Dataset]:
    """What the stores hold; nothing else may lie there."""
    data = folder / "data"
    found = {
        "flows": flow_store(data, city).read(),
        "forecasts": forecast_store(data, city, MODEL).read(),
        "scores": score_store(data, city, MODEL).read(),
    }
    assert all(dataset is not None for dataset in found.values())
    left = [file for file in data.rglob("*") if file.name.endswith((".tmp", "-journal")) or ".damaged" in file.name]
    assert not left
    return found


def lose_slots(folder: Path, city: City) -> None:
    """One slot, and two in a row, that were never observed: then a forecast is degraded, or a baseline's."""
    store = flow_store(folder / "data", city)
    flows = store.read()
    flows = flows.isel(time=np.isin(flows["time"].values, MISSING))
    for name in ("flow", "observed", "coverage", "vehicles"):
        flows[name] = flows[name].copy(data=np.zeros_like(flows[name].values))
    store.write(flows)


def test_killed_twenty_times_a_replay_gives_what_an_undisturbed_one_gives(
    trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    city = load_config(trained / "config.toml").city("small")
    lose_slots(trained, city)
    killed = tmp_path_factory.mktemp("killed")
    shutil.copytree(trained, killed, dirs_exist_ok=True)
    fork.set_forkserver_preload(["pipelines.replay"])

    began = time.monotonic()
    undisturbed = start_replay(trained, city)
    undisturbed.join()
    assert undisturbed.exitcode == 0
    expected = runs(trained / "data")
    pace = (time.monotonic() - began) / len(expected)

    # Each life ends some time after the ledger has so many rows: spread over the run, however fast the machine just is.
    draw = random.Random(5)
    for moment in sorted(draw.choices(range(len(expected) - 4), k=KILLS)):
        process, last = start_replay(killed, city), len(expected) - 4
        wait(process, lambda rows: rows >= moment, killed)  # noqa: B023  # called at once
        end = time.monotonic() + draw.uniform(0, 2 * pace)
        wait(process, lambda rows: time.monotonic() > end or rows >= last, killed)  # noqa: B023
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it lived until then
    process = start_replay(killed, city)
    process.join()
    assert process.exitcode == 0

    assert runs(killed / "data") == expected
    whole = stores(trained, city)
    for name, dataset in stores(killed, city).items():
        assert dataset.identical(whole[name]), name
    states = set(whole["forecasts"]["state"].values.tolist())
    assert states == {"complete", "degraded", "baseline"}
