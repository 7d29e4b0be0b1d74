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
from trafficcast.stores.geojson import FLOW_DECIMALS, feature_collection, forecast_features


def write_latest(stores: CityStores, forecast: xr.Dataset) -> None:
    """Write a forecast as the city's latest forecast, each file whole or not at all.

    The CSV file has a row for each slot and cell, with the bounds of prediction intervals if the forecast has them. The
    GeoJSON file has a feature for each cell, with its flows by slot. The NetCDF file is written last.

    Parameters
    ----------
    stores
        The city and its stores.
    forecast
        Forecast of one init time, which is a dimension of it (see `forecast_dataset`), vehicles per slot.
    """
    folder = stores.folder
    with atomic(folder / "latest.csv") as temporary:
        temporary.write_text(_csv(stores.city, forecast), encoding="utf-8")
    write_text(folder / "latest.geojson", _geojson(stores.city, forecast))
    times = {name: {"units": "seconds since 1970-01-01", "dtype": "int64"} for name in _of_kind(forecast, "M")}
    leads = {name: {"units": "minutes", "dtype": "int64"} for name in _of_kind(forecast, "m")}
    with atomic(folder / "latest.nc") as temporary:
        # Made in memory, as in the stores of days.
        temporary.write_bytes(forecast.to_netcdf(None, engine="h5netcdf", encoding=times | leads))


def wrong_latest(stores: CityStores, forecast: xr.Dataset) -> str:
    """Say what is wrong with the latest files, if anything.

    Parameters
    ----------
    stores
        The city and its stores.
    forecast
        The forecast that they should hold, as `write_latest` takes it.

    Returns
    -------
    str
        That they cannot be read, or hold other values; empty where they are right.
    """
    try:
        with xr.open_dataset(stores.folder / "latest.nc", engine="h5netcdf", decode_timedelta=True) as latest:
            pairs = [(value.values, forecast[name].values) for name, value in latest.variables.items()]
        same = "flow" in latest and all(_are_equal(*pair) for pair in pairs)
        for suffix, text in (("csv", _csv(stores.city, forecast)), ("geojson", _geojson(stores.city, forecast))):
            same = same and (stores.folder / f"latest.{suffix}").read_bytes() == text.encode()
        return "" if same else "do not hold the newest forecast"
    except (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError) as error:
        return f"cannot be read: {error}"


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays hold equal values; a value that is not a number is equal to another one."""
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _csv(city: City, forecast: xr.Dataset) -> str:
    """Return the content of the CSV file."""
    table = _table(city, forecast.isel(init_time=0))
    text: str = table.to_csv(index=False, lineterminator="\n", float_format=f"%.{FLOW_DECIMALS}f")
    return text


def _geojson(city: City, forecast: xr.Dataset) -> str:
    """Return the content of the GeoJSON file."""
    return json.dumps(_collection(city, forecast), allow_nan=False) + "\n"


def _of_kind(dataset: xr.Dataset, kind: str) -> list[str]:
    """Return the names of the variables and coordinates of a kind of NumPy data type, such as M for times."""
    return [str(name) for name, variable in dataset.variables.items() if variable.dtype.kind == kind]


def _table(city: City, at_init: xr.Dataset) -> pd.DataFrame:
    """Return the rows of the CSV file."""
    slots = [city.isoformat(time) for time in at_init["valid_time"].values]
    shape = (len(slots), city.rows, city.cols)
    rows, cols = np.indices(shape[1:])
    columns: dict[str, Any] = {
        "slot_start": np.repeat(slots, rows.size),
        "lead_minutes": np.repeat(at_init["lead_time"].values // np.timedelta64(1, "m"), rows.size),
        "row": np.tile(rows.ravel(), len(slots)),
        "col": np.tile(cols.ravel(), len(slots)),
        "lat": np.broadcast_to(city.lat[:, None], shape).ravel(),
        "lon": np.broadcast_to(city.lon, shape).ravel(),
    }
    for number, kind in enumerate(FLOW_KINDS):
        columns[kind] = at_init["flow"].values[:, number].ravel()
        if has_intervals(at_init):
            for i, level in enumerate(at_init["level"].values):
                for bound in ("lower", "upper"):
                    columns[f"{kind}_{bound}_{100 * level:g}"] = at_init[bound].values[i, :, number].ravel()
    table = pd.DataFrame(columns)
    return table.assign(lat=table["lat"].map("{:.6f}".format), lon=table["lon"].map("{:.6f}".format))


def _collection(city: City, forecast: xr.Dataset) -> dict[str, Any]:
    """Return the content of the GeoJSON file."""
    return feature_collection(
        forecast_features(city, forecast.isel(init_time=0)),
        city=city.name,
        model=forecast.attrs["model_version"],
        forecaster=str(forecast["forecaster"].values[0]),
        state=str(forecast["state"].values[0]),
        reason=str(forecast["reason"].values[0]),
        created=city.isoformat(forecast["created"].values[0]),
        slot_starts=[city.isoformat(time) for time in forecast["valid_time"].values[0]],
        slot_minutes=city.slot_minutes,
        units="vehicles per slot",
    )
