"""The command line `trafficcast`: each command reads its options, calls one function and prints the result."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from pipelines.cli import cities, data, forecasting, machine, models, records, service, serving, simulation, training
from pipelines.cli.logs import log_to_stderr
from pipelines.service.logs import printable
from trafficcast import __version__
from trafficcast.errors import InputError, JobError

# The panels of `trafficcast --help`, in the order of a city's way from records to forecasts.
_PANELS = {
    "Data": (data.ingest, data.quality, data.export, data.import_taxibj, simulation.simulate),
    "Models": (training.train, training.backtest, training.retrain, training.experiment),
    "Forecasts": (forecasting.forecast, forecasting.replay, forecasting.verify),
    "Service": (
        service.schedule,
        service.status,
        service.fsck,
        service.repair,
        service.prune,
        serving.dashboard,
        serving.api,
    ),
    "Machine": (simulation.demo, machine.doctor, machine.benchmark),
}

app = typer.Typer(
    name="trafficcast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Traffic-flow forecasting: taxi GPS records -> city grids -> VMRNN network -> forecasts on a map.\n\n"
    "The usual order is ingest, train, backtest, forecast, dashboard. Dates and naive times are in the city's "
    "time zone; --start is inclusive, --end exclusive.",
)
_cities = typer.Typer(no_args_is_help=True, help="List the configuration's cities, add one.")
_cities.command("list")(cities.list_cities)
_cities.command("add")(cities.add)
_records = typer.Typer(no_args_is_help=True, help="List the files that were ingested, forget some of them.")
_records.command("list")(records.list_records)
_records.command("forget")(records.forget)
_models = typer.Typer(no_args_is_help=True, help="List, show and promote trained models.")
_models.command("list")(models.list_models)
_models.command("show")(models.show)
_models.command("promote")(models.promote)
_models.command("rollback")(models.rollback)
_models.command("seal")(models.seal)
app.add_typer(_cities, name="city", rich_help_panel="Data")
app.add_typer(_records, name="records", rich_help_panel="Data")
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.add_typer(_models, name="models", rich_help_panel="Models")


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 the job failed, 2 the call, a file or the configuration is wrong."""
    log_to_stderr()
    try:
        app()
    except InputError as error:
        sys.exit(_complain(error, 2))
    except (JobError, OSError) as error:
        sys.exit(_complain(error, 1))
    except KeyboardInterrupt:
        sys.exit(_complain("stopped; no file is half-written", 130))


def _complain(message: object, code: int) -> int:
    """Print an error on stderr and return the exit status."""
    print(f"trafficcast: {printable(str(message))}", file=sys.stderr)
    return code


def _show_version(show: bool) -> None:
    """Print the version and exit, if --version was given."""
    if show:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.getLogger("trafficcast").setLevel(logging.INFO)
