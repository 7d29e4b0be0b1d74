"""Alerts are read without a trace."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from dashboard.alerts.reads import _MOST, _alert_file, _read_alerts
from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding
from trafficcast.errors import InputError

NOW = np.datetime64("2024-05-08T12:00", "us")
HOUR = np.timedelta64(1, "h")


def finding(rule: str = "flow above=5", place: str = "row 1, column 2") -> Finding:
    return Finding(rule, "flow", "warning", f"too much at {place}", 7.0, 5.0, place, 10.25, 45.35)


def test_open_and_past_newest_first(tmp_path: Path) -> None:
    book, file = AlertBook(_alert_file(tmp_path)), _alert_file(tmp_path)
    for hour, found in enumerate(([finding("a")], [finding("a"), finding("b")], [finding("b"), finding("c")], [])):
        book.update("oslo", found, NOW + hour * HOUR)
    book.update("rome", [finding("other")], NOW)
    is_open, is_over = _read_alerts(file, "oslo", NOW + 2 * HOUR)
    assert [alert.finding.rule for alert in is_open] == ["c", "b"]
    assert [alert.finding.rule for alert in is_over] == ["a"]
    assert is_over[0].raised == NOW and is_over[0].cleared == NOW + 2 * HOUR and is_over[0].finding == finding("a")
    own = book.open("oslo", NOW + 2 * HOUR)
    assert {(alert.finding, alert.raised) for alert in is_open} == {(alert.finding, alert.raised) for alert in own}
    assert _read_alerts(file, "oslo", NOW + 3 * HOUR)[0] == []
    assert _read_alerts(file, "oslo", NOW - HOUR) == ([], [])


def test_not_more_than_a_page_holds(tmp_path: Path) -> None:
    book = AlertBook(_alert_file(tmp_path))
    book.update("oslo", [finding(place=str(number)) for number in range(_MOST + 5)], NOW)
    book.update("oslo", [], NOW + HOUR)
    assert len(_read_alerts(_alert_file(tmp_path), "oslo", NOW + 2 * HOUR)[1]) == _MOST


def test_nothing_is_made(tmp_path: Path) -> None:
    assert _read_alerts(_alert_file(tmp_path / "none"), "oslo", NOW) == ([], [])
    assert list(tmp_path.iterdir()) == []
    _alert_file(tmp_path).touch()
    assert _read_alerts(_alert_file(tmp_path), "oslo", NOW) == ([], [])
    assert _alert_file(tmp_path).stat().st_size == 0 and len(list(tmp_path.iterdir())) == 1


def test_names_with_signs_of_addresses(tmp_path: Path) -> None:
    folder = tmp_path / "a?mode=rwc#b %20"
    AlertBook(_alert_file(folder)).update("oslo", [finding()], NOW)
    assert len(_read_alerts(_alert_file(folder), "oslo", NOW)[0]) == 1


def test_a_damaged_book_is_told(tmp_path: Path) -> None:
    _alert_file(tmp_path).write_bytes(b"no database" * 500)
    with pytest.raises(InputError, match="is damaged"):
        _read_alerts(_alert_file(tmp_path), "oslo", NOW)


@pytest.mark.parametrize("change", ["raised = '1 o clock'", "cleared = 'NaT'", "\"limit\" = 'much'", "value = x'00'"])
def test_values_that_are_none_are_told(tmp_path: Path, change: str) -> None:
    AlertBook(_alert_file(tmp_path)).update("oslo", [finding()], NOW)
    with sqlite3.connect(_alert_file(tmp_path)) as database:
        database.execute(f"UPDATE alerts SET {change}")
    database.close()
    with pytest.raises(InputError, match="is damaged"):
        _read_alerts(_alert_file(tmp_path), "oslo", NOW)


def test_a_locked_book_is_not_waited_for(tmp_path: Path) -> None:
    AlertBook(_alert_file(tmp_path)).update("oslo", [finding()], NOW)
    database = sqlite3.connect(_alert_file(tmp_path), isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with pytest.raises(InputError, match="locked"):
        _read_alerts(_alert_file(tmp_path), "oslo", NOW)
    assert time.monotonic() - began < 5
    database.execute("ROLLBACK")
    database.close()
    assert len(_read_alerts(_alert_file(tmp_path), "oslo", NOW)[0]) == 1


def test_a_writer_is_not_disturbed(tmp_path: Path) -> None:
    book = AlertBook(_alert_file(tmp_path))
    book.update("oslo", [finding()], NOW)
    before = _alert_file(tmp_path).read_bytes()
    _read_alerts(_alert_file(tmp_path), "oslo", NOW)
    assert _alert_file(tmp_path).read_bytes() == before and len(list(tmp_path.iterdir())) == 1
