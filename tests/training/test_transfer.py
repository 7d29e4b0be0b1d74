"""Transfer: another model's weights are the start only where asked for by name, and the card says whose they were."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cities import stores_in
from trafficcast.config.city import City
from trafficcast.config.settings import load_config
from trafficcast.errors import InputError
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.model import ARCHITECTURES, Model, build, load_model, publish_model
from trafficcast.nn import vmrnn_b
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.registry import Registry
from trafficcast.training.transfer import _find_starting_model, _StartingModel

CONFIG = """
default_city = "home"

[cities.home]
west = 0
east = 1
south = 0
north = 1
rows = 4
cols = 8
slot_minutes = 120
timezone = "UTC"

[cities.away]
west = 5
east = 6
south = 0
north = 1
rows = 8
cols = 8
timezone = "Asia/Tokyo"
"""
SPLIT = ("--train-end", "2024-04-10", "--valid-end", "2024-04-11")
# A rate at which no weight moves far from where it started.
TRAIN = ("train", "--model", "vmrnn-b", "--epochs", 1, "--learning-rate", 1e-8, "--device", "cpu", *SPLIT)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def models(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder, with vmrnn-b-1 of both cities; and four days of flows of home."""
    monkeypatch.setitem(ARCHITECTURES, "vmrnn-b", partial(vmrnn_b, depth=1, embed=16))
    models = config.parent / "models"
    for seed, name in enumerate(("home", "away")):
        publish(models, city(config, name), seed)
    home = city(config, "home")
    time = np.datetime64("2024-04-08", "us") + home.slot * np.arange(48)
    flow = np.random.default_rng(0).poisson(9, (48, 2, 4, 8))
    stores_in(config.parent / "data", home).flows.write(flows_dataset(home, time, flow, np.full(48, 9), np.ones(48)))
    return models


def city(config: Path, name: str) -> City:
    return load_config(config).city(name)


def publish(models: Path, place: City, seed: int, train_end: str = "2024-04-10T00:00:00+00:00") -> None:
    torch.manual_seed(seed)
    described = {"name": "vmrnn-b", "rows": place.rows, "cols": place.cols, "channels": 2}
    registry = Registry(models / place.name, place)
    card = {
        "version": registry.next_version("vmrnn-b"),
        "city": place.name,
        "architecture": described,
        "grid": place.grid(),
        "scale": 40.0,
        "split": {"train_end": train_end, "valid_end": "2024-04-11T00:00:00+00:00"},
        "created": "-",
    }
    climatology = Climatology(place, np.zeros((2, place.slots_per_day, 2, place.rows, place.cols), np.float32))
    publish_model(registry, Model(card, build(described), climatology), lambda folder: None)


def weights(models: Path, place: City, version: str) -> dict[str, torch.Tensor]:
    return load_model(Registry(models / place.name, place), version).network.state_dict()


def furthest(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    return max(float((value - others[name]).abs().max()) for name, value in some.items())


def test_training_starts_from_the_weights_of_another_city(
    models: Path, config: Path, trafficcast: Callable[..., Any]
) -> None:
    home, away = city(config, "home"), city(config, "away")
    ran = trafficcast(*TRAIN, "--transfer", "away/vmrnn-b-1", "--json")
    assert ran.code == 0, ran.err
    file = models / "away" / "vmrnn-b-1" / "model.safetensors"
    expected = {
        "city": "away",
        "version": "vmrnn-b-1",
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "seen_until": None,
    }
    assert ran.json["transfer"] == expected
    assert "--transfer away/vmrnn-b-1" in (models / "home" / "vmrnn-b-2" / "CARD.md").read_text()
    started, tuned = weights(models, away, "vmrnn-b-1"), weights(models, home, "vmrnn-b-2")
    assert 0 < furthest(tuned, started) < 1e-6

    assert trafficcast(*TRAIN).code == 0
    assert furthest(weights(models, home, "vmrnn-b-3"), started) > 0.01
    assert Registry(models / "home", home).card("vmrnn-b-3")["transfer"] is None


def test_a_model_of_another_city_grid_or_slot_is_refused_unless_as_a_start(
    models: Path, config: Path, trafficcast: Callable[..., Any]
) -> None:
    ran = trafficcast("forecast", "--model", "vmrnn-b-1", "--init-time", "2024-04-11T12:00")
    assert ran.code == 0, ran.err
    for old, new in (("rows = 4", "rows = 6"), ("slot_minutes = 120", "slot_minutes = 60"), ("west = 0", "west = 0.1")):
        config.write_text(CONFIG.replace(old, new, 1))
        place = city(config, "home")
        with pytest.raises(InputError, match=f"trained with {old}.*train --city home --transfer home/vmrnn-b-1"):
            load_model(Registry(models / "home", place))
        assert _find_starting_model(stores_in(models.parent / "data", place), "vmrnn-b", "vmrnn-b-1").city == "home"
    config.write_text(CONFIG)
    (models / "away").rename(models / "moved")
    place = city(config, "away").model_copy(update={"name": "moved"})
    with pytest.raises(InputError, match="trained for 'away', not for 'moved'.*--transfer moved/vmrnn-b-1"):
        load_model(Registry(models / "moved", place))
    assert (
        _find_starting_model(stores_in(models.parent / "data", place), "vmrnn-b", "moved/vmrnn-b-1").version
        == "vmrnn-b-1"
    )


def test_what_cannot_be_a_start_is_refused(models: Path, config: Path) -> None:
    home = city(config, "home")
    stores = stores_in(models.parent / "data", home)
    for reference in ("../home/vmrnn-b-1", "/etc/passwd", "home/..", "home/vmrnn-b-1/", "", "."):
        with pytest.raises(InputError, match="neither VERSION nor CITY/VERSION"):
            _find_starting_model(stores, "vmrnn-b", reference)
    with pytest.raises(InputError, match="'away' has no model 'vmrnn-b-7'; it has: vmrnn-b-1"):
        _find_starting_model(stores, "vmrnn-b", "away/vmrnn-b-7")
    with pytest.raises(InputError, match="'nowhere' has no model 'vmrnn-b-1'; it has: none yet"):
        _find_starting_model(stores, "vmrnn-b", "nowhere/vmrnn-b-1")
    with pytest.raises(InputError, match="is a vmrnn-b and cannot start a vmrnn-c: give --model vmrnn-b"):
        _find_starting_model(stores, "vmrnn-c", "vmrnn-b-1")


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(file.read_bytes()[:-9]), partial(torch.save, [1])])
def test_damaged_weights_are_refused(models: Path, config: Path, spoil: Callable[[Path], None]) -> None:
    home = city(config, "home")
    spoil(models / "home" / "vmrnn-b-1" / "model.safetensors")
    with pytest.raises(InputError, match="home/vmrnn-b-1 is damaged"):
        _find_starting_model(stores_in(models.parent / "data", home), "vmrnn-b", "vmrnn-b-1")
    with pytest.raises(InputError, match="home/vmrnn-b-1 is damaged"):
        load_model(Registry(models / "home", home))


@pytest.mark.parametrize("name", ["vmrnn-b", "vmrnn-c", "vmrnn-d"])
def test_weights_fit_every_grid(name: str) -> None:
    small = {"vmrnn-d": {"depths": (1, 1)}}.get(name, {"depth": 1})
    coarse, fine = (
        build({"name": name, "rows": rows, "cols": cols, "embed": 16, **small}) for rows, cols in ((8, 8), (10, 21))
    )
    own = {name: buffer.fill_(1.0) for name, buffer in fine.named_buffers()}  # the start of VMRNN-C
    _StartingModel("away", f"{name}-1", "", coarse.state_dict(), None).load_into(fine)
    with torch.no_grad():
        assert furthest(dict(coarse.named_parameters()), dict(fine.named_parameters())) == 0
    assert all((buffer == 1).all() for buffer in own.values())


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"depth": 2}, r"cell\.blocks\.1\.norm\.weight is missing there and has the shape \(16,\) in this network"),
        (
            {"channels": 3},
            r"embedding\.proj\.weight has the shape \(16, 2, 4, 4\) there and has the shape \(16, 3, 4, 4\)",
        ),
        ({"d_state": 8}, r"cell\.blocks\.0\.ss2d\."),
    ],
)
def test_weights_of_another_shape_are_refused_by_the_parameters_name(other: dict[str, int], sentence: str) -> None:
    origin = _StartingModel("away", "vmrnn-b-1", "", vmrnn_b(8, 8, depth=1, embed=16).state_dict(), None)
    network = vmrnn_b(8, 8, **{"depth": 1, "embed": 16, **other})
    with pytest.raises(InputError, match=f"--transfer away/vmrnn-b-1: {sentence}"):
        origin.load_into(network)


@pytest.mark.parametrize(("train_end", "starts", "warns"), [("2024-04-09", 2, False), ("2024-04-12", 1, True)])
def test_days_that_the_origin_has_seen_do_not_calibrate_it(
    models: Path,
    config: Path,
    trafficcast: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    train_end: str,
    starts: int,
    warns: bool,
) -> None:
    publish(models, city(config, "home"), 0, train_end)
    loaded: list[_StartingModel] = []
    load_into = _StartingModel.load_into
    monkeypatch.setattr(
        _StartingModel, "load_into", lambda self, network: (loaded.append(self), load_into(self, network))
    )
    card = trafficcast(*TRAIN, "--transfer", "vmrnn-b-2", "--json").json
    assert card["transfer"]["seen_until"] == f"{train_end}T00:00:00+00:00"
    assert len(loaded) == starts  # the network that is published, and the one that calibrates its intervals
    assert ("not all new to the weights" in caplog.text) == warns


def test_a_training_with_another_start_is_not_resumed(
    models: Path, config: Path, trafficcast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("trafficcast.training.train.publish_model", full)
        assert trafficcast(*TRAIN, "--transfer", "away/vmrnn-b-1").code == 1
    for words in ((), ("--transfer", "vmrnn-b-1")):
        ran = trafficcast(*TRAIN, "--resume", *words)
        assert ran.code == 2 and "belongs to other data or another architecture" in ran.err
    assert trafficcast(*TRAIN, "--resume", "--transfer", "away/vmrnn-b-1").code == 0
