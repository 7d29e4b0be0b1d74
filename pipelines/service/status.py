"""Status: what the service did last for each city, what comes next and how well it does, from the stores alone."""

from __future__ import annotations

import fcntl
import sqlite3
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
from apscheduler.triggers.cron import CronTrigger
from filelock import FileLock

from trafficcast.alerts.book import AlertBook
from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.errors import InputError, JobError
from trafficcast.forecasting.publish import JOB
from trafficcast.forecasting.verify import VERIFY
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import last_observed
from trafficcast.stores.ledger import Ledger, Run
from trafficcast.stores.published import latest_forecast
from trafficcast.stores.scores import recent_scores, skill

_INGEST, _RETRAIN, _PRUNE = "ingest", "retrain", "prune"
_JOBS = (_INGEST, JOB, VERIFY, _RETRAIN, _PRUNE)
_DAY = np.timedelta64(24, "h")
# A forecast is overdue this long after the wait for its data is over: time to make it, and to try again.
_GRACE = np.timedelta64(3, "m")


def status(config: Config, cities: list[City], now: np.datetime64) -> dict[str, Any]:
    """Whether the service runs, and `city_status` of each city; one that cannot be read says why."""
    return {
        "running": _is_running(config.paths.data),
        "time": f"{now.astype('datetime64[s]')}Z",
        "cities": {city.name: _or_error(config, city, now) for city in cities},
    }


def _city_status(config: Config, city: City, now: np.datetime64) -> dict[str, Any]:
    """Data, forecast, jobs, skill of the last 24 hours and open alerts of a city; ages in minutes.

    `overdue` is None where there is nothing to forecast with: no model, or no flows yet. Raises InputError where a
    store cannot be read, JobError, OSError and sqlite3.Error where it cannot be now, or the ledger is damaged.
    """
    stores = CityStores.of(config, city)
    registry = stores.registry
    observed = last_observed(stores.flows)
    latest = latest_forecast(stores)
    made = None if latest is None else latest[1]
    init_time = None if made is None else made["init_time"].values[0]
    scored = recent_scores(stores, now - _DAY, now)
    ready = registry.champion() is not None and (observed is not None or init_time is not None)
    return {
        "champion": registry.champion(),
        "data": {
            "newest_slot": None if observed is None else city.isoformat(observed),
            "age_minutes": None if observed is None else _minutes(now - observed - city.slot),
        },
        "forecast": None
        if made is None
        else {
            "init_time": city.isoformat(made["init_time"].values[0]),
            "forecaster": str(made["forecaster"].values[0]),
            "state": str(made["state"].values[0]),
            "reason": str(made["reason"].values[0]),
            "hindcast": bool(made["hindcast"].values[0]),
            "created": city.isoformat(made["created"].values[0]),
            "lag_minutes": _minutes(made["created"].values[0] - made["init_time"].values[0]),
            "age_minutes": _minutes(now - made["init_time"].values[0]),
        },
        "overdue": _is_overdue(config, city, init_time, now) if ready else None,
        "jobs": {job: _job(config, city, job, now) for job in _JOBS},
        "skill": None if scored is None else vars(skill(*scored)),
        "alerts": [
            {"raised": city.isoformat(alert.raised), "kind": alert.finding.kind, "message": alert.finding.message}
            for alert in AlertBook(stores.alerts).open(city.name, now)
        ],
    }


def _is_overdue(config: Config, city: City, init_time: np.datetime64 | None, now: np.datetime64) -> bool:
    """Whether the forecast that should be there by now is not; `init_time` is the newest that is."""
    wait = config.service.wait(city.slot_minutes) + _GRACE
    return init_time is None or bool(init_time < city.slot_start(now - wait))


def _is_running(data: Path) -> bool:
    """Whether a service holds its lock. Whoever may read the stores may ask."""
    try:
        with open(data / _SERVICE_LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


_SERVICE_LOCK = ".schedule.lock"


def _service_lock(data: Path) -> FileLock:
    """The lock that a running service holds, one for all stores below `data`."""
    data.mkdir(parents=True, exist_ok=True)
    return FileLock(data / _SERVICE_LOCK)


def _or_error(config: Config, city: City, now: np.datetime64) -> dict[str, Any]:
    try:
        return _city_status(config, city, now)
    except sqlite3.Error as error:
        return {"error": f"{config.paths.data / 'ledger.sqlite'}: {error}"}
    except (InputError, JobError, OSError) as error:
        return {"error": str(error)}


def _job(config: Config, city: City, job: str, now: np.datetime64) -> dict[str, Any]:
    run = Ledger(config.paths.data / "ledger.sqlite").last(job, city.name)
    following = _next(config, city, job, run, now)
    result: dict[str, Any] = {
        "last": None,
        "result": None,
        "detail": None,
        "seconds": None,
        "attempts": None,
        "next": None if following is None else city.isoformat(following),
    }
    if run is not None:
        result |= {"last": city.isoformat(run.finished), "result": run.result, "detail": run.detail}
        result |= {"seconds": run.seconds, "attempts": run.attempts}
    return result


def _next(config: Config, city: City, job: str, run: Run | None, now: np.datetime64) -> np.datetime64 | None:
    """When a job is due next; None where it is not by the clock alone, or never."""
    if job == _INGEST and city.feed.inbox is not None and run is not None:
        return run.finished + np.timedelta64(round(config.service.ingest_seconds), "s")
    if job == JOB:
        return city.slot_start(now) + city.slot
    if job == _RETRAIN and config.retraining.schedule:
        moment = _retraining_trigger(config, city.zone).get_next_fire_time(None, _datetime(now))
        return None if moment is None else np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
    return None


def _retraining_trigger(config: Config, zone: tzinfo) -> CronTrigger:
    """The times at which `retraining.schedule` starts a training. Raises InputError where it is no crontab."""
    schedule = config.retraining.schedule
    try:
        return CronTrigger.from_crontab(schedule, zone)
    except ValueError as error:
        raise InputError(
            f"{config.file}: retraining.schedule: no schedule of five fields such as '0 3 * * sun': {error} "
            f"(given: {schedule!r})"
        ) from None


def _datetime(time: np.datetime64) -> datetime:
    return time.astype("datetime64[us]").astype(datetime).replace(tzinfo=UTC)


def _minutes(span: np.timedelta64) -> float:
    return round(float(span / np.timedelta64(1, "m")), 1)
