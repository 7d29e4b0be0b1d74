"""Read the view from the page's address in the browser, and write people's choices into it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import streamlit as st

from dashboard.page.view import View
from trafficcast.config.settings import Config

_LAST = "last view"
# Names of the choices of single pages (see page/choices.py). Other pages leave them in the address: removing them
# would add a step to the browser's history.
_Choice = Literal["third", "of", "model", "period", "show", "error", "ahead", "days", "against"]
_OWN = get_args(_Choice)


def current_view(config: Config, default_city: str) -> View:
    """Return the view that the address gives; a newly opened page gets the view of the page before it.

    Parameters
    ----------
    config
        The configuration.
    default_city
        The city of an address without one.

    Returns
    -------
    View
        The view.
    """
    parameters = _parameters()
    view = View.from_address(parameters, config, default_city)
    _remember(view, parameters)
    return view


def asked_view(config: Config, default_city: str) -> View:
    """Return the view that `current_view` will return, and leave the address as it is.

    Parameters
    ----------
    config
        The configuration.
    default_city
        The city of an address without one.

    Returns
    -------
    View
        The view.
    """
    return View.from_address(_parameters(), config, default_city)


def _parameters() -> dict[str, str]:
    return st.query_params.to_dict() or st.session_state.get(_LAST, {})


def change(view: View, **changes: Any) -> View:
    """Change the view and write it into the address; the run after a widget's callback shows it.

    Parameters
    ----------
    view
        The view so far.
    **changes
        New values of the view's attributes.

    Returns
    -------
    View
        The changed view.
    """
    view = replace(view, **changes)
    _remember(view, st.query_params.to_dict())
    return view


def _remember(view: View, parameters: dict[str, str]) -> None:
    """Write a view into the address and the session; the choices of single pages among the parameters stay."""
    address = view.address() | {name: value for name, value in parameters.items() if name in _OWN}
    st.session_state[_LAST] = address
    if st.query_params.to_dict() != address:
        st.query_params.from_dict(address)
