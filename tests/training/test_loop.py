"""The training loop: resumed equals uninterrupted, validation chooses, what is wrong is said."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trafficcast.errors import InputError, JobError
from trafficcast.forecasting.inference import pick_device
from trafficcast.nn import VMRNN, VMRNNC, vmrnn_b, vmrnn_c
from trafficcast.training.dataset import _windows_of
from trafficcast.training.loop import (
    _augment,
    _forecast_loss,
    _learning_rate,
    _parameter_groups,
    _Progress,
    _train,
    _Trained,
)
from trafficcast.training.settings import TrainingSettings, recipe

SETTINGS = TrainingSettings(epochs=3, batch_size=4, learning_rate=3e-3)
SCALE = 50.0


def network() -> VMRNN:
    torch.manual_seed(0)
    return vmrnn_b(8, 8, depth=2, embed=16)


def quiet(items: Iterable[int], description: str, total: int) -> Iterable[int]:
    return items


def run(
    checkpoint: Path,
    model: VMRNN | VMRNNC,
    settings: TrainingSettings = SETTINGS,
    identity: str = "data",
    resume: bool = False,
    progress: _Progress = quiet,
    on_epoch: Callable[[_Trained], None] = lambda state: None,
) -> _Trained:
    rng = np.random.default_rng(0)
    flows = rng.integers(0, 50, (40, 2, 8, 8))
    context, unit = {}, SCALE
    if isinstance(model, VMRNNC):
        climatology = flows + rng.normal(0, 3, flows.shape).clip(0)
        context, unit = {"climatology": climatology.astype(np.float32), "calendar": np.zeros((40, 6), np.float32)}, 1.0
    training, validation = _windows_of(flows, unit, context, np.arange(0, 18), np.arange(20, 30))
    device = torch.device("cpu")
    return _train(model, training, validation, unit, settings, device, checkpoint, identity, resume, progress, on_epoch)


def conditioned() -> VMRNNC:
    torch.manual_seed(0)
    return vmrnn_c(8, 8, depth=2, embed=16)


AVERAGED = replace(SETTINGS, ema=0.9, clip=1.0, views=True, weight_decay=0.1)


@pytest.mark.parametrize(("make", "settings"), [(network, SETTINGS), (conditioned, AVERAGED)])
def test_resumed_training_equals_uninterrupted(
    tmp_path: Path, make: Callable[[], VMRNN | VMRNNC], settings: TrainingSettings
) -> None:
    whole = make()
    expected = run(tmp_path / "whole.safetensors", whole, settings)

    def pull_the_plug(items: Iterable[int], description: str, total: int) -> Iterator[int]:
        for item in items:
            if description.startswith("epoch 3") and item == 2:
                raise KeyboardInterrupt
            yield item

    checkpoint = tmp_path / "interrupted.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, make(), settings, progress=pull_the_plug)
    torch.rand(7)  # whatever else drew numbers in between
    resumed = make()
    got = run(checkpoint, resumed, settings, resume=True)

    assert got.history == expected.history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert torch.equal(expected.best[name], got.best[name]), name


def test_training_lowers_the_loss_and_keeps_the_epoch_that_validation_chooses(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    model = network()

    def note(state: _Trained) -> None:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})

    trained = run(tmp_path / "c.safetensors", model, on_epoch=note)
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    errors = [row["valid_rmse"] for row in trained.history]
    assert trained.best_epoch == errors.index(min(errors)) + 1
    for name, value in seen[trained.best_epoch - 1].items():
        assert torch.equal(value, trained.best[name])


def test_the_loss_covers_all_seven_outputs_and_the_forecast_never_sees_its_target() -> None:
    model = network().eval()
    frames = torch.rand(2, 8, 2, 8, 8)
    outputs = model(frames[:, :4], horizon=4)
    expected = ((outputs - frames[:, 1:]) ** 2).mean()
    torch.testing.assert_close(_forecast_loss(model, frames, {}), expected)
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


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        run(tmp_path / "c.safetensors", network(), resume=True)


@pytest.mark.parametrize("left", [0, 7, 1000, -1])
def test_a_checkpoint_cut_off_is_refused(tmp_path: Path, left: int) -> None:
    checkpoint = tmp_path / "c.safetensors"
    run(checkpoint, network(), replace(SETTINGS, epochs=1))
    checkpoint.write_bytes(checkpoint.read_bytes()[:left])
    with pytest.raises(InputError, match=r"c\.safetensors, which is cut off or no safetensors file: start anew"):
        run(checkpoint, network(), replace(SETTINGS, epochs=1), resume=True)


class Mine:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("write", [torch.save, lambda it, file: file.write_bytes(pickle.dumps(it))])
def test_a_pickle_for_a_checkpoint_is_refused_and_not_loaded(
    tmp_path: Path, write: Callable[[object, Path], None]
) -> None:
    checkpoint, trace = tmp_path / "c.safetensors", tmp_path / "trace"
    write({"network": Mine(trace)}, checkpoint)
    with pytest.raises(InputError, match="no safetensors file"):
        run(checkpoint, network(), resume=True)
    assert not trace.exists()


def test_tensors_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    save_file(network().state_dict(), checkpoint)
    with pytest.raises(InputError, match="other data or another architecture"):
        run(checkpoint, network(), resume=True)


def test_a_checkpoint_of_another_network_is_refused_even_by_the_same_name(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    run(checkpoint, network(), replace(SETTINGS, epochs=1))
    for other in (vmrnn_b(8, 8, depth=3, embed=16), vmrnn_b(8, 8, depth=2, embed=32)):
        with pytest.raises(InputError, match="another version of this architecture: start anew"):
            run(checkpoint, other, replace(SETTINGS, epochs=1), resume=True)


def test_the_same_seed_gives_the_same_network_to_the_bit(tmp_path: Path) -> None:
    networks = [conditioned() for _ in range(3)]
    for model, seed in zip(networks, (1, 1, 2), strict=True):
        run(tmp_path / "c.safetensors", model, recipe("vmrnn-c", epochs=1, batch_size=4, seed=seed))
    first, second, other = (model.state_dict() for model in networks)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["head.final.weight"], other["head.final.weight"])


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"epoch 1, step \d, whose training windows are \[.*no good state yet"):
        run(tmp_path / "c.safetensors", network(), replace(SETTINGS, learning_rate=1e30))


def test_a_loss_that_is_not_finite_names_the_last_good_state(tmp_path: Path) -> None:
    model, checkpoint = network(), tmp_path / "c.safetensors"

    def spoil(state: _Trained) -> None:
        next(model.parameters()).data.fill_(torch.nan)

    with pytest.raises(JobError, match=f"epoch 2, step 1, .*the last good state is {checkpoint}"):
        run(checkpoint, model, on_epoch=spoil)
    assert run(checkpoint, network(), resume=True).history[-1]["epoch"] == 3


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_too_little_memory_says_what_to_lower(tmp_path: Path, error: Exception) -> None:
    model = network()

    def greedy(*_: object) -> None:
        raise error

    model.register_forward_pre_hook(greedy)
    with pytest.raises(JobError, match="batches of 4 windows: lower --batch-size"):
        run(tmp_path / "c.safetensors", model)


def test_any_other_failure_of_torch_stays_what_it_is(tmp_path: Path) -> None:
    model = network()

    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    model.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tmp_path / "c.safetensors", model)


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    model = conditioned()
    flows = np.random.default_rng(0).integers(0, 50, (20, 2, 8, 8))
    context = {"climatology": flows.astype(np.float32), "calendar": np.zeros((20, 6), np.float32)}
    (training,) = _windows_of(flows, 1.0, context, np.arange(0, 12))
    device, checkpoint = torch.device("cpu"), tmp_path / "c.safetensors"
    trained = _train(model, training, None, 1.0, SETTINGS, device, checkpoint, "data", False, quiet, lambda state: None)
    assert trained.best_epoch == SETTINGS.epochs and "valid_rmse" not in trained.history[-1]
    assert all(torch.equal(value, trained.best[name]) for name, value in model.state_dict().items())


def test_the_average_of_the_weights_is_what_is_kept(tmp_path: Path) -> None:
    models = [conditioned(), conditioned()]
    plain, averaged = (
        run(tmp_path / f"{i}.safetensors", model, replace(SETTINGS, epochs=1, ema=ema))
        for i, (model, ema) in enumerate(zip(models, (0.0, 0.9), strict=True))
    )
    name = "head.final.weight"
    assert torch.equal(models[0].state_dict()[name], models[1].state_dict()[name])  # the weights themselves are equal
    assert torch.equal(plain.best[name], models[0].state_dict()[name])
    assert 0 < averaged.best[name].norm() < plain.best[name].norm()  # from zero the average lags behind


def test_augmentation_moves_frames_and_climatology_alike() -> None:
    frames, climatology = torch.rand(2, 8, 2, 4, 4), torch.rand(2, 8, 2, 4, 4)
    calendar = torch.rand(2, 8, 6)
    context = {"climatology": climatology, "calendar": calendar}
    moved, inputs = _augment(frames, context, 0.5, 0.4, 0.9, 0.0, 0.0)
    assert torch.equal(moved, frames.flip(-1).transpose(-1, -2))
    assert torch.equal(inputs["climatology"], climatology.flip(-1).transpose(-1, -2))
    assert torch.equal(inputs["calendar"], calendar)
    oblong, _ = _augment(frames[..., :3], {}, 0.0, 0.99, 0.99, 0.0, 0.0)
    assert torch.equal(oblong, frames[..., :3].flip(-2))
    shifted, inputs = _augment(frames, context, 0.0, 0.0, 0.0, 0.25, 0.75)
    assert torch.equal(shifted[..., 1, 3], frames[..., 0, 0]) and torch.equal(shifted[..., 0, 0], frames[..., 3, 1])
    assert torch.equal(inputs["climatology"], climatology.roll((1, 3), (-2, -1)))


def test_weight_decay_is_for_matrices_alone() -> None:
    model = network()
    decayed, others = (group["params"] for group in _parameter_groups(model, 0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    assert {id(p) for p in decayed} | {id(p) for p in others} == set(names) and not set(map(id, decayed)) & set(
        map(id, others)
    )
    assert all(model.get_parameter(names[id(p)]).ndim >= 2 for p in decayed)
    spared = {names[id(p)].rpartition(".")[2] for p in others}
    assert {"A_log", "D", "dt_bias", "bias"} <= spared and "scan_proj" not in spared


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [_learning_rate(TrainingSettings(learning_rate=1.0), step, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(1.0) and rates[-1] < 0.01


def test_an_unknown_device_is_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="no device 'tpu'"):
        pick_device("tpu")
