"""Pruning: what is older than each store keeps goes, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.service.prune import prune
from tests.cities import small_city, stores_in
from trafficcast.config.service import Retention
from trafficcast.files import write_json, write_text
from trafficcast.stores.registry import Registry

CITY = small_city(rows=2, cols=3, timezone="America/New_York")
NOW = np.datetime64("2024-04-08T03:30", "us")  # 23:30 on the 7th in New York
DAYS = [f"2024-04-{day:02d}" for day in range(1, 8)]
NOTHING = {"flow_days": 0, "forecast_days": 0, "score_days": 0, "models": 0, "leftovers": 0}


def files(root: Path, days: list[str]) -> None:
    """Pruning looks at names alone."""
    root.mkdir(parents=True)
    for day in days:
        (root / f"{day}.nc").write_bytes(b"a day")


def trained(registry: Registry, *versions: str) -> None:
    """Models, the oldest first; the first becomes the champion."""
    for number, version in enumerate(versions):

        def fill(folder: Path) -> None:
            write_json(folder / "card.json", {})
            (folder / "model.safetensors").write_bytes(b"weights")
            os.utime(folder / "card.json", (1000 + number, 1000 + number))  # noqa: B023  # called at once

        registry.add(version, fill)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A week of every store, today's included, and four models of which v-2 is the champion after v-1."""
    data = tmp_path / "data"
    stores = stores_in(data, CITY)
    files(stores.flows.root, DAYS)
    files(stores.forecasts("v-1").root, DAYS[:4])
    files(stores.forecasts("v-2").root, DAYS[4:])
    files(stores.scores("v-1").root, DAYS[:4])
    files(stores.scores("v-2").root, DAYS[4:])
    registry = Registry(tmp_path / "models" / "small", CITY)
    trained(registry, "v-1", "v-2", "v-3", "v-4")
    registry.promote("v-2")
    return tmp_path


def run(folder: Path, **keep: Any) -> dict[str, int]:
    return prune(stores_in(folder / "data", CITY), Retention(**keep), NOW)


def left(folder: Path, store: str) -> list[str]:
    return sorted(file.stem for file in (folder / "data" / "small" / store).glob("*.nc"))


def versions(folder: Path) -> list[str]:
    return Registry(folder / "models" / "small", CITY).versions()


def test_without_a_retention_nothing_goes(folder: Path, snapshot: Callable[[Path], dict[str, bytes]]) -> None:
    before = snapshot(folder)
    assert run(folder) == NOTHING
    assert snapshot(folder) == before


def test_days_are_the_city_s_and_count_today(folder: Path) -> None:
    assert run(folder, flow_days=3) == NOTHING | {"flow_days": 4}
    assert left(folder, "flows") == DAYS[-3:]  # the 5th, the 6th and, not over yet, the 7th
    assert run(folder, flow_days=3) == NOTHING
    assert run(folder, flow_days=1) == NOTHING | {"flow_days": 2}
    assert left(folder, "flows") == ["2024-04-07"]


def test_each_store_has_its_own_retention_over_all_models(folder: Path) -> None:
    assert run(folder, forecast_days=5, score_days=2) == NOTHING | {"forecast_days": 2, "score_days": 5}
    assert left(folder, "flows") == DAYS
    assert left(folder, "forecasts/v-1") == DAYS[2:4] and left(folder, "forecasts/v-2") == DAYS[4:]
    assert left(folder, "scores/v-1") == [] and left(folder, "scores/v-2") == DAYS[5:]


def test_what_a_model_left_that_is_gone_is_pruned_as_well(folder: Path) -> None:
    stores = stores_in(folder / "data", CITY)
    files(stores.forecasts("v-0").root, DAYS)
    files(stores.scores("v-0").root, DAYS)
    assert run(folder, forecast_days=7, score_days=6) == NOTHING | {"score_days": 2}
    assert left(folder, "forecasts/v-0") == DAYS and left(folder, "scores/v-0") == DAYS[1:]


def test_something_else_below_a_store_stays(folder: Path) -> None:
    aside = folder / "data" / "small" / "flows" / "2024-04-01.nc.damaged-1"
    aside.write_bytes(b"damaged")
    run(folder, flow_days=1)
    assert aside.exists()


def test_the_champion_and_its_predecessor_and_the_newest_stay(folder: Path) -> None:
    assert run(folder, models=1, forecast_days=1) == NOTHING | {"forecast_days": 6, "models": 1}
    assert versions(folder) == ["v-1", "v-2", "v-4"]
    assert Registry(folder / "models" / "small", CITY).rollback() == "v-1"


def test_a_predecessor_that_is_gone_is_not_the_one_that_stays(folder: Path) -> None:
    write_text(folder / "models" / "small" / "champion", "v-4\nv-0\nv-1\nv-2\n")
    assert run(folder, models=1, forecast_days=1)["models"] == 1
    assert versions(folder) == ["v-1", "v-2", "v-4"]  # v-2 made forecasts of today


def test_models_stay_as_long_as_their_forecasts_do(folder: Path) -> None:
    registry = Registry(folder / "models" / "small", CITY)
    registry.promote("v-3")
    registry.promote("v-4")
    assert run(folder, models=1)["models"] == 0  # of v-1 and v-2 there are forecasts
    assert run(folder, models=1, forecast_days=3) == NOTHING | {"forecast_days": 4, "models": 1}
    assert versions(folder) == ["v-2", "v-3", "v-4"]


def test_as_many_of_the_newest_stay_as_are_kept(folder: Path) -> None:
    assert run(folder, models=4, forecast_days=1)["models"] == 0
    trained(Registry(folder / "models" / "small", CITY), "v-10")
    os.utime(folder / "models" / "small" / "v-10" / "card.json", (2000, 2000))
    assert run(folder, models=2)["models"] == 1
    assert versions(folder) == ["v-1", "v-2", "v-4", "v-10"]


def test_a_city_without_anything_has_nothing_to_prune_and_gets_no_folders(tmp_path: Path) -> None:
    assert run(tmp_path, flow_days=1, forecast_days=1, score_days=1, models=1) == NOTHING
    assert list(tmp_path.iterdir()) == []


def test_other_cities_are_left_alone(folder: Path, snapshot: Callable[[Path], dict[str, bytes]]) -> None:
    other = CITY.model_copy(update={"name": "other"})
    files(stores_in(folder / "data", other).flows.root, DAYS)
    before = snapshot(folder / "data" / "other")
    run(folder, flow_days=1)
    assert snapshot(folder / "data" / "other") == before


def test_the_command_prunes_what_the_configuration_says(
    config: Path, trafficcast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    files(config.parent / "data" / "small" / "flows", DAYS)
    assert trafficcast("prune", "--json").json == NOTHING
    monkeypatch.setenv("TRAFFICCAST__RETENTION__FLOW_DAYS", "30")
    assert trafficcast("prune", "--json").json == NOTHING | {"flow_days": 7}  # all long ago by the machine's clock
    assert trafficcast("prune", "--city", "nowhere").code == 2


def test_the_log_says_what_was_removed_and_nothing_where_nothing_was(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="trafficcast")
    run(folder)
    assert caplog.messages == []
    run(folder, flow_days=3, models=1, forecast_days=1)
    assert caplog.messages == ["pruned 4 flow days, 6 forecast days, 1 models"]


def test_only_the_champion_and_one_before_it_are_needed(folder: Path) -> None:
    registry = Registry(folder / "models" / "small", CITY)
    registry.promote("v-3")
    registry.promote("v-4")
    trained(registry, "v-5")
    os.utime(registry.root / "v-5" / "card.json", (2000, 2000))
    assert run(folder, models=1, forecast_days=1) == NOTHING | {"forecast_days": 6, "models": 1}
    assert versions(folder) == ["v-2", "v-3", "v-4", "v-5"]  # v-2 has forecasts of today, v-1 has none left
    for file in (folder / "data" / "small" / "forecasts" / "v-2").iterdir():
        file.unlink()
    assert run(folder, models=1)["models"] == 1  # v-2 was champion two promotions ago
    assert versions(folder) == ["v-3", "v-4", "v-5"]


def test_what_killed_writers_left_among_the_models_goes_after_an_hour(
    folder: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    root = folder / "models" / "small"
    before = snapshot(root)
    leftovers = [
        root / "v-9" / "model.safetensors",  # killed in the middle of a pruning
        root / ".new-a1b2" / "v-10" / "model.safetensors",  # and of a publication
        root / ".champion.x.tmp",
        root / "v-2" / ".card.json.y.tmp",
    ]
    for file in leftovers:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"a part")
    now = NOW.astype("datetime64[s]").astype(int)

    def changed(minutes_ago: int) -> None:
        for path in [*root.rglob("*")]:
            os.utime(path, (now - 60 * minutes_ago, now - 60 * minutes_ago))

    changed(59)
    assert run(folder) == NOTHING
    changed(61)
    os.utime(leftovers[1], (now, now))  # a publication that is slow
    assert run(folder) == NOTHING | {"leftovers": 3}
    changed(61)
    assert run(folder) == NOTHING | {"leftovers": 1}
    assert snapshot(root) == before and not (root / "v-9").exists() and not (root / ".new-a1b2").exists()


def test_a_champion_whose_card_is_gone_is_no_leftover(folder: Path) -> None:
    root = folder / "models" / "small"
    for version in ("v-1", "v-2", "v-3"):
        (root / version / "card.json").unlink()
        for path in (*root.glob(f"{version}/*"), root / version):
            os.utime(path, (1000, 1000))
    assert run(folder) == NOTHING | {"leftovers": 1}
    assert sorted(path.name for path in root.glob("*/")) == ["v-1", "v-2", "v-4"]


def test_a_pruning_that_is_killed_leaves_no_model_that_is_not_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, models=1, forecast_days=1)
    assert versions(folder) == ["v-1", "v-2", "v-4"]
    monkeypatch.undo()
    (left_over,) = (folder / "models" / "small" / "v-3").iterdir()
    for path in (left_over, left_over.parent):
        os.utime(path, (1000, 1000))
    assert run(folder) == NOTHING | {"leftovers": 1}
    assert not left_over.parent.exists()
