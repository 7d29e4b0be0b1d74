"""Playback: a page shows slot after slot; the address changes only when the playback stops."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import streamlit as st

_FRAME_SECONDS = 1.5


def _slot_played(page: str, slots: np.ndarray, otherwise: np.datetime64) -> np.datetime64:
    """Return the slot that the playback has reached, or `otherwise` while it does not play."""
    played = st.session_state.get(_played_key(page)) if st.session_state.get(_playing_key(page)) else None
    found: np.datetime64 = otherwise if played is None or played not in slots else played
    return found


def _play_switch(page: str, go_to: Callable[[np.datetime64], None]) -> None:
    """The switch that starts the playback, and stops it at the slot that it then goes to."""
    st.toggle("Play", key=_playing_key(page), on_change=_on_switch, args=(page, go_to))


def _stop(page: str) -> None:
    """Stop the playback, because somebody has chosen a slot."""
    st.session_state[_playing_key(page)] = False
    st.session_state.pop(_played_key(page), None)


def _schedule_next_slot(page: str, slots: np.ndarray, slot: np.datetime64) -> None:
    """While it plays, go on to the next slot in a moment, from the last one to the first."""
    if not st.session_state.get(_playing_key(page)):
        return
    began = time.monotonic()

    @st.fragment(run_every=_FRAME_SECONDS)
    def step() -> None:
        if time.monotonic() - began >= _FRAME_SECONDS / 2:  # not in the run that drew this slot
            place = int(np.flatnonzero(slots == slot)[0])
            st.session_state[_played_key(page)] = slots[(place + 1) % len(slots)]
            st.rerun()

    step()


def _on_switch(page: str, go_to: Callable[[np.datetime64], None]) -> None:
    slot = st.session_state.pop(_played_key(page), None)
    if slot is not None and not st.session_state[_playing_key(page)]:
        go_to(slot)


def _playing_key(page: str) -> str:
    return f"{page} playing"


def _played_key(page: str) -> str:
    return f"{page} played slot"
