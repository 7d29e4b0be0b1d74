import math

import pytest
import torch

from trafficcast.nn import VMRNN, vmrnn_b
from trafficcast.nn.vmrnn import SS2D, _drop_path, parameter_counts


def small(rows: int = 16, cols: int = 16, **changes: float) -> VMRNN:
    torch.manual_seed(0)
    return vmrnn_b(rows, cols, **{"depth": 2, "embed": 16, "drop_path": 0.0, **changes})  # type: ignore[arg-type]


def test_parameter_counts_of_the_published_network() -> None:
    assert parameter_counts(vmrnn_b()) == {"live": 2_218_114, "published": 2_579_970}


@pytest.mark.parametrize(
    ("rows", "cols", "patch"),
    [(16, 16, 4), (10, 20, 4), (16, 8, 4), (33, 47, 4), (10, 20, 2), (16, 8, 8), (9, 3, 8)],
)
def test_output_has_the_shape_and_range_of_frames(rows: int, cols: int, patch: int) -> None:
    model = small(rows, cols, patch=patch, channels=3)
    with torch.no_grad():
        outputs = model(torch.rand(2, 3, 3, rows, cols), horizon=2)
    assert outputs.shape == (2, 4, 3, rows, cols)
    assert outputs.min() >= 0.0 and outputs.max() <= 1.0


def test_last_outputs_do_not_change_when_the_horizon_grows() -> None:
    model, frames = small(10, 20).eval(), torch.rand(2, 3, 2, 10, 20)
    with torch.no_grad():
        short, long = model(frames, horizon=1), model(frames, horizon=5)
    assert short.shape[1] == 3 and long.shape[1] == 7
    assert torch.equal(short, long[:, :3])


def test_outputs_depend_on_earlier_frames_alone() -> None:
    model, frames = small().eval(), torch.rand(1, 4, 2, 16, 16)
    changed = frames.clone()
    changed[:, 2] = 0.5
    with torch.no_grad():
        a, b = model(frames, 1), model(changed, 1)
    assert torch.equal(a[:, :2], b[:, :2])
    assert not torch.equal(a[:, 2], b[:, 2])
    assert not torch.equal(a[:, 3], b[:, 3])  # the state carries frame 2 on


@pytest.mark.parametrize(("rows", "cols"), [(16, 16), (10, 20), (33, 47)])
def test_a_fed_back_frame_is_treated_like_an_observed_one(rows: int, cols: int) -> None:
    model, frames = small(rows, cols).eval(), torch.rand(1, 2, 2, rows, cols)
    with torch.no_grad():
        forecast = model(frames, horizon=3)
        observed = model(torch.cat((frames, forecast[:, 1:3]), dim=1), horizon=1)
    torch.testing.assert_close(forecast, observed, rtol=0, atol=1e-6)


def test_padding_is_zeros_below_and_to_the_right() -> None:
    cropped, whole = small(10, 13).eval(), small(12, 16).eval()
    whole.load_state_dict(cropped.state_dict())
    frames = torch.rand(1, 3, 2, 10, 13)
    padded = torch.zeros(1, 3, 2, 12, 16)
    padded[..., :10, :13] = frames
    with torch.no_grad():
        torch.testing.assert_close(cropped(frames, 1), whole(padded, 1)[..., :10, :13], rtol=0, atol=1e-6)


def test_scan_reads_four_directions() -> None:
    """Against a scan written out: each direction is an explicit order of tokens."""
    torch.manual_seed(3)
    layer = SS2D(embed=4, d_state=2, d_conv=3, expand=2).double()
    with torch.no_grad():
        layer.A_log.add_(torch.randn_like(layer.A_log))
    B, H, W, inner = 2, 3, 5, 8
    x = torch.randn(B, H, W, inner, dtype=torch.float64)
    row_major = [(i, j) for i in range(H) for j in range(W)]
    column_major = [(i, j) for j in range(W) for i in range(H)]
    expected = torch.zeros_like(x)
    for k, order in enumerate([row_major, column_major, row_major[::-1], column_major[::-1]]):
        state = torch.zeros(B, inner, 2, dtype=torch.float64)
        for i, j in order:
            u = x[:, i, j]  # (B, I)
            dt, b, c = (u @ layer.scan_proj[k].T).split([1, 2, 2], dim=-1)
            delta = torch.nn.functional.softplus(dt @ layer.dt_weight[k].T + layer.dt_bias[k])[..., None]
            state = torch.exp(-delta * layer.A_log[k].exp()) * state + delta * b[:, None] * u[..., None]
            expected[:, i, j] += ((state * c[:, None]).sum(-1) + layer.D[k] * u).detach()
    torch.testing.assert_close(layer._scan(x).detach(), expected)


def test_initial_values() -> None:
    layer = vmrnn_b(depth=1).cell.blocks[0].ss2d
    assert isinstance(layer, SS2D)
    assert layer.dt_weight.shape == (4, 256, 8)
    assert 0.9 * 8**-0.5 < layer.dt_weight.abs().max() <= 8**-0.5
    assert 0.9 * 256**-0.5 < layer.scan_proj.abs().max() <= 256**-0.5
    delta = torch.nn.functional.softplus(layer.dt_bias)
    assert 0.0009 < delta.min() < 0.0015 and 0.08 < delta.max() < 0.101
    assert abs(delta.log().mean().item() - math.log(0.01)) < 0.2  # log-uniform
    assert torch.equal(layer.A_log[3, 17], torch.arange(1.0, 17.0).log())
    assert torch.equal(layer.D, torch.ones(4, 256))
    assert {m.eps for m in vmrnn_b(depth=1).modules() if hasattr(m, "eps")} == {1e-5}


def test_gradient_reaches_every_parameter() -> None:
    model, frames = small(10, 20), torch.rand(2, 4, 2, 10, 20)
    model(frames[:, :2], horizon=2).square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = _drop_path(torch.ones(20_000, 2, 3), 0.25)
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0.0, 4 / 3])
    assert torch.equal(dropped.amin((1, 2)), dropped.amax((1, 2)))
    assert abs(dropped.mean().item() - 1.0) < 0.02


def test_drop_path_acts_in_training_alone_and_anew_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = small(drop_path=0.5), torch.rand(4, 2, 2, 16, 16)
    plain = small(drop_path=0.0)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval()(frames), plain(frames))
        model.train()
        torch.manual_seed(1)
        first, second = model(frames), model(frames)
    assert not torch.equal(first, second)

    draws = []

    def spy(x: torch.Tensor, probability: float) -> torch.Tensor:
        y = _drop_path(x, probability)
        draws.append((probability, tuple((y.flatten(1).abs().sum(1) > 0).tolist())))
        return y

    monkeypatch.setattr("trafficcast.nn.vmrnn._drop_path", spy)
    with torch.no_grad():
        model(frames, horizon=4)
    assert len(draws) == 5 * 2  # steps x blocks
    assert {p for p, _ in draws} == {0.5}
    assert len({mask for _, mask in draws[::2]}) > 1


def test_autocast_runs_and_stays_near_float32() -> None:
    model, frames = small().eval(), torch.rand(1, 2, 2, 16, 16)
    with torch.no_grad():
        expected = model(frames, 1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(frames, 1)
    torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("shape", "horizon", "sentence"),
    [
        ((4, 2, 16, 16), 4, r"was given the shape \(4, 2, 16, 16\)"),
        ((1, 0, 2, 16, 16), 4, "at least one time"),
        ((1, 4, 3, 16, 16), 4, r"was given \(3, 16, 16\)"),
        ((1, 4, 2, 12, 16), 4, r"was given \(2, 12, 16\)"),
        ((1, 4, 2, 16, 20), 4, r"was given \(2, 16, 20\)"),
        ((1, 4, 2, 16, 16), 0, "horizon must be at least 1 slot, but it is 0"),
    ],
)
def test_wrong_frames_are_refused(shape: tuple[int, ...], horizon: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small()(torch.zeros(shape), horizon)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch": 3}, "must be 2, 4 or 8 cells, but it is 3"),
        ({"patch": 16}, "but it is 16"),
        ({"embed": 24}, "multiple of 16, not 24"),
        ({"d_conv": 4}, "odd side d_conv, but it is 4"),
        ({"depth": 0}, "depth is 0"),
        ({"drop_path": 1.0}, "but it is 1.0"),
    ],
)
def test_impossible_networks_are_refused(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small(**changes)
