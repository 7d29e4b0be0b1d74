"""The command line that serves the dashboard."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.cli.serving import _streamlit


def test_the_command_serves_this_packages_page_and_keeps_to_itself() -> None:
    words = _streamlit(Path("some/config.toml"), "testville", 8123)
    assert words[:4] == [sys.executable, "-P", "-m", "dashboard"]
    assert {
        "--server.address=127.0.0.1",
        "--server.port=8123",
        "--server.headless=true",
        "--browser.gatherUsageStats=false",
    } <= set(words)
    assert words[words.index("--") :] == ["--", "--config", "some/config.toml", "--city", "testville"]


def test_no_city_no_flag() -> None:
    words = _streamlit(Path("config.toml"), None, 8123, "0.0.0.0")
    assert "--city" not in words and "--server.address=0.0.0.0" in words
