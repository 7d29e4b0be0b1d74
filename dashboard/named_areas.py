"""The named areas on a page that goes on without them."""

from __future__ import annotations

import streamlit as st

from dashboard.cached import areas_of
from dashboard.labels import plain
from trafficcast.areas import Area
from trafficcast.city import City
from trafficcast.errors import InputError


def named_areas(city: City) -> dict[str, Area]:
    """The city's areas by name; where their file cannot be read the page says so, and there are none."""
    try:
        return areas_of(city)
    except InputError as error:
        st.warning(plain(str(error)))
        return {}
