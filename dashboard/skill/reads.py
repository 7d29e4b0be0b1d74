"""Cached reads of the pages Skill and Models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dashboard.page.unreadable import readable
from dashboard.reads.cached import cached
from dashboard.reads.stamps import DAY, file_stamp, newest_stamp
from dashboard.reads.stores import climatology_of, closed, running_slot
from dashboard.skill.cards import _card_text, _read_curve
from dashboard.skill.error_map import _CellErrors, _errors_by_cell, _sum_errors
from trafficcast.config.city import HORIZON
from trafficcast.errors import DamagedFile, InputError
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import last_stored
from trafficcast.stores.registry import Registry


# A page asks for the newest time of each model that has scores, of which there may be dozens.
@cached(stamp=lambda stores, version: newest_stamp(stores.scores(version)), entries=256)
def _find_newest_score(stores: CityStores, version: str) -> tuple[np.datetime64 | None, list[DamagedFile]]:
    damaged: list[DamagedFile] = []
    return last_stored(stores.scores(version), damaged=damaged), damaged


def _newest_score(stores: CityStores, version: str) -> np.datetime64 | None:
    """Find the newest init time of a model's scores; None where it has none."""
    return readable(_find_newest_score(stores, version))


def _cell_errors_between(
    stores: CityStores, version: str, start: np.datetime64, end: np.datetime64
) -> _CellErrors | None:
    """Sum up the errors in each cell over forecasts with init times in [start, end); None without an observed slot.

    The climatology that they are compared with is the model's own.
    """
    city = stores.city
    first, last = city.local_days(np.array([start, end]))
    parts = []
    for day in stores.forecasts(version).days():
        since, until = max(start, city.midnight(day)), min(end, city.midnight(day + DAY))
        if first <= day <= last and since < until:
            parts.append(readable(_cell_errors(stores, version, day, since, until)))
    return _sum_errors([part for part in parts if part is not None])


def _cell_errors_stamp(
    stores: CityStores, version: str, day: np.datetime64, _: np.datetime64, end: np.datetime64
) -> tuple[list[int], np.datetime64]:
    # The slots that are forecast lie on the day of the init time and the next one.
    flows = [stores.flows.root / f"{day + ahead * DAY}.nc" for ahead in (-1, 0, 1)]
    files = [file_stamp(file) for file in (stores.forecasts(version).root / f"{day}.nc", *flows)]
    return files, min(running_slot(stores.city), end + HORIZON * stores.city.slot)


@cached(stamp=_cell_errors_stamp, entries=64, spinner="Comparing forecasts with observed flows")
def _cell_errors(
    stores: CityStores, version: str, day: np.datetime64, start: np.datetime64, end: np.datetime64
) -> tuple[_CellErrors | None, list[DamagedFile]]:
    """Sum up the errors in each cell over the part of a day that lies in [start, end)."""
    damaged: list[DamagedFile] = []
    forecasts = stores.forecasts(version).read(start, end, ["flow"], damaged)
    flows = stores.flows.read(start, end + HORIZON * stores.city.slot, damaged=damaged)
    if forecasts is None or flows is None:
        return None, damaged
    try:
        climatology = climatology_of(stores, version)
    except InputError:  # the model's errors are shown without those of its climatology
        climatology = None
    return _errors_by_cell(forecasts, closed(stores.city, flows), climatology), damaged


def _registry_stamp(registry: Registry) -> list[tuple[str, int]]:
    """Return a value that changes when a model is trained or removed, a card changes, or the champion does."""
    files = [registry.root / "champion", *(registry.root / version / "card.json" for version in registry.versions())]
    return [(str(file), file_stamp(file)) for file in files]


@cached(stamp=lambda registry, version: file_stamp(registry.root / version / "card.json"), entries=256)
def _card_of(registry: Registry, version: str) -> dict[str, Any]:
    """Read a model's card. Raises InputError where it cannot be read."""
    return registry.card(version)


@cached(stamp=lambda registry, version: file_stamp(registry.root / version / "CARD.md"), entries=16)
def _card_text_of(registry: Registry, version: str) -> str | None:
    """Read a model's card as it was written for people; None where there is none. Raises InputError where damaged."""
    return registry.read_if_any(version, "CARD.md", _card_text)


@cached(stamp=lambda registry, version: file_stamp(registry.root / version / "curve.csv"), entries=32)
def _curve_of(registry: Registry, version: str) -> pd.DataFrame | None:
    """Read a model's training curve (see `_read_curve`). Raises InputError where its file is not as it was sealed."""
    return registry.read_if_any(version, "curve.csv", _read_curve)
