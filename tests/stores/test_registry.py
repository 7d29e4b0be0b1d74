"""The registry: versions never overwritten, the champion a pointer, damage named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cities import small_city, unsealed
from trafficcast.errors import InputError
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.model import Model, build, load_model, publish_model
from trafficcast.stores.registry import Registry

CITY = small_city(rows=8, cols=12, timezone="UTC")


def model(version: str) -> Model:
    torch.manual_seed(0)
    described = {"name": "vmrnn-b", "rows": 8, "cols": 12, "channels": 2, "depth": 1, "embed": 16}
    card: dict[str, Any] = {"version": version, "architecture": described, "grid": CITY.grid(), "scale": 40.0}
    table = np.random.default_rng(0).random((2, 48, 2, 8, 12)).astype(np.float32)
    return Model(card, build(described), Climatology(CITY, table))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "small", CITY)
    publish_model(registry, model("vmrnn-b-1"), lambda folder: None)
    return registry


def test_a_model_comes_back_as_it_went_in(registry: Registry) -> None:
    loaded, original = load_model(registry), model("vmrnn-b-1")
    assert {key: value for key, value in loaded.card.items() if key not in ("files", "sha256")} == original.card
    np.testing.assert_array_equal(loaded.climatology.table, original.climatology.table)
    for name, value in original.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name])


def test_the_first_model_is_champion_until_another_is_promoted(registry: Registry) -> None:
    publish_model(registry, model("vmrnn-b-2"), lambda folder: None)
    assert registry.champion() == load_model(registry).version == "vmrnn-b-1"
    registry.promote("vmrnn-b-2")
    assert registry.champion() == load_model(registry).version == "vmrnn-b-2"
    with pytest.raises(InputError, match="vmrnn-b-1, vmrnn-b-2"):
        registry.promote("vmrnn-b-3")


def test_versions_are_numbered_and_never_overwritten(registry: Registry) -> None:
    assert registry.next_version("vmrnn-b") == "vmrnn-b-2"
    publish_model(registry, model("vmrnn-b-10"), lambda folder: None)
    assert registry.next_version("vmrnn-b") == "vmrnn-b-11"
    assert registry.versions() == ["vmrnn-b-1", "vmrnn-b-10"]
    with pytest.raises(InputError, match="never overwritten"):
        publish_model(registry, model("vmrnn-b-1"), lambda folder: None)


def test_a_failed_publication_leaves_nothing(registry: Registry) -> None:
    def fail(folder: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish_model(registry, model("vmrnn-b-2"), fail)
    assert registry.versions() == ["vmrnn-b-1"]
    assert sorted(path.name for path in registry.root.iterdir()) == ["champion", "vmrnn-b-1"]


def test_another_grid_is_refused(registry: Registry) -> None:
    for change in ({"rows": 12}, {"slot_minutes": 60}, {"east": 2.0}):
        with pytest.raises(InputError, match=next(iter(change))):
            load_model(Registry(registry.root, CITY.model_copy(update=change)))


def test_damage_is_named(registry: Registry) -> None:
    weights = registry.root / "vmrnn-b-1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"vmrnn-b-1 is damaged"):
        load_model(registry)
    (registry.root / "vmrnn-b-1" / "card.json").write_text("{")
    with pytest.raises(InputError, match=r"card\.json"):
        load_model(registry)


def test_weights_of_another_network_are_refused(registry: Registry) -> None:
    card = registry.root / "vmrnn-b-1" / "card.json"
    values = unsealed(registry, "vmrnn-b-1")
    for change, sentence in (({"depth": 2}, "another version of vmrnn-b: train it again"), ({"embed": 32}, "damaged")):
        card.write_text(json.dumps(values | {"architecture": values["architecture"] | change}))
        with pytest.raises(InputError, match=sentence):
            load_model(registry)


def test_a_city_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trafficcast train --city small"):
        load_model(Registry(tmp_path, CITY))


def champions_of(registry: Registry, *versions: str) -> None:
    """Publish them and make each the champion in turn."""
    for version in versions:
        if version not in registry.versions():
            publish_model(registry, model(version), lambda folder: None)
        registry.promote(version)


def test_champions_are_remembered_the_newest_first_each_once(registry: Registry, tmp_path: Path) -> None:
    assert Registry(tmp_path / "empty", CITY).champions() == []
    champions_of(registry, "vmrnn-b-2", "vmrnn-b-3", "vmrnn-b-1", "vmrnn-b-1")
    assert registry.champions() == ["vmrnn-b-1", "vmrnn-b-3", "vmrnn-b-2"]


def test_a_promotion_that_is_refused_changes_nothing(registry: Registry) -> None:
    champions_of(registry, "vmrnn-b-2")
    with pytest.raises(InputError, match="no model 'vmrnn-b-9'"):
        registry.promote("vmrnn-b-9")
    assert registry.champions() == ["vmrnn-b-2", "vmrnn-b-1"]


def test_a_rollback_undoes_the_last_promotion_and_then_the_one_before(registry: Registry) -> None:
    champions_of(registry, "vmrnn-b-2", "vmrnn-b-3")
    assert registry.rollback() == registry.champion() == "vmrnn-b-2"
    assert registry.rollback() == registry.champion() == "vmrnn-b-1"
    assert sorted(registry.champions()) == ["vmrnn-b-1", "vmrnn-b-2", "vmrnn-b-3"]  # what they forecast stays published
    assert registry.versions() == ["vmrnn-b-1", "vmrnn-b-2", "vmrnn-b-3"]  # none is removed by it
    registry.promote("vmrnn-b-3")
    assert registry.champions()[:2] == ["vmrnn-b-3", "vmrnn-b-1"]


def test_a_rollback_passes_over_champions_that_are_gone(registry: Registry) -> None:
    champions_of(registry, "vmrnn-b-2", "vmrnn-b-3")
    for file in (registry.root / "vmrnn-b-2").iterdir():
        file.unlink()
    (registry.root / "vmrnn-b-2").rmdir()
    assert registry.rollback() == "vmrnn-b-1"


def test_a_pointer_with_one_version_alone_is_one_of_a_single_champion(registry: Registry) -> None:
    (registry.root / "champion").write_text("vmrnn-b-1")  # as version 0.1 wrote it, and as a person may
    assert registry.champions() == ["vmrnn-b-1"]
    with pytest.raises(InputError, match="'small' has no earlier champion to go back to"):
        registry.rollback()


def test_the_first_version_of_an_architecture_has_number_1(registry: Registry, tmp_path: Path) -> None:
    assert Registry(tmp_path / "empty", CITY).next_version("vmrnn-b") == "vmrnn-b-1"
    assert registry.next_version("vmrnn-c") == "vmrnn-c-1"  # the numbers of vmrnn-b are its own
