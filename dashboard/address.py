"""The page's address in the browser: read into a view, and changed by what people choose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard.view import View
from trafficcast.config import Config

LAST = "last view"


def current_view(config: Config, default_city: str) -> View:
    """The view of the address; another page is opened with the view of the one before."""
    parameters = st.query_params.to_dict() or st.session_state.get(LAST, {})
    view = View.from_address(parameters, config, default_city)
    _remember(view)
    return view


def change(view: View, **what: Any) -> View:
    """Another view, which the address says from now on; in a widget's callback the run after it shows that view."""
    view = replace(view, **what)
    _remember(view)
    return view


def _remember(view: View) -> None:
    address = view.address()
    st.session_state[LAST] = address
    if st.query_params.to_dict() != address:
        st.query_params.from_dict(address)
