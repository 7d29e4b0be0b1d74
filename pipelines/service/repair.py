"""Repair: mend what is damaged or missing in a city's stores, and make lost forecasts and scores again.

The temporary files that a killed writer left are removed as well.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.service.cycle import CityService, _forecast
from trafficcast.config.settings import Config
from trafficcast.errors import DamagedFile, InputError, JobError
from trafficcast.files import remove_temporaries, writer_lock
from trafficcast.forecasting.inference import pick_device
from trafficcast.forecasting.publish import JOB
from trafficcast.forecasting.verify import VERIFY, verify
from trafficcast.progress import log
from trafficcast.repair.repair import Mended, Problem, problem_of, problems, problems_of_latest
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.ledger import LOST


def repair(config: Config, stores: CityStores, now: np.datetime64, device: str = "auto") -> list[dict[str, Any]]:
    """Mend all that is damaged or missing in a city's stores, as far as that is possible.

    Flow days are counted again from the records. Forecasts and scores are made again, forecasts of slots that are over
    as hindcasts. What cannot be mended is set aside. A second repair finds nothing to do.

    Parameters
    ----------
    config
        The configuration.
    stores
        The city and its stores.
    now
        The present time, naive UTC.
    device
        Where the networks run: auto, cpu, cuda or mps.

    Returns
    -------
    list[dict[str, Any]]
        For each problem the file, what is wrong with it, what was done, and whether something was lost.
    """
    found = [_outcome(problem) for problem in problems(stores, config.retention, now)]
    for file, mended in _make_lost_again(config, stores, now, device):
        found.append({"file": str(file), "wrong": "lost", "done": mended.sentence, "lost": mended.lost})
    with suppress(DamagedFile):  # only where it was not mended
        found += [_outcome(problem) for problem in problems_of_latest(stores)]
    return found


def _repair(stores: CityStores, damage: DamagedFile) -> str:
    """Mend the damaged file that a job met, and return what was done in a sentence.

    Forecasts and scores are recorded as lost in the ledger, and the next cycles make those of the last hours again.
    """
    mended = problem_of(stores, damage).mend()
    log.error("%s; repaired: %s", damage, mended.sentence)
    return f"{damage.file.name}: {mended.sentence}"


def _outcome(problem: Problem) -> dict[str, Any]:
    """Mend a problem, and say what was done."""
    about = {"file": str(problem.file), "wrong": problem.wrong}
    try:
        mended = problem.mend()
    except (InputError, JobError, OSError) as error:
        mended = Mended(f"it could not be mended: {error}", True)
    return {**about, "done": mended.sentence, "lost": mended.lost}


def _make_lost_again(config: Config, stores: CityStores, now: np.datetime64, device: str) -> list[tuple[Path, Mended]]:
    """Make the forecasts and scores again that the ledger calls lost, and say which could not be made."""
    outcomes = []
    for version in stores.registry.versions():
        lost = _lost(stores, JOB, version, now)
        if lost:
            service = CityService(stores, config.service, pick_device(device), version)
            made = [init_time for init_time in lost if _forecast(service, init_time, now) is not None]
            outcomes.append((stores.forecasts(version).root, _counted("forecasts", version, len(made), len(lost))))
        scores = _lost(stores, VERIFY, version, now)
        if scores or lost:
            both = sorted({*scores, *lost})
            with suppress(InputError):  # neither the model nor a forecast is there
                verify(stores, both[0], both[-1] + stores.city.slot, version)
        if scores:
            made = sorted(set(scores) - set(_lost(stores, VERIFY, version, now)))
            outcomes.append((stores.scores(version).root, _counted("scores", version, len(made), len(scores))))
    return outcomes


def _lost(stores: CityStores, job: str, version: str, now: np.datetime64) -> list[np.datetime64]:
    """Return the init times up to now whose forecasts or scores the ledger calls lost."""
    results = stores.ledger.results(job, stores.city.name, version)
    return sorted(slot for slot, result in results.items() if result == LOST and slot <= now)


def _counted(what: str, version: str, made: int, lost: int) -> Mended:
    """Say how many forecasts or scores of a model were made again, and how many are lost."""
    gone = f"; {lost - made} are lost" if made < lost else ""
    return Mended(f"{made} {what} of {version} were made again{gone}", made < lost)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder, unless somebody is writing there now."""
    if any(folder.glob(".*.tmp")):
        with suppress(JobError), writer_lock(folder, wait_seconds=0):
            remove_temporaries(folder)
