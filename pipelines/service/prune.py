"""Prune: what is older than a store keeps is removed, and models beyond those kept; never a champion of late."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np

from trafficcast.config.service import Retention
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore


def prune(stores: CityStores, keep: Retention, now: np.datetime64) -> dict[str, int]:
    """Remove what `keep` does not name, days counted back from today in the city; returns how many days and models.

    The champion and the one before it stay, however old, and so do those of the forecasts that are kept.
    """
    today = stores.city.local_days(np.array([now]))[0]
    removed = {"flow_days": 0, "forecast_days": 0, "score_days": 0, "models": 0}
    for name, days, kind in (
        ("flow_days", keep.flow_days, [stores.flows]),
        ("forecast_days", keep.forecast_days, _of_all_models(stores.forecasts)),
        ("score_days", keep.score_days, _of_all_models(stores.scores)),
    ):
        if days is not None:
            before = today - np.timedelta64(days - 1, "D")
            removed[name] = sum(len(store.prune(before)) for store in kind if store.root.exists())
    if keep.models is not None:
        removed["models"] = _prune_models(stores, keep.models)
    if any(removed.values()):
        log.info("pruned %s", ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in removed.items() if n))
    return removed


def _of_all_models(store: Callable[[str], DayStore]) -> list[DayStore]:
    """Those of a kind that lie there, of models that are gone as well."""
    return [store(folder.name) for folder in sorted(store("-").root.parent.glob("*/"))]


def _prune_models(stores: CityStores, keep: int) -> int:
    registry = stores.registry
    by_age = sorted(registry.versions(), key=lambda version: (registry.root / version / "card.json").stat().st_mtime)
    champions = [version for version in registry.champions() if version in by_age]
    needed = {*champions[:2], *by_age[-keep:]}
    gone = [v for v in by_age if v not in needed and not stores.forecasts(v).days()]
    for version in gone:
        shutil.rmtree(registry.root / version)
    return len(gone)
