"""The pages as they are used: files downloaded, keys alone, tablets, and many pages at once."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SECONDS = 30
CELLS = "path.leaflet-interactive"
SLOT = np.timedelta64(30, "m")
TIME = "2024-05-08T09:00:00+02:00"
ADDRESS = "?city=testville&time=2024-05-08T09:00"
PAGES = ("", "look-back", "skill", "models", "data", "alerts")
SIZES = ((1280, 720), (1024, 768), (820, 1180))
# What does not fit: controls and words beyond the part of the page that shows them, and controls over each other.
MISFITS = """() => {
    const box = e => e.getBoundingClientRect();
    const shown = e => box(e).width > 2 && box(e).height > 2 && e.checkVisibility({opacityProperty: true});
    const name = e => (e.innerText || e.getAttribute("aria-label") || e.tagName).slice(0, 30);
    const wrong = [];
    if (document.documentElement.scrollWidth > innerWidth) wrong.push("the document is wider than the window");
    const main = document.querySelector("[data-testid=stMain]");
    if (main.scrollWidth > main.clientWidth) wrong.push("the page is wider than the window");
    const controls = [...document.querySelectorAll("button, [data-testid=stTopNavLink], [data-baseweb=select]")];
    const words = [...document.querySelectorAll("button p, label p, [data-testid=stCaptionContainer] p")];
    for (const e of [...controls, ...words].filter(shown)) {
        let [left, right] = [0, innerWidth];
        for (let a = e.parentElement; a; a = a.parentElement) {
            if (getComputedStyle(a).overflowX === "visible") continue;
            [left, right] = [Math.max(left, box(a).left), Math.min(right, box(a).right)];
        }
        if (box(e).left < left - 1 || box(e).right > right + 1) wrong.push(name(e) + " is cut off");
    }
    const seen = controls.filter(shown);
    seen.forEach((a, i) => seen.slice(i + 1).forEach(b => {
        const [one, other] = [box(a), box(b)];
        const width = Math.min(one.right, other.right) - Math.max(one.left, other.left);
        const height = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
        if (width > 2 && height > 2 && !a.contains(b) && !b.contains(a)) wrong.push(name(a) + " and " + name(b));
    }));
    return [...new Set(wrong)];
}"""
AT_REST = """() => {
    const runs = document.querySelector("[data-test-script-state=notRunning]") === null;
    window.since = runs ? null : window.since ?? performance.now();
    return !runs && performance.now() - window.since > 300;
}"""
FOCUSED = """() => {
    const e = document.activeElement;
    return e.getAttribute("aria-label") || (e.matches("a, button") && e.querySelector("p") || e).innerText;
}"""


@pytest.fixture(scope="module")
def tab(open_tab: Callable[..., Any]) -> Any:
    """A tab with a mouse."""
    return open_tab()


@pytest.fixture(scope="module")
def tablet(open_tab: Callable[..., Any]) -> Any:
    """A tab with a touch screen."""
    return open_tab(has_touch=True)


def opened(tab: Any, url: str) -> Any:
    """A page with maps as soon as the first one is drawn."""
    tab.goto(url)
    cells_of(tab, 0).nth(1023).wait_for()
    at_rest(tab)
    return tab


def at_rest(tab: Any) -> None:
    """The server has drawn the page and, a moment later, not begun again."""
    tab.evaluate("() => { window.since = null; }")
    tab.wait_for_function(AT_REST)


def cells_of(tab: Any, number: int) -> Any:
    """The cells of a map: predicted 0, observed 1, the third one 2."""
    return tab.frame_locator("iframe").nth(number).locator(CELLS)


def wait_for(tab: Any, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, tab.url
        tab.wait_for_timeout(50)


def says(tab: Any, **wanted: str) -> Callable[[], bool]:
    """Whether the address says that."""
    return lambda: wanted.items() <= dict(parse_qsl(urlsplit(tab.url).query)).items()


def downloaded(tab: Any, name: str, folder: Path) -> tuple[str, bytes]:
    """A file of the row of downloads: its name and what is in it."""
    with tab.expect_download() as download:
        tab.get_by_role("button", name=name, exact=True).click()
    download.value.save_as(folder / "file")
    return str(download.value.suggested_filename), (folder / "file").read_bytes()


def stored(place: Any, init_time: np.datetime64, lead: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A slot's forecast and what came, as the stores hold them: (row, col), vehicles per slot."""
    slot = init_time + lead * SLOT
    forecast = place.forecasts().read(init_time, init_time + SLOT)["flow"].sel(flow_kind=kind)
    return forecast.values[0, lead], place.flows.read(slot, slot + SLOT)["flow"].sel(flow_kind=kind).values[0]


def test_what_now_shows_is_downloaded_as_it_is_stored(tab: Any, server: Any, filled: Any, tmp_path: Path) -> None:
    predicted, observed = stored(filled, filled.newest, 0, "outflow")
    page = opened(tab, f"{server.address}{ADDRESS}&kind=outflow")

    name, content = downloaded(page, "GeoJSON", tmp_path)
    assert name == "testville_2024-05-08T0900+0200_outflow_0-min-ahead.geojson"
    whole = json.loads(content)
    assert whole["slot_start"] == whole["init_time"] == TIME and whole["units"] == "vehicles per slot"
    cells = pd.DataFrame([feature["properties"] for feature in whole["features"]])
    check(cells, predicted, observed)
    corner = whole["features"][0]["geometry"]["coordinates"][0][0]
    assert corner == [filled.city.west, filled.city.north]

    name, content = downloaded(page, "CSV", tmp_path)
    cells = pd.read_csv(io.BytesIO(content))
    assert name.endswith(".csv") and set(cells["slot_start"]) == {TIME} and set(cells["flow_kind"]) == {"outflow"}
    check(cells, predicted, observed)

    name, content = downloaded(page, "NetCDF", tmp_path)
    with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as grid:
        assert name.endswith(".nc") and grid.attrs["slot_start"] == TIME and grid.attrs["model_version"] == "vmrnn-b-1"
        np.testing.assert_array_equal(grid["predicted"], predicted)
        np.testing.assert_array_equal(grid["observed"], observed)

    name, content = downloaded(page, "PNG", tmp_path)
    picture = Image.open(io.BytesIO(content))
    picture.load()
    colours = picture.convert("RGB").getcolors(2**24)
    assert name.endswith(".png") and picture.format == "PNG"
    assert picture.width > 3 * 500 and colours is not None and len(colours) > 100


def check(cells: pd.DataFrame, predicted: np.ndarray, observed: np.ndarray) -> None:
    """A row for each cell, with the values of the stores."""
    assert len(cells) == predicted.size
    for name, values in (("predicted", predicted), ("observed", observed), ("difference", predicted - observed)):
        np.testing.assert_allclose(cells[name], values[cells["row"], cells["col"]], atol=1e-3)


def test_what_look_back_shows_is_downloaded_too(tab: Any, server: Any, filled: Any, tmp_path: Path) -> None:
    page = opened(tab, f"{server.address}look-back?city=testville&time=2024-05-08T09:00&lead=0&kind=inflow")
    name, content = downloaded(page, "CSV", tmp_path)
    assert name == "testville_2024-05-08T0900+0200_inflow_0-min-ahead.csv"
    check(pd.read_csv(io.BytesIO(content)), *stored(filled, filled.newest, 0, "inflow"))


def focused(tab: Any) -> str:
    """What the next key goes to."""
    return str(tab.evaluate(FOCUSED))


def go_by_tab(tab: Any, name: str, key: str = "Tab") -> None:
    for _ in range(30):
        tab.keyboard.press(key)
        if focused(tab) == name:
            return
    raise AssertionError(f"{name} is out of the Tab key's reach")


def surroundings(tab: Any) -> bytes:
    """A picture of the control that had the focus last, and a little around it."""
    left, top, width, height = tab.evaluate("""() => {
        const active = document.activeElement;
        const r = (active === document.body ? window.last : active).getBoundingClientRect();
        return [r.x - 9, r.y - 9, r.width + 18, r.height + 18];
    }""")
    tab.wait_for_timeout(250)  # what shows the focus may fade
    return bytes(tab.screenshot(clip={"x": max(left, 0), "y": max(top, 0), "width": width, "height": height}))


def test_every_control_has_its_turn_by_the_tab_key_and_says_so(tab: Any, server: Any) -> None:
    page = opened(tab, server.address + ADDRESS)
    reached, unseen = [], []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(focused(page))
        if reached[-1] in ("Look back", "City", "inflow", "difference", "Play", "Slot"):
            with_focus = surroundings(page)
            page.evaluate("() => { window.last = document.activeElement; window.last.blur(); }")
            if surroundings(page) == with_focus:
                unseen.append(reached[-1])
            page.evaluate("() => window.last.focus({focusVisible: true})")
        if reached[-1] == "GeoJSON":
            break
    in_order = ["Now", "Look back", "Skill", "Models", "Data", "Alerts"]
    in_order += ["City", "inflow", "difference", "Play", "Slot", "GeoJSON"]
    assert [name for name in reached if name in in_order] == in_order
    assert not unseen


def test_all_is_done_by_keys_alone(tab: Any, server: Any) -> None:
    page = opened(tab, f"{server.address}look-back{ADDRESS}")
    go_by_tab(page, "Now")
    page.keyboard.press("Enter")
    sync_api.expect(page.get_by_text("Third map")).to_be_visible()
    at_rest(page)

    go_by_tab(page, "inflow")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    sync_api.expect(page.get_by_text("Predicted outflow")).to_be_visible()
    wait_for(page, says(page, kind="outflow"))

    go_by_tab(page, "Play")
    page.keyboard.press("Space")
    sync_api.expect(page.get_by_role("switch")).to_be_checked()
    page.keyboard.press("Space")
    sync_api.expect(page.get_by_role("switch")).not_to_be_checked()

    go_by_tab(page, "Slot")
    page.keyboard.press("Home")
    wait_for(page, says(page, time="2024-05-07T09:30:00+02:00"))
    sync_api.expect(cells_of(page, 0)).to_have_count(0)  # of which there is no forecast
    at_rest(page)

    go_by_tab(page, "CSV")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith("_outflow_observed.csv")

    go_by_tab(page, "City", "Shift+Tab")
    for key in ("ArrowDown", "ArrowUp", "Enter"):  # opens, goes to the other city, takes it
        page.keyboard.press(key)
    wait_for(page, says(page, city="nowhere", kind="outflow"))


@pytest.mark.parametrize("path", PAGES)
def test_pages_fit_small_screens_and_tablets(tablet: Any, server: Any, path: str) -> None:
    tablet.goto(f"{server.address}{path}{ADDRESS}")
    tablet.get_by_test_id("stMainBlockContainer").locator("[data-testid=stElementContainer]").nth(1).wait_for()
    for width, height in SIZES:
        tablet.set_viewport_size({"width": width, "height": height})
        at_rest(tablet)
        end = time.monotonic() + 5
        while (misfits := tablet.evaluate(MISFITS)) and time.monotonic() < end:
            tablet.wait_for_timeout(100)
        assert not misfits, (width, height)


def test_a_tap_chooses_a_cell(tablet: Any, server: Any) -> None:
    tablet.set_viewport_size({"width": 820, "height": 1180})
    page = opened(tablet, server.address + ADDRESS)
    cells_of(page, 0).nth(5 * 32 + 20).tap()
    sync_api.expect(page.get_by_text("Cell: row 5, column 20")).to_be_visible()
    wait_for(page, says(page, cell="5,20"))


def test_ten_people_at_once(open_tab: Callable[..., Any], server: Any) -> None:
    tabs = [open_tab() for _ in range(10)]
    for number, tab in enumerate(tabs):
        # Ten times three maps are too much for the browser, not for the server.
        tab.route("**/component/**", lambda route: route.abort())
        address = f"{server.address}{PAGES[number % 2]}{ADDRESS}&cell={number},9"
        tab.goto(address, wait_until="commit")
    for number, tab in enumerate(tabs):
        sync_api.expect(tab.get_by_text(f"Cell: row {number}, column 9")).to_be_visible()
        at_rest(tab)
        sync_api.expect(tab.get_by_test_id("stException")).to_have_count(0)
        tab.context.close()
