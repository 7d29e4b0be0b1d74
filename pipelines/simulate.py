"""Simulate: a city's taxi records, with progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.progress import gauge
from trafficcast.city import City
from trafficcast.simulator import simulate as run


def simulate(city: City, out: Path, vehicles: int, days: int, seed: int) -> dict[str, Any]:
    """Write simulated records to `out` (see `simulator.simulate`) and say what they are."""
    with gauge(f"simulating {vehicles} taxis, {days} days") as progress:
        summary = run(city, out, vehicles, days, seed, progress=progress)
    return {
        "city": city.name,
        "out": str(out),
        "seed": seed,
        "files": summary.files,
        "points": summary.points,
        "duplicates": summary.duplicates,
        "start": city.isoformat(summary.start),
        "end": city.isoformat(summary.end),
    }
