"""The states of slots by local day; slots and files as tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from trafficcast.config.city import CLOCK_CHANGE, DAY, City
from trafficcast.ingestion.quality_report import (
    LETTERS,
    MISSING,
    NOT_ASKED,
    OBSERVED,
    PARTIAL,
    SlotSeries,
    slot_starts,
)
from trafficcast.ingestion.record_store import SourceFacts
from trafficcast.records.records import DROP_REASONS
from trafficcast.stores.flows import UNKNOWN


def _calendar(city: City, slots: SlotSeries) -> list[dict[str, Any]]:
    """List the local days from the first slot to the last, with a letter for the state of each slot, in order of time.

    A day of 46 or 50 half hours has as many letters (LETTERS; NOT_ASKED beyond the first and the last slot).
    Consecutive days without any slot are one entry, `days` long, with None for letters.
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


def _days_in_a_row(city: City, here: SlotSeries, slots: SlotSeries, days: np.ndarray) -> list[dict[str, Any]]:
    """Return the entries of consecutive days, which have the slots `here`."""
    edges = city.midnight(days[0]) - CLOCK_CHANGE, city.midnight(days[-1] + DAY) + CLOCK_CHANGE
    first, last = (int(edge.astype("datetime64[us]").astype(np.int64)) // city.slot_us for edge in edges)
    number = np.arange(first, last + 1)
    letter = np.full(len(number), LETTERS[MISSING])
    letter[here.number - first] = np.where(here.observed, LETTERS[OBSERVED], LETTERS[PARTIAL])
    letter[(number < slots.number[0]) | (number > slots.number[-1])] = NOT_ASKED
    day_of = city.local_days(slot_starts(city, number))
    # Clocks set back over midnight interleave the slots of two days.
    order = np.argsort(day_of, kind="stable")
    bounds = np.searchsorted(day_of[order], [*days, days[-1] + DAY])
    return [
        {"day": str(day), "days": 1, "slots": "".join(letter[order[begin:end]])}
        for day, begin, end in zip(days, bounds[:-1], bounds[1:], strict=True)
    ]


def _per_slot(city: City, slots: SlotSeries) -> dict[str, list[Any]]:
    """Return columns of the slots with a record: start in the city's time zone, flows, records, vehicles and coverage.

    Unknown numbers of records and vehicles are None.
    """
    return {
        "start": [time.isoformat() for time in city.local(slots.starts(city))],
        "inflow": slots.inflow.tolist(),
        "outflow": slots.outflow.tolist(),
        "records": [None if n == UNKNOWN else n for n in slots.records.tolist()],
        "vehicles": [None if n == UNKNOWN else n for n in slots.vehicles.tolist()],
        "coverage": slots.coverage.round(4).tolist(),
    }


def _per_file(sources: list[SourceFacts]) -> list[dict[str, Any]]:
    """List the sources, each with its rows read and dropped."""
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
