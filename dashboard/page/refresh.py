"""Draw a page again when the data that it shows have changed, and when a slot has ended."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st

from dashboard.page import clock
from trafficcast.config.city import City

_CHECK_SECONDS = 5.0


def rerun_when_changed(city: City, stamp: Callable[[], object]) -> None:
    """Run the page again as soon as a stamp changes or a slot ends, which is checked every few seconds.

    A page calls it before it reads, so that no change between the read and the first check is missed.

    Parameters
    ----------
    city
        The city.
    stamp
        A cheap function whose value changes with the data of the page.
    """

    def _current() -> tuple[object, np.datetime64]:
        return stamp(), city.slot_start(clock.present())

    before = _current()

    @st.fragment(run_every=_CHECK_SECONDS)
    def _check() -> None:
        if _current() != before:
            st.rerun()

    _check()
