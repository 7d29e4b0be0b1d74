"""The row of download buttons; a file is made when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st
import xarray as xr

from dashboard.forecasts.downloads import _as_csv, _as_geojson, _as_netcdf, _file_name
from dashboard.maps.maps import Layer
from dashboard.page.labels import day_label, slot_labels
from dashboard.page.view import View
from dashboard.reads.pictures import street_picture
from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.stores.city_stores import CityStores


def _slot_heading(city: City, kind: str, slot: np.datetime64) -> str:
    """'san-francisco, inflow, Thu 5 Jun 2008 18:00-18:30 PDT (America/Los_Angeles)'."""
    day = day_label(city.local_days(np.array([slot]))[0])
    return f"{city.name}, {kind}, {day} {slot_labels(city, np.array([slot]))[0]} ({city.timezone})"


def _download_row(config: Config, view: View, grid: xr.Dataset, heading: str, layers: list[Layer], page: str) -> None:
    """Offer what a page shows: the dataset `grid` (see downloads.py), and the layers below a heading as a picture."""
    city = view.city
    streets = street_picture(config, CityStores.of(config, city))  # of this session: a file is made outside it

    def picture() -> bytes:
        from dashboard.maps.png import as_png  # here, because matplotlib is slow to import and few ask for a picture

        return as_png(city, heading, layers, streets)

    files: dict[str, tuple[str, str, Callable[[], bytes]]] = {
        "GeoJSON": ("geojson", "application/geo+json", lambda: _as_geojson(city, grid)),
        "CSV": ("csv", "text/csv", lambda: _as_csv(grid)),
        "NetCDF": ("nc", "application/netcdf", lambda: _as_netcdf(grid)),
        "PNG": ("png", "image/png", picture),
    }
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Download these maps as a file:", width="content")
        for name, (ending, kind, make) in files.items():
            st.download_button(
                name,
                make,
                _file_name(grid, ending),
                kind,
                key=f"{page} download {name}",
                on_click="ignore",
                type="tertiary",
                icon=":material/download:",
            )
