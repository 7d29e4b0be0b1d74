"""One map of a city in the browser: data as JSON, drawn by the fixed script `static/index.html`.

No text is ever compiled: the script reads what it is sent as data and shows it as plain text. It loads Leaflet from
beside itself, and nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.components import v1

from dashboard.reads.areas import outlines_and_cells
from dashboard.reads.pictures import street_picture
from trafficcast.config.city import City
from trafficcast.config.settings import Config
from trafficcast.stores.city_stores import CityStores

_component = v1.declare_component("map", path=Path(__file__).parents[1] / "static")


def draw_map(
    config: Config,
    city: City,
    colours: list[str],
    words: list[str],
    chosen: tuple[int, int] | None,
    height: int,
    key: str,
    on_click: Callable[[], None] | None = None,
) -> None:
    """Draw the map of a city; its zoom and position stay from run to run.

    Parameters
    ----------
    config
        The configuration.
    city
        The city, whose box the map shows at first.
    colours
        Each cell's colour, #rrggbbaa, row after row; empty where there is nothing to show.
    words
        Each cell's tooltip, in the same order.
    chosen
        Row and column of the cell to outline; None outlines none.
    height
        Height of the map, pixels.
    key
        The name of the map, under which the session's state holds the latitude and longitude of the last click.
    on_click
        Called after a click; None ignores clicks.
    """
    tiles = config.map.tiles_url
    _component(
        **_base(city, tiles, config.map.tiles_attribution, street_picture(config, CityStores.of(config, city))),
        outlines=outlines_and_cells(city)[0],
        cells={"colours": colours, "words": words},
        chosen=chosen,
        height=height,
        clicks=on_click is not None,
        key=key,
        on_change=on_click,
    )


def _base(city: City, tiles_url: str | None, attribution: str, picture: str | None) -> dict[str, Any]:
    """What is below the cells: the grid, and the picture of where vehicles report or a tile server instead."""
    box = {"west": city.west, "east": city.east, "south": city.south, "north": city.north}
    tiles = {"url": tiles_url, "attribution": attribution} if tiles_url else None
    return {
        "grid": {"city": city.name, **box, "rows": city.rows, "cols": city.cols},
        "tiles": tiles,
        "picture": None if tiles else picture,
    }
