"""Cached reads of the named areas and of the names of cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from dashboard.reads.cached import cached
from dashboard.reads.stamps import file_stamp
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.geography.areas import Area, city_areas
from trafficcast.geography.cells import cell_name


@cached(stamp=lambda city: file_stamp(city.areas), entries=16)
def areas_of(city: City) -> dict[str, Area]:
    """Read the city's named areas.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    dict[str, Area]
        The areas by name.

    Raises
    ------
    InputError
        Their file cannot be read.
    """
    return city_areas(city)


@cached(stamp=lambda city: file_stamp(city.areas), entries=16)
def outlines_and_cells(city: City) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """Return what all maps of a city show: the outlines of its areas and the names of its cells.

    Maps go on without areas where their file cannot be read; hot spots and alerts say what is wrong with it.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    tuple[tuple[dict[str, Any], ...], list[str]]
        GeoJSON geometries; the name of each cell, row after row: the area that covers most of it, its row and column.
    """
    try:
        areas = areas_of(city)  # geopandas is slow: the file is read once for maps and hot spots
    except InputError:
        areas = {}
    return tuple(area.outline for area in areas.values()), _cell_names(city, areas)


def _cell_names(city: City, areas: dict[str, Area]) -> list[str]:
    names = [cell_name(row, col) for row in range(city.rows) for col in range(city.cols)]
    if not areas:
        return names
    shares = np.stack([area.share.ravel() for area in areas.values()])
    largest = zip(names, shares.argmax(axis=0).tolist(), shares.max(axis=0).tolist(), strict=True)
    known = list(areas)
    return [f"{known[number]}, {name}" if share > 0 else name for name, number, share in largest]
