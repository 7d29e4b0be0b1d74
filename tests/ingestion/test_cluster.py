"""Counting on a Dask cluster of separate worker processes gives what one process gives, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cities import small_city, stores_in
from trafficcast.errors import InputError, JobError
from trafficcast.ingestion.ingest import ingest
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.simulator.simulator import simulate

distributed = pytest.importorskip("distributed", reason="the cluster extra is not installed")
CITY = small_city()


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight files of Parquet, a local day each, and of a ninth day none."""
    folder = tmp_path_factory.mktemp("simulated") / "records"
    simulate(CITY, folder, 30, 8, 5, file_format="parquet")
    return folder


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Any]:
    """A cluster of two processes on the loopback interface."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def state(data: Path) -> tuple[Any, Any, list[Any]]:
    """Flows, report and records of a store."""
    store = RecordStore(data / CITY.name / "records")
    loaded = store.load()
    records = []
    for span in sorted(loaded.files):
        points = store.read(loaded, span)
        names = [loaded.vehicles.names[code] for code in points.vehicle]
        records.append(sorted(zip(names, points.time.tolist(), points.lon.tolist(), points.lat.tolist(), strict=True)))
    report = json.loads((data / CITY.name / "quality.json").read_text())
    return stores_in(data, CITY).flows.read(), report, records


def assert_same(one: Path, other: Path) -> None:
    (flows, report, records), (other_flows, other_report, other_records) = state(one), state(other)
    assert flows is not None and flows.identical(other_flows)
    assert report == other_report
    assert records == other_records
    assert not list(one.rglob(".staging-*"))


@pytest.mark.slow
def test_a_cluster_counts_what_one_process_does(records: Path, scheduler: Any, tmp_path: Path) -> None:
    ingest(str(records), stores_in(tmp_path / "alone", CITY))
    ingest(
        str(records),
        stores_in(tmp_path / "cluster", CITY),
        dask=scheduler.scheduler_address,
    )
    assert_same(tmp_path / "cluster", tmp_path / "alone")


@pytest.mark.slow
def test_a_cluster_adds_to_what_is_stored(records: Path, scheduler: Any, tmp_path: Path) -> None:
    stores = stores_in(tmp_path / "cluster", CITY)
    ingest(str(records), stores_in(tmp_path / "alone", CITY))
    days = sorted(records.iterdir())
    for day in (days[1], days[5]):
        ingest(str(day), stores)
    ingest(
        str(records),
        stores,
        dask=scheduler.scheduler_address,
    )
    (flows, _, kept), (other_flows, _, other_kept) = state(tmp_path / "cluster"), state(tmp_path / "alone")
    assert flows is not None and flows.identical(other_flows)
    assert kept == other_kept


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(records: Path, tmp_path: Path) -> None:
    ingest(str(records), stores_in(tmp_path / "alone", CITY))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        victim = next(iter(cluster.workers.values())).pid
        killed = threading.Event()

        def kill_when_hours_are_written() -> None:
            while not list((tmp_path / "cluster").rglob("*.parquet")):
                time.sleep(0.01)
            os.kill(victim, signal.SIGKILL)
            killed.set()

        threading.Thread(target=kill_when_hours_are_written, daemon=True).start()
        ingest(
            str(records),
            stores_in(tmp_path / "cluster", CITY),
            dask=cluster.scheduler_address,
        )
    assert killed.is_set()
    assert_same(tmp_path / "cluster", tmp_path / "alone")


@pytest.mark.slow
def test_an_address_without_a_scheduler_is_refused(records: Path, tmp_path: Path) -> None:
    stores = stores_in(tmp_path / "data", CITY)
    with pytest.raises(InputError, match="no Dask scheduler at tcp://127.0.0.1:1"):
        ingest(str(records), stores, dask="tcp://127.0.0.1:1")
    assert not stores.flows.days()


def test_a_bad_source_ends_the_ingest_with_the_stores_as_they_were(
    records: Path, scheduler: Any, tmp_path: Path
) -> None:
    stores = stores_in(tmp_path / "data", CITY)
    folder = tmp_path / "records"
    folder.mkdir()
    whole = sorted(records.iterdir())[0].read_bytes()
    (folder / "a.parquet").write_bytes(whole)
    (folder / "b.parquet").write_bytes(whole[:-100])
    with pytest.raises(JobError, match=r"b\.parquet"):
        ingest(str(folder), stores, dask=scheduler.scheduler_address)
    assert not stores.flows.days()
    assert np.all([not path.name.endswith(".parquet") for path in (tmp_path / "data").rglob("*")])
