"""Stores of a made-up city, written through the project's own functions, and the pages over them in a browser."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipelines.cli.serving import _streamlit
from trafficcast.config.city import City
from trafficcast.config.settings import Config, load_config
from trafficcast.ingestion.merging import _merge_hours
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.ingestion.spans import _plan_merges
from trafficcast.ingestion.threads import _threads
from trafficcast.records.readers import find_records
from trafficcast.records.screening import Screen
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.forecasts import forecast_dataset
from trafficcast.stores.scores import score_dataset

CONFIG = """
[cities.testville]
west = 10.0
east = 10.7
south = 45.0
north = 45.5
rows = {rows}
cols = {cols}
timezone = "Europe/Rome"

[cities.nowhere]
west = 10.0
east = 10.7
south = 45.0
north = 45.5
timezone = "Europe/Rome"
"""
SLOT = np.timedelta64(30, "m")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS = 60  # for what a browser or a server does


@dataclass(frozen=True)
class Place:
    """A configuration with the city `testville`, and ways to fill its stores.

    The flows begin at local midnight of 7 May 2024 and end with the slot `newest`; the slot `down` was not observed.
    """

    file: Path
    config: Config
    city: City
    start: np.datetime64 = np.datetime64("2024-05-06T22:00", "us")
    down: np.datetime64 = np.datetime64("2024-05-08T03:00", "us")
    newest: np.datetime64 = np.datetime64("2024-05-08T07:00", "us")

    @property
    def stores(self) -> CityStores:
        """The city's stores."""
        return CityStores.of(self.config, self.city)

    @property
    def flows(self) -> DayStore:
        """The flow store."""
        return self.stores.flows

    def forecasts(self, version: str = "vmrnn-b-1") -> DayStore:
        """A model's forecast store."""
        return self.stores.forecasts(version)

    def add_flows(self) -> xr.Dataset:
        """Flows of slot of day + 100 x kind + the cell's number: a value of its own for each of them."""
        time = np.arange(self.start, self.newest + SLOT, SLOT)
        number = np.arange(self.city.rows * self.city.cols).reshape(self.city.rows, self.city.cols)
        flow = np.arange(len(time))[:, None, None, None] % 48 + np.array([0, 100])[:, None, None] + number
        coverage = np.where(time == self.down, 0.1, 1.0)
        flows = flows_dataset(self.city, time, flow, np.full(len(time), 9), coverage)
        self.flows.write(flows)
        return flows

    def add_forecast(self, init_time: np.datetime64, version: str = "vmrnn-b-1") -> xr.Dataset:
        """A forecast of 10 x lead + 1000 x kind + the cell's number + 0.5; returns that of the one init time."""
        number = np.arange(self.city.rows * self.city.cols).reshape(self.city.rows, self.city.cols)
        flow = 10 * np.arange(4)[:, None, None, None] + np.array([0, 1000])[:, None, None] + number + 0.5
        card = {"version": version, "architecture": {"name": "vmrnn-b"}}
        made = forecast_dataset(self.city, card, init_time, flow, init_time)
        self.forecasts(version).write(made)
        return made.isel(init_time=0)

    def add_scores(self, init_time: np.datetime64, version: str = "vmrnn-b-1") -> None:
        """Scores of a forecast and of persistence, which were 1 and 2 vehicles above what came."""
        came = np.full((4, 2, self.city.rows, self.city.cols), 5.0)
        made = {version: came + 1, "persistence": came + 2}
        CityStores.of(self.config, self.city).scores(version).write(score_dataset(self.city, init_time, made, came))

    def bounded(self, forecast: xr.Dataset) -> xr.Dataset:
        """A forecast of one init time with bounds of 2 and 3 vehicles around it, at 80 % and 95 %."""
        flow, dimensions = forecast["flow"].values, ("level", *forecast["flow"].dims)
        lower, upper = np.stack([flow - 2, flow - 3]), np.stack([flow + 2, flow + 3])
        return forecast.assign(lower=(dimensions, lower), upper=(dimensions, upper)).assign_coords(level=[0.8, 0.95])

    def add_model(self, version: str = "vmrnn-b-1") -> None:
        """A model's card and the champion's pointer: what a page needs of it."""
        folder = self.config.paths.models / self.city.name / version
        folder.mkdir(parents=True)
        (folder / "card.json").write_text(json.dumps({"version": version, "scale": 1000.0}), encoding="utf-8")
        (folder.parent / "champion").write_text(version + "\n", encoding="utf-8")

    def add_records(self, lon: list[float], lat: list[float]) -> RecordStore:
        """One vehicle's points in degrees, a minute apart."""
        file = self.config.paths.data / "made up.csv"
        times = self.start + np.arange(len(lon)) * np.timedelta64(1, "m")
        rows = (f"taxi,{time}Z,{x!r},{y!r}\n" for time, x, y in zip(times, lon, lat, strict=True))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("vehicle,time,lon,lat\n" + "".join(rows), encoding="utf-8")
        sources, _ = find_records(str(file), self.city)
        store = RecordStore(self.config.paths.data / self.city.name / "records")
        state = store.load()
        with _threads(self.city, store, state, None, 1) as executor:
            executor.stage(dict(enumerate(sources, 1)), Screen(self.city, 0, 2**62), pytest.fail)
            state.generation = 1
            merges = _plan_merges({}, executor.hours(), [], dict, 0)
            delta, _ = _merge_hours(self.city, store, state, executor.merge(merges, 1, frozenset()))
        store.commit(state, delta, [], [])
        return store


@pytest.fixture(autouse=True)
def _same_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's test harness leaves its script as `__main__`, which processes started later would run first."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session")
def make_place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Place]:
    """A place of its own with a grid of so many rows and columns."""

    def make(rows: int, cols: int) -> Place:
        file = tmp_path_factory.mktemp("place") / "config.toml"
        file.write_text(CONFIG.format(rows=rows, cols=cols), encoding="utf-8")
        config = load_config(file)
        return Place(file, config, config.city("testville"))

    return make


@pytest.fixture
def place(make_place: Callable[[int, int], Place]) -> Place:
    """A place of 5 x 7 cells, so that rows are not columns; its stores are empty."""
    return make_place(5, 7)


@pytest.fixture(scope="session")
def filled(make_place: Callable[[int, int], Place]) -> Place:
    """A filled city of 32 x 32 cells; the newest forecast has no observed slot, the one before it has one."""
    place = make_place(32, 32)
    place.add_flows()
    place.add_model()
    place.add_records([10.1, 10.35, 10.6], [45.4, 45.25, 45.1])
    for init_time in (place.newest, place.newest + SLOT):
        place.add_forecast(init_time)
        place.add_scores(init_time)
    return place


@dataclass(frozen=True)
class Server:
    """The pages, served by a process of its own."""

    address: str
    pid: int


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`with serve(config) as server`: the pages of a configuration, started outside the project's folder."""

    @contextmanager
    def run(config: Path, city: str = "testville") -> Iterator[Server]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = tmp_path_factory.mktemp("server")
        project = str(Path(__file__).resolve().parents[2])
        environment = os.environ | {"PYTHONPATH": project, "OMP_WAIT_POLICY": "passive", "HOME": str(folder)}
        with open(folder / "log", "w") as log:
            server = subprocess.Popen(
                _streamlit(config, city, port), cwd=folder, env=environment, stdout=log, stderr=log
            )
        try:
            _wait_for(f"http://127.0.0.1:{port}/_stcore/health", server)
            yield Server(f"http://127.0.0.1:{port}/", server.pid)
        finally:
            server.terminate()
            server.wait(SECONDS)
        said = (folder / "log").read_text()
        assert "Traceback" not in said, said

    return run


@pytest.fixture(scope="session")
def server(filled: Place, serve: Callable[[Path], Any]) -> Iterator[Server]:
    """The pages of the filled city, one server for all tests of the session."""
    with serve(filled.file) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; what asks for it is skipped without one."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    file = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if file is None:
        pytest.skip("no Chromium on this machine")
    api.expect.set_options(timeout=SECONDS * 1000 / 2)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=file, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_tab(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a tab of a context of its own, 1280 x 720 unless told otherwise."""
    contexts = []

    def make(**looks: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 720}} | looks))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(SECONDS * 1000)
        return tab

    yield make
    for context in contexts:
        context.close()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not answer at {url}")
