"""What an ingest found: rows and drops, transitions, slots; `data/<city>/quality.json`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from trafficcast.city import City
from trafficcast.flows import TOTALS
from trafficcast.record_store import RecordStore, State
from trafficcast.records import DROP_REASONS

MISSING, PARTIAL, OBSERVED = "missing", "partial", "observed"


def quality_report(city: City, store: RecordStore, state: State) -> dict[str, Any]:
    """Counters of everything that was ever ingested, as plain numbers; times in the city's zone with their offset."""
    sources = store.sources()
    dropped: Counter[str] = Counter()
    for source in sources:
        dropped.update(source.dropped)
    counts = dict(zip(TOTALS, state.totals.tolist(), strict=True))
    facts = store.slot_facts()
    slots = slot_states(city, facts)
    times = (np.arange(facts[0, 0], facts[-1, 0] + 1) * city.slot_us).astype("datetime64[us]")
    return {
        "city": city.name,
        "kind": state.kind,
        "files": len(sources),
        "rows_read": sum(source.rows for source in sources),
        "rows_dropped": {reason: dropped[reason] for reason in DROP_REASONS},
        "points_kept": counts["points"],
        "points_outside": counts["points_outside"],
        "vehicles": state.fleet.seen(),
        "first_slot": city.isoformat(times[0]),
        "last_slot": city.isoformat(times[-1]),
        "pairs": counts["pairs"],
        "pairs_beyond_max_gap": counts["pairs_beyond_max_gap"],
        "transitions": counts["transitions"],
        "transitions_refused": {"gap": counts["refused_by_gap"], "speed": counts["refused_by_speed"]},
        "inflow": int(facts[:, 1].sum()),
        "outflow": int(facts[:, 2].sum()),
        "slots": {name: int(np.count_nonzero(slots == name)) for name in (OBSERVED, PARTIAL, MISSING)},
        "gaps": gaps(city, times, slots),
    }


def slot_states(city: City, facts: np.ndarray) -> np.ndarray:
    """Observed, partial or missing, for every slot from the first with a record to the last (see `slot_facts`)."""
    covered = np.zeros(facts[-1, 0] - facts[0, 0] + 1)
    covered[facts[:, 0] - facts[0, 0]] = facts[:, 5] / city.slot_minutes
    observed = np.float32(covered) >= np.float32(city.min_coverage)
    return np.select([observed, covered > 0], [OBSERVED, PARTIAL], MISSING)


def gaps(city: City, times: np.ndarray, states: np.ndarray) -> list[dict[str, Any]]:
    """The stretches of slots that are not observed: start and end in the city's zone, slots partial and missing."""
    not_observed = np.flatnonzero(states != OBSERVED)
    if not len(not_observed):
        return []
    stretches = np.split(not_observed, np.flatnonzero(np.diff(not_observed) > 1) + 1)
    return [
        {
            "start": city.isoformat(times[stretch[0]]),
            "end": city.isoformat(times[stretch[-1]] + city.slot),
            "partial": int(np.count_nonzero(states[stretch] == PARTIAL)),
            "missing": int(np.count_nonzero(states[stretch] == MISSING)),
        }
        for stretch in stretches
    ]
