"""Text from data, files and addresses is shown as it stands, and never becomes a part of the page."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file

from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.forecasts import DEGRADED, Provenance, forecast_dataset
from trafficcast.stores.scores import score_dataset

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

# Whatever of this is rendered makes an element that is called so, or comes from there.
NAME = "hostile"
MARKDOWN = f"**{NAME}** *{NAME}* `{NAME}` $x^{NAME}$ :red[{NAME}] [{NAME}](javascript:alert('{NAME}'))"
HTML = f"<img src={NAME} onerror=alert('{NAME}')><b>{NAME}</b><script>alert('{NAME}')</script>"
LINKS = f"https://{NAME}.example www.{NAME}.example {NAME}@{NAME}.example :material/{NAME}: :smile: :+1: -> --"
TEXT = f"{HTML} <a href=//{NAME}.example>{NAME}</a> {MARKDOWN} {{{{ {NAME} }}}} {LINKS}"
TILES = json.dumps(TEXT)
FILE = f"<img src={NAME} onerror=alert('{NAME}')> **{NAME}** ${NAME}$.csv"
# Names of areas that are programs, or ends of texts, to what might compile or rewrite them on their way.
NAMES = (
    "{% x",
    "{{",
    "{#",
    "{{ 1 / 0 }}",
    "{{ ''.__class__.__mro__ }}",
    "{% raw %} %}",
    "${alert('hostile')}",
    "'; alert('hostile'); //",
    "</script><script>alert('hostile')</script>",
    "alert(coords); drawnItems_draw_control_div_1 map_div",
    "\\u007b\\\\ \\' \\\" %(x)s {0} {x!r}",
    "\N{GRINNING FACE} \N{ARABIC LETTER ALEF}",
    ":red[x] :smile: $x$ [x](//hostile.example) ![x](hostile)",
    "datum['x'] == 1 ? constructor : __proto__",
)
RENDERED = f"""() => [...document.querySelectorAll("body *")].filter(e =>
    ["{NAME}", "alert('{NAME}')", "x{NAME}"].includes(e.textContent.trim())
    || ["src", "href", "onerror", "data", "srcdoc"].some(name => (e.getAttribute(name) || "").includes("{NAME}"))
    || e.matches(".katex, [data-testid=stIconMaterial]") && e.textContent.includes("{NAME}")
).map(e => e.outerHTML.slice(0, 200))"""
JOINER = "\N{WORD JOINER}"  # which labels.plain may put between two signs
SECONDS = 30
VERSION = "vmrnn-b-1"
DAY = "city=testville&time=2024-05-08T09:00"
# The sections of a page, and something that each of them says.
SKILL = {
    "By lead": "The lead time is",
    "Over time": "RMSE",
    "By hour and weekday": "RMSE",
    "On the map": "RMSE less that of typical",
    "Intervals": "have no prediction intervals",
    "Published metrics": "From the model's card",
}
MODELS = {
    "Scores": "Validation chose",
    "Training curve": "Numbers",
    "Intervals": "Shares are between 0 and 1",
    "Facts": "Show",
    "Card": TEXT,
    "Against the champion": "Challenger",
}
DATA = {
    "Calendar": "Vehicles per slot",
    "Quality report": f"slots from {TEXT} to {TEXT}",
    "Where records lie": "The city's box",
    "Quarantine": f"in {FILE}, or remove it.",
}
ADDRESSES = (
    "?city=../../../../etc/passwd",
    "?city=%00&time=%00&kind=%00&cell=%00&lead=%00&other=%00",
    f"?city={quote(TEXT)}&time={quote(TEXT)}&kind={quote(TEXT)}&cell={quote(TEXT)}",
    "?city=testville&cell=-1,9999999999999999999&time=99999-12-31T23:59&kind=constructor&lead=-1",
    "?city=testville&city=nowhere&time=0001-01-01T00:00&cell=1,2,3&cell=__proto__",
    "look-back?city=testville&time=9999-12-31T23:59:59&other=0001-01-01&lead=99&kind=%2e%2e%2f",
    "look-back?city=testville&time=2024-05-08T09:00&other=1e9&lead=0x1",
    f"skill?city=testville&model={quote(TEXT)}&show=..%2F..&period=__class__",
    f"models?city=testville&model=..%2F..%2Fetc&against={quote(TEXT)}&show={quote(TEXT)}",
    "data?city=testville&time=-271821-04-20T00:00:00Z",
    f"alerts?city=testville%0d%0aX-Header:1&cell={'9' * 5000}",
)


@pytest.fixture(scope="module")
def place(make_place: Callable[[int, int], Any]) -> Any:
    """A city all of whose texts are hostile, as far as the project's own checks let them be."""
    place = make_place(5, 7)
    folder = place.file.parent
    box = [[10.1, 45.1], [10.3, 45.1], [10.3, 45.3], [10.1, 45.3], [10.1, 45.1]]
    area = {"type": "Feature", "properties": {"name": TEXT}, "geometry": {"type": "Polygon", "coordinates": [box]}}
    areas = [area, *(cell_area(name, *divmod(number, 7)) for number, name in enumerate(NAMES))]
    (folder / "areas.json").write_text(json.dumps({"type": "FeatureCollection", "features": areas}))
    city = f"areas = 'areas.json'\n[cities.testville.feed]\ninbox = {json.dumps('in ' + FILE)}\n"
    text = place.file.read_text().replace("[cities.nowhere]", city + "[cities.nowhere]")
    place.file.write_text(text)
    quarantine = folder / f"in {FILE}" / "quarantine"
    quarantine.mkdir(parents=True)
    (quarantine / FILE).touch()
    (quarantine / f"{FILE}.reason.txt").write_text(TEXT)

    place.add_flows()
    place.add_records([10.1, 10.35, 10.6], [45.4, 45.25, 45.1])
    add_models(place)
    add_forecasts(place)
    moment = np.datetime64("2024-05-08T06:00", "us")
    finding = Finding(TEXT, "flow", TEXT, TEXT, 7.0, 5.0, TEXT, 10.2, 45.2)
    others = [Finding(name, "flow", "warning", name, 7.0, 5.0, name, 10.2, 45.2) for name in NAMES]
    AlertBook(place.stores.alerts).update("testville", others, moment - np.timedelta64(1, "h"))
    AlertBook(place.stores.alerts).update("testville", [finding, *others], moment)
    said = {"kind": TEXT, "rows_read": 9, "points_kept": 9, "points_outside": 9, "first_slot": TEXT, "last_slot": TEXT}
    said |= {name: {TEXT: 3} for name in ("rows_dropped", "transitions_refused", "slots")}
    said |= {"gaps": [{"start": TEXT, "end": TEXT, "partial": 1, "missing": 1}]}
    said |= {"suspects": [{"vehicle": TEXT, "suspicion": TEXT, "points": 1, "first": TEXT, "last": TEXT}]}
    (place.stores.folder / "quality.json").write_text(json.dumps(said))
    return place


def cell_area(name: str, row: int, col: int) -> dict[str, Any]:
    """An area that covers one cell, with the name in each of its properties."""
    west, north = 10 + col / 10, 45.5 - row / 10
    ring = [[west, north - 0.1], [west + 0.1, north - 0.1], [west + 0.1, north], [west, north], [west, north - 0.1]]
    geometry = {"type": "Polygon", "coordinates": [ring], name: name}
    return {"type": "Feature", "properties": {"name": name, name: name}, "geometry": geometry}


def add_models(place: Any) -> None:
    """A champion and a challenger with hostile cards, a folder that is no model."""
    root = place.config.paths.models / "testville"
    scores = {"rmse": 2.0, "mae": 1.0, "by_lead": {"rmse": [1.0, 2.0, 3.0, 4.0]}}
    for version in (VERSION, "vmrnn-c-1"):
        card = dict.fromkeys(("created", "code_version", "data_hash", "command"), TEXT)
        card |= {
            "version": version,
            "scale": 40.0,
            "architecture": {"name": TEXT},
            "training": {TEXT: TEXT},
            "transfer": {TEXT: TEXT},
        }
        card |= {"split": dict.fromkeys(("start", "train_end", "valid_end", "test_end"), TEXT)}
        card |= {"grid": {"slot_minutes": 30, "rows": TEXT, "cols": TEXT}}
        card |= {"metrics": {part: {version: scores, TEXT: scores} for part in ("test", "validation")}}
        levels = {"0.8": {"inside": {"by_lead": [0.8]}, "width": {"by_lead": [2.0]}}}
        card |= {"intervals": {"test": {"levels": levels, "forecasts": 3}, "calibrated_from": TEXT}}
        (root / version).mkdir(parents=True)
        (root / version / "card.json").write_text(json.dumps(card))
        (root / version / "CARD.md").write_text(TEXT)
        (root / version / "curve.csv").write_text(f'epoch,"{TEXT}",valid_rmse\n1,2,3\n2,3,4\n')
    (root / FILE).mkdir()
    (root / FILE / "card.json").write_text("{}")
    (root / "broken-1").mkdir()
    (root / "broken-1" / "card.json").write_text(TEXT)
    (root / "champion").write_text(f"{VERSION}\n")
    table = np.full((2, 48, 2, place.city.rows, place.city.cols), 0.1, np.float32)
    save_file({"table": table}, root / VERSION / "climatology.safetensors")


def add_forecasts(place: Any) -> None:
    """Forecasts and scores by somebody hostile."""
    origin = Provenance(TEXT, DEGRADED, TEXT)
    frames = np.full((4, 2, place.city.rows, place.city.cols), 5.0)
    for init_time in (place.newest, place.newest - place.city.slot):
        card = {"version": VERSION, "architecture": {"name": TEXT}}
        made = forecast_dataset(place.city, card, init_time, frames, init_time, None, origin)
        place.forecasts().write(made)
        scores = score_dataset(place.city, init_time, {VERSION: frames, TEXT: frames + 1}, frames + 2)
        CityStores.of(place.config, place.city).scores(VERSION).write(scores)


@pytest.fixture(scope="module")
def address(place: Any, serve: Callable[[Path], Any]) -> Iterator[str]:
    """Where its pages are."""
    with serve(place.file) as server:
        yield server.address


@pytest.fixture(scope="module")
def page(open_tab: Callable[..., Any]) -> Iterator[Any]:
    """A tab in which nothing was run, and which asked nobody else for anything."""
    tab, dialogs, asked = open_tab(), [], []
    tab.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: asked.append(request.url))
    yield tab
    assert not dialogs
    assert {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}
    assert not [url for url in asked if urlsplit(url).path.endswith(f"/{NAME}")]


def check(page: Any) -> None:
    """The page has come to rest without an error, and nothing hostile is a part of it, in any frame."""
    page.locator("[data-test-script-state=notRunning]").wait_for()
    sync_api.expect(page.get_by_test_id("stException")).to_have_count(0)
    for frame in page.frames:
        assert frame.evaluate(RENDERED) == []


def shows(page: Any, text: str = TEXT) -> None:
    """The page shows a text as it stands."""
    end = time.monotonic() + SECONDS
    while text not in page.get_by_test_id("stMain").inner_text().replace(JOINER, ""):
        assert time.monotonic() < end, text
        page.wait_for_timeout(100)


def holds(page: Any, text: str = TEXT) -> None:
    """A table of the page holds a text as it stands."""
    cells = page.locator("[role=gridcell], [role=columnheader]").filter(has_text=text)
    sync_api.expect(cells.first).to_be_attached()


def sections(page: Any, said: dict[str, str]) -> Iterator[str]:
    """Choose one section of the page after the other; each is checked once it was drawn."""
    for section, words in said.items():
        page.get_by_role("radio", name=section, exact=True).click()
        shows(page, words)
        yield section
        check(page)


def test_now_and_look_back(page: Any, address: str) -> None:
    page.goto(f"{address}?{DAY}&cell=2,2")
    shows(page, f"This forecast is degraded: {TEXT}.")
    holds(page)  # among the hot spots
    cell = page.frame_locator("iframe").first.locator("path.leaflet-interactive").nth(2 * 7 + 2)
    cell.hover()
    tooltip = page.frame_locator("iframe").first.locator(".leaflet-tooltip")
    sync_api.expect(tooltip).to_contain_text(f"{TEXT}, row 2, column 2")
    check(page)
    page.goto(f"{address}look-back?{DAY}")
    shows(page, f"by {TEXT}: degraded ({TEXT})")
    holds(page)
    check(page)


@pytest.mark.parametrize("path", ["", "look-back"])
def test_no_name_of_an_area_is_compiled_on_its_way_to_the_map(page: Any, address: str, path: str) -> None:
    page.goto(f"{address}{path}?{DAY}")
    the_map = page.frame_locator("iframe").first
    sync_api.expect(the_map.locator("path.leaflet-interactive")).to_have_count(35)
    for number, name in enumerate(NAMES):
        the_map.locator("path.leaflet-interactive").nth(number).hover()
        sync_api.expect(the_map.locator(".leaflet-tooltip")).to_have_text(
            re.compile(re.escape(f"{name}, row {number // 7}, column {number % 7}: "))
        )
    check(page)


def test_tiles_are_asked_for_and_attributed_in_plain_text(page: Any, address: str, place: Any) -> None:
    right = place.file.read_text()
    place.file.write_text(f"{right}[map]\ntiles_url = '{{% x/{{{{ y }}}}/{{foo}}/{{z}}'\ntiles_attribution = {TILES}\n")
    try:
        with page.expect_request(re.compile("foo")) as asked:
            page.goto(f"{address}?{DAY}")
        assert unquote(asked.value.url).partition("/{% x/{{ y }}/{foo}/")[2].isdigit()
        attribution = page.frame_locator("iframe").first.locator(".leaflet-control-attribution")
        sync_api.expect(attribution).to_contain_text(TEXT)
        check(page)
    finally:
        place.file.write_text(right)


def test_skill(page: Any, address: str) -> None:
    page.goto(f"{address}skill?{DAY}")
    for section in sections(page, SKILL):
        if section not in ("On the map", "Intervals"):
            holds(page)


def test_models(page: Any, address: str) -> None:
    page.goto(f"{address}models?{DAY}")
    shows(page, VERSION)
    for section in sections(page, MODELS):
        if section == "Card":
            sync_api.expect(page.get_by_test_id("stCode")).to_have_text(TEXT)
        elif section not in ("Training curve", "Intervals"):
            holds(page)
    assert FILE not in page.content()


def test_data(page: Any, address: str) -> None:
    page.goto(f"{address}data?{DAY}")
    for section in sections(page, DATA):
        if section == "Quality report":
            holds(page)
        elif section == "Quarantine":
            holds(page, FILE)
            holds(page)


def test_alerts(page: Any, address: str) -> None:
    page.goto(f"{address}alerts?{DAY}")
    shows(page)
    shows(page, f"{TEXT}, since Wed 8 May 2024 08:00 CEST")
    holds(page)
    check(page)


@pytest.mark.parametrize("hostile", ADDRESSES)
def test_addresses(page: Any, address: str, hostile: str) -> None:
    page.goto(address + hostile)
    page.get_by_role("combobox", name="City").first.wait_for()
    end = time.monotonic() + SECONDS
    while dict(parse_qsl(urlsplit(page.url).query)).get("city") not in ("testville", "nowhere"):
        assert time.monotonic() < end, page.url
        page.wait_for_timeout(100)
    check(page)
    assert page.get_by_test_id("stMain").inner_text().strip()
    sync_api.expect(page.get_by_text("root:")).to_have_count(0)


def test_a_city_of_such_a_name_is_refused_in_words(page: Any, address: str, place: Any) -> None:
    right = place.file.read_text()
    place.file.write_text(right + f"[cities.{json.dumps(TEXT)}]\nwest=1\neast=2\nsouth=1\nnorth=2\ntimezone='UTC'\n")
    try:
        page.goto(address)
        shows(page, f"cities.{TEXT}: a city's name is lower-case letters, digits and single dashes")
        check(page)
    finally:
        place.file.write_text(right)
