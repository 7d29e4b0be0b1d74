"""Where vehicles report: a picture of the city's streets drawn from its own records, no map file needed."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from trafficcast.city import City
from trafficcast.record_store import RecordStore, State
from trafficcast.records import ZoneTrips

SIZE = 1024
RECENT_HOURS = 24 * 28
LEVELS = 16
INK = (38, 46, 58)
DARKEST = 215
# The shade grows with the logarithm of the count; beyond this share of the pixels that have any it is full.
FULL_AT = 99.0


def point_counts(store: RecordStore, state: State, city: City, size: int = SIZE) -> np.ndarray:
    """How many points (of trips: pick-ups) of the last weeks fell on each pixel of the city's box: (size, size).

    Row 0 is north; rows are even in the Mercator projection's y, as the map's are. One hour is in memory at a time.
    """
    counts = np.zeros(size * size, np.int64)
    north, south = _mercator(np.array([city.north, city.south]))
    for hour in sorted(state.hours)[-RECENT_HOURS:]:
        records = store.read_hour(state, hour)
        if isinstance(records, ZoneTrips):
            break
        lon, lat = records.arrays()["lon"], records.arrays()["lat"]
        row = np.floor((north - _mercator(lat)) / (north - south) * size).astype(np.int64)
        col = np.floor((lon - city.west) / (city.east - city.west) * size).astype(np.int64)
        inside = (row >= 0) & (row < size) & (col >= 0) & (col < size)
        counts += np.bincount(row[inside] * size + col[inside], minlength=size * size)
    return counts.reshape(size, size)


def shade_levels(counts: np.ndarray) -> np.ndarray:
    """Counts per pixel -> shades 0 (none) to LEVELS - 1, same shape, even in log(1 + count)."""
    if not counts.any():
        return np.zeros(counts.shape, np.uint8)
    full = np.log1p(np.percentile(counts[counts > 0], FULL_AT))
    share = np.clip(np.log1p(counts) / full, 0, 1)
    return np.ceil(share * (LEVELS - 1)).astype(np.uint8)


def png_uri(levels: np.ndarray) -> str:
    """Shades (row, col) -> a PNG as a data URI, which needs no request; clear where there is nothing."""
    picture = Image.fromarray(levels)
    picture.putpalette(bytes(INK) * LEVELS)
    file = io.BytesIO()
    opacity = bytes(round(DARKEST * level / (LEVELS - 1)) for level in range(LEVELS))
    picture.save(file, "PNG", transparency=opacity, bits=4, optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _mercator(lat: np.ndarray) -> np.ndarray:
    return np.arcsinh(np.tan(np.radians(lat)))
