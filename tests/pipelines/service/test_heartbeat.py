"""The heartbeat: called once after each good cycle, in bounded time, and its address is never shown."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipelines.service import schedule
from pipelines.service.heartbeat import _Heartbeat
from tests.cities import small_city
from trafficcast.config.service import Service
from trafficcast.config.settings import load_config
from trafficcast.errors import InputError

HALF, HOUR = small_city(name="half"), small_city(name="hour", slot_minutes=60)
NOON = np.datetime64("2024-04-08T10:00", "us")
MINUTE = np.timedelta64(1, "m")


class Outside(ThreadingHTTPServer):
    """Answers each call with the next of `answers`, the last again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = [200]
        self.calls: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ping/s3cret?token=s3cret"


class Handler(BaseHTTPRequestHandler):
    server: Outside

    def do_GET(self) -> None:
        self.server.calls.append(self.path)
        self.send_response(self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0])
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def outside() -> Iterator[Outside]:
    with Outside() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_it_is_called_once_after_each_cycle_in_which_all_cities_were_made(outside: Outside) -> None:
    heart = _Heartbeat(Service(heartbeat=outside.address))  # type: ignore[arg-type]
    newest: dict[str, np.datetime64] = {}

    def beat(minutes: int, is_well: bool = True) -> int:
        heart.beat([HALF, HOUR], newest, NOON + minutes * MINUTE, lambda: is_well)
        return len(outside.calls)

    assert beat(1) == 0
    newest["half"] = NOON
    assert beat(2) == 0  # one city is still to be made
    newest["hour"] = NOON
    assert beat(3, is_well=False) == 0
    assert beat(4) == beat(5) == 1
    assert beat(31) == 1
    newest["half"] = NOON + 30 * MINUTE
    assert beat(32) == beat(59) == 2
    assert beat(70) == 2  # both are of a slot that is over
    assert outside.calls == ["/ping/s3cret?token=s3cret"] * 2


def test_a_call_that_fails_is_made_again_and_its_address_is_not_shown(
    outside: Outside, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    outside.answers = [404, 200]
    heart = _Heartbeat(Service(heartbeat=outside.address))  # type: ignore[arg-type]
    for _ in range(3):
        heart.beat([HALF], {"half": NOON}, NOON, lambda: True)
    assert len(outside.calls) == 2
    assert f"the heartbeat at 127.0.0.1:{outside.server_port} answered 404" in caplog.text
    assert "s3cret" not in caplog.text + repr(heart)


def test_without_an_address_or_a_city_with_a_model_nothing_is_called(outside: Outside) -> None:
    _Heartbeat(Service()).beat([HALF], {"half": NOON}, NOON, lambda: True)
    _Heartbeat(Service(heartbeat=outside.address)).beat([], {}, NOON, lambda: True)  # type: ignore[arg-type]
    assert outside.calls == []


@pytest.mark.parametrize("address", ["ftp://host/s3cret", "s3cret", "https://host:port/s3cret"])
def test_a_wrong_address_is_refused_and_not_shown(address: str, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = config.read_text()
    config.write_text(f'{before}\n[service]\nheartbeat = "{address}"\n')
    with pytest.raises(InputError, match="service.heartbeat: no address such as https://") as error:
        load_config(config)
    assert "s3cret" not in str(error.value)
    config.write_text(f'service = "{address}"\n{before}')
    with pytest.raises(InputError) as error:
        load_config(config)
    assert "s3cret" not in str(error.value)
    config.write_text(before)
    monkeypatch.setenv("TRAFFICCAST__SERVICE__HEARTBEAT", "https://beats.example/s3cret")
    settings = load_config(config)
    assert settings.service.heartbeat_host == "beats.example" and "s3cret" not in repr(settings)


def test_the_service_calls_it_after_its_cycle(
    outside: Outside, trained: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with open(trained / "config.toml", "a") as file:
        file.write(f'[service]\nheartbeat = "{outside.address}"\n')
    settings = load_config(trained / "config.toml")
    running = schedule._Service(settings, [settings.city()], "cpu")
    now = np.datetime64("2024-04-14T10:00", "us")
    monkeypatch.setattr(schedule, "_now", lambda: now)
    service = running.services[0]
    with schedule._service_lock(settings.paths.data):
        running._beat()
        assert outside.calls == []
        assert running._cycle(service) == "1 forecasts"
        running._beat()
        running._beat()
        assert len(outside.calls) == 1
        now += np.timedelta64(1, "h")
        running.reserve.missing = True
        assert running._cycle(service) == "1 forecasts"
        running._beat()
        assert len(outside.calls) == 1  # health is red
        running.reserve.missing = False
        running._beat()
        assert len(outside.calls) == 2
    assert "s3cret" not in caplog.text
