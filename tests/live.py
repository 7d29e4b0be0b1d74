"""The real service in a process of its own: started, asked over HTTP, given records, and ended."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from trafficcast.config.city import City
from trafficcast.config.settings import load_config


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def services(folder: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Yield what starts `trafficcast schedule`, writing its log to a file; what still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(log: str, *command: str, umask: int = -1) -> subprocess.Popen[bytes]:
        words = [sys.executable, *(command or ("-m", "pipelines"))]
        words += ["schedule", "--log-json", "--device", "cpu", "--config", str(folder / "config.toml")]
        with open(folder / log, "wb") as stderr:
            started.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=stderr, umask=umask))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Until a log of a process that lives holds a text."""
    end = time.monotonic() + seconds
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, f"no '{text}' in: {log.read_text()}"
        time.sleep(0.01)


def ask(folder: Path, page: str) -> tuple[int, str]:
    """The status and the body of an answer of the service."""
    port = load_config(folder / "config.toml").service.port
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def drive(city: City, file: Path) -> None:
    """Three hundred taxis that reported every minute of the last six hours, and shall for two minutes more.

    They drive slowly, so that their flows are plausible to the model at any hour of the day and the week.
    """
    draw = np.random.default_rng(1)
    minutes = np.datetime64("now", "m") + np.arange(-360, 3) * np.timedelta64(1, "m")
    shape = (len(minutes), 300)
    place = np.cumsum(draw.normal(0, 0.001, (2, *shape)), 1) + draw.uniform(0, 1, (2, 1, 300))
    north, east = np.abs((place + 1) % 2 - 1)  # at an edge they turn
    table = pd.DataFrame(
        {
            "vehicle": np.tile([f"taxi {i}" for i in range(300)], len(minutes)),
            "time": np.repeat([f"{minute}:00Z" for minute in minutes], 300),
            "lon": (city.west + 0.001 + east * (city.east - city.west - 0.002)).ravel(),
            "lat": (city.south + 0.001 + north * (city.north - city.south - 0.002)).ravel(),
        }
    )
    table.to_csv(file, index=False)


def lines(log: Path) -> list[dict[str, str]]:
    """The lines of a log, all JSON."""
    return [json.loads(line) for line in log.read_text().splitlines()]
