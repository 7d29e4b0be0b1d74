"""A store's NetCDF-4 file, read by h5py and decoded by xarray.

xarray's own reader looks every dimension of every variable up again and again; this takes a third to a half of its
time. It knows files as `DayStore` writes them; others are left to xarray.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
import xarray as xr

_NOT_A_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
# How netCDF-4 keeps dimensions in HDF5 (Unidata, NetCDF-4 file format).
_COORDINATES, _NUMBER = "_Netcdf4Coordinates", "_Netcdf4Dimid"
_INTERNAL = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_NCProperties", _COORDINATES, _NUMBER}


def _read_day_file(file: Path, only: Collection[str] | None = None) -> xr.Dataset:
    """A file's dataset in memory, what it has of `only` and all coordinates.

    Raises OSError, ValueError, LookupError, RuntimeError, TypeError or AttributeError for a file that is damaged or
    laid out otherwise.
    """
    with h5py.File(file, "r") as opened:
        attributes = {name: dict(variable.attrs) for name, variable in opened.items()}
        dimensions = {
            int(own[_NUMBER]): name for name, own in attributes.items() if own.get("CLASS") == b"DIMENSION_SCALE"
        }
        coordinates = set(dimensions.values())
        for own in attributes.values():
            coordinates.update(own.get("coordinates", "").split())
        variables = {
            name: _variable(
                opened[name],
                [name] if name in dimensions.values() else [dimensions[i] for i in own[_COORDINATES].tolist()],
                _plain(own),
            )
            for name, own in attributes.items()
            if not bytes(own.get("NAME", b"")).startswith(_NOT_A_VARIABLE)
            and (only is None or name in only or name in coordinates)
        }
        raw = xr.Dataset(variables, attrs=_plain(dict(opened.attrs)))
    return xr.decode_cf(raw.set_coords(coordinates & variables.keys()), decode_timedelta=True)


def _variable(dataset: h5py.Dataset, dimensions: list[str], attributes: dict[str, Any]) -> xr.Variable:
    if h5py.check_string_dtype(dataset.dtype):
        return xr.Variable(dimensions, dataset.asstr()[()], attributes, {"dtype": str})
    return xr.Variable(dimensions, dataset[()], attributes)


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as they were given: netCDF-4 keeps a number as an array of one."""
    given = {name: value for name, value in attributes.items() if name not in _INTERNAL}
    return {name: value[0] if getattr(value, "shape", ()) == (1,) else value for name, value in given.items()}
