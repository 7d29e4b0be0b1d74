"""The command line as a function of one process."""

from __future__ import annotations

import logging
import sys

import pytest

from pipelines import cli


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
