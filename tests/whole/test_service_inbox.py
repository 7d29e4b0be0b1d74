"""The real service with an inbox that holds all that it should not, under a wrong clock, and told to reload."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live import ask, free_port, lines, services, wait_for

pytestmark = pytest.mark.slow

NOON = 1_712_570_400
# The command, with an inbox whose files were written when the clock stood six hours ahead.
AHEAD = """
import sys, time
from types import SimpleNamespace
import trafficcast.ingestion.inbox as inbox
inbox.time = SimpleNamespace(time=lambda: time.time() - 6 * 3600, monotonic=time.monotonic, sleep=time.sleep)
from pipelines.cli.main import main
main()
"""


@pytest.fixture
def folder(config: Path) -> Path:
    """The small city without a model, with an inbox."""
    with open(config, "a") as file:
        file.write('[cities.small.feed]\ninbox = "inbox"\n')
        file.write(f"[service]\nport = {free_port()}\ningest_seconds = 1\n")
    (config.parent / "inbox").mkdir()
    return config.parent


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    with services(folder) as start:
        yield start


def records(start: int) -> str:
    return "".join(f"45.47 {9.11 + 0.02 * (i % 7)} 0 {start + 60 * i}\n" for i in range(30))


def test_an_inbox_with_all_that_it_should_not_hold(folder: Path, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    box, log = folder / "inbox", folder / "log"
    (box / "new_a.txt").write_text(records(NOON))
    (box / "bad\n2024-04-08T10:00:00+0000 INFO all is well.csv").write_bytes(b"\0\1" * 99)
    (box / "passwd.csv").symlink_to("/etc/passwd")
    os.mkfifo(box / "pipe.csv")
    with open(box / "new_open.txt", "w") as written:
        written.write(records(NOON))
        written.flush()
        process = start("log", "-c", AHEAD, umask=0o027)
        wait_for("1 files taken, 3 to quarantine", log, process)
        wait_for("the times of 1 new files, such as new_open.txt", log, process)  # and in each later look
        job = json.loads(ask(folder, "status")[1])["cities"]["small"]["jobs"]["ingest"]
        assert job["detail"].endswith(" of them with times ahead of the clock")
    said = [line["message"] for line in lines(log)]
    (ahead,) = [line for line in said if "the times of 5 new files, such as " in line]
    assert "360 minutes ahead of the clock" in ahead
    assert not any(line.startswith("2024-04-08T10") for line in log.read_text().splitlines())
    assert "passwd.csv: it is a link" in log.read_text() and "pipe.csv: it is a pipe" in log.read_text()
    assert "root:" not in "".join(file.read_text() for file in (box / "quarantine").glob("*.txt"))
    files = [file for file in (folder / "data").rglob("*") if file.is_file()]
    assert len(files) > 5
    assert {str(file): oct(stat.S_IMODE(file.stat().st_mode)) for file in files} == dict.fromkeys(
        map(str, files), oct(0o640)
    )


def test_a_hang_up_reloads_a_configuration_that_is_right_and_leaves_one_that_is_wrong(
    folder: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    config, log = folder / "config.toml", folder / "log"
    right = config.read_text()
    process = start("log")
    wait_for("running small", log, process)

    config.write_text(right + "[servise]\n")
    process.send_signal(signal.SIGHUP)
    wait_for("the configuration is not reloaded, and the former one stays", log, process)
    assert "did you mean 'service'?" in log.read_text()
    config.write_text(right + '[[alerts.rules]]\nkind = "flow"\ncity = "small"\nabove = 1\narea = "Nowhere"\n')
    process.send_signal(signal.SIGHUP)
    wait_for("has no file of areas", log, process)
    config.write_text(right)
    assert ask(folder, "healthz")[0] == 200

    table = right.partition("[cities.small]")[2].partition("[cities.small.feed]")[0]
    config.write_text(right.replace("[service]", f"[cities.other]{table}\n[service]"))
    process.send_signal(signal.SIGHUP)
    wait_for("running other, small", log, process)
    said = [line["message"] for line in lines(log)]
    assert said.index("the configuration is reloaded") < said.index("stopping")
    assert '"other"' in ask(folder, "status")[1]
    assert process.poll() is None  # the same process

    process.terminate()
    assert process.wait(10) == 0 and "stopped" in log.read_text()
