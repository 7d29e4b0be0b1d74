"""The way in which a file was read, a part of its identity: read otherwise, the same file gives other records."""

from __future__ import annotations

from typing import Any

import numpy as np

from trafficcast.config.city import City

# Keys of the feed that decide what becomes of the records, not which records a file gives.
_NOT_OF_READING = {"format", "columns", "zones", "zone_id", "retain_days", "inbox", "trips"}
_Period = tuple[np.datetime64 | None, np.datetime64 | None]
_EVER: _Period = (None, None)


def _way_of_reading(city: City, record_format: str | None, period: _Period = _EVER) -> dict[str, Any]:
    """Return all that decides which records a file gives, as plain values: format, keys of the feed, start and end.

    Keys with their default values are left out, so that a key that a later version adds changes no way of reading.
    """
    feed = city.feed.model_dump(mode="json", exclude_defaults=True)
    way = {key: value for key, value in feed.items() if key not in _NOT_OF_READING}
    way["format"] = record_format or city.feed.format
    way["timezone"] = city.feed.timezone or city.timezone
    for role, name in feed.get("columns", {}).items():
        way[f"columns.{role}"] = name
    if city.feed.trips and record_format in (None, "porto"):  # a ride is one trip, not many points
        way["trips"] = True
    for key, moment in zip(("start", "end"), period, strict=True):
        if moment is not None:
            way[key] = f"{moment}Z"
    return way


def _way_as_text(way: dict[str, Any]) -> str:
    """Write a way of reading for people; "as an earlier version read it" where nothing is known."""
    if not way:
        return "as an earlier version read it"
    words = {"start": "--start", "end": "--end"}
    named = [
        words.get(key, key) if value is True else f"{words.get(key, key)} {value}"
        for key, value in way.items()
        if key != "format"
    ]
    return ", ".join([str(way["format"]), *named])
