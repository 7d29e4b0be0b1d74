"""Pages beside writers: none waits for them, none makes, changes or locks a file."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.ledger import Ledger
from trafficcast.stores.scores import score_dataset

PAGES = ("forecasts.now", "forecasts.look_back", "skill.skill", "skill.models", "data.data", "alerts.alerts")
SECONDS = 10.0  # one on an idle machine; a writer would be waited for 30
# A writer that has every database and every lock below a folder to itself, until its standard input ends.
HOLD = """
import sqlite3, sys
from pathlib import Path
from filelock import FileLock
root, held = Path(sys.argv[1]), []
for file in root.rglob("*.sqlite"):
    held.append(sqlite3.connect(file, isolation_level=None))
    held[-1].execute("BEGIN EXCLUSIVE")
for file in root.rglob(".lock"):
    held.append(FileLock(file))
    held[-1].acquire()
print(len(held), flush=True)
sys.stdin.read()
"""
# A writer that is killed with half of its changes in the file, so that its journal is to be rolled back.
DIE = """
import os, sqlite3, sys
from pathlib import Path
opened = [sqlite3.connect(file, isolation_level=None) for file in Path(sys.argv[1]).rglob("*.sqlite")]
for database in opened:
    database.execute("PRAGMA cache_size = 1")
    database.execute("BEGIN EXCLUSIVE")
    database.execute("CREATE TABLE junk (a)")
    database.executemany("INSERT INTO junk VALUES (?)", [(bytes(5000),)] * 50)
os.kill(os.getpid(), 9)
"""


def page(file: str, name: str, section: str | None) -> None:
    """A script of one page alone, at a cell."""
    from importlib import import_module
    from pathlib import Path

    import streamlit as st

    from dashboard.page.view import View
    from trafficcast.config.settings import load_config

    if section is not None:
        st.session_state["data section"] = section
    config = load_config(Path(file))
    import_module(f"dashboard.{name}").draw(config, View(config.city("testville"), cell=(1, 2)))


def draw(place: Any, name: str, section: str | None = None) -> tuple[AppTest, float]:
    """A page of a new server and session, and the seconds that it took."""
    st.cache_resource.clear()
    app = AppTest.from_function(page, default_timeout=60, args=(str(place.file), name, section))
    began = time.monotonic()
    app.run()
    seconds = time.monotonic() - began
    assert not app.exception
    return app, seconds


@contextmanager
def writer(root: Path) -> Iterator[int]:
    """Another process that holds everything meanwhile; how much that is."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the last change of every file and folder, journals and hidden ones among them."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in (root, *root.rglob("*"))}


@pytest.fixture
def filled(place: Any) -> Any:
    """A place with something of everything that pages open."""
    place.add_records([10.1, 10.2, 10.3], [45.1, 45.2, 45.3])
    place.add_flows()
    place.add_model()
    for init_time in (place.start, place.newest):
        place.add_forecast(init_time)
        truth = np.full((4, 2, place.city.rows, place.city.cols), 5.0)
        scores = score_dataset(place.city, init_time, {"vmrnn-b-1": truth + 1}, truth)
        CityStores.of(place.config, place.city).scores("vmrnn-b-1").write(scores)
    finding = Finding("flow above=5.0", "flow", "critical", "much", 7.0, 5.0, "row 1, column 4", 10.45, 45.35)
    AlertBook(place.config.paths.data / "alerts.sqlite").update("testville", [finding], place.newest)
    Ledger(place.config.paths.data / "ledger.sqlite").record("forecast", "testville", "", place.newest, "done")
    return place


def test_no_page_waits_for_writers_or_touches_a_file(filled: Any) -> None:
    root = filled.file.parent
    for name in PAGES:  # what is imported once, and the place that every page shows
        draw(filled, name)
    before = tree(root)
    with writer(filled.config.paths.data) as held:
        assert held >= 6  # three databases; the locks of flows, forecasts and scores
        for name in PAGES:
            app, seconds = draw(filled, name)
            assert seconds < SECONDS, (name, seconds)
            assert len(app.main.children) > 0
        app, seconds = draw(filled, "data.data", "Where records lie")
        assert seconds < SECONDS and "locked" in app.error[0].value
    assert tree(root) == before


def test_what_a_killed_writer_left_is_not_touched(filled: Any) -> None:
    root = filled.file.parent
    subprocess.run([sys.executable, "-c", DIE, str(root)], check=False)
    before = tree(root)
    assert sum(name.endswith("-journal") for name in before) == 3
    for name in PAGES:
        assert draw(filled, name)[1] < SECONDS, name
    assert tree(root) == before
