"""The flows on the maps as files: one dataset of the grid, written as GeoJSON, CSV or NetCDF (PNG: maps/png.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.forecasts.timeline import _ahead, _ForecastSlot, _interval
from trafficcast.config.city import City
from trafficcast.geography.cells import cell_rings
from trafficcast.stores.flows import city_attributes
from trafficcast.stores.forecasts import has_intervals
from trafficcast.stores.geojson import FLOW_DECIMALS, feature_collection

_UNITS = "vehicles per slot"
_US = np.timedelta64(1, "us")


def _forecast_grid(
    city: City,
    kind: str,
    slot: np.datetime64,
    shown: _ForecastSlot | None,
    other: np.ndarray | None,
    what: str = "observed",
) -> xr.Dataset:
    """A slot's forecast and other flows: predicted, `what`, difference (row, col), float64, vehicles per slot.

    Where there are prediction intervals and the kind is not net, lower_80 and upper_80 and so on are their bounds by
    level in percent. `other`: (row, col), the flows that `what` names, observed or typical. Missing values are NaN. The
    attributes hold the slot, and the model and the time of the forecast.
    """
    nothing = np.full((city.rows, city.cols), np.nan)
    predicted = nothing if shown is None else shown.flow(kind)
    came = nothing if other is None else np.asarray(other, np.float64)
    values = {
        "predicted": (predicted, f"predicted {kind}"),
        what: (came, f"{what} {kind}"),
        "difference": (predicted - came, f"predicted less {what}"),
        **_bounds(kind, shown),
    }
    return _grid(city, kind, values, {"slot": slot}, _origin(city, shown))


def _moments_grid(
    city: City,
    kind: str,
    what: str,
    first: tuple[np.datetime64, np.ndarray | None],
    second: tuple[np.datetime64, np.ndarray | None],
) -> xr.Dataset:
    """Two moments, (slot start, frame): first, second and difference (row, col), float64, vehicles per slot.

    `what`: words for both, "observed" or "predicted 30 min ahead". Missing values are NaN.
    """
    nothing = np.full((city.rows, city.cols), np.nan)
    one, two = (nothing if frame is None else np.asarray(frame, np.float64) for _, frame in (first, second))
    values = {
        "first": (one, f"{what} {kind} of the slot"),
        "second": (two, f"{what} {kind} of the other slot"),
        "difference": (one - two, "first less second"),
    }
    return _grid(city, kind, values, {"slot": first[0], "other": second[0]}, {"what": what})


def _file_name(grid: xr.Dataset, ending: str) -> str:
    """Make the file's name of characters that every system accepts.

    'san-francisco_2008-06-05T1830-0700_inflow_30-min-ahead.csv'
    """
    times = [str(grid.attrs[f"{name}_start"]) for name in ("slot", "other") if f"{name}_start" in grid.attrs]
    short = [re.sub(r":(\d\d):\d\d", r"\1", text).replace(":", "") for text in times]
    lead = grid.attrs.get("lead_minutes")
    what = grid.attrs.get("what", "observed" if lead is None else _ahead(lead))
    parts = [str(grid.attrs["city"]), *short, str(grid.attrs["flow_kind"]), str(what)]
    return re.sub(r"[^A-Za-z0-9_+.-]", "-", "_".join(parts)) + f".{ending}"


def _as_geojson(city: City, grid: xr.Dataset) -> bytes:
    """A polygon a cell with its values, rounded as the API's, null where there is none; the attributes beside."""
    columns = {str(name): _numbers(grid[name].values) for name in grid.data_vars}
    features = [
        {
            "type": "Feature",
            "id": i,
            "properties": {
                "row": i // city.cols,
                "col": i % city.cols,
                **{name: values[i] for name, values in columns.items()},
            },
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
        for i, ring in enumerate(cell_rings(city))
    ]
    whole = feature_collection(features, units=_UNITS, **_json_attributes(grid))
    return json.dumps(whole, allow_nan=False, separators=(",", ":")).encode()


def _as_csv(grid: xr.Dataset) -> bytes:
    """A row a cell: row, col, lat and lon of its centre, the slot, the kind, and the values, rounded as the API's."""
    rows, cols = np.indices((grid.sizes["row"], grid.sizes["col"])).reshape(2, -1)
    table = pd.DataFrame({"row": rows, "col": cols, "lat": grid["lat"].values[rows], "lon": grid["lon"].values[cols]})
    for name in ("slot_start", "other_start", "flow_kind"):
        if name in grid.attrs:
            table[name] = grid.attrs[name]
    for name in map(str, grid.data_vars):
        table[name] = grid[name].values.ravel().round(FLOW_DECIMALS) + 0.0
    return table.round({"lat": 7, "lon": 7}).to_csv(index=False).encode()


def _as_netcdf(grid: xr.Dataset) -> bytes:
    """NetCDF-4 with units and attributes."""
    encoding = {name: {"zlib": True, "complevel": 1} for name in grid.data_vars}
    return bytes(grid.to_netcdf(None, engine="h5netcdf", encoding=encoding))


def _grid(
    city: City,
    kind: str,
    values: Mapping[str, tuple[np.ndarray, str]],
    slots: Mapping[str, np.datetime64],
    said: Mapping[str, Any],
) -> xr.Dataset:
    times: dict[str, str] = {}
    for name, start in slots.items():
        times |= {f"{name}_start": city.isoformat(start), f"{name}_end": city.isoformat(start + city.slot)}
    return xr.Dataset(
        {
            name: (("row", "col"), frame, {"units": "1", "long_name": f"{about}, {_UNITS}"})
            for name, (frame, about) in values.items()
        },
        coords={
            "lat": ("row", city.lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("col", city.lon, {"standard_name": "longitude", "units": "degrees_east"}),
        },
        attrs={**city_attributes(city), "flow_kind": kind, **times, **said},
    )


def _bounds(kind: str, shown: _ForecastSlot | None) -> dict[str, tuple[np.ndarray, str]]:
    if shown is None or not has_intervals(shown.forecast):
        return {}
    found = {}
    for level in shown.forecast["level"].values:
        for name, frames in zip(("lower", "upper"), _interval(shown.forecast, kind, level) or (), strict=False):
            about = f"{name} bound of the {100 * level:g} % prediction interval"
            found[f"{name}_{100 * level:g}"] = frames[shown.lead], about
    return found


def _origin(city: City, shown: _ForecastSlot | None) -> dict[str, Any]:
    """The attributes of a forecast: its model, init time and lead time, and how it was made."""
    if shown is None:
        return {}
    made = shown.forecast
    return {
        "model_version": shown.version,
        "init_time": city.isoformat(made["init_time"].values.ravel()[0]),
        "lead_minutes": shown.lead * city.slot_minutes,
        "created": city.isoformat(made["created"].values.ravel()[0]),
        **{name: str(made[name].values) for name in ("forecaster", "state", "reason")},
        "hindcast": int(made["hindcast"].values),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in (values.ravel().round(FLOW_DECIMALS) + 0.0).tolist()]


def _json_attributes(grid: xr.Dataset) -> dict[str, Any]:
    """The attributes that are not NetCDF's own, as JSON takes them."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in grid.attrs.items()}
    return {str(name): value for name, value in plain.items() if name != "Conventions"}
