"""How a network is trained: the settings, and each architecture's recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from trafficcast.forecasting.model import architecture_function


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the defaults follow the published training (arXiv 2403.16536) but for the number of epochs.

    The learning rate rises linearly over `warmup_share` of all steps and then falls to `final_rate` by a cosine;
    `published_schedule`: as published, from epoch to epoch (see `published_rate`). `loss`: see `forecast_loss`.
    `ema`: decay of the moving average of the weights that is validated and kept, 0 for the weights themselves.
    `clip`: the largest norm of a gradient, 0 for any. `views`: mirror and shift the city, anew for every batch.
    """

    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 4e-4
    final_rate: float = 1e-6
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    ema: float = 0.0
    clip: float = 0.0
    views: bool = False
    seed: int = 42
    loss: str = "squared"
    published_schedule: bool = False


# How each is trained unless told otherwise; the published ones as published, but for the number of epochs.
_RECIPES = {
    "vmrnn-b": TrainingSettings(),
    "vmrnn-c": TrainingSettings(
        epochs=3, batch_size=4, learning_rate=1e-3, weight_decay=0.1, ema=0.98, clip=1.0, views=True, loss="counts"
    ),
    "vmrnn-d": TrainingSettings(),
}


def recipe(name: str, **given: Any) -> TrainingSettings:
    """The architecture's recipe with the settings given in place of its own; None is not given."""
    architecture_function(name)
    return replace(_RECIPES[name], **{key: value for key, value in given.items() if value is not None})
