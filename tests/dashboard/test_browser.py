"""The page in a real browser: what is drawn, what a click does, and that nothing outside this machine is asked."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from dashboard.launch import command

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

TIMEOUT_MS = 60_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CELLS = "path.leaflet-interactive"


@pytest.fixture(scope="module")
def place(make_place: Callable[[int, int], Any]) -> Any:
    """A filled city of 32 x 32 cells; the newest forecast has no observed slot, the one before it has one."""
    place = make_place(32, 32)
    place.add_flows()
    place.add_model()
    place.add_records([10.1, 10.35, 10.6], [45.4, 45.25, 45.1])
    for init_time in (place.newest, place.newest + place.city.slot):
        place.add_forecast(init_time)
    return place


@pytest.fixture(scope="module")
def address(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server over that city, started outside the project's folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    project = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": project, "OMP_WAIT_POLICY": "passive", "HOME": str(folder)}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            command(place.file, "testville", port), cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/_stcore/health", server)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(30)
    assert "Traceback" not in (folder / "log").read_text()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + TIMEOUT_MS / 1000
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not answer at {url}")


@pytest.fixture(scope="module")
def requests() -> list[str]:
    """The address of every request that the page made."""
    return []


@pytest.fixture(scope="module")
def tab(requests: list[str]) -> Iterator[Any]:
    """A tab of a browser of its own."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        sync_api.expect.set_options(timeout=TIMEOUT_MS / 2)
        page.on("request", lambda request: requests.append(request.url))
        yield page
        browser.close()


@pytest.fixture
def page(tab: Any, address: str) -> Any:
    """The page as it is when it has just been opened, its first map drawn."""
    tab.goto(address)
    cells_of(tab, "Predicted").nth(1023).wait_for()
    return tab


def cells_of(page: Any, name: str) -> Any:
    """The cells drawn on a map."""
    return page.frame_locator("iframe").nth(["Predicted", "Observed", "Difference"].index(name)).locator(CELLS)


def colour(page: Any, name: str, cell: int) -> str:
    return str(cells_of(page, name).nth(cell).get_attribute("fill"))


def press(page: Any, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).click()


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option).click()


def test_the_newest_forecast_is_drawn_and_what_is_unobserved_stays_empty(page: Any) -> None:
    expect = sync_api.expect
    expect(page.get_by_role("heading", name="Traffic forecast")).to_be_visible()
    expect(page.get_by_role("combobox", name="Model")).to_have_value("vmrnn-b-1 (champion)")
    expect(page.get_by_role("radio", name="09:30-10:00 (+0 min)")).to_be_checked()
    expect(cells_of(page, "Predicted")).to_have_count(1024)
    expect(page.get_by_text("Not observed yet: the records of this slot have not arrived.")).to_be_visible()
    expect(page.frame_locator("iframe").nth(1).locator(".leaflet-image-layer")).to_have_count(1)
    expect(cells_of(page, "Observed")).to_have_count(0)
    expect(cells_of(page, "Difference")).to_have_count(0)


def test_an_earlier_forecast_is_compared_with_what_came(page: Any) -> None:
    choose(page, "At", "09:00 CEST")
    sync_api.expect(cells_of(page, "Observed")).to_have_count(1024)
    sync_api.expect(cells_of(page, "Difference")).to_have_count(1024)
    sync_api.expect(page.get_by_text("RMSE")).to_be_visible()


def test_a_lead_time_changes_the_colours(page: Any) -> None:
    choose(page, "At", "09:00 CEST")
    sync_api.expect(cells_of(page, "Observed")).to_have_count(1024)
    before = colour(page, "Predicted", 2)
    press(page, "09:30-10:00 (+30 min)")
    sync_api.expect(cells_of(page, "Predicted").nth(2)).not_to_have_attribute("fill", before)
    sync_api.expect(cells_of(page, "Observed")).to_have_count(0)
    press(page, "09:00-09:30 (+0 min)")
    sync_api.expect(cells_of(page, "Predicted").nth(2)).to_have_attribute("fill", before)


def test_outflow_takes_the_place_of_inflow(page: Any) -> None:
    choose(page, "At", "09:00 CEST")
    total = int(sum(range(1024)) + 0.5 * 1024)
    sync_api.expect(page.get_by_text(f"city total {total:,}")).to_be_visible()
    press(page, "Outflow")
    sync_api.expect(page.get_by_text("Predicted outflow")).to_be_visible()
    sync_api.expect(page.get_by_text(f"city total {total + 1000 * 1024:,}")).to_be_visible()
    press(page, "Inflow")
    sync_api.expect(page.get_by_text("Predicted inflow")).to_be_visible()


@pytest.mark.parametrize(("name", "row", "col"), [("Predicted", 3, 17), ("Difference", 20, 9)])
def test_a_click_on_a_cell_shows_its_series(page: Any, name: str, row: int, col: int) -> None:
    choose(page, "At", "09:00 CEST")
    sync_api.expect(cells_of(page, name)).to_have_count(1024)
    cells_of(page, name).nth(row * 32 + col).click()
    sync_api.expect(page.get_by_text(f"Cell: row {row}, column {col}")).to_be_visible()
    sync_api.expect(page.get_by_test_id("stVegaLiteChart").locator("canvas, svg").first).to_be_visible()
    table = page.get_by_role("table")
    sync_api.expect(table.get_by_role("row").nth(1)).to_contain_text(f"{row * 32 + col + 0.5:.1f}")
    sync_api.expect(table).to_contain_text("not observed yet")


def test_the_maps_keep_their_place_and_move_together(page: Any) -> None:
    choose(page, "At", "09:00 CEST")
    sync_api.expect(cells_of(page, "Difference")).to_have_count(1024)
    frames = [frame for frame in page.frames if "streamlit_folium" in frame.url]
    frames[1].evaluate("() => { map.setView([45.3, 10.2], 12, {animate: false}); }")
    press(page, "09:30-10:00 (+30 min)")
    sync_api.expect(cells_of(page, "Observed")).to_have_count(0)
    zooms = [frame.evaluate("[map.getZoom(), map.getCenter().lat]") for frame in frames]
    np.testing.assert_allclose(zooms, [[12, 45.3]] * 3, atol=1e-3)


def test_a_city_without_flows_says_what_to_do(page: Any) -> None:
    choose(page, "City", "nowhere")
    sync_api.expect(page.get_by_text("trafficcast ingest --city nowhere")).to_be_visible()


def test_nothing_outside_this_machine_is_asked(page: Any, requests: list[str]) -> None:
    cells_of(page, "Predicted").nth(99).click()
    sync_api.expect(page.get_by_test_id("stVegaLiteChart").locator("canvas, svg").first).to_be_visible()
    paths = [urlsplit(url).path for url in requests]
    assert "/app/static/leaflet-1.9.4/leaflet.js" in paths
    asked = {(urlsplit(url).scheme, urlsplit(url).hostname) for url in requests}
    assert {host for scheme, host in asked if scheme not in ("data", "blob")} == {"127.0.0.1"}
