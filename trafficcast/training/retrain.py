"""Retraining: a challenger on the latest data, compared with the champion on days that neither was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from trafficcast.config.city import DAY
from trafficcast.config.service import Retraining
from trafficcast.errors import InputError
from trafficcast.forecasting.evaluation import backtest
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import last_observed
from trafficcast.training.settings import recipe
from trafficcast.training.train import train


def retrain(stores: CityStores, settings: Retraining, device: str = "auto") -> dict[str, Any]:
    """Train a challenger of the champion's architecture, compare the two and promote the better one.

    The last whole local days of the flow store compare them: `test_days`; the `validation_days` before choose the
    challenger's epoch, and all earlier days train it. The challenger is promoted if its RMSE is lower than the
    champion's by more than the share `margin`.

    Parameters
    ----------
    stores
        The city and its stores.
    settings
        The table [retraining] of the configuration.
    device
        "auto", "cpu", "cuda" or "mps".

    Returns
    -------
    dict[str, Any]
        "champion", "challenger", their "rmse" (vehicles per slot), "promoted", and the period that compared them.

    Raises
    ------
    InputError
        There is no champion or no observed slot, or the champion was trained on the days that would compare.
    """
    city, registry = stores.city, stores.registry
    champion = registry.champion()
    if champion is None:
        raise InputError(f"'{city.name}' has no champion to challenge: run trafficcast train --city {city.name}")
    last = last_observed(stores.flows)
    if last is None:
        raise InputError(f"'{city.name}' has no observed slot to train on")
    end = city.local_days(np.array([last + city.slot]))[0]
    test_end, test_start = city.midnight(end), city.midnight(end - settings.test_days * DAY)
    train_end = city.midnight(end - (settings.test_days + settings.validation_days) * DAY)
    card = registry.card(champion)
    known = city.parse_time(card["split"]["valid_end"])
    if known > test_start:
        raise InputError(
            f"{champion} was made with data up to {city.isoformat(known)}: no challenge before there are "
            f"{settings.test_days} whole days after that"
        )
    architecture = card["architecture"]["name"]
    made = train(stores, architecture, recipe(architecture), train_end, test_start, test_end, device)
    challenger = made.version
    errors = {
        version: backtest(stores, test_start, test_end, version, device)["scores"][version]["rmse"]
        for version in (champion, challenger)
    }
    promoted = bool(errors[challenger] < errors[champion] * (1 - settings.margin))
    if promoted:
        registry.promote(challenger)
    log.info(
        "%s %.3f, %s %.3f vehicles per slot: %s",
        champion, errors[champion], challenger, errors[challenger],
        f"{challenger} is the champion now" if promoted else f"{champion} remains the champion",
    )  # fmt: skip
    return {
        "city": city.name,
        "champion": champion,
        "challenger": challenger,
        "start": city.isoformat(test_start),
        "end": city.isoformat(test_end),
        "rmse": errors,
        "promoted": promoted,
    }
