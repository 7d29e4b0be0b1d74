"""Commands for the unattended service: schedule, status, prune."""

from __future__ import annotations

import logging
from typing import Annotated

import numpy as np
import typer

from pipelines.cli.logs import log_lines
from pipelines.cli.options import CONFIG, Chosen, CitiesOption, ConfigOption, DeviceOption, JsonOption, for_city
from pipelines.cli.printing import print_json, print_status


def schedule(
    city: CitiesOption = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Write each log line as a JSON object, on stderr.")
    ] = False,
    device: DeviceOption = "auto",
    config: ConfigOption = CONFIG,
) -> None:
    """Run cities unattended: ingest new files, forecast every slot, verify, retrain, prune, raise alerts.

    It runs until SIGTERM or Ctrl-C. `trafficcast status` shows its status; /healthz and /metrics do so over HTTP.
    """
    from pipelines.service.logs import JsonLines, TextLines
    from pipelines.service.schedule import schedule as run
    from trafficcast.config.settings import load_config

    settings = load_config(config)
    for name in ("trafficcast", "apscheduler"):
        log_lines(name, JsonLines() if log_json else TextLines())
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    run(settings, [settings.city(name) for name in city or sorted(settings.cities)], device)


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


@for_city
def prune(chosen: Chosen) -> None:
    """Remove the days and the models that the configuration's [retention] does not keep."""
    from pipelines.service.prune import prune as run

    removed = run(chosen.stores, chosen.settings.retention, np.datetime64("now", "us"))
    chosen.print(dict(removed), f"Removed of {chosen.city.name}")
