"""Cells of the grid: which cell a point lies in, distances, outlines."""

from __future__ import annotations

import numpy as np
from numba import njit

from trafficcast.config.city import OUTSIDE, City

EARTH_RADIUS_M = 6371008.8
# Five decimals of a degree are a metre.
_DECIMALS = 5


def box_of(city: City) -> np.ndarray:
    """Return a city's box as the array that compiled functions take.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    np.ndarray
        (4): west, east, south and north in degrees.
    """
    return np.array([city.west, city.east, city.south, city.north])


@njit(cache=True, nogil=True)
def cell_of(lon: float, lat: float, box: np.ndarray, rows: int, cols: int) -> int:
    """Find the cell that a point lies in.

    Parameters
    ----------
    lon
        Longitude in degrees.
    lat
        Latitude in degrees.
    box
        (4): west, east, south and north in degrees (see `box_of`).
    rows
        Rows of the grid; row 0 is the northern one.
    cols
        Columns of the grid; column 0 is the western one.

    Returns
    -------
    int
        The cell's number, row * cols + col; OUTSIDE (-1) of a point outside the box.
    """
    col = np.floor((lon - box[0]) / (box[1] - box[0]) * cols)
    row = np.floor((box[3] - lat) / (box[3] - box[2]) * rows)
    if 0 <= row < rows and 0 <= col < cols:
        return int(row) * cols + int(col)
    return OUTSIDE


@njit(cache=True, nogil=True)
def cells_of(lon: np.ndarray, lat: np.ndarray, box: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Find the cells that points lie in.

    Parameters
    ----------
    lon
        (n), longitudes in degrees.
    lat
        (n), latitudes in degrees.
    box
        (4): west, east, south and north in degrees (see `box_of`).
    rows
        Rows of the grid; row 0 is the northern one.
    cols
        Columns of the grid; column 0 is the western one.

    Returns
    -------
    np.ndarray
        (n) int64, cells by number, row * cols + col; OUTSIDE (-1) of points outside the box.
    """
    cells = np.empty(len(lon), np.int64)
    for i in range(len(lon)):
        cells[i] = cell_of(lon[i], lat[i], box, rows, cols)
    return cells


def cell_at(city: City, lat: float, lon: float) -> tuple[int, int] | None:
    """Find the row and the column of the cell that a point lies in.

    Parameters
    ----------
    city
        The city.
    lat
        Latitude in degrees.
    lon
        Longitude in degrees.

    Returns
    -------
    tuple[int, int] | None
        Row and column; None of a point outside the city's box.
    """
    cell = cell_of(lon, lat, box_of(city), city.rows, city.cols)
    return None if cell == OUTSIDE else divmod(cell, city.cols)


@njit(cache=True, nogil=True)
def haversine_m(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    """Return the great-circle distance of two points.

    Parameters
    ----------
    lon1
        Longitude of the first point in degrees.
    lat1
        Latitude of the first point in degrees.
    lon2
        Longitude of the second point in degrees.
    lat2
        Latitude of the second point in degrees.

    Returns
    -------
    float
        The distance in metres.

    Notes
    -----
    The haversine formula, on a sphere of the earth's mean radius: R. W. Sinnott, "Virtues of the Haversine",
    Sky and Telescope 68 (1984), 159.
    """
    phi1, phi2 = np.radians(lat1), np.radians(lat2)
    half_dphi, half_dlambda = (phi2 - phi1) / 2, np.radians(lon2 - lon1) / 2
    h = np.sin(half_dphi) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin(half_dlambda) ** 2
    return 2 * EARTH_RADIUS_M * np.arcsin(min(1.0, np.sqrt(h)))


def cell_ring(city: City, row: int, col: int) -> list[list[float]]:
    """Return a cell's outline as GeoJSON writes it.

    Parameters
    ----------
    city
        The city.
    row
        Row of the cell, 0 being the northern one.
    col
        Column of the cell, 0 being the western one.

    Returns
    -------
    list[list[float]]
        The five corners of the closed ring, [lon, lat] in degrees, counterclockwise from the north-western one.
    """
    height, width = (city.north - city.south) / city.rows, (city.east - city.west) / city.cols
    north, south = (round(city.north - height * edge, _DECIMALS) for edge in (row, row + 1))
    west, east = (round(city.west + width * edge, _DECIMALS) for edge in (col, col + 1))
    return [[west, north], [west, south], [east, south], [east, north], [west, north]]


def cell_rings(city: City) -> list[list[list[float]]]:
    """Return the outlines of all cells.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    list[list[list[float]]]
        A ring for each cell (see `cell_ring`), row after row from the north-western cell on.
    """
    return [cell_ring(city, row, col) for row in range(city.rows) for col in range(city.cols)]


def cell_name(row: int, col: int) -> str:
    """Write the name of a cell, such as 'row 12, column 20'.

    Parameters
    ----------
    row
        Its row, 0 in the north.
    col
        Its column, 0 in the west.

    Returns
    -------
    str
        The name.
    """
    return f"row {row}, column {col}"
