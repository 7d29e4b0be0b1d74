"""Cached reads of the page Data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.data.slots import _VARIABLES
from dashboard.reads.cached import cached
from dashboard.reads.stamps import records_stamp, stamp
from dashboard.reads.stores import closed
from trafficcast.errors import DamagedFile
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.stores.city_stores import CityStores


def _slots_between(
    stores: CityStores, start: np.datetime64, end: np.datetime64
) -> tuple[xr.Dataset | None, list[DamagedFile]]:
    """Read the slots of a period without their flows, and the errors of the days that cannot be read."""
    slots, damaged = _stored_slots(stores, start, end)
    return None if slots is None else closed(stores.city, slots), damaged


@cached(
    stamp=lambda stores, start, end: stamp(stores.flows, start, end),
    entries=16,
    spinner="Reading slots",
)
def _stored_slots(
    stores: CityStores, start: np.datetime64, end: np.datetime64
) -> tuple[xr.Dataset | None, list[DamagedFile]]:
    damaged: list[DamagedFile] = []
    slots = stores.flows.read(start, end, _VARIABLES, damaged)
    return slots, damaged


@cached(stamp=records_stamp, entries=4)
def _records_by_slot(stores: CityStores) -> pd.Series | None:
    """Read how many records each slot has, by the slot's number since 1970; None where there are no records."""
    if not records_stamp(stores):
        return None
    facts = RecordStore(stores.records, read_only=True).slot_facts()
    return pd.Series(facts[:, 3], index=facts[:, 0])
