"""How a city's records come: their format, columns, clock and keeping; the table `[cities.NAME.feed]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _ColumnNames(BaseModel):
    """The names of a table's columns (of a JSON line's keys); what is not named is looked for under its usual names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vehicle: str | None = None
    time: str | None = None
    lon: str | None = None
    lat: str | None = None
    occupied: str | None = None
    pickup_time: str | None = None
    pickup_lon: str | None = None
    pickup_lat: str | None = None
    pickup_zone: str | None = None
    dropoff_time: str | None = None
    dropoff_lon: str | None = None
    dropoff_lat: str | None = None
    dropoff_zone: str | None = None


class Feed(BaseModel):
    """One city's feed. All is optional: without it the format is recognised from the files' content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str | None = None
    columns: _ColumnNames = _ColumnNames()
    # Of times without an offset; the city's zone when not given.
    timezone: str | None = None
    # Longitude and latitude have changed places in the files.
    swapped: bool = False
    # Count the passengers' trips, from the occupied flag of points or the ends of a Porto line, not every move.
    trips: bool = False
    # The zones' polygons (any file geopandas reads) of trips between zones, and the column of their ids.
    zones: Path | None = None
    zone_id: str = "LocationID"
    # Records are kept this many days before the newest one; all of them when not given.
    retain_days: Annotated[int, Field(ge=1)] | None = None
    # The folder whose new files `ingest --watch` takes.
    inbox: Path | None = None

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None and value not in available_timezones():
            raise ValueError(f"'{value}' is not an IANA time zone such as 'UTC' or 'America/Los_Angeles'")
        return value
