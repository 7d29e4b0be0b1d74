"""The pages Skill and Models, drawn without a browser."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.page.choices import _in_address
from dashboard.skill.models import _SECTIONS as MODEL_SECTIONS
from dashboard.skill.skill import _SECTIONS as SKILL_SECTIONS
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.scores import score_dataset

HOSTILE = "<script>alert(1)</script>"


def page(place: Any, name: str, city: str = "testville") -> AppTest:
    """One page, as dashboard/shell.py draws it."""

    def script(file: str, name: str, city: str) -> None:
        from importlib import import_module
        from pathlib import Path

        from dashboard.page.view import View
        from trafficcast.config.settings import load_config

        config = load_config(Path(file))
        import_module(f"dashboard.skill.{name}").draw(config, View(config.city(city), cell=(1, 2)))

    return AppTest.from_function(script, default_timeout=60, args=(str(place.file), name, city))


def fill(place: Any) -> None:
    """A model, forecasts, flows and scores of a day, one slot of them never observed."""
    place.add_flows()
    place.add_model()
    store = CityStores.of(place.config, place.city).scores("vmrnn-b-1")
    shape = (4, 2, place.city.rows, place.city.cols)
    for number in range(4):
        init_time = place.start + number * place.city.slot
        place.add_forecast(init_time)
        truth = np.full(shape, 5.0)
        truth[number] = np.nan
        made = {"vmrnn-b-1": truth + 1, HOSTILE: truth + 2}
        store.write(score_dataset(place.city, init_time, made, truth))


@pytest.mark.parametrize("section", SKILL_SECTIONS)
def test_each_section_of_skill_draws(place: Any, section: str) -> None:
    fill(place)
    app = page(place, "skill")
    app.query_params["show"] = _in_address(section)
    app.run()
    assert not app.exception
    said = " ".join(caption.value for caption in app.caption)
    assert "4 forecasts" in said and HOSTILE not in said


def test_skill_beside_a_baseline_without_error(place: Any) -> None:
    place.add_model()
    truth = np.full((4, 2, 5, 7), 3.0)
    made = score_dataset(place.city, place.start, {"vmrnn-b-1": truth + 1, "persistence": truth}, truth)
    CityStores.of(place.config, place.city).scores("vmrnn-b-1").write(made)
    app = page(place, "skill").run()
    assert not app.exception and "RMSE 1\\.000" in app.caption[0].value


def test_skill_says_what_to_do_without_data_model_and_scores(place: Any) -> None:
    assert "trafficcast ingest" in _said(page(place, "skill").run())
    place.add_flows()
    assert "trafficcast train" in _said(page(place, "skill").run())
    place.add_model()
    assert "trafficcast verify" in _said(page(place, "skill").run())


def test_skill_where_nothing_was_observed(place: Any) -> None:
    place.add_model()
    truth = np.full((4, 2, 5, 7), np.nan)
    store = CityStores.of(place.config, place.city).scores("vmrnn-b-1")
    store.write(score_dataset(place.city, place.start, {"vmrnn-b-1": truth}, truth))
    for section in SKILL_SECTIONS:
        app = page(place, "skill")
        app.query_params["show"] = _in_address(section)
        assert not app.run().exception, section


@pytest.mark.parametrize("section", MODEL_SECTIONS)
def test_each_section_of_models_draws_with_odd_cards(place: Any, section: str) -> None:
    for version in ("broken-1", "vmrnn-c-1", "vmrnn-b-1"):
        place.add_model(version)
    root = place.config.paths.models / "testville"
    (root / "broken-1" / "card.json").write_text("{", encoding="utf-8")
    scores = {HOSTILE: {"rmse": 2.0, "by_lead": {"rmse": [1.0, 2.0]}}, "vmrnn-c-1": {"rmse": 1.0}}
    card = {"version": "vmrnn-c-1", "grid": {"slot_minutes": 30}, "command": HOSTILE, "metrics": {"test": scores}}
    (root / "vmrnn-c-1" / "card.json").write_text(json.dumps(card), encoding="utf-8")
    (root / "vmrnn-c-1" / "CARD.md").write_text(HOSTILE, encoding="utf-8")
    (root / "champion").write_text("vmrnn-b-1\ngone-1\n", encoding="utf-8")

    for version in ("vmrnn-b-1", "vmrnn-c-1", "broken-1"):
        app = page(place, "models")
        app.query_params["show"] = _in_address(section)
        app.query_params["model"] = version
        app.run()
        assert not app.exception, version
        assert "broken\\-1 is damaged\\: card\\.json" in app.warning[0].value
        assert "gone\\-1" in app.caption[0].value
        assert not [shown.value for shown in (*app.markdown, *app.caption, *app.warning) if HOSTILE in shown.value]
        if section == "Card" and version == "vmrnn-c-1":
            assert app.code[0].value == HOSTILE


def test_models_says_what_to_do_without_one(place: Any) -> None:
    place.add_flows()
    assert "trafficcast train" in _said(page(place, "models").run())


def _said(app: AppTest) -> str:
    assert not app.exception
    return app.info[0].value
