"""Polygons from files, and which share of each cell lies inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trafficcast.config.city import City
from trafficcast.errors import InputError

_WGS84 = "EPSG:4326"
# Less than this share of a cell is a border drawn along its edge.
_NO_SHARE = 1e-9


def _shares(polygon: Any, city: City) -> np.ndarray:
    """(row, col): the share of each cell inside a polygon. Within a cell a degree is as long everywhere."""
    import shapely

    lon = np.linspace(city.west, city.east, city.cols + 1)
    lat = np.linspace(city.north, city.south, city.rows + 1)
    share = np.zeros((city.rows, city.cols))
    west, south, east, north = polygon.bounds
    rows = np.flatnonzero((lat[:-1] > south) & (lat[1:] < north))
    cols = np.flatnonzero((lon[1:] > west) & (lon[:-1] < east))
    # By rows first, so that no cell cuts all of the polygon.
    strips = shapely.intersection(polygon, shapely.box(lon[0], lat[rows + 1], lon[-1], lat[rows]))
    boxes = shapely.box(lon[cols], lat[rows + 1][:, None], lon[cols + 1], lat[rows][:, None])  # (row, col)
    inside = shapely.area(shapely.intersection(strips[:, None], boxes)) / shapely.area(boxes)
    share[np.ix_(rows, cols)] = np.where(inside < _NO_SHARE, 0, inside.clip(max=1))
    return share


def _polygon(shape: Any, feature: str) -> Any:
    import shapely

    try:
        polygon = shapely.make_valid(shape, method="structure", keep_collapsed=False)
        area = shapely.area(polygon)
    except shapely.errors.GEOSException as error:
        raise InputError(f"{feature} has no proper polygon: {error}") from None
    if not 0 < area < np.inf:  # nor where there is none: its area is not a number
        raise InputError(f"{feature} has no polygon with an area: mend it or take it out")
    return polygon


def _read(file: Path) -> Any:
    """The features of a file, in longitude and latitude, as a GeoDataFrame."""
    import geopandas

    if not file.is_file():
        raise InputError(f"there is no file {file} of named areas: mend cities.NAME.areas, or take it out")
    try:
        frame = geopandas.read_file(file, on_invalid="ignore")  # is then none, and refused by its number
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot read areas from {file}: {error}") from None
    if not isinstance(frame, geopandas.GeoDataFrame) or not len(frame) or frame.crs is None:
        raise InputError(f"{file} holds no polygons in a known coordinate system: give a GeoJSON of the areas")
    try:
        return frame.to_crs(_WGS84)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{file}: its coordinate system cannot be brought to longitude and latitude: {error}"
        ) from None
