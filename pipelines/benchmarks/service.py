"""The service suite: cycles with a simulated clock, from records to forecast, over a week and for fifty cities.

The cities have 32 x 32 cells, Poisson counts with a daily wave, and an untrained VMRNN-C of full size, which takes as
long as a trained one. Every measurement runs in its own process, so that its memory is its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipelines.service.cycle import CityService, run_cycle
from trafficcast.config.city import FLOW_KINDS, HORIZON, City
from trafficcast.config.service import Service
from trafficcast.forecasting.baselines import AnomalyPersistence
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.intervals import Intervals
from trafficcast.forecasting.model import Model, build, publish_model
from trafficcast.forecasting.windows import window_starts
from trafficcast.ingestion.ingest import ingest
from trafficcast.progress import track
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.forecasts import COMPLETE
from trafficcast.stores.registry import Registry

_START = np.datetime64("2024-04-01", "us")
_TRAINING_DAYS, _WEEK_DAYS = 14, 7
_VEHICLES = 500
_RECORD_SLOTS = 24  # slots whose records come one after another
_CITIES = 50
_COLD_RUNS = 5
_Row = dict[str, Any]


def _service_rows() -> list[_Row]:
    """Measure all; a row holds the number of runs, median and 99th percentile in seconds, runs a minute and MB."""
    rows: list[_Row] = []
    plan: tuple[Callable[[], list[_Row]], ...] = (_week, _cold, _from_records, _cities)
    for measure in track(plan, "benchmark", len(plan)):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            rows += process.submit(measure).result()
    return rows


def _week() -> list[_Row]:
    """Measure a week of cycles, each a forecast and a verification; memory after a day and after the week."""
    with tempfile.TemporaryDirectory() as folder:
        service = _service(Path(folder), "one", _WEEK_DAYS)
        city, seconds, memory = service.stores.city, [], []
        for number in range(_WEEK_DAYS * city.slots_per_day):
            began = time.perf_counter()
            (made,) = run_cycle(service, _first(city) + number * city.slot)
            seconds.append(time.perf_counter() - began)
            assert made["state"].values[0] == COMPLETE
            memory.append(_memory())
        day = memory[city.slots_per_day - 1]
        return [
            _row("cycle, a week of slots", "service", seconds, memory[-1]),
            _row("the same, its first day", "service", seconds[: city.slots_per_day], day),
        ]


def _cold() -> list[_Row]:
    """Measure the naive implementation: a new process for each forecast, as a cron table starts it."""
    with tempfile.TemporaryDirectory() as folder:
        service = _service(Path(folder), "one", _WEEK_DAYS)
        config = Path(folder) / "config.toml"
        lines = [f"{key} = {_toml(value)}" for key, value in service.stores.city.grid().items()]
        config.write_text("\n".join(["[cities.one]", *lines, ""]), encoding="utf-8")
        seconds = []
        for number in range(_COLD_RUNS):
            init_time = str(_first(service.stores.city) + number * service.stores.city.slot) + "Z"
            words = f"-m pipelines forecast --init-time {init_time} --device cpu --config"
            began = time.perf_counter()
            subprocess.run([sys.executable, *words.split(), str(config)], check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
        return [_row("forecast without verification", "a process each", seconds, None)]


def _from_records() -> list[_Row]:
    """Measure from a file with a slot's records to the forecast after that slot."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        service = _service(root, "one", 0, flows=False)
        city = service.stores.city
        ingested, published = [], []
        for number in range(_RECORD_SLOTS):
            slot = _first(city) + number * city.slot
            file = root / f"{number}.parquet"
            _records(city, slot, number).to_parquet(file)
            began = time.perf_counter()
            ingest(str(file), service.stores)
            ingested.append(time.perf_counter() - began)
            if number >= 3:
                (made,) = run_cycle(service, slot + city.slot)
                assert made["state"].values[0] == COMPLETE
                published.append(time.perf_counter() - began)
        what = f"{_VEHICLES} vehicles' records of a slot"
        return [
            _row(f"{what}: ingested", "service", ingested, None),
            _row(f"{what}: forecast published", "service", published, _memory()),
        ]


def _cities() -> list[_Row]:
    """Measure fifty cities in one process with two threads: all forecasts of one slot, with the models in memory."""
    with tempfile.TemporaryDirectory() as folder:
        services = [_service(Path(folder), f"city-{number}", 1) for number in range(_CITIES)]
        first = _first(services[0].stores.city)
        seconds: list[float] = []
        rounds: list[float] = []
        with ThreadPoolExecutor(2) as pool:
            for number in range(3):
                now, began = first + number * services[0].stores.city.slot, time.perf_counter()

                def cycle(service: CityService, now: np.datetime64 = now, began: float = began) -> float:
                    run_cycle(service, now)
                    return time.perf_counter() - began

                done = list(pool.map(cycle, services))
                if number:  # the first round loads the models
                    seconds += done
                    rounds.append(max(done))
        return [
            _row(f"{_CITIES} cities: from the slot's end to a city's forecast", "service", seconds, _memory()),
            _row(f"{_CITIES} cities: all of them", "service", rounds, _memory()),
        ]


def _row(what: str, by: str, seconds: list[float], memory: float | None) -> _Row:
    """Summarise the times of some runs."""
    return {
        "what": what,
        "by": by,
        "times": len(seconds),
        "median_s": round(float(np.median(seconds)), 3),
        "p99_s": round(float(np.percentile(seconds, 99)), 3),
        "per_minute": round(60 / float(np.mean(seconds)), 1),
        "memory_mb": None if memory is None else round(memory),
    }


def _city(name: str) -> City:
    """Return a city of 32 x 32 cells."""
    return City(west=9.10, east=9.26, south=45.42, north=45.52, timezone="Europe/Rome", name=name)


def _first(city: City) -> np.datetime64:
    """Return the first init time after the training days."""
    return _START + _TRAINING_DAYS * city.slots_per_day * city.slot


def _service(root: Path, name: str, days: int, flows: bool = True) -> CityService:
    """Make a city below `root` with a model and the flows of the training days and of `days` days after them."""
    city = _city(name)
    time_ = _START + city.slot * np.arange((_TRAINING_DAYS + days) * city.slots_per_day)
    wave = 6 + 5 * np.sin(np.arange(len(time_)) * 2 * np.pi / city.slots_per_day)
    shape = (len(time_), len(FLOW_KINDS), city.rows, city.cols)
    random = np.random.default_rng(0)
    counts = random.poisson(wave[:, None, None, None], shape).astype(np.int32)
    made = flows_dataset(city, time_, counts, np.full(len(time_), _VEHICLES), np.ones(len(time_)))
    if flows:
        # A cycle reads no earlier days.
        CityStores(city, root / "data", root / "models").flows.write(
            made.isel(time=time_ >= _first(city) - np.timedelta64(8, "D"))
        )
    fitted = made.isel(time=time_ < _first(city))
    torch.manual_seed(0)
    architecture = {"name": "vmrnn-c", "rows": city.rows, "cols": city.cols, "channels": len(FLOW_KINDS)}
    anomaly = AnomalyPersistence.fit(city, fitted, window_starts(fitted, city, _START, _first(city)))
    card = {
        "version": "vmrnn-c-1",
        "city": city.name,
        "architecture": architecture,
        "grid": city.grid(),
        "scale": float(counts.max()),
        "metrics": {"validation": {}, "test": {}},
    }
    errors = random.normal(size=(64, HORIZON, len(FLOW_KINDS), 8, 8))
    intervals = Intervals.fit(np.full(errors.shape, 6.0), (6 + errors).clip(0))
    model = Model(card, build(architecture), Climatology.fit(city, fitted), anomaly, None, intervals)
    publish_model(Registry(root / "models" / name, city), model, lambda folder: None)
    return CityService(CityStores(city, root / "data", root / "models"), Service(), torch.device("cpu"))


def _records(city: City, slot: np.datetime64, seed: int) -> pd.DataFrame:
    """Return a point a minute of every vehicle, anywhere in the box, the last one after the slot's end."""
    random = np.random.default_rng(seed)
    minutes = np.arange(city.slot_minutes + 1)
    times = slot + minutes * np.timedelta64(1, "m") + np.timedelta64(20, "s")
    n = _VEHICLES * len(minutes)
    return pd.DataFrame(
        {
            "vehicle": np.repeat(np.arange(_VEHICLES), len(minutes)),
            "time": pd.DatetimeIndex(np.tile(times, _VEHICLES)).tz_localize("UTC"),
            "lon": random.uniform(city.west, city.east, n),
            "lat": random.uniform(city.south, city.north, n),
        }
    )


def _memory() -> float:
    """Return this process's peak memory, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _toml(value: object) -> str:
    """Write a text or a number as TOML."""
    return f'"{value}"' if isinstance(value, str) else str(value)
