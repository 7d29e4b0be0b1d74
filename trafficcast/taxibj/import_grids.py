"""Import of TaxiBJ: a released data set becomes a flow store, weather, holidays and ready windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.files import writer_lock
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.progress import track
from trafficcast.stores.city_stores import CityStores
from trafficcast.taxibj.files import (
    _Grids,
    _is_weather,
    _read_grids,
    _read_holidays_file,
    _read_weather_file,
    _write_holidays,
    _write_weather,
    _write_windows,
)

_HDF5 = (".h5", ".hdf5")


def import_taxibj(path: Path, stores: CityStores) -> dict[str, Any]:
    """Import a file of TaxiBJ, or all files of a folder.

    They are grids, `BJ_Meteorology.h5`, `BJ_Holiday.txt` and OpenSTL's `dataset.npz`. A file of grids replaces all that
    the flow store holds of its period, from its first slot to its last; other times stay.

    Parameters
    ----------
    path
        A file or a folder, which is searched with all folders below it.
    stores
        The city and its stores.

    Returns
    -------
    dict[str, Any]
        What was imported: files of grids with their slots, and numbers of weather slots, holidays and windows.

    Raises
    ------
    InputError
        A file cannot be read, or contradicts another one or the city; or the city's flows are counted from records.
        No store is changed then.
    """
    city, data = stores.city, stores.data
    hdf5, holiday_files, npz = _find(path)
    weather_files = [file for file in hdf5 if _is_weather(file)]
    for files in (weather_files, holiday_files, npz):
        if len(files) > 1:
            raise InputError(f"{files[0]} and {files[1]} hold the same: import one of them")
    grid_files = [file for file in hdf5 if file not in weather_files]
    grids = [_read_grids(file, city) for file in track(grid_files, "reading grids", len(grid_files))]
    grids.sort(key=lambda one: one.flows["time"].values[0])
    for one, next_one in zip(grids, grids[1:], strict=False):
        if next_one.flows["time"].values[0] <= one.flows["time"].values[-1]:
            raise InputError(f"{one.file} and {next_one.file} overlap in time: import one of them")
    weather = [_read_weather_file(file, city) for file in weather_files]
    holidays = [_read_holidays_file(file) for file in holiday_files]
    store = stores.flows
    with writer_lock(stores.folder):
        if RecordStore(stores.records).exists():
            raise InputError(
                f"'{city.name}' has flows counted from GPS records, which imported grids must not mix with: "
                "import into another city of the configuration"
            )
        _, damaged = store.check()
        if damaged:
            raise damaged[0]
        windows = [_write_windows(file, city, data) for file in npz]
        for one in track(grids, "writing flows", len(grids)):
            store.write(one.flows)
        for found in weather:
            _write_weather(data, found, city)
        for days in holidays:
            _write_holidays(data, days, city)
    return {
        "city": city.name,
        "grids": [_summary(city, one) for one in grids],
        "negative_values_clipped": sum(one.negative for one in grids),
        "dropped_by_clock": sum(one.skipped for one in grids),
        "weather_slots": sum(found.sizes["time"] for found in weather),
        "holidays": sum(map(len, holidays)),
        "windows": windows[0] if windows else None,
    }


def _summary(city: City, grids: _Grids) -> dict[str, Any]:
    """Return the period of a file of grids, and how many of its slots are observed."""
    time, observed = grids.flows["time"].values, grids.flows["observed"].values
    return {
        "file": grids.file.name,
        "start": city.isoformat(time[0]),
        "end": city.isoformat(time[-1] + city.slot),
        "observed": int(observed.sum()),
        "missing": int((~observed).sum()),
    }


def _find(path: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Find the HDF5 files, lists of holidays and .npz files at a path or anywhere below it."""
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    below = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = below if path.is_dir() else [path]
    holidays = [file for file in files if file.suffix.lower() == ".txt" and "holiday" in file.name.lower()]
    npz = [file for file in files if file.suffix.lower() == ".npz"]
    hdf5 = [file for file in files if file.suffix.lower() in _HDF5]
    if not (hdf5 or holidays or npz):
        raise InputError(f"{path} holds no file of TaxiBJ: neither .h5 nor .npz nor a list of holidays")
    return hdf5, holidays, npz
