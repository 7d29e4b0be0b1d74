"""What the rules of alerts look at: a city's stores as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pipelines.service.cycle import CityService
from trafficcast.alerts.findings import Situation, scores_from
from trafficcast.config.alert_rules import Rule
from trafficcast.geography.areas import Area
from trafficcast.stores.flows import last_observed
from trafficcast.stores.published import latest_forecast
from trafficcast.stores.scores import recent_scores


def _situation(service: CityService, rules: Iterable[Rule], areas: Mapping[str, Area], now: np.datetime64) -> Situation:
    """A city as it is at `now`, naive UTC, as far as the rules look.

    Raises InputError where a store cannot be read.
    """
    city = service.stores.city
    latest = latest_forecast(service.stores)
    scored = recent_scores(service.stores, scores_from(rules, city, now), now)
    forecast = None if latest is None else latest[1].isel(init_time=0)
    typical = None
    if forecast is not None:
        model = service.champion()[0]
        normal = model.climatology if model.anomaly is None else model.anomaly.climatology
        typical = normal.at(forecast["valid_time"].values)
    return Situation(
        city=city,
        now=now,
        newest_init=None if latest is None else latest[1]["init_time"].values[0],
        newest_observed=last_observed(service.stores.flows),
        forecast=forecast,
        typical=typical,
        scores=None if scored is None else scored[1],
        forecaster="" if scored is None else scored[0],
        areas=areas,
    )
