"""Alerting: each alert once in the log, once in the file, and to a webhook on a real loopback server."""

from __future__ import annotations

import errno
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Timeout

from tests.cities import small_city
from trafficcast.alerts import book as book_module
from trafficcast.alerts import calls
from trafficcast.alerts import notify as alerting
from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import CityState, Finding
from trafficcast.alerts.notify import Told, check_alerts, deliver
from trafficcast.config.alert_rules import Alerts, FeedSilentRule, ForecastOverdueRule
from trafficcast.config.city import City
from trafficcast.errors import JobError
from trafficcast.stores.city_stores import alerts_file

HERE = small_city(rows=3, cols=2)
NOON = np.datetime64("2024-04-10T10:00", "us")  # 12:00 CEST
MINUTE = np.timedelta64(1, "m")
SECRET = "s3cret"


class Webhook(HTTPServer):
    """Answers with the next of `answers`, the last one again and again; a number of seconds is waited first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int] = [200]
        self.delay = 0.0
        self.messages: list[Any] = []
        self.paths: list[str] = []

    @property
    def address(self) -> str:
        return f"http://user:{SECRET}@127.0.0.1:{self.server_port}/hook/{SECRET}?token={SECRET}"


class Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.messages.append(json.loads(body))
        time.sleep(self.server.delay)
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Webhook()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that anybody logs, which never holds the secret."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    assert SECRET not in caplog.text and not any(SECRET in repr(record.__dict__) for record in caplog.records)


def alerts(webhook: Webhook | None = None) -> Alerts:
    return Alerts(webhook=webhook.address if webhook else None, rules=(ForecastOverdueRule(minutes=20),))  # type: ignore[arg-type]


def check(alerts: Alerts, data: Path, late: int, notify: bool = True, city: City = HERE) -> list[str]:
    """Check when the forecast from noon on is so many minutes late; returns the open alerts' kinds."""
    now = NOON + late * MINUTE
    state = CityState(city, now, newest_init=NOON - HERE.slot, newest_observed=now)
    return [alert.finding.kind for alert in check_alerts(alerts, data, state, notify)]


def lines(data: Path, city: str = "small") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / city / "alerts.jsonl").read_text().splitlines()]


def spoken(log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(r.levelname, r.getMessage()) for r in log.records if r.name == "trafficcast"]


def test_each_alert_is_raised_once_and_cleared_once_in_log_and_file(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    assert check(alerts(), tmp_path, 5) == []
    assert not (tmp_path / "small" / "alerts.jsonl").exists()
    assert check(alerts(), tmp_path, 21) == check(alerts(), tmp_path, 22) == ["forecast-overdue"]
    on_time = CityState(HERE, NOON + 23 * MINUTE, newest_init=NOON)
    assert check_alerts(alerts(), tmp_path, on_time, True) == check_alerts(alerts(), tmp_path, on_time, True) == []
    message = "no forecast from 2024-04-10 12:00 CEST on: it is 21 minutes overdue (limit 20)"
    assert spoken(log) == [
        ("WARNING", f"small: alert (critical): {message}"),
        ("INFO", f"small: alert cleared: {message}"),
    ]
    assert [(line["event"], line["time"], line["message"]) for line in lines(tmp_path)] == [
        ("raised", "2024-04-10T10:21:00Z", message),
        ("cleared", "2024-04-10T10:23:00Z", message),
    ]


def test_cities_have_files_of_their_own(tmp_path: Path) -> None:
    check(alerts(), tmp_path, 21)
    assert check(alerts(), tmp_path, 30, city=HERE.model_copy(update={"name": "large"})) == ["forecast-overdue"]
    assert [line["city"] for line in lines(tmp_path)] == ["small"]
    assert [line["city"] for line in lines(tmp_path, "large")] == ["large"]


def test_the_same_checks_again_change_neither_file_nor_book(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    times = (0, 21, 30, 200)
    for late in times:
        check(alerts(), tmp_path, late)
    before, said = (tmp_path / "small" / "alerts.jsonl").read_bytes(), spoken(log)
    for late in times:
        check(alerts(), tmp_path, late)
    assert (tmp_path / "small" / "alerts.jsonl").read_bytes() == before and spoken(log) == said


def test_a_crash_between_book_and_file_loses_no_line_and_doubles_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "small" / "alerts.jsonl"
    check(alerts(), tmp_path, 21)
    whole = file.read_bytes()

    def crash(*_: object) -> None:
        raise OSError("no space left on device")

    # The line is in the file, and the crash comes before the book knows; then one in the middle of the line.
    for kept in (len(whole), len(whole) // 2, 0):
        AlertBook(tmp_path / "alerts.sqlite").file.unlink()
        file.write_bytes(b"")
        with monkeypatch.context() as patch:
            patch.setattr(alerting, "_log_alert", crash)
            with pytest.raises(OSError, match="no space"):
                check(alerts(), tmp_path, 21)
        assert file.read_bytes() == whole
        file.write_bytes(whole[:kept])
        assert check(alerts(), tmp_path, 22) == ["forecast-overdue"]
        assert file.read_bytes() == whole


def full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize("readable", [True, False])
def test_while_the_book_cannot_be_written_all_are_told_once_and_the_book_later(
    tmp_path: Path, webhook: Webhook, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    settings, told, posted = alerts(webhook), Told(), dict[str, Any]()

    def check(late: int, newest: np.datetime64 = NOON - HERE.slot) -> list[str]:
        state = CityState(HERE, NOON + late * MINUTE, newest_init=newest, newest_observed=NOON + late * MINUTE)
        found = check_alerts(settings, tmp_path, state, True, told)
        return [str(alert.raised) for alert in found]

    def sent() -> list[tuple[str, str]]:
        deliver(settings, tmp_path, posted)
        return [
            (notice["event"], notice["time"][11:16]) for message in webhook.messages for notice in message["notices"]
        ]

    def events() -> list[tuple[str, str]]:
        return [(line["event"], line["time"][11:16]) for line in lines(tmp_path)]

    assert check(5) == []
    with monkeypatch.context() as patch:
        patch.setattr(book_module, "_note", full)
        if not readable:
            patch.setattr(book_module, "_OPEN", "JOIN nowhere")
        for late in (21, 22, 23):
            with pytest.raises(JobError, match="disk is full|no such table"):
                check(late)
        assert [level for level, message in spoken(log)] == ["WARNING"]
        assert events() == [("raised", "10:21")]
        assert len(webhook.messages) == 1
    assert check(24) == [str(NOON + 21 * MINUTE)]
    assert events() == sent() == [("raised", "10:21")]

    with monkeypatch.context() as patch:  # it is cleared, and raised anew
        patch.setattr(book_module, "_note", full)
        for late, newest in ((25, NOON), (26, NOON), (61, NOON)):
            with pytest.raises(JobError, match="disk is full"):
                check(late, newest) if late < 60 else check(late, NOON - HERE.slot)
    expected = [("raised", "10:21"), ("cleared", "10:25"), ("raised", "11:01")]
    assert events() == sent() == expected
    assert check(62) == [str(NOON + 61 * MINUTE)]
    assert events() == sent() == expected
    assert [alert.raised for alert in AlertBook(alerts_file(tmp_path)).past("small", NOON + 99 * MINUTE, 9)] == [
        NOON + 21 * MINUTE
    ]
    assert [level for level, message in spoken(log)] == ["WARNING", "INFO", "WARNING"]
    assert not told.unnoted and not told.logged and not told.posted


def test_a_webhook_that_fails_too_gets_the_alert_when_it_can(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, told, webhook.answers = alerts(webhook), Told(), [400]
    state = CityState(HERE, NOON + 21 * MINUTE, newest_init=NOON - HERE.slot, newest_observed=NOON)
    with monkeypatch.context() as patch:
        patch.setattr(book_module, "_note", full)
        with pytest.raises(JobError):
            check_alerts(settings, tmp_path, state, True, told)
    webhook.answers = [200]
    check_alerts(settings, tmp_path, state, True, told)
    assert deliver(settings, tmp_path) == 1
    assert [message["notices"][0]["event"] for message in webhook.messages] == ["raised", "raised"]


def test_what_the_webhook_took_is_not_sent_again_while_the_book_cannot_be_told(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, posted = alerts(webhook), dict[str, Any]()
    check(settings, tmp_path, 21)
    with monkeypatch.context() as patch:
        patch.setattr(book_module, "_mark", full)
        for _ in range(3):
            with pytest.raises(JobError, match="disk is full"):
                deliver(settings, tmp_path, posted)
    assert len(webhook.messages) == 1
    assert deliver(settings, tmp_path, posted) == 0 and not posted
    assert AlertBook(alerts_file(tmp_path)).undelivered(9) == [] and len(webhook.messages) == 1


def test_an_alert_file_that_cannot_be_written_keeps_no_line_from_the_log(
    tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    state = CityState(HERE, NOON + 21 * MINUTE, newest_init=NOON - HERE.slot, newest_observed=NOON)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(alerting.os, "fsync", no_space)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                check_alerts(alerts(), tmp_path, state, True, told)
    assert [level for level, _ in spoken(log)] == ["WARNING"]
    assert len(check_alerts(alerts(), tmp_path, state, True, told)) == 1
    assert [line["event"] for line in lines(tmp_path)] == ["raised"] and len(spoken(log)) == 1


def test_a_file_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    check(alerts(), tmp_path, 21)
    (tmp_path / "small" / "alerts.jsonl").rename(tmp_path / "small" / "alerts.jsonl.1")
    check_alerts(alerts(), tmp_path, CityState(HERE, NOON + 23 * MINUTE, newest_init=NOON), True)
    assert [line["event"] for line in lines(tmp_path)] == ["cleared"]


def test_the_webhook_is_told_once_with_its_secret_address(
    tmp_path: Path, webhook: Webhook, log: pytest.LogCaptureFixture
) -> None:
    settings = alerts(webhook)
    assert deliver(settings, tmp_path) == 0 and webhook.messages == []
    check(settings, tmp_path, 21)
    check(settings, tmp_path, 22, city=HERE.model_copy(update={"name": "large"}))
    assert deliver(settings, tmp_path) == 2
    assert deliver(settings, tmp_path) == 0
    (message,) = webhook.messages
    assert message == {"notices": lines(tmp_path) + lines(tmp_path, "large")}
    assert webhook.paths == [f"/hook/{SECRET}?token={SECRET}"]


def test_a_failing_webhook_is_tried_thrice_and_again_with_the_next_call(
    tmp_path: Path, webhook: Webhook, log: pytest.LogCaptureFixture
) -> None:
    settings, webhook.answers = alerts(webhook), [500, 503, 200]
    check(settings, tmp_path, 21)
    assert deliver(settings, tmp_path) == 1
    assert len(webhook.messages) == 3 and webhook.messages[0] == webhook.messages[2]
    assert [message for level, message in spoken(log) if "webhook" in message] == []
    webhook.answers = [500]
    check_alerts(settings, tmp_path, CityState(HERE, NOON + 23 * MINUTE, newest_init=NOON), True)
    assert deliver(settings, tmp_path) == 0
    assert len(webhook.messages) == 6
    assert spoken(log)[-1] == ("WARNING", f"the webhook at {settings.webhook_host} answered 500: 1 notices wait")
    webhook.answers = [204]
    assert deliver(settings, tmp_path) == 1
    assert webhook.messages[-1]["notices"][0]["event"] == "cleared"
    assert webhook.messages[-1]["notices"][0]["id"] == lines(tmp_path)[1]["id"]


@pytest.mark.parametrize("answer", [302, 400, 404])
def test_an_answer_that_is_no_success_is_not_tried_again_at_once(
    tmp_path: Path, webhook: Webhook, log: pytest.LogCaptureFixture, answer: int
) -> None:
    settings, webhook.answers = alerts(webhook), [answer]
    check(settings, tmp_path, 21)
    assert deliver(settings, tmp_path) == 0
    assert len(webhook.messages) == 1 and webhook.paths == [f"/hook/{SECRET}?token={SECRET}"]
    assert f"answered {answer}" in spoken(log)[-1][1]


def test_a_webhook_that_does_not_answer_costs_no_more_than_its_time(
    tmp_path: Path, webhook: Webhook, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_ATTEMPT_SECONDS", 0.1)
    settings, webhook.delay = alerts(webhook), 0.4
    check(settings, tmp_path, 21)
    began = time.monotonic()
    assert deliver(settings, tmp_path) == 0
    assert time.monotonic() - began < 3 * 0.1 + 1.0 + 0.5  # three attempts, the pause, and some patience
    assert "failed with ReadTimeoutError: 1 notices wait" in spoken(log)[-1][1]


def test_a_webhook_that_is_not_there(
    tmp_path: Path, webhook: Webhook, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = alerts(webhook)
    check(settings, tmp_path, 21)
    webhook.server_close()
    assert deliver(settings, tmp_path) == 0
    assert f"the webhook at {settings.webhook_host} failed with NewConnectionError" in spoken(log)[-1][1]


def test_a_long_backlog_goes_in_parts(tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerting, "_MOST", 2)
    settings = Alerts(webhook=webhook.address, rules=(ForecastOverdueRule(), FeedSilentRule()))  # type: ignore[arg-type]
    check_alerts(settings, tmp_path, CityState(HERE, NOON), True)
    check_alerts(settings, tmp_path, CityState(HERE, NOON + MINUTE, newest_init=NOON, newest_observed=NOON), True)
    assert [deliver(settings, tmp_path) for _ in range(3)] == [2, 2, 0]
    assert [[notice["event"] for notice in message["notices"]] for message in webhook.messages] == [
        ["raised", "raised"],
        ["cleared", "cleared"],
    ]


def test_a_replay_and_a_service_without_webhook_record_but_tell_nobody(tmp_path: Path, webhook: Webhook) -> None:
    settings = alerts(webhook)
    check(settings, tmp_path, 21, notify=False)
    check(alerts(), tmp_path, 21, city=HERE.model_copy(update={"name": "large"}))
    assert deliver(settings, tmp_path) == 0 and webhook.messages == []
    assert not (tmp_path / HERE.name / "alerts.jsonl").exists() and len(lines(tmp_path, "large")) == 1
    replayed = (tmp_path / HERE.name / "replay-alerts.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in replayed] == ["raised"]


@pytest.mark.parametrize(
    ("answer", "attempts"), [(429, 3), (500, 3), (502, 3), (503, 3), (504, 3), (501, 1), (505, 1), (428, 1), (430, 1)]
)
def test_answers_that_may_pass_are_tried_thrice_with_a_pause_of_a_second_before_the_last(
    tmp_path: Path, webhook: Webhook, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, answer: int,
    attempts: int,
) -> None:  # fmt: skip
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    settings, webhook.answers = alerts(webhook), [answer]
    check(settings, tmp_path, 21)
    assert deliver(settings, tmp_path) == 0
    assert len(webhook.messages) == attempts
    assert [pause for pause in pauses if pause] == [1.0] * (attempts == 3)
    assert f"answered {answer}: 1 notices wait" in spoken(log)[-1][1]


def test_an_attempt_is_given_up_after_3_seconds(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def send(adapter: HTTPAdapter, request: object, timeout: Timeout, **options: object) -> None:
        limits.append(timeout.total)
        raise requests.ConnectionError

    monkeypatch.setattr(HTTPAdapter, "send", send)
    check(alerts(webhook), tmp_path, 21)
    assert deliver(alerts(webhook), tmp_path) == 0
    assert limits == [3.0]


def test_a_message_holds_500_notices_at_most(tmp_path: Path, webhook: Webhook) -> None:
    found = [Finding(f"flow above={n}", "flow", "warning", "much", 2.0, 1.0) for n in range(501)]
    AlertBook(alerts_file(tmp_path)).update("small", found, NOON, deliver=True)
    assert [deliver(alerts(webhook), tmp_path) for _ in range(3)] == [500, 1, 0]
    assert [len(message["notices"]) for message in webhook.messages] == [500, 1]
