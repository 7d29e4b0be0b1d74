"""Stores of gridded data: NetCDF-4 files, one a local day, each replaced whole.

    data/<city>/flows/2008-06-04.nc                 flow(time, flow_kind, row, col), observed, vehicles, coverage
    data/<city>/forecasts/<model>/2008-06-04.nc     flow(init_time, lead_time, flow_kind, row, col), valid_time,
                                                    lower and upper(init_time, level, lead_time, ...)
    data/<city>/scores/<model>/2008-06-04.nc        rmse(init_time, forecaster, lead_time), mae,
                                                    inside and width(init_time, level, lead_time)

The three are one class; `dimension` is the time that says which day a value belongs to. A model without prediction
intervals has no `level` and nothing that depends on it; beside forecasts with them such values are not a number.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.files import atomic, remove_temporaries, writer_lock
from trafficcast.stores.day_files import _read_day_file

_COMPRESSION = {"zlib": True, "complevel": 1}
# Clocks set back over midnight (St. John's until 2011) interleave the slots of two local days.
_INTERLEAVED = np.timedelta64(1, "m") * np.arange(181)
# What HDF5 and its readers raise for files that are damaged or laid out otherwise.
_UNREADABLE = (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError)
_MICROSECOND = np.timedelta64(1, "us")


class DamagedFile(InputError):
    """A file of a store that cannot be read; `file` is the one."""

    def __init__(self, file: Path, error: Exception) -> None:
        super().__init__(f"cannot read {file}: {error}; move it away and ingest its records again")
        self.file = file


@dataclass(frozen=True)
class DayStore:
    """Datasets along one time dimension (naive UTC), kept as a file for each local day of the city."""

    root: Path
    city: City
    dimension: str

    def days(self) -> list[np.datetime64]:
        """The local days that have a file, in order."""
        return sorted(np.datetime64(file.stem, "D") for file in self.root.glob("????-??-??.nc"))

    def read(
        self,
        start: np.datetime64 | None = None,
        end: np.datetime64 | None = None,
        only: Collection[str] | None = None,
    ) -> xr.Dataset | None:
        """What lies in [start, end), in the order of time; None where there is nothing. `only`: these variables.

        Raises DamagedFile where one cannot be read, InputError where one was made for another grid than the city's.
        """
        days = self.days()
        if start is not None:
            first = self.city.local_days(start + _INTERLEAVED).min()
            days = [day for day in days if day >= first]
        if end is not None:
            last = self.city.local_days(end - _MICROSECOND - _INTERLEAVED).max()
            days = [day for day in days if day <= last]
        parts = [self._load(day, only) for day in days]
        if not parts:
            return None
        whole = self._concatenate(parts).sortby(self.dimension)
        time = whole[self.dimension].values
        keep = np.ones(len(time), bool)
        if start is not None:
            keep &= time >= start
        if end is not None:
            keep &= time < end
        return whole.isel({self.dimension: keep}) if keep.any() else None

    def read_day(self, day: np.datetime64, only: Collection[str] | None = None) -> xr.Dataset | None:
        """What lies in a local day of the city (see `read`)."""
        return self.read(self.city.midnight(day), self.city.midnight(day + np.timedelta64(1, "D")), only)

    def check(self) -> None:
        """Raise InputError where a file cannot be read or was made for another grid."""
        for day in self.days():
            self._load(day)

    def write(self, dataset: xr.Dataset) -> None:
        """Add a dataset; where the store holds a value for the same time already, the new one takes its place.

        A day whose content does not change keeps its file.
        """
        local_days = self.city.local_days(dataset[self.dimension].values)
        with writer_lock(self.root):
            remove_temporaries(self.root)
            for day in np.unique(local_days):
                part = dataset.isel({self.dimension: local_days == day})
                old = self._load(day) if self._file(day).exists() else None
                new = part if old is None else self._merge(old, part)
                if old is None or not new.identical(old):
                    self._write_day(day, new)

    def prune(self, before: np.datetime64) -> list[np.datetime64]:
        """Remove the days before this local one, and return them."""
        with writer_lock(self.root):
            gone = [day for day in self.days() if day < before]
            for day in gone:
                self._file(day).unlink()
        return gone

    def _merge(self, old: xr.Dataset, new: xr.Dataset) -> xr.Dataset:
        kept = old.isel({self.dimension: ~np.isin(old[self.dimension].values, new[self.dimension].values)})
        if kept.sizes[self.dimension] == 0:
            return new
        return self._concatenate([kept, new]).sortby(self.dimension)

    def _concatenate(self, parts: list[xr.Dataset]) -> xr.Dataset:
        # What does not depend on the time (cells, flow kinds) is the same in every part; of forecasters and levels one
        # part may have more than another, whose values are then not a number.
        return xr.concat(
            parts,
            self.dimension,
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="outer",
            combine_attrs="override",
        )

    def _file(self, day: np.datetime64) -> Path:
        return self.root / f"{day}.nc"

    def _load(self, day: np.datetime64, only: Collection[str] | None = None) -> xr.Dataset:
        file = self._file(day)
        try:
            loaded = _read_day_file(file, only)
        except _UNREADABLE:  # another program's, or damaged
            loaded = self._load_slowly(file, only)
        for key, value in self.city.grid().items():
            if loaded.attrs.get(key) != value:
                raise InputError(
                    f"{file} was made with {key} = {loaded.attrs.get(key)}, the configuration of "
                    f"'{self.city.name}' says {value}: use another city name, or set [paths] data elsewhere"
                )
        return _normalised(loaded)

    def _load_slowly(self, file: Path, only: Collection[str] | None) -> xr.Dataset:
        """As xarray reads any NetCDF-4 file. Raises DamagedFile where it cannot."""
        try:
            with xr.open_dataset(file, engine="h5netcdf", decode_timedelta=True) as dataset:
                left_out = [] if only is None else dataset.data_vars.keys() - only
                return dataset.drop_vars(left_out).load()
        except (*_UNREADABLE, ImportError) as error:
            raise DamagedFile(file, error) from None

    def _write_day(self, day: np.datetime64, dataset: xr.Dataset) -> None:
        encoding: dict[str, dict[str, object]] = {
            str(name): dict(_COMPRESSION) for name, variable in dataset.data_vars.items() if variable.ndim > 1
        }
        for name, variable in dataset.variables.items():
            if variable.dtype.kind == "M":
                encoding[str(name)] = {"units": "seconds since 1970-01-01", "dtype": "int64"}
            elif variable.dtype.kind == "m":
                encoding[str(name)] = {"units": "minutes", "dtype": "int64"}
        with atomic(self._file(day)) as temporary:
            dataset.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def _normalised(dataset: xr.Dataset) -> xr.Dataset:
    """What was read, with the resolution of times and the string type that writers use, so that equal is equal."""
    for variable in dataset.variables.values():
        variable.encoding = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "mM":
            dataset[name] = variable.astype(f"{variable.dtype.kind}8[us]")
    return dataset


def last_stored(store: DayStore) -> np.datetime64 | None:
    """The newest time of a store, naive UTC; None where it is empty."""
    newest: np.datetime64 | None = None
    for day in store.days()[-2:]:  # clocks set back over midnight may interleave two days
        dataset = store.read_day(day, [])
        if dataset is not None:
            times = dataset[store.dimension].values
            newest = times.max() if newest is None else max(newest, times.max())
    return newest
