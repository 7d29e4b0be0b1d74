"""The files of TaxiBJ: grids and their dates, weather, holidays, and OpenSTL's ready windows.

The formats are those of the data set's README (Zhang, Zheng & Qi, "Deep Spatio-Temporal Residual Networks for Citywide
Crowd Flows Prediction", AAAI 2017). A date is `YYYYMMDDss` in local time; ss is the slot of the day, counted from 01.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from trafficcast.config.city import DAY, FLOW_KINDS, HISTORY, HORIZON, City
from trafficcast.errors import InputError
from trafficcast.files import atomic, write_json
from trafficcast.stores.export import check_out
from trafficcast.stores.flows import flows_dataset

_GRID_KEYS = ("data", "date")
_WEATHER_KEYS = ("date", "Temperature", "WindSpeed", "Weather")
_WEATHER_TYPES = (
    "sunny", "cloudy", "overcast", "rainy", "sprinkle", "moderate rain", "heavy rain", "rainstorm", "thunderstorm",
    "freezing rain", "snowy", "light snow", "moderate snow", "heavy snow", "foggy", "sandstorm", "dusty",
)  # fmt: skip
# Dates beyond these are mistakes. So is a longer period: all slots that are missing in a period are filled in.
_EARLIEST, _LATEST = date(2000, 1, 1), date(2199, 12, 31)
_MAX_PERIOD_DAYS = 5 * 366
# A window of OpenSTL's file has a history and the slots after it.
_WINDOW_LENGTHS = {"X_train": HISTORY, "Y_train": HORIZON, "X_test": HISTORY, "Y_test": HORIZON}
WINDOWS = "windows.h5"
_WINDOWS_AT_ONCE = 256


@dataclass(frozen=True)
class _Grids:
    """One file's flows (see `flows_dataset`): every slot from its first to its last, missing ones not observed.

    `negative` counts values below 0, which were set to 0; `skipped` slots dropped because the clocks skip their time.
    """

    file: Path
    flows: xr.Dataset
    negative: int
    skipped: int


def _dates_of(city: City, times: np.ndarray) -> np.ndarray:
    """Return the dates of slot starts (n), naive UTC, as byte strings YYYYMMDDss; those of a repeated hour come twice.

    Raises InputError where midnight is not the start of a slot.
    """
    local = city.local(times)
    if ((local.hour * 60 + local.minute) % city.slot_minutes != 0).any():
        raise InputError(f"midnight in {city.timezone} is not the start of a slot of {city.slot_minutes} minutes")
    slots = city.slot_of_day(times) + 1
    return np.array([f"{day:%Y%m%d}{slot:02d}".encode() for day, slot in zip(local, slots, strict=True)], "S")


def _times_of(city: City, dates: np.ndarray, source: Path) -> np.ndarray:
    """Return the slot starts (n), naive UTC, of dates YYYYMMDDss in the order of time; NaT where the clocks skip one.

    A date in an hour that the clocks repeat is its first pass, and when it comes again its second. Raises InputError
    for an invalid date, for one that comes twice or out of order, and where midnight is not the start of a slot.
    """
    days = np.unique(np.array([_slot_day(city, label, source) for label in dates.tolist()], "datetime64[D]"))
    around = city.slot * np.arange(-city.slots_per_day, 2 * city.slots_per_day)  # no zone is a day away from UTC
    near = np.unique(days.astype("datetime64[us]")[:, None] + around)
    slots = near[np.isin(city.local_days(near), days)]
    positions = defaultdict(list)
    for position, text in enumerate(_dates_of(city, slots).tolist()):
        positions[text].append(position)
    times = np.full(len(dates), np.datetime64("NaT"), "datetime64[us]")
    last = -1
    for i, text in enumerate(dates.tolist()):
        if text in positions:
            later = [position for position in positions[text] if position > last]
            if not later:
                raise InputError(f"{source}: date {text.decode()} at position {i} comes twice or out of order")
            last = later[0]
            times[i] = slots[last]
    return times


def _read_grids(file: Path, city: City) -> _Grids:
    """Read a file of `data` (T, 2, rows, cols), inflow then outflow, and `date` (T).

    Raises InputError for a damaged or other file, another grid or slot length than the city's, fractions of vehicles,
    and invalid dates (see `_times_of`).
    """
    # With another slot length than the city's the dates would be valid, but mean other times.
    minutes = re.search(r"_T(\d+)_", file.name)
    if minutes and int(minutes[1]) != city.slot_minutes:
        raise InputError(f"{file} has slots of {minutes[1]} minutes, '{city.name}' of {city.slot_minutes}")
    with _open(file, _GRID_KEYS) as hdf5:
        dates = _dates(hdf5, file)
        shape, wanted = hdf5["data"].shape, (len(dates), len(FLOW_KINDS), city.rows, city.cols)
        if shape != wanted:
            raise InputError(
                f"{file} holds grids {_by(shape)}, where {len(dates)} dates and the rows and cols of '{city.name}' "
                f"ask for {_by(wanted)} (time x inflow and outflow x rows x cols)"
            )
        values = hdf5["data"][()]
    times = _times_of(city, dates, file)
    there = np.flatnonzero(~np.isnat(times))
    if not len(there):
        raise InputError(f"{file} holds no slot")
    first, last = times[there[[0, -1]]]
    if last - first > DAY * _MAX_PERIOD_DAYS:
        raise InputError(f"{file} reaches from {first} to {last}, more than {_MAX_PERIOD_DAYS} days: correct its dates")
    if values.dtype.kind not in "iuf" or not ((values == np.floor(values)) & (np.abs(values) < 2**31)).all():
        raise InputError(f"{file}: data must be whole numbers of vehicles per slot")
    values = values[there]
    time = np.arange(first, last + city.slot, city.slot)
    at = ((times[there] - first) // city.slot).astype(np.int64)
    present = np.isin(np.arange(len(time)), at)
    flow = np.zeros((len(time), *shape[1:]), np.int32)
    flow[at] = np.maximum(values, 0)
    flows = flows_dataset(city, time, flow, np.where(present, -1, 0), present)
    flows["observed"].values[:] = present  # also where the city counts every slot of records as observed
    return _Grids(file, flows, int(np.count_nonzero(values < 0)), len(times) - len(there))


def export_taxibj(city: City, flows: xr.Dataset, out: Path) -> int:
    """Write the observed slots of flows in the layout of the official TaxiBJ files, atomically.

    The file holds `data` (T, 2, rows, cols), inflow then outflow, and `date` (T), local `YYYYMMDDss` with ss from 01.

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
        `out` cannot be a file, or midnight is not the start of a slot.
    """
    check_out(out)
    observed = flows.isel(time=flows["observed"].values)
    dates = _dates_of(city, observed["time"].values)
    with atomic(out) as temporary, h5py.File(temporary, "w") as hdf5:
        hdf5.create_dataset("data", data=observed["flow"].values, compression="gzip", compression_opts=1)
        hdf5.create_dataset("date", data=dates)
    return len(dates)


def _is_weather(file: Path) -> bool:
    """Return whether an HDF5 file holds weather, not grids."""
    with _open(file) as hdf5:
        return set(_WEATHER_KEYS) <= set(hdf5)


def _read_weather_file(file: Path, city: City) -> xr.Dataset:
    """Read `BJ_Meteorology.h5`: temperature(time), wind_speed(time), weather(time, weather_type) 0 or 1, naive UTC.

    Slots whose local time the clocks skip are left out. Raises InputError as `_read_grids` does.
    """
    with _open(file, _WEATHER_KEYS) as hdf5:
        dates = _dates(hdf5, file)
        arrays = [np.asarray(hdf5[key][()]) for key in _WEATHER_KEYS[1:]]
    shapes = [(len(dates),), (len(dates),), (len(dates), len(_WEATHER_TYPES))]
    temperature, wind_speed, weather = arrays
    if (
        [array.shape for array in arrays] != shapes
        or any(array.dtype.kind not in "biuf" for array in arrays)
        or not np.isin(weather, (0, 1)).all()
    ):
        raise InputError(
            f"{file}: a Temperature, a WindSpeed and a one-hot Weather of {len(_WEATHER_TYPES)} belong to each date"
        )
    times = _times_of(city, dates, file)
    kept = ~np.isnat(times)
    return xr.Dataset(
        {
            "temperature": ("time", temperature[kept].astype(np.float32), {"units": "degree_Celsius"}),
            "wind_speed": ("time", wind_speed[kept].astype(np.float32), {"units": "mile/hour"}),
            "weather": (("time", "weather_type"), weather[kept].astype(np.int8), {"long_name": "1 for what it was"}),
        },
        coords={
            "time": ("time", times[kept], {"standard_name": "time", "long_name": "slot start, UTC"}),
            "weather_type": ("weather_type", list(_WEATHER_TYPES)),
        },
        attrs={"Conventions": "CF-1.11", "city": city.name, "timezone": city.timezone},
    )


def _write_weather(data: Path, weather: xr.Dataset, city: City) -> None:
    """Write a city's weather beside its stores, in place of an earlier import."""
    with atomic(data / city.name / "weather.nc") as temporary:
        encoding: dict[str, dict[str, object]] = {
            "time": {"units": "seconds since 1970-01-01", "dtype": "int64"},
            "weather": {"zlib": True},
        }
        weather.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def _read_holidays_file(file: Path) -> np.ndarray:
    """Read `BJ_Holiday.txt`, a day YYYYMMDD a line, as local days (n), datetime64[D], rising."""
    days = set()
    for number, line in enumerate(file.read_bytes().decode(errors="replace").splitlines(), 1):
        text = line.strip("\ufeff \t\r")
        if not text:
            continue
        day = _calendar_day(text)
        if day is None:
            raise InputError(f"{file}, line {number}: '{text}' is not a day YYYYMMDD")
        days.add(day)
    return np.array(sorted(days), "datetime64[D]")


def _write_holidays(data: Path, days: np.ndarray, city: City) -> None:
    """Write a city's holidays beside its stores, in place of an earlier import."""
    write_json(data / city.name / "holidays.json", days.astype(str).tolist())


def _write_windows(source: Path, city: City, data: Path) -> dict[str, int]:
    """Store OpenSTL's `dataset.npz` for `read_windows`, and return the number of windows of train and test.

    Raises InputError for a damaged or other file, windows of another shape, and values beyond [-1, 1]; the windows of
    an earlier import then stay.
    """
    frame = (len(FLOW_KINDS), city.rows, city.cols)
    out = data / city.name / WINDOWS
    out.parent.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory(prefix=".windows-", dir=out.parent) as folder,
        atomic(out) as temporary,
        h5py.File(temporary, "w") as hdf5,
    ):
        for key, length in _WINDOW_LENGTHS.items():
            windows = _npz_member(source, key, Path(folder))
            split = key[2:]
            shape = (counts.setdefault(split, windows.shape[0] if windows.ndim else 0), length, *frame)
            if windows.shape != shape or not len(windows) or windows.dtype.kind != "f":
                raise InputError(
                    f"{source}: {key} is {_by(windows.shape)} {windows.dtype}, "
                    f"where '{city.name}' and the other arrays ask for {_by(shape)} floats"
                )
            stored = hdf5.create_dataset(key, shape, np.float32)  # contiguous, so that it can be memory-mapped
            for start in range(0, len(windows), _WINDOWS_AT_ONCE):
                part = windows[start : start + _WINDOWS_AT_ONCE]
                if not (np.abs(part) <= 1 + 1e-6).all():
                    raise InputError(f"{source}: {key} has values beyond [-1, 1]")
                stored[start : start + _WINDOWS_AT_ONCE] = np.clip((part + 1) / 2, 0, 1)
    return counts


def read_windows(data: Path, city: City) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Open the ready windows that were imported for a city.

    Parameters
    ----------
    data
        The folder of all cities' stores.
    city
        The city.

    Returns
    -------
    dict[str, tuple[np.ndarray, np.ndarray]]
        For `train` and `test` the histories (n, 4, flow_kind, row, col) and the four slots after each, of the same
        shape, float32 in [0, 1]. The arrays are memory-mapped.

    Raises
    ------
    InputError
        No windows were imported, or their file is damaged.
    """
    file = data / city.name / WINDOWS
    if not file.exists():
        raise InputError(f"'{city.name}' has no ready windows: run trafficcast import-taxibj dataset.npz")
    with _open(file, tuple(_WINDOW_LENGTHS)) as hdf5:
        arrays = {
            key: np.memmap(file, np.float32, "r", hdf5[key].id.get_offset(), hdf5[key].shape) for key in _WINDOW_LENGTHS
        }
    return {split: (arrays[f"X_{split}"], arrays[f"Y_{split}"]) for split in ("train", "test")}


def _npz_member(source: Path, key: str, folder: Path) -> np.ndarray:
    """Return an array of an .npz file, memory-mapped from a folder, as it may be larger than the memory."""
    member = folder / f"{key}.npy"
    try:
        with zipfile.ZipFile(source) as archive:
            if member.name not in archive.namelist():
                raise InputError(f"{source} is not the dataset.npz of OpenSTL's TaxiBJ: it has no array {key}")
            archive.extract(member.name, folder)
        array: np.ndarray = np.lib.format.open_memmap(member, mode="r")  # refuses pickled objects
    except InputError:
        raise
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read {key} from {source}: {error}") from None
    member.unlink()  # the mapping keeps the file's content until the array is released
    return array


def _slot_day(city: City, label: bytes, source: Path) -> date:
    """Return the day of a date YYYYMMDDss; raise InputError for an invalid day or slot."""
    text = label.decode(errors="replace")
    day, slot = _calendar_day(text[:8]), text[8:]
    if day and slot.isdecimal() and 1 <= int(slot) <= city.slots_per_day and slot == f"{int(slot):02d}":
        return day
    raise InputError(
        f"{source}: '{text}' is not a date YYYYMMDDss with ss from 01 to "
        f"{city.slots_per_day:02d}, as '{city.name}' has slots of {city.slot_minutes} minutes"
    )


def _calendar_day(text: str) -> date | None:
    """Return the day of YYYYMMDD; None where it is not a day."""
    with suppress(ValueError):
        day = date(int(text[:4]), int(text[4:6]), int(text[6:]))
        if _EARLIEST <= day <= _LATEST and text == f"{day:%Y%m%d}":
            return day
    return None


def _dates(hdf5: h5py.File, file: Path) -> np.ndarray:
    """Return the dataset `date` as byte strings (n)."""
    dates = np.asarray(hdf5["date"][()])
    if dates.ndim != 1 or dates.dtype.kind not in "SO":
        raise InputError(f"{file}: date must be a list of byte strings YYYYMMDDss")
    return dates.astype("S")


@contextmanager
def _open(file: Path, keys: tuple[str, ...] = ()) -> Iterator[h5py.File]:
    """Open an HDF5 file that holds these datasets; raise InputError for any error until it is closed."""
    try:
        with h5py.File(file) as hdf5:
            absent = [key for key in keys if not isinstance(hdf5.get(key), h5py.Dataset)]
            if absent:
                raise InputError(f"{file} is not a file of TaxiBJ: it has no dataset {' and no '.join(absent)}")
            yield hdf5
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {file} as HDF5: {error}") from None


def _by(shape: tuple[int, ...]) -> str:
    """Return a shape as text, such as "2 x 32 x 32"."""
    return " x ".join(map(str, shape))
