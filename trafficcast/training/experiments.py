"""Experiments: what is compared with what, as data; and their results, as a table and a picture.

A row of results is one training: `variant`, `seed`, `epochs`, `best_epoch`, `parameters` (live ones),
`seconds_per_epoch` with validation, a `fingerprint` of flows, split and settings, and how the best epoch scores: the
metrics of `metrics.scores`, and `rmse_lead_1` to `rmse_lead_4`, vehicles per slot.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from trafficcast.config.city import HORIZON
from trafficcast.errors import InputError
from trafficcast.files import atomic
from trafficcast.forecasting.model import ARCHITECTURES
from trafficcast.nn.vmrnn import CONVOLUTIONS
from trafficcast.training.settings import _RECIPES, TrainingSettings

_LEADS = [f"rmse_lead_{lead}" for lead in range(1, HORIZON + 1)]
_SCORES = ["rmse", "mae", "mse", "mae_sum", "ssim", "ssim_openstl", "psnr", *_LEADS]
_RESULTS = ["variant", "seed", "epochs", "best_epoch", "parameters", "seconds_per_epoch", "fingerprint", *_SCORES]
_EPOCHS = ["variant", "seed", "epoch", "train_loss", "valid_rmse"]
# What the columns hold that are no floating-point numbers.
_KIND: dict[str, Callable[[str], Any]] = {"variant": str, "fingerprint": str}
_KIND |= dict.fromkeys(("seed", "epochs", "epoch", "best_epoch", "parameters"), int)
# Published on TaxiBJ, 4 -> 4, all with the best epoch by test error; the names as in `metrics.scores`.
_PUBLISHED = {
    name: {"mse": mse, "mae_sum": mae, "ssim_openstl": ssim}
    for name, mse, mae, ssim in (
        ("ConvLSTM", 0.3358, 15.32, 0.9836),
        ("SimVP", 0.3282, 15.45, 0.9835),
        ("TAU", 0.3108, 14.93, 0.9848),
        ("SwinLSTM", 0.3026, 15.00, 0.9843),
        ("VMRNN (arXiv 2403.16536)", 0.2887, 14.69, 0.9858),
        ("PredFormer (arXiv 2410.04733)", 0.277, 14.3, 0.986),
    )
}


@dataclass(frozen=True)
class _Variant:
    """One of the things compared: a network, a training, and what the network is told.

    `network`: a card's architecture but for the grid. `calendar`: without it a conditioned network is told zeros.
    `own_day`: what is normal in the slots trained on includes these slots' own day. `chosen_by`: the split that chooses
    the epoch, validation or, as published, test.
    """

    network: dict[str, Any]
    settings: TrainingSettings
    calendar: bool = True
    own_day: bool = False
    chosen_by: str = "validation"


@dataclass(frozen=True)
class _Experiment:
    """`variants` by name, and what others published, by name and metric. `metric` is compared with `reference`'s."""

    about: str
    variants: dict[str, _Variant]
    reference: str | None = None
    metric: str = "rmse"
    published: dict[str, dict[str, float]] = field(default_factory=dict)


def _of(architecture: str, **network: Any) -> _Variant:
    return _Variant({"name": architecture, **network}, _RECIPES[architecture])


def _c(depth: int = 3, patterns: int = 16, **settings: Any) -> _Variant:
    network = {"name": "vmrnn-c", "depth": depth, "patterns": patterns}
    return _Variant(network, replace(_RECIPES["vmrnn-c"], **settings))


# Batch 16, Adam, 4e-4, seed 42 and the mean squared error are the defaults already.
_PUBLISHED_TRAINING = TrainingSettings(epochs=200, published_schedule=True)

_EXPERIMENTS = {
    "blocks": _Experiment(
        "VMRNN-B with other numbers of VSS blocks (12 published)",
        {f"{depth}-blocks": _of("vmrnn-b", depth=depth) for depth in (2, 6, 12, 18)},
        "12-blocks",
    ),
    "patch": _Experiment(
        "VMRNN-B with patches of other sides (4 cells published)",
        {f"patch-{side}": _of("vmrnn-b", patch=side) for side in (2, 4, 8)},
        "patch-4",
    ),
    "convolution": _Experiment(
        "VMRNN-B with other 3 x 3 convolutions before the scans: depthwise (published), plain, which mixes the "
        "channels too, and dilated, which is depthwise and reads every other token",
        {kind: _of("vmrnn-b", conv=kind) for kind in CONVOLUTIONS},
        "depthwise",
    ),
    "choices": _Experiment(
        "VMRNN-C with 3 of its 12 VSS blocks, as good on few data and trained in a third of the time, and the same "
        "without one of its choices at a time",
        {
            "vmrnn-c": _c(),
            # Nothing is learned: what the regressions say.
            "start-alone": _c(epochs=1, learning_rate=0.0, final_rate=0.0),
            "no-patterns": _c(patterns=0),
            "no-calendar": replace(_c(), calendar=False),
            "normal-with-own-day": replace(_c(), own_day=True),
            "no-weight-decay": _c(weight_decay=0.0),
            "no-average": _c(ema=0.0),
            "no-clipping": _c(clip=0.0),
            "no-views": _c(views=False),
            "squared-loss": _c(loss="squared"),
            "6-blocks": _c(depth=6),
            "12-blocks": _c(depth=12),
        },
        "vmrnn-c",
    ),
    "seeds": _Experiment(
        "Each architecture with its own recipe: how far the seed alone moves it",
        {name: _of(name) for name in ARCHITECTURES},
    ),
    "taxibj": _Experiment(
        "VMRNN-B with the published training on TaxiBJ, 4 -> 4, scored on its test windows. `chosen-by-test` is the "
        "published protocol: all training windows, and the best epoch by test error, which flatters it. "
        "`chosen-by-validation`: the last tenth of the training windows chooses the epoch, and test is read once",
        {
            f"chosen-by-{split}": _Variant({"name": "vmrnn-b"}, _PUBLISHED_TRAINING, chosen_by=split)
            for split in ("test", "validation")
        },
        metric="mse",
        published=_PUBLISHED,
    ),
}


def _find_experiment(name: str, variants: tuple[str, ...] = ()) -> tuple[dict[str, _Variant], list[str]]:
    """An experiment's variants, and the names of those to run: these `variants`, or all.

    Raises InputError for an unknown experiment or variant.
    """
    if name not in _EXPERIMENTS:
        raise InputError(f"unknown experiment '{name}'; known are: {', '.join(_EXPERIMENTS)}")
    known = _EXPERIMENTS[name].variants
    for variant in variants:
        if variant not in known:
            raise InputError(f"the experiment {name} has no variant '{variant}'; it has: {', '.join(known)}")
    return known, [key for key in known if not variants or key in variants]


def _read_table(file: Path, columns: list[str]) -> list[dict[str, Any]]:
    """The rows of a CSV file with these columns, none where there is no file. Raises InputError for a damaged one."""
    if not file.exists():
        return []
    with open(file, encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        try:
            if reader.fieldnames != columns:
                raise ValueError(f"its columns are not {', '.join(columns)}")
            return [{key: _KIND.get(key, float)(row[key]) for key in columns} for row in reader]
        except (ValueError, TypeError, csv.Error) as error:
            raise InputError(f"cannot read {file}, line {reader.line_num}: {error}; move it away") from None


def _write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of the same keys as CSV, atomically."""
    with atomic(file) as temporary, open(temporary, "w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _markdown(name: str, rows: list[dict[str, Any]], slot_minutes: int, command: str) -> str:
    """What came of an experiment for people: a line a variant, mean and spread over its seeds."""
    experiment = _EXPERIMENTS[name]
    scores = _shown(experiment, slot_minutes)
    header = [
        "variant",
        "parameters",
        "seeds",
        "best epoch",
        "s per epoch",
        *(heading for heading, _ in scores.values()),
    ]
    if experiment.reference is not None:
        header.append(f"{scores[experiment.metric][0]} less {experiment.reference}'s")
    table = [header, ["---"] * len(header)]
    for variant in experiment.variants:
        own = [row for row in rows if row["variant"] == variant]
        if own:
            best = ", ".join(str(row["best_epoch"]) for row in own) + f" of {own[0]['epochs']}"
            seconds = _mean_and_spread([row["seconds_per_epoch"] for row in own], 1)
            numbers = [_mean_and_spread([row[key] for row in own], digits) for key, (_, digits) in scores.items()]
            if variant == experiment.reference:
                numbers.append("-")
            elif experiment.reference is not None:
                numbers.append(_mean_and_spread(_differences(experiment, own, rows), scores[experiment.metric][1], "+"))
            table.append([variant, f"{own[0]['parameters']:,}", str(len(own)), best, seconds, *numbers])
    for other, published in experiment.published.items():
        numbers = [f"{published[key]:g}" if key in published else "" for key in scores]
        table.append([f"{other}, published", "", "", "", "", *numbers])
    return "\n".join(
        [
            f"{experiment.about}. {_what_is_scored(experiment)} Mean and standard deviation over seeds.",
            "",
            f"`{command}`",
            "",
            *("| " + " | ".join(cells) + " |" for cells in table),
            "",
        ]
    )


def _picture(file: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Every training as a dot and every variant's mean as a bar, as a PNG file."""
    experiment = _EXPERIMENTS[name]
    key = experiment.metric
    present = [variant for variant in experiment.variants if any(row["variant"] == variant for row in rows)]
    figure = Figure(figsize=(8, 1.5 + 0.4 * len(present)), layout="constrained")
    axes = figure.subplots()
    for place, variant in enumerate(present):
        values = [row[key] for row in rows if row["variant"] == variant]
        axes.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.6)
        axes.plot([np.mean(values)], [place], "|", color="black", markersize=18)
    for other, published in experiment.published.items():
        axes.axvline(published[key], color="lightgrey", zorder=0)
        axes.text(published[key], -0.6, other.split()[0], rotation=90, fontsize=7, va="bottom", ha="right")
    axes.set_yticks(range(len(present)), present)
    axes.set_ylim(len(present) - 0.4, -0.6)
    axes.set_xlabel("MSE as published, on test" if key == "mse" else "validation RMSE, vehicles per slot")
    axes.grid(axis="x", alpha=0.3)
    with atomic(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _shown(experiment: _Experiment, slot_minutes: int) -> dict[str, tuple[str, int]]:
    """Metric -> heading and decimals."""
    if experiment.metric == "mse":
        named = {"mse": ("MSE", 4), "mae_sum": ("MAE", 2), "ssim_openstl": ("SSIM", 4), "psnr": ("PSNR, dB", 2)}
        return named | {"rmse": ("RMSE, vehicles per slot", 2)}
    return {"rmse": ("RMSE", 3)} | {key: (f"+{lead * slot_minutes} min", 3) for lead, key in enumerate(_LEADS)}


def _what_is_scored(experiment: _Experiment) -> str:
    if experiment.metric == "mse":
        return "MSE, MAE, SSIM and PSNR as published (see `trafficcast/forecasting/metrics.py`)."
    return (
        "RMSE on the validation split, which also chose the epoch, in vehicles per slot over all cells and flow kinds; "
        "the test split is not read."
    )


def _differences(experiment: _Experiment, own: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[float]:
    """How far a variant's rows are above the reference's with the same seed."""
    reference = {row["seed"]: row[experiment.metric] for row in rows if row["variant"] == experiment.reference}
    return [row[experiment.metric] - reference[row["seed"]] for row in own if row["seed"] in reference]


def _mean_and_spread(values: list[float], digits: int, sign: str = "") -> str:
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "-"
    mean = f"{np.mean(known):{sign}.{digits}f}"
    return mean if len(known) < 2 else f"{mean} ± {np.std(known, ddof=1):.{digits}f}"
