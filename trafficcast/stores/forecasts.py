"""The contract of forecasts, and the checks that a forecast passes before it is published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from trafficcast.config.city import HORIZON, City, target_times
from trafficcast.errors import JobError
from trafficcast.stores.flows import _grid_coordinates, city_attributes

# State of a forecast: by the model from four observed slots; by the model with a slot filled in; by a baseline.
COMPLETE, DEGRADED, BASELINE = "complete", "degraded", "baseline"
# A forecast above this many times the training maximum is a fault and is not published.
_BOUND = 3.0


@dataclass(frozen=True)
class Provenance:
    """The forecaster that made a forecast, and how the forecast was made.

    Attributes
    ----------
    forecaster
        The model's version, or the baseline's name.
    state
        COMPLETE, DEGRADED or BASELINE.
    reason
        A sentence that says why the forecast is not complete; may be empty.
    hindcast
        Whether the forecast was made after its time, from the data known at its time.
    """

    forecaster: str
    state: str = COMPLETE
    reason: str = ""
    hindcast: bool = False


def forecast_dataset(
    city: City,
    model: dict[str, Any],
    init_time: np.datetime64,
    flow: np.ndarray,
    created: np.datetime64,
    bounds: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    origin: Provenance | None = None,
) -> xr.Dataset:
    """Make the dataset of one forecast, as the forecast store holds it.

    Parameters
    ----------
    city
        The city.
    model
        The card of the model for which the forecast is published.
    init_time
        Start of the first slot that is forecast, naive UTC; nothing later was known.
    flow
        Forecast flow (HORIZON, flow kind, row, col), vehicles per slot.
    created
        When the forecast was made, naive UTC.
    bounds
        Levels (level), lower and upper bounds (level, HORIZON, flow kind, row, col) of the prediction intervals,
        vehicles per slot; None for a forecast without intervals.
    origin
        Provenance of the forecast; None is a complete forecast by the model.

    Returns
    -------
    xr.Dataset
        Dataset with flow (init_time, lead_time, flow_kind, row, col) float32, vehicles per slot; forecaster, state,
        reason and hindcast (init_time); the starts of the target slots in valid_time (init_time, lead_time).
        With bounds also lower and upper (init_time, level, lead_time, flow_kind, row, col) float32.
    """
    origin = origin or Provenance(model["version"])
    init_times = np.array([init_time], "datetime64[us]")

    def _by_init_time(value: str | bool, about: str) -> tuple[str, np.ndarray, dict[str, str]]:
        return "init_time", np.array([value], object if isinstance(value, str) else bool), {"long_name": about}

    forecast = xr.Dataset(
        {
            "flow": (
                ("init_time", "lead_time", "flow_kind", "row", "col"),
                np.asarray(flow, np.float32)[None],
                {"units": "1", "long_name": "forecast vehicles per slot"},
            ),
            "forecaster": _by_init_time(origin.forecaster, "model version or baseline that made it"),
            "state": _by_init_time(origin.state, f"{COMPLETE}, {DEGRADED} or {BASELINE}"),
            "reason": _by_init_time(origin.reason, f"why it is not {COMPLETE}"),
            "hindcast": _by_init_time(origin.hindcast, "made afterwards, with the data of its time"),
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
    if bounds is None:
        return forecast
    level, lower, upper = bounds
    dimensions = ("init_time", "level", "lead_time", "flow_kind", "row", "col")
    return forecast.assign(
        {
            name: (dimensions, bound[None], {"units": "1", "long_name": f"{name} bound of the prediction interval"})
            for name, bound in (("lower", lower), ("upper", upper))
        }
    ).assign_coords(
        level=("level", level, {"units": "1", "long_name": "share of truths that shall lie inside the interval"})
    )


def has_intervals(forecast: xr.Dataset) -> bool:
    """Whether a forecast has prediction intervals.

    Parameters
    ----------
    forecast
        Forecast of one init time (see `forecast_dataset`). One that was stored beside forecasts with intervals has
        bounds that are not a number.

    Returns
    -------
    bool
        Whether all bounds are known.
    """
    return "lower" in forecast and bool(np.isfinite(forecast["lower"].values).all())


def check_forecast(flow: np.ndarray, scale: float) -> None:
    """Check that a forecast may be published.

    Parameters
    ----------
    flow
        Forecast flow, any shape, vehicles per slot.
    scale
        The highest flow in the training data, vehicles per slot.

    Raises
    ------
    JobError
        A value is not finite, negative, or above three times the scale.
    """
    if not np.isfinite(flow).all():
        raise JobError("the forecast holds values that are not finite; it was not published")
    if flow.min() < 0:
        raise JobError(f"the forecast holds {flow.min():.3g} vehicles; it was not published")
    if flow.max() > _BOUND * scale:
        raise JobError(
            f"the forecast holds {flow.max():.0f} vehicles in a slot, {_BOUND:g} times the training maximum "
            f"is {_BOUND * scale:.0f}; it was not published"
        )


def _lead_times(city: City) -> np.ndarray:
    """Return the lead times of a forecast."""
    return (city.slot * np.arange(HORIZON)).astype("timedelta64[us]")
