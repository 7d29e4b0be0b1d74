from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trafficcast.forecasting.model import ARCHITECTURES
from trafficcast.nn import VMRNN, load_published_weights, parameter_counts, vmrnn_d
from trafficcast.nn.published_weights import _published_name
from trafficcast.nn.vmrnn_d import _PatchExpanding, _PatchMerging

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors" / "vmrnn_d_small.npz"
needs_vectors = pytest.mark.skipif(not VECTORS.exists(), reason=f"the published vectors are not at {VECTORS}")


def small(rows: int = 16, cols: int = 16, seed: int = 0, **changes: object) -> VMRNN:
    torch.manual_seed(seed)
    settings = {"channels": 1, "depths": (1, 2), "embed": 16, "drop_path": 0.0, **changes}
    return vmrnn_d(rows, cols, **settings)  # type: ignore[arg-type]


@needs_vectors
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reproduces_the_published_network(dtype: torch.dtype) -> None:
    model = small()
    load_published_weights(model, VECTORS)
    model.to(dtype)
    with np.load(VECTORS, allow_pickle=False) as vectors:
        frames = torch.as_tensor(vectors["frames"]).to(dtype)
        outputs = model(frames[:, :4], horizon=4)
        loss = (outputs - frames[:, 1:]).square().mean()
        loss.backward()
        np.testing.assert_allclose(outputs.detach().numpy(), vectors["outputs"], rtol=0, atol=2e-6)
        np.testing.assert_allclose(loss.item(), vectors["loss"], rtol=1e-6)
        checked = set()
        for name, parameter in model.named_parameters():
            expected = vectors[f"grads/{_published_name(name)}"]
            assert parameter.grad is not None
            difference = np.abs(parameter.grad.numpy().reshape(expected.shape) - expected).max()
            assert difference <= 1e-4 * np.abs(expected).max(), name
            checked.add(f"grads/{_published_name(name)}")
        assert checked == {name for name in vectors.files if name.startswith("grads/")}
        weights = {name: vectors[name].size for name in vectors.files if name.startswith("weights/")}
    assert parameter_counts(model)["published"] == sum(weights.values())


def test_parameter_counts_of_the_published_network() -> None:
    assert parameter_counts(vmrnn_d(channels=1)) == {"live": 13_395_329, "published": 15_267_201}


def test_reads_published_files_with_and_without_what_is_never_used(tmp_path: Path) -> None:
    source = small(seed=1)
    weights = {}
    for name, value in source.state_dict().items():
        joined = name.endswith((".A_log", ".D"))  # (directions * inner, ...)
        weights[_published_name(name)] = (value.flatten(0, 1) if joined else value).clone()
    save_file(weights, tmp_path / "live.safetensors")
    weights["Upsample.patch_embed.proj.weight"] = torch.zeros(16, 1, 2, 2)
    weights["Downsample.layers.1.VSBs.1.linear.weight"] = torch.zeros(32, 64)
    weights["Upsample.layers.1.VSBs.1.linear.bias"] = torch.zeros(32)
    save_file(weights, tmp_path / "all.safetensors")
    for file in ("live.safetensors", "all.safetensors"):
        model = small(seed=2)
        load_published_weights(model, tmp_path / file)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in source.state_dict().items())
    for unknown in ("Upsample.layers.0.VSBs.1.linear.bias", "ST.layer.VSBs.1.linear.bias"):
        with pytest.raises(ValueError, match=unknown.replace(".", r"\.")):
            load_published_weights(model, {**weights, unknown: torch.zeros(64)})


def test_a_parameter_that_no_published_network_has_is_named() -> None:
    names = [name for name, _ in small(patch=4).named_parameters() if ".inner." in name]
    assert len(names) == 4
    for name in names:
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            _published_name(name)


@pytest.mark.parametrize(
    ("rows", "cols", "changes"),
    [
        (16, 16, {}),
        (10, 21, {"channels": 2}),
        (3, 5, {}),
        (33, 47, {"patch": 4}),
        (17, 8, {"depths": [2]}),
        (20, 12, {"depths": (1, 1, 1)}),
    ],
)
def test_output_has_the_shape_and_range_of_frames(rows: int, cols: int, changes: dict[str, object]) -> None:
    model, channels = small(rows, cols, **changes), changes.get("channels", 1)
    with torch.no_grad():
        outputs = model(torch.rand(2, 3, channels, rows, cols), horizon=2)
    assert outputs.shape == (2, 4, channels, rows, cols)
    assert outputs.min() >= 0.0 and outputs.max() <= 1.0


def test_padding_is_zeros_below_and_to_the_right() -> None:
    cropped, whole = small(10, 13).eval(), small(16, 16).eval()
    frames = torch.rand(1, 3, 1, 10, 13)
    padded = torch.zeros(1, 3, 1, 16, 16)
    padded[..., :10, :13] = frames
    with torch.no_grad():
        torch.testing.assert_close(cropped(frames, 1), whole(padded, 1)[..., :10, :13], rtol=0, atol=1e-6)


def test_merging_reads_four_neighbours_column_by_column() -> None:
    merging, x = _PatchMerging(3), torch.randn(2, 4, 6, 3)
    with torch.no_grad():
        merged = merging(x)
        assert merged.shape == (2, 2, 3, 6)
        for i in range(2):
            for j in range(3):
                places = [(0, 0), (1, 0), (0, 1), (1, 1)]  # row, column
                four = torch.cat([x[:, 2 * i + row, 2 * j + column] for row, column in places], dim=-1)
                torch.testing.assert_close(merged[:, i, j], merging.reduction(merging.norm(four)))


def test_expanding_reads_channels_as_row_column_channel() -> None:
    expanding, x = _PatchExpanding(6), torch.randn(2, 2, 3, 6)
    with torch.no_grad():
        expanded = expanding(x)
        assert expanded.shape == (2, 4, 6, 3)
        for i in range(4):
            for j in range(6):
                first = 3 * (2 * (i % 2) + j % 2)
                channels = expanding.expand(x[:, i // 2, j // 2])[:, first : first + 3]
                torch.testing.assert_close(expanded[:, i, j], expanding.norm(channels))


def test_every_cell_keeps_its_own_state() -> None:
    model, frames = small().eval(), torch.rand(2, 3, 1, 16, 16)
    state, outputs = None, []
    with torch.no_grad():
        for t in range(3):
            output, state = model._step(frames[:, t], state)
            outputs.append(output)
        assert torch.equal(torch.stack(outputs, dim=1), model(frames, horizon=1))
        shapes = [(2, 8, 8, 16), (2, 4, 4, 32), (2, 2, 2, 64), (2, 4, 4, 32)]
        assert [(hidden.shape, cell.shape) for hidden, cell in state] == [(shape, shape) for shape in shapes]
        for i in range(4):
            forgotten = [(torch.zeros_like(h), c) if i == j else (h, c) for j, (h, c) in enumerate(state)]
            assert not torch.equal(model._step(frames[:, 0], forgotten)[0], model._step(frames[:, 0], state)[0])


def test_drop_path_rises_on_the_way_down_and_is_the_same_on_the_way_up() -> None:
    model = vmrnn_d(16, 16, embed=16)
    rates = [round(0.1 * i / 7, 6) for i in range(8)]
    found = [[round(block.drop_path, 6) for block in level.cell.blocks] for level in (*model.down, *model.up)]
    assert found == [rates[:2], rates[2:], rates[6:], rates[:6]]


def test_gradient_reaches_every_parameter() -> None:
    model = small(10, 20)
    model(torch.rand(2, 2, 1, 10, 20), horizon=2).square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"depths": ()}, "depth of at least 1, but depth is 0"),
        ({"depths": (2, 0)}, "depth of at least 1, but depth is 0"),
        ({"patch": 3}, "must be 2, 4 or 8 cells, but it is 3"),
        ({"d_conv": 2}, "odd side d_conv, but it is 2"),
    ],
)
def test_impossible_networks_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small(**changes)


CITY = """
[cities.cells-{side}]
west = 9.10
east = 9.26
south = 45.42
north = 45.52
rows = {side}
cols = {side}
slot_minutes = 60
timezone = "Europe/Rome"
"""


def test_trains_and_forecasts_on_coarse_and_fine_grids_of_one_city(
    config: Path, trafficcast: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = (32, 64, 128)
    config.write_text("".join(CITY.format(side=side) for side in sides))
    monkeypatch.setitem(ARCHITECTURES, "vmrnn-d", partial(vmrnn_d, depths=(1, 1), embed=16))
    gps = config.parent / "gps"
    assert trafficcast("simulate", "--city", "cells-32", "--vehicles", 20, "--days", 1, "--out", gps).code == 0
    ends = {"train": "14:00", "valid": "18:00", "test": "22:00"}  # two windows, one and one, after a thin night
    split = [f"--{name}-end=2024-04-08T{hour}" for name, hour in ends.items()]
    for side in sides:
        city = ["--city", f"cells-{side}"]
        assert trafficcast("ingest", gps, *city).code == 0
        training = ["--model", "vmrnn-d", "--epochs", 1, "--device", "cpu", *split]
        card = trafficcast("train", *training, *city, "--json").json
        assert card["version"] == "vmrnn-d-1"
        assert (card["grid"]["rows"], card["grid"]["cols"]) == (side, side)
        assert card["parameters"]["published"] > card["parameters"]["live"]
        assert 0 < card["metrics"]["test"]["vmrnn-d-1"]["rmse"] < card["scale"]
        made = trafficcast("forecast", *city, "--device", "cpu", "--json").json
        assert made["model"] == "vmrnn-d-1"
        assert all(0 < slot["highest_cell"] <= card["scale"] for slot in made["slots"])
