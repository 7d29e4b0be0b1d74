"""A damaged file blanks nothing else: in a browser each page names it, with what helps, and shows the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

DAY = "city=testville&time=2024-05-08T09:00"
JOINER = "\N{WORD JOINER}"
# The damaged file, the pages that need it, and what each of them shows nevertheless.
CASES = {
    "flows": ("data/testville/flows/2024-05-08.nc", {"": "Hot spots", "look-back": "Forecasts of this day"}),
    "forecasts": (
        "data/testville/forecasts/vmrnn-b-1/2024-05-08.nc",
        {"": "City total", "look-back": "through the day"},
    ),
    "scores": (
        "data/testville/scores/vmrnn-b-1/2024-05-08.nc",
        {"look-back": "through the day", "skill": "1 forecasts"},
    ),
    "card": ("models/testville/vmrnn-b-1/card.json", {"models": "champion vmrnn-b-1"}),
    "alerts": ("data/alerts.sqlite", {"alerts": "Rules of this city"}),
    "records": ("data/testville/records/state.sqlite", {"data": "Vehicles per slot"}),
}


@pytest.fixture(scope="module")
def place(make_place: Callable[[int, int], Any]) -> Any:
    """A small city with something in each store, forecasts and scores of two days."""
    place = make_place(5, 7)
    place.add_flows()
    place.add_model()
    place.add_records([10.1, 10.35, 10.6], [45.4, 45.25, 45.1])
    for init_time in (place.newest - np.timedelta64(1, "D"), place.newest):
        place.add_forecast(init_time)
        place.add_scores(init_time)
    AlertBook(place.stores.alerts).update(
        "testville", [Finding("r", "flow", "warning", "much", 1.0, 0.5)], place.newest
    )
    return place


@pytest.fixture(scope="module")
def address(place: Any, serve: Callable[[Path], Any]) -> Iterator[str]:
    """Where its pages are."""
    with serve(place.file) as server:
        yield server.address


@pytest.mark.parametrize("kind", CASES)
def test_a_page_names_the_file_and_shows_the_rest(
    kind: str, place: Any, address: str, open_tab: Callable[..., Any]
) -> None:
    name, pages = CASES[kind]
    file, page = place.file.parent / name, open_tab()
    whole = file.read_bytes()
    try:
        file.write_bytes(b"no such file")
        for path, shown in pages.items():
            page.goto(f"{address}{path}?{DAY}")
            main = page.get_by_test_id("stMain")
            sync_api.expect(main).to_contain_text(shown)
            page.locator("[data-test-script-state=notRunning]").wait_for()
            said = main.inner_text().replace(JOINER, "")
            assert file.name in said, said
            if kind != "card":
                assert "run trafficcast repair" in said, said
            sync_api.expect(page.get_by_test_id("stException")).to_have_count(0)
    finally:
        file.write_bytes(whole)
