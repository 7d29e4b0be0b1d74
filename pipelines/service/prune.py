"""Pruning: remove the days and the models that the configuration does not keep."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np

from trafficcast.config.service import Retention
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore


def prune(stores: CityStores, keep: Retention, now: np.datetime64) -> dict[str, int]:
    """Remove the days and the models that the configuration does not keep.

    The champion and the champion before it stay, however old they are, and so do the models of stored forecasts.

    Parameters
    ----------
    stores
        The city and its stores.
    keep
        How many days and models are kept; days are counted back from the present day in the city.
    now
        The present time, naive UTC.

    Returns
    -------
    dict[str, int]
        How many flow_days, forecast_days, score_days and models were removed.
    """
    today = stores.city.local_days(np.array([now]))[0]
    removed = {"flow_days": 0, "forecast_days": 0, "score_days": 0, "models": 0}
    for name, days, day_stores in (
        ("flow_days", keep.flow_days, [stores.flows]),
        ("forecast_days", keep.forecast_days, _of_all_models(stores.forecasts)),
        ("score_days", keep.score_days, _of_all_models(stores.scores)),
    ):
        if days is not None:
            before = today - np.timedelta64(days - 1, "D")
            removed[name] = sum(len(store.prune(before)) for store in day_stores if store.root.exists())
    if keep.models is not None:
        removed["models"] = _prune_models(stores, keep.models)
    if any(removed.values()):
        log.info("pruned %s", ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in removed.items() if n))
    return removed


def _of_all_models(store: Callable[[str], DayStore]) -> list[DayStore]:
    """Return the stored forecasts or scores of all models, also of models that were removed."""
    return [store(folder.name) for folder in sorted(store("-").root.parent.glob("*/"))]


def _prune_models(stores: CityStores, keep: int) -> int:
    """Remove the models beyond the newest ones that no forecast or champion needs, and return how many."""
    registry = stores.registry
    by_age = sorted(registry.versions(), key=lambda version: (registry.root / version / "card.json").stat().st_mtime)
    champions = [version for version in registry.champions() if version in by_age]
    needed = {*champions[:2], *by_age[-keep:]}
    removed = [v for v in by_age if v not in needed and not stores.forecasts(v).days()]
    for version in removed:
        shutil.rmtree(registry.root / version)
    return len(removed)
