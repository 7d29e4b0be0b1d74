"""The quarantine of an inbox as a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dashboard.data.quarantine import _MOST_FILES, _quarantine_table
from dashboard.page.labels import one_line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An inbox's quarantine."""
    folder = tmp_path / "quarantine"
    (folder / "sub").mkdir(parents=True)
    return folder


def test_files_with_their_reasons(place: Any, folder: Path) -> None:
    (folder / "sub" / "a.csv").write_text("12345")
    (folder / "sub" / "a.csv.reason.txt").write_text("line 3\nis <b>cut</b>\n")
    (folder / "b.csv").write_text("")
    table, files = _quarantine_table(folder.parent, place.city)
    assert files == 2
    rows = table.set_index("file")
    assert rows.loc["sub/a.csv", "reason"] == "line 3 is <b>cut</b>" and rows.loc["sub/a.csv", "size"] == 5
    assert rows.loc["b.csv", "reason"] == "no reason is given"
    assert str(rows.loc["b.csv", "since"]).endswith(("CET", "CEST"))


def test_no_quarantine_is_empty(place: Any, tmp_path: Path) -> None:
    table, files = _quarantine_table(tmp_path / "nothing", place.city)
    assert files == 0 and not len(table)


def test_links_are_not_followed(place: Any, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "link.csv").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    (folder / "c.csv").touch()
    (folder / "c.csv.reason.txt").symlink_to(secret)
    table, files = _quarantine_table(folder.parent, place.city)
    assert files == 1 and "secret" not in table.to_string()


def test_names_that_are_no_text(place: Any, folder: Path) -> None:
    (folder / os.fsdecode(b"\xff\n\x1b[31m.csv")).touch()
    (name,) = _quarantine_table(folder.parent, place.city)[0]["file"]
    assert name.isprintable() and name.encode()


def test_only_the_newest_are_told(place: Any, folder: Path) -> None:
    for number in range(_MOST_FILES + 3):
        (folder / f"{number}.csv").touch()
    table, files = _quarantine_table(folder.parent, place.city)
    assert files == _MOST_FILES + 3 and len(table) == _MOST_FILES


def test_one_line() -> None:
    assert one_line(" a\tb\n c\u202e\ud800 ") == "a b c\ufffd\ufffd"
