"""A cycle of the service: forecast what is due, verify what has come. `now` is the clock's, naive UTC, everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr

from trafficcast.config.city import HISTORY, HORIZON
from trafficcast.config.service import Service
from trafficcast.errors import InputError, JobError
from trafficcast.forecasting.baselines import WEEK
from trafficcast.forecasting.forecasters import Forecaster
from trafficcast.forecasting.gaps import filled_history
from trafficcast.forecasting.model import Model, load_model
from trafficcast.forecasting.publish import JOB, publish
from trafficcast.forecasting.verify import unverified, verify_due
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DamagedFile
from trafficcast.stores.forecasts import BASELINE, COMPLETE, DEGRADED, Provenance, check_forecast
from trafficcast.stores.ledger import FAILED, LOST, Run

_ATTEMPTS = 3  # at a forecast that was missed and fails; the newest is tried until the next one is due
# Verified are the forecasts of the last hours: data that come later than this are for `trafficcast verify`.
_VERIFY_BACK = np.timedelta64(48, "h")


@dataclass
class CityService:
    """One city's part of the service, with the champion in memory from cycle to cycle."""

    stores: CityStores
    settings: Service
    device: torch.device
    _loaded: Model | None = field(default=None, repr=False)
    _forecaster: Forecaster | None = field(default=None, repr=False)

    def champion(self) -> tuple[Model, Forecaster, str]:
        """The champion, or the newest one before it that can be read, and what is wrong with those that cannot.

        Raises InputError where there is none.
        """
        wrong: list[str] = []
        for version in self.stores.registry.champions():
            if self._loaded is None or self._forecaster is None or self._loaded.version != version:
                try:
                    self._loaded = load_model(self.stores.registry, version)
                except InputError as error:
                    wrong.append(str(error))
                    continue
                self._forecaster = self._loaded.forecaster(self.device)
            return self._loaded, self._forecaster, "; ".join(wrong)
        raise InputError("; ".join(wrong) or f"'{self.stores.city.name}' has no model: run trafficcast train")


def run_cycle(
    service: CityService,
    now: np.datetime64,
    catch_up: bool = True,
    on_made: Callable[[xr.Dataset], None] = lambda forecast: None,
) -> list[xr.Dataset]:
    """Make the forecasts that are due at `now` and verify those whose slots have come; returns what was published.

    A forecast is due when the slot before it has closed and its data have come, or have been waited for long enough.
    With `catch_up` those missed since the service last ran are made as well, from the data before their time.
    `on_made` is called with each as soon as it is published.
    """
    made = []
    for init_time in _due(service, now, catch_up):
        published = _forecast(service, init_time, now)
        if published is None:
            break
        made.append(published)
        on_made(published)
    if made:
        _verify_recent(service, now)
    return made


def _due(service: CityService, now: np.datetime64, catch_up: bool = True) -> list[np.datetime64]:
    """The init times to forecast at `now`, the newest first, those missed after it in order."""
    city, settings = service.stores.city, service.settings
    champions = service.stores.registry.champions()
    if not champions:
        return []
    newest = city.slot_start(now)
    oldest = city.slot_start(newest - _minutes(60 * settings.catch_up_hours))
    runs = service.stores.ledger.runs(JOB, city.name, oldest)
    done = {run.slot for run in runs if run.model in champions and _is_settled(run, newest)}
    wanted = []
    if newest not in done and (now >= newest + settings.wait(city.slot_minutes) or _has_come(service, newest)):
        wanted.append(newest)
    first = service.stores.ledger.first_slot(JOB, city.name) if catch_up else None
    if first is not None:
        missed = np.arange(max(first, oldest), newest, city.slot)
        wanted += [init_time for init_time in missed if init_time not in done]
    return wanted


def _verify_recent(service: CityService, now: np.datetime64) -> int:
    """Score the forecasts of the last two days whose slots have come; returns how many."""
    city, scored = service.stores.city, 0
    for version in service.stores.registry.champions():
        forecasts = service.stores.forecasts(version).read(now - _VERIFY_BACK, city.slot_start(now))
        if forecasts is None:
            continue
        waiting = unverified(service.stores, version, forecasts)
        if not len(waiting["init_time"]):
            continue
        began = time.perf_counter()
        champion = service.champion()[0]
        try:
            model = champion if champion.version == version else load_model(service.stores.registry, version)
        except InputError as error:
            log.error("the forecasts of %s cannot be verified: %s", version, error)
            continue
        first, last = waiting["init_time"].values[[0, -1]]
        parts = [
            _known(service, first - WEEK, last - WEEK + HORIZON * city.slot),
            _known(service, first - HISTORY * city.slot, now),
        ]
        flows = [part for part in parts if part is not None]
        known = xr.concat(flows, "time", data_vars="minimal", combine_attrs="override") if flows else None
        result = verify_due(service.stores, model, waiting, known)
        scored += result.scored
        if result.scored:
            log.info("%d forecasts of %s verified in %.1f s", result.scored, version, _since(began))
    return scored


def _forecast(service: CityService, init_time: np.datetime64, now: np.datetime64) -> xr.Dataset | None:
    """One forecast, published; None where there is no model, or where it failed, which the ledger then says."""
    city, began = service.stores.city, time.perf_counter()
    version = service.stores.registry.champion() or ""
    try:
        model, forecaster, wrong = service.champion()
        if wrong:
            log.error("%s", wrong)
        stored = service.stores.forecasts(model.version).read(init_time, init_time + city.slot)
        if stored is not None:  # and a crash kept it from being noted
            state, reason = str(stored["state"].values[0]), str(stored["reason"].values[0])
            service.stores.ledger.record(JOB, city.name, model.version, init_time, state, reason)
            return stored
        known = _known(service, init_time - HISTORY * city.slot, init_time)
        history, filled = filled_history(known, model.climatology, init_time)
        flow, forecaster_name, reasons = _flow(service, model, forecaster, history, filled, init_time)
        reasons += [wrong] if wrong else []
    except DamagedFile:
        raise  # to be repaired first
    except (InputError, JobError) as error:
        log.error("no forecast for %s: %s", city.isoformat(init_time), error)
        service.stores.ledger.record(JOB, city.name, version, init_time, FAILED, str(error), _since(began))
        return None
    state = BASELINE if forecaster_name != model.version else DEGRADED if reasons else COMPLETE
    hindcast = bool(now >= init_time + city.slot)
    origin = Provenance(forecaster_name, state, "; ".join(reasons), hindcast)
    made = publish(service.stores, model, init_time, flow, origin, now.astype("datetime64[s]"), _since(began))
    log.info(
        "forecast for %s, %s by %s%s, %.1f s",
        city.isoformat(init_time), origin.state, origin.forecaster,
        f" ({origin.reason})" if origin.reason else "", _since(began),
    )  # fmt: skip
    return made


def _flow(
    service: CityService,
    model: Model,
    forecaster: Forecaster,
    history: np.ndarray,
    filled: np.ndarray,
    init_time: np.datetime64,
) -> tuple[np.ndarray, str, list[str]]:
    """A checked forecast, who made it, and why it is not the model's from four observed slots, if it is not."""
    city, at = service.stores.city, np.array([init_time])
    reasons = []
    if len(filled):
        slots = ", ".join(city.isoformat(slot) for slot in filled)
        reasons.append(f"not observed, filled from scaled climatology: {slots}")
    if len(filled) <= 1:
        try:
            flow = forecaster.forecast(history, at)[0]
            check_forecast(flow, model.scale)
            _check_new(service, model, flow, history, init_time)
            return flow, model.version, reasons
        except (JobError, RuntimeError) as error:  # RuntimeError is PyTorch's, out of memory among them
            log.error("%s failed: %s", model.version, error)
            reasons.append(f"{model.version}: {error}")
    week_ago = _known(service, init_time - WEEK, init_time - WEEK + HORIZON * city.slot)
    for name, baseline in _best_baselines(model, week_ago):
        flow = baseline.forecast(history, at)[0]
        try:
            check_forecast(flow, model.scale)
        except JobError as error:
            reasons.append(f"{name}: {error}")
            continue
        return flow, name, reasons
    raise JobError("; ".join(reasons))


def _best_baselines(model: Model, flows: xr.Dataset | None) -> list[tuple[str, Forecaster]]:
    """The baselines and their names, the one with the lowest validation error on the model's card first."""
    scores = model.card["metrics"]["validation"]
    baselines = model.baselines(flows)
    return sorted(baselines.items(), key=lambda named: scores.get(named[0], {}).get("rmse", np.inf))


def _check_new(
    service: CityService, model: Model, flow: np.ndarray, history: np.ndarray, init_time: np.datetime64
) -> None:
    """Raise JobError for a copy of the forecast before. Where there was no traffic at all it may be one."""
    city = service.stores.city
    last = service.stores.forecasts(model.version).read(init_time - city.slot, init_time)
    if last is not None and history.any() and np.array_equal(last["flow"].values[0], flow):
        raise JobError("the forecast is a copy of the one before; it was not published")


def _is_settled(run: Run, newest: np.datetime64) -> bool:
    """Whether no further attempt is due for this run."""
    if run.result == FAILED:
        return run.attempts >= _ATTEMPTS and run.slot != newest
    return run.result != LOST


def _has_come(service: CityService, init_time: np.datetime64) -> bool:
    """Whether the slot before `init_time` is observed from end to end, or something later already was."""
    city = service.stores.city
    last = service.stores.flows.read(init_time - city.slot, init_time + city.slot)
    if last is None or last["time"].values[0] != init_time - city.slot or not last["observed"].values[0]:
        return False
    return bool(last["coverage"].values[0] >= 1 or (last["vehicles"].values[1:] > 0).any())


def _known(service: CityService, start: np.datetime64, end: np.datetime64) -> xr.Dataset | None:
    """The flows of the slots in [start, end) that have ended by `end`."""
    flows = service.stores.flows.read(start, end)
    return None if flows is None else flows.isel(time=flows["time"].values + service.stores.city.slot <= end)


def _minutes(minutes: float) -> np.timedelta64:
    return np.timedelta64(round(minutes * 60_000_000), "us")


def _since(began: float) -> float:
    return time.perf_counter() - began
