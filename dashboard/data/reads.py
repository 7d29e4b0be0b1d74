"""Cached reads of the page Data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.reads.places import records_stamp
from dashboard.reads.stamps import Stamp, stamp
from dashboard.reads.stores import identity
from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import Slots, read_slots


def _slots_between(config: Config, city: City, first: np.datetime64, last: np.datetime64) -> Slots:
    """What is known of the slots of the local days from the first to the last (see `_read_slots`)."""
    store = CityStores.of(config, city).flows
    days = tuple(day for day in store.days() if first <= day <= last)
    names = {f"{day}.nc" for day in days}
    state = tuple(entry for entry in stamp(store) if entry[0] in names)
    return _slots(identity(store), state, str(first), str(last), store, days)


def _records_of_slots(config: Config, city: City) -> pd.Series | None:
    """Records of each slot, by its number since 1970; None without records. Raises InputError and JobError."""
    changed = records_stamp(config, city)
    store = RecordStore(config.paths.data / city.name / "records", read_only=True)
    return None if changed is None else _records(f"{store.root} {city}", changed, store)


@st.cache_resource(max_entries=16, show_spinner="Reading slots")
def _slots(
    identity: str, stamp: Stamp, first: str, last: str, _store: DayStore, _days: tuple[np.datetime64, ...]
) -> Slots:
    return read_slots(_store, _days)


@st.cache_resource(max_entries=4, show_spinner=False)
def _records(identity: str, changed: int, _store: RecordStore) -> pd.Series:
    facts = _store.slot_facts()
    return pd.Series(facts[:, 3], index=facts[:, 0])
