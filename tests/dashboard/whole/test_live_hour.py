"""A live hour in some minutes: slots of one minute, and every process that a city runs.

Taxis report into an inbox, one more has a fast clock; the service, the API and the dashboard run, with a page open all
the time. The feed is cut and comes back, the service is killed and started again. At each look everything that is said
is compared with the truth, which the test knows from what it wrote.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from trafficcast.config.settings import load_config
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.intervals import Intervals
from trafficcast.forecasting.model import Model, build, publish_model
from trafficcast.stores.city_stores import CityStores

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "LIVE_HOUR" not in os.environ, reason="takes ten minutes of an otherwise idle machine: make live"
    ),
]

CONFIG = """
default_city = "small"

[cities.small]
west = 9.10
east = 9.26
south = 45.42
north = 45.52
rows = 8
cols = 8
slot_minutes = 1
timezone = "Europe/Rome"
areas = "areas.geojson"

[cities.small.feed]
inbox = "inbox"

[service]
port = {port}
ingest_seconds = 1
wait_minutes = 0.5

[alerts]
webhook = "{webhook}"

[[alerts.rules]]
kind = "forecast-overdue"
minutes = 0.01

[[alerts.rules]]
kind = "feed-silent"
minutes = 1

[[alerts.rules]]
kind = "fleet"

[[alerts.rules]]
kind = "skill"
cycles = 1

[[alerts.rules]]
kind = "coverage"
level = 0.8
tolerance = 0.001
hours = 0.1

[[alerts.rules]]
kind = "flow"
area = "Centre"
above = 0.001
severity = "critical"

[[alerts.rules]]
kind = "flow"
cell = [3, 4]
above = 0.001
flow_kind = "inflow"

[[alerts.rules]]
kind = "flow"
times_typical = 1.0001
at_least = 0.001
flow_kind = "outflow"

[[alerts.rules]]
kind = "flow"
city = "small"
above = 1e9
"""
AREA = [[9.14, 45.44], [9.22, 45.44], [9.22, 45.50], [9.14, 45.50], [9.14, 45.44]]
TAXIS, FEW = 100, 40  # the usual number, and that of the beginning
FAST, STEP = 8 * 60, 3  # the last taxi's clock is so many seconds fast; a report every three seconds
MINUTE = np.timedelta64(1, "m")
LATE = 30.0  # seconds within which everything says what is true


def positions(seconds: np.ndarray, taxi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each taxi is at these times: on a circle of its own."""
    draw = np.random.default_rng(1)
    phase, radius = draw.uniform(0, 7, TAXIS)[taxi], draw.uniform(0.1, 0.45, TAXIS)[taxi]
    angle = phase + seconds / draw.uniform(60, 150, TAXIS)[taxi]
    return 9.18 + 0.16 * radius * np.cos(angle), 45.47 + 0.10 * radius * np.sin(angle)


class Feed:
    """Writes the reports of the taxis into an inbox, as they come, and knows what is true."""

    def __init__(self, inbox: Path) -> None:
        self.inbox = inbox
        self.on, self.taxis = True, FEW
        self.until = int(time.time()) // 60 * 60 - 3600
        self.silences: list[list[float]] = []  # begin and end of each, unix seconds
        self.stopped = threading.Event()
        inbox.mkdir()
        for days in (1, 2, 3, 7):
            past = np.arange(self.until, self.until + 3 * 3600, 15) - days * 86400
            self.report(f"past-{days}", past, np.arange(TAXIS), 0)
        self.write()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        while not self.stopped.wait(STEP):
            self.write()

    def write(self) -> None:
        """Write all reports since the last call; while the feed is cut only the taxi with the fast clock reports."""
        now = int(time.time())
        seconds = np.arange(-(-self.until // STEP) * STEP, now, STEP)
        self.until = now
        if len(seconds):
            right = np.arange(self.taxis if self.on else 0)
            self.report(f"{now}", seconds, np.append(right, TAXIS - 1), FAST)

    def report(self, name: str, seconds: np.ndarray, taxis: np.ndarray, fast: int) -> None:
        """Write a file of reports; the clock of the last taxi is fast by so many seconds."""
        at, taxi = (array.ravel() for array in np.meshgrid(seconds, taxis, indexing="ij"))
        lon, lat = positions(at, taxi)
        table = {"vehicle": taxi, "time": at + fast * (taxi == TAXIS - 1), "lon": lon.round(6), "lat": lat.round(6)}
        part = self.inbox / f"{name}.part"
        pd.DataFrame(table).to_csv(part, index=False)
        part.rename(part.with_suffix(".csv"))

    def cut(self) -> None:
        self.on = False
        self.silences.append([time.time(), np.inf])

    def resume(self) -> None:
        self.until = int(time.time())
        self.silences[-1][1] = self.until
        self.on = True

    def newest(self, now: float) -> np.datetime64:
        """The newest slot that had ended and in which the feed was alive."""
        slot = int(now) // 60 * 60 - 60
        while sum(max(0.0, min(end, slot + 60) - max(begin, slot)) for begin, end in self.silences) > 12:
            slot -= 60
        return np.datetime64(slot, "s").astype("datetime64[us]")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Place:
    """A city's folder with a champion of random weights, its processes, its feed and its webhook."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notices = folder, list[dict[str, Any]]()
        notices = self.notices

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                notices.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["notices"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.webhook = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.webhook.serve_forever, daemon=True).start()
        self.port, self.api_port = free_port(), free_port()
        file = folder / "config.toml"
        file.write_text(CONFIG.format(port=self.port, webhook=f"http://127.0.0.1:{self.webhook.server_port}/hook"))
        area = {"type": "Feature", "properties": {"name": "Centre"}}
        polygon = {"geometry": {"type": "Polygon", "coordinates": [AREA]}}
        areas = {"type": "FeatureCollection", "features": [area | polygon]}
        (folder / "areas.geojson").write_text(json.dumps(areas))
        self.config = load_config(file)
        self.city = self.config.city()
        self.stores = CityStores.of(self.config, self.city)
        self.add_champion()
        self.feed = Feed(folder / "inbox")
        self.processes: list[subprocess.Popen[bytes]] = []

    def add_champion(self) -> None:
        """A network that learned nothing: each forecast is worse than persistence, and outside its intervals."""
        described = {"name": "vmrnn-b", "rows": 8, "cols": 8, "channels": 2, "depth": 1, "embed": 16}
        errors = {"vmrnn-b-1": {"rmse": 1.0}, "persistence": {"rmse": 2.0}, "scaled_climatology": {"rmse": 3.0}}
        card = {
            "version": "vmrnn-b-1",
            "city": "small",
            "architecture": described,
            "grid": self.city.grid(),
            "scale": 100.0,
            "metrics": {"validation": errors, "test": {}},
        }
        torch.manual_seed(1)
        typical = np.full((2, 1440, 2, 8, 8), 0.5, np.float32)
        drawn = np.random.default_rng(2).uniform(0, 9, (20, 4, 2, 8, 8)).astype(np.float32)
        intervals = Intervals.fit(drawn, np.random.default_rng(3).poisson(drawn))
        model = Model(card, build(described), Climatology(self.city, typical), intervals=intervals)
        publish_model(self.stores.registry, model, lambda folder: None)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pipelines", *words, "--config", str(self.folder / "config.toml")]
        environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
        with open(self.folder / f"{words[0]}.log", "ab") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        return self.processes[-1]

    def end(self) -> None:
        self.feed.stopped.set()
        for process in self.processes:
            process.kill()
            process.wait()
        self.webhook.shutdown()
        self.webhook.server_close()

    def ask(self, page: str, port: int | None = None) -> tuple[int, str]:
        """The status and body of an answer; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.port}/{page}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("status")[1])["cities"]["small"]
        return found

    def open_rules(self) -> set[str]:
        """The kinds of alerts that `status` calls open."""
        return {alert["kind"] for alert in self.status()["alerts"] or []}


def until(true: Callable[[], bool], seconds: float, what: str, place: Place, each: Callable[[], None]) -> None:
    """Until something is true, looking at everything meanwhile."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}\n{(place.folder / 'schedule.log').read_text()}"
        each()
        time.sleep(2)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """The place, whose processes end with the test."""
    made = Place(tmp_path)
    yield made
    made.end()


def label(place: Place, slot: np.datetime64) -> str:
    start, end = place.city.local(np.array([slot, slot + MINUTE]))
    return f"{start:%H:%M}-{end:%H:%M} {start:%Z}"


def age_of(said: str) -> int:
    """The age of the data in minutes, by a page's header."""
    found = re.search(r"data (\d+) min old", said)
    assert found is not None, said
    return int(found[1])


def test_everything_that_is_said_in_a_live_hour_is_true(
    place: Place, serve: Callable[..., Any], open_tab: Callable[..., Any]
) -> None:
    service = place.start("schedule", "--log-json", "--device", "cpu")
    place.start("api", "--port", str(place.api_port))
    place.feed.thread.start()
    with serve(place.folder / "config.toml", "small") as server:
        page = open_tab()
        page.goto(f"{server.address}?city=small")
        header = page.get_by_test_id("stCaptionContainer").filter(has_text="small, ").first
        header.wait_for()
        settled = time.time() + 60  # the first ingest reads some hours
        alive = True

        def true_slots() -> set[np.datetime64]:
            """The slots that may be called the newest observed one: the true one of any of the last seconds."""
            now = time.time()
            return {place.feed.newest(now - late) for late in np.arange(0, LATE, 1.0)}

        def look() -> None:
            """Compare everything that is said with the truth."""
            if time.time() < settled:
                return
            allowed = true_slots()
            said = header.inner_text()
            allowed |= true_slots()
            if not alive:
                return
            ends = [slot.astype(np.int64) / 1e6 + 60 for slot in allowed]
            ages = {int((time.time() - late - end) // 60) for end in ends for late in np.arange(0, LATE, 1.0)}
            assert age_of(said) in ages, (said, ages)
            assert any(label(place, slot) in said for slot in allowed), (said, allowed)
            status, allowed = place.status(), allowed | true_slots()
            assert status["data"]["newest_slot"] in {place.city.isoformat(slot) for slot in allowed}
            assert status["data"]["age_minutes"] >= 0
            code, health = place.ask("healthz")
            assert (code == 200) == (not status["overdue"]) or place.status()["overdue"] != status["overdue"], health
            lines = (line for line in place.ask("metrics")[1].splitlines() if line.startswith("trafficcast_data_age"))
            assert [float(line.rsplit(" ", 1)[1]) >= 0 for line in lines] == [True]
            newest = max(allowed)
            query = f"start={str(newest - 5 * MINUTE)}Z&end={str(newest + 10 * MINUTE)}Z"
            code, body = place.ask(f"v1/cities/small/observations?{query}", place.api_port)
            assert code == 200, body
            observed = [slot["time"] for slot in json.loads(body)["slots"] if slot["observed"]]
            if observed:
                assert observed[-1] in {place.city.isoformat(slot) for slot in allowed | true_slots()}

        def forecast_is(state: str) -> bool:
            made = place.status()["forecast"] if place.ask("status")[0] == 200 else None
            recent = made is not None and pd.Timestamp(made["init_time"]).timestamp() > time.time() - 90
            return recent and made["state"] == state

        until(lambda: "fleet" in place.open_rules() and forecast_is("degraded"), 150, "a small fleet", place, look)
        assert "are usual" in place.status()["forecast"]["reason"]
        place.feed.taxis = TAXIS - 20
        until(
            lambda: "fleet" not in place.open_rules() and forecast_is("complete"),
            150,
            "a complete forecast",
            place,
            look,
        )
        rules = {"skill", "coverage", "flow"}
        until(lambda: rules <= place.open_rules(), 400, "alerts of all kinds but two", place, look)

        time.sleep(60 - time.time() % 60)  # a feed that ends within a minute would be alive in a part of it
        place.feed.cut()
        cut = place.feed.newest(time.time() + 60)
        until(lambda: "feed-silent" in place.open_rules(), 240, "the alert of the silent feed", place, look)
        until(lambda: not forecast_is("complete"), 90, "a forecast that is not complete", place, look)
        assert place.feed.newest(time.time()) in (cut, cut - MINUTE)  # the taxi with the fast clock moved nothing
        bad = page.get_by_text(re.compile("This forecast (is degraded|was made by the baseline)")).first
        sync_api.expect(bad).to_be_visible(timeout=LATE * 1000)
        sync_api.expect(page.get_by_role("link", name="Alerts (▲", exact=False).first).to_be_visible(
            timeout=LATE * 1000
        )

        time.sleep(60 - time.time() % 60)
        place.feed.resume()
        settled = time.time() + 75  # a whole slot and what it takes to arrive
        until(lambda: "feed-silent" not in place.open_rules(), 240, "the alert's end", place, look)

        alive = False
        service.send_signal(signal.SIGKILL)
        service.wait()
        assert place.ask("healthz")[0] == 0
        page.wait_for_timeout(70_000)  # the slot in which the service was killed has ended, whatever was read of it
        stays = header.inner_text().partition("newest slot ")[2].partition(")")[0]
        before = age_of(header.inner_text())
        sync_api.expect(header).to_contain_text(f"data {before + 1} min old (newest slot {stays})", timeout=90_000)
        place.start("schedule", "--log-json", "--device", "cpu")
        until(lambda: forecast_is("complete"), 150, "a forecast after the start", place, look)
        alive, settled = True, time.time() + 30
        until(lambda: time.time() > settled + 10, 60, "the last look", place, look)

    kinds = {"forecast-overdue", "feed-silent", "fleet", "skill", "coverage", "flow"}
    written = [json.loads(line) for line in (place.stores.folder / "alerts.jsonl").read_text().splitlines()]
    assert {notice["kind"] for notice in written if notice["event"] == "raised"} == kinds
    places = {notice["place"] for notice in written if notice["kind"] == "flow"}
    assert "Centre" in places and "row 3, column 4" in places
    assert {notice["kind"] for notice in written if notice["event"] == "cleared"} >= {"feed-silent", "forecast-overdue"}
    end = time.monotonic() + 60
    while {notice["id"] for notice in place.notices} < {notice["id"] for notice in written}:
        assert time.monotonic() < end, "the webhook did not get all notices"
        time.sleep(1)
    log = (place.folder / "schedule.log").read_text()
    for notice in written:
        assert json.dumps(notice["message"])[1:-1] in log
    assert "Traceback" not in log and '"traceback"' not in log
    hindcasts = place.stores.forecasts("vmrnn-b-1").read()
    assert hindcasts is not None and hindcasts["hindcast"].values.any()  # made after the second start
