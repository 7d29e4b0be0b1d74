"""A dry run: how the first rows of files would be read, and what was guessed from what."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from trafficcast.config.city import City
from trafficcast.records.readers import find_records, read
from trafficcast.records.records import DAY_US, EARLIEST_US, SECOND_US, Points, ZoneTrips
from trafficcast.records.screening import Screen, Screening

_FILES = 5


def first_look(location: str, city: City, format_name: str | None = None, rows: int = 10) -> dict[str, Any]:
    """Read the first rows of files and store nothing.

    Parameters
    ----------
    location
        File, folder, glob or URL of records.
    city
        The city whose records they are.
    format_name
        Format of the records; None recognises it from each file's content.
    rows
        Most rows of a file.

    Returns
    -------
    dict[str, Any]
        Number of `files`, those `passed_over`, and of the first five files, under `read`, the format, what was guessed
        as notes, and the rows with their vehicle, the local time with its offset, longitude and latitude, or the ends
        of trips.

    Raises
    ------
    InputError
        A file cannot be read, or its first rows make no sense.
    JobError
        Longitudes and latitudes are swapped, or no first row is a record.
    """
    found, passed_over = find_records(location, city, format_name)
    screen = Screen(city, EARLIEST_US, int(time.time()) * SECOND_US + DAY_US)
    looks = []
    for source, name in found[:_FILES]:
        screening = Screening(screen, source)
        shown: list[dict[str, Any]] = []
        columns: dict[str, str] = {}
        for batch in read(source, city, name):
            records = screening.apply(batch)
            shown, columns = _rows(records.take(slice(rows)), batch.vehicles, city), batch.columns or columns
            if shown:  # in the first part all local times may occur twice, which is decided at the end
                break
        screening.check_source()
        guessed = [f"{field} is column {column!r}" for field, column in columns.items()]
        zone = f"times without an offset are in {city.feed.timezone or city.timezone}"
        dropped = {reason: n for reason, n in screening.dropped.items() if n}
        looks.append(
            {
                "file": source.path,
                "format": name,
                "notes": [*guessed, *screening.notes, zone],
                "rows_looked_at": screening.rows,
                "rows_dropped": dropped,
                "in_box": round(screening.inside / screening.ends, 4) if screening.ends else None,
                "rows": shown,
            }
        )
    return {"city": city.name, "files": len(found), "passed_over": passed_over, "read": looks}


def _rows(records: Any, vehicles: list[str], city: City) -> list[dict[str, Any]]:
    """Return records as rows for people."""

    def local(times: np.ndarray) -> list[str]:
        return [moment.isoformat() for moment in city.local(times.astype("datetime64[us]"))]

    if isinstance(records, Points):
        columns: dict[str, Any] = {"vehicle": [vehicles[code] for code in records.vehicle], "time": local(records.time)}
        columns |= {"longitude": records.lon.tolist(), "latitude": records.lat.tolist()}
        columns["occupied"] = [{1: "yes", 0: "no"}.get(flag, "unknown") for flag in records.occupied.tolist()]
    else:
        columns = {"pickup_time": local(records.time), "dropoff_time": local(records.dropoff_time)}
        ends = (
            ("zone", "dropoff_zone") if isinstance(records, ZoneTrips) else ("lon", "lat", "dropoff_lon", "dropoff_lat")
        )
        columns |= {end if "_" in end else f"pickup_{end}": getattr(records, end).tolist() for end in ends}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
