"""Zones of trips, such as NYC TLC's: the cells each covers, and its counts spread over them in whole vehicles."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trafficcast.config.city import OUTSIDE, City
from trafficcast.errors import InputError

_WGS84 = "EPSG:4326"
# Cylindrical equal area: areas are true, and cells, which lie between meridians and parallels, stay rectangles.
_EQUAL_AREA = "EPSG:6933"
# Shares carry the noise of the projection, about 1e-12 of a zone. A smaller one is a border drawn along a cell's edge;
# quotas (count x share) are rounded to these decimals, so that what is equal on the map is a tie here.
_NO_SHARE = 1e-12
QUOTA_DECIMALS = 9


@dataclass(frozen=True)
class Zones:
    """`ids` (zone), rising; zone i covers cells[starts[i]:starts[i + 1]], rising, by these shares of its own area.

    A cell is row * cols + col. What the shares of a zone lack of 1 lies outside the box.
    """

    ids: np.ndarray
    starts: np.ndarray
    cells: np.ndarray
    shares: np.ndarray


def position(zone: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Zone ids -> positions in `ids`, which rise, OUTSIDE (-1) for a zone that is not among them."""
    place = np.minimum(np.searchsorted(ids, zone), len(ids) - 1)
    return np.where(ids[place] == zone, place, OUTSIDE)


def read_zones(path: Path, id_column: str, city: City) -> Zones:
    """Read the zones' polygons: a shapefile, zipped or not, GeoJSON or GeoPackage in any coordinate system.

    Rows with the same id are one zone; invalid polygons are repaired. Raises InputError for a file that cannot be
    read or has no such column or no coordinate system, an id that is no whole number, a zone without area, and where
    no zone touches the city's box.
    """
    import shapely  # here, because geopandas and shapely are slow to import and few cities have zones

    frame = _read(path)
    if id_column not in frame.columns:
        names = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name)
        raise InputError(f"{path} has no column '{id_column}' of zone ids; its columns are: {names or 'none'}")
    row_ids = _whole_numbers(frame[id_column], path)
    try:
        polygons = frame.geometry.to_crs(_EQUAL_AREA).to_numpy()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{path}: its coordinate system cannot be brought to longitude and latitude: {error}"
        ) from None
    polygons = shapely.make_valid(polygons, method="structure", keep_collapsed=False)
    ids = np.unique(row_ids)
    x, y = _cell_edges(city)
    cells, shares = [], []
    for zone_id in ids:
        polygon = shapely.union_all(polygons[row_ids == zone_id])
        area = shapely.area(polygon)
        if not 0 < area < np.inf:
            raise InputError(f"{path}: zone {zone_id} has no polygon with an area: mend it or take its rows out")
        covered, areas = _areas_by_cell(polygon, x, y)
        share = areas / area
        cells.append(covered[share > _NO_SHARE])
        shares.append(share[share > _NO_SHARE])
    if not any(map(len, cells)):
        raise InputError(
            f"none of the {len(ids)} zones of {path} touches the box of '{city.name}': "
            "check west, east, south and north, and the file's coordinate system"
        )
    starts = np.cumsum([0, *map(len, cells)])
    return Zones(ids, starts, np.concatenate(cells), np.concatenate(shares))


def spread(counts: np.ndarray, zones: Zones, rows: int, cols: int) -> np.ndarray:
    """Counts (slot, kind, zone) -> flow (slot, kind, row, col) int32: each zone's count over the cells it covers.

    Largest remainder: every cell, and all outside the box together as one more party, gets the whole part of count
    times its share of the zone's area; what is left of the count goes, one each, to the largest remainders (equal ones
    by row, then column, outside last). The parts add up to the count; that of outside counts nothing.
    """
    slots, kinds, _ = counts.shape
    flow = np.zeros((slots * kinds, rows * cols), np.int32)
    for i in range(len(zones.ids)):
        covered = slice(zones.starts[i], zones.starts[i + 1])
        given = np.flatnonzero(counts[:, :, i])
        if len(given) and covered.start < covered.stop:
            # Counts are small and repeat: share out each one that occurs, once.
            distinct, which = np.unique(counts[:, :, i].ravel()[given], return_inverse=True)
            parts = _largest_remainder(distinct, zones.shares[covered])
            flow[np.ix_(given, zones.cells[covered])] += parts[which]
    return flow.reshape(slots, kinds, rows, cols)


def _largest_remainder(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Counts (n) and shares (cell) -> whole parts (n, cell); the party outside is left out."""
    outside = max(0.0, 1.0 - shares.sum())
    quotas = np.round(counts[:, None] * np.append(shares, outside), QUOTA_DECIMALS)  # (n, cell + 1)
    parts = np.floor(quotas)
    left = counts - parts.sum(axis=1).astype(np.int64)
    by_remainder = np.argsort(np.round(parts - quotas, QUOTA_DECIMALS), axis=1, kind="stable")
    places = np.empty_like(by_remainder)
    np.put_along_axis(places, by_remainder, np.arange(quotas.shape[1])[None], axis=1)
    return (parts + (places < left[:, None]))[:, :-1].astype(np.int32)


def _areas_by_cell(polygon: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells a polygon may touch, rising, and its area in each; by rows first, so that no cell cuts all of it."""
    import shapely

    west, south, east, north = polygon.bounds
    first_col, last_col = np.clip([np.searchsorted(x, west) - 1, np.searchsorted(x, east)], 0, len(x) - 1)
    first_row, last_row = np.clip([np.searchsorted(-y, -north) - 1, np.searchsorted(-y, -south)], 0, len(y) - 1)
    rows, cols = np.arange(first_row, last_row), np.arange(first_col, last_col)
    strips = shapely.intersection(polygon, shapely.box(x[0], y[rows + 1], x[-1], y[rows]))
    boxes = shapely.box(x[cols], y[rows + 1][:, None], x[cols + 1], y[rows][:, None])  # (row, col)
    areas = shapely.area(shapely.intersection(strips[:, None], boxes))
    return (rows[:, None] * (len(x) - 1) + cols).ravel(), areas.ravel()


def _cell_edges(city: City) -> tuple[np.ndarray, np.ndarray]:
    """The cells' edges in metres: x (col + 1) from west to east, y (row + 1) from north to south."""
    import geopandas

    lon = np.linspace(city.west, city.east, city.cols + 1)
    lat = np.linspace(city.north, city.south, city.rows + 1)
    x = geopandas.GeoSeries.from_xy(lon, np.full(len(lon), city.south), crs=_WGS84).to_crs(_EQUAL_AREA).x
    y = geopandas.GeoSeries.from_xy(np.full(len(lat), city.west), lat, crs=_WGS84).to_crs(_EQUAL_AREA).y
    return x.to_numpy(), y.to_numpy()


def _read(path: Path) -> Any:
    """The rows of a file of polygons, with their coordinate system, as a GeoDataFrame."""
    import geopandas

    if not path.exists():
        raise InputError(f"there is no file {path} of the zones' polygons")
    source = _inside_zip(path) if path.suffix.lower() == ".zip" else path
    try:
        frame = geopandas.read_file(source)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot read zones from {path}: {error}") from None
    if not isinstance(frame, geopandas.GeoDataFrame) or not len(frame):
        raise InputError(f"{path} holds no polygons: give a shapefile, GeoJSON or GeoPackage of the zones")
    if frame.crs is None:
        raise InputError(
            f"{path} does not say its coordinate system: lay the shapefile's .prj beside it or use GeoJSON"
        )
    return frame


def _inside_zip(path: Path) -> str:
    """GDAL's name of the one shapefile, GeoJSON or GeoPackage in a zip, in whatever folder of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read zones from {path}: {error}") from None
    names = [name for name in names if name.lower().endswith((".shp", ".geojson", ".json", ".gpkg"))]
    if len(names) != 1:
        raise InputError(
            f"{path} must hold one shapefile, GeoJSON or GeoPackage; it holds {', '.join(names) or 'none'}"
        )
    return f"/vsizip/{path.resolve()}/{names[0]}"


def _whole_numbers(column: pd.Series, path: Path) -> np.ndarray:
    """Zone ids as int64, also where the file keeps them as text or floats."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~((np.abs(numbers) < 2**53) & (numbers == np.floor(numbers)))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"{path}: '{column.iloc[row]}' in column '{column.name}', row {row + 1}, is no whole number")
    return numbers.astype(np.int64)
