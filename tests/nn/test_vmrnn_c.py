"""VMRNN-C: starts as anomaly persistence, knows no ceiling, and sees nothing of its target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trafficcast.nn import parameter_counts, vmrnn_c
from trafficcast.nn.vmrnn_c import VMRNNC

ROWS, COLS, FEATURES = 8, 10, 3


def network(**changes: int) -> VMRNNC:
    torch.manual_seed(0)
    return vmrnn_c(ROWS, COLS, features=FEATURES, depth=2, embed=16, **changes).eval()


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    climatology = 20 * torch.rand(batch, 8, 2, ROWS, COLS, generator=g)
    frames = climatology[:, :4] * 1.5 + torch.rand(batch, 4, 2, ROWS, COLS, generator=g)
    return frames, climatology, torch.rand(batch, 8, FEATURES, generator=g)


def trained(model: VMRNNC) -> VMRNNC:
    """Some network, no longer at its start, in a city that has patterns."""
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        model.start.patterns.normal_(generator=g)
        model.start.shares.normal_(generator=g)
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))
    return model


def test_untrained_it_is_anomaly_persistence() -> None:
    frames, climatology, calendar = inputs()
    activity = (frames.sum((1, 2, 3, 4)) / climatology[:, :4].sum((1, 2, 3, 4)))[:, None, None, None, None]
    anomaly = (frames - activity * climatology[:, :4]).mean(1, keepdim=True)
    expected = activity * climatology[:, 4:] + 0.4 * anomaly
    torch.testing.assert_close(network()(frames, climatology, calendar), expected)


def test_a_peak_above_anything_seen_can_be_forecast() -> None:
    frames, climatology, calendar = inputs()
    forecast = network()(100 * frames, climatology, calendar)
    assert forecast.max() > 10 * frames.max()


def test_samples_do_not_touch_each_other() -> None:
    frames, climatology, calendar = inputs()
    model = trained(network())
    together = model(frames, climatology, calendar)
    alone = torch.cat([model(*(x[[i]] for x in (frames, climatology, calendar))) for i in (0, 1)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_shorter_horizon_is_the_beginning_of_a_longer_one(horizon: int) -> None:
    frames, climatology, calendar = inputs()
    model = trained(network())
    expected = model(frames, climatology, calendar)[:, :horizon]
    slots = 4 + horizon
    torch.testing.assert_close(model(frames, climatology[:, :slots], calendar[:, :slots], horizon=horizon), expected)


def test_every_input_matters() -> None:
    given = inputs(1)
    model = trained(network())
    expected = model(*given)
    for i in range(3):
        changed = [x.clone() for x in given]
        changed[i][0, 2] += 1.0
        assert not torch.allclose(model(*changed), expected)


def test_every_parameter_learns_and_a_city_without_traffic_does_not_break_it() -> None:
    model = trained(network()).train()
    frames, climatology, calendar = inputs()
    climatology[0] = 0
    frames[0] = 0
    loss = model(frames, climatology, calendar).square().mean()
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_rows_and_columns_that_no_patch_divides() -> None:
    model = trained(vmrnn_c(7, 9, features=FEATURES, depth=1, embed=16).eval())
    frames, climatology, calendar = inputs()
    assert model(frames[..., :7, :9], climatology[..., :7, :9], calendar).shape == (2, 4, 2, 7, 9)


def test_inputs_that_do_not_fit_are_refused() -> None:
    frames, climatology, calendar = inputs()
    with pytest.raises(ValueError, match="the climatology and the calendar of all 8 slots"):
        network()(frames, climatology[:, :7], calendar)
    with pytest.raises(ValueError, match="built for frames of"):
        network()(frames[..., :4], climatology[..., :4], calendar)
    with pytest.raises(ValueError, match="horizon must be 1 to 4"):
        network()(frames, climatology, calendar, horizon=5)
    with pytest.raises(ValueError, match="patterns must be 0 or more, but it is -1"):
        network(patterns=-1)


def test_without_patterns_it_knows_none() -> None:
    frames, climatology, calendar = inputs()
    model = trained(network(patterns=0))
    assert model(frames, climatology, calendar).shape == (2, 4, 2, ROWS, COLS)
    assert model.start.patterns.numel() == model.start.shares.numel() == 0


def test_the_full_size() -> None:
    counts = parameter_counts(vmrnn_c())
    assert counts["live"] == counts["published"] == sum(p.numel() for p in vmrnn_c().parameters())
    assert 2_000_000 < counts["live"] < 2_600_000
