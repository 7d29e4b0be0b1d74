"""The pages of a Parquet file by their headers, whatever wrote it and whatever its metadata say."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trafficcast.errors import InputError
from trafficcast.records.readers import parquet_pages
from trafficcast.records.readers.parquet_pages import _batch_rows, _Page, _pages

N = 50_000
TABLE = pa.table(
    {
        "vehicle": pa.array([f"taxi {i % 7}" for i in range(N)]),
        "lon": np.random.default_rng(0).random(N),
        "place": pa.array([{"lat": 45.0 + i, "pair": [1.0, 2.0]} for i in range(N)]),
    }
)


def written(table: pa.Table = TABLE, **options: Any) -> tuple[io.BytesIO, pq.FileMetaData]:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file, pq.read_metadata(file)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_value_is_in_a_page(version: str, compression: str) -> None:
    options = {
        "data_page_version": version,
        "compression": compression,
        "data_page_size": 4_000,
        "row_group_size": 20_000,
    }
    file, metadata = written(**options)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for i in range(group.num_columns):
            pages = list(_pages(file, group.column(i)))
            assert sum(page.values for page in pages if not page.is_dictionary) == group.column(i).num_values
            assert len(pages) > 2 and max(page.size for page in pages) > 0
            if compression == "none":
                assert sum(page.size for page in pages) <= group.column(i).total_uncompressed_size


def test_the_dictionary_is_a_page_of_the_different_values() -> None:
    file, metadata = written()
    first, *others = _pages(file, metadata.row_group(0).column(0))
    assert first == _Page(7 * (4 + len("taxi 0")), 7, True)
    assert not any(page.is_dictionary for page in others)


def test_rows_at_once_follow_from_the_bytes_of_the_needed_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    file, metadata = written(use_dictionary=False)
    assert _batch_rows("a", file, metadata, ["lon"]) == parquet_pages._BATCH_ROWS
    monkeypatch.setattr(parquet_pages, "_BATCH_BYTES", 80_000)
    assert _batch_rows("a", file, metadata, ["lon"]) == pytest.approx(10_000, rel=0.01)
    assert _batch_rows("a", file, metadata, ["lon", "place.lat"]) == pytest.approx(5_000, rel=0.01)


def test_what_is_too_large_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    file, metadata = written()
    for limit, columns, said in (
        ("_PAGES_BYTES", ["lon"], "row group 1 has pages of more than"),
        ("_DICTIONARY_BYTES", ["vehicle"], "column 'vehicle' of row group 1 has different values"),
        ("_REPEATED_VALUES", ["place.pair"], "values in lists"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(parquet_pages, limit, 10)
            with pytest.raises(InputError, match=f"cannot read a: .*{said}"):
                _batch_rows("a", file, metadata, columns)
            assert _batch_rows("a", file, metadata, [])


def test_a_damaged_page_is_an_error() -> None:
    file, metadata = written()
    start = metadata.row_group(0).column(1).dictionary_page_offset or metadata.row_group(0).column(1).data_page_offset
    for damage in (b"\xff" * 30, b"\x00" * 30, b"\x1c" * 30):
        broken = io.BytesIO(file.getvalue()[:start] + damage + file.getvalue()[start + 30 :])
        with pytest.raises(OSError, match="page"):
            list(_pages(broken, metadata.row_group(0).column(1)))
