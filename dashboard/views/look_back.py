"""look_back"""

from __future__ import annotations

import streamlit as st

from dashboard.view import View
from trafficcast.config import Config


def draw(config: Config, view: View) -> None:
    """The page."""
    st.markdown("### look_back")
    st.write(view.address())
