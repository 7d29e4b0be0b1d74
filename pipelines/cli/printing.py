"""The output of commands on stdout: a table for people, or one JSON object and nothing else."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.service.logs import printable
from trafficcast.files import json_text

_MOST_SHOWN = 10  # items of a list; --json has them all
# Where the output is not a terminal, tables are wide enough that no cell is folded.
out = Console() if sys.stdout.isatty() else Console(width=140)


def print_json(values: dict[str, Any]) -> None:
    """Print one JSON object, with null in place of a value that is not a number."""
    print(json_text(values))


def print_object(values: dict[str, Any], title: str) -> None:
    """Print a table of keys and values."""
    table = Table("", "", title=title, show_header=False)
    for key, value in values.items():
        table.add_row(key.replace("_", " "), _plain(value))
    out.print(table)


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    """Print a table of rows with the same keys; all columns but the first are aligned to the right."""
    table = Table(title=title)
    for number, heading in enumerate(rows[0]):
        table.add_column(heading.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_plain(value) for value in row.values()))
    out.print(table)


def print_scores(scores: dict[str, Any], slot_minutes: int) -> None:
    """Print the forecasters' scores (see `metrics.scores`) over all lead times and for each lead time."""
    from trafficcast.training.card import (
        score_rows,  # not at the top: plotting is slow to import, and --help is asked often
    )

    title = "RMSE and MAE in vehicles per slot over all cells and flow kinds; the others are the TaxiBJ metrics"
    _print_by_lead(score_rows(scores, slot_minutes), title)


def print_coverage(coverage: dict[str, Any], slot_minutes: int) -> None:
    """Print the coverage of prediction intervals (see `Intervals.coverage`) by level and lead time."""
    from trafficcast.training.card import coverage_rows

    _print_by_lead(coverage_rows(coverage, slot_minutes), "Prediction intervals; widths in vehicles per slot")


def print_windows(periods: dict[str, Any]) -> None:
    """Print how many slots of periods fell out, and the windows by weekday and hour (see `describe_period`)."""
    from trafficcast.training.card import slots_that_fell_out, window_rows

    header, *rows = window_rows(periods)
    table = Table(*header, title=f"{slots_that_fell_out(periods)}\nWindows by local time: {' / '.join(periods)}")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _print_by_lead(rows: list[list[str]], title: str) -> None:
    """Print a table whose second column is the lead time; the rows over all lead times are bold."""
    header, *rows = rows
    table = Table(title=title)
    for number, heading in enumerate(header):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row, style="bold" if row[1] == "all" else "")
    out.print(table)


def _plain(value: Any) -> str:
    """Write a value for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        shown = [_plain(item) for item in value[:_MOST_SHOWN]]
        more = [f"and {len(value) - _MOST_SHOWN:,} more"] if len(value) > _MOST_SHOWN else []
        return (";\n" if value and isinstance(value[0], dict) else ", ").join([*shown, *more]) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else escape(printable(str(value)))


def print_status(status: dict[str, Any]) -> None:
    """Print the service's status, a table for each city."""
    print(f"The service {'runs' if status['running'] else 'does not run'}. {status['time']}")
    for name, values in status["cities"].items():
        if "error" in values:
            print_object({"error": values["error"]}, name)
            continue
        jobs = {f"job {job}": _job_line(run) for job, run in values.pop("jobs").items()}
        alerts = [f"since {alert['raised']}: {alert['message']}" for alert in values.pop("alerts") or []]
        print_object(values | jobs | {"alerts": alerts}, name)


def print_checks(found: dict[str, Any]) -> None:
    """Print what a check of the cities found: a line for each city, and one for each file that is not whole."""
    for name, city in found.items():
        checked = ", ".join(f"{n:,} of {kind}" for kind, n in city["checked"].items())
        numbers = [f"{len(city[key])} {key}" for key in ("rebuildable", "rebuilt", "lost") if city.get(key)]
        numbers += ["could not be checked"] if city["error"] else []
        print(f"{name}: {', '.join(numbers) or 'all is whole'}{f' (files read: {checked})' if checked else ''}")
        for key in ("rebuildable", "rebuilt", "lost"):
            for one in city.get(key, []):
                print(printable(f"- {key}: {one['wrong']}: {one['done']}"))
        if city["error"]:
            print(printable(f"- {city['error']}"))


def _job_line(run: dict[str, Any]) -> str:
    """Write the last and the next run of a job in a line."""
    following = f", next {run['next']}" if run["next"] else ""
    detail = f" ({run['detail']})" if run["detail"] else ""
    return f"{run['last'] or 'never'}, {run['result'] or '-'}{following}{detail}"
