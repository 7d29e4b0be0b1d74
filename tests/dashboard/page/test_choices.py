"""What is chosen on Skill and Models, and the address."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.page.choices import _in_address
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.scores import score_dataset


def script(file: str, name: str, clicked: tuple[int, int] | None) -> None:
    """What the shell draws of a page; a click on a cell before it where one is given."""
    from importlib import import_module
    from pathlib import Path

    from dashboard.page.address import change, current_view
    from trafficcast.config.settings import load_config

    config = load_config(Path(file))
    view = current_view(config, "testville")
    if clicked is not None:
        view = change(view, cell=clicked)
    folder = {"now": "forecasts", "look_back": "forecasts", "models": "skill"}.get(name, name)
    import_module(f"dashboard.{folder}.{name}").draw(config, view)


def run(place: Any, name: str, clicked: tuple[int, int] | None = None, /, **address: str) -> AppTest:
    """A page at an address, drawn once."""
    app = AppTest.from_function(script, args=(str(place.file), name, clicked), default_timeout=60)
    for parameter, value in address.items():
        app.query_params[parameter] = value
    return again(app)


def again(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception
    return app


def said(app: AppTest) -> dict[str, str]:
    """The address but its city."""
    known = {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}
    return {name: value for name, value in known.items() if name != "city"}


def shown(app: AppTest) -> dict[str, str]:
    """What each choice stands at."""
    return {str(one.key).removeprefix("choice "): one.value for one in (*app.selectbox, *app.segmented_control)}


@pytest.fixture
def filled(place: Any) -> Any:
    """Two models with cards and scores; vmrnn-b-2 is champion."""
    truth = np.full((4, 2, 5, 7), 5.0)
    for version in ("vmrnn-b-1", "vmrnn-b-2"):
        place.add_model(version)
        scores = {version: {"rmse": 1.0, "by_lead": {"rmse": [1.0, 2.0]}}}
        card = {"version": version, "grid": {"slot_minutes": 30}, "metrics": {"test": scores, "validation": scores}}
        file = place.config.paths.models / "testville" / version / "card.json"
        file.write_text(json.dumps(card), encoding="utf-8")
        made = score_dataset(place.city, place.start, {version: truth + 1, "persistence": truth}, truth)
        CityStores.of(place.config, place.city).scores(version).write(made)
    return place


SKILL = {"model": "vmrnn-b-1", "period": "month", "show": "by-hour-and-weekday", "error": "mae", "ahead": "30-min"}
MODELS = {"model": "vmrnn-b-1", "show": "scores", "days": "validation", "ahead": "0-min"}


def test_a_link_shows_the_same(filled: Any) -> None:
    skill = run(filled, "skill", **SKILL)
    assert shown(skill) == {**SKILL, "show": "By hour and weekday", "ahead": "+30 min"} and said(skill) == SKILL
    models = run(filled, "models", **MODELS)
    assert shown(models) == {**MODELS, "show": "Scores", "ahead": "+0 min"}
    duel = run(filled, "models", show="against-the-champion", against="vmrnn-b-1")
    assert shown(duel)["against"] == "vmrnn-b-1" and "vmrnn-b-1" in duel.dataframe[1].value


def test_what_is_no_option_counts_as_not_given(filled: Any) -> None:
    strange = {"model": "../vmrnn-b-1", "period": "<b>", "show": "", "error": "RMSE", "ahead": "99-min"}
    app = run(filled, "skill", **strange, unknown="x")
    assert shown(app) == {"model": "vmrnn-b-2", "period": "week", "show": "By lead", "error": "rmse"}
    assert said(app) == strange


def test_choosing_is_said_and_the_default_is_not(filled: Any) -> None:
    app = run(filled, "skill", cell="1,2")
    app.segmented_control(key="choice show").set_value("Over time")
    assert said(again(app)) == {"cell": "1,2", "show": "over-time"}
    app.segmented_control(key="choice ahead").set_value("+90 min")
    app.selectbox(key="choice model").set_value("vmrnn-b-1")
    assert said(again(app)) == {"cell": "1,2", "show": "over-time", "ahead": "90-min", "model": "vmrnn-b-1"}
    app.segmented_control(key="choice show").set_value("By lead")
    app.selectbox(key="choice model").set_value("vmrnn-b-2")
    assert said(again(app)) == {"cell": "1,2", "ahead": "90-min"}


def test_going_back_shows_what_was_chosen_before(filled: Any) -> None:
    app = run(filled, "skill")
    app.segmented_control(key="choice show").set_value("Over time")
    again(app)
    del app.query_params["show"]
    assert shown(again(app))["show"] == "By lead"


def test_another_view_and_another_page_keep_the_choices(filled: Any) -> None:
    app = run(filled, "skill", (3, 4), period="month", cell="1,2")
    assert said(app) == {"period": "month", "cell": "3,4"}
    app.query_params.clear()  # so the browser opens another page
    assert said(again(app)) == {"period": "month", "cell": "3,4"}


@pytest.mark.parametrize(
    ("option", "word"),
    [("By hour and weekday", "by-hour-and-weekday"), ("+30 min", "30-min"), ("vmrnn-c-1", "vmrnn-c-1"), ("Ü", "")],
)
def test_an_option_in_the_address(option: str, word: str) -> None:
    assert _in_address(option) == word
