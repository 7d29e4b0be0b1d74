"""The grid as GeoJSON (RFC 7946): one polygon a cell, longitude before latitude, outlines counterclockwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from trafficcast.config.city import FLOW_KINDS, City
from trafficcast.geography.cells import cell_ring

# Flows are rounded to a thousandth of a vehicle.
FLOW_DECIMALS = 3


def feature_collection(features: list[dict[str, Any]], **members: Any) -> dict[str, Any]:
    """Return features as the content of a GeoJSON file.

    Parameters
    ----------
    features
        GeoJSON features.
    **members
        What stands beside them.

    Returns
    -------
    dict[str, Any]
        The FeatureCollection.
    """
    return {"type": "FeatureCollection", **members, "features": features}


def forecast_features(city: City, forecast: xr.Dataset, zeros: bool = True) -> list[dict[str, Any]]:
    """Return a forecast as GeoJSON features, one a cell.

    Parameters
    ----------
    city
        The city.
    forecast
        The forecast of one init time, flow(lead_time, flow_kind, row, col) in vehicles per slot.
    zeros
        Whether to include the cells whose flows all round to 0.

    Returns
    -------
    list[dict[str, Any]]
        The features; their ids are row * cols + col. Their properties are row, col and, for each flow kind and lead
        time in minutes, `inflow_0` to `outflow_90` in vehicles per slot.
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
