"""The settings of a training, and the recipe of each architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from trafficcast.forecasting.model import architecture_function


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training; the defaults follow the paper (arXiv 2403.16536) but for the number of epochs.

    Attributes
    ----------
    epochs
        Number of epochs.
    batch_size
        Windows of a batch.
    learning_rate
        Highest learning rate.
    final_rate
        Learning rate at the end, to which it falls by a cosine.
    warmup_share
        Share of all steps over which the learning rate rises linearly.
    weight_decay
        Weight decay of matrices.
    ema
        Decay of the moving average of the weights that is validated and kept; 0 keeps the weights themselves.
    clip
        Largest norm of a gradient; 0 is no limit.
    views
        Whether windows are augmented: the grid is mirrored, transposed and shifted, anew for every batch.
    seed
        Seed of all random numbers.
    loss
        Loss of VMRNN-C: `squared`, or `counts`, which divides by the standard deviation of a count.
    published_schedule
        Whether the learning rate is that of the paper, constant within an epoch.
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


# The default settings of each architecture; those of VMRNN-B and VMRNN-D follow the paper.
_RECIPES = {
    "vmrnn-b": TrainingSettings(),
    "vmrnn-c": TrainingSettings(
        epochs=3, batch_size=4, learning_rate=1e-3, weight_decay=0.1, ema=0.98, clip=1.0, views=True, loss="counts"
    ),
    "vmrnn-d": TrainingSettings(),
}


def recipe(name: str, **given: Any) -> TrainingSettings:
    """Return the recipe of an architecture, with some settings changed.

    Parameters
    ----------
    name
        The architecture's name, such as vmrnn-c.
    **given
        Settings in place of the recipe's; one that is None is ignored.

    Returns
    -------
    TrainingSettings
        The settings.
    """
    architecture_function(name)
    return replace(_RECIPES[name], **{key: value for key, value in given.items() if value is not None})
