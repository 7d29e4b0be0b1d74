"""Commands for the files whose records a city's stores hold: records list, records forget."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.options import CORES, Chosen, WorkersOption, for_city
from pipelines.cli.printing import print_json, print_rows


@for_city
def list_records(chosen: Chosen) -> None:
    """List the files that were ingested: how each was read and when, its rows, and what became of them."""
    from trafficcast.ingestion.forgetting import files_taken

    files = files_taken(chosen.stores)
    if chosen.as_json:
        print_json({"files": files})
    elif files:
        print_rows(files, f"Files whose records {chosen.city.name} holds")
    else:
        print(f"{chosen.city.name} holds no records yet: add some with trafficcast ingest PATH")


@for_city
def forget(
    chosen: Chosen,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Names as `records list` shows them, or patterns with *; NAME:SHA256 tells files of one name apart.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files and change nothing.")] = False,
    workers: WorkersOption = CORES,
) -> None:
    """Take the records of files back: records, flows and report are as if the files had never been ingested.

    A record that another file gave too stays.
    """
    from trafficcast.ingestion.forgetting import forget as run

    result = run(chosen.stores, files, dry_run, workers)
    if chosen.as_json:
        print_json(result)
        return
    print_rows(result["forgotten"], "Would be forgotten" if dry_run else "Forgotten")
    if result["report"] is not None:
        chosen.print(result["report"], f"Quality of {chosen.city.name}")
