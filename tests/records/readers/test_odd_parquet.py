"""Parquet that Arrow reads and Python cannot show: strings that are no UTF-8, times beyond the year 9999."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers import read
from trafficcast.records.records import Batch
from trafficcast.records.sources import find_sources

CITY = City(west=-75, east=-73, south=40, north=41, timezone="America/New_York", name="x")
GOOD_US = 1_712_577_600_000_000


def read_table(folder: Path, **columns: pa.Array) -> Batch:
    table = {
        "vehicle": pa.array(["a", "b"]),
        "time": pa.array([GOOD_US] * 2, pa.timestamp("us", "UTC")),
        "lon": pa.array([-74.0, -74.1]),
        "lat": pa.array([40.5, 40.6]),
    }
    pq.write_table(pa.table(table | columns), folder / "a.parquet")
    [batch] = read(find_sources(str(folder / "a.parquet"))[0], CITY)
    return batch


def strings(*cells: bytes) -> pa.Array:
    """Bytes under the type of strings, as some writers of Parquet leave them."""
    return pa.Array.from_buffers(pa.string(), len(cells), pa.array(cells, pa.binary()).buffers())


@pytest.mark.parametrize(
    ("field", "cells", "unparsable"),
    [
        ("vehicle", (b"a", b"\xff"), 0),
        ("lon", (b"-74", b"\xff"), 1),
        ("time", (b"2024-04-08 12:00:00", b"\xff"), 1),
        ("occupied", (b"1", b"\xff"), 0),
    ],
)
def test_strings_that_are_no_utf8_are_a_matter_of_their_rows(
    tmp_path: Path, field: str, cells: tuple[bytes, ...], unparsable: int
) -> None:
    batch = read_table(tmp_path, **{field: strings(*cells)})
    assert (batch.rows, len(batch.records), batch.dropped["unparsable"]) == (2, 2 - unparsable, unparsable)
    if field == "vehicle":
        assert batch.vehicles == ["a", "\\xff"]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ms"), pa.date32()])
def test_a_first_time_that_python_has_no_date_for(tmp_path: Path, kind: pa.DataType) -> None:
    far = 2**30 if pa.types.is_date(kind) else 2**61
    batch = read_table(tmp_path, time=pa.array([far, 19_821], kind))
    assert len(batch.records) == 2
    assert batch.records.time[0] > 2**60
    with pytest.raises(InputError, match="not one row is a record; line 1 is .*'a'|\"a\""):
        read_table(tmp_path, time=pa.array([far, far], kind), lon=pa.array([None, None], pa.float64()))
