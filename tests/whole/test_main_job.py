"""The whole main job through the command line, on a simulated small city and on a slice of real records."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.cities import stores_in

pytestmark = pytest.mark.slow

SHARED = Path(__file__).parents[2].parent / "shared"
BASELINES = {
    "persistence", "last_week", "climatology", "scaled_climatology", "anomaly_persistence", "pattern_persistence",
    "lightgbm",
}  # fmt: skip
SPLIT = ("--train-end", "2024-04-13", "--valid-end", "2024-04-14")

SAN_FRANCISCO = """
[cities.san-francisco]
west = -122.52
east = -122.36
south = 37.70
north = 37.82
rows = 16
cols = 16
timezone = "America/Los_Angeles"
min_coverage = 0.3
"""


def test_records_become_a_forecast_verified_and_scored(trained: Path, trafficcast: Callable[..., Any]) -> None:
    folder = trained / "models" / "small" / "vmrnn-c-1"
    assert {file.name for file in folder.iterdir()} == {
        "model.safetensors", "climatology.safetensors", "intervals.safetensors", "lightgbm.txt",
        "card.json", "CARD.md", "curve.csv", "curve.png",
    }  # fmt: skip
    assert (trained / "models" / "small" / "champion").read_text() == "vmrnn-c-1\n"

    scores = trafficcast("backtest", "--start", "2024-04-14", "--end", "2024-04-15", "--json").json
    assert scores["champion"] == "vmrnn-c-1"
    assert scores["forecasts"] == 21  # 24 slots, four of them targets of each
    assert set(scores["scores"]) == {"vmrnn-c-1", *BASELINES}
    for values in scores["scores"].values():
        assert {len(by_lead) for by_lead in values["by_lead"].values()} == {4}
        assert values["ssim"] is None  # six columns are narrower than the window

    card = trafficcast("models", "show", "--json").json
    assert card["metrics"]["test"]["vmrnn-c-1"]["rmse"] == pytest.approx(
        scores["scores"]["vmrnn-c-1"]["rmse"], rel=1e-5
    )

    for part, windows in card["windows"].items():
        period = card["periods"][part]
        assert np.sum(period["windows_by_hour"]) == windows
        assert period["slots"] >= period["observed"] >= windows
    tested = card["periods"]["test"]
    sunday = [0] * 24
    sunday[:21] = [1] * 21  # 14 April; the targets of later windows lie beyond the day
    assert scores["windows_by_hour"] == [[0] * 24] * 6 + [sunday]
    assert (scores["slots"], scores["observed"]) == (24, 24)
    text = (folder / "CARD.md").read_text()
    fell_out = f"{tested['slots'] - tested['observed']} of {tested['slots']} (test)."
    assert fell_out in text and "Windows by local time, training / validation / test:" in text
    assert "|  | 00:00 | 03:00 | 06:00 | 09:00 | 12:00 | 15:00 | 18:00 | 21:00 |" in text
    printed = trafficcast("backtest", "--start", "2024-04-14", "--end", "2024-04-15").out
    assert "Slots that are not observed fell out: 0 of 24 (backtest)." in printed
    assert re.search(r"Sun +│ +3 +│ +3 +│ +3 +│ +3 +│ +3 +│ +3 +│ +3 +│ +0 ", printed)

    made = trafficcast("forecast", "--init-time", "2024-04-14T10:00", "--json").json
    assert [slot["slot_start"][11:16] for slot in made["slots"]] == ["10:00", "11:00", "12:00", "13:00"]
    assert [slot["lead_minutes"] for slot in made["slots"]] == [0, 60, 120, 180]
    assert trafficcast("verify", "--json").json["scored"] == 1
    assert trafficcast("verify", "--json").json["scored"] == 0
    listed = trafficcast("models", "list", "--json").json
    assert (listed["champion"], len(listed["models"])) == ("vmrnn-c-1", 1)


def test_a_forecast_equals_the_backtest_and_a_repeated_one_changes_nothing(
    trained: Path, trafficcast: Callable[..., Any], config: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    from trafficcast.config.city import HISTORY
    from trafficcast.config.settings import load_config
    from trafficcast.forecasting.inference import pick_device
    from trafficcast.forecasting.model import load_model
    from trafficcast.forecasting.windows import _windows_as_known, window_starts
    from trafficcast.stores.registry import Registry

    city = load_config(config).city()
    stores = stores_in(trained / "data", city)
    start, end = city.parse_time("2024-04-14"), city.parse_time("2024-04-15")
    replayed = trafficcast("replay", "--start", "2024-04-14", "--end", "2024-04-15", "--json").json
    assert (replayed["forecasts"], replayed["complete"]) == (24, 24)
    assert replayed["verified"] == 21

    flows = stores.flows.read()
    assert flows is not None
    starts = window_starts(flows, city, start, end)
    init_times = flows["time"].values[starts + HISTORY]
    model = load_model(Registry(trained / "models" / "small", city))
    history = _windows_as_known(flows, starts)[:, :HISTORY]
    batched = model.forecaster(pick_device("cpu")).forecast(history, init_times)
    stored = stores.forecasts(model.version).read()
    assert stored is not None
    np.testing.assert_allclose(stored["flow"].sel(init_time=init_times).values, batched, atol=1e-4)

    scores = stores.scores(model.version).read()
    assert scores is not None
    backtest = trafficcast("backtest", "--start", "2024-04-14", "--end", "2024-04-15", "--json").json["scores"]
    for name in ("persistence", "last_week", "climatology", "scaled_climatology", model.version):
        rmse = np.sqrt(np.square(scores["rmse"].sel(forecaster=name)).mean())
        assert float(rmse) == pytest.approx(backtest[name]["rmse"], rel=1e-5)

    before = snapshot(trained / "data" / "small")
    trafficcast("replay", "--start", "2024-04-14", "--end", "2024-04-15")
    trafficcast("forecast", "--init-time", "2024-04-14T10:00")
    assert snapshot(trained / "data" / "small") == before


def test_nothing_after_the_init_time_reaches_a_replayed_forecast(
    trained: Path, trafficcast: Callable[..., Any], config: Path
) -> None:
    from trafficcast.config.settings import load_config

    city = load_config(config).city()
    stores = stores_in(trained / "data", city)
    trafficcast("forecast", "--init-time", "2024-04-14T12:00")
    store = stores.forecasts("vmrnn-c-1")
    first = store.read()
    assert first is not None
    later = city.parse_time("2024-04-14T12:00")
    flows = stores.flows.read(later)
    assert flows is not None
    flows["flow"] += 100
    stores.flows.write(flows)
    trafficcast("forecast", "--init-time", "2024-04-14T12:00")
    xr.testing.assert_identical(first, store.read())


def test_a_second_model_waits_for_its_promotion(trained: Path, trafficcast: Callable[..., Any]) -> None:
    trafficcast("train", "--epochs", 1, "--batch-size", 32, "--seed", 7, *SPLIT)
    assert trafficcast("models", "list", "--json").json["champion"] == "vmrnn-c-1"
    assert trafficcast("models", "promote", "vmrnn-c-2").code == 0
    made = trafficcast("forecast", "--init-time", "2024-04-14T10:00", "--json").json
    assert made["model"] == "vmrnn-c-2"
    made = trafficcast("forecast", "--init-time", "2024-04-14T10:00", "--model", "vmrnn-c-1", "--json").json
    assert made["model"] == "vmrnn-c-1"


def test_a_period_of_training_is_scored_with_a_warning(
    trained: Path, trafficcast: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert trafficcast("backtest", "--start", "2024-04-12", "--end", "2024-04-13").code == 0
    assert "overlaps the training" in caplog.text
    caplog.clear()
    assert trafficcast("backtest", "--start", "2024-04-14", "--end", "2024-04-15").code == 0
    assert "overlaps" not in caplog.text


def test_a_model_of_another_grid_is_refused(trained: Path, trafficcast: Callable[..., Any], config: Path) -> None:
    config.write_text(config.read_text().replace("rows = 10", "rows = 12"))
    for call in (
        ("backtest", "--start", "2024-04-14", "--end", "2024-04-15"),
        ("forecast",),
        ("ingest", trained / "gps"),
    ):
        ran = trafficcast(*call)
        assert ran.code == 2
        assert "rows" in ran.err and "12" in ran.err


def test_the_main_job_on_a_slice_of_real_records(trafficcast: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    records = SHARED / "data" / "cabspotting"
    if not records.exists():
        pytest.skip("the Cabspotting records are not beside the project")
    config.write_text(config.read_text() + SAN_FRANCISCO)
    (tmp_path / "slice").mkdir()
    for file in sorted(records.glob("new_a*.gz")):
        shutil.copy(file, tmp_path / "slice")
    city = ("--city", "san-francisco")
    period = ("--start", "2008-06-03", "--end", "2008-06-06")
    report = trafficcast("ingest", tmp_path / "slice", *city, *period, "--json").json
    assert report["rows_dropped"]["timestamp"] > 0 and report["transitions"] > 10_000
    split = ("--train-end", "2008-06-04", "--valid-end", "2008-06-05", "--test-end", "2008-06-06")
    assert trafficcast("train", *city, "--epochs", 1, *split).code == 0
    scores = trafficcast("backtest", *city, "--start", "2008-06-05", "--end", "2008-06-06", "--json").json["scores"]
    assert 0 < scores["climatology"]["rmse"] < scores["persistence"]["rmse"]
    assert trafficcast("forecast", *city, "--init-time", "2008-06-05T18:00").code == 0
