"""Plain flow counting with DuckDB and pandas, to which the ingest suite compares this package.

Both count the moves of a Parquet file of points without repeats, and nothing else: they remove no repeats, count no
vehicles or coverage, and keep no records. The suite runs `python -m pipelines.benchmarks.peers PEER POINTS CITY OUT`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from trafficcast.config.city import City
from trafficcast.geography.cells import EARTH_RADIUS_M

_DUCKDB_QUERY = """
WITH placed AS (
    SELECT vehicle, epoch_us(time) AS t, lon, lat,
           floor((lon - {west}) / ({east} - {west}) * {cols}) AS col,
           floor(({north} - lat) / ({north} - {south}) * {rows}) AS row
    FROM read_parquet(?)
), celled AS (
    SELECT vehicle, t, lon, lat,
           CASE WHEN row >= 0 AND row < {rows} AND col >= 0 AND col < {cols} THEN row * {cols} + col ELSE -1 END AS cell
    FROM placed
), pairs AS (
    SELECT *, lag(t) OVER w AS p_t, lag(lon) OVER w AS p_lon, lag(lat) OVER w AS p_lat, lag(cell) OVER w AS p_cell
    FROM celled WINDOW w AS (PARTITION BY vehicle ORDER BY t)
), moves AS (
    SELECT *, pow(sin(radians(lat - p_lat) / 2), 2)
              + cos(radians(p_lat)) * cos(radians(lat)) * pow(sin(radians(lon - p_lon) / 2), 2) AS h
    FROM pairs WHERE cell != p_cell AND t - p_t <= {max_gap_us}
), counted AS (
    SELECT * FROM moves WHERE 2 * {radius} * asin(least(1.0, sqrt(h))) / (t - p_t) * 3.6e6::DOUBLE <= {max_speed_kmh}
)
SELECT t // {slot_us} AS slot, 0 AS kind, cell::BIGINT AS cell, count(*) AS n FROM counted WHERE cell >= 0 GROUP BY ALL
UNION ALL
SELECT p_t // {slot_us}, 1, p_cell::BIGINT, count(*) FROM counted WHERE p_cell >= 0 GROUP BY ALL
"""


def _count_with_duckdb(points: Path, city: City) -> np.ndarray:
    """Count the moves of a file of points, (n, 4) rising: slot since 1970, flow kind, cell, number."""
    import duckdb  # in the test extra only

    # DuckDB reads 37.7 as a decimal, whose arithmetic differs.
    numbers = {**city.grid(), "max_speed_kmh": city.max_speed_kmh, "radius": EARTH_RADIUS_M}
    numbers = {name: f"({value!r})::DOUBLE" if isinstance(value, float) else value for name, value in numbers.items()}
    query = _DUCKDB_QUERY.format(**numbers, max_gap_us=round(city.max_gap_minutes * 60e6), slot_us=city.slot_us)
    duckdb.execute("SET enable_progress_bar = false")
    columns = duckdb.execute(query, [str(points)]).fetchnumpy()
    return _rising(np.column_stack([np.asarray(columns[name]) for name in ("slot", "kind", "cell", "n")]))


def _count_with_pandas(points: Path, city: City) -> np.ndarray:
    """Count the moves of a file of points, (n, 4) rising: slot since 1970, flow kind, cell, number."""
    table = pd.read_parquet(points).sort_values(["vehicle", "time"], kind="stable", ignore_index=True)
    col = np.floor((table["lon"] - city.west) / (city.east - city.west) * city.cols)
    row = np.floor((city.north - table["lat"]) / (city.north - city.south) * city.rows)
    inside = row.between(0, city.rows - 1) & col.between(0, city.cols - 1)
    table["cell"] = (row * city.cols + col).where(inside, -1).astype(int)
    table["t"] = table["time"].astype("int64")
    before = table.shift()
    gap = table["t"] - before["t"]
    moved = (table["vehicle"] == before["vehicle"]) & (table["cell"] != before["cell"])
    moved &= gap <= city.max_gap_minutes * 60e6
    lat, p_lat = np.radians(table["lat"]), np.radians(before["lat"])
    h = np.sin((lat - p_lat) / 2) ** 2
    h += np.cos(p_lat) * np.cos(lat) * np.sin(np.radians(table["lon"] - before["lon"]) / 2) ** 2
    speed = 2 * EARTH_RADIUS_M * np.arcsin(np.minimum(1.0, np.sqrt(h))) / gap * 3.6e6
    moved &= speed <= city.max_speed_kmh
    parts = []
    for kind, ends in enumerate((table[moved], before[moved])):
        slot = ends["t"].astype("int64") // city.slot_us
        counts = ends.assign(slot=slot, kind=kind)[ends["cell"] >= 0].groupby(["slot", "kind", "cell"]).size()
        parts.append(counts.reset_index().to_numpy(np.int64))
    return _rising(np.concatenate(parts))


_PEERS = {"DuckDB": _count_with_duckdb, "pandas": _count_with_pandas}


def _rising(moves: np.ndarray) -> np.ndarray:
    """Sort moves by slot, flow kind and cell."""
    moves = moves.astype(np.int64)
    return moves[np.lexsort(moves.T[::-1])]


if __name__ == "__main__":
    peer, points_file, city_json, out = sys.argv[1:]
    np.save(out, _PEERS[peer](Path(points_file), City.model_validate_json(city_json)))
