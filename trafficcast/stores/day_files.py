"""Fast reading of a store's NetCDF-4 files: h5py reads the values, xarray decodes them once for many files.

xarray's own reader looks up every dimension of every variable again and takes several times as long. This reader knows
the files that `DayStore` writes and raises an error for others, which `DayStore` then leaves to xarray.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

_NOT_A_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
# How netCDF-4 keeps dimensions in HDF5 (Unidata, NetCDF-4 file format).
_COORDINATES, _NUMBER = "_Netcdf4Coordinates", "_Netcdf4Dimid"
_INTERNAL = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_NCProperties", _COORDINATES, _NUMBER}


class _DayRun:
    """Files with the same layout, read one after the other, whose values become one dataset along `dimension`.

    The first `file` determines the layout; its coordinates and those of the variables `only` that it has are read.
    Reading raises OSError, ValueError, LookupError, RuntimeError, TypeError or AttributeError where a file is damaged
    or was laid out by another program.
    """

    def __init__(self, file: Path, dimension: str, only: Collection[str] | None = None) -> None:
        self.files = [file]
        self._dimension = dimension
        with h5py.File(file, "r") as opened:
            self._number_of_names = len(opened)
            self._attributes = {name: value for name, value in opened.attrs.items() if name not in _INTERNAL}
            attributes = {name: dict(variable.attrs) for name, variable in opened.items()}
            numbers = {
                int(own[_NUMBER]): name for name, own in attributes.items() if own.get("CLASS") == b"DIMENSION_SCALE"
            }
            self._indexes = set(numbers.values())
            self._coordinates = self._indexes.union(
                *(own.get("coordinates", "").split() for own in attributes.values())
            )
            self._layout = {
                name: (
                    [name] if name in self._indexes else [numbers[i] for i in own[_COORDINATES].tolist()],
                    _plain({key: value for key, value in own.items() if key not in _INTERNAL}),
                )
                for name, own in attributes.items()
                if not bytes(own.get("NAME", b"")).startswith(_NOT_A_VARIABLE)
                and (only is None or name in only or name in self._coordinates)
            }
            self._values = {name: [_values(opened[name])] for name in self._layout}

    def add(self, file: Path) -> bool:
        """Add the values of another file; without doing so return False where its layout is not that of the first.

        As in xarray's concatenation with `override`, attributes, and coordinates that are neither an index nor depend
        on `dimension`, are those of the first file.
        """
        values = {}
        with h5py.File(file, "r") as opened:
            # Every attribute that is read takes about as long as a small variable: only those that matter are compared.
            if len(opened) != self._number_of_names:
                return False
            attributes_there = opened.attrs
            if not all(attributes_there[name] == value for name, value in self._attributes.items()):
                return False
            for name, (dimensions, attributes) in self._layout.items():
                varies = self._dimension in dimensions
                if not varies and name not in self._indexes:
                    continue
                variable, first = opened[name], self._values[name][0]
                units = attributes.get("units", "1")
                if units != "1" and variable.attrs["units"] != units:
                    return False
                own = _values(variable)
                if varies:
                    axis = dimensions.index(self._dimension)
                    if own.dtype != first.dtype or _without(own.shape, axis) != _without(first.shape, axis):
                        return False
                    values[name] = own
                elif not np.array_equal(own, first):
                    return False
        for name, own in values.items():
            self._values[name].append(own)
        self.files.append(file)
        return True

    def dataset(self) -> xr.Dataset:
        """Decode what was read."""
        variables = {}
        for name, (dimensions, attributes) in self._layout.items():
            parts = self._values[name]
            values = parts[0] if len(parts) == 1 else np.concatenate(parts, dimensions.index(self._dimension))
            encoding = {"dtype": str} if values.dtype.kind == "O" else None
            variables[name] = xr.Variable(dimensions, values, attributes, encoding)
        raw = xr.Dataset(variables, attrs=_plain(self._attributes)).set_coords(self._coordinates & variables.keys())
        return xr.decode_cf(raw, decode_timedelta=True)


def _values(variable: h5py.Dataset) -> np.ndarray:
    values: np.ndarray = variable[()]
    return values if values.dtype.kind != "O" else variable.asstr()[()]


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes as they were given to the writer: netCDF-4 keeps a number as an array of one."""
    return {name: value[0] if getattr(value, "shape", ()) == (1,) else value for name, value in attributes.items()}


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
