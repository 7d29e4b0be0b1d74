"""The service's clock and its retraining: clocks that jump or change, a child with limits, a challenger judged."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from apscheduler.triggers.interval import IntervalTrigger

from pipelines.service import retrain_process, schedule
from pipelines.service.cycle import CityService, run_cycle
from pipelines.service.health import _health
from pipelines.service.status import _PRUNE, _service_lock
from tests.cities import small_city, stores_in
from trafficcast.config.service import Retraining, Service
from trafficcast.config.settings import Config, load_config
from trafficcast.errors import InputError, JobError
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.model import Model, build, publish_model
from trafficcast.forecasting.publish import JOB
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.registry import Registry
from trafficcast.training import retrain as retrain_module
from trafficcast.training.retrain import retrain

CITY = small_city(rows=8, cols=8, timezone="America/New_York")
SLOT, HOUR, DAY = CITY.slot, np.timedelta64(1, "h"), np.timedelta64(1, "D")
NOON = np.datetime64("2024-04-08T16:00", "us")  # in New York
CONFIG = """
[cities.small]
west = 0
east = 1
south = 0
north = 1
rows = 8
cols = 8
timezone = "America/New_York"
"""


@pytest.fixture
def service(tmp_path: Path) -> CityService:
    """A city with a small champion that was never trained, and no data."""
    torch.manual_seed(0)
    described = {"name": "vmrnn-b", "rows": 8, "cols": 8, "channels": 2, "depth": 1, "embed": 16}
    errors = {name: {"rmse": 1.0} for name in ("vmrnn-b-1", "climatology")}
    card: dict[str, Any] = {
        "version": "vmrnn-b-1",
        "city": "small",
        "architecture": described,
        "grid": CITY.grid(),
        "scale": 100.0,
        "split": {"valid_end": "2024-04-01T00:00:00-04:00"},
        "metrics": {"validation": errors, "test": {}},
    }
    table = np.random.default_rng(1).uniform(1, 5, (2, CITY.slots_per_day, 2, 8, 8)).astype(np.float32)
    settings = Service(catch_up_hours=2)
    made = CityService(stores_in(tmp_path / "data", CITY), settings, torch.device("cpu"))
    publish_model(made.stores.registry, Model(card, build(described), Climatology(CITY, table)), lambda folder: None)
    return made


def observe(service: CityService, start: np.datetime64, end: np.datetime64) -> None:
    """Flows of every slot in [start, end), and of the one that is open then."""
    time = np.arange(start, end + SLOT, SLOT)
    flow = np.random.default_rng(2).poisson(4, (len(time), 2, 8, 8))
    made = flows_dataset(CITY, time, flow, np.full(len(time), 9), np.ones(len(time)))
    service.stores.flows.write(made)


def forecasts(service: CityService) -> xr.Dataset:
    found = service.stores.forecasts("vmrnn-b-1").read()
    assert found is not None
    return found


def test_a_clock_that_jumps_ahead_and_back_makes_nothing_twice(service: CityService) -> None:
    observe(service, NOON - DAY, NOON + 4 * DAY)
    for now in np.arange(NOON, NOON + HOUR, SLOT):
        run_cycle(service, now)
    before = forecasts(service)

    ahead = NOON + 3 * DAY
    run_cycle(service, ahead)
    run_cycle(service, ahead + SLOT)
    new = forecasts(service).sel(init_time=slice(NOON + HOUR, None))
    assert new["init_time"].values.min() >= ahead - 2 * HOUR  # no further back than is caught up
    late = new["init_time"].values < ahead
    np.testing.assert_array_equal(new["hindcast"].values, late)
    assert (new["valid_time"].values[~late, 0] >= ahead).all() and not new["hindcast"].values[~late].any()
    after = forecasts(service)

    again = np.arange(NOON - HOUR, NOON + 2 * HOUR, SLOT)  # and back, before it all began
    for now in again:
        run_cycle(service, now)
    made = forecasts(service)
    xr.testing.assert_identical(made.sel(init_time=before["init_time"].values), before)
    xr.testing.assert_identical(made.sel(init_time=after["init_time"].values), after)
    assert set(made["init_time"].values) == {*after["init_time"].values, *again}
    runs = service.stores.ledger.runs(JOB, "small", NOON - DAY)
    assert {run.slot: run.attempts for run in runs} == dict.fromkeys(made["init_time"].values, 1)


@pytest.mark.parametrize(
    ("crontab", "sentence"),
    [
        ("sundays", r"retraining.schedule: no schedule of five fields .*given: 'sundays'"),
        ("0 25 * * *", "retraining.schedule: no schedule of five fields"),
    ],
)
def test_a_schedule_that_is_no_crontab_is_refused_at_the_start(crontab: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[retraining]\nschedule = "{crontab}"\n{CONFIG}')
    config = load_config(file)
    with pytest.raises(InputError, match=f"{file}: {sentence}"):
        schedule.schedule(config, [config.city("small")], "cpu")


@pytest.mark.parametrize("jump", [-7200, 7200])
def test_when_the_clock_was_set_every_regular_job_is_due_at_once(
    jump: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    config = load_config(tmp_path / "config.toml")
    running = schedule._Service(config, [config.city("small")], "cpu")
    ran = threading.Event()
    first = datetime.now(UTC) + timedelta(hours=2)  # as planned before the clock was set back
    running.scheduler.add_job(ran.set, IntervalTrigger(hours=1), next_run_time=first)
    running.scheduler.start()
    offset = 0
    whole = time.time
    monkeypatch.setattr(schedule, "time", SimpleNamespace(time=lambda: whole() + offset, monotonic=time.monotonic))
    waiting = threading.Thread(target=running._wait)
    try:
        waiting.start()
        assert not ran.wait(1.5)
        offset = jump
        assert ran.wait(5)
    finally:
        running.stop.set()
        waiting.join()
        running.scheduler.shutdown()


def test_a_job_that_hangs_is_red_and_a_job_that_ends_by_a_bug_ends_nothing_else(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_config(config)
    running = schedule._Service(settings, [settings.city()], "cpu")
    stores = running.services[0].stores
    with _service_lock(settings.paths.data):
        assert _health(running.status())[0] == 200
        with running.work.at_work(JOB, "small"):
            assert _health(running.status())[0] == 200
            running.work._began[JOB, "small"] -= 301
            code, page = _health(running.status())
        sentence = "the job forecast has been at work for more than 5 minutes: does its disk hang?"
        assert (code, page["wrong"]) == (503, {"small": sentence})
        assert _health(running.status())[0] == 200

    def bug() -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text")

    assert running._run(JOB, stores, bug) == "broken"
    assert running._run(JOB, stores, bug) is None  # it is tried again after a minute
    assert running._run(_PRUNE, stores, lambda: "nothing") == "done"
    assert [record.exc_info is not None for record in caplog.records] == [True]
    run = stores.ledger.last(JOB, "small")
    assert run is not None and (run.result, run.detail[:18]) == ("broken", "UnicodeDecodeError")


# The days on which the clocks change, and how many half hours their first six hours on the clock have.
CHANGES = {"2024-03-10": 10, "2024-11-03": 14}


@pytest.mark.parametrize("change", CHANGES)
def test_over_a_clock_change_every_slot_is_forecast_once(change: str, service: CityService) -> None:
    day = np.datetime64(change, "D")
    start, end = CITY.midnight(day) - 2 * HOUR, CITY.parse_time(f"{change}T06:00")
    observe(service, start - 7 * DAY - 2 * HOUR, end + DAY)
    cycles = np.arange(start, end, SLOT)
    for now in cycles:
        run_cycle(service, now + np.timedelta64(1, "m"))
        run_cycle(service, now + np.timedelta64(2, "m"))
    made = forecasts(service)
    np.testing.assert_array_equal(made["init_time"].values, cycles)
    np.testing.assert_array_equal(made["valid_time"].values, cycles[:, None] + SLOT * np.arange(4))
    assert set(made["state"].values.tolist()) == {"complete"} and not made["hindcast"].any()
    store = service.stores.forecasts("vmrnn-b-1")
    assert store.days() == [day - DAY, day]
    assert [len(store.read_day(one)["init_time"]) for one in store.days()] == [4, CHANGES[change]]
    scores = service.stores.scores("vmrnn-b-1").read()
    assert scores is not None
    np.testing.assert_array_equal(scores["init_time"].values, cycles[:-4])
    runs = service.stores.ledger.runs(JOB, "small", start)
    assert [(run.slot, run.attempts) for run in runs] == [(slot, 1) for slot in cycles]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Config, Path]]:
    """Have a shell script run in place of `trafficcast retrain`; it leaves its process id in the file returned."""

    def child(script: str, limits: str = "") -> tuple[Config, Path]:
        file, pid_file = tmp_path / "child", tmp_path / "pid"
        file.write_text(f"#!/bin/sh\necho $$ > {pid_file}.new && mv {pid_file}.new {pid_file}\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(retrain_process, "sys", SimpleNamespace(executable=str(file)))
        (tmp_path / "config.toml").write_text(f"{CONFIG}\n[retraining]\n{limits}\n")
        return load_config(tmp_path / "config.toml"), pid_file

    return child


def is_gone(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def test_a_retraining_that_takes_too_long_is_ended(child: Callable[..., tuple[Config, Path]]) -> None:
    config, pid_file = child("exec sleep 60", "hours = 0.0003")
    with pytest.raises(JobError, match=r"took more than 0\.0003 h and was ended"):
        retrain_process._RetrainingProcess(config, "cpu").run(CITY)
    assert is_gone(pid_file)


def test_a_retraining_that_wants_too_much_memory_is_a_failure_that_says_so(
    child: Callable[..., tuple[Config, Path]],
) -> None:
    config, pid_file = child(f"sleep 0.3; exec {sys.executable} -c 'bytearray(2**31)'", "memory_gb = 0.5")
    with pytest.raises(JobError, match="ended with 1: .*MemoryError"):
        retrain_process._RetrainingProcess(config, "cpu").run(CITY)
    assert is_gone(pid_file)


def test_a_retraining_is_ended_with_the_service(child: Callable[..., tuple[Config, Path]]) -> None:
    config, pid_file = child("exec sleep 60")
    retraining, failures = retrain_process._RetrainingProcess(config, "cpu"), list[str]()

    def run() -> None:
        try:
            retraining.run(CITY)
        except JobError as error:
            failures.append(str(error))

    working = threading.Thread(target=run)
    working.start()
    while not pid_file.exists():
        time.sleep(0.01)
    nice = os.getpriority(os.PRIO_PROCESS, int(pid_file.read_text()))
    began = time.monotonic()
    retraining.stop()
    working.join()
    assert time.monotonic() - began < 5 and is_gone(pid_file)
    assert failures == ["the retraining ended with -15: "]
    assert nice >= retrain_process._NICE


@pytest.mark.parametrize("error, promoted", [(1.98, True), (1.995, False), (2.5, False)])
def test_a_challenger_is_promoted_when_it_is_better_by_the_margin(
    error: float, promoted: bool, service: CityService, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe(service, NOON - 8 * DAY, NOON)
    registry, asked = service.stores.registry, dict[str, Any]()

    def train(stores: CityStores, architecture: str, settings: Any, *ends: Any) -> Any:
        asked.update(zip(("train_end", "valid_end", "end", "device"), ends, strict=True))
        registry.add(
            "vmrnn-b-2", lambda folder: shutil.copytree(registry.root / "vmrnn-b-1", folder, dirs_exist_ok=True)
        )
        return SimpleNamespace(version="vmrnn-b-2")

    def backtest(stores: CityStores, start: Any, end: Any, version: str, device: str) -> dict[str, Any]:
        assert (start, end) == (asked["valid_end"], asked["end"])
        return {"scores": {version: {"rmse": {"vmrnn-b-1": 2.0, "vmrnn-b-2": error}[version]}}}

    monkeypatch.setattr(retrain_module, "train", train)
    monkeypatch.setattr(retrain_module, "backtest", backtest)
    result = retrain(service.stores, Retraining(), "cpu")
    assert (result["promoted"], registry.champion()) == (promoted, "vmrnn-b-2" if promoted else "vmrnn-b-1")
    assert [CITY.isoformat(asked[name])[:10] for name in ("train_end", "valid_end", "end")] == [
        "2024-04-03", "2024-04-05", "2024-04-08",
    ]  # fmt: skip
    if promoted:
        assert registry.rollback() == "vmrnn-b-1"


def test_no_challenge_on_days_that_the_champion_was_made_with(service: CityService) -> None:
    observe(service, NOON - 8 * DAY, NOON - 5 * DAY)
    with pytest.raises(InputError, match="no challenge before there are 3 whole days after that"):
        retrain(service.stores, Retraining(), "cpu")
    assert service.stores.registry.versions() == ["vmrnn-b-1"]


# The command itself, with one epoch.
QUICK = """
import sys
from dataclasses import replace
from trafficcast.training import settings
settings._RECIPES["vmrnn-c"] = replace(settings._RECIPES["vmrnn-c"], epochs=1, batch_size=32)
del sys.argv[1:3]
from pipelines.cli.main import main
main()
"""


def test_a_small_city_is_retrained_in_a_process_of_its_own(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trained / "quick.py").write_text(QUICK)
    command = trained / "python"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {trained / "quick.py"} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setattr(retrain_process, "sys", SimpleNamespace(executable=str(command)))
    with open(trained / "config.toml", "a") as file:
        file.write("[retraining]\ntest_days = 1\nvalidation_days = 1\n")
    config = load_config(trained / "config.toml")
    city = config.city("small")
    sentence = retrain_process._RetrainingProcess(config, "cpu").run(city)
    registry = Registry(config.paths.models / "small", city)
    assert registry.versions() == ["vmrnn-c-1", "vmrnn-c-2"]
    verdict = "promoted" if registry.champion() == "vmrnn-c-2" else "not promoted"
    assert sentence.startswith("vmrnn-c-1 ") and sentence.endswith(f": {verdict} vmrnn-c-2")
