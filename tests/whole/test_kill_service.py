"""The service killed at any moment: what it does next makes every store what it would have been."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from prometheus_client.parser import text_string_to_metric_families

from pipelines.service.replay import replay
from tests.cities import stores_in
from tests.live import ask, drive, free_port, lines, services, wait_for
from trafficcast.config.city import City
from trafficcast.config.settings import load_config
from trafficcast.forecasting.publish import JOB
from trafficcast.forecasting.verify import VERIFY
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.ledger import Ledger
from trafficcast.stores.published import latest_forecast

pytestmark = pytest.mark.slow

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
    stores = CityStores.of(config, city)
    process = fork.Process(target=replay, args=(stores, START, END, config.service, None, "cpu"))
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


def stored(folder: Path, city: City) -> dict[str, xr.Dataset]:
    """What the stores hold; nothing else may lie there."""
    data = folder / "data"
    stores = stores_in(data, city)
    found = {
        "flows": stores.flows.read(),
        "forecasts": stores.forecasts(MODEL).read(),
        "scores": stores.scores(MODEL).read(),
    }
    assert all(dataset is not None for dataset in found.values())
    left = [file for file in data.rglob("*") if file.name.endswith((".tmp", "-journal")) or ".damaged" in file.name]
    assert not left
    return found


@pytest.fixture
def live(trained: Path) -> Path:
    """The trained city, now with an inbox; a slot's data are waited for as long as the next slot is open."""
    with open(trained / "config.toml", "a") as config:
        config.write('[cities.small.feed]\ninbox = "inbox"\n')
        config.write(f"[service]\nport = {free_port()}\ningest_seconds = 1\nwait_minutes = 60\n")
    (trained / "inbox").mkdir()
    return trained


@pytest.fixture
def start(live: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `trafficcast schedule`, writing its log to a file; what still runs at the end is killed."""
    with services(live) as start:
        yield start


def lose_slots(folder: Path, city: City) -> None:
    """One slot, and two in a row, that were never observed: then a forecast is degraded, or a baseline's."""
    store = stores_in(folder / "data", city).flows
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
    fork.set_forkserver_preload(["pipelines.service.replay"])

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
    whole = stored(trained, city)
    for name, dataset in stored(killed, city).items():
        assert dataset.identical(whole[name]), name
    states = set(whole["forecasts"]["state"].values.tolist())
    assert states == {"complete", "degraded", "baseline"}


def test_a_service_stopped_in_the_middle_of_a_job_goes_on_at_the_next_start(
    live: Path, start: Callable[..., subprocess.Popen[bytes]], trafficcast: Callable[..., Any]
) -> None:
    config = load_config(live / "config.toml")
    city, data = config.city("small"), config.paths.data
    stores = CityStores.of(config, city)

    process = start("first.log")
    wait_for("running small", live / "first.log", process)
    code, page = ask(live, "healthz")  # there is a model, and flows of long ago, but no forecast yet
    assert code == 503 and "overdue" in json.loads(page)["wrong"]["small"]
    drive(city, live / "inbox" / "taxis.csv")
    deadline = time.monotonic() + 60
    while not list((data / "small" / "records").glob(".staging-*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.terminate()
    began = time.monotonic()
    assert process.wait(10) == 0
    assert time.monotonic() - began < 10
    messages = [line["message"] for line in lines(live / "first.log")]
    assert "files taken" not in " ".join(messages[: messages.index("stopping")])  # so it was in the middle
    assert stores.flows.check()[1] == []

    leftovers = [data / "small" / ".latest.csv.abc.tmp", data / "small" / "flows" / ".2024-04-14.nc.abc.tmp"]
    for file in leftovers:
        file.write_text("half")
    both = {log: start(log) for log in ("second.log", "third.log")}
    while all(process.poll() is None for process in both.values()):
        time.sleep(0.05)
    refused = next(log for log, process in both.items() if process.poll() is not None)
    log, process = next((log, process) for log, process in both.items() if log != refused)
    assert both[refused].wait() == 2
    sentence = (live / refused).read_text()
    assert "another trafficcast schedule already runs on" in sentence and sentence.count("\n") == 1

    wait_for("forecast for", live / log, process)
    end = time.monotonic() + 60
    while ask(live, "healthz")[0] != 200 or 'job="forecast",result="done"' not in ask(live, "metrics")[1]:
        assert time.monotonic() < end
        time.sleep(0.2)  # the status may be some seconds old
    code, text = ask(live, "metrics")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert code == 200
    values = {(sample.name, sample.labels.get("job"), sample.labels.get("state")): sample.value for sample in samples}
    assert values["trafficcast_forecast_overdue", None, None] == 0
    assert values["trafficcast_forecast_state", None, "complete"] == 1
    assert values["trafficcast_runs_total", "forecast", None] == 1
    of_all = "trafficcast_ledger_unreadable_rows"  # the ledger is that of all cities
    named = [sample for sample in samples if sample.name.startswith("trafficcast") and sample.name != of_all]
    assert {sample.labels["city"] for sample in named} == {"small"}
    status = trafficcast("status", "--json").json
    assert status["running"] is True
    assert status["cities"]["small"]["forecast"]["state"] == "complete"
    assert status["cities"]["small"]["jobs"]["forecast"]["attempts"] == 1
    process.terminate()
    assert process.wait(10) == 0
    assert trafficcast("status", "--json").json["running"] is False
    assert not any(file.exists() for file in leftovers)
    assert {line["job"] for line in lines(live / log) if "forecast for" in line["message"]} == {"forecast"}

    _, made = latest_forecast(stores) or pytest.fail("no forecast")
    with xr.open_dataset(data / "small" / "latest.nc", engine="h5netcdf", decode_timedelta=True) as latest:
        np.testing.assert_array_equal(latest["flow"], made["flow"])
        assert (latest["created"].values == made["created"].values).all()
    table = pd.read_csv(data / "small" / "latest.csv")
    assert table["inflow"].sum() == pytest.approx(float(made["flow"].sel(flow_kind="inflow").sum()), abs=1)
    assert set(table["slot_start"]) == {city.isoformat(time) for time in made["valid_time"].values[0]}
    collection = json.loads((data / "small" / "latest.geojson").read_text())
    assert collection["created"] == city.isoformat(made["created"].values[0])
    assert len(collection["features"]) == city.rows * city.cols


# Takes longer than anyone waits, in the middle of writing a file.
SLOW = """
import time
import pipelines.service.schedule as schedule
from pipelines.cli.main import main
from trafficcast.files import atomic

def take_inbox(inbox, stores, workers):
    with atomic(stores.folder / "flows" / "2024-04-14.nc") as temporary:
        temporary.write_bytes(b"half")
        schedule.log.info("half written")
        time.sleep(60)

schedule.take_inbox = take_inbox
schedule._STOP_SECONDS = 0.5
main()
"""


def test_a_job_that_takes_too_long_to_end_is_abandoned(
    live: Path, start: Callable[..., subprocess.Popen[bytes]], snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    before = snapshot(live / "data" / "small" / "flows")
    process = start("log", "-c", SLOW)
    wait_for("half written", live / "log", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert "1 jobs are abandoned" in (live / "log").read_text()
    after = snapshot(live / "data" / "small" / "flows")
    assert {name: content for name, content in after.items() if not name.endswith(".tmp")} == before
