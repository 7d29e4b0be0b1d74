"""Simulate: a city's taxi records and their true flows, with progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.service.replay import replay
from trafficcast.config.city import City
from trafficcast.ingest.ingest import ingest
from trafficcast.progress import progress_bar
from trafficcast.simulator.files import FILES_OF_TRIPS
from trafficcast.simulator.simulator import simulate as run
from trafficcast.simulator.simulator import truth_file
from trafficcast.stores.flows import flow_store

_CITY = "demo"
_VEHICLES, _DAYS = 400, 21
_SEED = 0  # the shipped model was trained on seed 1, so it has never seen these days


def _simulate(
    city: City, out: Path, vehicles: int, days: int, seed: int, file_format: str = "cabspotting"
) -> dict[str, Any]:
    """Write simulated records to `out` (see `simulator.simulate`) and say what they are."""
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


def _demo(city: City, data: Path, models: Path) -> dict[str, Any]:
    """Run the demo up to the dashboard; a second run simulates nothing anew. Returns the replay's summary."""
    records = data / city.name / "simulated"
    if not records.exists():
        _simulate(city, records, _VEHICLES, _DAYS, _SEED)
    ingest(str(records), "cabspotting", city, data)
    last_day = flow_store(data, city).days()[-1]
    return replay(city, data, models, city.midnight(last_day), city.midnight(last_day + np.timedelta64(1, "D")))
