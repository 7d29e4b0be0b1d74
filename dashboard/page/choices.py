"""Choices of a page beside its view; the address holds them too, so that a link shows a colleague the same page.

    /skill?city=san-francisco&period=month&show=by-hour-and-weekday

The address holds an option in small letters and digits; it omits the default. A value that is none of the page's
options is ignored: it may belong to another page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import streamlit as st

from dashboard.page.address import _Choice, change
from dashboard.page.view import KINDS, View


def choice(
    widget: Callable[..., Any],
    label: str,
    options: Sequence[str],
    name: _Choice,
    default: str | None = None,
    **settings: Any,
) -> str:
    """Draw a widget that chooses one of several options, and return the option that the address holds.

    Parameters
    ----------
    widget
        The function that draws the widget: `selectbox` or `segmented_control`, of Streamlit or of a part of the page.
    label
        The widget's label.
    options
        The options.
    name
        The choice's name in the address.
    default
        The option where the address holds none; None is the first one.
    **settings
        More arguments of the widget.

    Returns
    -------
    str
        The chosen option.
    """
    default = options[0] if default is None else default
    chosen = {_in_address(option): option for option in options}.get(st.query_params.get(name, ""), default)
    key = f"choice {name}"
    st.session_state[key] = chosen
    widget(label, options, key=key, on_change=partial(_write_to_address, name, key, default), **settings)
    return chosen


def choose_kind(view: View, area: Any = st) -> None:
    """Draw the choice of a flow kind.

    Parameters
    ----------
    view
        The view, which the choice changes.
    area
        The part of the page to draw in.
    """
    st.session_state["kind"] = view.kind
    area.segmented_control(
        "Flow", KINDS, key="kind", required=True, on_change=lambda: change(view, kind=st.session_state["kind"])
    )


def _in_address(option: str) -> str:
    """Write an option as the address holds it: 'By hour and weekday' -> 'by-hour-and-weekday'."""
    return re.sub("[^a-z0-9]+", "-", option.lower()).strip("-")


def _write_to_address(name: _Choice, key: str, default: str) -> None:
    """Write the option that the widget holds into the address, which omits the default."""
    chosen = st.session_state[key]
    if chosen == default:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = _in_address(chosen)
