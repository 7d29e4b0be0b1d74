"""The page's address in the browser: read into a view, and changed by what people choose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import streamlit as st

from dashboard.page.view import View
from trafficcast.config.settings import Config

_LAST = "last view"
# Names of the choices of single pages (see page/choices.py). Other pages leave them in the address: one that took
# them out would be a step back of its own in the browser.
_Choice = Literal["third", "of", "model", "period", "show", "error", "ahead", "days", "against"]
_OWN = get_args(_Choice)


def current_view(config: Config, default_city: str) -> View:
    """The view of the address; another page is opened with the view of the one before."""
    parameters = st.query_params.to_dict() or st.session_state.get(_LAST, {})
    view = View.from_address(parameters, config, default_city)
    _remember(view, parameters)
    return view


def change(view: View, **what: Any) -> View:
    """Another view, which the address says from now on; in a widget's callback the run after it shows that view."""
    view = replace(view, **what)
    _remember(view, st.query_params.to_dict())
    return view


def _remember(view: View, parameters: dict[str, str]) -> None:
    """Have the address say a view, and of its parameters what is a page's own choice."""
    address = view.address() | {name: value for name, value in parameters.items() if name in _OWN}
    st.session_state[_LAST] = address
    if st.query_params.to_dict() != address:
        st.query_params.from_dict(address)
