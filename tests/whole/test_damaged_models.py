"""Damage to each file of a model, through the command and through the service: noticed, told, and only one city's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.service import schedule
from pipelines.service.health import _health
from pipelines.service.status import _ALERTS, status
from tests.cities import unsealed
from trafficcast.alerts.book import AlertBook
from trafficcast.config.settings import load_config
from trafficcast.files import write_json
from trafficcast.forecasting.publish import JOB
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.registry import Registry

HOUR = np.timedelta64(1, "h")
FIRST = np.datetime64("2024-04-13T00:30", "us")
# The files that a forecast needs, and those that only people look at.
NEEDED = ["card.json", "model.safetensors", "climatology.safetensors", "intervals.safetensors", "lightgbm.txt"]
SHOWN = ["CARD.md", "curve.csv", "curve.png"]


def flip(content: bytes) -> bytes:
    changed = bytearray(content)
    rng = np.random.default_rng(len(content))
    place = rng.integers(len(content))
    while changed[place : place + 1].isspace():  # a card whose spaces change says the same
        place = rng.integers(len(content))
    changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "a flipped bit": flip,
    "cut": lambda content: content[: 2 * len(content) // 3],
    "emptied": lambda content: b"",
    "removed": lambda content: None,
}


def damages(folder: Path, names: list[str], ways: Collection[str] = DAMAGES) -> Iterator[tuple[str, str]]:
    """Damage each file of a model in each way, and restore it after each."""
    for name in names:
        content = (folder / name).read_bytes()
        for about in ways:
            damaged = DAMAGES[about](content)
            if damaged is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(damaged)
            yield name, about
            (folder / name).write_bytes(content)


def change_card(registry: Registry, model: str, **changes: str) -> None:
    write_json(registry.root / model / "card.json", unsealed(registry, model) | changes)
    registry.seal(model)


@pytest.fixture
def folder(trained: Path) -> Path:
    """Two cities with the same data and models: the champion vmrnn-c-2 and, before it, vmrnn-c-1."""
    config = trained / "config.toml"
    small = config.read_text()
    config.write_text(small + small.partition("\n\n")[2].replace("[cities.small]", "[cities.other]"))
    settings = load_config(config)
    registry = CityStores.of(settings, settings.city("small")).registry
    assert sorted(file.name for file in (registry.root / "vmrnn-c-1").iterdir()) == sorted(NEEDED + SHOWN)
    shutil.copytree(registry.root / "vmrnn-c-1", registry.root / "vmrnn-c-2")
    change_card(registry, "vmrnn-c-2", version="vmrnn-c-2")
    registry.promote("vmrnn-c-2")
    for place in ("data", "models"):
        shutil.copytree(trained / place / "small", trained / place / "other")
    other = CityStores.of(settings, settings.city("other")).registry
    for version in other.versions():
        change_card(other, version, city="other")
    return trained


def run_jobs(service: schedule._Service) -> None:
    """What the service does every few seconds for each city."""
    for one in service.services:
        service._run(JOB, one.stores, partial(service._cycle, one))
        service._run(_ALERTS, one.stores, partial(service._alerts, one))


class Running:
    """The service of both cities, started anew for each look."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.config = load_config(folder / "config.toml")
        self.cities = [self.config.city(name) for name in self.config.cities]
        self.now = FIRST
        patch.setattr(schedule, "_now", lambda: self.now)
        patch.setattr(schedule, "_RETRY_SECONDS", 0.0)

    def start(self) -> schedule._Service:
        return schedule._Service(self.config, self.cities, "cpu")

    def look(self) -> dict[str, tuple[str, str, str]]:
        """Start the service an hour later, and return each city's newest forecast: state, forecaster and reason."""
        self.now += HOUR
        service = self.start()
        for _ in range(2):  # the first round may have something to repair
            run_jobs(service)
        cities = status(self.config, self.cities, self.now)["cities"]
        assert {values["overdue"] for values in cities.values()} == {False}
        made = {name: values["forecast"] for name, values in cities.items()}
        return {name: (one["state"], one["forecaster"], one["reason"]) for name, one in made.items()}

    @property
    def wrong(self) -> dict[str, str]:
        """What the page of health calls wrong."""
        code, page = _health(status(self.config, self.cities, self.now))
        assert (code == 200) == page["ok"]
        wrong: dict[str, str] = page["wrong"]
        return wrong

    def alerts(self, city: str) -> list[str]:
        """The open alerts of a city about its model."""
        book = AlertBook(self.config.paths.data / "alerts.sqlite")
        return [alert.finding.message for alert in book.open(city, self.now) if alert.finding.kind == "model-damaged"]


def test_the_command_says_which_file_is_damaged(folder: Path, trafficcast: Callable[..., Any]) -> None:
    model, city = folder / "models" / "small" / "vmrnn-c-2", ("--city", "small")
    whole = trafficcast("forecast", *city, "--json").out
    for name, about in damages(model, NEEDED):
        ran = trafficcast("forecast", *city)
        assert ran.code == 2 and "Traceback" not in ran.err, (name, about)
        assert len(ran.err.strip().splitlines()) == 1 and "vmrnn-c-2" in ran.err, ran.err
        assert name in ran.err or (name, about) == ("card.json", "removed"), ran.err
        assert trafficcast("models", "list", "--city", "other").code == 0
    for name, about in damages(model, SHOWN):
        assert trafficcast("forecast", *city, "--json").code == 0
        shown = trafficcast("models", "show", *city)
        assert (shown.code, name in shown.err) == ((2, True) if name == "CARD.md" else (0, False)), about
        found = trafficcast("fsck", *city, "--json")
        assert found.code == 3
        assert [one["wrong"].count(name) for one in found.json["small"]["lost"] if "vmrnn-c-2" in one["file"]] == [1]
    again = json.loads(trafficcast("forecast", *city, "--json").out)
    assert again == json.loads(whole)


def test_the_champion_before_it_takes_over_in_that_city_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, model = Running(folder, monkeypatch), folder / "models" / "small" / "vmrnn-c-2"
    well = dict.fromkeys(("small", "other"), ("complete", "vmrnn-c-2", ""))
    assert running.look() == well and running.wrong == {}
    for name, about in damages(model, NEEDED):
        made = running.look()
        state, forecaster, reason = made["small"]
        assert (state, forecaster) == ("degraded", "vmrnn-c-1"), (name, about, made)
        assert "vmrnn-c-2" in reason and (name in reason or about == "removed")
        assert made["other"] == well["other"]
        assert [*running.wrong] == ["small"] and reason in running.wrong["small"]
        (told,) = running.alerts("small")  # one alert, which says what it said when it was raised
        assert "vmrnn-c-2" in told and running.alerts("other") == []
    for name, _ in damages(model, SHOWN, ["a flipped bit"]):
        assert running.look() == well
        assert [*running.wrong] == ["small"] and name in running.wrong["small"]
        assert len(running.alerts("small")) == 1
    assert running.look() == well
    assert running.wrong == {} and running.alerts("small") == []


def test_without_any_readable_model_baselines_go_on_and_it_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, root = Running(folder, monkeypatch), folder / "models" / "small"
    well = running.look()["small"]
    files = [root / version / "model.safetensors" for version in ("vmrnn-c-2", "vmrnn-c-1")]
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.write_bytes(file.read_bytes()[:-1])
    for _ in range(2):
        made = running.look()
        state, forecaster, reason = made["small"]
        assert (state, forecaster) == ("baseline", "scaled_climatology")
        assert reason.startswith("no model can be read: ") and all(str(file.parent) in reason for file in files)
        assert made["other"] == well
        assert [*running.wrong] == ["small"] and len(running.alerts("small")) == 1
    for file, content in zip(files, whole, strict=True):
        file.write_bytes(content)
    assert running.look()["small"] == well and running.wrong == {} and running.alerts("small") == []


@pytest.mark.parametrize(
    ("content", "champion"),
    [
        (b"", "vmrnn-c-2"),
        (b"vmrnn\xff-c-2\nvmrnn-c-1\n", "vmrnn-c-2"),
        (b"../other/vmrnn-c-2\n", "vmrnn-c-2"),
        (b"vmrnn-c-7\n", "vmrnn-c-2"),
        (b"vmrnn-c-7\nvmrnn-c-1\n", "vmrnn-c-1"),
    ],
)
def test_a_damaged_list_of_champions_is_one_city_s(
    content: bytes, champion: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, file = Running(folder, monkeypatch), folder / "models" / "small" / "champion"
    running.look()
    file.write_bytes(content)
    assert [*running.wrong] == ["small"]
    made = running.look()
    assert made["other"] == ("complete", "vmrnn-c-2", "")
    state, forecaster, reason = made["small"]
    assert forecaster == champion
    if champion == "vmrnn-c-1":  # a champion that is gone is told until a person names another
        assert state == "degraded" and "no model 'vmrnn-c-7'" in reason
        assert [*running.wrong] == ["small"] and running.alerts("small") == [reason]
    else:
        assert state == "complete" and running.wrong == {} and running.alerts("small") == []
        assert file.with_name("champion.damaged-1").read_bytes() == content


def test_a_champion_in_memory_forecasts_on_and_its_damage_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(folder, monkeypatch)
    service = running.start()
    run_jobs(service)
    weights = folder / "models" / "small" / "vmrnn-c-2" / "model.safetensors"
    weights.write_bytes(flip(weights.read_bytes()))
    running.now += HOUR
    run_jobs(service)
    cities = status(running.config, running.cities, running.now)["cities"]
    assert {values["forecast"]["state"] for values in cities.values()} == {"complete"}
    assert [*running.wrong] == ["small"] and "model.safetensors" in running.alerts("small")[0]


def test_damage_to_models_without_a_seal_is_told_where_it_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, root = Running(folder, monkeypatch), folder / "models" / "small"
    registry = Registry(root, running.config.city("small"))
    unsealed(registry, "vmrnn-c-2")
    for name, _ in damages(root / "vmrnn-c-2", NEEDED[1:3], ["cut"]):
        made = running.look()
        assert made["small"][:2] == ("degraded", "vmrnn-c-1") and name in made["small"][2]
        assert made["other"] == ("complete", "vmrnn-c-2", "")
        assert [*running.wrong] == ["small"] and len(running.alerts("small")) == 1


def test_models_of_earlier_versions_are_sealed_by_a_command(folder: Path, trafficcast: Callable[..., Any]) -> None:
    settings = load_config(folder / "config.toml")
    registry = CityStores.of(settings, settings.city("small")).registry
    unsealed(registry, "vmrnn-c-2")
    ran = trafficcast("forecast", "--city", "small")
    assert ran.code == 0
    assert "vmrnn-c-2 has no seal" in ran.err and "run trafficcast models seal --city small" in ran.err
    weights = registry.root / "vmrnn-c-2" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-9])
    ran = trafficcast("models", "seal", "--city", "small", "--json")
    outcomes = {one["version"]: one["outcome"] for one in ran.json["models"]}
    assert ran.code == 1 and outcomes["vmrnn-c-1"] == "was sealed before"
    assert "vmrnn-c-2 is damaged: model.safetensors" in outcomes["vmrnn-c-2"]
    weights.write_bytes(content)
    ran = trafficcast("models", "seal", "--city", "small", "--json")
    assert ran.code == 0 and {"version": "vmrnn-c-2", "outcome": "sealed"} in ran.json["models"]
    ran = trafficcast("forecast", "--city", "small")
    assert ran.code == 0 and "seal" not in ran.err
