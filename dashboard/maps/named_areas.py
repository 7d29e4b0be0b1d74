"""The named areas of a page, which shows a warning where their file cannot be read."""

from __future__ import annotations

import streamlit as st

from dashboard.page.labels import plain
from dashboard.reads.areas import areas_of
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.geography.areas import Area


def named_areas(city: City) -> dict[str, Area]:
    """Read a city's named areas, or show a warning where their file cannot be read.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    dict[str, Area]
        The areas by name; empty where their file cannot be read.
    """
    try:
        return areas_of(city)
    except InputError as error:
        st.warning(plain(str(error)))
        return {}
