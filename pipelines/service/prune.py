"""Pruning: remove the days and the models that the configuration does not keep."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trafficcast.config.service import Retention
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.registry import VERSION
from trafficcast.stores.seal import CARD

_HOUR = np.timedelta64(1, "h")


def prune(stores: CityStores, keep: Retention, now: np.datetime64) -> dict[str, int]:
    """Remove the days and the models that the configuration does not keep.

    The champion and the champion before it stay, however old they are, and so do the models of stored forecasts. What
    a publication or a pruning that was killed left among the models goes once it is an hour old.

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
        How many flow_days, forecast_days, score_days, models and leftovers were removed.
    """
    today = stores.city.local_days(np.array([now]))[0]
    removed = {"flow_days": 0, "forecast_days": 0, "score_days": 0, "models": 0, "leftovers": 0}
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
    removed["leftovers"] = _prune_leftovers(stores, now)
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
        (registry.root / version / CARD).unlink()  # first, as a folder without a card is no model
        shutil.rmtree(registry.root / version)
    return len(removed)


def _prune_leftovers(stores: CityStores, now: np.datetime64) -> int:
    """Remove what killed writers left among the models, and return how many folders and files that were.

    A folder without a card that is named as the champion, or the champion before it, is a model that was damaged.
    """
    registry = stores.registry
    models = [folder for folder in registry.root.glob("*/") if VERSION.fullmatch(folder.name)]
    kept = {*registry.versions(), *registry.champions()[:2]}
    found = [folder for folder in models if folder.name not in kept]
    found += [*registry.root.glob(".new-*"), *registry.root.glob(".*.tmp"), *registry.root.glob("*/.*.tmp")]
    removed = [path for path in found if now - _last_change(path) > _HOUR]
    for path in removed:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(removed)


def _last_change(path: Path) -> np.datetime64:
    """Return when a file or folder, or anything in it, was changed last, naive UTC; NaT while it is being moved."""
    try:
        seconds = max(part.stat().st_mtime for part in [path, *path.rglob("*")])
    except FileNotFoundError:
        return np.datetime64("NaT")
    return np.datetime64(round(seconds * 1e6), "us")
