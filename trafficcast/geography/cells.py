"""Cells of the grid: which cell a point lies in, distances, outlines."""

from __future__ import annotations

import numpy as np
from numba import njit

from trafficcast.config.city import OUTSIDE, City

EARTH_RADIUS_M = 6371008.8
# Five decimals of a degree are a metre.
_DECIMALS = 5


@njit(cache=True, nogil=True)
def cell_of(lon: float, lat: float, box: np.ndarray, rows: int, cols: int) -> int:
    """The cell's number row * cols + col, or OUTSIDE. `box` is west, east, south, north in degrees."""
    col = np.floor((lon - box[0]) / (box[1] - box[0]) * cols)
    row = np.floor((box[3] - lat) / (box[3] - box[2]) * rows)
    if 0 <= row < rows and 0 <= col < cols:
        return int(row) * cols + int(col)
    return OUTSIDE


@njit(cache=True, nogil=True)
def cells_of(lon, lat, box, rows, cols):  # type: ignore[no-untyped-def]
    cells = np.empty(len(lon), np.int64)
    for i in range(len(lon)):
        cells[i] = cell_of(lon[i], lat[i], box, rows, cols)
    return cells


@njit(cache=True, nogil=True)
def haversine_m(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    """Great-circle distance in metres between two places in degrees."""
    phi1, phi2 = np.radians(lat1), np.radians(lat2)
    half_dphi, half_dlambda = (phi2 - phi1) / 2, np.radians(lon2 - lon1) / 2
    h = np.sin(half_dphi) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin(half_dlambda) ** 2
    return 2 * EARTH_RADIUS_M * np.arcsin(min(1.0, np.sqrt(h)))


def cell_ring(city: City, row: int, col: int) -> list[list[float]]:
    """A cell's closed outline, [lon, lat] in degrees, from its north-western corner on."""
    height, width = (city.north - city.south) / city.rows, (city.east - city.west) / city.cols
    north, south = (round(city.north - height * edge, _DECIMALS) for edge in (row, row + 1))
    west, east = (round(city.west + width * edge, _DECIMALS) for edge in (col, col + 1))
    return [[west, north], [west, south], [east, south], [east, north], [west, north]]


def cell_rings(city: City) -> list[list[list[float]]]:
    """All cells' outlines, row after row from the north-western cell on."""
    return [cell_ring(city, row, col) for row in range(city.rows) for col in range(city.cols)]


def cell_at(city: City, lat: float, lon: float) -> tuple[int, int] | None:
    """The (row, col) that holds a place in degrees; None outside the city's box."""
    row = int(np.floor((city.north - lat) / (city.north - city.south) * city.rows))
    col = int(np.floor((lon - city.west) / (city.east - city.west) * city.cols))
    return (row, col) if 0 <= row < city.rows and 0 <= col < city.cols else None
