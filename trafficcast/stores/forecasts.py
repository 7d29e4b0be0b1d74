"""The contracts of forecasts and of their scores, and the checks a forecast passes before it is published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from trafficcast.config.city import HORIZON, City, target_times
from trafficcast.errors import JobError
from trafficcast.stores.flows import _grid_coordinates, city_attributes

# How a forecast came about: by the model from four observed slots; by the model, with a slot filled in; by a baseline.
COMPLETE, DEGRADED, BASELINE = "complete", "degraded", "baseline"
# A forecast above this many times the training maximum is no traffic, it is a fault.
_BOUND = 3.0


@dataclass(frozen=True)
class Provenance:
    """Who made a forecast, and how: `reason` says why it is not complete, `hindcast` that it was made afterwards."""

    forecaster: str
    state: str = COMPLETE
    reason: str = ""
    hindcast: bool = False


@dataclass(frozen=True)
class Bounds:
    """The bounds of a forecast's prediction intervals.

    Attributes
    ----------
    level
        (level), the share of truths that shall lie inside each interval.
    lower
        (level, HORIZON, flow kind, row, col), vehicles per slot.
    upper
        (level, HORIZON, flow kind, row, col), vehicles per slot.
    """

    level: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def forecast_dataset(
    city: City,
    model: dict[str, Any],
    init_time: np.datetime64,
    flow: np.ndarray,
    created: np.datetime64,
    bounds: Bounds | None = None,
    origin: Provenance | None = None,
) -> xr.Dataset:
    """One forecast: flow(init_time, lead_time, flow_kind, row, col) float32 in vehicles per slot, valid_time beside it.

    `init_time` is the start of the first slot forecast (naive UTC) and the data cut: nothing later was known.
    `flow`: (HORIZON, flow kind, row, col). `model` is the model's card. With `bounds` the dataset also holds the
    bounds of prediction intervals, lower and upper(init_time, level, lead_time, flow_kind, row, col) float32;
    `level` is the share of truths that shall lie inside. What `origin` says is there as well, by init time; without
    it the model made the forecast from a complete history.
    """
    origin = origin or Provenance(model["version"])
    init_times = np.array([init_time], "datetime64[us]")

    def said(value: str | bool, about: str) -> tuple[str, np.ndarray, dict[str, str]]:
        return "init_time", np.array([value], object if isinstance(value, str) else bool), {"long_name": about}

    made = xr.Dataset(
        {
            "flow": (
                ("init_time", "lead_time", "flow_kind", "row", "col"),
                np.asarray(flow, np.float32)[None],
                {"units": "1", "long_name": "forecast vehicles per slot"},
            ),
            "forecaster": said(origin.forecaster, "model version or baseline that made it"),
            "state": said(origin.state, f"{COMPLETE}, {DEGRADED} or {BASELINE}"),
            "reason": said(origin.reason, f"why it is not {COMPLETE}"),
            "hindcast": said(origin.hindcast, "made afterwards, with the data of its time"),
        },
        coords={
            "init_time": ("init_time", init_times, {"standard_name": "forecast_reference_time"}),
            "lead_time": ("lead_time", _lead_times(city), {"standard_name": "forecast_period"}),
            "valid_time": (
                ("init_time", "lead_time"),
                target_times(city, init_times).astype("datetime64[us]"),
                {"long_name": "start of the slot forecast, UTC"},
            ),
            "data_cut": ("init_time", init_times, {"long_name": "end of the last slot known, UTC"}),
            "created": ("init_time", np.array([created], "datetime64[us]"), {"long_name": "when it was made, UTC"}),
            **_grid_coordinates(city),
        },
        attrs=city_attributes(city) | {"model": model["architecture"]["name"], "model_version": model["version"]},
    )
    return made if bounds is None else made.assign(_bounds(bounds)).assign_coords(level=_level(bounds))


def has_intervals(forecast: xr.Dataset) -> bool:
    """Whether one init time's forecast has bounds; in a file beside forecasts with them, others are not a number."""
    return "lower" in forecast and bool(np.isfinite(forecast["lower"].values).all())


def check_forecast(flow: np.ndarray, scale: float) -> None:
    """Raise JobError for a forecast that must not be published: not finite, negative, or beyond BOUND x scale."""
    if not np.isfinite(flow).all():
        raise JobError("the forecast holds values that are not finite; it was not published")
    if flow.min() < 0:
        raise JobError(f"the forecast holds {flow.min():.3g} vehicles; it was not published")
    if flow.max() > _BOUND * scale:
        raise JobError(
            f"the forecast holds {flow.max():.0f} vehicles in a slot, {_BOUND:g} times the training maximum "
            f"is {_BOUND * scale:.0f}; it was not published"
        )


def _bounds(bounds: Bounds) -> dict[str, Any]:
    dimensions = ("init_time", "level", "lead_time", "flow_kind", "row", "col")
    return {
        name: (dimensions, bound[None], {"units": "1", "long_name": f"{name} bound of the prediction interval"})
        for name, bound in (("lower", bounds.lower), ("upper", bounds.upper))
    }


def _level(bounds: Bounds) -> tuple[str, np.ndarray, dict[str, str]]:
    return "level", bounds.level, {"units": "1", "long_name": "share of truths that shall lie inside the interval"}


def _lead_times(city: City) -> np.ndarray:
    return (city.slot * np.arange(HORIZON)).astype("timedelta64[us]")
