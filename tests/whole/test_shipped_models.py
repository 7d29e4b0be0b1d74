"""The models that come with the project load, forecast, and have cards that say what they are worth."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trafficcast.config.settings import load_config
from trafficcast.forecasting.inference import pick_device
from trafficcast.forecasting.model import load_model
from trafficcast.stores.registry import Registry

PROJECT = Path(__file__).parents[2]
CITIES = ("san-francisco", "demo")
BASELINES = {"persistence", "last_week", "climatology", "scaled_climatology"}


@pytest.mark.parametrize("name", CITIES)
def test_the_champion_forecasts(name: str) -> None:
    city = load_config(PROJECT / "config.toml").city(name)
    model = load_model(Registry(PROJECT / "models" / name, city))
    forecaster, rng = model.forecaster(pick_device("cpu")), np.random.default_rng(0)
    for hour in range(0, 24, 6):
        init = np.array([city.parse_time(f"2024-05-01T{hour:02}:00")])
        usual = model.climatology.at(init[:, None] + city.slot * np.arange(-4, 4))
        # On a usual day, and where nothing is as ever: no traffic, and the same anywhere.
        for counts in (rng.poisson(usual[:, :4]), 0 * usual[:, :4], rng.integers(0, 30, usual[:, :4].shape)):
            history = counts.astype(np.float32)
            forecast = forecaster.forecast(history, init)
            assert forecast.shape == history.shape
            assert np.isfinite(forecast).all() and (forecast >= 0).all()
            assert forecast.sum() < 2 * max(usual[:, 4:].sum(), history.sum())


@pytest.mark.parametrize("name", CITIES)
def test_every_card_shows_the_model_beside_every_baseline_by_lead(name: str) -> None:
    city = load_config(PROJECT / "config.toml").city(name)
    registry = Registry(PROJECT / "models" / name, city)
    for version in registry.versions():
        card = registry.card(version)
        for split in ("validation", "test"):
            assert set(card["metrics"][split]) >= BASELINES | {version}
            if version.startswith("vmrnn-c"):
                assert {"anomaly_persistence", "pattern_persistence", "lightgbm"} <= set(card["metrics"][split])
                assert 0.8 < card["intervals"][split]["levels"]["0.8"]["inside"]["all"] < 0.95
            for scores in card["metrics"][split].values():
                assert len(scores["by_lead"]["rmse"]) == len(scores["by_lead"]["mse"]) == 4
        text = (registry.root / version / "CARD.md").read_text()
        assert all(word in text for word in BASELINES | {version, card["command"], "+90 min"})


def test_the_san_francisco_model_saw_nothing_of_its_test_days() -> None:
    city = load_config(PROJECT / "config.toml").city("san-francisco")
    split = load_model(Registry(PROJECT / "models" / "san-francisco", city)).card["split"]
    assert split["train_end"] == "2008-06-02T00:00:00-07:00"
    assert (split["valid_end"], split["test_end"]) == ("2008-06-04T00:00:00-07:00", "2008-06-07T00:00:00-07:00")


@pytest.mark.slow
def test_the_demo_runs_twice(trafficcast: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    config.write_text((PROJECT / "config.toml").read_text())
    shutil.copytree(PROJECT / "models" / "demo", tmp_path / "models" / "demo")
    for _ in range(2):
        ran = trafficcast("demo", "--no-dashboard")
        assert ran.code == 0, ran.err
    scores = trafficcast("backtest", "--city", "demo", "--start", "2024-04-28", "--end", "2024-04-29", "--json").json
    rmse = {name: values["rmse"] for name, values in scores["scores"].items()}
    assert scores["forecasts"] == 45
    assert rmse[scores["champion"]] < rmse["persistence"]
