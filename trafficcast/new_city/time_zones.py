"""The time zones in use at a point, and the country of a zone."""

from __future__ import annotations

from importlib import resources

import tzfpy


def _zones_at(lon: float, lat: float) -> list[str]:
    """Return the IANA zones in use at a point in degrees; none at sea, where zones follow the longitude alone."""
    return [zone for zone in tzfpy.get_tzs(lon, lat) if not zone.startswith("Etc/")]


def _country_of(zone: str) -> str | None:
    """Return the country (ISO 3166) of a zone; None of zones without one, such as UTC, and of obsolete names."""
    table = (resources.files("tzdata") / "zoneinfo" / "zone.tab").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines() if not line.startswith("#"))
    return next((row[0] for row in rows if row[2:3] == [zone]), None)
