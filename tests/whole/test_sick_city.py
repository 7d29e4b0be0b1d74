"""One sick city touches no other: the real service with five cities, of which some are locked, damaged or gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cities import unsealed
from tests.live import ask, drive, free_port, lines, services, wait_for
from trafficcast.config.settings import load_config
from trafficcast.files import write_json
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.published import latest_forecast

pytestmark = pytest.mark.slow

MODEL = "vmrnn-c-1"
SICK, WELL = ("a-locked", "b-locked"), ("c-well", "d-well", "small")


@pytest.fixture
def five(trained: Path) -> Path:
    """Five cities that are all like the trained small one, each with an inbox."""
    file = trained / "config.toml"
    table = file.read_text().partition("[cities.small]")[2]
    for name in (*SICK, *WELL):
        (trained / f"inbox-{name}").mkdir()
        with open(file, "a") as config:
            if name != "small":
                config.write(f"\n[cities.{name}]{table}")
                shutil.copytree(trained / "data" / "small", trained / "data" / name)
                shutil.copytree(trained / "models" / "small", trained / "models" / name)
            config.write(f'[cities.{name}.feed]\ninbox = "inbox-{name}"\n')
    with open(file, "a") as config:
        config.write(f"[service]\nport = {free_port()}\ningest_seconds = 1\nwait_minutes = 60\n")
    settings = load_config(file)
    for name in {*SICK, *WELL} - {"small"}:
        registry = CityStores.of(settings, settings.city(name)).registry
        write_json(registry.root / MODEL / "card.json", unsealed(registry, MODEL) | {"city": name})
        registry.seal(MODEL)
    return trained


@pytest.fixture
def start(five: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    with services(five) as start:
        yield start


def forecasts(folder: Path) -> set[str]:
    """The cities that have a forecast."""
    config = load_config(folder / "config.toml")
    return {name for name in config.cities if latest_forecast(CityStores.of(config, config.city(name))) is not None}


def test_cities_whose_stores_are_locked_keep_no_other_from_its_files_and_forecasts(
    five: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    # As the documented backup holds them.
    commands = [["flock", five / "data" / name / ".lock", "sleep", "600"] for name in SICK]
    backups = [subprocess.Popen(command, start_new_session=True) for command in commands]
    try:
        config = load_config(five / "config.toml")
        drive(config.city("small"), five / "taxis.csv")
        for name in (*SICK, *WELL):
            shutil.copy(five / "taxis.csv", five / f"inbox-{name}")
        process = start("log")
        wait_for("running a-locked, ", five / "log", process)
        began = time.monotonic()
        while forecasts(five) != set(WELL):
            assert time.monotonic() - began < 60 and process.poll() is None, (five / "log").read_text()
            time.sleep(0.2)
        taken = {line["city"] for line in lines(five / "log") if "1 files taken" in line["message"]}
        assert taken == set(WELL)

        wait_for(".lock is locked by process", five / "log", process)
        (first, *_) = [line for line in lines(five / "log") if "is locked by" in line["message"]]
        assert first["city"] in SICK and f"{first['city']}/.lock is locked by process " in first["message"]
        assert "(flock), for more than 30 s: wait until it has ended, or end it" in first["message"]

        # Meanwhile a new file of a healthy city is taken at the next look.
        later = (five / "taxis.csv").read_text().replace("taxi ", "cab ")
        (five / "inbox-c-well" / "more.csv").write_text(later)
        end = time.monotonic() + 30
        while len([line for line in lines(five / "log") if "1 files taken" in line["message"]]) < 4:
            assert time.monotonic() < end
            time.sleep(0.2)
    finally:
        for backup in backups:
            os.killpg(backup.pid, signal.SIGKILL)
            backup.wait()


def test_what_befalls_one_city_is_its_own_red_line_and_what_befalls_all_is_red(
    five: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    with open(five / "config.toml", "a") as file:
        file.write('[[alerts.rules]]\nkind = "feed-silent"\nminutes = 60\n')
    config = load_config(five / "config.toml")
    drive(config.city("small"), five / "taxis.csv")
    for name in (*SICK, *WELL):
        shutil.copy(five / "taxis.csv", five / f"inbox-{name}")
    process = start("log")
    until(five, process, lambda code, wrong: code == 200)

    models = five / "models" / "a-locked"
    (models / "champion").rename(models / "gone")
    (models / "vmrnn-c-1").rename(five / "gone")
    until(five, process, lambda code, wrong: code == 503 and [*wrong] == ["a-locked"])
    page = ask(five, "metrics")[1]
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    assert {s.labels["city"]: s.value for s in samples if s.name == "trafficcast_healthy"} == {
        "a-locked": 0, "b-locked": 1, "c-well": 1, "d-well": 1, "small": 1,
    }  # fmt: skip

    (five / "gone").rename(models / "vmrnn-c-1")
    (models / "gone").rename(models / "champion")
    until(five, process, lambda code, wrong: code == 200)

    (five / "data").rename(five / "removed")
    until(five, process, lambda code, wrong: "was removed or replaced" in wrong.get("all cities", ""))
    for page in ("metrics", "status"):
        assert ask(five, page)[0] == 200
    assert process.poll() is None


def until(folder: Path, process: subprocess.Popen[bytes], so: Callable[[int, dict[str, str]], bool]) -> None:
    """Until the health page is so."""
    end, code, wrong = time.monotonic() + 90, 0, dict[str, str]()
    while not so(code, wrong):
        assert process.poll() is None and time.monotonic() < end, (code, wrong, (folder / "log").read_text()[-3000:])
        time.sleep(0.2)
        try:
            code, body = ask(folder, "healthz")
            wrong = json.loads(body)["wrong"]
        except OSError:  # it does not listen yet
            code, wrong = 0, {}
