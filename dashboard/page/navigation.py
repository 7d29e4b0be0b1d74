"""Open another page with the view of the address."""

from __future__ import annotations

from typing import NoReturn

import streamlit as st

NOW, LOOK_BACK = "", "look-back"  # parts of the address, as dashboard/shell.py names its pages


def open_page(path: str) -> NoReturn:
    """Open another page, which shows the view of the last call of `change`.

    Parameters
    ----------
    path
        The page's part of the address: `NOW` or `LOOK_BACK`.
    """
    # Streamlit knows a page by its path alone, so this object stands for the page of the menu.
    st.switch_page(st.Page(lambda: None, title=path or "now", url_path=path, default=not path))
