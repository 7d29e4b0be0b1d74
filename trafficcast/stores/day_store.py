"""Stores of gridded data: NetCDF-4 files, one for each local day, each replaced as a whole.

    data/<city>/flows/2008-06-04.nc                 flow(time, flow_kind, row, col), observed, vehicles, coverage,
                                                    late_flow(time, age, flow_kind, row, col)
    data/<city>/forecasts/<model>/2008-06-04.nc     flow(init_time, lead_time, flow_kind, row, col), valid_time,
                                                    lower and upper(init_time, level, lead_time, ...)
    data/<city>/scores/<model>/2008-06-04.nc        rmse(init_time, forecaster, lead_time), mae,
                                                    inside and width(init_time, level, lead_time)

One class serves the three stores; `dimension` is the time that decides to which day a value belongs. Forecasts of a
model without prediction intervals have no `level` and no variable that depends on it; where such forecasts stand beside
others that have intervals, their bounds are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from trafficcast.config.city import City
from trafficcast.errors import DamagedFile, InputError
from trafficcast.files import atomic, remove_temporaries, set_aside, write_text, writer_lock
from trafficcast.stores.day_files import _DayRun

_COMPRESSION = {"zlib": True, "complevel": 1}
# Clocks set back over midnight (St. John's until 2011) interleave the slots of two local days.
_INTERLEAVED = np.timedelta64(1, "m") * np.arange(181)
# What HDF5 and its readers raise for files that are damaged or were laid out by another program; ImportError comes from
# xarray, which asks for cftime where a time is out of range.
_UNREADABLE = (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ImportError)
# In the folder of a store that was pruned: the first local day that stays.
_KEPT_FROM = "kept-from.txt"
_MICROSECOND = np.timedelta64(1, "us")


@dataclass(frozen=True)
class DayStore:
    """Datasets along one time dimension (naive UTC), kept as a file for each local day of the city.

    Attributes
    ----------
    root
        The folder of the files.
    city
        The city, whose time zone decides the local day of a time.
    dimension
        The time dimension.
    """

    root: Path
    city: City
    dimension: str

    def days(self) -> list[np.datetime64]:
        """List the local days that have a file, in order.

        Returns
        -------
        list[np.datetime64]
            The days, datetime64[D].
        """
        return sorted(np.datetime64(file.stem, "D") for file in self.root.glob("????-??-??.nc"))

    def read(
        self,
        start: np.datetime64 | None = None,
        end: np.datetime64 | None = None,
        only: Collection[str] | None = None,
        damaged: list[DamagedFile] | None = None,
    ) -> xr.Dataset | None:
        """Read the values of a period, in the order of time.

        Parameters
        ----------
        start
            Start of the period, naive UTC, inclusive; None is the first stored time.
        end
            End of the period, naive UTC, exclusive; None is after the last stored time.
        only
            The variables to read beside all coordinates; None is all variables.
        damaged
            A list to which damaged files are added, whose days are then left out; with None the first one is raised.

        Returns
        -------
        xr.Dataset | None
            The dataset of the period; None where nothing is stored in it.

        Raises
        ------
        DamagedFile
            A file cannot be read.
        InputError
            A file was made for another grid than the city's.
        """
        days = self.days()
        if start is not None:
            first = self.city.local_days(start + _INTERLEAVED).min()
            days = [day for day in days if day >= first]
        if end is not None:
            last = self.city.local_days(end - _MICROSECOND - _INTERLEAVED).max()
            days = [day for day in days if day <= last]
        parts = self._load(days, only, damaged)
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

    def read_day(
        self,
        day: np.datetime64,
        only: Collection[str] | None = None,
        damaged: list[DamagedFile] | None = None,
    ) -> xr.Dataset | None:
        """Read the values of a local day of the city.

        Parameters
        ----------
        day
            The local day, datetime64[D].
        only
            The variables to read beside all coordinates; None is all variables.
        damaged
            As `read` takes it.

        Returns
        -------
        xr.Dataset | None
            The dataset of the day; None where nothing is stored of it.

        Raises
        ------
        InputError
            As `read` does.
        """
        return self.read(self.city.midnight(day), self.city.midnight(day + np.timedelta64(1, "D")), only, damaged)

    def check(self, on_read: Callable[[Path], None] = lambda file: None) -> tuple[np.ndarray, list[DamagedFile]]:
        """Read all files, one by one, to find those that are damaged.

        Parameters
        ----------
        on_read
            Called with each file when it has been read.

        Returns
        -------
        tuple[np.ndarray, list[DamagedFile]]
            The stored times, (time), naive UTC, in order; and an error for each damaged file.

        Raises
        ------
        InputError
            A file was made for another grid.
        """
        damaged: list[DamagedFile] = []
        times = [np.empty(0, "datetime64[us]")]
        for day in self.days():
            times += [dataset[self.dimension].values for dataset in self._load([day], None, damaged)]
            on_read(self.file(day))
        return np.unique(np.concatenate(times)), damaged

    def write(self, dataset: xr.Dataset, whole_days: bool = False) -> None:
        """Add a dataset; where the store already holds values of the same time, the new ones replace them.

        A day whose content does not change keeps its file.

        Parameters
        ----------
        dataset
            The dataset, along the store's dimension.
        whole_days
            Whether the dataset has all that its days shall hold, so that their other values are removed.

        Raises
        ------
        InputError
            The file of one of the days cannot be read or was made for another grid.
        """
        local_days = self.city.local_days(dataset[self.dimension].values)
        with writer_lock(self.root):
            remove_temporaries(self.root)
            for day in np.unique(local_days):
                part = dataset.isel({self.dimension: local_days == day})
                old = self._load([day])[0] if self.file(day).exists() else None
                new = part if old is None or whole_days else self._merge(old, part)
                if old is None or not new.identical(old):
                    self._write_day(day, new)

    def remove(self, day: np.datetime64) -> None:
        """Remove a local day, where the store has it.

        Parameters
        ----------
        day
            The local day.
        """
        if self.root.is_dir():
            with writer_lock(self.root):
                self.file(day).unlink(missing_ok=True)

    def set_aside(self, day: np.datetime64) -> Path | None:
        """Set the file of a local day aside if it cannot be read.

        Parameters
        ----------
        day
            The local day.

        Returns
        -------
        Path | None
            Where the damaged file lies now; None if there is none, or somebody has mended it meanwhile.
        """
        if not self.root.is_dir():
            return None
        with writer_lock(self.root):
            try:
                if self.file(day).exists():
                    self._load([day])
            except DamagedFile:
                return set_aside(self.file(day))
        return None

    def remove_after(self, time: np.datetime64) -> np.ndarray:
        """Remove the values of later times. A damaged file of a later day is set aside.

        Parameters
        ----------
        time
            The last time that stays, naive UTC.

        Returns
        -------
        np.ndarray
            The times that were removed, (time), naive UTC.
        """
        removed = [np.empty(0, "datetime64[us]")]
        if not self.root.is_dir():
            return removed[0]
        first = self.city.local_days(time + _INTERLEAVED).min()
        with writer_lock(self.root):
            for day in [day for day in self.days() if day >= first]:
                try:
                    stored = self._load([day])[0]
                except DamagedFile:
                    set_aside(self.file(day))
                    continue
                later = stored[self.dimension].values > time
                if later.all():
                    self.file(day).unlink()
                elif later.any():
                    self._write_day(day, stored.isel({self.dimension: ~later}))
                removed.append(stored[self.dimension].values[later])
        return np.concatenate(removed)

    def kept_from(self) -> np.datetime64 | None:
        """Return the first local day that pruning has left: older days are not missing.

        Returns
        -------
        np.datetime64 | None
            The day; None if the store was never pruned.
        """
        try:
            return np.datetime64((self.root / _KEPT_FROM).read_text(encoding="utf-8").strip(), "D")
        except (OSError, ValueError):
            return None

    def prune(self, before: np.datetime64) -> list[np.datetime64]:
        """Remove old days.

        Parameters
        ----------
        before
            The first local day that stays.

        Returns
        -------
        list[np.datetime64]
            The days that were removed.
        """
        with writer_lock(self.root):
            gone = [day for day in self.days() if day < before]
            for day in gone:
                self.file(day).unlink()
            write_text(self.root / _KEPT_FROM, f"{before}\n")
        return gone

    def _merge(self, old: xr.Dataset, new: xr.Dataset) -> xr.Dataset:
        kept = old.isel({self.dimension: ~np.isin(old[self.dimension].values, new[self.dimension].values)})
        if kept.sizes[self.dimension] == 0:
            return new
        return self._concatenate([kept, new]).sortby(self.dimension)

    def _concatenate(self, parts: list[xr.Dataset]) -> xr.Dataset:
        """Concatenate datasets along the time.

        Coordinates that do not depend on the time (cells, flow kinds) are the same in every part. One part may have
        more forecasters or levels than another, whose values are then NaN.
        """
        return xr.concat(
            parts,
            self.dimension,
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="outer",
            combine_attrs="override",
        )

    def file(self, day: np.datetime64) -> Path:
        """Return the file of a local day.

        Parameters
        ----------
        day
            The local day.

        Returns
        -------
        Path
            The file, which need not exist.
        """
        return self.root / f"{day}.nc"

    def _load(
        self,
        days: list[np.datetime64],
        only: Collection[str] | None = None,
        damaged: list[DamagedFile] | None = None,
    ) -> list[xr.Dataset]:
        """Read days into datasets, one for each run of files with the same layout; others are left to xarray."""
        runs: list[_DayRun] = []
        others: list[Path] = []
        for file in map(self.file, days):
            try:
                if not (runs and runs[-1].add(file)):
                    runs.append(_DayRun(file, self.dimension, only))
            except _UNREADABLE:
                others.append(file)
        datasets = []
        for run in runs:
            try:
                datasets.append((run.files[0], run.dataset()))
            except _UNREADABLE:
                others += run.files
        for file in others:
            try:
                datasets.append((file, self._read_by_xarray(file, only)))
            except DamagedFile as error:
                if damaged is None:
                    raise
                damaged.append(error)
        return [self._checked(file, dataset) for file, dataset in datasets]

    def _read_by_xarray(self, file: Path, only: Collection[str] | None) -> xr.Dataset:
        """Read any NetCDF-4 file, whatever wrote it, or raise DamagedFile."""
        try:
            with xr.open_dataset(file, engine="h5netcdf", decode_timedelta=True) as dataset:
                left_out = [] if only is None else dataset.data_vars.keys() - only
                return dataset.drop_vars(left_out).load()
        except _UNREADABLE as error:
            raise DamagedFile(file, error, self.city.name) from None

    def _checked(self, file: Path, dataset: xr.Dataset) -> xr.Dataset:
        """Refuse a file of another grid; give times the resolution that writers use, so that equal values are equal."""
        for key, value in self.city.grid().items():
            if dataset.attrs.get(key) != value:
                raise InputError(
                    f"{file} was made with {key} = {dataset.attrs.get(key)}, the configuration of "
                    f"'{self.city.name}' says {value}: use another city name, or set [paths] data elsewhere"
                )
        for name, variable in dataset.variables.items():
            variable.encoding = {}
            if variable.dtype.kind in "mM":
                dataset[name] = variable.astype(f"{variable.dtype.kind}8[us]")
        return dataset

    def _write_day(self, day: np.datetime64, dataset: xr.Dataset) -> None:
        encoding: dict[str, dict[str, object]] = {
            str(name): dict(_COMPRESSION) for name, variable in dataset.data_vars.items() if variable.ndim > 1
        }
        for name, variable in dataset.variables.items():
            if variable.ndim and variable.dtype.kind not in "OUSmM":
                encoding.setdefault(str(name), {})["fletcher32"] = True
            if variable.dtype.kind == "M":
                encoding[str(name)] = {"units": "seconds since 1970-01-01", "dtype": "int64"}
            elif variable.dtype.kind == "m":
                encoding[str(name)] = {"units": "minutes", "dtype": "int64"}
        with atomic(self.file(day)) as temporary:
            # Made in memory: where a write fails, as on a full disk, HDF5 would end the process.
            temporary.write_bytes(dataset.to_netcdf(None, engine="h5netcdf", encoding=encoding))


def last_stored(
    store: DayStore, until: np.datetime64 | None = None, damaged: list[DamagedFile] | None = None
) -> np.datetime64 | None:
    """Find the newest time of a store.

    Parameters
    ----------
    store
        The store.
    until
        Later times are left out, naive UTC; None leaves out none.
    damaged
        A list to which damaged files are added, which are then left out; with None the first one is raised.

    Returns
    -------
    np.datetime64 | None
        The newest time, naive UTC; None where the store has none.
    """
    newest: np.datetime64 | None = None
    days = 0
    for day in reversed(store.days()):
        dataset = store.read_day(day, [], damaged)
        times = np.empty(0, "datetime64[us]") if dataset is None else dataset[store.dimension].values
        times = times if until is None else times[times <= until]
        if len(times):
            newest, days = times.max() if newest is None else max(newest, times.max()), days + 1
        if days == 2:  # clocks set back over midnight may interleave two days
            break
    return newest
