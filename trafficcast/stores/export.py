"""Writing a city's flows to one file for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.files import atomic


def export(city: City, flows: xr.Dataset, out: Path) -> int:
    """Write flows as one CF NetCDF file, atomically.

    The file holds every slot from the first to the last; slots that were not stored are zero and not observed.

    Parameters
    ----------
    city
        The city.
    flows
        Flows (see `flows_dataset`).
    out
        The file to write.

    Returns
    -------
    int
        The number of slots written.

    Raises
    ------
    InputError
        `out` cannot be a file.
    """
    check_out(out)
    encoding: dict[str, dict[str, object]] = {
        "time": {"units": "seconds since 1970-01-01", "dtype": "int64"},
        "flow": {"zlib": True, "complevel": 4},
    }
    flows = _every_slot(city, flows)
    with atomic(out) as temporary:
        flows.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
    return flows.sizes["time"]


def check_out(out: Path) -> None:
    """Check the path of a file that a person wants to have written.

    Parameters
    ----------
    out
        The path.

    Raises
    ------
    InputError
        The path is a folder, or its folder does not exist.
    """
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent} to write {out.name} to")
    if out.is_dir():
        raise InputError(f"{out} is a folder: name a file to write")


def _every_slot(city: City, flows: xr.Dataset) -> xr.Dataset:
    """Return flows with all slots from the first to the last; those that were not stored have no record."""
    time = flows["time"].values
    whole = np.arange(time[0], time[-1] + city.slot, city.slot)
    nothing = {"flow": 0, "observed": False, "vehicles": 0, "coverage": 0.0, "late_flow": 0}
    if "late_flow" in flows:  # NaN on days of an earlier version
        flows = flows.assign(late_flow=flows["late_flow"].fillna(0).astype(np.int32))
    return flows if len(whole) == len(time) else flows.reindex(time=whole, fill_value=nothing)
