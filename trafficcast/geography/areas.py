"""Named areas of a city, such as districts and stadiums: which cells each covers, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.geography.polygons import _NO_SHARE, _polygon, _read, _shares

# Outlines are drawn, not measured with: what is lost is below this share of a cell.
_OUTLINE_DETAIL = 0.02


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
    return {} if city.areas is None else _read_areas(city.areas, city)


def _read_areas(file: Path, city: City) -> dict[str, Area]:
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
        if share.max() < _NO_SHARE:
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
    outline: dict[str, Any] = shapely.geometry.mapping(shapely.simplify(polygon, _OUTLINE_DETAIL * cell))
    return outline


def _name(value: Any, feature: str) -> str:
    """One line of text: names stand in logs and on pages."""
    text = " ".join(str(value).split()) if isinstance(value, str | int | float) and not pd.isna(value) else ""
    if not text or not text.isprintable():
        raise InputError(f"{feature} has no name that can be printed: give it a property 'name'")
    return text
