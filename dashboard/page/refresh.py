"""A page that draws itself anew when what it shows has changed."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

_LOOK_SECONDS = 5.0


def rerun_when_changed(stamp: Callable[[], object]) -> None:
    """Look every few seconds whether `stamp`, which is cheap, is another than now; then run the page again."""
    before = stamp()

    @st.fragment(run_every=_LOOK_SECONDS)
    def look() -> None:
        if stamp() != before:
            st.rerun()

    look()
