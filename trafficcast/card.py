"""A model's card for people, CARD.md, and its training curve, from what `card.json` holds."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Metric -> heading and decimals.
COLUMNS = {
    "rmse": ("RMSE", 3),
    "mae": ("MAE", 3),
    "mse": ("MSE (published)", 4),
    "mae_sum": ("MAE (published)", 2),
    "ssim": ("SSIM", 4),
    "ssim_openstl": ("SSIM (OpenSTL)", 4),
    "psnr": ("PSNR, dB", 2),
}


def card_text(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    split, training, parameters = card["split"], card["training"], card["parameters"]
    lines = [
        f"# {card['version']} for {card['city']}",
        "",
        f"- Network: {card['architecture']['name']}, {card['grid']['rows']} x {card['grid']['cols']} cells, "
        f"{parameters['live']:,} live parameters ({parameters['published']:,} as published, unused ones included).",
        f"- Training {split['start']} to {split['train_end']} ({card['windows']['training']} windows), "
        f"validation to {split['valid_end']} ({card['windows']['validation']}), "
        f"test to {split['test_end']} ({card['windows']['test']}).",
        f"- {training['epochs']} epochs, batch {training['batch_size']}, AdamW, learning rate "
        f"{training['learning_rate']}, seed {training['seed']}, on {training['device']}. "
        f"Epoch {training['best_epoch']} was the best on validation.",
        f"- Scale (training maximum): {card['scale']:g} vehicles per slot.",
        f"- Data {card['data_hash'][:16]}, trafficcast {card['code_version']}, made {card['created']}.",
        f"- Command: `{card['command']}`",
        "",
        "RMSE and MAE are in vehicles per slot over all cells, flow kinds and leads. Validation chose the epoch; "
        "test was read once.",
    ]
    for name in ("test", "validation"):
        if card["metrics"][name]:
            rows = score_rows(card["metrics"][name], card["grid"]["slot_minutes"])
            lines += ["", f"## {name.capitalize()}", "", *_markdown(rows)]
    lines += ["", "![training curve](curve.png)", ""]
    return "\n".join(lines)


def score_rows(scores: dict[str, Any], slot_minutes: int) -> list[list[str]]:
    """A table's rows, its header first: for each forecaster all leads together, then lead by lead."""
    rows = [["forecaster", "lead", *(heading for heading, _ in COLUMNS.values())]]
    for name, values in scores.items():
        rows.append([name, "all", *(_number(values[key], digits) for key, (_, digits) in COLUMNS.items())])
        for lead in range(len(values["by_lead"]["rmse"])):
            numbers = (_number(values["by_lead"][key][lead], digits) for key, (_, digits) in COLUMNS.items())
            rows.append(["", f"+{lead * slot_minutes} min", *numbers])
    return rows


def write_curve(folder: Path, history: list[dict[str, float]]) -> None:
    """The training curve as curve.csv and curve.png."""
    with open(folder / "curve.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, history[0].keys())
        writer.writeheader()
        writer.writerows(history)
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    left.plot(epochs, [row["train_mse"] for row in history], color="tab:blue", marker=".")
    right.plot(epochs, [row["valid_rmse"] for row in history], color="tab:orange", marker=".")
    left.set(xlabel="epoch", yscale="log")
    left.set_ylabel("training loss (scaled MSE)", color="tab:blue")
    right.set_ylabel("validation RMSE, vehicles per slot", color="tab:orange")
    figure.savefig(folder / "curve.png", dpi=110)


def _markdown(rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
