"""Scores of verified forecasts: their dataset, and the errors of a model and its baselines over a period."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
import xarray as xr

from trafficcast.config.city import City
from trafficcast.errors import DamagedFile
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import city_attributes
from trafficcast.stores.forecasts import _lead_times

# The heading of each metric of a card.
METRICS = {
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE (published)",
    "mae_sum": "MAE (published)",
    "ssim": "SSIM",
    "ssim_openstl": "SSIM (OpenSTL)",
    "psnr": "PSNR, dB",
}


@dataclass(frozen=True)
class _Skill:
    """Errors over a number of scored `forecasts`.

    `rmse` is by forecaster, in vehicles per slot, the model's own under the name `model`; `by_lead` is the model's RMSE
    by lead time; `inside` is the share of truths inside the prediction interval, by level.
    """

    model: str
    forecasts: int
    rmse: dict[str, float]
    by_lead: list[float]
    inside: dict[float, float]

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """The scored baseline with the lowest RMSE, and that RMSE."""
        baselines = {name: value for name, value in self.rmse.items() if name != self.model and isfinite(value)}
        return min(baselines.items(), key=lambda item: item[1], default=None)


def recent_scores(
    stores: CityStores, start: np.datetime64, end: np.datetime64, damaged: list[DamagedFile] | None = None
) -> tuple[str, xr.Dataset] | None:
    """Read the scores of the newest champion that has any in a period.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        Start of the period of init times, naive UTC, inclusive.
    end
        End of the period of init times, naive UTC, exclusive.
    damaged
        A list to which damaged files are added, whose days are then left out; with None the first one is raised.

    Returns
    -------
    tuple[str, xr.Dataset] | None
        The champion's version and the scores (see `score_dataset`); None where no champion has scores in the period.

    Raises
    ------
    InputError
        A file of scores is damaged.
    """
    for version in stores.registry.champions():
        scores = stores.scores(version).read(start, end, damaged=damaged)
        if scores is not None:
            return version, scores
    return None


def skill(version: str, scores: xr.Dataset) -> _Skill:
    """Summarise scores of a model and its baselines; scores that are NaN are left out.

    Parameters
    ----------
    version
        The model's version.
    scores
        The scores (see `score_dataset`).

    Returns
    -------
    _Skill
        RMSE by forecaster and the share of truths inside prediction intervals, over all init times and lead times.
    """
    squared = scores["rmse"] ** 2
    together = np.sqrt(squared.mean(("init_time", "lead_time")).values)
    rmse = {str(name): float(value) for name, value in zip(scores["forecaster"].values, together, strict=True)}
    inside = {}
    if "inside" in scores:
        shares = scores["inside"].mean(("init_time", "lead_time")).values
        inside = {float(level): float(share) for level, share in zip(scores["level"].values, shares, strict=True)}
    by_lead = np.sqrt(squared.sel(forecaster=version).mean("init_time").values).tolist()
    return _Skill(version, scores.sizes["init_time"], rmse, by_lead, inside)


def score_dataset(
    city: City,
    init_time: np.datetime64,
    forecasts: dict[str, np.ndarray],
    observed: np.ndarray,
    bounded: xr.Dataset | None = None,
) -> xr.Dataset:
    """Compute the errors of one forecast and of the baselines beside it.

    Parameters
    ----------
    city
        The city.
    init_time
        Start of the first slot that was forecast, naive UTC.
    forecasts
        Forecast flows by forecaster, (lead time, flow kind, row, col), vehicles per slot.
    observed
        Observed flows of the same slots, of the same shape; NaN in slots that were not observed.
    bounded
        The stored forecast of the init time (see `forecast_dataset`) where it has prediction intervals.

    Returns
    -------
    xr.Dataset
        The variables rmse and mae (init_time, forecaster, lead_time), vehicles per slot; with `bounded` also
        inside (init_time, level, lead_time), the share of observed flows inside the interval, and width of the same
        shape, the intervals' mean width, vehicles per slot. Scores of slots that were not observed are NaN.
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
