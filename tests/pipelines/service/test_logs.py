"""Log lines of the service: JSON or text, each with what it is about."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.service import logs
from pipelines.service.logs import EqualErrors, JsonLines, TextLines, _context
from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding
from trafficcast.alerts.notify import deliver
from trafficcast.config.alert_rules import Alerts


class Lines:
    """A logger of its own and what it wrote."""

    def __init__(self, formatter: logging.Formatter, name: str) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)
        self.log = logging.getLogger(name)
        self.log.setLevel(logging.INFO)
        self.log.addHandler(self.handler)

    @property
    def text(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text]


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    made = Lines(getattr(request, "param", JsonLines)(), "trafficcast")
    yield made
    made.log.removeHandler(made.handler)


def test_a_line_is_an_object_with_time_level_and_message(lines: Lines) -> None:
    lines.log.info("%d forecasts\nof %s", 3, "São Paulo")
    (line,) = lines.json
    assert set(line) == {"time", "level", "message"}
    assert (line["level"], line["message"]) == ("INFO", "3 forecasts\nof São Paulo")
    assert line["time"].endswith("+00:00") and len(line["time"]) == len("2024-04-08T10:00:00.000+00:00")


def test_within_a_job_each_line_says_of_which_city_job_and_slot_it_is(lines: Lines) -> None:
    lines.log.info("before")
    with _context(city="small", job="forecast"):
        lines.log.info("about")
        with _context(slot="10:00", job="verify"):
            lines.log.warning("within")
        lines.log.info("again")
    lines.log.info("after")
    text = [{key: line.get(key) for key in ("message", "city", "job", "slot")} for line in lines.json]
    assert [tuple(line.values()) for line in text] == [
        ("before", None, None, None),
        ("about", "small", "forecast", None),
        ("within", "small", "verify", "10:00"),
        ("again", "small", "forecast", None),
        ("after", None, None, None),
    ]


def test_what_a_job_is_about_ends_with_it_though_it_fails(lines: Lines) -> None:
    with pytest.raises(ValueError, match="why"), _context(city="small"):
        raise ValueError("why")
    lines.log.info("after")
    assert "city" not in lines.json[0]


def test_threads_do_not_speak_of_one_another_s_city(lines: Lines) -> None:
    both = threading.Barrier(2)

    def job(city: str) -> None:
        with _context(city=city):
            both.wait(10)
            lines.log.info("from %s", city)
            both.wait(10)

    threads = [threading.Thread(target=job, args=(city,)) for city in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted((line["message"], line["city"]) for line in lines.json) == [("from a", "a"), ("from b", "b")]


def test_a_traceback_stays_in_its_line(lines: Lines) -> None:
    try:
        raise ZeroDivisionError("by nothing")
    except ZeroDivisionError:
        lines.log.exception("a bug")
    (line,) = lines.json
    assert (line["level"], line["message"]) == ("ERROR", "a bug")
    assert line["traceback"].startswith("Traceback") and line["traceback"].endswith("ZeroDivisionError: by nothing")
    assert "test_a_traceback_stays_in_its_line" in line["traceback"]


@pytest.mark.parametrize("lines", [TextLines], indirect=True)
def test_as_text_the_city_the_job_and_the_slot_stand_in_brackets(lines: Lines) -> None:
    lines.log.info("100 %% of %s", "it")
    with _context(city="small", job="forecast", slot="10:00"):
        lines.log.error("100 %% of %s", "it")
        lines.log.info("50 % without arguments")
    assert [line.split(" ", 1)[1] for line in lines.text] == [
        "INFO 100 % of it",
        "ERROR [small forecast 10:00] 100 % of it",
        "INFO [small forecast 10:00] 50 % without arguments",
    ]


@pytest.mark.parametrize("lines", [JsonLines, TextLines], indirect=True)
def test_the_webhook_s_address_is_in_no_line(lines: Lines, tmp_path: Path) -> None:
    secret = "http://user:s3cr3t@127.0.0.1:9/hooks/t0k3n"  # nobody listens there
    alerts = Alerts(webhook=secret)
    finding = Finding("feed-silent", "feed-silent", "critical", "the feed is silent", 61.0, 60.0)
    AlertBook(tmp_path / "alerts.sqlite").update("small", [finding], np.datetime64("2024-04-08T10:00", "us"), True)
    root = Lines(JsonLines(), "urllib3")
    try:
        assert deliver(alerts, tmp_path) == 0
    finally:
        root.log.removeHandler(root.handler)
    text = lines.stream.getvalue() + root.stream.getvalue()
    assert "127.0.0.1:9 failed" in text
    assert not any(word in text for word in ("s3cr3t", "t0k3n", "hooks"))


@pytest.mark.parametrize("lines", [JsonLines, TextLines], indirect=True)
def test_a_file_s_name_can_forge_no_line_and_steer_no_terminal(lines: Lines) -> None:
    name = "a\n2024-04-08T10:00:00+0000 INFO all is well\r\x1b[2J\x85\u2028\u202eb\U000e0001.csv"
    lines.log.warning("%s waits", name)
    try:
        raise ValueError(name)
    except ValueError:
        lines.log.exception("%s is bad", name)
    text = lines.stream.getvalue()
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert not any(line.startswith("2024-04-08T10:00:00+0000 INFO all") for line in lines.text)
    if lines.handler.formatter.__class__ is JsonLines:
        assert [line["message"] for line in lines.json] == [f"{name} waits", f"{name} is bad"]


def test_equal_errors_are_logged_once_and_then_counted(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    lines.handler.addFilter(EqualErrors())
    clock = [1000.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
    for _ in range(721):  # an hour of ticks
        with _context(city="small", job="forecast", slot=str(clock[0] // 1800)):
            lines.log.error("cannot write .2024-04-14.nc.%08x.tmp", int(clock[0]))
            lines.log.warning("an alert")
        clock[0] += 5.0
    with _context(city="other", job="forecast"):
        lines.log.error("cannot write .2024-04-14.nc.a1b2c3d4.tmp")
    errors = [line for line in lines.json if line["level"] == "ERROR"]
    assert [line["city"] for line in errors] == ["small", "small", "other"]
    assert errors[1]["message"].endswith(".tmp (719 times more in the 1.0 h before)")
    assert len(lines.json) == len(errors) + 721  # every alert


def test_of_ever_new_errors_few_are_remembered(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MOST_ERRORS", 3)
    seen = EqualErrors()
    lines.handler.addFilter(seen)
    for number in range(9):
        lines.log.error("error %d", number)
    assert len(lines.json) == 9 and len(seen._seen) == 3
