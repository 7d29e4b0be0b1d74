"""The state of a city that the alert rules examine, read from its stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pipelines.service.cycle import CityService
from pipelines.service.status import _damage
from trafficcast.alerts.findings import CityState, scores_from
from trafficcast.config.alert_rules import Rule
from trafficcast.config.city import HORIZON
from trafficcast.errors import DamagedFile, InputError
from trafficcast.geography.areas import Area
from trafficcast.stores.flows import last_observed, reporting_vehicles
from trafficcast.stores.published import latest_forecast
from trafficcast.stores.scores import recent_scores


def _read_state(
    service: CityService,
    rules: Iterable[Rule],
    areas: Mapping[str, Area],
    started: np.datetime64,
    now: np.datetime64,
) -> CityState:
    """Read the state of a city at `now`, as far back as the rules need it; nothing later is read, in a replay either.

    `started` is when the service or the replay began; both are naive UTC.
    """
    stores, city = service.stores, service.stores.city
    latest = latest_forecast(stores, now)
    ended = now - HORIZON * city.slot  # forecasts from then on are scored later than now
    scored = recent_scores(stores, scores_from(rules, city, now), ended + np.timedelta64(1, "us"))
    forecast = None if latest is None else latest[1].isel(init_time=0)
    damage = _damage(stores.registry, service.version or stores.registry.champion())
    typical = None
    if forecast is not None:
        try:
            model, _, unreadable = service.champion()
            climatology = model.climatology if model.anomaly is None else model.anomaly.climatology
            typical = climatology.at(forecast["valid_time"].values)
        except DamagedFile:
            raise  # the schedule repairs the file first
        except InputError as error:
            unreadable = str(error)
        damage = unreadable or damage
    newest_init = None if latest is None else latest[1]["init_time"].values[0]
    return CityState(
        city=city,
        now=now,
        started=started,
        newest_init=newest_init,
        newest_observed=last_observed(stores.flows, now),
        fleet=None if newest_init is None else reporting_vehicles(stores.flows, newest_init - city.slot),
        forecast=forecast,
        typical=typical,
        scores=None if scored is None else scored[1],
        forecaster="" if scored is None else scored[0],
        model_damage=damage,
        areas=areas,
    )
