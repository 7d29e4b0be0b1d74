"""The cells of the grid on a map: which one holds a place, and what each says."""

from __future__ import annotations

import numpy as np

from trafficcast.areas import Area
from trafficcast.city import City


def cell_at(city: City, lat: float, lon: float) -> tuple[int, int] | None:
    """The (row, col) that holds a place in degrees; None outside the city's box."""
    row = int(np.floor((city.north - lat) / (city.north - city.south) * city.rows))
    col = int(np.floor((lon - city.west) / (city.east - city.west) * city.cols))
    return (row, col) if 0 <= row < city.rows and 0 <= col < city.cols else None


def cell_places(city: City, areas: dict[str, Area]) -> list[str]:
    """What each cell is called, row after row: the area that covers most of it, its row and column."""
    places = [f"row {row}, column {col}" for row in range(city.rows) for col in range(city.cols)]
    if not areas:
        return places
    shares = np.stack([area.share.ravel() for area in areas.values()])
    names = list(areas)
    return [
        f"{names[most]}, {place}" if share > 0 else place
        for place, most, share in zip(places, shares.argmax(axis=0).tolist(), shares.max(axis=0).tolist(), strict=True)
    ]


def cell_words(places: list[str], values: np.ndarray, digits: int) -> list[str]:
    """What a map says of each cell: its place and its value, (row, col), with so many decimals."""
    # Adding 0 makes a plain 0 of what would print as -0.0.
    rounded = (values.round(digits) + 0.0).ravel().tolist()
    return [f"{place}: {value:.{digits}f}" for place, value in zip(places, rounded, strict=True)]
