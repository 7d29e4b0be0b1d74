"""The benchmark's dashboard suite: a year of one city, its pages drawn by Streamlit's own test harness.

What is timed is the server: the script from top to bottom, with all it reads and all it sends, without the browser.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from streamlit.testing.v1 import AppTest

from trafficcast.city import FLOW_KINDS, City
from trafficcast.config import load_config
from trafficcast.flows import flows_dataset
from trafficcast.forecasts import forecast_dataset
from trafficcast.intervals import Intervals
from trafficcast.stores import flow_store, forecast_store
from trafficcast.windows import HORIZON

START = np.datetime64("2023-12-31T23:00", "us")  # local midnight
DAYS = 365
CHANGES = 60
SESSIONS = 10
OPENED = 100
VERSION = "vmrnn-c-1"
CONFIG = """[cities.one]
west = 9.10
east = 9.26
south = 45.42
north = 45.52
timezone = "Europe/Rome"
"""
Row = dict[str, Any]


def dashboard_rows() -> list[Row]:
    """One row a measurement: how many times, median and 99th percentile in milliseconds, peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.toml"
        file.write_text(CONFIG, encoding="utf-8")
        _fill(file)
        first = [float(_in_a_process(file, "first")[0]) for _ in range(3)]
        changes, memory, later = _numbers(_in_a_process(file, "changes"))
        together, _, _ = _numbers(_in_a_process(file, "together"))
        return [
            _row("first page of a new server, without starting Python", first, None),
            _row("another slot, flow kind or cell", changes, memory[0]),
            _row(f"the same after {OPENED} more pages were opened", later, memory[1]),
            _row(f"another slot, {SESSIONS} open pages at once", together, None),
        ]


def measure(what: str, config: Path) -> None:
    """Print the numbers of one measurement; in a process of its own."""
    if what == "first":
        began = time.perf_counter()
        _page(config)
        print(time.perf_counter() - began)
    elif what == "changes":
        page = _page(config)
        changes = [_change(page, number) for number in range(CHANGES)]
        memory = [_memory()]
        for _ in range(OPENED):
            _page(config)
        later = [_change(page, number) for number in range(CHANGES)]
        print(*changes, "|", *memory, _memory(), "|", *later)
    else:
        pages = [_page(config) for _ in range(SESSIONS)]
        with ThreadPoolExecutor(SESSIONS) as pool:
            rounds = [list(pool.map(lambda page, n=n: _change(page, n), pages)) for n in range(CHANGES // SESSIONS)]
        print(*(seconds for one in rounds for seconds in one), "| 0 0 |")


def _page(config: Path) -> AppTest:
    """The Now page of a new session, drawn once."""
    page = AppTest.from_function(_script, default_timeout=120, args=(str(config),))
    page.run()
    assert not page.exception and page.select_slider, page
    return page


def _script(config: str) -> None:
    from dashboard.shell import main

    main(["--config", config])


def _change(page: AppTest, number: int) -> float:
    """Seconds for what an operator does most: another slot, and now and then another kind or cell."""
    slot = START + np.timedelta64(DAYS, "D") - (2 + 7 * number % 40) * np.timedelta64(30, "m")
    page.query_params["time"] = f"{slot}Z"
    page.query_params["kind"] = ("inflow", "outflow", "net")[number // 5 % 3]
    page.query_params["cell"] = f"{number % 32},{number // 3 % 32}"
    began = time.perf_counter()
    page.run()
    seconds = time.perf_counter() - began
    assert not page.exception, page.exception
    return seconds


def _in_a_process(config: Path, what: str) -> list[str]:
    command = [sys.executable, "-c", "import sys; from pathlib import Path; from dashboard.benchmark import measure; "]
    command[-1] += "measure(sys.argv[1], Path(sys.argv[2]))"
    done = subprocess.run([*command, what, str(config)], check=True, capture_output=True, text=True)
    return done.stdout.split()


def _numbers(words: list[str]) -> tuple[list[float], list[float], list[float]]:
    parts = " ".join(words).split("|")
    first, second, third = ([float(word) for word in part.split()] for part in parts)
    return first, second, third


def _row(what: str, seconds: list[float], memory: float | None) -> Row:
    return {
        "what": what,
        "times": len(seconds),
        "median_ms": round(1000 * float(np.median(seconds))),
        "p99_ms": round(1000 * float(np.percentile(seconds, 99))),
        "peak_mb": None if memory is None else round(memory),
    }


def _fill(file: Path) -> None:
    """A year of flows and of forecasts with intervals; a champion's pointer and card."""
    config = load_config(file)
    city, data = config.city("one"), config.paths.data
    shape = (city.slots_per_day, len(FLOW_KINDS), city.rows, city.cols)
    wave = 8 + 6 * np.sin(np.arange(city.slots_per_day) * 2 * np.pi / city.slots_per_day)
    counts = np.broadcast_to(wave[:, None, None, None], shape).astype(np.int32)
    errors = np.random.default_rng(0).normal(size=(64, HORIZON, len(FLOW_KINDS), 8, 8))
    intervals = Intervals.fit(np.full(errors.shape, 6.0), (6 + errors).clip(0))
    card = {"version": VERSION, "architecture": {"name": "vmrnn-c"}, "city": "one", "created": "2024-01-01"}
    for day in range(DAYS):
        times = START + np.timedelta64(day, "D") + city.slot * np.arange(city.slots_per_day)
        flow_store(data, city).write(flows_dataset(city, times, counts, np.full(len(times), 500), np.ones(len(times))))
        _forecast_day(city, data, card, times, counts, intervals)
    folder = config.paths.models / "one" / VERSION
    folder.mkdir(parents=True)
    (folder / "card.json").write_text('{"version": "vmrnn-c-1", "created": "2024-01-01"}', encoding="utf-8")
    (folder.parent / "champion").write_text(VERSION + "\n", encoding="utf-8")


def _forecast_day(
    city: City, data: Path, card: dict[str, Any], times: np.ndarray, counts: np.ndarray, intervals: Intervals
) -> None:
    made = [
        forecast_dataset(city, card, time_, np.repeat(counts[i : i + 1], HORIZON, axis=0), time_, intervals)
        for i, time_ in enumerate(times)
    ]
    whole = xr.concat(made, "init_time", data_vars="minimal", coords="minimal", compat="override")
    forecast_store(data, city, VERSION).write(whole)


def _memory() -> float:
    """The most that this process ever held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
