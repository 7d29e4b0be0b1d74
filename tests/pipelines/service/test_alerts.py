"""Alerts from the stores to log, file, webhook, book and health pages, by the service's own ticks and by a replay."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.service import schedule
from pipelines.service.health import _health
from pipelines.service.status import _ALERTS, status
from trafficcast.alerts import findings
from trafficcast.alerts.book import AlertBook
from trafficcast.config.settings import load_config
from trafficcast.forecasting.publish import JOB
from trafficcast.stores.city_stores import CityStores

HOUR = np.timedelta64(1, "h")
NOON = np.datetime64("2024-04-14T10:00", "us")  # in Rome
# One rule of each kind, and of the kind flow every key; all of the first group find something at noon.
FOUND = """
[[alerts.rules]]
kind = "feed-silent"
minutes = 0.5

[[alerts.rules]]
kind = "coverage"
level = 0.8
tolerance = 0.0001
hours = 4

[[alerts.rules]]
kind = "flow"
city = "small"
area = "North"
above = 0.001
severity = "critical"

[[alerts.rules]]
kind = "flow"
city = "small"
cell = [4, 3]
above = 0.001
flow_kind = "inflow"

[[alerts.rules]]
kind = "flow"
times_typical = 1.0001
at_least = 0.001
flow_kind = "outflow"
"""
QUIET = """
[[alerts.rules]]
kind = "forecast-overdue"
minutes = 600

[[alerts.rules]]
kind = "skill"
cycles = 900

[[alerts.rules]]
kind = "flow"
above = 1e6

[[alerts.rules]]
kind = "flow"
times_typical = 1e6
"""
AREAS = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"name": "North"},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[9.1, 45.47], [9.26, 45.47], [9.26, 45.52], [9.1, 45.52], [9.1, 45.47]]],
            },
        }
    ],
}


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """A webhook's address, and the notices that it received."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["notices"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", received
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(trained: Path, webhook: tuple[str, list[Any]]) -> Path:
    """The folder of the trained small city with the area North, all rules and the webhook."""
    (trained / "areas.geojson").write_text(json.dumps(AREAS))
    config = trained / "config.toml"
    text = config.read_text().replace("[cities.small]", '[cities.small]\nareas = "areas.geojson"')
    config.write_text(f'{text}\n[alerts]\nwebhook = "{webhook[0]}"\n{FOUND}{QUIET}')
    return trained


@pytest.fixture
def rules(folder: Path) -> tuple[set[str], set[str]]:
    """The names of the rules that find something, and of those that find nothing."""
    names = [rule.name for rule in load_config(folder / "config.toml").alerts.rules]
    return set(names[:5]), set(names[5:])


class Service:
    """The service's ticks under a clock that the test sets."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, started: np.datetime64) -> None:
        self.now = started
        patch.setattr(schedule, "_now", lambda: self.now)
        patch.setattr(schedule, "_RETRY_SECONDS", 0.0)
        self.config = load_config(folder / "config.toml")
        self.city = self.config.city("small")
        self.stores = CityStores.of(self.config, self.city)
        self._service = schedule._Service(self.config, [self.city], "cpu")

    def tick(self, until: np.datetime64) -> None:
        """Tick at every hour up to a time."""
        for now in np.arange(self.now, until + HOUR, HOUR):
            self.now = now
            self.look()

    def look(self) -> None:
        """The forecast and the alerts, as the service looks for them again and again."""
        service = self._service.services[0]
        self._service._run(JOB, self.stores, partial(self._service._cycle, service))
        self._service._run(_ALERTS, self.stores, partial(self._service._alerts, service))

    def open_rules(self) -> set[str]:
        """The names of the rules with open alerts."""
        return {alert.finding.rule for alert in AlertBook(self.stores.alerts).open("small", self.now)}

    def health(self) -> tuple[int, dict[str, Any]]:
        return _health(status(self.config, [self.city], self.now))


def test_every_kind_of_rule_reaches_log_file_webhook_and_book(
    folder: Path,
    rules: tuple[set[str], set[str]],
    webhook: tuple[str, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trafficcast")
    service = Service(folder, monkeypatch, NOON - 8 * HOUR)
    service.tick(NOON)
    service.now += 2 * HOUR + np.timedelta64(1, "m")
    flows = service.stores.flows.read(NOON + HOUR, NOON + 2 * HOUR)
    assert flows is not None
    service.stores.flows.write(flows.assign(observed=flows["observed"] & False, coverage=flows["coverage"] * 0))
    service.look()

    found, quiet = rules
    assert service.open_rules() == found and not service.open_rules() & quiet
    assert "ended by a bug" not in caplog.text
    assert service.health()[0] == 200, service.health()
    service._service._deliver()
    written = [json.loads(line) for line in (service.stores.folder / "alerts.jsonl").read_text().splitlines()]
    for notices in (written, webhook[1]):
        assert {notice["rule"] for notice in notices if notice["event"] == "raised"} >= found
    assert {notice["place"] for notice in written if notice["kind"] == "flow"} >= {"North", "row 4, column 3"}
    for notice in written:
        assert notice["message"] in caplog.text


def test_a_rule_that_fails_stops_no_other_and_turns_health_red(
    folder: Path, rules: tuple[set[str], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(folder, monkeypatch, NOON - 8 * HOUR)
    service.tick(NOON - HOUR)
    before = service.open_rules()
    assert any(rule.startswith("coverage") for rule in before)
    with monkeypatch.context() as broken:
        broken.setattr(findings, "_coverage", lambda rule, state: 1 // 0)
        service.tick(NOON)
        assert service.open_rules() == before  # the failed rule's alert stays, the others are judged
        code, page = service.health()
        assert code == 503 and "alerts cannot be trusted" in page["wrong"]["small"]
        assert "ZeroDivisionError" in page["wrong"]["small"]
    service.tick(NOON + HOUR)
    assert service.health()[0] == 200


def test_the_first_start_waits_for_the_first_forecast(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trained / "config.toml").write_text(
        (trained / "config.toml").read_text() + '[[alerts.rules]]\nkind = "forecast-overdue"\n'
    )
    later = NOON + 30 * 24 * HOUR  # no slot before it was observed, so none can be forecast
    service = Service(trained, monkeypatch, later)
    for minutes, rules in ((0, set()), (80, set()), (81, {"forecast-overdue"})):  # due after an hour, 20 minutes' limit
        service.now = later + np.timedelta64(minutes, "m")
        service._service._alerts(service._service.services[0])
        assert service.open_rules() == rules


def test_a_replay_judges_the_rules_into_a_book_of_its_own(
    folder: Path,
    rules: tuple[set[str], set[str]],
    webhook: tuple[str, list[Any]],
    trafficcast: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran = trafficcast("replay", "--start", "2024-04-14T02:00", "--end", "2024-04-14T12:00", "--json")
    assert ran.code == 0, ran.err
    stores = folder / "data" / "small"
    replayed = (stores / "replay-alerts.jsonl").read_bytes()
    notices = [json.loads(line) for line in replayed.splitlines()]
    raised = [notice for notice in notices if notice["event"] == "raised"]
    assert len(raised) == ran.json["alerts"]
    assert {notice["rule"] for notice in raised if notice["kind"] == "flow"} == {
        rule for rule in rules[0] if rule.startswith("flow")
    }
    assert not (stores / "alerts.jsonl").exists() and not (folder / "data" / "alerts.sqlite").exists()
    assert not webhook[1]
    # At each time the rules see what was known then: with all later forecasts in the store they find the same.
    assert trafficcast("replay", "--start", "2024-04-14T02:00", "--end", "2024-04-14T12:00").code == 0
    again = [json.loads(line) for line in (stores / "replay-alerts.jsonl").read_bytes().splitlines()]
    assert [without_ids(notice) for notice in again] == [without_ids(notice) for notice in notices]


def without_ids(notice: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in notice.items() if key != "id"}
