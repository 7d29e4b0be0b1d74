"""How good forecasts were of late: the errors of stored scores together, and how often truths lay inside intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import xarray as xr

from trafficcast.registry import Registry
from trafficcast.stores import score_store


@dataclass(frozen=True)
class Skill:
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


def recent_scores(
    data: Path, registry: Registry, start: np.datetime64, end: np.datetime64
) -> tuple[str, xr.Dataset] | None:
    """The newest champion that has scores with init times in [start, end), and these (see `score_dataset`)."""
    for version in registry.champions():
        scores = score_store(data, registry.city, version).read(start, end)
        if scores is not None:
            return version, scores
    return None


def skill(version: str, scores: xr.Dataset) -> Skill:
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
    return Skill(version, scores.sizes["init_time"], rmse, by_lead, inside)
