"""Commands for the unattended service: schedule, status, prune."""

from __future__ import annotations

import logging
from typing import Annotated

import numpy as np
import typer

from pipelines.cli.logs import lines_handler, log_through
from pipelines.cli.options import CONFIG, Chosen, CitiesOption, ConfigOption, DeviceOption, JsonOption, for_city
from pipelines.cli.printing import print_checks, print_json, print_object, print_status
from trafficcast.errors import InputError


def schedule(
    city: CitiesOption = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Write each log line as a JSON object, on stderr.")
    ] = False,
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
) -> None:
    """Run cities unattended: ingest new files, forecast every slot, verify, retrain, prune, raise alerts.

    It runs until SIGTERM or Ctrl-C; SIGHUP reloads the configuration. `trafficcast status` shows its status; /healthz
    and /metrics do so over HTTP.
    """
    from pipelines.service.logs import EqualErrors, JsonLines, TextLines
    from pipelines.service.schedule import schedule as run
    from trafficcast.config.city import City
    from trafficcast.config.settings import Config, load_config

    def read() -> tuple[Config, list[City]]:
        settings = load_config(config)
        return settings, [settings.city(name) for name in city or sorted(settings.cities)]

    settings, cities = read()
    handler = lines_handler(JsonLines() if log_json else TextLines())
    handler.addFilter(EqualErrors())
    for name in ("trafficcast", "apscheduler"):
        log_through(name, handler)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    run(settings, cities, device, read)


def status(city: CitiesOption = None, config: ConfigOption = CONFIG, as_json: JsonOption = False) -> None:
    """Show the status of the service: each city's data, forecast, jobs, skill of the last day and open alerts."""
    from pipelines.service.status import status as run
    from trafficcast.config.settings import load_config

    settings = load_config(config)
    cities = [settings.city(name) for name in city or sorted(settings.cities)]
    found = run(settings, cities, np.datetime64("now", "us"))
    if as_json:
        print_json(found)
    else:
        print_status(found)


def fsck(
    city: CitiesOption = None,
    mend: Annotated[bool, typer.Option("--repair", help="Mend what is damaged, as trafficcast repair does.")] = False,
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Check every store, model and database: what is whole, what can be rebuilt and how, and what is lost.

    All files are read and compared with their checksums: records and their database, flows, forecasts, scores, the
    latest files, the quality report, models with their seals, the list of champions, the ledger and the book of alerts.
    Nothing is changed without --repair, and the service may run.

    Exit codes, for cron: 0 all is whole; 1 something is damaged and can be rebuilt, or with --repair was; 3 something
    is lost; 4 a city could not be checked. The worst of all cities counts, and 2 is a wrong call.
    """
    from pipelines.service.fsck import fsck as run
    from trafficcast.config.settings import load_config
    from trafficcast.stores.city_stores import CityStores

    settings = load_config(config)
    all_stores = [CityStores.of(settings, settings.city(name)) for name in city or sorted(settings.cities)]
    found, code = run(settings, all_stores, np.datetime64("now", "us"), mend, device)
    if as_json:
        print_json(found)
    else:
        print_checks(found)
    raise typer.Exit(code)


def repair(
    city: CitiesOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --forecasts: only count them.")] = False,
    forecasts: Annotated[
        bool, typer.Option("--forecasts", help="Remove forecasts, with --after, and mend nothing.")
    ] = False,
    after: Annotated[
        str | None, typer.Option("--after", help="Remove the forecasts whose init times lie after this time.")
    ] = None,
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Mend damaged and missing files of the stores: make them again from the others, or set them aside.

    trafficcast fsck shows beforehand what is to be mended. This command ends with 0 if all is whole afterwards, with 1
    if something was lost. With --forecasts --after TIME it removes the forecasts that a clock made which stood ahead,
    with their scores and rows of the ledger. The service may run.
    """
    from pipelines.service.repair import repair as run
    from trafficcast.config.settings import load_config
    from trafficcast.repair.repair import remove_forecasts_after
    from trafficcast.stores.city_stores import CityStores

    if forecasts != (after is not None):
        raise InputError("--forecasts and --after TIME go together")
    if dry_run and not forecasts:
        raise InputError("--dry-run goes with --forecasts: trafficcast fsck shows what there is to mend")
    settings = load_config(config)
    all_stores = [CityStores.of(settings, settings.city(name)) for name in city or sorted(settings.cities)]
    if after is not None:
        removed = {
            stores.city.name: remove_forecasts_after(stores, stores.city.parse_time(after), dry_run)
            for stores in all_stores
        }
        if as_json:
            print_json(removed)
        else:
            for name, numbers in removed.items():
                print_object(dict(numbers), f"{'To remove' if dry_run else 'Removed'} of {name}")
        return
    now = np.datetime64("now", "us")
    found = {stores.city.name: run(settings, stores, now, device) for stores in all_stores}
    if as_json:
        print_json(dict(found))
    else:
        for name, outcomes in found.items():
            print(f"{name}: {'nothing to mend' if not outcomes else f'{len(outcomes)} files'}")
            for one in outcomes:
                print(f"- {one['wrong']}: {one['done']}")
    if any(one["lost"] for outcomes in found.values() for one in outcomes):
        raise typer.Exit(1)


@for_city
def prune(chosen: Chosen) -> None:
    """Remove the days and the models that the configuration's [retention] does not keep."""
    from pipelines.service.prune import prune as run

    removed = run(chosen.stores, chosen.settings.retention, np.datetime64("now", "us"))
    chosen.print(dict(removed), f"Removed of {chosen.city.name}")
