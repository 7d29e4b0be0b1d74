"""From one page to another, with the view that the address says."""

from __future__ import annotations

from typing import NoReturn

import streamlit as st

NOW, LOOK_BACK = "", "look-back"  # parts of the address, as dashboard/shell.py names its pages


def open_page(path: str) -> NoReturn:
    """Go to the page with that part of the address; what `change` has said last is what it shows."""
    # A page is known by its path alone: this one stands for the page of the menu.
    st.switch_page(st.Page(lambda: None, title=path or "now", url_path=path, default=not path))
