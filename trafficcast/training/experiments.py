"""The experiments: the variants of a training that each compares, and its results as a table and a picture.

A row of results is one training: `variant`, `seed`, `epochs`, `best_epoch`, `parameters` (live ones),
`seconds_per_epoch` with validation, a `fingerprint` of flows, split and settings, and the scores of the best epoch: the
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
from trafficcast.stores.scores import METRICS
from trafficcast.training.card import _markdown
from trafficcast.training.settings import _RECIPES, TrainingSettings

_LEADS = [f"rmse_lead_{lead}" for lead in range(1, HORIZON + 1)]
_SCORES = [*METRICS, *_LEADS]
_RESULTS = ["variant", "seed", "epochs", "best_epoch", "parameters", "seconds_per_epoch", "fingerprint", *_SCORES]
_EPOCHS = ["variant", "seed", "epoch", "train_loss", "valid_rmse"]
# Types of the columns that are not floating-point numbers.
_TYPES: dict[str, Callable[[str], Any]] = {"variant": str, "fingerprint": str}
_TYPES |= dict.fromkeys(("seed", "epochs", "epoch", "best_epoch", "parameters"), int)
# Numbers of the papers on TaxiBJ, 4 -> 4, all with the best epoch by test error; the names as in `metrics.scores`.
_PAPERS = {
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
    """A network, the settings of its training, and its inputs.

    `network` is a card's architecture without the grid. Without `calendar` VMRNN-C reads zeros as calendar features.
    With `own_day` the climatology of training slots includes these slots' own day. `chosen_by` is the split that
    chooses the epoch: validation or, as in the papers, test.
    """

    network: dict[str, Any]
    settings: TrainingSettings
    calendar: bool = True
    own_day: bool = False
    chosen_by: str = "validation"


@dataclass(frozen=True)
class _Experiment:
    """Variants by name, and numbers of papers by name and metric. `metric` is compared with that of `reference`."""

    about: str
    variants: dict[str, _Variant]
    reference: str | None = None
    metric: str = "rmse"
    papers: dict[str, dict[str, float]] = field(default_factory=dict)


def _with_sizes(architecture: str, **sizes: Any) -> _Variant:
    """Return an architecture with some sizes changed, trained by its recipe."""
    return _Variant({"name": architecture, **sizes}, _RECIPES[architecture])


def _with_settings(depth: int = 3, patterns: int = 16, **settings: Any) -> _Variant:
    """Return a VMRNN-C with fewer blocks, trained with some settings changed."""
    network = {"name": "vmrnn-c", "depth": depth, "patterns": patterns}
    return _Variant(network, replace(_RECIPES["vmrnn-c"], **settings))


# Batch 16, Adam, 4e-4, seed 42 and the mean squared error are the defaults already.
_PAPER_TRAINING = TrainingSettings(epochs=200, published_schedule=True)

_EXPERIMENTS = {
    "blocks": _Experiment(
        "VMRNN-B with other numbers of VSS blocks (12 published)",
        {f"{depth}-blocks": _with_sizes("vmrnn-b", depth=depth) for depth in (2, 6, 12, 18)},
        "12-blocks",
    ),
    "patch": _Experiment(
        "VMRNN-B with patches of other sides (4 cells published)",
        {f"patch-{side}": _with_sizes("vmrnn-b", patch=side) for side in (2, 4, 8)},
        "patch-4",
    ),
    "convolution": _Experiment(
        "VMRNN-B with other 3 x 3 convolutions before the scans: depthwise (published), plain, which mixes the "
        "channels too, and dilated, which is depthwise and reads every other token",
        {kind: _with_sizes("vmrnn-b", conv=kind) for kind in CONVOLUTIONS},
        "depthwise",
    ),
    "choices": _Experiment(
        "VMRNN-C with 3 of its 12 VSS blocks, as good on few data and trained in a third of the time, and the same "
        "without one of its choices at a time",
        {
            "vmrnn-c": _with_settings(),
            # Nothing is learned: this is the linear forecast.
            "start-alone": _with_settings(epochs=1, learning_rate=0.0, final_rate=0.0),
            "no-patterns": _with_settings(patterns=0),
            "no-calendar": replace(_with_settings(), calendar=False),
            "normal-with-own-day": replace(_with_settings(), own_day=True),
            "no-weight-decay": _with_settings(weight_decay=0.0),
            "no-average": _with_settings(ema=0.0),
            "no-clipping": _with_settings(clip=0.0),
            "no-views": _with_settings(views=False),
            "squared-loss": _with_settings(loss="squared"),
            "6-blocks": _with_settings(depth=6),
            "12-blocks": _with_settings(depth=12),
        },
        "vmrnn-c",
    ),
    "seeds": _Experiment(
        "Each architecture with its own recipe: how far the seed alone moves it",
        {name: _with_sizes(name) for name in ARCHITECTURES},
    ),
    "taxibj": _Experiment(
        "VMRNN-B with the published training on TaxiBJ, 4 -> 4, scored on its test windows. `chosen-by-test` is the "
        "published protocol: all training windows, and the best epoch by test error, which flatters it. "
        "`chosen-by-validation`: the last tenth of the training windows chooses the epoch, and test is read once",
        {
            f"chosen-by-{split}": _Variant({"name": "vmrnn-b"}, _PAPER_TRAINING, chosen_by=split)
            for split in ("test", "validation")
        },
        metric="mse",
        papers=_PAPERS,
    ),
}


def _find_experiment(name: str, variants: tuple[str, ...] = ()) -> tuple[dict[str, _Variant], list[str]]:
    """Return an experiment's variants, and the names of those to run: `variants`, or all.

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
    """Read the rows of a CSV file with these columns, if it exists. Raises InputError where it is damaged."""
    if not file.exists():
        return []
    with open(file, encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        try:
            if reader.fieldnames != columns:
                raise ValueError(f"its columns are not {', '.join(columns)}")
            return [{key: _TYPES.get(key, float)(row[key]) for key in columns} for row in reader]
        except (ValueError, TypeError, csv.Error) as error:
            raise InputError(f"cannot read {file}, line {reader.line_num}: {error}; move it away") from None


def _write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of the same keys as CSV, atomically."""
    with atomic(file) as temporary, open(temporary, "w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _results_text(name: str, rows: list[dict[str, Any]], slot_minutes: int, command: str) -> str:
    """Return an experiment's results as Markdown: a line a variant, mean and standard deviation over its seeds."""
    experiment = _EXPERIMENTS[name]
    scores = _shown(experiment, slot_minutes)
    header = ["variant", "parameters", "seeds", "best epoch", "s per epoch"]
    header += [heading for heading, _ in scores.values()]
    if experiment.reference is not None:
        header.append(f"{scores[experiment.metric][0]} less {experiment.reference}'s")
    table = [header]
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
    for paper, metrics in experiment.papers.items():
        numbers = [f"{metrics[key]:g}" if key in metrics else "" for key in scores]
        table.append([f"{paper}, published", "", "", "", "", *numbers])
    about = f"{experiment.about}. {_about_scores(experiment)} Mean and standard deviation over seeds."
    return "\n".join([about, "", f"`{command}`", "", *_markdown(table), ""])


def _picture(file: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Draw every training as a dot and every variant's mean as a bar, as a PNG file."""
    experiment = _EXPERIMENTS[name]
    key = experiment.metric
    present = [variant for variant in experiment.variants if any(row["variant"] == variant for row in rows)]
    figure = Figure(figsize=(8, 1.5 + 0.4 * len(present)), layout="constrained")
    axes = figure.subplots()
    for y, variant in enumerate(present):
        values = [row[key] for row in rows if row["variant"] == variant]
        axes.plot(values, [y] * len(values), "o", color="tab:blue", alpha=0.6)
        axes.plot([np.mean(values)], [y], "|", color="black", markersize=18)
    for paper, metrics in experiment.papers.items():
        axes.axvline(metrics[key], color="lightgrey", zorder=0)
        axes.text(metrics[key], -0.6, paper.split()[0], rotation=90, fontsize=7, va="bottom", ha="right")
    axes.set_yticks(range(len(present)), present)
    axes.set_ylim(len(present) - 0.4, -0.6)
    axes.set_xlabel("MSE as published, on test" if key == "mse" else "validation RMSE, vehicles per slot")
    axes.grid(axis="x", alpha=0.3)
    with atomic(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _shown(experiment: _Experiment, slot_minutes: int) -> dict[str, tuple[str, int]]:
    """Return the columns of the table of results: metric -> heading and decimals."""
    if experiment.metric == "mse":
        named = {"mse": ("MSE", 4), "mae_sum": ("MAE", 2), "ssim_openstl": ("SSIM", 4), "psnr": ("PSNR, dB", 2)}
        return named | {"rmse": ("RMSE, vehicles per slot", 2)}
    return {"rmse": ("RMSE", 3)} | {key: (f"+{lead * slot_minutes} min", 3) for lead, key in enumerate(_LEADS)}


def _about_scores(experiment: _Experiment) -> str:
    """Return a sentence about the metrics in the table of results."""
    if experiment.metric == "mse":
        return "MSE, MAE, SSIM and PSNR as published (see `trafficcast/forecasting/metrics.py`)."
    return (
        "RMSE on the validation split, which also chose the epoch, in vehicles per slot over all cells and flow kinds; "
        "the test split is not read."
    )


def _differences(experiment: _Experiment, own: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[float]:
    """Return the differences of a variant's metric from the reference's with the same seed."""
    reference = {row["seed"]: row[experiment.metric] for row in rows if row["variant"] == experiment.reference}
    return [row[experiment.metric] - reference[row["seed"]] for row in own if row["seed"] in reference]


def _mean_and_spread(values: list[float], digits: int, sign: str = "") -> str:
    """Format mean and standard deviation; "-" where there is no finite value."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "-"
    mean = f"{np.mean(known):{sign}.{digits}f}"
    return mean if len(known) < 2 else f"{mean} ± {np.std(known, ddof=1):.{digits}f}"
