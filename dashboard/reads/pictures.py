"""Cached pictures of where vehicles report."""

from __future__ import annotations

import streamlit as st

from dashboard.reads.cached import cached
from dashboard.reads.stamps import records_stamp
from trafficcast.config.settings import Config
from trafficcast.errors import InputError, JobError
from trafficcast.ingestion.record_store import RecordStore, State
from trafficcast.quality.point_density import png_uri, point_counts, shade_levels
from trafficcast.stores.city_stores import CityStores


def street_picture(config: Config, stores: CityStores) -> str | None:
    """Return the picture that maps of a session show as their background.

    A session keeps its first picture: with another one the map would lose its zoom and position.

    Parameters
    ----------
    config
        The configuration, which may name a tile server to use instead.
    stores
        The city and its stores.

    Returns
    -------
    str | None
        A PNG as a data URI; None where there are no records, and where a tile server is used.
    """
    if config.map.tiles_url:
        return None
    key = f"street picture {stores.city.name}"
    if not st.session_state.get(key):
        try:
            st.session_state[key] = record_picture(stores)
        except (InputError, JobError):  # an ingest is writing the records: the next run draws them
            return None
    picture: str | None = st.session_state.get(key)
    return picture


def record_picture(stores: CityStores) -> str | None:
    """Draw where the vehicles of a city report.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    str | None
        A PNG as a data URI; None where there are no records.

    Raises
    ------
    InputError
        The record store is damaged.
    JobError
        The record store cannot be read now.
    """
    return _picture(stores) if records_stamp(stores) else None


@cached(stamp=records_stamp, entries=2)
def _state(stores: CityStores) -> State:
    return RecordStore(stores.records, read_only=True).load()


# The picture is drawn anew only once a day.
@cached(stamp=lambda stores: max(stores.flows.days(), default=None), entries=4, spinner="Drawing the streets")
def _picture(stores: CityStores) -> str | None:
    counts = point_counts(RecordStore(stores.records, read_only=True), _state(stores), stores.city)
    return png_uri(shade_levels(counts)) if counts.any() else None
