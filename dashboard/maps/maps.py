"""Maps of a city side by side, which move together; each shows a `Layer`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.maps.cells import cell_words
from dashboard.maps.city_map import draw_map
from dashboard.maps.colours import _difference_colours, _difference_legend, _flow_colours, _flow_legend
from dashboard.page.address import change
from dashboard.page.view import View
from dashboard.reads.areas import outlines_and_cells
from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.geography.cells import cell_at

_TABLE_HEIGHT = 300


@dataclass(frozen=True)
class Layer:
    """The content of one map.

    Attributes
    ----------
    title
        The title above the map.
    values
        The values, (row, col), vehicles per slot; None where there is nothing to show.
    limit
        The end of the colour scale, vehicles per slot.
    diverging
        Whether the scale is that of differences, with 0 in its middle.
    digits
        Decimals of the values.
    note
        A remark beside the title: a total, or why there are no values.
    """

    title: str
    values: np.ndarray | None
    limit: float
    diverging: bool = False
    digits: int = 1
    note: str = ""


def draw_maps(config: Config, view: View, layers: list[Layer], height: int, key: str) -> None:
    """Draw maps side by side and the table of their numbers; a click on a cell puts it into the address.

    Parameters
    ----------
    config
        The configuration.
    view
        The view, as the address gives it.
    layers
        The content of each map.
    height
        Height of the maps, pixels.
    key
        The page's name, which keeps its maps apart from those of other pages.
    """
    city = view.city
    _, cells = outlines_and_cells(city)
    for number, (layer, column) in enumerate(zip(layers, st.columns(len(layers)), strict=True)):
        with column:
            st.markdown(f"**{layer.title}** &ensp; {layer.note}")
            colours, words = [], []
            if layer.values is not None:
                paint = _difference_colours if layer.diverging else _flow_colours
                colours, words = paint(layer.values, layer.limit), cell_words(cells, layer.values, layer.digits)
            name = f"{key} {number} {city.name}"
            draw_map(config, city, colours, words, view.cell, height, name, partial(_choose_cell, view, name))
            st.html(_difference_legend(layer.limit) if layer.diverging else _flow_legend(layer.limit))
    with st.expander("The numbers of these maps"):
        st.dataframe(_layer_table(city, layers), hide_index=True, height=_TABLE_HEIGHT)


def _layer_table(city: City, layers: list[Layer]) -> pd.DataFrame:
    """A table with a row for each cell: row, column, and its value on each map, vehicles per slot, rounded."""
    row, col = np.divmod(np.arange(city.rows * city.cols), city.cols)
    shown = {layer.title: layer.values.ravel().round(layer.digits) for layer in layers if layer.values is not None}
    return pd.DataFrame({"row": row, "column": col, **shown})


def _choose_cell(view: View, key: str) -> None:
    if point := st.session_state.get(key):
        change(view, cell=cell_at(view.city, *point))
