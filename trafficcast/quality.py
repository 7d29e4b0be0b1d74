"""What came of a city's records: rows and drops, transitions, the slots' states, gaps and a calendar of them.

`quality_report` is cheap: every ingest returns it and writes it to `data/<city>/quality.json`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from trafficcast.city import CLOCK_CHANGE, City
from trafficcast.density import Box, Places
from trafficcast.flows import TOTALS, UNKNOWN
from trafficcast.record_store import RecordStore, SourceFacts, State
from trafficcast.records import DROP_REASONS

MISSING, PARTIAL, OBSERVED = "missing", "partial", "observed"
# A slot of the calendar in one letter; not asked for are those before the first and after the last slot.
LETTERS = {OBSERVED: "O", PARTIAL: "P", MISSING: "M"}
NOT_ASKED = "."
DAY = np.timedelta64(1, "D")
# Another box is suggested when more of the points than this lie outside.
MUCH_OUTSIDE = 0.1


@dataclass(frozen=True)
class Slots:
    """The slots that have a record, in order, (slot) each: number since 1970, inflow, outflow, records (of trips:
    their ends), distinct vehicles, coverage, and whether the slot is observed; UNKNOWN (-1) is unknown."""

    number: np.ndarray
    inflow: np.ndarray
    outflow: np.ndarray
    records: np.ndarray
    vehicles: np.ndarray
    coverage: np.ndarray
    observed: np.ndarray

    def __len__(self) -> int:
        return len(self.number)

    def between(self, first: int, last: int) -> Slots:
        """Those from number `first` to number `last`."""
        within = slice(*np.searchsorted(self.number, [first, last + 1]))
        return Slots(**{name: array[within] for name, array in vars(self).items()})

    def starts(self, city: City) -> np.ndarray:
        """Their starts, naive UTC."""
        return _starts(city, self.number)


def stored_slots(city: City, store: RecordStore, kind: str | None) -> Slots:
    """All slots of a record store."""
    number, inflow, outflow, records, vehicles, minutes = store.slot_facts().T
    coverage = minutes / city.slot_minutes
    # As the flow store has it, coverage is of single precision.
    observed = coverage.astype(np.float32) >= np.float32(city.min_coverage)
    vehicles = vehicles if kind == "points" else np.full(len(number), UNKNOWN)
    return Slots(number, inflow, outflow, records, vehicles, coverage, observed)


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


def slot_report(city: City, slots: Slots) -> dict[str, Any]:
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
        "gaps": gaps(city, slots),
    }


def gaps(city: City, slots: Slots) -> list[dict[str, Any]]:
    """The stretches of slots that are not observed: start and end in the city's zone, slots partial and missing."""
    observed = slots.number[slots.observed]
    starts = np.concatenate([slots.number[:1], observed + 1])
    ends = np.concatenate([observed, slots.number[-1:] + 1])
    starts, ends = starts[starts < ends], ends[starts < ends]
    present = np.searchsorted(slots.number, ends) - np.searchsorted(slots.number, starts)
    times = [[time.isoformat() for time in city.local(_starts(city, edge))] for edge in (starts, ends)]
    return [
        {"start": start, "end": end, PARTIAL: n, MISSING: length - n}
        for start, end, length, n in zip(*times, (ends - starts).tolist(), present.tolist(), strict=True)
    ]


def calendar(city: City, slots: Slots) -> list[dict[str, Any]]:
    """The local days from the first slot to the last: the state of each slot, a letter each in the order of time.

    A day of 46 or 50 half hours has as many letters (LETTERS; NOT_ASKED beyond the first and the last slot). Days in a
    row of which nothing is there at all are one entry, `days` long, with None for letters.
    """
    present, day_of = np.unique(city.local_days(slots.starts(city)), return_inverse=True)
    begins = np.flatnonzero(np.diff(present, prepend=present[0] - 2 * DAY) > DAY)
    entries: list[dict[str, Any]] = []
    for begin, end in zip(begins, [*begins[1:], len(present)], strict=True):
        if begin:
            empty = int((present[begin] - present[begin - 1]) / DAY) - 1
            entries.append({"day": str(present[begin - 1] + DAY), "days": empty, "slots": None})
        here = slots.between(*slots.number[(day_of >= begin) & (day_of < end)][[0, -1]].tolist())
        entries += _days_in_a_row(city, here, slots, present[begin:end])
    return entries


def _days_in_a_row(city: City, here: Slots, slots: Slots, days: np.ndarray) -> list[dict[str, Any]]:
    edges = city.midnight(days[0]) - CLOCK_CHANGE, city.midnight(days[-1] + DAY) + CLOCK_CHANGE
    first, last = (int(edge.astype("datetime64[us]").astype(np.int64)) // city.slot_us for edge in edges)
    number = np.arange(first, last + 1)
    letter = np.full(len(number), LETTERS[MISSING])
    letter[here.number - first] = np.where(here.observed, LETTERS[OBSERVED], LETTERS[PARTIAL])
    letter[(number < slots.number[0]) | (number > slots.number[-1])] = NOT_ASKED
    day_of = city.local_days(_starts(city, number))
    # Clocks set back over midnight interleave the slots of two days.
    order = np.argsort(day_of, kind="stable")
    bounds = np.searchsorted(day_of[order], [*days, days[-1] + DAY])
    return [
        {"day": str(day), "days": 1, "slots": "".join(letter[order[begin:end]])}
        for day, begin, end in zip(days, bounds[:-1], bounds[1:], strict=True)
    ]


def per_slot(city: City, slots: Slots) -> dict[str, list[Any]]:
    """Each slot that has a record: start in the city's zone, flows, records, vehicles, coverage; None is unknown."""
    return {
        "start": [time.isoformat() for time in city.local(slots.starts(city))],
        "inflow": slots.inflow.tolist(),
        "outflow": slots.outflow.tolist(),
        "records": [None if n == UNKNOWN else n for n in slots.records.tolist()],
        "vehicles": [None if n == UNKNOWN else n for n in slots.vehicles.tolist()],
        "coverage": slots.coverage.round(4).tolist(),
    }


def per_file(sources: list[SourceFacts]) -> list[dict[str, Any]]:
    """Every source's rows, and what became of them."""
    return [
        {
            "name": source.name,
            "format": source.format,
            "rows_read": source.rows,
            "rows_dropped": {reason: source.dropped.get(reason, 0) for reason in DROP_REASONS},
            "points_outside": source.outside,
            "notes": source.notes,
        }
        for source in sources
    ]


def suggested_box(city: City, places: Places, share_outside: float) -> dict[str, Any] | None:
    """Where much lies outside, the smallest box that holds nearly all, about what share, and the table to write."""
    box = places.usual_box()
    if share_outside <= MUCH_OUTSIDE or box is None:
        return None
    return {
        **dict(zip(("west", "east", "south", "north"), box, strict=True)),
        "share_held": round(places.share_in(box), 4),
        "toml": _table(city, box),
    }


def _table(city: City, box: Box) -> str:
    name = city.name if re.fullmatch(r"[A-Za-z0-9_-]+", city.name) else json.dumps(city.name)
    edges = "".join(f"{key} = {edge!r}\n" for key, edge in zip(("west", "east", "south", "north"), box, strict=True))
    return (
        f"[cities.{name}]\n{edges}rows = {city.rows}\ncols = {city.cols}\nslot_minutes = {city.slot_minutes}\n"
        f'timezone = "{city.timezone}"\n'
    )


def _starts(city: City, number: np.ndarray) -> np.ndarray:
    return (number * city.slot_us).astype("datetime64[us]")
