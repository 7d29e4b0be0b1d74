"""Draw a page again when the data that it shows have changed."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

_CHECK_SECONDS = 5.0


def rerun_when_changed(stamp: Callable[[], object]) -> None:
    """Run the page again as soon as a stamp changes; the stamp is checked every few seconds.

    Parameters
    ----------
    stamp
        A cheap function whose value changes with the data of the page.
    """
    before = stamp()

    @st.fragment(run_every=_CHECK_SECONDS)
    def _check() -> None:
        if stamp() != before:
            st.rerun()

    _check()
