"""Demo: three simulated weeks of a small city, ingested, and the last day replayed with the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.ingest import ingest
from pipelines.replay import replay
from pipelines.simulate import simulate
from trafficcast.city import City
from trafficcast.stores import flow_store

CITY = "demo"
VEHICLES, DAYS = 400, 21
SEED = 0  # the shipped model was trained on seed 1, so it has never seen these days


def demo(city: City, data: Path, models: Path) -> dict[str, Any]:
    """Run the demo up to the dashboard; a second run simulates nothing anew. Returns the replay's summary."""
    records = data / city.name / "simulated"
    if not records.exists():
        simulate(city, records, VEHICLES, DAYS, SEED)
    ingest(str(records), "cabspotting", city, data)
    last_day = flow_store(data, city).days()[-1]
    return replay(city, data, models, city.midnight(last_day), city.midnight(last_day + np.timedelta64(1, "D")))
