"""Experiments as data: every variant can be built and changes what it says; tables and pictures of results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from trafficcast.errors import InputError
from trafficcast.forecasting.model import build
from trafficcast.nn import parameter_counts, vmrnn_b
from trafficcast.nn.vmrnn import CONVOLUTIONS, SS2D
from trafficcast.training.experiments import (
    _EXPERIMENTS,
    _PAPER_TRAINING,
    _RESULTS,
    _SCORES,
    _find_experiment,
    _picture,
    _read_table,
    _results_text,
    _Variant,
    _write_table,
)
from trafficcast.training.loop import _forecast_loss, _learning_rate
from trafficcast.training.settings import _RECIPES

GRID = {"rows": 16, "cols": 16, "channels": 2}


def row(variant: str, seed: int, rmse: float, **changed: Any) -> dict[str, Any]:
    told = {
        "variant": variant,
        "seed": seed,
        "epochs": 5,
        "best_epoch": 2,
        "parameters": 1234,
        "seconds_per_epoch": 1.5,
    }
    return told | {"fingerprint": "1234567890123456"} | dict.fromkeys(_SCORES, 1.0) | {"rmse": rmse} | changed


@pytest.mark.parametrize(
    ("name", "variant"), [(name, variant) for name, found in _EXPERIMENTS.items() for variant in found.variants]
)
def test_every_variant_can_be_built_beside_its_reference(name: str, variant: str) -> None:
    found = _EXPERIMENTS[name]
    assert found.reference is None or found.reference in found.variants
    network = build(GRID | found.variants[variant].network)
    assert parameter_counts(network)["live"] > 300_000


def test_the_papers_ablations_change_one_thing_of_the_published_network() -> None:
    named = {"blocks": "depth", "patch": "patch", "convolution": "conv"}
    found = {}
    for name, key in named.items():
        variants = _EXPERIMENTS[name].variants.values()
        assert all(
            set(variant.network) == {"name", key} and variant.network["name"] == "vmrnn-b" for variant in variants
        )
        found[name] = [variant.network[key] for variant in variants]
    assert found == {"blocks": [2, 6, 12, 18], "patch": [2, 4, 8], "convolution": ["depthwise", "plain", "dilated"]}
    published = parameter_counts(vmrnn_b())["live"]
    for name in named:
        reference = _EXPERIMENTS[name].variants[_EXPERIMENTS[name].reference or ""]
        assert parameter_counts(build({"rows": 32, "cols": 32} | reference.network))["live"] == published == 2_218_114


def test_every_choice_is_left_out_alone() -> None:
    variants = dict(_EXPERIMENTS["choices"].variants)

    def flat(variant: _Variant) -> dict[str, Any]:
        told = asdict(variant)
        return told.pop("settings") | {"depth": 12} | told.pop("network") | told

    reference = flat(variants.pop("vmrnn-c"))
    alone = flat(variants.pop("start-alone"))
    assert {key for key in alone if alone[key] != reference[key]} == {"epochs", "learning_rate", "final_rate"}
    assert alone["learning_rate"] == alone["final_rate"] == 0
    left_out = set()
    for variant in variants.values():
        changed = {key for key, value in flat(variant).items() if value != reference[key]}
        assert len(changed) == 1
        left_out |= changed
    assert left_out == {"patterns", "calendar", "own_day", "weight_decay", "ema", "clip", "views", "loss", "depth"}


def test_taxibj_is_trained_as_published() -> None:
    settings = _PAPER_TRAINING
    assert (settings.epochs, settings.batch_size, settings.seed, settings.weight_decay) == (200, 16, 42, 0.0)
    assert (settings.ema, settings.clip, settings.views) == (0.0, 0.0, False)
    rates = [_learning_rate(settings, step, 200 * 10) for step in range(200 * 10)]
    by_epoch = rates[::10]
    assert rates == [rate for rate in by_epoch for _ in range(10)]
    warmup = [1e-5, 8.8e-5, 1.66e-4, 2.44e-4, 3.22e-4]
    assert by_epoch[:5] == pytest.approx(warmup)
    assert by_epoch[5] == pytest.approx(1e-6 + 3.99e-4 * 0.998459, rel=1e-6)  # (1 + cos(pi 5 / 200)) / 2
    assert by_epoch[100] == pytest.approx((4e-4 + 1e-6) / 2) and by_epoch[-1] < 1.1e-6
    assert {variant.chosen_by for variant in _EXPERIMENTS["taxibj"].variants.values()} == {"test", "validation"}


def test_the_published_figures_of_vmrnn() -> None:
    assert _EXPERIMENTS["taxibj"].papers["VMRNN (arXiv 2403.16536)"] == {
        "mse": 0.2887,
        "mae_sum": 14.69,
        "ssim_openstl": 0.9858,
    }


def test_the_convolutions_look_where_they_say() -> None:
    reached = {}
    for kind in CONVOLUTIONS:
        layer = SS2D(embed=16, d_state=2, d_conv=3, expand=2, conv=kind).conv
        torch.nn.init.ones_(layer.weight)
        spot = torch.zeros(1, 32, 9, 9)
        spot[0, 3, 4, 4] = 1.0
        seen = layer(spot) - layer(torch.zeros_like(spot))
        assert seen.shape == spot.shape
        _, channels, rows, cols = seen.detach().abs().gt(0.5).nonzero().T.tolist()
        reached[kind] = set(rows), set(cols), len(set(channels))
    assert reached == {
        "depthwise": ({3, 4, 5}, {3, 4, 5}, 1),
        "plain": ({3, 4, 5}, {3, 4, 5}, 32),
        "dilated": ({2, 4, 6}, {2, 4, 6}, 1),
    }
    with pytest.raises(ValueError, match="depthwise or plain or dilated, not 'round'"):
        vmrnn_b(8, 8, depth=1, embed=16, conv="round")


def test_a_squared_loss_weighs_all_cells_alike() -> None:
    def network(history: torch.Tensor, horizon: int, **_: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(history), horizon, 2, 2, 2)

    frames, climatology = torch.ones(1, 8, 2, 2, 2), torch.zeros(1, 8, 2, 2, 2)
    busy = climatology.clone()
    busy[..., 0, 0] = 99.0
    contexts = {"quiet": {"climatology": climatology}, "busy": {"climatology": busy}}
    losses = {
        (loss, name): float(_forecast_loss(network, frames, context, loss))  # type: ignore[arg-type]
        for loss in ("counts", "squared")
        for name, context in contexts.items()
    }
    assert losses["counts", "quiet"] > losses["counts", "busy"]
    assert losses["squared", "quiet"] == losses["squared", "busy"] == pytest.approx(1 / 12)
    assert _RECIPES["vmrnn-c"].loss == "counts"


def test_unknown_experiments_and_variants_are_refused() -> None:
    with pytest.raises(InputError, match="unknown experiment 'depth'; known are: blocks, patch"):
        _find_experiment("depth")
    with pytest.raises(InputError, match="blocks has no variant '3-blocks'; it has: 2-blocks, 6-blocks"):
        _find_experiment("blocks", ("3-blocks",))
    assert _find_experiment("blocks", ("18-blocks", "2-blocks"))[1] == ["2-blocks", "18-blocks"]


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    assert _read_table(file, _RESULTS) == []
    rows = [row("depthwise", 42, 0.1 + 0.2), row("plain", 43, 1 / 3)]
    _write_table(file, rows)
    assert _read_table(file, _RESULTS) == rows


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", '"', ",".join(_RESULTS) + "\nplain\n", ",".join(_RESULTS) + "\nplain,42.5\n"]
)
def test_a_damaged_table_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=r"results\.csv.*move it away"):
        _read_table(file, _RESULTS)


def test_the_table_has_mean_spread_and_the_difference_seed_by_seed() -> None:
    rows = [
        row("plain", 42, 3.5, best_epoch=4, seconds_per_epoch=float("nan")),
        row("depthwise", 42, 2.0),
        row("depthwise", 43, 4.0),
        row("plain", 43, 5.7, best_epoch=3, seconds_per_epoch=float("nan")),
        row("dilated", 44, 9.0),
    ]
    text = _results_text("convolution", rows, 20, "trafficcast experiment convolution")
    lines = text.splitlines()
    assert "`trafficcast experiment convolution`" in lines
    header = next(line for line in lines if line.startswith("| variant"))
    assert header.endswith("| RMSE | +0 min | +20 min | +40 min | +60 min | RMSE less depthwise's |")
    leads = " 1.000 ± 0.000 |" * 4
    assert f"| depthwise | 1,234 | 2 | 2, 2 of 5 | 1.5 ± 0.0 | 3.000 ± 1.414 |{leads} - |" in lines
    assert f"| plain | 1,234 | 2 | 4, 3 of 5 | - | 4.600 ± 1.556 |{leads} +1.600 ± 0.141 |" in lines
    assert "| dilated | 1,234 | 1 | 2 of 5 | 1.5 | 9.000 | 1.000 | 1.000 | 1.000 | 1.000 | - |" in lines
    assert lines.index(next(line for line in lines if line.startswith("| depthwise"))) < lines.index(
        next(line for line in lines if line.startswith("| plain"))
    )


def test_the_table_of_taxibj_stands_beside_what_is_published() -> None:
    text = _results_text("taxibj", [row("chosen-by-test", 42, 9.0, mse=0.3, mae_sum=15, ssim_openstl=0.98)], 30, "c")
    assert "| chosen-by-test | 1,234 | 1 | 2 of 5 | 1.5 | 0.3000 | 15.00 | 0.9800 | 1.00 | 9.00 |" in text
    assert "| VMRNN (arXiv 2403.16536), published |  |  |  |  | 0.2887 | 14.69 | 0.9858 |  |  |" in text


@pytest.mark.parametrize("name", _EXPERIMENTS)
def test_a_picture_is_drawn(tmp_path: Path, name: str) -> None:
    variants = list(_EXPERIMENTS[name].variants)
    _picture(tmp_path / "one.png", name, [row(variants[0], 42, 3.0)])
    _picture(tmp_path / "all.png", name, [row(variant, seed, 3.0 + seed) for variant in variants for seed in (1, 2)])
    one, whole = (tmp_path / "one.png").read_bytes(), (tmp_path / "all.png").read_bytes()
    assert one[:8] == whole[:8] == b"\x89PNG\r\n\x1a\n" and one != whole
