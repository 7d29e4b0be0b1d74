"""Zones of trips, such as those of NYC TLC: the cells each covers, and counts spread over these in whole vehicles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from trafficcast.config.city import OUTSIDE, City
from trafficcast.errors import InputError
from trafficcast.geography.polygons import _WGS84, _areas_by_cell, _cell_edges, _read_polygons, _union

# Cylindrical equal area: areas are true, and cells, which lie between meridians and parallels, stay rectangles.
_EQUAL_AREA = "EPSG:6933"
# The projection's rounding errors are about 1e-12 of a zone. A smaller share comes from a border that is drawn along a
# cell's edge. Quotas (count x share) are rounded to these decimals, so that shares that are equal on the map tie here.
_NO_SHARE = 1e-12
QUOTA_DECIMALS = 9


@dataclass(frozen=True)
class Zones:
    """Zones of trips, and the cells that each covers.

    Zone i covers cells[starts[i]:starts[i + 1]]. The part that its shares lack of 1 lies outside the city's box.

    Attributes
    ----------
    ids
        (zone), the zones' ids, rising.
    starts
        (zone + 1), positions in `cells` and `shares`.
    cells
        Numbers of the covered cells, row * cols + col, rising within a zone.
    shares
        The share of the zone's area that lies in each of `cells`.
    """

    ids: np.ndarray
    starts: np.ndarray
    cells: np.ndarray
    shares: np.ndarray


def position(zone: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Find the positions of zone ids in a list of ids.

    Parameters
    ----------
    zone
        (n), zone ids.
    ids
        (zone), the known ids, rising.

    Returns
    -------
    np.ndarray
        (n), positions in `ids`; OUTSIDE (-1) for an id that is not among them.
    """
    found = np.minimum(np.searchsorted(ids, zone), len(ids) - 1)
    return np.where(ids[found] == zone, found, OUTSIDE)


def _read_zones(path: Path, id_column: str, city: City) -> Zones:
    """Read the polygons of a file of zones, and find the cells that each covers (see `zones_of`).

    Rows with the same id are one zone; invalid polygons are repaired. The result has all zones of the file, also those
    outside the box, which cover no cell.
    """
    frame = _read_polygons(path, "zones", _EQUAL_AREA)
    if id_column not in frame.columns:
        names = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name)
        raise InputError(f"{path} has no column '{id_column}' of zone ids; its columns are: {names or 'none'}")
    row_ids = _whole_numbers(frame[id_column], path)
    shapes = frame.geometry.to_numpy()
    ids = np.unique(row_ids)
    x, y = _projected_edges(city)
    cells, shares = [], []
    for zone_id in ids:
        polygon = _union(shapes[row_ids == zone_id], f"{path}: zone {zone_id}")
        share = _areas_by_cell(polygon, x, y).ravel() / polygon.area
        cells.append(np.flatnonzero(share > _NO_SHARE))
        shares.append(share[cells[-1]])
    if not any(map(len, cells)):
        raise InputError(
            f"none of the {len(ids)} zones of {path} touches the box of '{city.name}': "
            "check west, east, south and north, and the file's coordinate system"
        )
    starts = np.cumsum([0, *map(len, cells)])
    return Zones(ids, starts, np.concatenate(cells), np.concatenate(shares))


def zones_of(city: City) -> Zones | None:
    """Read the zones that a city's feed names.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    Zones | None
        All zones of the file, also those outside the box, which cover no cell; None where the feed names no file.

    Raises
    ------
    InputError
        The file cannot be read, or has no such column or no coordinate system; an id is not a whole number; a zone has
        no area; or no zone touches the city's box.
    """
    return None if city.feed.zones is None else _read_zones(city.feed.zones, city.feed.zone_id, city)


def spread(counts: np.ndarray, zones: Zones, rows: int, cols: int) -> np.ndarray:
    """Spread the counts of zones over the cells that each zone covers, in whole vehicles.

    Parameters
    ----------
    counts
        (slot, flow_kind, zone), vehicles per slot.
    zones
        The zones.
    rows
        Rows of the grid.
    cols
        Columns of the grid.

    Returns
    -------
    np.ndarray
        (slot, flow_kind, row, col) int32, vehicles per slot.

    Notes
    -----
    The method of the largest remainder: every cell, and all outside the box together as one more party, gets the whole
    part of count times its share of the zone's area. The rest of the count goes, one each, to the largest remainders,
    equal ones by row, then by column, outside last. So the parts add up to the count; the part of outside is dropped.
    """
    slots, kinds, _ = counts.shape
    flow = np.zeros((slots * kinds, rows * cols), np.int32)
    for i in range(len(zones.ids)):
        covered = slice(zones.starts[i], zones.starts[i + 1])
        given = np.flatnonzero(counts[:, :, i])
        if len(given) and covered.start < covered.stop:
            # Counts are small and repeat: each distinct one is divided once.
            distinct, which = np.unique(counts[:, :, i].ravel()[given], return_inverse=True)
            parts = _largest_remainder(distinct, zones.shares[covered])
            flow[np.ix_(given, zones.cells[covered])] += parts[which]
    return flow.reshape(slots, kinds, rows, cols)


def counts_inside(counts: np.ndarray, zones: Zones) -> np.ndarray:
    """Add up what `spread` gives to the cells of the box.

    Parameters
    ----------
    counts
        (slot, flow_kind, zone), vehicles per slot.
    zones
        The zones.

    Returns
    -------
    np.ndarray
        (slot, flow_kind) int64, vehicles per slot.
    """
    inside = np.zeros(counts.shape[:2], np.int64)
    for i in range(len(zones.ids)):
        shares = zones.shares[zones.starts[i] : zones.starts[i + 1]]
        distinct, which = np.unique(counts[:, :, i], return_inverse=True)
        inside += _largest_remainder(distinct, shares).sum(axis=1, dtype=np.int64)[which].reshape(inside.shape)
    return inside


def _largest_remainder(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Divide counts (n) by shares (cell) into whole parts (n, cell); the part of outside is left out."""
    outside = max(0.0, 1.0 - shares.sum())
    quotas = np.round(counts[:, None] * np.append(shares, outside), QUOTA_DECIMALS)  # (n, cell + 1)
    parts = np.floor(quotas)
    left = counts - parts.sum(axis=1).astype(np.int64)
    by_remainder = np.argsort(np.round(parts - quotas, QUOTA_DECIMALS), axis=1, kind="stable")
    ranks = np.empty_like(by_remainder)
    np.put_along_axis(ranks, by_remainder, np.arange(quotas.shape[1])[None], axis=1)
    return (parts + (ranks < left[:, None]))[:, :-1].astype(np.int32)


def _projected_edges(city: City) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells' edges in metres: x (col + 1) from west to east, y (row + 1) from north to south."""
    import geopandas

    lon, lat = _cell_edges(city)
    x = geopandas.GeoSeries.from_xy(lon, np.full(len(lon), city.south), crs=_WGS84).to_crs(_EQUAL_AREA).x
    y = geopandas.GeoSeries.from_xy(np.full(len(lat), city.west), lat, crs=_WGS84).to_crs(_EQUAL_AREA).y
    return x.to_numpy(), y.to_numpy()


def _whole_numbers(column: pd.Series, path: Path) -> np.ndarray:
    """Return zone ids as int64, also where the file keeps them as text or floats."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~((np.abs(numbers) < 2**53) & (numbers == np.floor(numbers)))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"{path}: '{column.iloc[row]}' in column '{column.name}', row {row + 1}, is not an integer")
    return numbers.astype(np.int64)
