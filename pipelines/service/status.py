"""Status of the service: each city's data, forecast, jobs, skill and alerts, read from the stores alone.

Each city is read in a thread of its own and waited for in bounded time, so that a city whose stores are damaged, locked
or on a disk that hangs hides no other.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from apscheduler.triggers.base import BaseTrigger
from filelock import FileLock

from pipelines.service.crontab import _crontab_trigger
from trafficcast.alerts.book import AlertBook
from trafficcast.config.city import DAY, City
from trafficcast.config.settings import Config
from trafficcast.errors import DamagedFile, InputError, JobError
from trafficcast.forecasting.publish import JOB
from trafficcast.forecasting.verify import VERIFY
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import judged_otherwise, last_observed
from trafficcast.stores.ledger import Run
from trafficcast.stores.published import is_overdue, latest_forecast
from trafficcast.stores.registry import Registry
from trafficcast.stores.scores import recent_scores, skill

_T = TypeVar("_T")
_INGEST, _ALERTS, _RETRAIN, _PRUNE = "ingest", "alerts", "retrain", "prune"
# The result of a run that ended by a bug of this program.
_BROKEN = "broken"
_JOBS = (_INGEST, JOB, VERIFY, _ALERTS, _RETRAIN, _PRUNE)
_SERVICE_LOCK = ".schedule.lock"
_FRESH_SECONDS = 5.0  # the status of a city is at most this old
_READ_SECONDS = 20.0  # a city whose status is not read by then counts as one that cannot be read


class _Statuses:
    """The status of the cities of a service, for all who ask."""

    def __init__(self, config: Config, cities: list[City]) -> None:
        self._data = config.paths.data
        self._readings = {city.name: _Reading(config, city) for city in cities}

    def read(self, now: np.datetime64) -> dict[str, Any]:
        """Return whether the service runs, and the status of each city or the error that prevents reading it."""
        for reading in self._readings.values():
            reading.start(now)
        deadline = time.monotonic() + _READ_SECONDS
        return {
            "running": _is_running(self._data),
            "time": f"{now.astype('datetime64[s]')}Z",
            "cities": {name: reading.wait(deadline) for name, reading in self._readings.items()},
        }


class _Reading:
    """The status of one city: the last one that was read, and the thread that reads the next."""

    def __init__(self, config: Config, city: City) -> None:
        self._config, self._city = config, city
        self._changing = threading.Lock()
        self._done = threading.Event()
        self._began = float("-inf")
        self._at_work = False
        self._found: dict[str, Any] = {}

    def start(self, now: np.datetime64) -> None:
        """Begin to read, unless a thread does so already or the last status is new enough."""
        with self._changing:
            if self._at_work or time.monotonic() - self._began < _FRESH_SECONDS:
                return
            self._began, self._at_work = time.monotonic(), True
            self._done.clear()
        # A daemon, as a thread that hangs must not keep the process from ending.
        threading.Thread(target=self._read, args=(now,), name=f"status {self._city.name}", daemon=True).start()

    def wait(self, deadline: float) -> dict[str, Any]:
        """Return the status, or that it has not come by the deadline; who has hung for long is not waited for again."""
        deadline = min(deadline, self._began + _READ_SECONDS)
        if self._done.wait(max(0.0, deadline - time.monotonic())):
            return self._found
        return {"error": f"its stores cannot be read: they give no answer for {time.monotonic() - self._began:.0f} s"}

    def _read(self, now: np.datetime64) -> None:
        """Read the status; whatever goes wrong is the city's own error."""
        try:
            found = _city_status(self._config, self._city, now)
        except (InputError, JobError, OSError) as error:
            found = {"error": str(error)}
        except Exception as error:  # noqa: BLE001  # a city that nobody can read must be red, not silent
            found = {"error": f"its status cannot be told: {type(error).__name__}: {error}"}
        self._found = found
        with self._changing:
            self._at_work = False
            self._done.set()


def status(config: Config, cities: list[City], now: np.datetime64) -> dict[str, Any]:
    """Return whether the service runs, and the status of each city.

    Parameters
    ----------
    config
        The configuration.
    cities
        The cities.
    now
        The present time, naive UTC.

    Returns
    -------
    dict[str, Any]
        Whether the service is running, the time, and for each of the cities its data, forecast, jobs, skill and alerts,
        or an error if its stores cannot be read. Ages are in minutes, errors in vehicles per slot.
    """
    return _Statuses(config, cities).read(now)


def _city_status(config: Config, city: City, now: np.datetime64) -> dict[str, Any]:
    """Return data, forecast, jobs, skill of the last 24 hours and open alerts of a city; ages are in minutes.

    `overdue` is None if the city has no model or no flows yet and was never forecast. `damaged` names the files that
    cannot be read or are gone; what they hold is unknown, and the rest is there. Raises JobError and OSError where a
    file cannot be read now.
    """
    stores = CityStores.of(config, city)
    damaged: list[DamagedFile] = []

    def known(read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except DamagedFile as error:
            damaged.append(error)
            return None

    champion = known(lambda: _champion(stores))
    of_model = _damage(stores.registry, champion)
    observed = last_observed(stores.flows, now, damaged)
    latest = known(lambda: latest_forecast(stores, now, damaged))
    init_time = None if latest is None else latest[1]["init_time"].values[0]
    scored = known(lambda: recent_scores(stores, now - DAY, now, damaged))
    runs = known(lambda: {job: stores.ledger.last(job, city.name) for job in _JOBS})
    alerts = known(lambda: AlertBook(stores.alerts).open(city.name, now))
    was_forecast = runs is not None and runs[JOB] is not None
    ready = was_forecast or champion is not None and (observed is not None or init_time is not None)
    return {
        "champion": champion,
        "data": {
            "newest_slot": None if observed is None else city.isoformat(observed),
            "age_minutes": None if observed is None else _minutes(now - observed - city.slot),
            "judged_otherwise": judged_otherwise(stores),
        },
        "forecast": None if latest is None else _forecast_status(city, latest[1], now),
        "overdue": is_overdue(city, config.service, init_time, now) if ready else None,
        "jobs": {job: _job(config, city, job, None if runs is None else runs[job], now) for job in _JOBS},
        "skill": None if scored is None else vars(skill(*scored)),
        "alerts": alerts
        and [
            {"raised": city.isoformat(alert.raised), "kind": alert.finding.kind, "message": alert.finding.message}
            for alert in alerts
        ],
        "damaged": [text for text in dict.fromkeys([*map(str, damaged), of_model]) if text],
        "unreadable_runs": known(stores.ledger.unreadable),
    }


def _champion(stores: CityStores) -> str | None:
    """Return the champion. Raises DamagedFile where the list of champions is gone, but not what they made."""
    champion = stores.registry.champion()
    if champion is None and stores.registry.versions() and stores.ledger.first_slot(JOB, stores.city.name) is not None:
        raise DamagedFile(stores.registry.pointer, "it is gone, but not the models", stores.city.name)
    return champion


def _damage(registry: Registry, version: str | None) -> str:
    """Return what is wrong with a model's files by its seal; empty where nothing is, and where there is no model."""
    try:
        if version is not None:
            registry.check(version)
    except InputError as error:
        return str(error)
    return ""


def _forecast_status(city: City, forecast: xr.Dataset, now: np.datetime64) -> dict[str, Any]:
    """Return the provenance and the times of a forecast of one init time."""
    init_time, created = forecast["init_time"].values[0], forecast["created"].values[0]
    return {
        "init_time": city.isoformat(init_time),
        **{name: str(forecast[name].values[0]) for name in ("forecaster", "state", "reason")},
        "hindcast": bool(forecast["hindcast"].values[0]),
        "created": city.isoformat(created),
        "lag_minutes": _minutes(created - init_time),
        "age_minutes": _minutes(now - init_time),
    }


def _is_running(data: Path) -> bool:
    """Whether a service holds its lock, as far as that can be read; needs no more than the right to read the stores."""
    try:
        with open(data / _SERVICE_LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _service_lock(data: Path) -> FileLock:
    """Return the lock that a running service holds, one for all stores below `data`."""
    data.mkdir(parents=True, exist_ok=True)
    return FileLock(data / _SERVICE_LOCK)


def _job(config: Config, city: City, job: str, run: Run | None, now: np.datetime64) -> dict[str, Any]:
    """Return the last run of a job, with None for all that is unknown, and the time of the next run."""
    following = _next(config, city, job, run, now)
    return {
        "last": run and city.isoformat(run.finished),
        "result": run and run.result,
        "detail": run and run.detail,
        "seconds": run and run.seconds,
        "attempts": run and run.attempts,
        "next": None if following is None else city.isoformat(following),
    }


def _next(config: Config, city: City, job: str, run: Run | None, now: np.datetime64) -> np.datetime64 | None:
    """Return when a job is due next; None if that does not depend on the time alone, or the job never runs."""
    if job == _INGEST and city.feed.inbox is not None and run is not None:
        return run.finished + np.timedelta64(round(config.service.ingest_seconds), "s")
    if job == JOB:
        return city.slot_start(now) + city.slot
    if job == _RETRAIN and config.retraining.schedule:
        moment = _retraining_trigger(config, city.zone).get_next_fire_time(None, _datetime(now))
        return None if moment is None else np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
    return None


def _retraining_trigger(config: Config, zone: tzinfo) -> BaseTrigger:
    """The times at which `retraining.schedule` starts a training. Raises InputError where it is no crontab."""
    schedule = config.retraining.schedule
    try:
        return _crontab_trigger(schedule, zone)
    except ValueError as error:
        raise InputError(
            f"{config.file}: retraining.schedule: no schedule of five fields such as '0 3 * * sun': {error} "
            f"(given: {schedule!r})"
        ) from None


def _datetime(time: np.datetime64) -> datetime:
    """Convert a naive UTC time to an aware one."""
    return time.astype("datetime64[us]").astype(datetime).replace(tzinfo=UTC)


def _minutes(span: np.timedelta64) -> float:
    """Convert a time span to minutes, to a tenth."""
    return round(float(span / np.timedelta64(1, "m")), 1)
