"""The benchmark's ingest suite: this package beside DuckDB and pandas on the same points and grid, each in a process
of its own, so that time and memory are those of a whole run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trafficcast.city import City
from trafficcast.records import DAY_US, SECOND_US

MONDAY_US = 1_712_534_400 * SECOND_US  # 2024-04-08T00:00Z
TICK_S = 21.6  # 4,000 reports a taxi and day
STEP_DEGREES = 0.0012  # some 100 m between two reports


def write_points(file: Path, city: City, vehicles: int, days: int, seed: int = 0) -> int:
    """Write a fleet's points to a zstd Parquet file, ordered by time, and return how many.

    The taxis wander at random over a box somewhat larger than the city's, each reporting every TICK_S seconds.
    """
    rng = np.random.default_rng(seed)
    phase_us = np.sort(rng.integers(0, int(TICK_S * SECOND_US), vehicles))
    size = np.array([city.east - city.west, city.north - city.south])
    corner = np.array([city.west, city.south]) - 0.05 * size
    place = rng.random((vehicles, 2)) * 1.1
    vehicle = rng.permutation(vehicles).astype(np.int32)
    ticks = round(days * DAY_US / (TICK_S * SECOND_US))
    ticks_a_group = max(1, 1_000_000 // vehicles)
    schema = pa.schema(
        {"vehicle": pa.int32(), "time": pa.timestamp("us", "UTC"), "lon": pa.float64(), "lat": pa.float64()}
    )
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for first in range(0, ticks, ticks_a_group):
            n = min(ticks_a_group, ticks - first)
            walk = place + np.cumsum(rng.normal(0, STEP_DEGREES, (n, vehicles, 2)) / size, axis=0)
            walk = 1.1 - np.abs(1.1 - np.abs(walk) % 2.2)  # reflected at the edges
            place = walk[-1]
            start_us = MONDAY_US + np.round(np.arange(first, first + n) * TICK_S * SECOND_US).astype(np.int64)
            lon, lat = (np.round(corner + walk * size, 5).reshape(-1, 2)).T
            columns = [np.tile(vehicle, n), (start_us[:, None] + phase_us).ravel().view("datetime64[us]"), lon, lat]
            table = pa.table([pa.array(np.ascontiguousarray(column)) for column in columns], schema.names)
            writer.write_table(table.cast(schema))
    return ticks * vehicles
