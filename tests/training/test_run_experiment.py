"""Experiments: every training once, on validation alone, resumed where it stopped; TaxiBJ's protocol end to end."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cities import stores_in
from trafficcast.config.settings import load_config
from trafficcast.forecasting.climatology import WeekdayClimatology, calendar_features, climatology_of_other_days
from trafficcast.forecasting.model import ARCHITECTURES
from trafficcast.nn import vmrnn_b, vmrnn_c
from trafficcast.stores.flows import flows_dataset, read_flows
from trafficcast.training import run_experiment as pipeline
from trafficcast.training.dataset import _Windows
from trafficcast.training.experiments import _EXPERIMENTS, _Experiment, _Variant
from trafficcast.training.settings import _RECIPES, TrainingSettings

ENDS = ("--train-end", "2024-04-12", "--valid-end", "2024-04-13")
SETTINGS = TrainingSettings(epochs=2, batch_size=32, learning_rate=3e-3)
C = _Variant({"name": "vmrnn-c"}, replace(SETTINGS, loss="counts", ema=0.5, views=True))
SMALL = {
    "vmrnn-c": C,
    "no-calendar": replace(C, calendar=False),
    "own-day": replace(C, own_day=True),
    "vmrnn-b": _Variant({"name": "vmrnn-b"}, SETTINGS),
}
CITY = '[cities.small]\nwest = 0\neast = 1\nsouth = 0\nnorth = 1\nrows = 8\ncols = 8\ntimezone = "Asia/Shanghai"\n'


def write_flows(config: Path, since: str = "2024-04-08", salt: int = 0) -> None:
    """Six days of a daily wave and noise, from 8 April; those of `since` and later are others with other `salt`."""
    city = load_config(config).city("small")
    time = np.datetime64("2024-04-07T22:00", "us") + city.slot * np.arange(6 * 24)
    wave = 5 + 4 * np.sin(np.arange(len(time)) * 2 * np.pi / 24)
    shape = (len(time), 2, city.rows, city.cols)
    flow = np.random.default_rng(0).poisson(wave[:, None, None, None], shape)
    flow[time >= city.midnight(np.datetime64(since))] += salt
    stores_in(config.parent / "data", city).flows.write(
        flows_dataset(city, time, flow.astype(np.int32), np.full(len(time), 9), np.ones(len(time)))
    )


@pytest.fixture
def small(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six days of flows, and an experiment `choices` whose networks have one narrow block; its folder of results."""
    write_flows(config)
    for name, make in (("vmrnn-b", vmrnn_b), ("vmrnn-c", vmrnn_c)):
        monkeypatch.setitem(ARCHITECTURES, name, partial(make, depth=1, embed=16, d_state=2))
    monkeypatch.setitem(_EXPERIMENTS, "choices", _Experiment("Small", SMALL, "vmrnn-c"))
    return config.parent / "data" / "small" / "experiments" / "choices"


@pytest.fixture
def windows_of_trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[_Windows, _Windows]]:
    """The training and validation windows that each training was given."""
    given: list[tuple[_Windows, _Windows]] = []
    train = pipeline._train

    def recorded(network: Any, training: _Windows, validation: _Windows, *more: Any) -> Any:
        given.append((training, validation))
        return train(network, training, validation, *more)

    monkeypatch.setattr(pipeline, "_train", recorded)
    return given


def table(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def without_times(file: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds_per_epoch"} for row in table(file)]


def test_every_variant_and_seed_is_a_row_scored_at_its_best_epoch_on_validation(
    trafficcast: Callable[..., Any], small: Path
) -> None:
    ran = trafficcast("experiment", "choices", "--seeds", 2, "--device", "cpu", *ENDS)
    assert ran.code == 0, ran.err
    rows, epochs = table(small / "results.csv"), table(small / "epochs.csv")
    assert [(row["variant"], row["seed"]) for row in rows] == [(key, seed) for seed in ("42", "43") for key in SMALL]
    for row in rows:
        curve = [
            float(epoch["valid_rmse"])
            for epoch in epochs
            if (epoch["variant"], epoch["seed"]) == (row["variant"], row["seed"])
        ]
        assert len(curve) == 2 and row["epochs"] == "2"
        assert curve.index(min(curve)) + 1 == int(row["best_epoch"])
        assert float(row["rmse"]) == pytest.approx(min(curve), rel=1e-5)
        leads = [float(row[f"rmse_lead_{lead}"]) for lead in range(1, 5)]
        assert np.sqrt(np.mean(np.square(leads))) == pytest.approx(float(row["rmse"]), rel=1e-6)
        assert float(row["seconds_per_epoch"]) > 0 and int(row["parameters"]) > 1000
    assert len({row["rmse"] for row in rows}) == len(rows)
    text = (small / "results.md").read_text()
    assert ran.out == text + "\n" and "`trafficcast experiment choices --seeds 2 --device cpu" in text
    assert (small / "results.png").stat().st_size > 1000
    assert not list(small.glob("*.safetensors"))


def test_its_training_is_that_of_the_train_command(
    trafficcast: Callable[..., Any], small: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vmrnn-c", "vmrnn-b"):
        plan = _Experiment("", {name: _Variant({"name": name}, _RECIPES[name])})
        monkeypatch.setitem(_EXPERIMENTS, "choices", plan)
        out = config.parent / name
        words = ("--epochs", 1, "--device", "cpu", *ENDS)
        ran = trafficcast("experiment", "choices", "--seeds", 1, "--out", out, "--json", *words)
        (row,) = ran.json["results"]
        card = trafficcast("train", "--model", name, "--json", *words).json
        (epoch,) = table(config.parent / "models" / "small" / card["version"] / "curve.csv")
        assert row["rmse"] == pytest.approx(float(epoch["valid_rmse"]), rel=1e-5)


def test_the_inputs_of_a_variant(
    trafficcast: Callable[..., Any], small: Path, config: Path, windows_of_trainings: list[tuple[_Windows, _Windows]]
) -> None:
    assert trafficcast("experiment", "choices", "--seeds", 1, "--epochs", 1, "--device", "cpu", *ENDS).code == 0
    city = load_config(config).city("small")
    flows = read_flows(
        stores_in(config.parent / "data", city),
        None,
        city.midnight(np.datetime64("2024-04-13")),
    )
    fitted, times = flows.isel(time=slice(96)), flows["time"].values
    of_all = WeekdayClimatology.fit(city, fitted).at(times)
    (usual, validation), (no_calendar, _), (own_day, _), (published, _) = windows_of_trainings
    assert validation.context is usual.context or validation.context == usual.context
    assert (usual.context["climatology"].numpy()[:96] == climatology_of_other_days(city, fitted)).all()
    assert (usual.context["climatology"].numpy()[96:] == of_all[96:]).all()
    assert (usual.context["calendar"].numpy() == calendar_features(city, times)).all()
    assert not no_calendar.context["calendar"].any()
    assert torch.equal(no_calendar.context["climatology"], usual.context["climatology"])
    assert (own_day.context["climatology"].numpy() == of_all).all()
    assert torch.equal(own_day.context["calendar"], usual.context["calendar"])
    assert published.context == {} and float(published.frames[:96].max()) == 1.0
    # 96 slots of training hold 89 windows; those of validation have their targets in its 24 slots.
    assert usual.starts.tolist() == list(range(89)) and validation.starts.tolist() == list(range(92, 113))
    assert len(usual.frames) == 120  # and nothing of the test day


def test_the_test_split_is_not_read(trafficcast: Callable[..., Any], small: Path, config: Path) -> None:
    words = ("experiment", "choices", "--variant", "vmrnn-b", "--seeds", 1, "--epochs", 1, "--device", "cpu", *ENDS)
    assert trafficcast(*words).code == 0
    kept = (small / "results.csv").read_bytes()
    write_flows(config, "2024-04-13", 5)
    again = trafficcast(*words)
    assert again.code == 0 and "training 1 of" not in again.err
    assert trafficcast(*words, "--out", config.parent / "fresh").code == 0
    assert without_times(config.parent / "fresh" / "results.csv") == without_times(small / "results.csv")
    for changed in ("2024-04-12", "2024-04-11"):
        write_flows(config, changed, 5)
        refused = trafficcast(*words)
        assert refused.code == 2 and "results of other flows" in refused.err and "give another --out" in refused.err
    assert (small / "results.csv").read_bytes() == kept


def test_other_epochs_batches_and_ends_are_refused(trafficcast: Callable[..., Any], small: Path) -> None:
    words = ("experiment", "choices", "--variant", "vmrnn-b", "--seeds", 1, "--device", "cpu")
    assert trafficcast(*words, "--epochs", 1, *ENDS).code == 0
    later = ("--train-end", "2024-04-11", "--valid-end", "2024-04-13")
    for other in (
        ("--epochs", 2, *ENDS),
        ("--epochs", 1, "--batch-size", 16, *ENDS),
        ("--epochs", 1, *later),
        ("--epochs", 1, "--variant", "vmrnn-c", *later),
    ):
        refused = trafficcast(*words, *other)
        assert refused.code == 2 and "(vmrnn-b, seed 42): give another --out" in refused.err


def test_an_interrupted_experiment_goes_on_and_ends_as_if_it_had_not(
    trafficcast: Callable[..., Any], small: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("experiment", "choices", "--variant", "vmrnn-c", "--variant", "vmrnn-b", "--device", "cpu", *ENDS)
    assert trafficcast(*words, "--seeds", 2, "--out", config.parent / "whole").code == 0

    epochs = 0

    def pull_the_plug(items: Iterable[int], description: str, total: int) -> Iterator[int]:
        nonlocal epochs
        epochs += 1
        for item in items:
            if epochs == 4 and item == 2:  # of the second training the second epoch
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "track", pull_the_plug)
        assert trafficcast(*words, "--seeds", 1).code == 130
    assert [row["variant"] for row in table(small / "results.csv")] == ["vmrnn-c"]
    assert len(list(small.glob("vmrnn-b-42-*.safetensors"))) == 1

    began: list[str] = []

    def noted(items: Iterable[int], description: str, total: int) -> Iterable[int]:
        began.append(description)
        return items

    monkeypatch.setattr(pipeline, "track", noted)
    assert trafficcast(*words, "--seeds", 2).code == 0
    assert began == ["epoch 2 of 2", *["epoch 1 of 2", "epoch 2 of 2"] * 2]
    assert without_times(small / "results.csv") == without_times(config.parent / "whole" / "results.csv")
    assert table(small / "epochs.csv") == table(config.parent / "whole" / "epochs.csv")
    assert not list(small.glob("*.safetensors"))


def test_what_is_unknown_is_refused(trafficcast: Callable[..., Any], small: Path) -> None:
    refused = trafficcast("experiment", "sizes")
    assert refused.code == 2 and "unknown experiment 'sizes'" in refused.err
    refused = trafficcast("experiment", "choices", "--variant", "no-blocks")
    assert refused.code == 2 and "no variant 'no-blocks'" in refused.err
    refused = trafficcast("experiment", "choices", "--train-end", "2024-04-12")
    assert refused.code == 2 and "--train-end and --valid-end together" in refused.err
    assert not small.exists()


@pytest.fixture
def windows(config: Path, monkeypatch: pytest.MonkeyPatch, trafficcast: Callable[..., Any]) -> dict[str, np.ndarray]:
    """OpenSTL's file, with 60 training and 20 test windows of 8 x 8 cells, imported; the experiment made small."""
    config.write_text(CITY)
    frames = np.random.default_rng(0).random((87, 2, 8, 8), np.float32)
    spans = np.stack([frames[i : i + 8] for i in range(80)])
    spans = {"train": spans[:60], "test": spans[60:]}
    arrays = {f"{key}_{split}": part for split, s in spans.items() for key, part in (("X", s[:, :4]), ("Y", s[:, 4:]))}
    np.savez(config.parent / "dataset.npz", **{key: part * 2 - 1 for key, part in arrays.items()})
    assert trafficcast("import-taxibj", config.parent / "dataset.npz").code == 0
    network = {"name": "vmrnn-b", "depth": 1, "embed": 16}
    plan = _EXPERIMENTS["taxibj"]
    small = {key: replace(variant, network=network) for key, variant in plan.variants.items()}
    monkeypatch.setitem(_EXPERIMENTS, "taxibj", replace(plan, variants=small))
    return spans


def test_taxibj_chosen_by_test_as_published_and_by_validation(
    trafficcast: Callable[..., Any],
    windows: dict[str, np.ndarray],
    windows_of_trainings: list[tuple[_Windows, _Windows]],
    config: Path,
) -> None:
    ran = trafficcast("experiment", "taxibj", "--epochs", 2, "--seeds", 1, "--device", "cpu")
    assert ran.code == 0, ran.err
    folder = config.parent / "data" / "small" / "experiments" / "taxibj"
    by_test, by_validation = table(folder / "results.csv")
    curve = [float(row["valid_rmse"]) for row in table(folder / "epochs.csv") if row["variant"] == "chosen-by-test"]
    assert float(by_test["rmse"]) == pytest.approx(min(curve), rel=1e-5)
    for row in (by_test, by_validation):  # the published MSE is a sum over 2 x 8 x 8 values in [0, 1]
        assert float(row["mse"]) == pytest.approx(128 * (float(row["rmse"]) / 1292) ** 2, rel=1e-5)

    (whole, test), (training, validation) = windows_of_trainings

    def seen(given: _Windows) -> np.ndarray:
        return given.batch(torch.arange(len(given.starts)))[0].numpy()

    np.testing.assert_allclose(seen(whole), windows["train"], atol=1e-6)
    np.testing.assert_allclose(seen(test), windows["test"], atol=1e-6)
    np.testing.assert_allclose(seen(validation), windows["train"][54:], atol=1e-6)
    np.testing.assert_allclose(seen(training), windows["train"][:47], atol=1e-6)
    slots = [{frame.tobytes() for frame in seen(given).reshape(-1, 128)} for given in (training, validation)]
    assert len(slots[0]) == 54 and not slots[0] & slots[1]  # windows overlap, but no slot is in both
    assert "| VMRNN (arXiv 2403.16536), published |" in ran.out and "| chosen-by-test |" in ran.out


def test_taxibj_refuses_ends_too_few_windows_and_a_city_without_any(
    trafficcast: Callable[..., Any], windows: dict[str, np.ndarray], config: Path
) -> None:
    refused = trafficcast("experiment", "taxibj", *ENDS)
    assert refused.code == 2 and "has its own splits" in refused.err
    few = np.zeros((8, 4, 2, 8, 8), np.float32)
    np.savez(config.parent / "few.npz", X_train=few, Y_train=few, X_test=few, Y_test=few)
    assert trafficcast("import-taxibj", config.parent / "few.npz").code == 0
    refused = trafficcast("experiment", "taxibj")
    assert refused.code == 2 and "has 8 training windows, too few to hold a tenth of them out" in refused.err
    (config.parent / "data" / "small" / "windows.h5").unlink()
    refused = trafficcast("experiment", "taxibj")
    assert refused.code == 2 and "has no ready windows: run trafficcast import-taxibj" in refused.err
