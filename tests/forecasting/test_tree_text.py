"""LightGBM's text of trees: what is handed to LightGBM was examined, and no damage to a model ends the process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cities import unsealed
from trafficcast.config.settings import load_config
from trafficcast.errors import InputError
from trafficcast.forecasting.gradient_boosting import _checked
from trafficcast.forecasting.model import load_model
from trafficcast.stores.registry import Registry

PROJECT = Path(__file__).parents[2]
SHIPPED = PROJECT / "models" / "san-francisco" / "vmrnn-c-2"
lightgbm = pytest.importorskip("lightgbm", reason="LightGBM is not installed")

# Loads the model anew after each damage to its trees, and forecasts with what was loaded.
_LOADER = """
import sys
from pathlib import Path
import numpy as np
from trafficcast.config.settings import load_config
from trafficcast.errors import InputError
from trafficcast.forecasting.model import load_model
from trafficcast.stores.registry import Registry

root, damages, resealed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "resealed"
registry = Registry(root, load_config(Path(sys.argv[4])).city("san-francisco"))
rows = np.random.default_rng(0).normal(0, 20, (1000, 23)).astype(np.float32)
for damage in sorted(damages.iterdir()):
    (root / "vmrnn-c-2" / "lightgbm.txt").write_bytes(damage.read_bytes())
    if resealed:
        registry.seal("vmrnn-c-2")
    print(damage.name, end=" ", flush=True)
    try:
        forecast = load_model(registry).trees.trees.predict(rows)
        print("loaded", np.isfinite(forecast).all(), flush=True)
    except InputError as error:
        print("refused", "lightgbm.txt" in str(error), flush=True)
"""


def damaged_texts(text: bytes, number: int) -> list[bytes]:
    """The text cut at random places, with digits, bits and lines changed, and with the worst numbers."""
    rng, found = np.random.default_rng(number), []
    places = [i for i in range(len(text)) if text[i : i + 1].isdigit()]
    lines = text.split(b"\n")
    for _ in range(number):
        cut, changed, flipped, shuffled = rng.integers(len(text)), bytearray(text), bytearray(text), list(lines)
        for place in rng.choice(places, rng.integers(1, 4), replace=False):
            changed[place] = ord(b"0") + (changed[place] - ord(b"0") + rng.integers(1, 10)) % 10
        flipped[cut] ^= 1 << rng.integers(8)
        del shuffled[rng.integers(len(lines))]
        found += [text[:cut], bytes(changed), bytes(flipped), b"\n".join(shuffled)]
    for key, number_of in ((b"left_child", b"-99999"), (b"right_child", b"0"), (b"split_feature", b"999999"),
                           (b"num_leaves", b"999999"), (b"leaf_value", b"nan"), (b"threshold", b"1e999"),
                           (b"decision_type", b"1"), (b"num_cat", b"7")):  # fmt: skip
        start = text.index(b"\n" + key + b"=") + len(key) + 2
        end = min(text.index(b"\n", start), text.find(b" ", start) if text.find(b" ", start) > 0 else len(text))
        found.append(text[:start] + number_of + text[end:])
    return [*found, b"", b"tree\n", text + text, bytes(rng.integers(0, 256, 1000, np.uint8))]


def test_what_was_examined_forecasts_the_same() -> None:
    file = SHIPPED / "lightgbm.txt"
    rows = np.random.default_rng(0).normal(0, 20, (20_000, 23)).astype(np.float32)
    before, after = lightgbm.Booster(model_file=file), lightgbm.Booster(model_str=_checked(file.read_text()))
    assert before.num_trees() == after.num_trees() > 10
    np.testing.assert_array_equal(before.predict(rows), after.predict(rows))


def test_trees_of_one_leaf_are_trees() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (500, 23)).astype(np.float32)
    constant = lightgbm.train({"objective": "regression", "verbosity": -1}, lightgbm.Dataset(rows, np.ones(500)), 3)
    again = lightgbm.Booster(model_str=_checked(constant.model_to_string()))
    np.testing.assert_array_equal(again.predict(rows), constant.predict(rows))


def test_a_circle_is_no_tree() -> None:
    text = (SHIPPED / "lightgbm.txt").read_text()
    tree = text.index("left_child=") + len("left_child=")
    with pytest.raises(ValueError, match="a tree is no tree"):
        _checked(text[:tree] + "0" + text[tree + 1 :])


@pytest.mark.parametrize("state", ["sealed", "resealed", "unsealed"])
def test_no_damage_to_trees_ends_the_process(state: str, tmp_path: Path) -> None:
    root, damages = tmp_path / "san-francisco", tmp_path / "damages"
    shutil.copytree(SHIPPED, root / "vmrnn-c-2")
    (root / "champion").write_text("vmrnn-c-2\n")
    registry = Registry(root, load_config(PROJECT / "config.toml").city("san-francisco"))
    if state == "unsealed":
        unsealed(registry, "vmrnn-c-2")
    damages.mkdir()
    texts = damaged_texts((SHIPPED / "lightgbm.txt").read_bytes(), 12)
    for number, text in enumerate(texts):
        (damages / f"{number:03d}").write_bytes(text)
    ran = subprocess.run(
        [sys.executable, "-c", _LOADER, root, damages, state, PROJECT / "config.toml"],
        cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, (ran.stdout[-200:], ran.stderr)
    outcomes = [line.split()[1:] for line in ran.stdout.splitlines()]
    assert len(outcomes) == len(texts) >= 60
    assert {tuple(outcome) for outcome in outcomes} <= {("loaded", "True"), ("refused", "True")}
    refused = sum(outcome[0] == "refused" for outcome in outcomes)
    # A changed digit of a value that no forecast needs, or that stays a number in bounds, shows only by the seal.
    assert refused == len(texts) if state == "sealed" else refused > len(texts) / 4


def test_a_damaged_tree_is_named(tmp_path: Path) -> None:
    root = tmp_path / "san-francisco"
    shutil.copytree(SHIPPED, root / "vmrnn-c-2")
    registry = Registry(root, load_config(PROJECT / "config.toml").city("san-francisco"))
    unsealed(registry, "vmrnn-c-2")
    file = root / "vmrnn-c-2" / "lightgbm.txt"
    file.write_text(file.read_text().replace("split_feature=9 ", "split_feature=99 ", 1))
    with pytest.raises(InputError, match=r"is damaged: lightgbm\.txt: split_feature holds what it cannot hold"):
        load_model(registry, "vmrnn-c-2")
