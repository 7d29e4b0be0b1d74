"""The contracts of forecasts and of their scores, and the checks a forecast passes before it is published."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from trafficcast.city import City
from trafficcast.errors import JobError
from trafficcast.flows import city_attributes, grid_coordinates
from trafficcast.forecasters import target_times
from trafficcast.windows import HORIZON

# A forecast above this many times the training maximum is no traffic, it is a fault.
BOUND = 3.0


def forecast_dataset(
    city: City, model: dict[str, Any], init_time: np.datetime64, flow: np.ndarray, created: np.datetime64
) -> xr.Dataset:
    """One forecast: flow(init_time, lead_time, flow_kind, row, col) float32 in vehicles per slot, valid_time beside it.

    `init_time` is the start of the first slot forecast (naive UTC) and the data cut: nothing later was known.
    `flow`: (HORIZON, flow kind, row, col). `model` is the model's card.
    """
    init_times = np.array([init_time], "datetime64[us]")
    return xr.Dataset(
        {
            "flow": (
                ("init_time", "lead_time", "flow_kind", "row", "col"),
                np.asarray(flow, np.float32)[None],
                {"units": "1", "long_name": "forecast vehicles per slot"},
            )
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
            **grid_coordinates(city),
        },
        attrs=city_attributes(city) | {"model": model["architecture"]["name"], "model_version": model["version"]},
    )


def check_forecast(flow: np.ndarray, scale: float) -> None:
    """Raise JobError for a forecast that must not be published: not finite, negative, or beyond BOUND x scale."""
    if not np.isfinite(flow).all():
        raise JobError("the forecast holds values that are not finite; it was not published")
    if flow.min() < 0:
        raise JobError(f"the forecast holds {flow.min():.3g} vehicles; it was not published")
    if flow.max() > BOUND * scale:
        raise JobError(
            f"the forecast holds {flow.max():.0f} vehicles in a slot, {BOUND:g} times the training maximum "
            f"is {BOUND * scale:.0f}; it was not published"
        )


def score_dataset(
    city: City, init_time: np.datetime64, forecasts: dict[str, np.ndarray], observed: np.ndarray
) -> xr.Dataset:
    """The errors of one verified forecast: rmse and mae(init_time, forecaster, lead_time), vehicles per slot.

    `forecasts` maps a forecaster's name to its frames, `observed` are the true ones: (HORIZON, flow kind, row, col).
    """
    error = np.stack([flow.astype(np.float64) - observed for flow in forecasts.values()])
    cells = (2, 3, 4)
    dimensions = ("init_time", "forecaster", "lead_time")
    return xr.Dataset(
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


def _lead_times(city: City) -> np.ndarray:
    return (city.slot * np.arange(HORIZON)).astype("timedelta64[us]")
