from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trafficcast.nn import VMRNN, load_published_weights, vmrnn_b
from trafficcast.nn.published_weights import _published_name

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors" / "vmrnn_b_small.npz"
needs_vectors = pytest.mark.skipif(not VECTORS.exists(), reason=f"the published vectors are not at {VECTORS}")


def small(seed: int = 0) -> VMRNN:
    torch.manual_seed(seed)
    return vmrnn_b(8, 8, depth=2, embed=16, drop_path=0.0)


def published_weights(model: VMRNN) -> dict[str, torch.Tensor]:
    """The model's weights as a published file holds them: its names, its shapes, its unused projection."""
    weights = {}
    for name, value in model.state_dict().items():
        joined = name.endswith((".A_log", ".D"))  # (directions * inner, ...)
        weights[_published_name(name)] = (value.flatten(0, 1) if joined else value).clone()
    weights["ST.layer.VSBs.1.linear.weight"] = torch.zeros(16, 32)
    weights["ST.layer.VSBs.1.linear.bias"] = torch.zeros(16)
    return weights


def same(a: VMRNN, b: VMRNN) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.state_dict().items())


@needs_vectors
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reproduces_the_published_network(dtype: torch.dtype) -> None:
    model = vmrnn_b(16, 16, depth=2, embed=16, drop_path=0.0)
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
            # A bias before a normalisation of its own channel has no gradient, only rounding noise.
            largest = max(np.abs(expected).max(), 1e-7)
            difference = np.abs(parameter.grad.numpy().reshape(expected.shape) - expected).max()
            tolerance = 1e-4 * largest if largest > 1e-7 else 1e-8
            assert difference <= tolerance, f"{name}: {difference} of {largest}"
            checked.add(f"grads/{_published_name(name)}")
        assert checked == {name for name in vectors.files if name.startswith("grads/")}


def test_reads_a_mapping_a_safetensors_file_and_npz_files(tmp_path: Path) -> None:
    source = small(1)
    weights = published_weights(source)
    arrays = {name: value.numpy() for name, value in weights.items()}
    save_file(weights, tmp_path / "weights.safetensors")
    np.savez(tmp_path / "bare.npz", **arrays)
    prefixed = {f"weights/{name}": value for name, value in arrays.items()}
    np.savez(tmp_path / "prefixed.npz", frames=np.zeros(3), **prefixed)
    files = [tmp_path / name for name in ("weights.safetensors", "bare.npz", "prefixed.npz")]
    for given in [weights, arrays, *files, str(files[0])]:
        model = small(2)
        assert not same(model, source)
        load_published_weights(model, given)
        assert same(model, source)


def test_unused_projections_may_be_missing() -> None:
    source, model = small(1), small(2)
    weights = {n: w for n, w in published_weights(source).items() if "VSBs.1.linear" not in n}
    load_published_weights(model, weights)
    assert same(model, source)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ST.layer.VSBs.1.self_attention.out_proj.weight": None}, "out_proj.weight"),
        ({"ST.layer.VSBs.0.linear.bias": None}, r"ST\.layer\.VSBs\.0\.linear\.bias"),
        ({"ST.layer.VSBs.1.self_attention.A_logs": np.zeros((128, 8))}, r"A_logs .*\(128, 8\).*\(128, 16\)"),
        ({"ST.layer.VSBs.1.self_attention.Ds": np.zeros((4, 32))}, r"Ds .*\(4, 32\).*\(128,\)"),
        ({"ST.layer.VSBs.2.linear.weight": np.zeros((16, 32))}, r"VSBs\.2\.linear\.weight"),
        ({"ST.layer.VSBs.1.linear.scale": np.zeros(16)}, r"VSBs\.1\.linear\.scale"),
        ({"epoch": np.zeros(())}, "epoch"),
    ],
)
def test_a_missing_unexpected_or_misshaped_parameter_is_named_and_nothing_is_copied(
    changes: dict[str, Any], named: str
) -> None:
    weights = {**published_weights(small(1)), **changes}
    weights = {name: value for name, value in weights.items() if value is not None}
    model = small(2)
    with pytest.raises(ValueError, match=named):
        load_published_weights(model, weights)
    assert same(model, small(2))


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth"])
def test_pickles_are_refused(name: str, tmp_path: Path) -> None:
    torch.save(published_weights(small(1)), tmp_path / name)
    with pytest.raises(ValueError, match="convert it to .safetensors"):
        load_published_weights(small(2), tmp_path / name)


def test_other_files_and_pickled_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights.csv"):
        load_published_weights(small(), tmp_path / "weights.csv")
    np.savez(tmp_path / "objects.npz", **{"ST.patch_embed.proj.bias": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="pickle"):
        load_published_weights(small(), tmp_path / "objects.npz")
