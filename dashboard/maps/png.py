"""The maps that a page shows as one picture, drawn by matplotlib."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import imread

from dashboard.maps.colours import _FLOW_MARKS, _difference_colours, _flow_colours
from dashboard.maps.maps import Layer
from trafficcast.config.city import City

_DPI = 150
_SHADES = 256
_MAP_INCHES = 4.4
_INK = "#222222"
_OUTLINE = "#888888"
_DIFFERENCE_MARKS = (-1.0, -0.5, 0.0, 0.5)


def as_png(city: City, heading: str, layers: list[Layer], streets: str | None = None) -> bytes:
    """Draw maps side by side as one picture, each with its title, note and legend.

    Parameters
    ----------
    city
        The city.
    heading
        The line above the maps: city, flow kind, times and time zone.
    layers
        The content of each map.
    streets
        The picture of where vehicles report as a data URI (see `street_picture`); None leaves it out.

    Returns
    -------
    bytes
        A PNG file.
    """
    extent = (city.west, city.east, city.south, city.north)
    shape = 1 / np.cos(np.radians((city.south + city.north) / 2))  # of a degree of latitude to one of longitude
    height = _MAP_INCHES * float(np.clip(shape * (city.north - city.south) / (city.east - city.west), 0.3, 3.0))
    figure = Figure(figsize=(_MAP_INCHES * len(layers), height + 1.6), layout="constrained")
    figure.suptitle(heading, fontsize=11, color=_INK, parse_math=False)
    background = None if streets is None else imread(io.BytesIO(base64.b64decode(streets.partition(",")[2])))
    for axes, layer in zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True):
        if background is not None:
            axes.imshow(background, extent=extent, aspect=shape)
        _map(figure, axes, layer, extent, shape)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _map(figure: Figure, axes: Axes, layer: Layer, extent: tuple[float, float, float, float], shape: float) -> None:
    axes.set_title(f"{layer.title}\n{layer.note}", fontsize=10, color=_INK, parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(_OUTLINE)
    values = np.zeros((1, 1)) if layer.values is None else layer.values
    colours, norm = _scale(layer)
    drawn = axes.imshow(values, colours, norm=norm, extent=extent, aspect=shape, interpolation="nearest")
    legend = figure.colorbar(
        drawn, ax=axes, location="bottom", fraction=0.05, pad=0.03, extend="both" if layer.diverging else "max"
    )
    legend.set_ticks(
        [share * layer.limit for share in (_DIFFERENCE_MARKS if layer.diverging else _FLOW_MARKS)] + [layer.limit]
    )
    legend.ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    legend.minorticks_off()
    legend.set_label("vehicles per slot", fontsize=9, color=_INK)
    legend.ax.tick_params(labelsize=8, colors=_INK)


def _scale(layer: Layer) -> tuple[ListedColormap, Normalize]:
    """The page's colours, and how values are spread over them."""
    if layer.diverging:
        shades = _difference_colours(np.linspace(-1, 1, _SHADES), 1.0)
        return ListedColormap(shades), Normalize(-layer.limit, layer.limit)
    shades = _flow_colours(np.linspace(0, 1, _SHADES) ** 2, 1.0)  # even in the square root, as on the page
    return ListedColormap(shades), PowerNorm(0.5, 0, layer.limit)
