"""Days of scores read quickly: a year of them at once is what a page may ask for."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import xarray as xr

from trafficcast.stores import DayStore

SECONDS, MINUTES = "seconds since 1970-01-01", "minutes"
VARIABLES = {
    "rmse": ("init_time", "forecaster", "lead_time"),
    "mae": ("init_time", "forecaster", "lead_time"),
    "inside": ("init_time", "level", "lead_time"),
    "width": ("init_time", "level", "lead_time"),
}


def read_score_day(store: DayStore, day: np.datetime64) -> xr.Dataset | None:
    """A local day's file of a score store (see `score_dataset`), its values as `DayStore.read` gives them.

    A file that is not laid out as the store writes them, damaged ones among them, is left to the store, which raises
    InputError where it cannot read it either. It takes some 30 ms a file, this 2.
    """
    try:
        with h5py.File(store.root / f"{day}.nc", "r") as file:
            found = _scores(file, store.city.grid())
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError):
        found = None
    return store.read_day(day) if found is None else found


def _scores(file: h5py.File, grid: dict[str, float | int | str]) -> xr.Dataset | None:
    """The scores of a file as the store writes it; None where it is another one."""
    attributes = {name: _plain(value) for name, value in file.attrs.items() if not name.startswith("_")}
    if _plain(file["init_time"].attrs["units"]) != SECONDS or _plain(file["lead_time"].attrs["units"]) != MINUTES:
        return None
    if any(attributes.get(name) != value for name, value in grid.items()):
        return None
    coordinates: dict[str, Any] = {
        "init_time": file["init_time"][()].astype("datetime64[s]").astype("datetime64[us]"),
        "forecaster": [str(name) for name in file["forecaster"].asstr()[()]],
        "lead_time": file["lead_time"][()].astype("timedelta64[m]").astype("timedelta64[us]"),
    }
    if "level" in file:
        coordinates["level"] = file["level"][()]
    values = {name: (dimensions, file[name][()]) for name, dimensions in VARIABLES.items() if name in file}
    return xr.Dataset(values, coordinates, attributes)


def _plain(value: Any) -> Any:
    """An attribute as Python's own number or text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    return value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value
