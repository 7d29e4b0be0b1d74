"""The process that runs cities unattended: jobs of APScheduler in one process, times in UTC; see docs/operations.md.

Every job finds its work from the stores and the ledger, and so may be killed at any moment: the next run does the rest.
A failure is recorded, logged and tried again; it stops no other job and no other city, and nor does a job that hangs.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from filelock import Timeout

from pipelines.service.city_state import _read_state
from pipelines.service.cycle import CityService, _due, _undo_forecasts_ahead, run_cycle
from pipelines.service.health import _check_port, _health, _Metrics, _serve
from pipelines.service.heartbeat import _Heartbeat
from pipelines.service.logs import _context
from pipelines.service.prune import prune
from pipelines.service.repair import _remove_leftovers, _repair
from pipelines.service.reserve import _Reserve
from pipelines.service.retrain_process import _RetrainingProcess
from pipelines.service.status import (
    _ALERTS,
    _BROKEN,
    _INGEST,
    _PRUNE,
    _RETRAIN,
    _champion,
    _retraining_trigger,
    _service_lock,
    _Statuses,
)
from pipelines.service.work import _Limits, _Stopping, _Work
from trafficcast.alerts.findings import check_areas
from trafficcast.alerts.notify import Told, check_alerts, deliver
from trafficcast.config.city import DAY, City
from trafficcast.config.settings import Config
from trafficcast.errors import DamagedFile, InputError, JobError
from trafficcast.files import writer_lock
from trafficcast.forecasting.inference import pick_device
from trafficcast.forecasting.publish import JOB
from trafficcast.geography.areas import Area, city_areas
from trafficcast.ingestion.inbox import take_inbox
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.latest_files import write_latest
from trafficcast.stores.ledger import FAILED
from trafficcast.stores.published import latest_forecast
from trafficcast.stores.scores import recent_scores, skill

_TICK_SECONDS = 5.0  # between two checks whether a forecast is due
_DELIVER_SECONDS = 30.0  # between two deliveries to the webhook
_BEAT_SECONDS = 15.0  # between two checks whether a cycle is over and the heartbeat is due
_LOOK_SECONDS = 60.0  # between two checks whether a job hangs, and whether there is a reserve of disk space
_RETRY_SECONDS = 60.0  # after a failed forecast
_FIRST_INGEST_SECONDS = 300.0  # the first forecast waits at most so long for the first ingest of the inbox
_ALERT_SECONDS = 60.0  # between two checks of the alert rules while no forecast is made
_AT_ONCE, _TURN_SECONDS = 2, 10.0  # ingests, and forecasts, that work at once; one that takes longer counts no more
_STOP_SECONDS = 8.0  # a job that takes longer to end is abandoned: its files are whole or not written at all
_JUMP_SECONDS = 30.0  # a larger change between the machine's two clocks means that the clock was set
_DONE, _DELIVER, _HEARTBEAT = "done", "deliver", "heartbeat"
_WORKERS = 2  # threads that read and count an inbox


def schedule(
    config: Config,
    cities: list[City],
    device: str = "auto",
    reread: Callable[[], tuple[Config, list[City]]] | None = None,
) -> None:
    """Run the cities unattended until SIGTERM or SIGINT.

    SIGHUP reloads the configuration: if it is right, the process ends its work and begins anew, under the same number.

    Parameters
    ----------
    config
        The configuration.
    cities
        Its cities that are run.
    device
        Where the networks run: auto, cpu, cuda or mps.
    reread
        Reads the configuration and the cities anew; without it, SIGHUP does not begin anew.

    Raises
    ------
    InputError
        Another service runs on the same stores, the port is taken, or a rule names an area that does not exist.
    """
    _areas(config, cities)  # so that what is wrong is refused now
    lock = _service_lock(config.paths.data)
    try:
        with lock.acquire(timeout=0):
            _Service(config, cities, device, reread).run()
    except Timeout:
        raise InputError(
            f"another trafficcast schedule already runs on {config.paths.data}: stop it, or set [paths] data elsewhere"
        ) from None


def _areas(config: Config, cities: list[City]) -> dict[str, dict[str, Area]]:
    """Return the areas of each city. Raises InputError for a rule about one that does not exist, or a wrong crontab."""
    if config.retraining.schedule:
        _retraining_trigger(config, UTC)
    areas = {city.name: city_areas(city) for city in cities}
    for city in cities:
        check_areas(config.alerts.rules, city, areas[city.name])
    return areas


class _Service:
    """The jobs of all cities, with their ledger, metrics and scheduler."""

    def __init__(
        self,
        config: Config,
        cities: list[City],
        device: str,
        reread: Callable[[], tuple[Config, list[City]]] | None = None,
    ) -> None:
        self.config, self.cities, self.reread = config, cities, reread
        chosen = pick_device(device)
        self.services = [CityService(CityStores.of(config, city), config.service, chosen) for city in cities]
        self.stop, self.hangup, self.anew = threading.Event(), threading.Event(), False
        self.began, self.started = time.monotonic(), _now()
        training = config.retraining.hours * 3600
        self.work = _Work(
            {
                _INGEST: _Limits(1800, _AT_ONCE, _TURN_SECONDS),
                JOB: _Limits(300, _AT_ONCE, _TURN_SECONDS),
                _ALERTS: _Limits(300),
                _PRUNE: _Limits(1800),
                _RETRAIN: _Limits(2 * training, 1, training),
            },
            self.stop,
        )
        self._statuses = _Statuses(config, cities)
        self.metrics = _Metrics(self.status)
        self.retraining = _RetrainingProcess(config, device)
        self.areas = _areas(config, cities)
        self.last: dict[str, float] = {}  # when a job last failed, ingested or was checked, by the monotonic clock
        self.told = {city.name: Told() for city in cities}
        self.posted: dict[str, Any] = {}  # notices that the webhook took and the book could not be told of
        self.reserve = _Reserve(config.paths.data / "reserve")
        self.heartbeat = _Heartbeat(config.service)
        self.latest: dict[str, np.datetime64] = {}  # init times of the cities' latest files, where they are the newest
        workers = [f"{job} {city.name}" for job in self.work.limits for city in cities]
        executors = {worker: ThreadPoolExecutor(1) for worker in [_DELIVER, _HEARTBEAT, *workers]}
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self.scheduler = BackgroundScheduler(timezone=UTC, executors=executors, job_defaults=defaults)
        self.scheduler.add_listener(self._broken, EVENT_JOB_ERROR)

    def run(self) -> None:
        """Run until a signal arrives."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        # Where the terminal of a service in the foreground was closed, nobody wants it any more.
        signal.signal(signal.SIGHUP, lambda *_: (self.stop if os.isatty(0) else self.hangup).set())
        server = _serve(self.config.service, self.metrics, self.status)
        self.reserve.keep()
        for service in self.services:
            root = service.stores.folder
            try:
                for folder in (root, root / "flows", *root.glob("forecasts/*"), *root.glob("scores/*")):
                    _remove_leftovers(folder)
            except OSError as error:  # a city whose folder cannot be read keeps no other from its start
                log.error("%s: leftovers cannot be removed: %s", service.stores.city.name, error)
            self._add_jobs(service)
        every = IntervalTrigger(seconds=_DELIVER_SECONDS)
        self.scheduler.add_job(self._deliver, every, id=_DELIVER, executor=_DELIVER)
        every = IntervalTrigger(seconds=_BEAT_SECONDS)
        self.scheduler.add_job(self._beat, every, id=_HEARTBEAT, executor=_HEARTBEAT)
        self.scheduler.start()
        address, port = server.server_address[:2]
        names = ", ".join(city.name for city in self.cities)
        log.info("running %s; http://%s:%d/healthz, /metrics and /status", names, str(address), port)
        self._wait()
        self.stop.set()
        log.info("stopping")
        self.scheduler.shutdown(wait=False)
        server.shutdown()
        self.retraining.stop()
        deadline = time.monotonic() + _STOP_SECONDS
        while self.work.active and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.work.active:
            log.warning("%d jobs are abandoned: the next start does the rest of their work", self.work.active)
        if self.anew:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new program is ready for it
            logging.shutdown()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        if self.work.active:
            logging.shutdown()
            os._exit(0)
        log.info("stopped")

    def status(self) -> dict[str, Any]:
        """Return the status, at most some seconds old, with the faults that only the running service knows."""
        found = self._statuses.read(_now())
        faults = self.work.hanging()
        if not found["running"]:
            where = self.config.paths.data
            faults["all cities"] = [f"{where} was removed or replaced while the service runs: restore it, and restart"]
        elif self.reserve.missing:
            faults["all cities"] = [self.reserve.fault()]
        return found | {"faults": faults}

    def _add_jobs(self, service: CityService) -> None:
        """Add the jobs of a city to the scheduler."""
        stores, city, retraining = service.stores, service.stores.city, self.config.retraining
        now = datetime.now(UTC)

        def add(job: str, work: Callable[..., str | None], trigger: Any, *arguments: Any, **more: Any) -> None:
            run = partial(self._run, job, stores, partial(work, service, *arguments))
            worker = f"{job} {city.name}"
            self.scheduler.add_job(run, trigger, **({"id": worker, "executor": worker} | more))

        if city.feed.inbox is not None:
            every = IntervalTrigger(seconds=self.config.service.ingest_seconds)
            add(_INGEST, self._ingest, every, city.feed.inbox, next_run_time=now)
        add(JOB, self._cycle, IntervalTrigger(seconds=_TICK_SECONDS), next_run_time=now)
        # Not after a forecast alone: a missing forecast is an alert too, also while the forecast hangs.
        add(_ALERTS, self._alerts, IntervalTrigger(seconds=_ALERT_SECONDS))
        add(_PRUNE, self._prune, CronTrigger(hour=4, timezone=city.zone))
        if retraining.schedule:
            add(_RETRAIN, self._retrain, _retraining_trigger(self.config, city.zone), "calendar")
        add(_RETRAIN, self._retrain_if_worse, CronTrigger(hour=5, timezone=city.zone), id=f"skill {city.name}")

    def _run(self, job: str, stores: CityStores, work: Callable[[], str | None]) -> str | None:
        """Run a job once, record the run in ledger and metrics if it did something, and survive a failure."""
        city, key = stores.city, f"{job} {stores.city.name}"
        if job == JOB and time.monotonic() - self.last.get(key, -_RETRY_SECONDS) < _RETRY_SECONDS:
            return None
        began, slot = time.perf_counter(), city.slot_start(_now())
        about = {"city": city.name, "job": job, "slot": city.isoformat(slot)}
        with _context(**about), self.work.at_work(job, city.name):
            result, detail = self._result(job, stores, work)
            if result is not None:
                self._record(job, stores, slot, result, detail, time.perf_counter() - began)
            if job == _INGEST or result in (FAILED, _BROKEN):
                self.last[key] = time.monotonic()
            if job == JOB and result == _DONE:
                self._at_once(f"{_ALERTS} {city.name}")
        return result

    def _result(self, job: str, stores: CityStores, work: Callable[[], str | None]) -> tuple[str | None, str]:
        """Do the work of a job and return the result with a detail; None if there was nothing to do."""
        try:
            if job == _INGEST:  # a backup may hold the lock for long, and must not take a turn meanwhile
                with writer_lock(stores.folder):
                    pass
            with self.work.turn(job, stores.city.name):
                detail = work()
            return (None, "") if detail is None else (_DONE, detail)
        except _Stopping:
            return None, ""
        except DamagedFile as damage:
            try:
                return "repaired", _repair(stores, damage)
            except Exception as error:  # noqa: BLE001  # as below
                self.reserve.free_if_full(error)
                log.error("%s; and it could not be repaired: %s", damage, error)
                return FAILED, str(damage)
        except (InputError, JobError, OSError) as error:
            self.reserve.free_if_full(error)
            log.error("failed: %s", error)
            return FAILED, str(error)
        except Exception as bug:  # noqa: BLE001  # whatever goes wrong in one job must end no other
            log.critical("ended by a bug: %s: %s", type(bug).__name__, bug, exc_info=True)
            return _BROKEN, f"{type(bug).__name__}: {bug}"

    def _record(
        self, job: str, stores: CityStores, slot: np.datetime64, result: str, detail: str, seconds: float
    ) -> None:
        """Record a run in metrics and ledger."""
        name = stores.city.name
        self.metrics.ran(job, name, result, seconds)
        if job == JOB and result == _DONE:
            return  # the cycle recorded each forecast
        try:
            model = stores.registry.champion() if job == _RETRAIN else ""
            stores.ledger.record(job, name, model or "", slot, result, detail, seconds)
        except (InputError, JobError, OSError) as error:
            self.reserve.free_if_full(error)
            log.error("the run cannot be recorded: %s", error)

    def _ingest(self, service: CityService, inbox: Path) -> str:
        """Ingest the new files of a city's inbox, and return their numbers in a sentence."""
        look = take_inbox(inbox, service.stores, _WORKERS)
        if look.taken:  # a forecast may have waited for their records
            self._at_once(f"{JOB} {service.stores.city.name}")
        ahead = f", {len(look.ahead)} of them with times ahead of the clock" if look.ahead else ""
        numbers = f"{len(look.taken)} files taken, {len(look.quarantined)} to quarantine, {len(look.waiting)} waiting"
        return numbers + ahead

    def _cycle(self, service: CityService) -> str | None:
        """Make the forecasts that are due, and write the latest files."""
        stores, name = service.stores, service.stores.city.name
        if _champion(stores) is None or not self._is_inbox_ingested(service):
            return None
        now = _now()
        # A crash or a full disk may have come between the forecast and its files, or the clock may have stood ahead.
        if name not in self.latest or self.latest[name] > now:
            _undo_forecasts_ahead(stores, now)
            self.latest.pop(name, None)
            latest = latest_forecast(stores)
            if latest is not None:
                self._write_latest(service, latest[1])
        made = run_cycle(service, now, on_made=partial(self._write_latest, service))
        if not made and _due(service, now):  # the forecast failed, and the log has the reason
            self.last[f"{JOB} {name}"] = time.monotonic()
        return f"{len(made)} forecasts" if made else None

    def _write_latest(self, service: CityService, forecast: xr.Dataset) -> None:
        """Write a city's latest files, unless a newer forecast is stored; if that fails the next cycle does it."""
        name, init_time = service.stores.city.name, forecast["init_time"].values[0]
        self.latest.pop(name, None)
        newest = latest_forecast(service.stores)
        last = init_time if newest is None else newest[1]["init_time"].values[0]
        if last <= init_time:
            write_latest(service.stores, forecast)
        self.latest[name] = last

    def _alerts(self, service: CityService) -> str | None:
        """Raise and clear the alerts of a city that has or had a model, and return their number in a sentence."""
        stores, alerts = service.stores, self.config.alerts
        if not stores.registry.champions() and stores.ledger.first_slot(JOB, stores.city.name) is None:
            return None
        state = _read_state(service, alerts.rules, self.areas[stores.city.name], self.started, _now())
        return f"{len(check_alerts(alerts, stores.data, state, True, self.told[stores.city.name]))} open"

    def _is_inbox_ingested(self, service: CityService) -> bool:
        """Whether the files that lay in the inbox at the start were ingested, or were waited for long enough."""
        city = service.stores.city
        waited = time.monotonic() - self.began > _FIRST_INGEST_SECONDS
        return city.feed.inbox is None or f"{_INGEST} {city.name}" in self.last or waited

    def _deliver(self) -> None:
        """Send the webhook the notices that wait."""
        try:
            deliver(self.config.alerts, self.config.paths.data, self.posted)
        except (JobError, InputError, OSError) as error:
            self.reserve.free_if_full(error)
            log.error("alerts could not be delivered: %s", error)

    def _beat(self) -> None:
        """Call the heartbeat after a good cycle."""
        try:
            due = [service.stores.city for service in self.services if service.stores.registry.champions()]
            self.heartbeat.beat(due, self.latest, _now(), lambda: _health(self.status())[0] == 200)
        except Exception as error:  # noqa: BLE001  # no heartbeat is what says that something is wrong
            log.error("the heartbeat was not sent: %s", error)

    def _prune(self, service: CityService) -> str:
        """Prune a city's stores, and return the numbers in a sentence."""
        removed = prune(service.stores, self.config.retention, _now())
        return ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in removed.items())

    def _retrain(self, service: CityService, why: str) -> str:
        """Retrain a city, and return the reason and the result."""
        return f"{why}: {self.retraining.run(service.stores.city)}"

    def _retrain_if_worse(self, service: CityService) -> str | None:
        """Retrain a city if the best baseline was better over the last day by more than the configuration allows."""
        now = _now()
        scored = recent_scores(service.stores, now - DAY, now)
        found = None if scored is None else skill(*scored)
        if found is None or found.best_baseline is None:
            return None
        name, error = found.best_baseline
        if found.rmse[found.model] <= error * self.config.retraining.when_worse_than:
            return None
        return self._retrain(service, f"skill, {found.rmse[found.model]:.3f} against {error:.3f} of {name}")

    def _broken(self, event: JobExecutionEvent) -> None:
        """Log a run that ended by a bug of this program; the next run comes as planned."""
        log.critical("the job %s ended by a bug: %s", event.job_id, event.exception, exc_info=event.exception)

    def _wait(self) -> None:
        """Wait until the stop; if the machine's clock was set, make every periodic job due now, and say which hang."""
        offset, told = time.time() - time.monotonic(), time.monotonic()
        while not self.stop.wait(1.0) and not self._is_reloaded():
            jump = time.time() - time.monotonic() - offset
            if abs(jump) > _JUMP_SECONDS:
                log.warning("the clock was set by %+.0f s", jump)
                offset += jump
                for job in self.scheduler.get_jobs():
                    if isinstance(job.trigger, IntervalTrigger):
                        self._at_once(job.id)
            if time.monotonic() - told > _LOOK_SECONDS:
                told = time.monotonic()
                self.reserve.keep()
                for city, sentences in self.work.hanging().items():
                    log.error("%s: %s", city, "; ".join(sentences))

    def _is_reloaded(self) -> bool:
        """Whether a hang-up asked for the configuration to be read anew, and it is right; a wrong one is told."""
        if not self.hangup.is_set() or self.reread is None:
            return False
        self.hangup.clear()
        try:
            config, cities = self.reread()
            _areas(config, cities)
            where = config.service.address, config.service.port
            if where != (self.config.service.address, self.config.service.port):
                _check_port(config.service)
        except (InputError, OSError) as error:
            log.error("the configuration is not reloaded, and the former one stays: %s", error)
            return False
        log.info("the configuration is reloaded")
        self.anew = True
        return True

    def _at_once(self, job: str) -> None:
        """Make a job due now."""
        with suppress(LookupError):  # the job may be removed by now, or not added yet
            self.scheduler.modify_job(job, next_run_time=datetime.now(UTC))


def _now() -> np.datetime64:
    """Return the present time, naive UTC."""
    return np.datetime64(datetime.now(UTC).replace(tzinfo=None), "us")
