"""Writing a city's grids for others: one CF NetCDF file, or the layout of the official TaxiBJ files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.files import atomic
from trafficcast.taxibj.files import write_grids

_FORMATS = ("netcdf", "taxibj")


def export(city: City, flows: xr.Dataset, export_format: str, out: Path) -> int:
    """Write flows (see `flows_dataset`) to `out`, atomically, and return the number of slots written.

    `netcdf`: every slot from the first to the last, with `observed`, `vehicles` and `coverage`. `taxibj`: observed
    slots only, `data` (T, 2, rows, cols), inflow then outflow, and `date`, local `YYYYMMDDss` with ss from 01. Raises
    InputError for another format, and for `taxibj` where midnight is no slot edge.
    """
    if export_format not in _FORMATS:
        raise InputError(f"unknown format '{export_format}'; known are: {', '.join(_FORMATS)}")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent} to write {out.name} to")
    if out.is_dir():
        raise InputError(f"{out} is a folder: name a file to write")
    if export_format == "taxibj":
        write_grids(out, city, flows)
        return int(flows["observed"].sum())
    encoding: dict[str, dict[str, object]] = {
        "time": {"units": "seconds since 1970-01-01", "dtype": "int64"},
        "flow": {"zlib": True, "complevel": 4},
    }
    flows = _every_slot(city, flows)
    with atomic(out) as temporary:
        flows.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
    return flows.sizes["time"]


def _every_slot(city: City, flows: xr.Dataset) -> xr.Dataset:
    """Flows with all slots from the first to the last; one that was not stored has no record."""
    time = flows["time"].values
    whole = np.arange(time[0], time[-1] + city.slot, city.slot)
    nothing = {"flow": 0, "observed": False, "vehicles": 0, "coverage": 0.0}
    return flows if len(whole) == len(time) else flows.reindex(time=whole, fill_value=nothing)
