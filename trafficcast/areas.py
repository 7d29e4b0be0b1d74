"""Named areas of a city, such as districts and stadiums: which cells each covers, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trafficcast.city import City
from trafficcast.errors import InputError

WGS84 = "EPSG:4326"
# Less than this share of a cell is a border drawn along its edge.
NO_SHARE = 1e-9
# Outlines are drawn, not measured with: what is lost is below this share of a cell.
OUTLINE_DETAIL = 0.02


@dataclass(frozen=True)
class Area:
    """`share`: (row, col), how much of each cell the area covers, 0 to 1; `lon`, `lat`: a point in it, degrees.

    `outline`: a GeoJSON geometry to draw, simplified.
    """

    name: str
    share: np.ndarray
    lon: float
    lat: float
    outline: dict[str, Any]


def city_areas(city: City) -> dict[str, Area]:
    """The areas of the city's file, by name; none without a file. Raises as `read_areas`."""
    return {} if city.areas is None else read_areas(city.areas, city)


def read_areas(file: Path, city: City) -> dict[str, Area]:
    """Read polygons with a property `name` from GeoJSON (or any file geopandas reads), in the file's order.

    Features of the same name are one area, invalid polygons are repaired, what lies outside the city's box is cut off.
    Raises InputError, with file and feature, for a file that cannot be read, a feature without a name or without a
    polygon, and an area that lies outside the box.
    """
    import shapely  # here, because geopandas and shapely are slow to import and few cities have areas

    frame = _read(file)
    if "name" not in frame.columns:
        raise InputError(f"{file}: its features have no property 'name': every area needs one")
    polygons: dict[str, list[Any]] = {}
    for number, (name, shape) in enumerate(zip(frame["name"], frame.geometry, strict=True), 1):
        feature = f"{file}: feature {number}"
        polygons.setdefault(_name(name, feature), []).append(_polygon(shape, feature))
    areas = {}
    for name, parts in polygons.items():
        polygon = shapely.union_all(parts)
        share = _shares(polygon, city)
        if share.max() < NO_SHARE:
            raise InputError(
                f"{file}: area '{name}' lies outside the box of '{city.name}': take it out, or check that its "
                "coordinates are longitude, latitude in degrees"
            )
        point = shapely.point_on_surface(polygon)
        areas[name] = Area(name, share, float(point.x), float(point.y), _outline(polygon, city))
    return areas


def _outline(polygon: Any, city: City) -> dict[str, Any]:
    import shapely

    cell = min((city.east - city.west) / city.cols, (city.north - city.south) / city.rows)
    outline: dict[str, Any] = shapely.geometry.mapping(shapely.simplify(polygon, OUTLINE_DETAIL * cell))
    return outline


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
    share[np.ix_(rows, cols)] = np.where(inside < NO_SHARE, 0, inside.clip(max=1))
    return share


def _name(value: Any, feature: str) -> str:
    """One line of text: names stand in logs and on pages."""
    text = " ".join(str(value).split()) if isinstance(value, str | int | float) and not pd.isna(value) else ""
    if not text or not text.isprintable():
        raise InputError(f"{feature} has no name that can be printed: give it a property 'name'")
    return text


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
        return frame.to_crs(WGS84)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{file}: its coordinate system cannot be brought to longitude and latitude: {error}"
        ) from None
