"""Skill of late: errors together, shares inside intervals, what is no number left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from trafficcast.config.city import City
from trafficcast.files import write_text
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.scores import recent_scores, skill

CITY = City(west=0, east=1, south=0, north=1, rows=2, cols=3, timezone="UTC", name="small")
INIT = np.datetime64("2024-04-08T10:00", "us")
NAN = np.nan


def scores(rmse: dict[str, list[list[float]]], inside: list[list[float]] | None = None, slot: int = 0) -> xr.Dataset:
    """`rmse`: forecaster -> (init time, lead), vehicles per slot; `inside`: (init time, lead) of the 80 % level."""
    values = np.array([*rmse.values()]).swapaxes(0, 1)
    made = xr.Dataset(
        {"rmse": (("init_time", "forecaster", "lead_time"), values)},
        {
            "init_time": INIT + CITY.slot * (slot + np.arange(len(values))),
            "forecaster": [*rmse],
            "lead_time": (CITY.slot * np.arange(values.shape[2])).astype("timedelta64[us]"),
        },
        CITY.grid(),
    )
    if inside is not None:
        made["inside"] = ("init_time", "level", "lead_time"), np.array(inside)[:, None]
        made = made.assign_coords(level=[0.8])
    return made


def test_errors_together_are_roots_of_mean_squares() -> None:
    found = skill("v1", scores({"v1": [[1, 7], [5, 5]], "persistence": [[2, 2], [2, 2]]}))
    assert (found.model, found.forecasts) == ("v1", 2)
    assert found.rmse == {"v1": 5.0, "persistence": 2.0}  # (1 + 49 + 25 + 25) / 4 = 25
    assert found.by_lead == pytest.approx([np.sqrt(13), np.sqrt(37)])
    assert found.inside == {}


def test_what_is_no_number_does_not_count() -> None:
    found = skill(
        "v1", scores({"v1": [[3, NAN], [5, 5]], "persistence": [[NAN, NAN], [2, 4]]}, [[0.6, NAN], [0.9, 0.9]])
    )
    assert found.rmse == pytest.approx({"v1": np.sqrt(59 / 3), "persistence": np.sqrt(10)})
    assert found.by_lead == pytest.approx([np.sqrt(17), 5])
    assert found.inside == {0.8: pytest.approx(0.8)}


def test_the_best_baseline_is_the_one_with_the_lowest_error() -> None:
    assert skill("v1", scores({"v1": [[1.0]], "climatology": [[3.0]], "persistence": [[2.0]]})).best_baseline == (
        "persistence", 2.0,
    )  # fmt: skip
    assert skill("v1", scores({"v1": [[1.0]]})).best_baseline is None


@pytest.mark.parametrize("order", [("lightgbm", "persistence"), ("persistence", "lightgbm")])
def test_a_baseline_without_a_score_is_not_the_best(order: tuple[str, str]) -> None:
    errors = {"lightgbm": [[NAN, NAN]], "persistence": [[2.0, 2.0]]}
    found = skill("v1", scores({"v1": [[1.0, 1.0]], **{name: errors[name] for name in order}}))
    assert found.best_baseline == ("persistence", 2.0)
    assert skill("v1", scores({"v1": [[1.0]], "lightgbm": [[NAN]]})).best_baseline is None


def test_the_newest_champion_with_scores_in_the_period_is_asked(tmp_path: Path) -> None:
    stores = CityStores(CITY, tmp_path / "data", tmp_path / "models")
    period = INIT, INIT + 3 * CITY.slot
    assert recent_scores(stores, *period) is None
    write_text(stores.registry.root / "champion", "c\nb\na\n")
    assert recent_scores(stores, *period) is None
    for version, slot, error in (("a", 0, 1.0), ("b", -1, 2.0), ("b", 1, 3.0), ("b", 3, 4.0), ("other", 1, 5.0)):
        stores.scores(version).write(scores({version: [[error]]}, slot=slot))
    stores.scores("c").write(scores({"c": [[6.0]]}, slot=9))
    found = recent_scores(stores, *period)
    assert found is not None
    assert (found[0], found[1]["rmse"].values.ravel().tolist()) == ("b", [3.0])
