"""The command line as a function of one process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main as cli


def test_a_second_call_logs_every_line_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, own = logging.getLogger("trafficcast"), logging.NullHandler()
    monkeypatch.setattr(logger, "handlers", [own])
    monkeypatch.setattr(sys, "argv", ["trafficcast", "--version"])
    for _ in range(3):
        with pytest.raises(SystemExit):
            cli.main()
    capsys.readouterr()
    logger.warning("once")
    assert capsys.readouterr().err.count("once") == 1
    assert own in logger.handlers


def test_cities_are_listed_with_what_there_is_of_them(trained: Path, trafficcast: Callable[..., Any]) -> None:
    (row,) = trafficcast("city", "list", "--json").json["cities"]
    assert (row["city"], row["grid"], row["timezone"]) == ("small", "10 x 6", "Europe/Rome")
    assert (row["first_day"], row["last_day"], row["champion"]) == ("2024-04-08", "2024-04-14", "vmrnn-c-1")
    assert "10 x 6" in trafficcast("city", "list").out


def test_a_configuration_without_a_city_says_what_to_do(trafficcast: Callable[..., Any], config: Path) -> None:
    config.write_text("")
    assert "trafficcast city add" in trafficcast("city", "list").out
