"""Schedule: the process that runs cities unattended. Jobs of APScheduler, one process, UTC; see docs/operations.md.

Every job reads what is to do from the stores and the ledger, and so may be killed at any moment: the next run does what
is left. A failure is noted, told and tried again; it touches no other job and no other city.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from filelock import Timeout

from pipelines.service.cycle import CityService, _due, run_cycle
from pipelines.service.health import _Metrics, _serve
from pipelines.service.logs import _context
from pipelines.service.prune import prune
from pipelines.service.repair import _remove_leftovers, _repair
from pipelines.service.retrain_process import _RetrainingProcess
from pipelines.service.situation import _situation
from pipelines.service.status import _DAY, _INGEST, _PRUNE, _RETRAIN, _retraining_trigger, _service_lock, status
from trafficcast.alerts.findings import check_areas
from trafficcast.alerts.notify import check_alerts, deliver
from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.errors import InputError, JobError
from trafficcast.forecasting.inference import pick_device
from trafficcast.forecasting.publish import JOB
from trafficcast.geography.areas import city_areas
from trafficcast.ingestion.inbox import take_inbox
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DamagedFile
from trafficcast.stores.latest_files import write_latest
from trafficcast.stores.ledger import FAILED, Ledger
from trafficcast.stores.published import latest_forecast
from trafficcast.stores.scores import recent_scores, skill

_TICK_SECONDS = 5.0  # from one look whether a forecast is due to the next
_RETRY_SECONDS = 60.0  # after a failed look
_FIRST_INGEST_SECONDS = 300.0  # so long the first forecast waits for the first look into the inbox to end
_ALERT_SECONDS = 60.0  # from one look at the alerts to the next, where no forecast is made
_STATUS_SECONDS = 5.0  # the status told over HTTP is at most this old
_STOP_SECONDS = 8.0  # a job that takes longer to end is abandoned: what it writes is whole or not at all
_JUMP_SECONDS = 30.0  # between the two clocks of the machine: then the clock was set
_DONE, _ALERTS = "done", "alerts"
_WORKERS = 2  # threads that read and count an inbox


def schedule(config: Config, cities: list[City], device: str = "auto") -> None:
    """Run the cities until SIGTERM or SIGINT. Raises InputError where another service runs on the same stores."""
    if config.retraining.schedule:
        _retraining_trigger(config, UTC)
    lock = _service_lock(config.paths.data)
    try:
        with lock.acquire(timeout=0):
            _Service(config, cities, device).run()
    except Timeout:
        raise InputError(
            f"another trafficcast schedule already runs on {config.paths.data}: stop it, or set [paths] data elsewhere"
        ) from None


class _Service:
    """The jobs of all cities, and what they share."""

    def __init__(self, config: Config, cities: list[City], device: str) -> None:
        self.config, self.cities = config, cities
        chosen, paths = pick_device(device), config.paths
        self.services = [CityService(CityStores.of(config, city), config.service, chosen) for city in cities]
        self.ledger = Ledger(paths.data / "ledger.sqlite")
        self.stop = threading.Event()
        self.began = time.monotonic()
        self.active = 0
        self.counting = threading.Lock()
        self._told: tuple[float, dict[str, Any]] | None = None
        self.metrics = _Metrics(self.status)
        self.retraining = _RetrainingProcess(config, device)
        self.areas = {city.name: city_areas(city) for city in cities}
        for city in cities:
            check_areas(config.alerts.rules, city, self.areas[city.name])
        self.last: dict[str, float] = {}  # when what failed, or was looked at, by the monotonic clock
        self.written: dict[str, np.datetime64] = {}  # the init time of each city's files for other systems
        executors = {_INGEST: ThreadPoolExecutor(2), JOB: ThreadPoolExecutor(2), _RETRAIN: ThreadPoolExecutor(1)}
        executors["default"] = ThreadPoolExecutor(1)
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self.scheduler = BackgroundScheduler(timezone=UTC, executors=executors, job_defaults=defaults)
        self.scheduler.add_listener(self._broken, EVENT_JOB_ERROR)

    def run(self) -> None:
        """Until a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        server = _serve(self.config.service, self.metrics, self.status)
        for service in self.services:
            root = service.stores.folder
            for folder in (root, root / "flows", *root.glob("forecasts/*"), *root.glob("scores/*")):
                _remove_leftovers(folder)
            self._add_jobs(service)
        self.scheduler.add_job(self._deliver, IntervalTrigger(seconds=30), id="deliver")
        self.scheduler.start()
        address, port = server.server_address[:2]
        names = ", ".join(city.name for city in self.cities)
        log.info("running %s; http://%s:%d/healthz, /metrics and /status", names, str(address), port)
        self._wait()
        log.info("stopping")
        self.scheduler.shutdown(wait=False)
        server.shutdown()
        self.retraining.stop()
        deadline = time.monotonic() + _STOP_SECONDS
        while self.active and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.active:
            log.warning("%d jobs are abandoned: the next start does what they leave", self.active)
            logging.shutdown()
            os._exit(0)
        log.info("stopped")

    def status(self) -> dict[str, Any]:
        """The status, at most some seconds old."""
        if self._told is None or time.monotonic() - self._told[0] > _STATUS_SECONDS:
            self._told = time.monotonic(), status(self.config, self.cities, _now())
        return self._told[1]

    def _add_jobs(self, service: CityService) -> None:
        city, settings = service.stores.city, self.config
        first = datetime.now(UTC)

        def add(job: str, work: Callable[[], str | None], trigger: Any, executor: str, **more: Any) -> None:
            self.scheduler.add_job(
                partial(self._run, job, city, work), trigger, id=f"{job} {city.name}", executor=executor, **more
            )

        if city.feed.inbox is not None:
            every = IntervalTrigger(seconds=settings.service.ingest_seconds)
            add(_INGEST, partial(self._ingest, service), every, _INGEST, next_run_time=first)
        self.scheduler.add_job(
            partial(self._look, service),
            IntervalTrigger(seconds=_TICK_SECONDS),
            id=f"{JOB} {city.name}",
            executor=JOB,
            next_run_time=first,
        )
        add(_PRUNE, partial(self._prune, service), CronTrigger(hour=4, timezone=city.zone), "default")
        if settings.retraining.schedule:
            cron = _retraining_trigger(settings, city.zone)
            add(_RETRAIN, partial(self._retrain, service, "calendar"), cron, _RETRAIN)
        worse = CronTrigger(hour=5, timezone=city.zone)
        self.scheduler.add_job(
            partial(self._run, _RETRAIN, city, partial(self._retrain_if_worse, service)),
            worse,
            id=f"skill {city.name}",
            executor=_RETRAIN,
        )

    def _look(self, service: CityService) -> None:
        """A cycle and then, whatever became of it, the alerts: that there is no forecast is one of them."""
        city, result = service.stores.city, None
        try:
            result = self._run(JOB, city, partial(self._cycle, service))
        finally:
            if self._is_time(f"alerts {city.name}", 0.0 if result == _DONE else _ALERT_SECONDS):
                self._run(_ALERTS, city, partial(self._alerts, service))

    def _run(self, job: str, city: City, work: Callable[[], str | None]) -> str | None:
        """One run of a job, noted in ledger and metrics where it did something; a failure is told and survived."""
        key = f"{job} {city.name}"
        if job == JOB and time.monotonic() - self.last.get(key, -_RETRY_SECONDS) < _RETRY_SECONDS:
            return None
        with self.counting:
            self.active += 1
        began = time.perf_counter()
        slot = city.slot_start(_now())
        try:
            with _context(city=city.name, job=job, slot=city.isoformat(slot)):
                result, detail = self._result(city, work)
                if result is not None:
                    self._note(job, city, slot, result, detail, time.perf_counter() - began)
                if result == FAILED:
                    self.last[key] = time.monotonic()
            return result
        finally:
            if job == _INGEST:
                self.last[key] = time.monotonic()
            with self.counting:
                self.active -= 1

    def _result(self, city: City, work: Callable[[], str | None]) -> tuple[str | None, str]:
        try:
            detail = work()
            return (None, "") if detail is None else (_DONE, detail)
        except DamagedFile as damage:
            try:
                aside = _repair(CityStores.of(self.config, city), damage)
            except (InputError, JobError, OSError, sqlite3.Error) as error:
                log.error("%s; and it could not be repaired: %s", damage, error)
                return FAILED, str(damage)
            return "repaired", f"{damage.file.name} was damaged and lies at {aside.name}"
        except (InputError, JobError, OSError, sqlite3.Error) as error:
            log.error("failed: %s", error)
            return FAILED, str(error)

    def _note(self, job: str, city: City, slot: np.datetime64, result: str, detail: str, seconds: float) -> None:
        self.metrics.ran(job, city.name, result, seconds)
        if job == JOB and result == _DONE:
            return  # each forecast has noted itself
        model = CityStores.of(self.config, city).registry.champion() if job == _RETRAIN else ""
        try:
            self.ledger.record(job, city.name, model or "", slot, result, detail, seconds)
        except (OSError, sqlite3.Error) as error:
            log.error("the ledger cannot be written: %s", error)

    def _ingest(self, service: CityService) -> str:
        city = service.stores.city
        if city.feed.inbox is None:
            raise InputError(f"cities.{city.name}.feed has no inbox")
        look = take_inbox(city.feed.inbox, service.stores, _WORKERS)
        if look.taken:  # a forecast may have waited for them
            self._at_once(f"{JOB} {city.name}")
        return f"{len(look.taken)} files taken, {len(look.quarantined)} to quarantine, {len(look.waiting)} waiting"

    def _cycle(self, service: CityService) -> str | None:
        """What is due, with the files for other systems."""
        if not service.stores.registry.champions() or not self._is_taken_in(service):
            return None
        if (
            service.stores.city.name not in self.written
        ):  # a crash or a full disk may have come between forecast and files
            latest = latest_forecast(service.stores)
            if latest is not None:
                self._write_latest(service, latest[1])
        now = _now()
        made = run_cycle(service, now, on_made=partial(self._write_latest, service))
        if not made and _due(service, now):  # it failed, and has said why
            self.last[f"{JOB} {service.stores.city.name}"] = time.monotonic()
        return f"{len(made)} forecasts" if made else None

    def _write_latest(self, service: CityService, forecast: xr.Dataset) -> None:
        """Write a forecast for other systems, unless a newer one is; where that fails the next cycle does it."""
        init_time = forecast["init_time"].values[0]
        newest = max(self.written.pop(service.stores.city.name, init_time), init_time)
        if init_time == newest:
            write_latest(service.stores, forecast)
        self.written[service.stores.city.name] = newest

    def _alerts(self, service: CityService) -> None:
        if service.stores.registry.champions():
            alerts, areas = self.config.alerts, self.areas[service.stores.city.name]
            check_alerts(alerts, service.stores.data, _situation(service, alerts.rules, areas, _now()), notify=True)

    def _is_taken_in(self, service: CityService) -> bool:
        """Whether what waited in the inbox at the start is counted, or has been waited for long enough."""
        first = f"{_INGEST} {service.stores.city.name}"
        waited = time.monotonic() - self.began > _FIRST_INGEST_SECONDS
        return service.stores.city.feed.inbox is None or first in self.last or waited

    def _is_time(self, key: str, every: float) -> bool:
        """Whether something was not done for so many seconds; then it counts as done now."""
        now = time.monotonic()
        is_time = key not in self.last or now - self.last[key] >= every
        if is_time:
            self.last[key] = now
        return is_time

    def _deliver(self) -> None:
        try:
            deliver(self.config.alerts, self.config.paths.data)
        except (JobError, InputError, OSError, sqlite3.Error) as error:
            log.error("alerts could not be delivered: %s", error)

    def _prune(self, service: CityService) -> str:
        removed = prune(service.stores, self.config.retention, _now())
        return ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in removed.items())

    def _retrain(self, service: CityService, why: str) -> str:
        return f"{why}: {self.retraining.run(service.stores.city)}"

    def _retrain_if_worse(self, service: CityService) -> str | None:
        """Retrain where over the last day the best baseline was better by more than the configuration allows."""
        now = _now()
        scored = recent_scores(service.stores, now - _DAY, now)
        found = None if scored is None else skill(*scored)
        if found is None or found.best_baseline is None:
            return None
        name, error = found.best_baseline
        if found.rmse[found.model] <= error * self.config.retraining.when_worse_than:
            return None
        return self._retrain(service, f"skill, {found.rmse[found.model]:.3f} against {error:.3f} of {name}")

    def _broken(self, event: JobExecutionEvent) -> None:
        """A broken contract of our own: that run is over, loudly; the next one comes as planned."""
        job, _, city = event.job_id.partition(" ")
        log.critical("the job %s ended by a bug: %s\n%s", event.job_id, event.exception, event.traceback)
        self.metrics.ran(job, city, "broken", 0.0)

    def _wait(self) -> None:
        """Until the stop, looking whether the clock was set: then every job is due now, whatever was planned."""
        apart = time.time() - time.monotonic()
        while not self.stop.wait(1.0):
            jump = time.time() - time.monotonic() - apart
            if abs(jump) > _JUMP_SECONDS:
                log.warning("the clock was set by %+.0f s", jump)
                apart += jump
                for job in self.scheduler.get_jobs():
                    if isinstance(job.trigger, IntervalTrigger):
                        self._at_once(job.id)

    def _at_once(self, job: str) -> None:
        with suppress(LookupError):  # gone meanwhile, or not there yet
            self.scheduler.modify_job(job, next_run_time=datetime.now(UTC))


def _now() -> np.datetime64:
    return np.datetime64(datetime.now(UTC).replace(tzinfo=None), "us")
