"""Pages that stay open beside a service: time passes, slots end, alerts come and go, forecasts become late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding
from trafficcast.config.settings import load_config
from trafficcast.stores.flows import flows_dataset

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.slow
SECONDS = 30_000.0  # within which an open page says what is true: milliseconds
MINUTE = np.timedelta64(1, "m")
CELLS = "path.leaflet-interactive"
VIEW = "[map.getZoom(), map.getCenter().lat, map.getCenter().lng]"


def present() -> np.datetime64:
    return np.datetime64("now", "us")


@pytest.fixture(scope="module")
def live(make_place: Callable[[int, int], Any]) -> Any:
    """A city with slots of a minute, a model with typical flows, and forecasts that are late after three minutes."""
    place = make_place(5, 7)
    zone = 'timezone = "Europe/Rome"\n'
    text = place.file.read_text().replace(zone, f"{zone}slot_minutes = 1\n", 1)
    place.file.write_text(f"{text}\n[service]\nwait_minutes = 0\n")
    config = load_config(place.file)
    place = type(place)(place.file, config, config.city("testville"))
    place.add_model()
    typical = np.full((2, 1440, 2, 5, 7), 2.0, np.float32)
    save_file({"table": typical}, config.paths.models / "testville" / "vmrnn-b-1" / "climatology.safetensors")
    return place


@pytest.fixture(scope="module")
def address(live: Any, serve: Callable[..., Any]) -> Iterator[str]:
    """Where the pages of the live city are."""
    with serve(live.file) as server:
        yield str(server.address)


@pytest.fixture
def running(live: Any) -> np.datetime64:
    """A slot that runs for 40 s more at least; it is in the store already, and its forecast was made 3 slots ahead."""
    while (present() - live.city.slot_start(present())) > 20 * np.timedelta64(1, "s"):
        time.sleep(0.5)
    slot: np.datetime64 = live.city.slot_start(present())
    times = np.arange(slot - 20 * MINUTE, slot + MINUTE, MINUTE)
    flow = np.full((len(times), 2, 5, 7), 3)
    live.flows.write(flows_dataset(live.city, times, flow, np.full(len(times), 9), np.ones(len(times))))
    for early in range(8, 2, -1):
        live.add_forecast(slot - early * MINUTE)
    return slot


def clock(live: Any, slot: np.datetime64) -> str:
    start, end = live.city.local(np.array([slot, slot + MINUTE]))
    return f"{start:%H:%M}-{end:%H:%M} {start:%Z}"


def header(tab: Any) -> Any:
    return tab.get_by_test_id("stCaptionContainer").filter(has_text="testville, ").first


def opened(tab: Any, url: str) -> Any:
    tab.goto(url)
    header(tab).wait_for()
    tab.locator("[data-test-script-state=notRunning]").wait_for()
    return tab


def test_an_open_page_says_what_a_fresh_one_says_though_nothing_is_published(
    live: Any, address: str, running: np.datetime64, open_tab: Callable[..., Any]
) -> None:
    expect = sync_api.expect
    page, data = open_tab(), open_tab()
    chosen = clock(live, running - 2 * MINUTE)
    moment = live.city.isoformat(running - 2 * MINUTE).replace("+", "%2B")
    opened(page, f"{address}?city=testville&time={moment}&cell=2,3")
    expect(page.frame_locator("iframe").nth(2).locator(CELLS)).to_have_count(35)
    expect(page.get_by_text(f"{chosen} is over. The maps compare its forecast with observed flows")).to_be_visible()
    frame = next(frame for frame in page.frames if "city_map" in frame.url)
    frame.evaluate("map.setZoom(map.getZoom() + 1)")
    page.wait_for_timeout(1500)
    place = frame.evaluate(VIEW)
    opened(data, f"{address}data?city=testville")
    expect(data.get_by_text("still runs: so far, 1 of 1 min")).to_be_visible()
    expect(header(page)).to_contain_text(f"{clock(live, running - MINUTE)})")
    assert "-1 min" not in page.inner_text("body") + data.inner_text("body")
    assert "The forecast is late" not in page.inner_text("body")

    end = (running + MINUTE - present()) / np.timedelta64(1, "ms")
    page.wait_for_timeout(max(float(end), 0))  # nothing is written any more
    for tab in (page, data):
        expect(header(tab)).to_contain_text(f"{clock(live, running)})", timeout=SECONDS)
    expect(page.get_by_text("The forecast is late")).to_be_visible(timeout=SECONDS)
    expect(data.get_by_text("still runs")).to_have_count(0)
    fresh = opened(open_tab(), f"{address}?city=testville")
    expect(header(page)).to_have_text(header(fresh).inner_text(), timeout=10_000)
    assert chosen in page.inner_text("body") and "Cell: row 2, column 3" in page.inner_text("body")
    assert frame.evaluate(VIEW) == pytest.approx(place, abs=1e-6)


def test_now_opens_where_three_maps_are_filled(
    live: Any, address: str, running: np.datetime64, open_tab: Callable[..., Any]
) -> None:
    expect = sync_api.expect
    page = opened(open_tab(), f"{address}?city=testville")
    for number in range(3):
        expect(page.frame_locator("iframe").nth(number).locator(CELLS)).to_have_count(35)
    for words in ("Predicted inflow", "Typical inflow", "Predicted less typical"):
        expect(page.get_by_text(words)).to_be_visible()
    expect(page.get_by_text(f"{clock(live, running)} still runs: so far, 1 of 1 min, city total 105.")).to_be_visible()


def test_alerts_come_and_go_on_every_page_that_is_open(
    live: Any, address: str, running: np.datetime64, open_tab: Callable[..., Any]
) -> None:
    expect, book = sync_api.expect, AlertBook(live.stores.alerts)
    tabs = {path: opened(open_tab(), f"{address}{path}?city=testville") for path in ("", "skill", "data", "models")}
    for tab in tabs.values():
        expect(tab.get_by_role("link", name="Alerts", exact=True).first).to_be_visible()
    finding = Finding("flow above=5.0", "flow", "critical", "much <b>traffic</b>", 7.0, 5.0, "", None, None)
    book.update("testville", [finding], present())
    for tab in tabs.values():
        expect(tab.get_by_text("1 open alert in testville: 1 critical. much <b>traffic</b>")).to_be_visible(
            timeout=SECONDS
        )
        expect(tab.get_by_role("link", name="Alerts (▲1)", exact=True).first).to_be_visible()
    expect(tabs[""]).to_have_title("(▲1) Now")
    expect(tabs["data"]).to_have_title("(▲1) Data")
    book.update("testville", [], present())
    for tab in tabs.values():
        expect(tab.get_by_text("1 open alert")).to_have_count(0, timeout=SECONDS)
        expect(tab.get_by_role("link", name="Alerts", exact=True).first).to_be_visible()
    expect(tabs[""]).to_have_title("Now")
