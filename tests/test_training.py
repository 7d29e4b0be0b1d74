"""The training loop: resumed equals uninterrupted, validation chooses, what is wrong is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trafficcast.errors import InputError, JobError
from trafficcast.nn import VMRNN, vmrnn_b
from trafficcast.training import (
    Progress,
    Trained,
    TrainingSettings,
    learning_rate,
    pick_device,
    rollout_loss,
    train,
    windows_of,
)

SETTINGS = TrainingSettings(epochs=3, batch_size=4, learning_rate=3e-3)
SCALE = 50.0


def network() -> VMRNN:
    torch.manual_seed(0)
    return vmrnn_b(8, 8, depth=2, embed=16)


def quiet(items: Iterable[int], description: str, total: int) -> Iterable[int]:
    return items


def run(
    checkpoint: Path,
    model: VMRNN,
    settings: TrainingSettings = SETTINGS,
    identity: str = "data",
    resume: bool = False,
    progress: Progress = quiet,
    on_epoch: Callable[[Trained], None] = lambda state: None,
) -> Trained:
    flows = np.random.default_rng(0).integers(0, 50, (40, 2, 8, 8))
    training, validation = windows_of(flows, SCALE, np.arange(0, 18), np.arange(20, 30))
    device = torch.device("cpu")
    return train(model, training, validation, SCALE, settings, device, checkpoint, identity, resume, progress, on_epoch)


def test_resumed_training_equals_uninterrupted(tmp_path: Path) -> None:
    whole = network()
    expected = run(tmp_path / "whole.safetensors", whole)

    def pull_the_plug(items: Iterable[int], description: str, total: int) -> Iterator[int]:
        for item in items:
            if description.startswith("epoch 3") and item == 2:
                raise KeyboardInterrupt
            yield item

    checkpoint = tmp_path / "interrupted.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, network(), progress=pull_the_plug)
    torch.rand(7)  # whatever else drew numbers in between
    resumed = network()
    got = run(checkpoint, resumed, resume=True)

    assert got.history == expected.history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert torch.equal(expected.best[name], got.best[name]), name


def test_training_lowers_the_loss_and_keeps_the_epoch_that_validation_chooses(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    model = network()

    def note(state: Trained) -> None:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})

    trained = run(tmp_path / "c.safetensors", model, on_epoch=note)
    assert trained.history[-1]["train_mse"] < trained.history[0]["train_mse"]
    errors = [row["valid_rmse"] for row in trained.history]
    assert trained.best_epoch == errors.index(min(errors)) + 1
    for name, value in seen[trained.best_epoch - 1].items():
        assert torch.equal(value, trained.best[name])


def test_the_loss_covers_all_seven_outputs_and_the_forecast_never_sees_its_target() -> None:
    model = network().eval()
    frames = torch.rand(2, 8, 2, 8, 8)
    outputs = model(frames[:, :4], horizon=4)
    expected = ((outputs - frames[:, 1:]) ** 2).mean()
    torch.testing.assert_close(rollout_loss(model, frames), expected)
    other = frames.clone()
    other[:, 4:] = 0
    torch.testing.assert_close(model(other[:, :4], horizon=4), outputs)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"identity": "other data"}, "other data or another architecture"),
        ({"settings": replace(SETTINGS, learning_rate=1e-3)}, "give the same settings"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, change: dict, sentence: str) -> None:
    checkpoint = tmp_path / "c.safetensors"
    run(checkpoint, network(), replace(SETTINGS, epochs=1))
    with pytest.raises(InputError, match=sentence):
        run(checkpoint, network(), **({"settings": replace(SETTINGS, epochs=1)} | change), resume=True)


def test_a_missing_or_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match="nothing to resume"):
        run(checkpoint, network(), resume=True)
    checkpoint.write_bytes(b"not tensors at all")
    with pytest.raises(InputError, match="cannot resume"):
        run(checkpoint, network(), resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="epoch 1"):
        run(tmp_path / "c.safetensors", network(), replace(SETTINGS, learning_rate=1e30))


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(TrainingSettings(learning_rate=1.0), step, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(1.0) and rates[-1] < 0.01


def test_an_unknown_device_is_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="no device 'tpu'"):
        pick_device("tpu")
