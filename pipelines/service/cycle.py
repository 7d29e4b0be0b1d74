"""A cycle of the service: make the forecasts that are due and verify those whose slots were observed.

`now` is the present time of the service's clock, naive UTC.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr

from trafficcast.config.alert_rules import FEW_VEHICLES
from trafficcast.config.city import HISTORY, HORIZON
from trafficcast.config.service import Service
from trafficcast.errors import DamagedFile, InputError, JobError
from trafficcast.forecasting.baselines import WEEK, ScaledClimatology
from trafficcast.forecasting.climatology import Climatology
from trafficcast.forecasting.forecasters import Forecaster
from trafficcast.forecasting.gaps import filled_history
from trafficcast.forecasting.model import Model, load_model
from trafficcast.forecasting.publish import JOB, publish
from trafficcast.forecasting.verify import unverified, verify_due
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.progress import log
from trafficcast.repair.repair import remove_forecasts_after
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import UNKNOWN, reporting_vehicles
from trafficcast.stores.forecasts import BASELINE, COMPLETE, DEGRADED, Provenance, check_forecast
from trafficcast.stores.ledger import FAILED, LOST, Run
from trafficcast.stores.observed import heard_to_end
from trafficcast.stores.published import latest_forecast

_ATTEMPTS = 3  # at a missed forecast that fails; the newest forecast is tried until the next one is due
# Forecasts of the last hours are verified; data that arrive later are for `trafficcast verify`.
_VERIFY_BACK = np.timedelta64(48, "h")


@dataclass
class CityService:
    """The service of one city. It keeps the champion in memory from cycle to cycle.

    Attributes
    ----------
    stores
        The city and its stores.
    settings
        The service's settings.
    device
        Where the network runs.
    version
        The model to use in place of the champion; None is the champion.
    """

    stores: CityStores
    settings: Service
    device: torch.device
    version: str | None = None
    _loaded: tuple[Model, Forecaster] | None = field(default=None, repr=False)

    def champion(self) -> tuple[Model, Forecaster, str]:
        """Return the champion, or the newest champion before it that can be read.

        Returns
        -------
        tuple[Model, Forecaster, str]
            The model, its forecaster, and a sentence on the newer champions that cannot be read, if any.

        Raises
        ------
        InputError
            No champion can be read, or the city has no model.
        """
        errors: list[str] = []
        for version in self.stores.registry.champions() if self.version is None else [self.version]:
            if self._loaded is None or self._loaded[0].version != version:
                try:
                    model = load_model(self.stores.registry, version)
                except InputError as error:
                    errors.append(str(error))
                    continue
                self._loaded = model, model.forecaster(self.device)
            return *self._loaded, "; ".join(errors)
        raise InputError("; ".join(errors) or f"'{self.stores.city.name}' has no model: run trafficcast train")


def run_cycle(
    service: CityService,
    now: np.datetime64,
    catch_up: bool = True,
    on_made: Callable[[xr.Dataset], None] = lambda forecast: None,
) -> list[xr.Dataset]:
    """Make the forecasts that are due, and verify the forecasts whose slots were observed.

    A forecast is due when the slot before it has ended and its data have arrived or were waited for long enough.

    Parameters
    ----------
    service
        The city's service.
    now
        The present time, naive UTC.
    catch_up
        Whether to make missed forecasts as well, each from the data before its init time.
    on_made
        Called with each forecast as soon as it is published.

    Returns
    -------
    list[xr.Dataset]
        The published forecasts, each of one init time (see `forecast_dataset`).
    """
    made = []
    for init_time in _due(service, now, catch_up):
        forecast = _forecast(service, init_time, now)
        if forecast is None:
            break
        made.append(forecast)
        on_made(forecast)
    if made:
        _verify_recent(service, now)
    return made


def _undo_forecasts_ahead(stores: CityStores, now: np.datetime64) -> int:
    """Remove the forecasts whose init time lies ahead of now, which a clock that stood ahead has made; return how many.

    They are baselines, as no slot of their histories was observed. Any other forecast ahead of now says that the clock
    stands behind now, and nothing is removed.
    """
    latest = latest_forecast(stores)
    if latest is None or latest[1]["init_time"].values[0] <= now or latest[1]["state"].values[0] != BASELINE:
        return 0
    removed = remove_forecasts_after(stores, now)["forecasts"]
    log.warning("the clock stood ahead: %d forecasts from after now were removed, and are made anew in time", removed)
    return removed


def _due(service: CityService, now: np.datetime64, catch_up: bool = True) -> list[np.datetime64]:
    """Return the init times to forecast: the newest first, then the missed ones from the oldest on."""
    stores, settings, city = service.stores, service.settings, service.stores.city
    champions = stores.registry.champions()
    if not champions:
        return []
    newest = city.slot_start(now)
    oldest = city.slot_start(newest - np.timedelta64(round(settings.catch_up_hours * 3_600_000_000), "us"))
    runs = stores.ledger.runs(JOB, city.name, oldest)
    done = {run.slot for run in runs if run.model in champions and _is_done(run, newest)}
    due = []
    if newest not in done and (now >= newest + settings.wait(city.slot_minutes) or not _awaited(stores, newest)):
        due.append(newest)
    first = stores.ledger.first_slot(JOB, city.name) if catch_up else None
    if first is not None:
        missed = np.arange(max(first, oldest), newest, city.slot)
        due += [init_time for init_time in missed if init_time not in done]
    return due


def _verify_recent(service: CityService, now: np.datetime64) -> int:
    """Score the forecasts of the last two days whose slots were observed, and return how many were scored."""
    stores, city, scored = service.stores, service.stores.city, 0
    for version in stores.registry.champions():
        forecasts = stores.forecasts(version).read(now - _VERIFY_BACK, city.slot_start(now))
        if forecasts is None:
            continue
        waiting = unverified(stores, version, forecasts)
        if not len(waiting["init_time"]):
            continue
        began = time.perf_counter()
        try:
            champion = service.champion()[0]
            model = champion if champion.version == version else load_model(stores.registry, version)
        except InputError as error:
            log.error("the forecasts of %s cannot be verified: %s", version, error)
            continue
        first, last = waiting["init_time"].values[[0, -1]]
        parts = [
            _closed_flows(stores, first - WEEK, last - WEEK + HORIZON * city.slot),
            _closed_flows(stores, first - HISTORY * city.slot, now),
        ]
        flows = [part for part in parts if part is not None]
        known = xr.concat(flows, "time", data_vars="minimal", combine_attrs="override") if flows else None
        result = verify_due(stores, model, waiting, known)
        scored += result.scored
        if result.scored:
            log.info("%d forecasts of %s verified in %.1f s", result.scored, version, _since(began))
    return scored


def _forecast(service: CityService, init_time: np.datetime64, now: np.datetime64) -> xr.Dataset | None:
    """Make and publish one forecast; return None where that failed, and record the reason in the ledger."""
    stores, city, began = service.stores, service.stores.city, time.perf_counter()
    version = service.version or stores.registry.champion() or ""
    try:
        champion = _champion(service)
        version = version if isinstance(champion, str) else champion[0].version
        stored = stores.forecasts(version).read(init_time, init_time + city.slot)
        if stored is None:
            known = _closed_flows(stores, init_time - HISTORY * city.slot, init_time)
            if isinstance(champion, str):
                card, intervals = {"version": version, "architecture": {"name": "none"}}, None
                flow, forecaster_name = _flow_without_model(stores, known, init_time)
                reasons = [champion]
            else:
                model, forecaster, errors = champion
                card, intervals = model.card, model.intervals
                history, filled = filled_history(known, model.climatology, init_time)
                flow, forecaster_name, reasons = _flow(stores, model, forecaster, history, filled, init_time)
                awaited = _awaited(stores, init_time)
                if awaited and not len(filled) and not _heard_to_end(stores, init_time):
                    reasons.append(awaited)
                else:
                    reasons += _few_vehicles(stores, init_time)
                reasons += [errors] if errors else []
    except DamagedFile:
        raise  # the schedule repairs the file first
    except (InputError, JobError) as error:
        log.error("no forecast for %s: %s", city.isoformat(init_time), error)
        stores.ledger.record(JOB, city.name, version, init_time, FAILED, str(error), _since(began))
        return None
    if stored is not None:  # a crash came between the store and the ledger
        state, reason = str(stored["state"].values[0]), str(stored["reason"].values[0])
        stores.ledger.record(JOB, city.name, version, init_time, state, reason)
        return stored
    state = BASELINE if forecaster_name != version else DEGRADED if reasons else COMPLETE
    hindcast = bool(now >= init_time + city.slot)
    origin = Provenance(forecaster_name, state, "; ".join(reasons), hindcast)
    made = publish(stores, card, init_time, flow, origin, now.astype("datetime64[s]"), intervals, _since(began))
    log.info(
        "forecast for %s, %s by %s%s, %.1f s",
        city.isoformat(init_time), origin.state, origin.forecaster,
        f" ({origin.reason})" if origin.reason else "", _since(began),
    )  # fmt: skip
    return made


def _champion(service: CityService) -> tuple[Model, Forecaster, str] | str:
    """Return the champion as `CityService.champion` does, or a sentence that no champion can be read, and why.

    Raises InputError where a model was asked for that cannot be read.
    """
    try:
        champion = service.champion()
    except DamagedFile:
        raise  # the schedule repairs the file first
    except InputError as error:
        if service.version is not None:
            raise
        log.error("no model can be read, and a baseline forecasts: %s", error)
        return f"no model can be read: {error}"
    if champion[2]:
        log.error("%s", champion[2])
    return champion


def _flow_without_model(
    stores: CityStores, known: xr.Dataset | None, init_time: np.datetime64
) -> tuple[np.ndarray, str]:
    """Return a checked forecast from the flows alone, and the name of the baseline that made it.

    It is the climatology of the last four weeks, scaled by the activity of the history.
    """
    weeks = _closed_flows(stores, init_time - 4 * WEEK, init_time)
    if weeks is None or not weeks["observed"].values.any():
        raise JobError("no model can be read, and no slot of the last four weeks was observed")
    climatology = Climatology.fit(stores.city, weeks)
    history, _ = filled_history(known, climatology, init_time)
    flow = ScaledClimatology(climatology).forecast(history, np.array([init_time]))[0]
    check_forecast(flow, float(weeks["flow"].max()))
    return flow, "scaled_climatology"


def _flow(
    stores: CityStores,
    model: Model,
    forecaster: Forecaster,
    history: np.ndarray,
    filled: np.ndarray,
    init_time: np.datetime64,
) -> tuple[np.ndarray, str, list[str]]:
    """Return a checked forecast, the name of its forecaster, and the reasons why it is not complete."""
    city, init_times = stores.city, np.array([init_time])
    reasons = []
    if len(filled):
        slots = ", ".join(city.isoformat(slot) for slot in filled)
        reasons.append(f"not observed, filled from scaled climatology: {slots}")
    if len(filled) <= 1:
        try:
            flow = forecaster.forecast(history, init_times)[0]
            check_forecast(flow, model.scale)
            _check_new(stores, model, flow, history, init_time)
            return flow, model.version, reasons
        except (JobError, RuntimeError) as error:  # PyTorch raises RuntimeError, also when memory is short
            log.error("%s failed: %s", model.version, error)
            reasons.append(f"{model.version}: {error}")
    week_ago = _closed_flows(stores, init_time - WEEK, init_time - WEEK + HORIZON * city.slot)
    for name, baseline in _best_baselines(model, week_ago):
        flow = baseline.forecast(history, init_times)[0]
        try:
            check_forecast(flow, model.scale)
        except JobError as error:
            reasons.append(f"{name}: {error}")
            continue
        return flow, name, reasons
    raise JobError("; ".join(reasons))


def _best_baselines(model: Model, flows: xr.Dataset | None) -> list[tuple[str, Forecaster]]:
    """Return the baselines with their names, in the order of their validation errors on the model's card."""
    scores = model.card["metrics"]["validation"]
    baselines = model.baselines(flows)
    return sorted(baselines.items(), key=lambda named: scores.get(named[0], {}).get("rmse", np.inf))


def _check_new(
    stores: CityStores, model: Model, flow: np.ndarray, history: np.ndarray, init_time: np.datetime64
) -> None:
    """Raise JobError for a copy of the forecast before. After a history without any traffic a copy is allowed."""
    last = stores.forecasts(model.version).read(init_time - stores.city.slot, init_time)
    if last is not None and history.any() and np.array_equal(last["flow"].values[0], flow):
        raise JobError("the forecast is a copy of the one before; it was not published")


def _is_done(run: Run, newest: np.datetime64) -> bool:
    """Whether no further attempt is due for a run."""
    if run.result == FAILED:
        return run.attempts >= _ATTEMPTS and run.slot != newest
    return run.result != LOST


def _awaited(stores: CityStores, init_time: np.datetime64) -> str:
    """Say which data of the slot before `init_time` may not have come; "" where they have, as later data have.

    Half of the slot's vehicles must have reported after its end, so that one fast clock does not stand for the feed. Of
    trips, whose vehicles are unknown, as many must have begun or ended since as usually do in a minute.
    """
    slot = stores.city.slot
    flows = stores.flows.read(init_time - slot, init_time + slot)
    times = np.empty(0, "datetime64[us]") if flows is None else flows["time"].values
    if flows is None or times[0] != init_time - slot or not flows["observed"].values[0]:
        return "the last slot is not observed"
    if flows["vehicles"].values[0] == UNKNOWN:
        ends = flows["flow"].values.sum(axis=(1, 2, 3))
        needed, come, what = max(1, int(ends[0]) // stores.city.slot_minutes), int(ends[1:].sum()), "ends of trips"
    else:
        vehicles = flows["vehicles"].values
        needed, come, what = -(-int(vehicles[0]) // 2), int(vehicles[1:].sum()), "vehicles"
    if come >= needed:
        return ""
    return f"the last slot may not be whole: {come} {what} were heard after its end, {needed} would show that it is"


def _heard_to_end(stores: CityStores, init_time: np.datetime64) -> bool:
    """Say whether the slot before `init_time` has records to its end, as those of a feed that delivers whole slots."""
    store, city = RecordStore(stores.records, read_only=True), stores.city
    if not store.exists():
        return False
    number = int((init_time - city.slot).astype("datetime64[us]").astype(np.int64)) // city.slot_us
    return heard_to_end(city, store.evidence(city, store.load().kind), number)


def _few_vehicles(stores: CityStores, init_time: np.datetime64) -> list[str]:
    """Return a reason if few of the usual vehicles reported in the slot before `init_time`."""
    fleet = reporting_vehicles(stores.flows, init_time - stores.city.slot)
    if fleet is None or fleet[0] >= FEW_VEHICLES * fleet[1]:
        return []
    return [f"{fleet[0]} vehicles reported in the last slot, where {fleet[1]:.0f} are usual"]


def _closed_flows(stores: CityStores, start: np.datetime64, end: np.datetime64) -> xr.Dataset | None:
    """Return the flows of the slots from `start` on that end by `end`."""
    flows = stores.flows.read(start, end)
    return None if flows is None else flows.isel(time=flows["time"].values + stores.city.slot <= end)


def _since(began: float) -> float:
    """Return the seconds since a time of the performance counter."""
    return time.perf_counter() - began
