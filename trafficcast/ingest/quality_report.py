"""What came of a city's records: rows and drops, transitions, the slots' states, gaps and a calendar of them.

`quality_report` is cheap: every ingest returns it and writes it to `data/<city>/quality.json`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from trafficcast.config.city import City
from trafficcast.ingest.counting import TOTALS
from trafficcast.ingest.record_store import RecordStore, State
from trafficcast.records.records import DROP_REASONS
from trafficcast.stores.flows import UNKNOWN

MISSING, PARTIAL, OBSERVED = "missing", "partial", "observed"
# A slot of the calendar in one letter; not asked for are those before the first and after the last slot.
LETTERS = {OBSERVED: "O", PARTIAL: "P", MISSING: "M"}
NOT_ASKED = "."
DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class SlotSeries:
    """The slots that have a record, in order, (slot) each: number since 1970, inflow, outflow, records (of trips:
    their ends), distinct vehicles, coverage, and whether the slot is observed; UNKNOWN (-1) is unknown.
    """

    number: np.ndarray
    inflow: np.ndarray
    outflow: np.ndarray
    records: np.ndarray
    vehicles: np.ndarray
    coverage: np.ndarray
    observed: np.ndarray

    def __len__(self) -> int:
        return len(self.number)

    def between(self, first: int, last: int) -> SlotSeries:
        """Those from number `first` to number `last`."""
        within = slice(*np.searchsorted(self.number, [first, last + 1]))
        return SlotSeries(**{name: array[within] for name, array in vars(self).items()})

    def starts(self, city: City) -> np.ndarray:
        """Their starts, naive UTC."""
        return slot_starts(city, self.number)


def stored_slots(city: City, store: RecordStore, kind: str | None) -> SlotSeries:
    """All slots of a record store."""
    number, inflow, outflow, records, vehicles, minutes = store.slot_facts().T
    coverage = minutes / city.slot_minutes
    # As the flow store has it, coverage is of single precision.
    observed = coverage.astype(np.float32) >= np.float32(city.min_coverage)
    vehicles = vehicles if kind == "points" else np.full(len(number), UNKNOWN)
    return SlotSeries(number, inflow, outflow, records, vehicles, coverage, observed)


def quality_report(city: City, store: RecordStore, state: State) -> dict[str, Any]:
    """Counters of everything that was ever ingested, as plain numbers; times in the city's zone with their offset."""
    sources = store.sources()
    dropped: Counter[str] = Counter()
    for source in sources:
        dropped.update(source.dropped)
    return {
        "city": city.name,
        "kind": state.kind,
        "files": len(sources),
        "rows_read": sum(source.rows for source in sources),
        "rows_dropped": {reason: dropped[reason] for reason in DROP_REASONS},
        **counters(state.totals, state.fleet.seen()),
        **slot_report(city, stored_slots(city, store, state.kind)),
    }


def counters(totals: np.ndarray, vehicles: int) -> dict[str, Any]:
    """The totals of a count (see flows.TOTALS) and the number of vehicles by their names."""
    counts = dict(zip(TOTALS, totals.tolist(), strict=True))
    return {
        "points_kept": counts["points"],
        "points_outside": counts["points_outside"],
        "vehicles": vehicles,
        "pairs": counts["pairs"],
        "pairs_beyond_max_gap": counts["pairs_beyond_max_gap"],
        "transitions": counts["transitions"],
        "transitions_refused": {"gap": counts["refused_by_gap"], "speed": counts["refused_by_speed"]},
    }


def slot_report(city: City, slots: SlotSeries) -> dict[str, Any]:
    """Flows, states and gaps of the slots from the first to the last of these, of which there is at least one."""
    first, last = slots.starts(city)[[0, -1]]
    observed = int(np.count_nonzero(slots.observed))
    return {
        "first_slot": city.isoformat(first),
        "last_slot": city.isoformat(last),
        "inflow": int(slots.inflow.sum()),
        "outflow": int(slots.outflow.sum()),
        "slots": {
            OBSERVED: observed,
            PARTIAL: len(slots) - observed,
            MISSING: int(slots.number[-1] - slots.number[0]) + 1 - len(slots),
        },
        "gaps": _gaps(city, slots),
    }


def _gaps(city: City, slots: SlotSeries) -> list[dict[str, Any]]:
    """The stretches of slots that are not observed: start and end in the city's zone, slots partial and missing."""
    observed = slots.number[slots.observed]
    starts = np.concatenate([slots.number[:1], observed + 1])
    ends = np.concatenate([observed, slots.number[-1:] + 1])
    starts, ends = starts[starts < ends], ends[starts < ends]
    present = np.searchsorted(slots.number, ends) - np.searchsorted(slots.number, starts)
    times = [[time.isoformat() for time in city.local(slot_starts(city, edge))] for edge in (starts, ends)]
    return [
        {"start": start, "end": end, PARTIAL: n, MISSING: length - n}
        for start, end, length, n in zip(*times, (ends - starts).tolist(), present.tolist(), strict=True)
    ]


def slot_starts(city: City, number: np.ndarray) -> np.ndarray:
    return (number * city.slot_us).astype("datetime64[us]")
