"""The quality report of an ingest: rows and drops, transitions, the states of slots, and gaps.

Every ingest returns the report and writes it to `data/<city>/quality.json`.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from trafficcast.config.city import City
from trafficcast.geography.zones import Zones, counts_inside
from trafficcast.ingestion.counting import TOTALS
from trafficcast.ingestion.record_store import RecordStore, State
from trafficcast.records.records import DROP_REASONS
from trafficcast.stores.flows import UNKNOWN
from trafficcast.stores.observed import judge_observed, least_observed_hours, observed_by_hour

MISSING, PARTIAL, OBSERVED = "missing", "partial", "observed"
# The letter of a slot's state in the calendar, and that of the slots before the first and after the last slot.
LETTERS = {OBSERVED: "O", PARTIAL: "P", MISSING: "M"}
NOT_ASKED = "."


@dataclass(frozen=True)
class SlotSeries:
    """The slots that have a record or are observed, in the order of time.

    Attributes
    ----------
    number
        Numbers since 1970, (slot).
    inflow
        Vehicles that entered a cell, (slot).
    outflow
        Vehicles that left a cell, (slot).
    records
        Number of records, of trips the number of their ends, (slot).
    vehicles
        Number of distinct vehicles, (slot); UNKNOWN (-1) for trips.
    coverage
        Share of the slot's minutes with a record, 0 to 1, (slot).
    observed
        Whether the slot is observed, (slot).
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
        """Return a part of the series.

        Parameters
        ----------
        first
            Number of the first slot.
        last
            Number of the last slot, inclusive.

        Returns
        -------
        SlotSeries
            The slots of the series in this range.
        """
        return self.take(slice(*np.searchsorted(self.number, [first, last + 1])))

    def take(self, which: np.ndarray | slice) -> SlotSeries:
        """Return a part of the series.

        Parameters
        ----------
        which
            Whether to take each slot, (slot), or a slice of them.

        Returns
        -------
        SlotSeries
            These slots.
        """
        return SlotSeries(**{name: array[which] for name, array in vars(self).items()})

    def starts(self, city: City) -> np.ndarray:
        """Return the starts of the slots.

        Parameters
        ----------
        city
            The city.

        Returns
        -------
        np.ndarray
            Naive UTC, (slot).
        """
        return slot_starts(city, self.number)


def stored_slots(city: City, store: RecordStore, kind: str | None, zones: Zones | None = None) -> SlotSeries:
    """Read all slots of a record store, and judge which are observed.

    Parameters
    ----------
    city
        The city.
    store
        Its record store.
    kind
        Kind of the stored records; the vehicles of other kinds than points are unknown.
    zones
        The city's zones, by which trips between zones are counted.

    Returns
    -------
    SlotSeries
        All slots that have a record or are observed; none of them is observed before it begins.
    """
    facts = store.slot_facts()
    if kind == "zone-trips" and zones is not None and len(facts):
        slots = store.slots(*facts[[0, -1], 0].tolist()).values()
        facts[:, 1:3] = counts_inside(np.stack([slot.flow for slot in slots]), zones)
    number, observed = judge_observed(city, store.evidence(city, kind))
    observed &= number * city.slot_us <= time.time_ns() // 1000
    columns = np.zeros((len(number), facts.shape[1]), np.int64)
    columns[np.searchsorted(number, facts[:, 0])] = facts
    _, inflow, outflow, records, vehicles, minutes = columns.T
    vehicles = vehicles if kind == "points" else np.full(len(number), UNKNOWN)
    series = SlotSeries(number, inflow, outflow, records, vehicles, minutes / city.slot_minutes, observed)
    return series.take(observed | (records > 0))


def quality_report(city: City, store: RecordStore, state: State, slots: SlotSeries) -> dict[str, Any]:
    """Report on all records that were ever ingested.

    Parameters
    ----------
    city
        The city.
    store
        Its record store.
    state
        State of the store.
    slots
        All its slots (see `stored_slots`).

    Returns
    -------
    dict[str, Any]
        Plain numbers by name; times in the city's zone with their offset.
    """
    sources = store.sources()
    dropped: Counter[str] = Counter()
    for source in sources:
        dropped.update(source.dropped)
    return {
        "city": city.name,
        "kind": state.kind,
        "min_coverage": city.min_coverage,
        "files": len(sources),
        "rows_read": sum(source.rows for source in sources),
        "rows_dropped": {reason: dropped[reason] for reason in DROP_REASONS},
        **counters(state.totals, state.vehicles.number_with_points(), ends_outside(state.kind, slots)),
        **slot_report(city, slots),
    }


def ends_outside(kind: str | None, slots: SlotSeries) -> int | None:
    """Return how many ends of trips between zones were spread to the outside of the box.

    Parameters
    ----------
    kind
        Kind of the records.
    slots
        Slots (see `stored_slots`).

    Returns
    -------
    int | None
        The number; None for other records, whose count has it.
    """
    return int((slots.records - slots.inflow - slots.outflow).sum()) if kind == "zone-trips" else None


def counters(totals: np.ndarray, vehicles: int, outside: int | None = None) -> dict[str, Any]:
    """Name the totals of a count.

    Parameters
    ----------
    totals
        Totals in the order of `counting.TOTALS`, (total).
    vehicles
        Number of vehicles.
    outside
        Number of points outside the box; None is that of the totals.

    Returns
    -------
    dict[str, Any]
        The numbers by the names of the quality report.
    """
    counts = dict(zip(TOTALS, totals.tolist(), strict=True))
    return {
        "points_kept": counts["points"],
        "points_outside": counts["points_outside"] if outside is None else outside,
        "vehicles": vehicles,
        "pairs": counts["pairs"],
        "pairs_beyond_max_gap": counts["pairs_beyond_max_gap"],
        "transitions": counts["transitions"],
        "transitions_refused": {"gap": counts["refused_by_gap"], "speed": counts["refused_by_speed"]},
    }


def slot_report(city: City, slots: SlotSeries) -> dict[str, Any]:
    """Report the flows, states and gaps of slots.

    Parameters
    ----------
    city
        The city.
    slots
        At least one slot.

    Returns
    -------
    dict[str, Any]
        The part of the quality report on the period from the first to the last of the slots.
    """
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
        "least_observed_hours": least_observed_hours(observed_by_hour(city, slots.number, slots.observed)),
        "gaps": _gaps(city, slots),
    }


def _gaps(city: City, slots: SlotSeries) -> list[dict[str, Any]]:
    """Return the periods without observed slots: start, end, numbers of partial and missing slots."""
    observed = slots.number[slots.observed]
    starts = np.concatenate([slots.number[:1], observed + 1])
    ends = np.concatenate([observed, slots.number[-1:] + 1])
    starts, ends = starts[starts < ends], ends[starts < ends]
    present = np.searchsorted(slots.number, ends) - np.searchsorted(slots.number, starts)
    times = [[moment.isoformat() for moment in city.local(slot_starts(city, edge))] for edge in (starts, ends)]
    return [
        {"start": start, "end": end, PARTIAL: n, MISSING: length - n}
        for start, end, length, n in zip(*times, (ends - starts).tolist(), present.tolist(), strict=True)
    ]


def slot_starts(city: City, number: np.ndarray) -> np.ndarray:
    """Return the starts of slots.

    Parameters
    ----------
    city
        The city.
    number
        Numbers of the slots since 1970, (slot).

    Returns
    -------
    np.ndarray
        Naive UTC, (slot).
    """
    return (number * city.slot_us).astype("datetime64[us]")
