"""The seal of a model: whatever of its files is not as it was published is noticed before it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cities import small_city, unsealed
from trafficcast.errors import InputError
from trafficcast.files import write_json
from trafficcast.stores import seal
from trafficcast.stores.registry import Registry

CARD = {"version": "v-1", "scale": 40.5, "metrics": {"test": {"a": {"rmse": [1.25, 2e-7]}}}}
WEIGHTS = bytes(range(256)) * 4


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    def fill(folder: Path) -> None:
        write_json(folder / "card.json", CARD)
        (folder / "weights").write_bytes(WEIGHTS)
        os.utime(folder / "card.json", (1000, 1000))

    registry = Registry(tmp_path / "small", small_city())
    registry.add("v-1", fill)
    return registry


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_published_model_is_sealed_and_as_old_as_its_card(registry: Registry) -> None:
    card = registry.card("v-1")
    assert seal.is_sealed(card) and card["files"]["weights"]["bytes"] == len(WEIGHTS)
    assert {key: value for key, value in card.items() if key in CARD} == CARD
    assert registry.read("v-1", "weights", bytes) == WEIGHTS
    assert (registry.root / "v-1" / "card.json").stat().st_mtime == 1000
    registry.check("v-1")


def test_a_card_with_numbers_that_are_not_finite_is_sealed_as_it_will_be_read(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "small", small_city())
    card = {"version": "v-1", "metrics": {"rmse": float("nan"), "shares": (1, float("inf"))}}
    registry.add("v-1", lambda folder: (folder / "card.json").write_text(json.dumps(card)))
    assert registry.card("v-1")["metrics"] == {"rmse": None, "shares": [1, None]}


def test_every_flipped_bit_of_a_card_is_noticed(registry: Registry) -> None:
    file = registry.root / "v-1" / "card.json"
    content, card = file.read_bytes(), registry.card("v-1")
    unnoticed = 0
    for bit in range(8 * len(content)):
        file.write_bytes(flipped(content, bit))
        try:
            unnoticed += registry.card("v-1") == card  # a space became a tab: no value changed
        except InputError as error:
            assert "v-1 is damaged: card.json: " in str(error)
            continue
        assert registry.card("v-1") == card
    assert unnoticed < len(content) / 10


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: b"", lambda content: content + b"x"])
def test_a_file_of_another_length_is_noticed(registry: Registry, change: Callable[[bytes], bytes]) -> None:
    (registry.root / "v-1" / "weights").write_bytes(change(WEIGHTS))
    for look in (lambda: registry.read("v-1", "weights", pytest.fail), lambda: registry.check("v-1")):
        with pytest.raises(InputError, match="v-1 is damaged: weights: it is not as it was sealed"):
            look()


def test_a_flipped_bit_is_noticed_before_anything_parses_the_file(registry: Registry) -> None:
    for bit in np.random.default_rng(0).integers(0, 8 * len(WEIGHTS), 50):
        (registry.root / "v-1" / "weights").write_bytes(flipped(WEIGHTS, int(bit)))
        with pytest.raises(InputError, match="not as it was sealed"):
            registry.read("v-1", "weights", pytest.fail)
        with pytest.raises(InputError, match="not as it was sealed"):
            registry.check("v-1")
    (registry.root / "v-1" / "weights").write_bytes(WEIGHTS)
    registry.check("v-1")


def test_a_file_that_is_gone_is_noticed_and_one_that_never_was_is_not(registry: Registry) -> None:
    assert registry.read_if_any("v-1", "trees", pytest.fail) is None
    (registry.root / "v-1" / "trees").write_bytes(b"of someone else")
    assert registry.read_if_any("v-1", "trees", pytest.fail) is None
    (registry.root / "v-1" / "weights").unlink()
    for look in (lambda: registry.read_if_any("v-1", "weights", pytest.fail), lambda: registry.check("v-1")):
        with pytest.raises(InputError, match="v-1 is damaged: weights: No such file"):
            look()
    with pytest.raises(InputError, match="v-1 is damaged: trees: it is missing"):
        registry.read("v-1", "trees", pytest.fail)


def test_a_model_that_did_not_change_is_not_read_again(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.check("v-1")
    with monkeypatch.context() as patch:
        patch.setattr(seal, "_digest", pytest.fail)
        registry.check("v-1")
    (registry.root / "v-1" / "weights").write_bytes(WEIGHTS[::-1])
    with pytest.raises(InputError, match="not as it was sealed"):
        registry.check("v-1")


def test_a_model_without_a_seal_is_read_as_it_is(registry: Registry) -> None:
    assert unsealed(registry, "v-1") == CARD
    (registry.root / "v-1" / "weights").write_bytes(b"others")
    assert registry.read("v-1", "weights", bytes) == b"others"
    assert registry.read_if_any("v-1", "trees", pytest.fail) is None
    registry.check("v-1")
    os.utime(registry.root / "v-1" / "card.json", (2000, 2000))
    registry.seal("v-1")
    (registry.root / "v-1" / "weights").write_bytes(WEIGHTS)
    with pytest.raises(InputError, match="not as it was sealed"):
        registry.check("v-1")
    assert (registry.root / "v-1" / "card.json").stat().st_mtime == 2000  # as old as it was: pruning goes by it


def test_half_a_seal_is_a_damaged_card(registry: Registry) -> None:
    file = registry.root / "v-1" / "card.json"
    whole = json.loads(file.read_text())
    for key in ("files", "sha256"):
        write_json(file, {name: value for name, value in whole.items() if name != key})
        with pytest.raises(InputError, match=r"card\.json: it is not as it was sealed"):
            registry.card("v-1")


def test_errors_of_parsing_are_those_of_a_damaged_file(registry: Registry) -> None:
    def parse(content: bytes) -> str:
        return content.decode("ascii")

    with pytest.raises(InputError, match="v-1 is damaged: weights: 'ascii' codec"):
        registry.read("v-1", "weights", parse)
