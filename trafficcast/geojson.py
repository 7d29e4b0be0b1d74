"""The grid as GeoJSON (RFC 7946): one polygon a cell, longitude before latitude, outlines counterclockwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from trafficcast.city import FLOW_KINDS, City

# Five decimals of a degree are a metre.
DECIMALS = 5
# Of flows: a thousandth of a vehicle.
FLOW_DECIMALS = 3


def cell_ring(city: City, row: int, col: int) -> list[list[float]]:
    """A cell's closed outline, [lon, lat] in degrees, from its north-western corner on."""
    height, width = (city.north - city.south) / city.rows, (city.east - city.west) / city.cols
    north, south = (round(city.north - height * edge, DECIMALS) for edge in (row, row + 1))
    west, east = (round(city.west + width * edge, DECIMALS) for edge in (col, col + 1))
    return [[west, north], [west, south], [east, south], [east, north], [west, north]]


def cell_rings(city: City) -> list[list[list[float]]]:
    """All cells' outlines, row after row from the north-western cell on."""
    return [cell_ring(city, row, col) for row in range(city.rows) for col in range(city.cols)]


def forecast_features(city: City, forecast: xr.Dataset, zeros: bool = True) -> list[dict[str, Any]]:
    """A feature for each cell of one init time's forecast, flow(lead_time, flow_kind, row, col).

    Its properties are row, col and, for each kind and lead in minutes, `inflow_0` ... `outflow_90` in vehicles per
    slot; its id is row * cols + col. Without `zeros` the cells that round to 0 everywhere are left out.
    """
    leads = (forecast["lead_time"].values // np.timedelta64(1, "m")).tolist()
    flow = forecast["flow"].sel(flow_kind=list(FLOW_KINDS)).transpose("row", "col", "flow_kind", "lead_time").values
    cells = flow.astype(np.float64).round(FLOW_DECIMALS).reshape(city.rows * city.cols, -1)
    names = [f"{kind}_{lead}" for kind in FLOW_KINDS for lead in leads]
    return [
        {
            "type": "Feature",
            "id": i,
            "properties": {"row": i // city.cols, "col": i % city.cols, **dict(zip(names, values, strict=True))},
            "geometry": {"type": "Polygon", "coordinates": [cell_ring(city, i // city.cols, i % city.cols)]},
        }
        for i, values in enumerate(cells.tolist())
        if zeros or any(values)
    ]
