"""What one chooses on a page beyond its view, said by the address too, so that a link shows a colleague the same.

    /skill?city=san-francisco&period=month&show=by-hour-and-weekday

The address says an option in small letters and digits. What a page shows anyway is not said, and what is none of its
options counts as not given; it may be another page's.
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
    **looks: Any,
) -> str:
    """The option that the address says under `name`, by default the first; draws a widget to choose another.

    `widget`: st.selectbox or st.segmented_control, or a place's; `looks` are what else it takes.
    """
    default = options[0] if default is None else default
    chosen = {_in_address(option): option for option in options}.get(st.query_params.get(name, ""), default)
    key = f"choice {name}"
    st.session_state[key] = chosen
    widget(label, options, key=key, on_change=partial(_say, name, key, default), **looks)
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
    """An option as the address says it: 'By hour and weekday' -> 'by-hour-and-weekday'."""
    return re.sub("[^a-z0-9]+", "-", option.lower()).strip("-")


def _say(name: _Choice, key: str, default: str) -> None:
    chosen = st.session_state[key]
    if chosen == default:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = _in_address(chosen)
