"""The grid as GeoJSON: one polygon a cell, with the value and the colour that a map gives it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trafficcast.city import City

# Five decimals of a degree are a metre.
DECIMALS = 5


def cell_ring(city: City, row: int, col: int) -> list[list[float]]:
    """A cell's closed outline, [lon, lat] in degrees, from its north-western corner on."""
    height, width = (city.north - city.south) / city.rows, (city.east - city.west) / city.cols
    north, south = (round(city.north - height * edge, DECIMALS) for edge in (row, row + 1))
    west, east = (round(city.west + width * edge, DECIMALS) for edge in (col, col + 1))
    return [[west, north], [west, south], [east, south], [east, north], [west, north]]


def cell_rings(city: City) -> list[list[list[float]]]:
    """All cells' outlines, row after row from the north-western cell on."""
    return [cell_ring(city, row, col) for row in range(city.rows) for col in range(city.cols)]


def cell_at(city: City, lat: float, lon: float) -> tuple[int, int] | None:
    """The (row, col) that holds a place in degrees; None outside the city's box."""
    row = int(np.floor((city.north - lat) / (city.north - city.south) * city.rows))
    col = int(np.floor((lon - city.west) / (city.east - city.west) * city.cols))
    return (row, col) if 0 <= row < city.rows and 0 <= col < city.cols else None


def feature_collection(
    rings: list[list[list[float]]], values: np.ndarray, colours: list[str], digits: int
) -> dict[str, Any]:
    """GeoJSON of the cells.

    Args:
        rings: the cells' outlines (see `cell_rings`), so that they are computed once.
        values: (row, col), vehicles per slot.
        colours: #rrggbbaa, one a cell in the order of `values.ravel()`.
        digits: decimals of the values shown.
    """
    cols = values.shape[1]
    # Adding 0 makes a plain 0 of what would print as -0.0.
    texts = [f"{value:.{digits}f}" for value in (values.round(digits) + 0.0).ravel().tolist()]
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": i,
                "properties": {"row": i // cols, "col": i % cols, "value": text, "fill": colour},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
            for i, (ring, text, colour) in enumerate(zip(rings, texts, colours, strict=True))
        ],
    }
