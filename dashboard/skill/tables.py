"""Tables of stored scores: errors by lead, day, hour and weekday, intervals, and the published metrics.

Scores are those of `score_dataset`. A score of a slot that was not observed is NaN and left out; a
forecaster's errors are over the slots on which it was scored.
"""

from __future__ import annotations

from calendar import day_abbr
from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.page.labels import lead_name
from dashboard.reads.stamps import DAY
from trafficcast.config.city import City
from trafficcast.stores.scores import METRICS

_MEASURES = {measure: METRICS[measure] for measure in ("rmse", "mae")}  # vehicles per slot
# How far back a period reaches from the newest score; None is all that is stored.
_PERIODS = {"day": DAY, "week": 7 * DAY, "month": 30 * DAY, "all": None}
_MINUTE = np.timedelta64(1, "m")
_ALL_LEADS = "all leads"


def _leads_of(scores: xr.Dataset) -> list[int]:
    """The lead times of scores, minutes from the init time to the slot's start."""
    return [int(lead / _MINUTE) for lead in scores["lead_time"].values]


def _at_lead(scores: xr.Dataset, lead: str) -> xr.Dataset:
    """The scores of one lead, said as by `lead_name`, its dimension kept; of all for any other word."""
    places = [place for place, minutes in enumerate(_leads_of(scores)) if lead_name(minutes) == lead]
    return scores.isel(lead_time=places) if places else scores


def _scores_by_lead(scores: xr.Dataset) -> np.ndarray:
    """(init_time, lead_time) lead times, minutes."""
    return np.broadcast_to(_leads_of(scores), (scores.sizes["init_time"], scores.sizes["lead_time"]))


def _by_day(city: City, scores: xr.Dataset) -> np.ndarray:
    """(init_time, lead_time) local days of the slots forecast, datetime64[D]."""
    slots = _slots(scores)
    return city.local_days(slots.ravel()).reshape(slots.shape)


def _by_hour(city: City, scores: xr.Dataset) -> np.ndarray:
    """(init_time, lead_time) local hours of the slots forecast, 0 to 23."""
    slots = _slots(scores)
    return city.local(slots.ravel()).hour.to_numpy().reshape(slots.shape)


def _by_weekday(city: City, scores: xr.Dataset) -> np.ndarray:
    """(init_time, lead_time) local days of the week of the slots forecast, Monday 0; holidays are as any day."""
    slots = _slots(scores)
    return city.local(slots.ravel()).day_of_week.to_numpy().reshape(slots.shape)


def _weekday_names(days: Iterable[int]) -> list[str]:
    """The names of days of the week, Monday 0."""
    return [day_abbr[day] for day in days]


def _errors_by(scores: xr.Dataset, measure: str, groups: np.ndarray) -> pd.DataFrame:
    """A row for each group and forecaster: group, forecaster, error (vehicles per slot), slots (how many scored).

    `groups`: (init_time, lead_time), what each score belongs to. RMSE is that of all cells and slots of a group.
    """
    values = scores[measure].transpose("forecaster", "init_time", "lead_time").values
    squared = measure == "rmse"
    labels, group = np.unique(groups.ravel(), return_inverse=True)
    parts = []
    for name, errors in zip(scores["forecaster"].values, values, strict=True):
        flat = errors.ravel()
        known = np.isfinite(flat)
        summed = np.bincount(group[known], flat[known] ** (2 if squared else 1), len(labels))
        slots = np.bincount(group[known], minlength=len(labels))
        mean = summed[slots > 0] / slots[slots > 0]
        error = np.sqrt(mean) if squared else mean
        parts.append(
            pd.DataFrame(
                {"group": labels[slots > 0], "forecaster": str(name), "error": error, "slots": slots[slots > 0]}
            )
        )
    return pd.concat(parts, ignore_index=True)


def _lead_table(scores: xr.Dataset, measure: str) -> pd.DataFrame:
    """A row for each forecaster, the best first: forecaster, all leads, each lead (vehicles per slot), slots scored."""
    leads = _scores_by_lead(scores)
    whole = _errors_by(scores, measure, np.zeros_like(leads)).set_index("forecaster")
    single = _errors_by(scores, measure, leads).pivot(index="forecaster", columns="group", values="error")
    single.columns = pd.Index([lead_name(int(minutes)) for minutes in single.columns])
    table = pd.concat([whole["error"].rename(_ALL_LEADS), single, whole["slots"].rename("slots scored")], axis=1)
    return table.sort_values(_ALL_LEADS).rename_axis("forecaster").reset_index()


def _pivot_forecasters(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """`_errors_by` with a row for each group, the column `name`, and a column for each forecaster."""
    columns = list(dict.fromkeys(table["forecaster"]))
    return table.pivot(index="group", columns="forecaster", values="error")[columns].rename_axis(name).reset_index()


def _coverage_table(scores: xr.Dataset) -> pd.DataFrame:
    """A row for each level and lead: level, lead (minutes), inside (share), width (vehicles per slot), slots.

    Widths are means over the slots whose truth is known. Empty where the model has no prediction intervals.
    """
    rows = []
    if "inside" in scores:
        inside = scores["inside"].transpose("level", "lead_time", "init_time").values
        width = scores["width"].transpose("level", "lead_time", "init_time").values
        for level, shares, widths in zip(scores["level"].values, inside, width, strict=True):
            for minutes, share, spread in zip(_leads_of(scores), shares, widths, strict=True):
                known = np.isfinite(share) & np.isfinite(spread)
                if known.any():
                    rows.append((float(level), minutes, share[known].mean(), spread[known].mean(), int(known.sum())))
    return pd.DataFrame(rows, columns=["level", "lead", "inside", "width", "slots"])


def _published_table(scores: xr.Dataset, scale: float) -> pd.DataFrame:
    """MSE, MAE and PSNR (dB) as published for TaxiBJ, of a row for each forecaster, the lowest MSE first.

    As `trafficcast.metrics.scores` computes them: frames are divided by `scale`, errors summed over flow kinds, rows
    and columns and averaged over slots. SSIM needs the frames themselves.
    """
    cells = 2 * int(scores.attrs["rows"]) * int(scores.attrs["cols"])
    rows = []
    for name in scores["forecaster"].values:
        one = scores.sel(forecaster=name)
        squared, absolute = (one["rmse"].values / scale) ** 2, one["mae"].values / scale
        known = np.isfinite(squared)
        if known.any():
            with np.errstate(divide="ignore"):
                psnr = float(-10 * np.log10(squared[known]).mean())
            rows.append((str(name), squared[known].mean() * cells, absolute[known].mean() * cells, psnr))
    table = pd.DataFrame(rows, columns=["forecaster", "MSE", "MAE", "PSNR, dB"])
    return table.sort_values("MSE", ignore_index=True)


def _slots(scores: xr.Dataset) -> np.ndarray:
    """(init_time, lead_time) starts of the slots forecast, naive UTC."""
    return scores["init_time"].values[:, None] + scores["lead_time"].values
