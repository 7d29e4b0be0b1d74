"""Check all that the configuration's cities hold: what is whole, what can be rebuilt, and what is lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.service.repair import repair
from pipelines.service.status import _is_running
from trafficcast.config.settings import Config
from trafficcast.errors import DamagedFile
from trafficcast.progress import log, progress_bar
from trafficcast.repair.repair import Problem, problems, problems_of_latest
from trafficcast.stores.city_stores import CityStores

# Exit codes, the worst of which is that of the check; 2 is a wrong call.
_WHOLE, _DAMAGED, _LOST, _UNCHECKED = 0, 1, 3, 4
_ALL = "all cities"  # to which the ledger and the book of alerts belong
_AGAIN_SECONDS = 3.0  # what the service is writing is whole by then


def fsck(
    config: Config, all_stores: Sequence[CityStores], now: np.datetime64, mend: bool = False, device: str = "auto"
) -> tuple[dict[str, Any], int]:
    """Check every store, model and database of cities, and mend them if asked to. Without that nothing is changed.

    Parameters
    ----------
    config
        The configuration.
    all_stores
        The cities and their stores.
    now
        The present time, naive UTC.
    mend
        Whether what is damaged or missing is also mended.
    device
        Where the networks run when forecasts are made again: auto, cpu, cuda or mps.

    Returns
    -------
    tuple[dict[str, Any], int]
        For each city the number of files that were checked, by kind; the problems that can be rebuilt, or were; what
        is lost; and the error for which it could not be checked, if any. Then the exit code.
    """
    found: dict[str, dict[str, Any]] = {}
    for stores in all_stores:
        name = stores.city.name
        found[name] = {"checked": {}, "rebuilt" if mend else "rebuildable": [], "lost": [], "error": None}
        try:
            if mend:
                for outcome in repair(config, stores, now, device=device):
                    _add(found, stores, outcome.pop("lost"), outcome)
            else:
                _check(config, stores, now, found)
        except Exception as error:  # noqa: BLE001  # one city that nobody can read keeps no other from being checked
            log.error("%s: %s", name, error)
            found[name]["error"] = f"{type(error).__name__}: {error}"
    return found, max((_code(city) for city in found.values()), default=_WHOLE)


def _check(config: Config, stores: CityStores, now: np.datetime64, found: dict[str, dict[str, Any]]) -> None:
    """Check a city. Beside a running service its problems are looked at a second time."""
    checked: Counter[str] = Counter()
    wrong = _problems(config, stores, now, checked)
    if wrong and _is_running(stores.data):
        time.sleep(_AGAIN_SECONDS)
        still = {problem.file for problem in _problems(config, stores, now, Counter())}
        wrong = [problem for problem in wrong if problem.file in still]
    found[stores.city.name]["checked"] = dict(checked)
    for problem in wrong:
        about = {"file": str(problem.file), "wrong": problem.wrong, "done": problem.remedy}
        _add(found, stores, problem.lost, about)


def _problems(config: Config, stores: CityStores, now: np.datetime64, checked: Counter[str]) -> list[Problem]:
    """Find all problems of a city, show the progress, and count the files that were read, by kind."""
    with progress_bar(f"checking {stores.city.name}") as show:
        total = max(1, _number_of_files(stores))

        def count(file: Path) -> None:
            checked[_kind(stores, file)] += 1
            show(min(0.99, checked.total() / total))

        found = list(problems(stores, config.retention, now, count))
        with suppress(DamagedFile):  # which is among the problems
            found += problems_of_latest(stores)
        return found


def _number_of_files(stores: CityStores) -> int:
    """Count the files and the folders of models that a check reads."""
    parts = ("records/*/*.parquet", "records/state.sqlite", "flows/*.nc", "forecasts/*/*.nc", "scores/*/*.nc")
    files = sum(1 for part in parts for _ in stores.folder.glob(part))
    return files + len(stores.registry.versions()) + 2  # the ledger and the book of alerts


def _kind(stores: CityStores, file: Path) -> str:
    """Return the kind of a file that was checked: the name of its store, models or databases."""
    if file.is_relative_to(stores.folder):
        return file.relative_to(stores.folder).parts[0]
    return "models" if file.is_relative_to(stores.registry.root) else "databases"


def _add(found: dict[str, dict[str, Any]], stores: CityStores, lost: bool, about: dict[str, Any]) -> None:
    """Add a problem to those of its city; damage to a database of all cities is told once."""
    of_city = found[stores.city.name]
    rebuilt = next(key for key in of_city if key.startswith("rebuil"))
    if about["file"] in (str(stores.ledger.file), str(stores.alerts)):
        of_city = found.setdefault(_ALL, {"checked": {}, rebuilt: [], "lost": [], "error": None})
    kind = of_city["lost" if lost else rebuilt]
    if about not in kind:
        kind.append(about)


def _code(city: dict[str, Any]) -> int:
    """Return the exit code of a city."""
    if city["error"]:
        return _UNCHECKED
    rebuilt = city.get("rebuildable", []) + city.get("rebuilt", [])
    return _LOST if city["lost"] else _DAMAGED if rebuilt else _WHOLE
