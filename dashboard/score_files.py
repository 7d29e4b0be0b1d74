"""Days of scores read quickly: a year of them at once is what a page may ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ScoreDay:
    """A day's scores (see `score_dataset`) as they stand: to make a Dataset of it takes as long as to read it.

    `layout` holds the coordinates but init_time, `values` the VARIABLES that there are.
    """

    init_time: np.ndarray
    layout: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    attributes: dict[str, Any]


def read_score_day(store: DayStore, day: np.datetime64) -> ScoreDay | None:
    """A local day's file of a score store, its values as `DayStore.read` gives them; None where there is nothing.

    A file that is not laid out as the store writes them, damaged ones among them, is left to the store, which raises
    InputError where it cannot read it either. This takes a fraction of its time.
    """
    try:
        with h5py.File(store.root / f"{day}.nc", "r") as file:
            found = _scores(file, store.city.grid())
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError):
        found = None
    if found is not None:
        return found
    read = store.read_day(day)
    return None if read is None else _as_day(read)


def as_datasets(days: Iterable[ScoreDay]) -> list[xr.Dataset]:
    """The scores of days, those of the same forecasters, leads and levels together (see `score_dataset`)."""
    alike: dict[tuple[Any, ...], list[ScoreDay]] = {}
    for day in days:
        layout = ((name, tuple(values.tolist())) for name, values in day.layout.items())
        alike.setdefault((*layout, *day.values), []).append(day)
    return [_dataset(group) for group in alike.values()]


def _dataset(days: list[ScoreDay]) -> xr.Dataset:
    times = np.concatenate([day.init_time for day in days])
    values = {name: (VARIABLES[name], np.concatenate([day.values[name] for day in days])) for name in days[0].values}
    return xr.Dataset(values, {"init_time": times, **days[0].layout}, days[0].attributes)


def _scores(file: h5py.File, grid: dict[str, float | int | str]) -> ScoreDay | None:
    """The scores of a file as the store writes it; None where it is another one."""
    attributes = {name: _plain(value) for name, value in file.attrs.items() if not name.startswith("_")}
    if _plain(file["init_time"].attrs["units"]) != SECONDS or _plain(file["lead_time"].attrs["units"]) != MINUTES:
        return None
    if any(attributes.get(name) != value for name, value in grid.items()):
        return None
    layout = {
        "forecaster": np.array([str(name) for name in file["forecaster"].asstr()[()]]),
        "lead_time": file["lead_time"][()].astype("timedelta64[m]").astype("timedelta64[us]"),
    }
    if "level" in file:
        layout["level"] = file["level"][()]
    times = file["init_time"][()].astype("datetime64[s]").astype("datetime64[us]")
    return ScoreDay(times, layout, {name: file[name][()] for name in VARIABLES if name in file}, attributes)


def _as_day(scores: xr.Dataset) -> ScoreDay:
    layout = {name: scores[name].values for name in ("forecaster", "lead_time", "level") if name in scores}
    values = {name: scores[name].transpose(*order).values for name, order in VARIABLES.items() if name in scores}
    return ScoreDay(scores["init_time"].values, layout, values, scores.attrs)


def _plain(value: Any) -> Any:
    """An attribute as Python's own number or text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    return value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value
