"""Named areas of a city, such as districts and stadiums: which cells each covers, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.geography.polygons import _WGS84, _areas_by_cell, _cell_edges, _read_polygons, _union

# Outlines are only drawn: they may deviate by this share of a cell.
_OUTLINE_TOLERANCE = 0.02
# A smaller share of a cell comes from a border that is drawn along the cell's edge.
_NO_SHARE = 1e-9


@dataclass(frozen=True)
class Area:
    """A named area on a city's grid.

    Attributes
    ----------
    name
        The area's name, unique in the city.
    share
        (row, col), the share of each cell that the area covers, 0 to 1.
    lon
        Longitude of a point inside the area, degrees.
    lat
        Latitude of this point, degrees.
    outline
        A simplified outline to draw, a GeoJSON geometry.
    """

    name: str
    share: np.ndarray
    lon: float
    lat: float
    outline: dict[str, Any]


def city_areas(city: City) -> dict[str, Area]:
    """Read the named areas of a city from the file that its configuration names.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    dict[str, Area]
        The areas by name, in the file's order; none where the city has no file.

    Raises
    ------
    InputError
        The file cannot be read, a feature has no name or no polygon, or an area lies outside the city's box.
    """
    return {} if city.areas is None else _read_areas(city.areas, city)


def _read_areas(file: Path, city: City) -> dict[str, Area]:
    """Read polygons with a property `name`: features of one name are one area, and the box cuts areas off."""
    import shapely  # here, because shapely is slow to import and few cities have areas

    # A feature that GDAL cannot read has no geometry then, and is refused by its number.
    frame = _read_polygons(file, "areas", _WGS84, on_invalid="ignore")
    if "name" not in frame.columns:
        raise InputError(f"{file}: its features have no property 'name': every area needs one")
    polygons: dict[str, list[Any]] = {}
    for number, (name, shape) in enumerate(zip(frame["name"], frame.geometry, strict=True), 1):
        feature = f"{file}: feature {number}"
        polygons.setdefault(_name(name, feature), []).append(_union([shape], feature))
    lon, lat = _cell_edges(city)
    # Within a cell a degree is equally long everywhere, so that shares in degrees are shares of the ground.
    cells = shapely.area(shapely.box(lon[:-1], lat[1:, None], lon[1:], lat[:-1, None]))
    areas = {}
    for name, parts in polygons.items():
        polygon = shapely.union_all(parts)
        share = (_areas_by_cell(polygon, lon, lat) / cells).clip(max=1)
        share[share < _NO_SHARE] = 0
        if not share.any():
            raise InputError(
                f"{file}: area '{name}' lies outside the box of '{city.name}': remove it, or check that its "
                "coordinates are longitude, latitude in degrees"
            )
        point = shapely.point_on_surface(polygon)
        areas[name] = Area(name, share, float(point.x), float(point.y), _outline(polygon, city))
    return areas


def _outline(polygon: Any, city: City) -> dict[str, Any]:
    """Return a polygon as a GeoJSON geometry, simplified to a small share of a cell."""
    import shapely

    cell = min((city.east - city.west) / city.cols, (city.north - city.south) / city.rows)
    outline: dict[str, Any] = shapely.geometry.mapping(shapely.simplify(polygon, _OUTLINE_TOLERANCE * cell))
    return outline


def _name(value: Any, feature: str) -> str:
    """Return a name as one line of text, as logs and pages show it."""
    text = " ".join(str(value).split()) if isinstance(value, str | int | float) and not pd.isna(value) else ""
    if not text or not text.isprintable():
        raise InputError(f"{feature} has no name that can be printed: give it a property 'name'")
    return text
