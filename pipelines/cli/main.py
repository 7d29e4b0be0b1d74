"""The command line `trafficcast`. Each command reads its options, calls one pipeline and prints what came of it."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.logging import RichHandler

from pipelines.cli.printing import _out, _print_coverage, _print_json, _print_object, _print_rows, _print_scores
from trafficcast import __version__
from trafficcast.config.city import City
from trafficcast.config.settings import Config, load_config
from trafficcast.errors import InputError, JobError

app = typer.Typer(
    name="trafficcast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Traffic-flow forecasting: taxi GPS records -> city grids -> VMRNN-B -> forecasts on a map.\n\n"
    "The usual order is ingest, train, backtest, forecast, dashboard. Dates and naive times are in the city's "
    "time zone; --start is inclusive, --end exclusive.",
)
models_app = typer.Typer(no_args_is_help=True, help="List, show and promote trained models.")
app.add_typer(models_app, name="models")
city_app = typer.Typer(no_args_is_help=True, help="List the configuration's cities, add one.")
app.add_typer(city_app, name="city")

ConfigOption = Annotated[Path, typer.Option("--config", help="The configuration file.")]
CityOption = Annotated[str | None, typer.Option("--city", help="The city; default: the configuration's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
StartOption = Annotated[str | None, typer.Option("--start", help="First date or time, inclusive.")]
EndOption = Annotated[str | None, typer.Option("--end", help="Last date or time, exclusive.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="A model version; default: the champion.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="The records' format; default: recognised from their content.")
]
WorkersOption = Annotated[int, typer.Option(min=1, help="Threads that read, count and write.")]
CONFIG = Path("config.toml")
CORES = os.cpu_count() or 1


@app.command()
def ingest(
    location: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="File, folder, glob or URL (s3://...); default: the city's inbox."),
    ] = None,
    record_format: FormatOption = None,
    start: StartOption = None,
    end: EndOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Take what is new in the folder, again and again.")] = False,
    every: Annotated[float, typer.Option(min=1.0, help="Seconds from one look of --watch to the next.")] = 60.0,
    workers: WorkersOption = CORES,
    dask: Annotated[
        str | None, typer.Option(help="A Dask scheduler's address (tcp://...) whose workers read and count instead.")
    ] = None,
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read GPS points or trips, add them to the city's stores and count what they change of its flows.

    Without PATH, and with --watch, a folder is an inbox: each new file is taken once it is whole, and one that cannot
    be read moves to its quarantine/, with the reason beside it.
    """
    from trafficcast.ingest.inbox import take_inbox
    from trafficcast.ingest.inbox import watch as run_watch
    from trafficcast.ingest.ingest import ingest as run

    settings, place = _open(config, city)
    if location is not None and not watch:
        period = _time(place, start), _time(place, end)
        report = run(location, record_format, place, settings.paths.data, *period, workers, dask)
        _print_object(report, as_json, f"Quality of {place.name}")
        return
    if record_format or start or end or dask:
        raise InputError("--format, --start, --end and --dask go with the PATH of records, not with an inbox")
    inbox = Path(location) if location is not None else place.feed.inbox
    if inbox is None:
        raise InputError(f"name the PATH of records, or an inbox under [cities.{place.name}.feed]")
    if watch:
        run_watch(inbox, place, settings.paths.data, every, workers)
    look = vars(take_inbox(inbox, place, settings.paths.data, workers))
    _print_object(look if as_json else {**look, "report": None}, as_json, f"Inbox of {place.name}")
    if look["report"] is not None and not as_json:
        _print_object(look["report"], False, f"Quality of {place.name}")


@app.command()
def quality(
    start: StartOption = None,
    end: EndOption = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the city's stores hold: counters, calendar, gaps, suspicious vehicles and a box to suggest."""
    from trafficcast.quality.quality import quality as run
    from trafficcast.quality.quality import summary

    settings, place = _open(config, city)
    report = run(place, settings.paths.data, _time(place, start), _time(place, end), html)
    _print_object(report if as_json else summary(report), as_json, f"Quality of {place.name}")


@app.command()
def train(
    model: Annotated[
        str,
        typer.Option("--model", help="vmrnn-c (knows what is normal, and the calendar), vmrnn-b, or vmrnn-d (deep)."),
    ] = "vmrnn-c",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training windows.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows a step; fewer need less memory.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-8, help="Highest learning rate of the cosine.")] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0.0, help="AdamW's weight decay.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and drop path.")] = None,
    train_end: Annotated[str | None, typer.Option(help="Training uses the slots before this time.")] = None,
    valid_end: Annotated[str | None, typer.Option(help="Validation ends, test begins here.")] = None,
    test_end: Annotated[str | None, typer.Option(help="Test ends here; default: the last slot.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted training stopped.")] = False,
    transfer: Annotated[
        str | None,
        typer.Option(metavar="[CITY/]VERSION", help="Start from this model's weights instead of random ones."),
    ] = None,
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network on the city's flows and publish it, with its card, in the registry.

    Without the three ends the last 15 % of the slots are test and the 10 % before them validation, cut at midnights.
    Every architecture has its own recipe for what is not given.
    """
    from trafficcast.training.distributed import process_group, rank
    from trafficcast.training.settings import recipe
    from trafficcast.training.train import train as run

    settings, place = _open(config, city)
    given = recipe(
        model, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay, seed=seed
    )
    ends = _time(place, train_end), _time(place, valid_end), _time(place, test_end)
    with process_group():
        if rank():  # of torchrun's processes only the first one speaks, but for errors
            logging.disable(logging.WARNING)
        card = run(place, settings.paths.data, settings.paths.models, model, given, *ends, device, resume, transfer)
    if not card:
        return
    if as_json:
        _print_json(card)
    else:
        _print_scores(card["metrics"]["test"] or card["metrics"]["validation"], place.slot_minutes)
        _out.print(f"Published {card['version']}.")


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="blocks, patch, convolution, choices, seeds or taxibj.")],
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this variant; may be repeated. Default: all.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 42 on.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: what each architecture's recipe says.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows a step; default: as for --epochs.")] = None,
    train_end: Annotated[str | None, typer.Option(help="Training uses the slots before this time.")] = None,
    valid_end: Annotated[str | None, typer.Option(help="Validation ends here; nothing later is read.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; default: data/CITY/experiments/NAME.")
    ] = None,
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare variants of the networks and of their training, each with several seeds, on the validation split.

    Writes results.csv, results.md, results.png and epochs.csv; the same command again goes on where it was stopped.
    """
    from trafficcast.training.run_experiment import experiment as run

    settings, place = _open(config, city)
    ends = _time(place, train_end), _time(place, valid_end)
    command = shlex.join(["trafficcast", *sys.argv[1:]])
    chosen, sizes = tuple(variant or ()), (seeds, epochs, batch_size)
    rows, table = run(name, place, settings.paths.data, command, folder, chosen, *sizes, *ends, device)
    if as_json:
        _print_json({"experiment": name, "city": place.name, "results": rows})
    else:
        print(table)


@app.command()
def backtest(
    start: Annotated[str, typer.Option("--start", help="First target slot, inclusive.")],
    end: Annotated[str, typer.Option("--end", help="End of the last target slot, exclusive.")],
    model: ModelOption = None,
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model beside every baseline on a past period."""
    from trafficcast.forecasting.evaluation import backtest as run

    settings, place = _open(config, city)
    period = _time(place, start), _time(place, end)
    result = run(place, settings.paths.data, settings.paths.models, *period, model, device)
    if as_json:
        _print_json(result)
    else:
        _out.print(f"{result['forecasts']} forecasts of {place.name} from {result['start']} to {result['end']}")
        _print_scores(result["scores"], place.slot_minutes)
        if result["intervals"]:
            _print_coverage(result["intervals"], place.slot_minutes)


@app.command()
def forecast(
    init_time: Annotated[str | None, typer.Option(help="Start of the first slot to forecast.")] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast the four slots from an init time on and put them into the forecast store.

    Without --init-time the forecast starts right after the last observed slot.
    """
    from trafficcast.forecasting.publish import forecast as run

    settings, place = _open(config, city)
    made = run(place, settings.paths.data, settings.paths.models, _time(place, init_time), model, device).isel(
        init_time=0
    )
    rows = [
        {
            "slot_start": place.isoformat(valid),
            "lead_minutes": int(lead / np.timedelta64(1, "m")),
            "inflow": float(flow[0].sum()),
            "outflow": float(flow[1].sum()),
            "highest_cell": float(flow.max()),
        }
        for valid, lead, flow in zip(
            made["valid_time"].values, made["lead_time"].values, made["flow"].values, strict=True
        )
    ]
    result = {
        "city": place.name,
        "model": made.attrs["model_version"],
        "init_time": place.isoformat(made["valid_time"].values[0]),
        "slots": rows,
    }
    if as_json:
        _print_json(result)
    else:
        _print_rows(rows, f"{place.name}, {result['model']}: vehicles per slot over the whole grid")


@app.command()
def verify(
    start: StartOption = None,
    end: EndOption = None,
    model: ModelOption = None,
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score stored forecasts whose slots have come, beside the baselines."""
    from trafficcast.forecasting.verify import verify as run

    settings, place = _open(config, city)
    version, result = run(
        place, settings.paths.data, settings.paths.models, _time(place, start), _time(place, end), model
    )
    summary = {"city": place.name, "model": version, "scored": result.scored, "waiting": result.waiting}
    _print_object(summary, as_json, f"Verified forecasts of {place.name}")


@app.command()
def replay(
    start: Annotated[str, typer.Option("--start", help="First init time, inclusive.")],
    end: Annotated[str, typer.Option("--end", help="Last init time, exclusive.")],
    speed: Annotated[
        str, typer.Option("--speed", help="max, or how many times faster than the clock, such as 60.")
    ] = "max",
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the service's cycles over a past period as if live: forecast slot by slot, verify as the next ones come."""
    from pipelines.service.replay import replay as run

    settings, place = _open(config, city)
    period = _time(place, start), _time(place, end)
    paths = settings.paths
    result = run(place, paths.data, paths.models, *period, settings.service, _speed(speed), device)
    _print_object(result, as_json, f"Replay of {place.name}")


@app.command()
def schedule(
    city: Annotated[
        list[str] | None, typer.Option("--city", help="Only this city; may be repeated. Default: all.")
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log one JSON object a line, on stderr.")] = False,
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
) -> None:
    """Run cities unattended: take in what arrives, forecast every slot, verify, retrain, prune, raise alerts.

    Runs until SIGTERM or Ctrl-C. `trafficcast status` says how it goes; so do /healthz and /metrics over HTTP.
    """
    from pipelines.service.logs import JsonLines, TextLines
    from pipelines.service.schedule import schedule as run

    settings = load_config(config)
    for name in ("trafficcast", "apscheduler"):
        _log_lines(name, JsonLines() if log_json else TextLines())
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    run(settings, [settings.city(name) for name in city or sorted(settings.cities)], device)


@app.command()
def status(
    city: Annotated[
        list[str] | None, typer.Option("--city", help="Only this city; may be repeated. Default: all.")
    ] = None,
    config: ConfigOption = CONFIG,
    as_json: JsonOption = False,
) -> None:
    """How the service does: for each city data, forecast, jobs, skill of the last day and open alerts."""
    from pipelines.cli.printing import _print_status
    from pipelines.service.status import status as run

    settings = load_config(config)
    cities = [settings.city(name) for name in city or sorted(settings.cities)]
    told = run(settings, cities, np.datetime64("now", "us"))
    if as_json:
        _print_json(told)
    else:
        _print_status(told)


@app.command()
def retrain(
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a challenger on the latest data; promote it where it beats the champion on days neither was trained on."""
    from trafficcast.training.retrain import retrain as run

    settings, place = _open(config, city)
    result = run(place, settings.paths.data, settings.paths.models, settings.retraining, device)
    _print_object(result, as_json, f"Retraining of {place.name}")


@app.command()
def prune(
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what is older than the configuration's [retention] keeps."""
    from pipelines.service.prune import prune as run

    settings, place = _open(config, city)
    paths = settings.paths
    result = run(place, paths.data, paths.models, settings.retention, np.datetime64("now", "us"))
    _print_object(dict(result), as_json, f"Pruned of {place.name}")


@app.command("import-taxibj")
def import_taxibj(
    path: Annotated[Path, typer.Argument(help="A file of the release, OpenSTL's dataset.npz, or a folder of them.")],
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import the grids, weather and holidays of TaxiBJ, and OpenSTL's ready windows."""
    from trafficcast.taxibj.import_grids import import_taxibj as run

    settings, place = _open(config, city)
    _print_object(run(path, place, settings.paths.data), as_json, f"Import to {place.name}")


@app.command()
def simulate(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the records; must not hold anything yet.")],
    vehicles: Annotated[int, typer.Option(min=1, help="Taxis.")] = 400,
    days: Annotated[int, typer.Option(min=1, help="Local days.")] = 21,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    file_format: Annotated[
        str, typer.Option("--format", help="cabspotting, tdrive, parquet, csv, porto or tlc.")
    ] = "cabspotting",
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a city's taxi records, and write the true flows beside them, to OUT.truth.nc."""
    from pipelines.cli.simulation import _simulate as run

    _, place = _open(config, city)
    _print_object(run(place, folder, vehicles, days, seed, file_format), as_json, f"Simulated records of {place.name}")


@app.command()
def export(
    file: Annotated[Path, typer.Option("--out", help="The file to write.")],
    export_format: Annotated[str, typer.Option("--format", help="netcdf or taxibj.")] = "netcdf",
    start: StartOption = None,
    end: EndOption = None,
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the city's grids to one file: CF NetCDF, or the layout of the official TaxiBJ files."""
    from trafficcast.stores.export import export as write_netcdf
    from trafficcast.stores.flows import read_flows
    from trafficcast.taxibj.files import export_taxibj

    writers = {"netcdf": write_netcdf, "taxibj": export_taxibj}
    if export_format not in writers:
        raise InputError(f"unknown format '{export_format}'; known are: {', '.join(writers)}")
    settings, place = _open(config, city)
    flows = read_flows(settings.paths.data, place, _time(place, start), _time(place, end))
    result = {"file": str(file), "format": export_format, "slots": writers[export_format](place, flows, file)}
    _print_object(result, as_json, f"Export of {place.name}")


@app.command()
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 8501,
    address: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    config: ConfigOption = CONFIG,
    city: CityOption = None,
) -> None:
    """Serve the dashboard: predicted beside observed flows on the city's map."""
    from pipelines.cli.serving import _command

    _, place = _open(config, city)
    _out.print(f"The dashboard of {place.name} is at http://{address}:{port} (stop with Ctrl-C)")
    words = _command(config, place.name, port, address)
    sys.stdout.flush()
    os.execv(words[0], words)  # the server takes this process's place, so that signals reach it


@app.command()
def api(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 8600,
    address: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", metavar="ORIGIN", help="Pages of this origin may read the answers; may be repeated."),
    ] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Serve the read-only HTTP API of all cities; needs the extra [api].

    Requests must show the token of the environment variable TRAFFICCAST_API_TOKEN where it is set.
    """
    from trafficcast.api.server import serve

    serve(load_config(config), address, port, tuple(cors or ()))


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--dashboard/--no-dashboard", help="Serve the dashboard at the end.")] = True,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 8501,
    config: ConfigOption = CONFIG,
) -> None:
    """Three simulated weeks of a small city: simulate, ingest, replay the last day, look at it."""
    from pipelines.cli.simulation import _CITY
    from pipelines.cli.simulation import _demo as run

    settings, place = _open(config, _CITY)
    _print_object(run(place, settings.paths.data, settings.paths.models), False, "Demo")
    if serve:
        dashboard(port=port, address="127.0.0.1", config=config, city=place.name)


@app.command()
def benchmark(
    file: Annotated[
        Path | None, typer.Argument(help="Write the JSON object to this file, and the tables on stdout.")
    ] = None,
    suite: Annotated[
        str, typer.Option("--suite", help="ingest, vmrnn, service, dashboard or gpu; default: the first two.")
    ] = "all",
    picture: Annotated[
        Path | None, typer.Option(help="Draw how time grows with the number of tokens (vmrnn) to this PNG file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine: ingests beside DuckDB and pandas, the network beside naive ones, the service, a GPU."""
    from pipelines.benchmarks.suites import benchmark as run
    from trafficcast.files import write_json

    results = {name: run(name, picture) for name in (("ingest", "vmrnn") if suite == "all" else (suite,))}
    if file is not None:
        write_json(file, results)
    elif as_json:
        _print_json(results)
        return
    for name, rows in results.items():
        _print_rows(rows, f"{name}, this machine")


@app.command()
def doctor(config: ConfigOption = CONFIG, as_json: JsonOption = False) -> None:
    """Check this installation: versions, device, which scan is used, write access, configuration."""
    from pipelines.cli.machine import _doctor as run

    result = run(config)
    _print_object(result, as_json, "trafficcast doctor")
    if result["problems"]:
        raise typer.Exit(1)


@models_app.command("list")
def models_list(config: ConfigOption = CONFIG, city: CityOption = None, as_json: JsonOption = False) -> None:
    """The city's trained models with their test and validation errors."""
    registry = _registry(config, city)
    champion = registry.champion()
    rows = []
    for version in registry.versions():
        card = registry.card(version)
        row = {"version": version, "champion": version == champion, "created": card["created"]}
        for split in ("validation", "test"):
            row[f"{split}_rmse"] = card["metrics"][split].get(version, {}).get("rmse")
        rows.append(row)
    if as_json:
        _print_json({"city": registry.city.name, "champion": champion, "models": rows})
    elif rows:
        _print_rows(rows, f"Models of {registry.city.name}")
    else:
        print(f"'{registry.city.name}' has no model yet: run trafficcast train --city {registry.city.name}")


@models_app.command("show")
def models_show(
    version: Annotated[str | None, typer.Argument(help="Default: the champion.")] = None,
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """A model's card."""
    registry = _registry(config, city)
    version = version or registry.champion()
    if version is None:
        raise InputError(f"'{registry.city.name}' has no model yet")
    card = registry.card(version)
    if as_json:
        _print_json(card)
    else:
        print((registry.root / version / "CARD.md").read_text(encoding="utf-8"))


@models_app.command("promote")
def models_promote(
    version: Annotated[str, typer.Argument(help="The version that commands shall use.")],
    config: ConfigOption = CONFIG,
    city: CityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion."""
    registry = _registry(config, city)
    registry.promote(version)
    _print_object({"city": registry.city.name, "champion": version}, as_json, "Champion")


@city_app.command("list")
def city_list(config: ConfigOption = CONFIG, as_json: JsonOption = False) -> None:
    """The configuration's cities: grid, slots, zone, the days of flows that are stored, and the champion."""
    from pipelines.cli.cities import _city_rows

    rows = _city_rows(load_config(config))
    if as_json:
        _print_json({"cities": rows})
    elif rows:
        _print_rows(rows, f"Cities of {config}")
    else:
        print(f"{config} has no city yet: add one with trafficcast city add NAME --records PATH")


@city_app.command("add")
def city_add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and single dashes.")],
    records: Annotated[str, typer.Option("--records", help="File, folder, glob or URL of GPS points or trips.")],
    record_format: FormatOption = None,
    timezone: Annotated[str | None, typer.Option(help="The city's IANA time zone, such as Asia/Kolkata.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, max=1024, help="Rows of cells; default: what fits.")] = None,
    cols: Annotated[int | None, typer.Option(min=1, max=1024, help="Columns of cells; default: what fits.")] = None,
    slot_minutes: Annotated[
        int | None, typer.Option(min=1, max=1440, help="Minutes of a slot; default: 30, or more for few records.")
    ] = None,
    feed: Annotated[
        list[str] | None,
        typer.Option("--feed", help="KEY=VALUE of the city's feed, such as columns.time=when; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the table and write nothing.")] = False,
    config: ConfigOption = CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Choose a box, a grid and a slot length that fit a new city's records, and write its table into the configuration.

    The file keeps its comments and order: the table comes at its end, for you to change before the first ingest.
    """
    from trafficcast.new_city.add import add_city

    result = add_city(
        config, name, records, record_format, timezone, rows, cols, slot_minutes, tuple(feed or ()), dry_run
    )
    if as_json:
        _print_json(result)
    elif dry_run:
        print(result["toml"], end="")
    else:
        shown = {key: result[key] for key in ("records", "kind", "rows_dropped", "why", "notes")}
        _print_object({**shown.pop("why"), **shown}, False, f"City {name}")
        print(f"Written to {config}:\n\n{result['toml']}\nNext:\n" + "\n".join(result["next"]))


@models_app.command("rollback")
def models_rollback(config: ConfigOption = CONFIG, city: CityOption = None, as_json: JsonOption = False) -> None:
    """Undo a promotion: the champion before this one is the champion again."""
    registry = _registry(config, city)
    _print_object({"city": registry.city.name, "champion": registry.rollback()}, as_json, "Champion")


def _version(show: bool) -> None:
    if show:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.getLogger("trafficcast").setLevel(logging.INFO)


def main() -> None:
    """The console script. Exit 0 done, 1 the job failed, 2 the call or the configuration is wrong."""
    _log_to_stderr()
    try:
        app()
    except InputError as error:
        sys.exit(_complain(error, 2))
    except (JobError, OSError) as error:
        sys.exit(_complain(error, 1))
    except KeyboardInterrupt:
        sys.exit(_complain("stopped; nothing half-written was left", 130))


def _complain(what: object, code: int) -> int:
    print(f"trafficcast: {what}", file=sys.stderr)
    return code


def _log_to_stderr() -> None:
    console = Console(stderr=True)
    if console.is_terminal:
        _log_through("trafficcast", RichHandler(console=console, show_path=False, show_level=False))
    else:
        _log_lines("trafficcast", logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))


def _log_lines(name: str, lines: logging.Formatter) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(lines)
    _log_through(name, handler)


def _log_through(name: str, handler: logging.Handler) -> None:
    """Have a logger write through one handler: a second call, stderr being another by now, takes the first's place."""
    handler.set_name("trafficcast on stderr")
    logger = logging.getLogger(name)
    logger.handlers = [other for other in logger.handlers if other.name != handler.name] + [handler]


def _open(config: Path, city: str | None) -> tuple[Config, City]:
    settings = load_config(config)
    return settings, settings.city(city)


def _registry(config: Path, city: str | None) -> Any:
    from trafficcast.stores.registry import Registry

    settings, place = _open(config, city)
    return Registry(settings.paths.models / place.name, place)


def _speed(text: str) -> float | None:
    try:
        speed = None if text == "max" else float(text)
    except ValueError:
        speed = -1.0
    if speed is not None and not 0 < speed < float("inf"):
        raise InputError(f"--speed is max or a number above 0, not '{text}'")
    return speed


def _time(city: City, text: str | None) -> Any:
    return None if text is None else city.parse_time(text)


if __name__ == "__main__":
    main()
