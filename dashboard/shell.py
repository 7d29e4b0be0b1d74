"""The frame of all pages: the configuration, the sign-in, the menu of pages and the choice of the city."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from types import ModuleType

import streamlit as st

from dashboard.alerts import alerts
from dashboard.data import data
from dashboard.forecasts import look_back, now
from dashboard.header import _draw_header
from dashboard.page.address import asked_view, change, current_view
from dashboard.page.labels import plain
from dashboard.page.severities import marks
from dashboard.page.unreadable import begin_page, sentences
from dashboard.page.view import View
from dashboard.reads.alerts import open_alerts
from dashboard.sign_in import _may_enter
from dashboard.skill import models, skill
from trafficcast.config.settings import Config, load_config
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores

# In the order of the menu: title, the page's part of the address, its module.
_PAGES: tuple[tuple[str, str, ModuleType], ...] = (
    ("Now", "", now),
    ("Look back", "look-back", look_back),
    ("Skill", "skill", skill),
    ("Models", "models", models),
    ("Data", "data", data),
    ("Alerts", "alerts", alerts),
)
# Charts, maps and choices are to fit a screen of 1280 x 720.
_STYLE = """<style>
.stMainBlockContainer { padding: 3.5rem 2rem 1rem 2rem; }
.st-key-city-choice { position: fixed; top: 0.45rem; right: 4.5rem; width: 13rem; z-index: 1000000; }
.stMainBlockContainer [data-testid="stVerticalBlock"] { gap: 0.5rem; }
[data-testid="stTopNavLink"]:focus-visible, .stCheckbox label:has(input:focus-visible) {
    outline: 2px solid currentColor; outline-offset: 2px; border-radius: 0.3rem;
}
/* Without a mouse a table's tools are always visible: they must not cover the line above it. */
@media (hover: none) { .stMainBlockContainer .stDataFrame { margin-top: 1.8rem; } }
</style>"""


def main(arguments: list[str]) -> None:
    """Draw the page that the address names.

    Parameters
    ----------
    arguments
        The command line: --config FILE and --city NAME.
    """
    st.set_page_config(page_title="Traffic forecast", layout="wide")
    st.html(_STYLE)
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("config.toml"))
    parser.add_argument("--city")
    options = parser.parse_args(arguments)
    try:
        config = _config(str(options.config), options.config.stat().st_mtime_ns if options.config.exists() else 0)
        default_city = config.city(options.city).name
    except InputError as error:
        st.error(plain(str(error)))
        return
    if not _may_enter(config.dashboard):
        return
    marked = marks(open_alerts(CityStores.of(config, asked_view(config, default_city).city)))
    pages = [
        st.Page(
            partial(_draw, title, module, config, default_city, marked),
            title=f"{title} ({marked})" if marked and module is alerts else title,
            url_path=path,
            default=not path,
        )
        for title, path, module in _PAGES
    ]
    st.navigation(pages, position="top").run()


@st.cache_resource(max_entries=2, show_spinner=False)
def _config(file: str, changed: int) -> Config:
    """The configuration, read again when its file has changed."""
    return load_config(Path(file))


def _draw(title: str, module: ModuleType, config: Config, default_city: str, marked: str) -> None:
    st.set_page_config(page_title=f"({marked}) {title}" if marked else title)
    place = st.container()  # one element, whatever it contains
    begin_page()
    try:
        view = _choose_city(config, current_view(config, default_city))
        _draw_header(config, view, marked, of_forecasts=module is now, of_alerts=module is not alerts)
        module.draw(config, view)
    except InputError as error:
        st.error(plain(str(error)))
    for sentence in sentences():
        place.warning(plain(sentence))


def _choose_city(config: Config, view: View) -> View:
    """Draw the choice of the city beside the menu, where there is more than one city."""
    names = sorted(config.cities)
    if len(names) > 1:
        st.session_state["city"] = view.city.name
        with st.container(key="city-choice"):
            st.selectbox(
                "City",
                names,
                key="city",
                label_visibility="collapsed",
                on_change=partial(_go_to_city, config, view),
            )
    return view


def _go_to_city(config: Config, view: View) -> None:
    city = config.city(st.session_state["city"])
    change(View(city, kind=view.kind))
