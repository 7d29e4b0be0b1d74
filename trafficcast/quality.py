"""What an ingest found: rows and drops, transitions, slots; `data/<city>/quality.json`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from trafficcast.city import City
from trafficcast.flows import TOTALS
from trafficcast.records import Manifest


def quality_report(
    city: City, manifest: Manifest, totals: np.ndarray, vehicles: int, flows: xr.Dataset
) -> dict[str, Any]:
    """Counters of everything in the store, as plain numbers; times in the city's zone with their offset."""
    counts = dict(zip(TOTALS, totals.tolist(), strict=True))
    observed = flows["observed"].values
    missing = flows["vehicles"].values == 0
    time = flows["time"].values
    return {
        "city": city.name,
        "files": len(manifest.sources),
        "rows_read": manifest.rows,
        "rows_dropped": manifest.dropped,
        "points_kept": counts["points"],
        "points_outside": counts["points_outside"],
        "vehicles": vehicles,
        "first_slot": city.isoformat(time[0]),
        "last_slot": city.isoformat(time[-1]),
        "pairs": counts["pairs"],
        "pairs_beyond_max_gap": counts["pairs_beyond_max_gap"],
        "transitions": counts["transitions"],
        "transitions_refused": {"gap": counts["refused_by_gap"], "speed": counts["refused_by_speed"]},
        "inflow": int(flows["flow"].values[:, 0].sum()),
        "outflow": int(flows["flow"].values[:, 1].sum()),
        "slots": {
            "observed": int(observed.sum()),
            "partial": int((~observed & ~missing).sum()),
            "missing": int(missing.sum()),
        },
        "slots_not_observed": [city.isoformat(t) for t in time[~observed]],
    }
