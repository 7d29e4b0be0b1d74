"""The named areas on a page that goes on without them."""

from __future__ import annotations

import streamlit as st

from dashboard.page.labels import plain
from dashboard.reads.areas import areas_of
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.geography.areas import Area


def named_areas(city: City) -> dict[str, Area]:
    """The city's areas by name; where their file cannot be read the page says so, and there are none."""
    try:
        return areas_of(city)
    except InputError as error:
        st.warning(plain(str(error)))
        return {}
