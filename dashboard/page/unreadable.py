"""The files that a page cannot read: they are named above the page, which shows the rest."""

from __future__ import annotations

from typing import TypeVar

import streamlit as st

from trafficcast.errors import DamagedFile

_KEY = "unreadable files"
_MOST = 3
_T = TypeVar("_T")


def readable(found: tuple[_T, list[DamagedFile]]) -> _T:
    """Return what could be read, and note the files that could not.

    Parameters
    ----------
    found
        What was read, and an error for each damaged file.

    Returns
    -------
    _T
        What was read.
    """
    value, damaged = found
    st.session_state.setdefault(_KEY, {}).update({str(error): None for error in damaged})
    return value


def begin_page() -> None:
    """Forget the files that an earlier run of the page could not read."""
    st.session_state[_KEY] = {}


def sentences() -> list[str]:
    """Name the files that this run of the page could not read.

    Returns
    -------
    list[str]
        A sentence for each of the first files, with what helps, and one on the number of the others.
    """
    noted = list(st.session_state.get(_KEY, {}))
    more = [f"{len(noted) - _MOST} more files cannot be read"] if len(noted) > _MOST else []
    return [*(f"{sentence}. The page shows the rest." for sentence in noted[:_MOST]), *more]
