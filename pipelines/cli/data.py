"""Commands from records to flows: ingest, quality, import-taxibj, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import CORES, Chosen, EndOption, FormatOption, StartOption, WorkersOption, for_city
from pipelines.cli.printing import print_json, print_object, print_rows
from trafficcast.errors import DamagedFile, InputError
from trafficcast.progress import log


@for_city
def ingest(
    chosen: Chosen,
    location: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="File, folder, glob or URL (s3://...); default: the city's inbox."),
    ] = None,
    record_format: FormatOption = None,
    start: StartOption = None,
    end: EndOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Ingest new files of the folder, again and again.")] = False,
    every: Annotated[
        float, typer.Option(min=1.0, help="Seconds between two looks into the folder with --watch.")
    ] = 60.0,
    check: Annotated[
        bool, typer.Option("--check", help="Store nothing; show how the first rows of PATH would be read.")
    ] = False,
    workers: WorkersOption = CORES,
    dask: Annotated[
        str | None, typer.Option(help="A Dask scheduler's address (tcp://...) whose workers read and count instead.")
    ] = None,
) -> None:
    """Read GPS points or trips, add them to the city's stores and count the flows that they change.

    Without PATH, and with --watch, a folder is an inbox: each new file is ingested once it is whole, and a file that
    cannot be read moves to the folder quarantine/, with the reason beside it.
    """
    from trafficcast.ingestion.first_look import first_look
    from trafficcast.ingestion.inbox import take_inbox
    from trafficcast.ingestion.inbox import watch as run_watch
    from trafficcast.ingestion.ingest import ingest as run

    city, stores = chosen.city, chosen.stores
    if check:
        if location is None or watch:
            raise InputError("--check goes with the PATH of records")
        _print_look(chosen, first_look(location, city, record_format))
        return
    if location is not None and not watch:
        report = run(location, stores, record_format, start, end, workers, dask)
        chosen.print(report, f"Quality of {city.name}")
        return
    if record_format or start or end or dask:
        raise InputError("--format, --start, --end and --dask go with the PATH of records, not with an inbox")
    inbox = Path(location) if location is not None else city.feed.inbox
    if inbox is None:
        raise InputError(f"name the PATH of records, or an inbox under [cities.{city.name}.feed]")
    if watch:
        run_watch(inbox, stores, every, workers)
    look = vars(take_inbox(inbox, stores, workers))
    chosen.print(look, f"Inbox of {city.name}", {**look, "report": None})
    if look["report"] is not None and not chosen.as_json:
        chosen.print(look["report"], f"Quality of {city.name}")


def _print_look(chosen: Chosen, look: dict[str, Any]) -> None:
    """Print how the first rows of files would be read."""
    if chosen.as_json:
        print_json(look)
        return
    for one in look["read"]:
        if one["rows"]:
            degrees = [
                {key: f"{v:.6f}" if isinstance(v, float) else v for key, v in row.items()} for row in one["rows"]
            ]
            print_rows(degrees, f"{Path(one['file']).name} as {one['format']}")
        facts = {key: one[key] for key in ("rows_looked_at", "rows_dropped", "in_box")}
        print_rows([{"read_as": note} for note in one["notes"]], "What was guessed from what")
        print_object(facts, one["file"])
    rest = {"files": look["files"], "passed_over": look["passed_over"]}
    print_object(rest, f"Nothing was stored for {chosen.city.name}")


@for_city
def quality(
    chosen: Chosen,
    start: StartOption = None,
    end: EndOption = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
) -> None:
    """Show the quality of the city's records: counters, calendar, gaps, suspicious vehicles and a suggested box."""
    from trafficcast.quality.quality import quality as run
    from trafficcast.quality.quality import summary

    report = run(chosen.stores, start, end, html)
    chosen.print(report, f"Quality of {chosen.city.name}", summary(report))


@for_city
def import_taxibj(
    chosen: Chosen,
    path: Annotated[Path, typer.Argument(help="A file of the release, OpenSTL's dataset.npz, or a folder of them.")],
) -> None:
    """Import the grids, weather and holidays of TaxiBJ, or the windows of OpenSTL."""
    from trafficcast.taxibj.import_grids import import_taxibj as run

    chosen.print(run(path, chosen.stores), f"Import to {chosen.city.name}")


@for_city
def export(
    chosen: Chosen,
    file: Annotated[Path, typer.Option("--out", help="The file to write.")],
    export_format: Annotated[str, typer.Option("--format", help="netcdf or taxibj.")] = "netcdf",
    start: StartOption = None,
    end: EndOption = None,
) -> None:
    """Write the city's grids to one file: CF NetCDF, or the layout of the official TaxiBJ files."""
    from trafficcast.stores.export import export as write_netcdf
    from trafficcast.stores.flows import read_flows
    from trafficcast.taxibj.files import export_taxibj

    writers = {"netcdf": write_netcdf, "taxibj": export_taxibj}
    if export_format not in writers:
        raise InputError(f"unknown format '{export_format}'; known are: {', '.join(writers)}")
    damaged: list[DamagedFile] = []
    slots = writers[export_format](chosen.city, read_flows(chosen.stores, start, end, damaged), file)
    for error in damaged:
        log.warning("%s; the file lacks its slots", error)
    result = {"file": str(file), "format": export_format, "slots": slots, "unreadable": [str(e.file) for e in damaged]}
    chosen.print(result, f"Export of {chosen.city.name}")
