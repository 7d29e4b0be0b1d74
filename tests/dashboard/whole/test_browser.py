"""The page in a real browser: what is drawn, what a click does, and that nothing outside this machine is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SECONDS = 30
CELLS = "path.leaflet-interactive"
SLOT = np.timedelta64(30, "m")
# Something that each page of the made-up city says.
SAYS = {"Look back": "Predicted", "Skill": "2 forecasts", "Models": "champion", "Data": "observed", "Alerts": "alerts"}


@pytest.fixture(scope="module")
def place(filled: Any) -> Any:
    """The city that is served."""
    return filled


@pytest.fixture(scope="module")
def requests() -> list[str]:
    """The address of every request that the page made."""
    return []


@pytest.fixture(scope="module")
def tab(open_tab: Callable[..., Any], requests: list[str]) -> Any:
    """A tab whose requests are noted."""
    tab = open_tab()
    tab.on("request", lambda request: requests.append(request.url))
    return tab


@pytest.fixture(scope="module")
def address(server: Any) -> str:
    """Where the pages are."""
    return str(server.address)


@pytest.fixture
def page(tab: Any, address: str) -> Any:
    """The Now page as it is when it has just been opened, its first map drawn."""
    return opened(tab, address)


def opened(tab: Any, url: str) -> Any:
    tab.goto(url)
    cells_of(tab, 0).nth(1023).wait_for()
    tab.locator("[data-test-script-state=notRunning]").wait_for()
    return tab


def cells_of(page: Any, number: int) -> Any:
    """The cells drawn on a map: predicted 0, observed 1, the third one 2."""
    return page.frame_locator("iframe").nth(number).locator(CELLS)


def parameters(page: Any) -> dict[str, str]:
    """What the address says."""
    return dict(parse_qsl(urlsplit(page.url).query))


def wait_for_address(page: Any, **wanted: str | None) -> None:
    end = time.monotonic() + SECONDS
    while any(parameters(page).get(name) != value for name, value in wanted.items()):
        assert time.monotonic() < end, (page.url, wanted)
        page.wait_for_timeout(100)


def press(page: Any, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).click()


def total(kind: int, lead: int = 0) -> str:
    """The city total of the made-up forecasts, as the page writes it."""
    return f"city total {sum(range(1024)) + (0.5 + 1000 * kind + 10 * lead) * 1024:,.0f}"


def test_it_opens_where_three_maps_are_filled_and_what_is_unobserved_stays_empty(page: Any) -> None:
    expect = sync_api.expect
    for number in range(3):
        expect(cells_of(page, number)).to_have_count(1024)
    expect(page.get_by_text("Wed 8 May 2024 09:00-09:30 CEST is over. The maps compare")).to_be_visible()
    page.get_by_role("slider").first.press("ArrowRight")
    expect(page.get_by_text("09:30-10:00 CEST (+0 min)").first).to_be_visible()
    expect(cells_of(page, 0)).to_have_count(1024)
    expect(page.get_by_text(total(0))).to_be_visible()
    expect(page.get_by_text("not observed yet").first).to_be_visible()
    expect(page.frame_locator("iframe").nth(1).locator(".leaflet-image-layer")).to_have_count(1)
    expect(cells_of(page, 1)).to_have_count(0)
    expect(cells_of(page, 2)).to_have_count(0)
    expect(page.get_by_text("The forecast is late")).to_be_visible()
    expect(page.get_by_text("times are Europe/Rome")).to_be_visible()


def test_the_slider_moves_through_the_slots_by_keyboard_too(page: Any) -> None:
    sync_api.expect(page.get_by_text("RMSE")).to_be_visible()
    page.get_by_role("slider").first.press("ArrowLeft")
    wait_for_address(page, time="2024-05-08T08:30:00+02:00")
    page.get_by_role("slider").first.press("ArrowRight")
    wait_for_address(page, time=None)
    sync_api.expect(cells_of(page, 2)).to_have_count(1024)
    page.get_by_role("slider").first.press("ArrowRight")
    wait_for_address(page, time="2024-05-08T09:30:00+02:00")
    page.get_by_role("slider").first.press("ArrowRight")
    sync_api.expect(page.get_by_text(total(0, 1))).to_be_visible()
    sync_api.expect(page.get_by_text("10:00-10:30 CEST (+30 min)").first).to_be_visible()


def test_outflow_and_net_take_the_place_of_inflow(page: Any) -> None:
    press(page, "outflow")
    sync_api.expect(page.get_by_text("Predicted outflow")).to_be_visible()
    sync_api.expect(page.get_by_text(total(1))).to_be_visible()
    press(page, "net")
    sync_api.expect(page.get_by_text(f"city total {-1000 * 1024:,}")).to_be_visible()
    wait_for_address(page, kind="net")


@pytest.mark.parametrize(("number", "row", "col"), [(0, 3, 17), (2, 20, 9)])
def test_a_click_on_a_cell_shows_its_series(tab: Any, address: str, number: int, row: int, col: int) -> None:
    page = opened(tab, f"{address}?city=testville&time=2024-05-08T09:00")
    sync_api.expect(cells_of(page, number)).to_have_count(1024)
    cell = cells_of(page, number).nth(row * 32 + col)
    at_rest(page, cell)
    cell.click()
    sync_api.expect(page.get_by_text(f"Cell: row {row}, column {col}")).to_be_visible()
    wait_for_address(page, cell=f"{row},{col}")
    sync_api.expect(page.get_by_test_id("stVegaLiteChart").nth(1).locator("canvas, svg").first).to_be_visible()


def at_rest(page: Any, cell: Any) -> None:
    """Wait until a cell has stopped moving, as the maps fit their view to the city while the page is laid out."""
    cell.scroll_into_view_if_needed()
    before = None
    while (box := cell.bounding_box()) != before:
        before = box
        page.wait_for_timeout(500)


def test_an_address_shows_a_colleague_the_same_and_back_and_forward_work(tab: Any, address: str) -> None:
    page = opened(tab, f"{address}?city=testville&time=2024-05-08T09:00:00%2B02:00&kind=outflow&cell=4,5")
    sync_api.expect(page.get_by_text("Predicted outflow")).to_be_visible()
    sync_api.expect(page.get_by_text("Cell: row 4, column 5")).to_be_visible()
    cells_of(page, 0).nth(7).click()
    sync_api.expect(page.get_by_text("Cell: row 0, column 7")).to_be_visible()
    wait_for_address(page, cell="0,7")
    page.go_back()
    sync_api.expect(page.get_by_text("Cell: row 4, column 5")).to_be_visible()
    page.go_forward()
    sync_api.expect(page.get_by_text("Cell: row 0, column 7")).to_be_visible()


VIEW = "[map.getZoom(), map.getCenter().lat, map.getCenter().lng]"


def zoomed(page: Any, frames: list[Any], number: int) -> list[float]:
    """The view, zoom, latitude and longitude, of all maps after the wheel was turned on one of them."""
    before = frames[number].evaluate(VIEW)
    box = page.locator("iframe[title*=map]").nth(number).bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.wheel(0, -400)
    end = time.monotonic() + SECONDS
    while True:  # until all have come to rest at one place, another than before
        page.wait_for_timeout(500)
        views = [frame.evaluate(VIEW) for frame in frames]
        if all(view == pytest.approx(views[number], abs=1e-9) for view in views) and views[number][0] > before[0] + 0.5:
            return list(views[number])
        assert time.monotonic() < end, views


def test_the_maps_keep_their_place_and_move_together(tab: Any, address: str) -> None:
    page = opened(tab, f"{address}?city=testville&time=2024-05-08T09:00")
    sync_api.expect(cells_of(page, 2)).to_have_count(1024)
    frames = [frame for frame in page.frames if "city_map" in frame.url]
    chosen = zoomed(page, frames, 1)
    page.get_by_role("slider").first.press("ArrowRight")
    sync_api.expect(cells_of(page, 1)).to_have_count(0)
    np.testing.assert_allclose([frame.evaluate(VIEW) for frame in frames], [chosen] * 3, atol=1e-6)


def test_playback_goes_on_by_itself_and_the_address_says_where_it_stopped(page: Any) -> None:
    page.get_by_text("Play", exact=True).click()
    for lead in (1, 2):
        sync_api.expect(page.get_by_text(total(0, lead))).to_be_visible()
    page.get_by_text("Play", exact=True).click()
    end = time.monotonic() + SECONDS
    while "time" not in parameters(page) and time.monotonic() < end:
        page.wait_for_timeout(100)
    assert parameters(page)["time"].startswith("2024-05-0")


def test_a_new_forecast_appears_by_itself_and_zoom_and_cell_stay(
    tab: Any, address: str, place: Any, tmp_path: Path
) -> None:
    page = opened(tab, f"{address}?city=testville&cell=4,5&time=2024-05-08T10:00")
    frames = [frame for frame in page.frames if "city_map" in frame.url]
    chosen = zoomed(page, frames, 0)
    published = place.newest + 2 * SLOT
    script = (
        "import sys, numpy as np; from pathlib import Path; from trafficcast.config.settings import load_config; "
        "from trafficcast.stores.city_stores import CityStores; "
        "from trafficcast.stores.forecasts import forecast_dataset; "
        "config = load_config(Path(sys.argv[1])); city = config.city('testville'); "
        "time = np.datetime64(sys.argv[2]); flow = np.full((4, 2, 32, 32), 2.0); "
        "card = {'version': 'vmrnn-b-1', 'architecture': {'name': 'vmrnn-b'}}; "
        "made = forecast_dataset(city, card, time, flow, time); "
        "CityStores.of(config, city).forecasts('vmrnn-b-1').write(made)"
    )
    project = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {"PYTHONPATH": project}
    subprocess.run([sys.executable, "-c", script, str(place.file), str(published)], check=True, env=environment)
    sync_api.expect(page.get_by_text("city total 2,048").first).to_be_visible()
    sync_api.expect(page.get_by_text("10:00-10:30 CEST (+0 min)").first).to_be_visible()
    sync_api.expect(page.get_by_text("Cell: row 4, column 5")).to_be_visible()
    assert frames[0].evaluate(VIEW) == pytest.approx(chosen, abs=1e-6)
    place.forecasts().prune(np.datetime64("2024-05-09"))
    for init_time in (place.newest, place.newest + SLOT):
        place.add_forecast(init_time)


@pytest.mark.parametrize("title", ["Look back", "Skill", "Models", "Data", "Alerts"])
def test_every_page_is_a_click_away_and_keeps_the_city(page: Any, address: str, title: str) -> None:
    page.get_by_role("link", name=title, exact=True).first.click()
    path = title.lower().replace(" ", "-")
    page.wait_for_url(f"**/{path}**")
    wait_for_address(page, city="testville")
    sync_api.expect(page.get_by_test_id("stMainBlockContainer").get_by_text(SAYS[title]).first).to_be_visible()
    sync_api.expect(page.get_by_test_id("stException")).to_have_count(0)


def test_a_city_without_data_says_what_to_do_and_an_unknown_one_is_the_default(tab: Any, address: str) -> None:
    tab.goto(f"{address}?city=nowhere")
    sync_api.expect(tab.get_by_text("trafficcast ingest PATH --city nowhere")).to_be_visible()
    opened(tab, f"{address}?city=../../etc&cell=%3Cscript%3E")
    wait_for_address(tab, city="testville", cell=None)


def test_nothing_outside_this_machine_is_asked(page: Any, requests: list[str]) -> None:
    cells_of(page, 0).nth(99).click()
    sync_api.expect(page.get_by_test_id("stVegaLiteChart").nth(1).locator("canvas, svg").first).to_be_visible()
    paths = [urlsplit(url).path for url in requests]
    assert any(path.endswith("/leaflet-1.9.4/leaflet.js") for path in paths)
    asked = {(urlsplit(url).scheme, urlsplit(url).hostname) for url in requests}
    assert {host for scheme, host in asked if scheme not in ("data", "blob")} == {"127.0.0.1"}
