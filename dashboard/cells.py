"""The grid as GeoJSON: one polygon a cell, with the value and the colour that a map gives it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trafficcast.city import City
from trafficcast.geojson import cell_ring, cell_rings

__all__ = ["cell_at", "cell_ring", "cell_rings", "feature_collection"]


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
