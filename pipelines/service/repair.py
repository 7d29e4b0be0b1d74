"""Repair: set a store's damaged file aside and make its content again from the other stores.

The temporary files that a killed writer left are removed as well.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from filelock import Timeout

from trafficcast.files import remove_temporaries, writer_lock
from trafficcast.forecasting.publish import JOB
from trafficcast.forecasting.verify import VERIFY
from trafficcast.ingestion.ingest import rebuild_day
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DamagedFile


def _repair(stores: CityStores, damage: DamagedFile) -> Path:
    """Set a damaged file of the city's stores aside, and return its new path.

    Flows are counted again from the records at once. Forecasts and scores are recorded as lost in the ledger, and the
    next cycles make those of the last hours again.
    """
    city, file = stores.city, damage.file
    aside = _set_aside(file)
    log.error("%s; it now lies at %s", damage, aside)
    day = np.datetime64(file.stem, "D")
    store, *version = file.relative_to(stores.folder).parts[:-1]
    if store == "flows":
        if RecordStore(stores.records).exists():
            rebuild_day(stores, day)
            log.info("the flows of %s were counted again from the records", day)
        else:
            log.error("the flows of %s are lost: there are no records to count them from", day)
    else:
        job = JOB if store == "forecasts" else VERIFY
        start, end = city.midnight(day), city.midnight(day + np.timedelta64(1, "D"))
        stores.ledger.lose(job, city.name, version[0], start, end)
    return aside


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder, unless somebody is writing there now."""
    if any(folder.glob(".*.tmp")):
        with suppress(Timeout), writer_lock(folder).acquire(timeout=0):
            remove_temporaries(folder)


def _set_aside(file: Path) -> Path:
    """Rename a file to the next free name of a damaged file, and return that path."""
    number = 1
    while (aside := file.with_name(f"{file.name}.damaged-{number}")).exists():
        number += 1
    os.rename(file, aside)
    return aside
