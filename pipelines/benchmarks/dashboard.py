"""The benchmark's dashboard suite: a year of one city, its pages drawn by Streamlit's own test harness.

What is timed is the server: the script from top to bottom, with all it reads and all it sends, without the browser.
"""

from __future__ import annotations

import json
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

from dashboard.__main__ import import_before
from trafficcast.config.city import FLOW_KINDS, HORIZON
from trafficcast.config.settings import load_config
from trafficcast.forecasting.intervals import Intervals
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.forecasts import forecast_dataset

_START = np.datetime64("2023-12-31T23:00", "us")  # local midnight
_DAYS = 365
_CHANGES = 60
_SESSIONS = 10
_OPENED = 100
_VERSION = "vmrnn-c-1"
_NOTHING = np.timedelta64(0, "D")
_CONFIG = """[cities.one]
west = 9.10
east = 9.26
south = 45.42
north = 45.52
timezone = "Europe/Rome"
"""
_Row = dict[str, Any]


def _dashboard_rows() -> list[_Row]:
    """One row a measurement: how many times, median and 99th percentile in milliseconds, peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.toml"
        file.write_text(_CONFIG, encoding="utf-8")
        _fill(file)
        first = [_measured(file, "first")[0][0][0] for _ in range(3)]
        (changes, later), memory = _measured(file, "changes")
        (leads, days), _ = _measured(file, "look back")
        (together,), _ = _measured(file, "together")
        return [
            _row("first page of a new server", first, None),
            _row("Now: another slot, flow kind or cell", changes, memory[0]),
            _row(f"Now: the same after {_OPENED} more pages were opened", later, memory[1]),
            _row("Look back: another slot, lead, flow kind or cell", leads, None),
            _row("Look back: another day", days, None),
            _row(f"Now: another slot, {_SESSIONS} open pages at once", together, None),
        ]


def _measure(what: str, config: Path) -> None:
    """Print lists of seconds and a list of memory, MB, of one measurement; in a process of its own."""
    memory: list[float] = []
    import_before()  # as the server does before it listens
    if what == "first":
        began = time.perf_counter()
        _page(config)
        seconds = [[time.perf_counter() - began]]
    elif what == "changes":
        page = _page(config)
        seconds = [[_change(page, number) for number in range(_CHANGES)]]
        memory = [_memory()]
        for _ in range(_OPENED):
            _page(config)
        seconds.append([_change(page, number) for number in range(_CHANGES)])
        memory.append(_memory())
    elif what == "look back":
        page = _page(config, "look_back")
        seconds = [[_change(page, number) for number in range(_CHANGES)]]
        seconds.append([_change(page, number, np.timedelta64(5 * number + 2, "D")) for number in range(_CHANGES)])
    else:
        pages = [_page(config) for _ in range(_SESSIONS)]
        with ThreadPoolExecutor(_SESSIONS) as pool:
            rounds = [list(pool.map(lambda page, n=n: _change(page, n), pages)) for n in range(_CHANGES // _SESSIONS)]
        seconds = [[one for round_ in rounds for one in round_]]
    print(json.dumps([seconds, memory]))


def _page(config: Path, page: str = "now") -> AppTest:
    """A page of a new session, drawn once."""
    app = AppTest.from_function(_script, default_timeout=120, args=(str(config), page))
    app.run()
    assert not app.exception and app.segmented_control, app
    return app


def _script(config: str, page: str) -> None:
    import importlib
    from pathlib import Path

    from dashboard.page.address import current_view
    from trafficcast.config.settings import load_config

    loaded = load_config(Path(config))
    importlib.import_module(f"dashboard.forecasts.{page}").draw(loaded, current_view(loaded, "one"))


def _change(page: AppTest, number: int, before: np.timedelta64 = _NOTHING) -> float:
    """Seconds for what an operator does most: another slot of that day, and now and then another kind, lead or cell."""
    slot = _START + np.timedelta64(_DAYS, "D") - before - (2 + 7 * number % 40) * np.timedelta64(30, "m")
    page.query_params["time"] = f"{slot}Z"
    page.query_params["kind"] = ("inflow", "outflow", "net")[number // 5 % 3]
    page.query_params["lead"] = str(number % HORIZON)
    page.query_params["cell"] = f"{number % 32},{number // 3 % 32}"
    began = time.perf_counter()
    page.run()
    seconds = time.perf_counter() - began
    assert not page.exception, page.exception
    return seconds


def _measured(config: Path, what: str) -> tuple[list[list[float]], list[float]]:
    code = "import sys; from pathlib import Path; from pipelines.benchmarks.dashboard import _measure; "
    command = [sys.executable, "-c", code + "_measure(sys.argv[1], Path(sys.argv[2]))", what, str(config)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def _row(what: str, seconds: list[float], memory: float | None) -> _Row:
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
    city = config.city("one")
    stores = CityStores.of(config, city)
    shape = (city.slots_per_day, len(FLOW_KINDS), city.rows, city.cols)
    wave = 8 + 6 * np.sin(np.arange(city.slots_per_day) * 2 * np.pi / city.slots_per_day)
    counts = np.broadcast_to(wave[:, None, None, None], shape).astype(np.int32)
    errors = np.random.default_rng(0).normal(size=(64, HORIZON, len(FLOW_KINDS), 8, 8))
    intervals = Intervals.fit(np.full(errors.shape, 6.0), (6 + errors).clip(0))
    card = {"version": _VERSION, "architecture": {"name": "vmrnn-c"}, "city": "one", "created": "2024-01-01"}
    for day in range(_DAYS):
        times = _START + np.timedelta64(day, "D") + city.slot * np.arange(city.slots_per_day)
        stores.flows.write(flows_dataset(city, times, counts, np.full(len(times), 500), np.ones(len(times))))
        _forecast_day(stores, card, times, counts, intervals)
    folder = stores.registry.root / _VERSION
    folder.mkdir(parents=True)
    (folder / "card.json").write_text('{"version": "vmrnn-c-1", "created": "2024-01-01"}', encoding="utf-8")
    (folder.parent / "champion").write_text(_VERSION + "\n", encoding="utf-8")


def _forecast_day(
    stores: CityStores, card: dict[str, Any], times: np.ndarray, counts: np.ndarray, intervals: Intervals
) -> None:
    made = [
        forecast_dataset(stores.city, card, time_, np.repeat(counts[i : i + 1], HORIZON, axis=0), time_, intervals)
        for i, time_ in enumerate(times)
    ]
    whole = xr.concat(made, "init_time", data_vars="minimal", coords="minimal", compat="override")
    stores.forecasts(_VERSION).write(whole)


def _memory() -> float:
    """The most that this process ever held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
