"""The latest forecast of a city for other systems: data/<city>/latest.nc, latest.csv and latest.geojson."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from trafficcast.config.city import FLOW_KINDS, City
from trafficcast.files import atomic, write_text
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.forecasts import has_intervals
from trafficcast.stores.geojson import FLOW_DECIMALS, forecast_features


def write_latest(stores: CityStores, forecast: xr.Dataset) -> None:
    """Write one forecast (see `forecast_dataset`) as the latest, each file whole or not at all.

    The CSV has a row for each slot and cell, with the bounds of prediction intervals where there are any; the GeoJSON a
    feature for each cell, its flows by slot, in vehicles per slot. The last file written is the NetCDF one.
    """
    city, folder, made = stores.city, stores.folder, forecast.isel(init_time=0)
    with atomic(folder / "latest.csv") as temporary:
        _table(city, made).to_csv(temporary, index=False, lineterminator="\n", float_format=f"%.{FLOW_DECIMALS}f")
    write_text(folder / "latest.geojson", json.dumps(_collection(city, forecast), allow_nan=False) + "\n")
    times = {name: {"units": "seconds since 1970-01-01", "dtype": "int64"} for name in _of_kind(forecast, "M")}
    leads = {name: {"units": "minutes", "dtype": "int64"} for name in _of_kind(forecast, "m")}
    with atomic(folder / "latest.nc") as temporary:
        forecast.to_netcdf(temporary, engine="h5netcdf", encoding=times | leads)


def _of_kind(dataset: xr.Dataset, kind: str) -> list[str]:
    return [str(name) for name, variable in dataset.variables.items() if variable.dtype.kind == kind]


def _table(city: City, made: xr.Dataset) -> pd.DataFrame:
    slots = [city.isoformat(time) for time in made["valid_time"].values]
    shape = (len(slots), city.rows, city.cols)
    rows, cols = np.indices(shape[1:])
    columns: dict[str, Any] = {
        "slot_start": np.repeat(slots, rows.size),
        "lead_minutes": np.repeat(made["lead_time"].values // np.timedelta64(1, "m"), rows.size),
        "row": np.tile(rows.ravel(), len(slots)),
        "col": np.tile(cols.ravel(), len(slots)),
        "lat": np.broadcast_to(city.lat[:, None], shape).ravel(),
        "lon": np.broadcast_to(city.lon, shape).ravel(),
    }
    for number, kind in enumerate(FLOW_KINDS):
        columns[kind] = made["flow"].values[:, number].ravel()
        if has_intervals(made):
            for i, level in enumerate(made["level"].values):
                for bound in ("lower", "upper"):
                    columns[f"{kind}_{bound}_{100 * level:g}"] = made[bound].values[i, :, number].ravel()
    table = pd.DataFrame(columns)
    return table.assign(lat=table["lat"].map("{:.6f}".format), lon=table["lon"].map("{:.6f}".format))


def _collection(city: City, forecast: xr.Dataset) -> dict[str, Any]:
    return {
        "type": "FeatureCollection",
        "city": city.name,
        "model": forecast.attrs["model_version"],
        "forecaster": str(forecast["forecaster"].values[0]),
        "state": str(forecast["state"].values[0]),
        "reason": str(forecast["reason"].values[0]),
        "created": city.isoformat(forecast["created"].values[0]),
        "slot_starts": [city.isoformat(time) for time in forecast["valid_time"].values[0]],
        "slot_minutes": city.slot_minutes,
        "units": "vehicles per slot",
        "features": forecast_features(city, forecast.isel(init_time=0)),
    }
