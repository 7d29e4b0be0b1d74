"""A disk that fills up: a clear message, exit 1, every store as it was; with room again the same command goes on."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trafficcast.ingestion import hour_files, staging
from trafficcast.ingestion.record_store import RecordStore


def no_space(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full(*_: object, **__: object) -> Any:
    raise sqlite3.OperationalError("database or disk is full")


@pytest.fixture
def filled(trafficcast: Callable[..., Any], tmp_path: Path) -> Path:
    """A store with a day, and the records of another."""
    trafficcast("simulate", "--vehicles", 20, "--days", 2, "--out", tmp_path / "gps", "--format", "parquet")
    first, _ = sorted((tmp_path / "gps").iterdir())
    assert trafficcast("ingest", first).code == 0
    return tmp_path


def fill_files(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hour_files.pq, "write_table", no_space)


def fill_staging(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging._Staging, "bytes_in_memory", 0)
    patch.setattr(staging, "_BYTES_IN_MEMORY", 0)
    patch.setattr(staging, "_segment", no_space)


def fill_database(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("trafficcast.ingestion.record_store._slot_row", full)


@pytest.mark.parametrize("fill", [fill_files, fill_staging, fill_database])
def test_a_full_disk_leaves_every_store_as_it_was(
    fill: Callable[[pytest.MonkeyPatch], None],
    filled: Path,
    trafficcast: Callable[..., Any],
    snapshot: Callable[[Path], dict[str, bytes]],
) -> None:
    before = snapshot(filled / "data")
    with pytest.MonkeyPatch.context() as patch:
        fill(patch)
        ran = trafficcast("ingest", filled / "gps")
    assert ran.code == 1
    assert "No space left" in ran.err or "disk is full" in ran.err
    assert "Traceback" not in ran.err
    assert snapshot(filled / "data") == before
    assert trafficcast("ingest", filled / "gps").code == 0
    assert len(RecordStore(filled / "data" / "small" / "records").sources()) == 2


def test_flows_that_found_no_space_are_written_by_the_next_ingest(
    filled: Path, trafficcast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("xarray.Dataset.to_netcdf", no_space)
        assert trafficcast("ingest", filled / "gps").code == 1
    assert trafficcast("ingest", filled / "gps", "--json").json["files"] == 2
    days = sorted(file.stem for file in (filled / "data" / "small" / "flows").glob("*.nc"))
    assert len(days) >= 2 and RecordStore(filled / "data" / "small" / "records").unpublished() == []
