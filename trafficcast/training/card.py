"""A model's card for people, CARD.md, made from card.json, and its training curve."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trafficcast.stores.scores import METRICS

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_HOURS_OF_A_COLUMN = 3
_DIGITS = {"rmse": 3, "mae": 3, "mse": 4, "mae_sum": 2, "ssim": 4, "ssim_openstl": 4, "psnr": 2}


def _card_text(card: dict[str, Any]) -> str:
    """Return the card as Markdown."""
    split, training, parameters = card["split"], card["training"], card["parameters"]
    lines = [
        f"# {card['version']} for {card['city']}",
        "",
        f"- Network: {card['architecture']['name']}, {card['grid']['rows']} x {card['grid']['cols']} cells, "
        f"{parameters['live']:,} live parameters{_parameters_of_the_paper(parameters)}.",
        f"- Training {split['start']} to {split['train_end']} ({card['windows']['training']} windows), "
        f"validation to {split['valid_end']} ({card['windows']['validation']}), "
        f"test to {split['test_end']} ({card['windows']['test']}).",
        f"- {training['epochs']} epochs, batch {training['batch_size']}, AdamW, learning rate "
        f"{training['learning_rate']}, seed {training['seed']}, on {training['device']}. "
        f"Epoch {training['best_epoch']} was the best on validation.",
        *_transfer_line(card.get("transfer")),
        f"- Scale (training maximum): {card['scale']:g} vehicles per slot.",
        f"- Data {card['data_hash'][:16]}, trafficcast {card['code_version']}, made {card['created']}.",
        f"- Command: `{card['command']}`",
        "",
        *_window_lines(card.get("periods")),
        "RMSE and MAE are in vehicles per slot over all cells, flow kinds and leads. Validation chose the epoch; "
        "test was read once.",
    ]
    for name in ("test", "validation"):
        if card["metrics"][name]:
            rows = score_rows(card["metrics"][name], card["grid"]["slot_minutes"])
            lines += ["", f"## {name.capitalize()}", "", *_markdown(rows)]
    for name in ("test", "validation"):
        if coverage := card.get("intervals", {}).get(name):
            lines += ["", f"## Prediction intervals on {name}", "", *_interval_lines(card, coverage)]
    lines += ["", "![training curve](curve.png)", ""]
    return "\n".join(lines)


def _parameters_of_the_paper(parameters: dict[str, int]) -> str:
    """Return the number of parameters of the paper's network, in parentheses, where it has more."""
    if parameters["published"] == parameters["live"]:
        return ""
    return f" ({parameters['published']:,} as published, unused ones included)"


def _transfer_line(transfer: dict[str, Any] | None) -> list[str]:
    """Return the line about the model from which the training started, if any."""
    if transfer is None:
        return []
    seen = f", which was trained on this city until {transfer['seen_until']}" if transfer["seen_until"] else ""
    hashed = transfer["weights_sha256"][:16]
    return [f"- Started from the weights of {transfer['version']} for {transfer['city']} ({hashed}){seen}."]


def _window_lines(periods: dict[str, Any] | None) -> list[str]:
    """Return the lines about the windows of the splits, which cards of earlier versions do not have."""
    if periods is None:
        return []
    table = _markdown(window_rows(periods))
    return [slots_that_fell_out(periods), f"Windows by local time, {' / '.join(periods)}:", "", *table, ""]


def slots_that_fell_out(periods: dict[str, Any]) -> str:
    """Say how many slots of periods fell out because they are not observed.

    Parameters
    ----------
    periods
        Periods by name, as `trafficcast.forecasting.windows.describe_period` describes them.

    Returns
    -------
    str
        A sentence.
    """
    numbers = (f"{one['slots'] - one['observed']} of {one['slots']} ({name})" for name, one in periods.items())
    return f"Slots that are not observed fell out: {', '.join(numbers)}."


def window_rows(periods: dict[str, Any]) -> list[list[str]]:
    """Make a table of the windows by the local time of their init times: a row a weekday, a column three hours.

    Parameters
    ----------
    periods
        Periods by name, as `trafficcast.forecasting.windows.describe_period` describes them.

    Returns
    -------
    list[list[str]]
        The table's rows, its header first; a cell has the numbers of all periods, in their order.
    """
    by_hour = np.array([one["windows_by_hour"] for one in periods.values()])
    counts = by_hour.reshape(len(by_hour), len(_WEEKDAYS), -1, _HOURS_OF_A_COLUMN).sum(axis=3)
    rows = [["", *(f"{hour:02d}:00" for hour in range(0, 24, _HOURS_OF_A_COLUMN))]]
    for day, name in enumerate(_WEEKDAYS):
        rows.append([name, *(" / ".join(map(str, numbers)) for numbers in counts[:, day].T.tolist())])
    return rows


def score_rows(scores: dict[str, Any], slot_minutes: int) -> list[list[str]]:
    """Make a table of scores: for each forecaster all leads together, then lead by lead.

    Parameters
    ----------
    scores
        Metrics of each forecaster by name, as `trafficcast.forecasting.metrics.scores` returns them.
    slot_minutes
        Slot length, minutes.

    Returns
    -------
    list[list[str]]
        The table's rows, its header first.
    """
    rows = [["forecaster", "lead", *METRICS.values()]]
    for name, values in scores.items():
        rows.append([name, "all", *(_number(values[key], _DIGITS[key]) for key in METRICS)])
        for lead in range(len(values["by_lead"]["rmse"])):
            numbers = (_number(values["by_lead"][key][lead], _DIGITS[key]) for key in METRICS)
            rows.append(["", f"+{lead * slot_minutes} min", *numbers])
    return rows


def coverage_rows(coverage: dict[str, Any], slot_minutes: int) -> list[list[str]]:
    """Make a table of the coverage of prediction intervals: for each level all leads together, then lead by lead.

    Parameters
    ----------
    coverage
        Coverage, as `Intervals.coverage` returns it.
    slot_minutes
        Slot length, minutes.

    Returns
    -------
    list[list[str]]
        The table's rows, its header first.
    """
    rows = [["interval", "lead", "truths inside", "mean width"]]
    for level, values in coverage["levels"].items():
        inside, width = values["inside"], values["width"]
        rows.append([f"{float(level):.0%}", "all", f"{inside['all']:.1%}", f"{width['all']:.2f}"])
        for lead, numbers in enumerate(zip(inside["by_lead"], width["by_lead"], strict=True)):
            rows.append(["", f"+{lead * slot_minutes} min", f"{numbers[0]:.1%}", f"{numbers[1]:.2f}"])
    return rows


def _activity_rows(coverage: dict[str, Any]) -> list[list[str]]:
    """Return a table's rows, its header first, of `Intervals.coverage` by the band of the predicted flow."""
    bands, levels = coverage["bands"], coverage["levels"]
    names = [(f"{float(level):.0%}: truths inside", f"{float(level):.0%}: mean width") for level in levels]
    rows = [["predicted", "share of predictions", *(name for pair in names for name in pair)]]
    for band, (start, share) in enumerate(zip(bands["from"], bands["share"], strict=True)):
        row = [f"from {start:g}", f"{share:.1%}"]
        for values in levels.values():
            row += [f"{values['inside']['by_activity'][band]:.1%}", f"{values['width']['by_activity'][band]:.2f}"]
        rows.append(row)
    return rows


def _write_curve(folder: Path, history: list[dict[str, float]]) -> None:
    """Write the training curve as curve.csv and curve.png."""
    with open(folder / "curve.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, history[0].keys())
        writer.writeheader()
        writer.writerows(history)
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    columns = (
        (left, "train_loss", "training loss", "tab:blue"),
        (right, "valid_rmse", "validation RMSE, vehicles per slot", "tab:orange"),
    )
    for axis, column, label, colour in columns:
        values = [row[column] for row in history]
        low, high = min(values), max(values)
        axis.plot(epochs, values, color=colour, marker=".")
        axis.set_ylabel(label, color=colour)
        if high > 3 * low > 0:
            axis.set_yscale("log")
        else:
            # Without a margin a change of a thousandth would fill the figure.
            margin = max(0.05 * (high - low), 0.01 * abs(high))
            axis.set_ylim(low - margin, high + margin)
            axis.ticklabel_format(axis="y", useOffset=False)
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(folder / "curve.png", dpi=110)


def _interval_lines(card: dict[str, Any], coverage: dict[str, Any]) -> list[str]:
    """Return the lines about prediction intervals."""
    return [
        "Widths and predictions are in vehicles per slot. Counts are whole: where nearly all truths are 0, an interval "
        "that holds 0 holds more than its share.",
        "",
        *_markdown(coverage_rows(coverage, card["grid"]["slot_minutes"])),
        "",
        *_markdown(_activity_rows(coverage)),
    ]


def _markdown(rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table whose first row is the header."""
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def _number(value: float | None, digits: int) -> str:
    """Format a number; "-" where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
