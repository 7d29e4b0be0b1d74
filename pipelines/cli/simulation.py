"""Commands that simulate a city: simulate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from pipelines.cli.options import CONFIG, Chosen, ConfigOption, PortOption, choose, for_city
from pipelines.cli.printing import print_object
from pipelines.cli.serving import dashboard

if TYPE_CHECKING:
    from trafficcast.config.city import City
    from trafficcast.stores.city_stores import CityStores

_CITY = "demo"
_VEHICLES, _DAYS = 400, 21
_SEED = 0  # the shipped model was trained on seed 1, so it has never seen these days


@for_city
def simulate(
    chosen: Chosen,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the records; must not hold anything yet.")],
    vehicles: Annotated[int, typer.Option(min=1, help="Taxis.")] = 400,
    days: Annotated[int, typer.Option(min=1, help="Local days.")] = 21,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    file_format: Annotated[
        str, typer.Option("--format", help="cabspotting, tdrive, parquet, csv, porto or tlc.")
    ] = "cabspotting",
) -> None:
    """Simulate a city's taxi records, and write their true flows to OUT.truth.nc."""
    result = _simulate(chosen.city, folder, vehicles, days, seed, file_format)
    chosen.print(result, f"Simulated records of {chosen.city.name}")


def demo(
    serve: Annotated[bool, typer.Option("--dashboard/--no-dashboard", help="Serve the dashboard at the end.")] = True,
    port: PortOption = 8501,
    config: ConfigOption = CONFIG,
) -> None:
    """Show three simulated weeks of a small city: simulate, ingest, replay the last day, serve the dashboard."""
    print_object(_run_demo(choose(config, _CITY).stores), "Demo")
    if serve:
        dashboard(port=port, config=config, city=_CITY)


def _simulate(
    city: City, out: Path, vehicles: int, days: int, seed: int, file_format: str = "cabspotting"
) -> dict[str, Any]:
    """Write simulated records to a folder, show the progress, and return a summary."""
    from trafficcast.progress import progress_bar
    from trafficcast.simulator.files import FILES_OF_TRIPS
    from trafficcast.simulator.simulator import simulate as run
    from trafficcast.simulator.simulator import truth_file

    with progress_bar(f"simulating {vehicles} taxis, {days} days") as progress:
        summary = run(city, out, vehicles, days, seed, progress=progress, file_format=file_format)
    return {
        "city": city.name,
        "out": str(out),
        "format": file_format,
        "seed": seed,
        "files": summary.files,
        "trips" if file_format in FILES_OF_TRIPS else "points": summary.points,
        "duplicates": summary.duplicates,
        "start": city.isoformat(summary.start),
        "end": city.isoformat(summary.end),
        "outage_start": summary.outage and city.isoformat(summary.outage[0]),
        "outage_end": summary.outage and city.isoformat(summary.outage[1]),
        "event": "match in the stadium",
        "event_day": str(summary.match.day),
        "event_lat": round(summary.match.lat, 5),
        "event_lon": round(summary.match.lon, 5),
        "truth": str(truth_file(out)),
    }


def _run_demo(stores: CityStores) -> dict[str, Any]:
    """Run the demo up to the dashboard, and return the replay's summary; a second run uses the same records."""
    from pipelines.service.replay import replay
    from trafficcast.ingestion.ingest import ingest

    city, records = stores.city, stores.folder / "simulated"
    if not records.exists():
        _simulate(city, records, _VEHICLES, _DAYS, _SEED)
    ingest(str(records), stores, "cabspotting")
    last_day = stores.flows.days()[-1]
    return replay(stores, city.midnight(last_day), city.midnight(last_day + np.timedelta64(1, "D")))
