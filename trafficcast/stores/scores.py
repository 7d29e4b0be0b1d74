"""Days of scores read quickly: a year of them at once is what a page may ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import h5py
import numpy as np
import xarray as xr

from trafficcast.config.city import City
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import city_attributes
from trafficcast.stores.forecasts import _lead_times

_SECONDS, _MINUTES = "seconds since 1970-01-01", "minutes"
_VARIABLES = {
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
    values = {name: (_VARIABLES[name], np.concatenate([day.values[name] for day in days])) for name in days[0].values}
    return xr.Dataset(values, {"init_time": times, **days[0].layout}, days[0].attributes)


def _scores(file: h5py.File, grid: dict[str, float | int | str]) -> ScoreDay | None:
    """The scores of a file as the store writes it; None where it is another one."""
    attributes = {name: _plain(value) for name, value in file.attrs.items() if not name.startswith("_")}
    if _plain(file["init_time"].attrs["units"]) != _SECONDS or _plain(file["lead_time"].attrs["units"]) != _MINUTES:
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
    return ScoreDay(times, layout, {name: file[name][()] for name in _VARIABLES if name in file}, attributes)


def _as_day(scores: xr.Dataset) -> ScoreDay:
    layout = {name: scores[name].values for name in ("forecaster", "lead_time", "level") if name in scores}
    values = {name: scores[name].transpose(*order).values for name, order in _VARIABLES.items() if name in scores}
    return ScoreDay(scores["init_time"].values, layout, values, scores.attrs)


def _plain(value: Any) -> Any:
    """An attribute as Python's own number or text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    return value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class _Skill:
    """Over `forecasts` scored ones: RMSE by forecaster, vehicles per slot, the model's under the name `model`.

    `by_lead`: (lead) of the model. `inside`: level -> share of truths inside the prediction interval.
    """

    model: str
    forecasts: int
    rmse: dict[str, float]
    by_lead: list[float]
    inside: dict[float, float]

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """The baseline with the lowest error, and that error; those that were not scored do not count."""
        baselines = {name: value for name, value in self.rmse.items() if name != self.model and isfinite(value)}
        return min(baselines.items(), key=lambda item: item[1], default=None)


def recent_scores(stores: CityStores, start: np.datetime64, end: np.datetime64) -> tuple[str, xr.Dataset] | None:
    """The newest champion that has scores with init times in [start, end), and these (see `score_dataset`)."""
    for version in stores.registry.champions():
        scores = stores.scores(version).read(start, end)
        if scores is not None:
            return version, scores
    return None


def skill(version: str, scores: xr.Dataset) -> _Skill:
    """What scores of a model and its baselines say together; scores that are not a number do not count."""
    squared = scores["rmse"] ** 2
    together = np.sqrt(squared.mean(("init_time", "lead_time")).values)
    rmse = {str(name): float(value) for name, value in zip(squared["forecaster"].values, together, strict=True)}
    inside = {}
    if "inside" in scores:
        shares = scores["inside"].mean(("init_time", "lead_time"))
        inside = {
            float(level): float(share) for level, share in zip(shares["level"].values, shares.values, strict=True)
        }
    by_lead = np.sqrt(squared.sel(forecaster=version).mean("init_time").values).tolist()
    return _Skill(version, scores.sizes["init_time"], rmse, by_lead, inside)


def score_dataset(
    city: City,
    init_time: np.datetime64,
    forecasts: dict[str, np.ndarray],
    observed: np.ndarray,
    bounded: xr.Dataset | None = None,
) -> xr.Dataset:
    """The errors of one verified forecast: rmse and mae(init_time, forecaster, lead_time), vehicles per slot.

    `forecasts` maps a forecaster's name to its frames, `observed` are the true ones: (HORIZON, flow kind, row, col). A
    slot that was not observed holds no numbers, and gets none.
    `bounded` is the forecast of that init time where it has prediction intervals: then there are also the share of the
    truths inside them, inside(init_time, level, lead_time), and their mean width, width(init_time, level, lead_time),
    vehicles per slot.
    """
    error = np.stack([flow.astype(np.float64) - observed for flow in forecasts.values()])
    cells = (2, 3, 4)
    dimensions = ("init_time", "forecaster", "lead_time")
    scores = xr.Dataset(
        {
            "rmse": (dimensions, np.sqrt(np.square(error).mean(cells))[None], {"units": "1"}),
            "mae": (dimensions, np.abs(error).mean(cells)[None], {"units": "1"}),
        },
        coords={
            "init_time": ("init_time", np.array([init_time], "datetime64[us]")),
            "forecaster": ("forecaster", list(forecasts)),
            "lead_time": ("lead_time", _lead_times(city)),
        },
        attrs=city_attributes(city),
    )
    if bounded is None:
        return scores
    lower, upper = (bounded[name].values for name in ("lower", "upper"))
    dimensions, known = ("init_time", "level", "lead_time"), np.isfinite(observed).all((1, 2, 3))
    inside = ((lower <= observed) & (observed <= upper)).mean(cells)
    return scores.assign(
        inside=(dimensions, np.where(known, inside, np.nan)[None], {"units": "1"}),
        width=(dimensions, (upper - lower).mean(cells, dtype=np.float64)[None], {"units": "1"}),
    ).assign_coords(level=bounded["level"].variable)


def joined(parts: list[xr.Dataset], start: np.datetime64, end: np.datetime64) -> xr.Dataset | None:
    """Scores of several days as one, those with init times in [start, end); NaT is no bound. None where there are none.

    A forecaster or level that a day does not have is not a number there.
    """
    if not parts:
        return None
    scores = xr.concat(
        parts,
        "init_time",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="outer",
        combine_attrs="override",
    ).sortby("init_time")
    times = scores["init_time"].values
    keep = (np.isnat(start) | (times >= start)) & (np.isnat(end) | (times < end))
    return scores.isel(init_time=keep) if keep.any() else None
