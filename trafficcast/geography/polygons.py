"""Polygons: read from files, repaired, and intersected with the cells of a grid."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from trafficcast.config.city import City
from trafficcast.errors import InputError

_WGS84 = "EPSG:4326"


def _read_polygons(file: Path, kind: str, crs: str, on_invalid: str = "raise") -> Any:
    """Read the rows of a file of "areas" or "zones", brought to a coordinate system, as a GeoDataFrame.

    The file is a shapefile, zipped or not, GeoJSON, GeoPackage or any other that geopandas reads.
    """
    import geopandas  # here, because geopandas is slow to import and few cities have areas or zones

    if not file.is_file():
        raise InputError(f"there is no file {file} of {kind}: correct its path in the configuration")
    source = _inside_zip(file, kind) if file.suffix.lower() == ".zip" else file
    try:
        frame = geopandas.read_file(source, on_invalid=on_invalid)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot read {kind} from {file}: {error}") from None
    if not isinstance(frame, geopandas.GeoDataFrame) or not len(frame):
        raise InputError(f"{file} holds no polygons: give a shapefile, GeoJSON or GeoPackage of the {kind}")
    if frame.crs is None:
        raise InputError(
            f"{file} does not name its coordinate system: put the shapefile's .prj beside it or use GeoJSON"
        )
    try:
        return frame.to_crs(crs)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{file}: its coordinate system cannot be converted to {crs}: {error}") from None


def _inside_zip(file: Path, kind: str) -> str:
    """Return GDAL's name of the one file of polygons in a zip, in whatever folder of it."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read {kind} from {file}: {error}") from None
    names = [name for name in names if name.lower().endswith((".shp", ".geojson", ".json", ".gpkg"))]
    if len(names) != 1:
        raise InputError(
            f"{file} must hold one shapefile, GeoJSON or GeoPackage; it holds {', '.join(names) or 'none'}"
        )
    return f"/vsizip/{file.resolve()}/{names[0]}"


def _union(shapes: Any, name: str) -> Any:
    """Return one polygon of one or several shapes, invalid ones repaired; errors call it by its name."""
    import shapely

    try:
        polygon = shapely.union_all(shapely.make_valid(shapes, method="structure", keep_collapsed=False))
        area = shapely.area(polygon)
    except shapely.errors.GEOSException as error:
        raise InputError(f"{name} has no valid polygon: {error}") from None
    if not 0 < area < np.inf:
        raise InputError(f"{name} has no polygon with an area: correct it or remove it from the file")
    return polygon


def _areas_by_cell(polygon: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the area (row, col) of a polygon in each cell.

    `x` (col + 1) are the cells' edges from west to east, `y` (row + 1) those from north to south, in the polygon's
    coordinates.
    """
    import shapely

    areas = np.zeros((len(y) - 1, len(x) - 1))
    west, south, east, north = polygon.bounds
    rows = np.flatnonzero((y[:-1] > south) & (y[1:] < north))
    cols = np.flatnonzero((x[1:] > west) & (x[:-1] < east))
    # By rows first, so that no cell cuts all of the polygon.
    strips = shapely.intersection(polygon, shapely.box(x[0], y[rows + 1], x[-1], y[rows]))
    boxes = shapely.box(x[cols], y[rows + 1][:, None], x[cols + 1], y[rows][:, None])  # (row, col)
    areas[np.ix_(rows, cols)] = shapely.area(shapely.intersection(strips[:, None], boxes))
    return areas


def _cell_edges(city: City) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells' edges in degrees: longitudes (col + 1) from the west, latitudes (row + 1) from the north."""
    return np.linspace(city.west, city.east, city.cols + 1), np.linspace(city.north, city.south, city.rows + 1)
