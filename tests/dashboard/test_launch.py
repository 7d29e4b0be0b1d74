"""The page's command line, and the sentences it shows before there is anything to see."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dashboard.launch import command
from dashboard.page import what_is_missing


def test_the_command_serves_this_packages_page_and_keeps_to_itself() -> None:
    words = command(Path("some/config.toml"), "testville", 8123)
    assert words[:4] == [sys.executable, "-m", "streamlit", "run"]
    app = Path(words[4])
    assert app.name == "app.py" and (app.parent / "static" / "leaflet-1.9.4" / "leaflet.js").exists()
    assert {
        "--server.enableStaticServing=true",
        "--server.address=127.0.0.1",
        "--server.port=8123",
        "--server.headless=true",
        "--browser.gatherUsageStats=false",
    } <= set(words)
    assert words[words.index("--") :] == ["--", "--config", "some/config.toml", "--city", "testville"]


def test_no_city_no_flag() -> None:
    words = command(Path("config.toml"), None, 8123, "0.0.0.0")
    assert "--city" not in words and "--server.address=0.0.0.0" in words


@pytest.mark.parametrize(
    ("flows", "model", "forecast", "advice"),
    [
        (False, False, False, "trafficcast ingest --city testville"),
        (True, False, False, "trafficcast train --city testville"),
        (True, True, False, "trafficcast forecast --city testville"),
    ],
)
def test_what_is_missing_says_what_to_run(place: Any, flows: bool, model: bool, forecast: bool, advice: str) -> None:
    assert advice in str(what_is_missing(place.city, flows, model, forecast))


def test_nothing_is_missing_once_a_forecast_is_stored(place: Any) -> None:
    assert what_is_missing(place.city, True, True, True) is None
    assert what_is_missing(place.city, True, False, True) is None  # of a model since taken away
