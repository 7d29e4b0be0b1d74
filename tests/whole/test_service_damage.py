"""A store's file damaged by hand, and a disk that fills up: reported, survived, and made good again."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipelines.service import schedule
from pipelines.service.cycle import CityService
from pipelines.service.health import _health
from pipelines.service.status import _ALERTS, _INGEST, _service_lock
from trafficcast.alerts.book import AlertBook
from trafficcast.config.settings import load_config
from trafficcast.errors import JobError
from trafficcast.forecasting.publish import JOB
from trafficcast.forecasting.verify import VERIFY
from trafficcast.ingestion.ingest import ingest
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.ledger import Ledger, Run

HOUR = np.timedelta64(1, "h")
NOON = np.datetime64("2024-04-14T10:00", "us")  # in Rome
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flows": lambda content: content[: len(content) // 2],
    "forecasts": lambda content: np.random.default_rng(1).bytes(len(content)),
    "scores": lambda content: b"",
}


class Running:
    """The jobs of a service whose clock is set by hand."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.config = load_config(folder / "config.toml")
        self.stores = CityStores.of(self.config, self.config.city("small"))
        self.data, self.city = self.stores.data, self.stores.city
        self._service = schedule._Service(self.config, [self.city], "cpu")
        self.now = NOON
        patch.setattr(schedule, "_now", lambda: self.now)
        patch.setattr(schedule, "_RETRY_SECONDS", 0.0)

    @property
    def city_service(self) -> CityService:
        return self._service.services[0]

    def look(self) -> None:
        """What the service does every few seconds."""
        service = self.city_service
        self._service._run(JOB, self.stores, partial(self._service._cycle, service))
        self._service._run(_ALERTS, self.stores, partial(self._service._alerts, service))

    def take(self, records: Path) -> None:
        """The ingest job."""
        self._service._run(_INGEST, self.stores, lambda: str(ingest(str(records), self.stores)))

    def look_from(self, first: np.datetime64, last: np.datetime64) -> None:
        """At every hour up to the last one."""
        for self.now in np.arange(first, last + HOUR, HOUR):
            self.look()

    def store(self, name: str) -> DayStore:
        if name == "flows":
            return self.stores.flows
        return (self.stores.forecasts if name == "forecasts" else self.stores.scores)("vmrnn-c-1")

    def read(self, name: str) -> xr.Dataset:
        dataset = self.store(name).read()
        assert dataset is not None
        return dataset

    @property
    def latest(self) -> np.datetime64:
        """The init time of the files for other systems."""
        with xr.open_dataset(self.data / "small" / "latest.nc", engine="h5netcdf", decode_timedelta=True) as latest:
            return latest["init_time"].values[0]

    def runs(self, job: str) -> list[Run]:
        return self.stores.ledger.runs(job, "small", NOON - 48 * HOUR)


@pytest.fixture
def running(trained: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Running:
    """The service at noon, after five cycles that were not disturbed."""
    service = Running(trained, monkeypatch)
    service.look_from(NOON - 4 * HOUR, NOON)
    assert len(service.read("forecasts")["init_time"]) == 5
    caplog.clear()
    caplog.set_level(logging.INFO, "trafficcast")
    return service


def test_damaged_stores_are_set_aside_and_made_again(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    for name, damage in DAMAGES.items():
        before, file = running.read(name), running.store(name).root / "2024-04-14.nc"
        content = damage(file.read_bytes())
        file.write_bytes(content)
        # A look finds it and repairs it, the next one goes on; what is scored is scored beside a new forecast.
        running.now += HOUR
        for _ in range(2):
            running.look()
        aside = file.with_name("2024-04-14.nc.damaged-1")
        assert aside.read_bytes() == content
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert [str(file) in error and str(aside) in error for error in errors] == [True], errors
        caplog.clear()
        if name == "scores":
            running.now += HOUR
            running.look()

        after = running.read(name)
        if name == "flows":
            assert after.identical(before)
            continue
        again = after.sel(init_time=before["init_time"].values)
        if name == "forecasts":
            assert again["hindcast"].all()
            xr.testing.assert_identical(
                again.drop_vars(["hindcast", "created"]), before.drop_vars(["hindcast", "created"])
            )
            assert len(after["init_time"]) == len(before["init_time"]) + 1
        else:
            xr.testing.assert_identical(again, before)
    for job, name, result in ((JOB, "forecasts", "complete"), (VERIFY, "scores", "4 of 4 leads")):
        made = {run.slot: run.result for run in running.runs(job) if run.model}
        assert made == dict.fromkeys(running.read(name)["init_time"].values, result)


def test_an_ingest_that_meets_a_damaged_day_makes_it_again(running: Running, tmp_path: Path) -> None:
    before = running.read("flows")
    (running.store("flows").root / "2024-04-14.nc").write_bytes(b"no flows")
    late = tmp_path / "new_late.txt"
    noon = NOON.astype("datetime64[s]").astype(int)
    late.write_text("".join(f"45.47 {9.11 + 0.02 * (i % 7):.2f} 0 {noon + 60 * i}\n" for i in range(30)))
    running.take(late)
    running.take(late)  # what was committed is passed over
    after = running.read("flows")
    changed = [str(time)[:16] for time in after["time"].values[(after["vehicles"] != before["vehicles"]).values]]
    assert changed == ["2024-04-14T10:00"]
    assert (running.store("flows").root / "2024-04-14.nc.damaged-1").exists()


def no_space(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full(*_: object, **__: object) -> Any:
    raise JobError("cannot use ledger.sqlite: database or disk is full")


def fill_stores(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("xarray.Dataset.to_netcdf", no_space)


def fill_ledger(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "record", full)


@pytest.mark.parametrize("fill", [fill_stores, fill_ledger])
def test_what_a_full_disk_kept_from_being_made_is_made_when_there_is_room(
    fill: Callable[[pytest.MonkeyPatch], None], running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    before = running.read("forecasts")
    with pytest.MonkeyPatch.context() as patch:
        fill(patch)
        running.look_from(NOON + HOUR, NOON + 3 * HOUR)
    failures = [record.getMessage() for record in caplog.records if "failed: " in record.getMessage()]
    assert len(failures) == 3
    assert all("No space left" in failure or "disk is full" in failure for failure in failures)
    assert not [record for record in caplog.records if record.exc_info]
    assert not list(running.data.rglob("*.tmp"))
    alerts = {alert.finding.kind for alert in AlertBook(running.data / "alerts.sqlite").open("small", running.now)}
    assert ("forecast-overdue" in alerts) == (fill is fill_stores)

    running.look()
    forecasts = running.read("forecasts")
    assert len(forecasts["init_time"]) == len(before["init_time"]) + 3
    xr.testing.assert_identical(forecasts.isel(init_time=slice(len(before["init_time"]))), before)
    assert {run.slot for run in running.runs(JOB) if run.result == "complete"} == {*forecasts["init_time"].values}
    assert running.latest == NOON + 3 * HOUR


@pytest.fixture
def small_disk(trained: Path) -> Iterator[Path]:
    """The trained city with its stores on a disk of 128 MB of their own."""
    disk = trained / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", disk], check=False).returncode
    ):
        pytest.skip("only root may mount a disk, and not everywhere")
    try:
        shutil.copytree(trained / "data", disk / "data")
        with open(trained / "config.toml", "a") as file:
            file.write('[paths]\ndata = "disk/data"\n')
        yield trained
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_on_a_full_disk_alerts_go_out_and_a_reserve_is_freed_for_the_notes(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(small_disk, monkeypatch)
    running._service.reserve.keep()
    reserve = running.data / "reserve"
    assert reserve.stat().st_size == 16 * 2**20
    running.look_from(NOON - 2 * HOUR, NOON)
    before = AlertBook(running.stores.alerts).open("small", running.now)
    with _service_lock(running.data):
        assert _health(running._service.status())[0] == 200
        with open(small_disk / "disk" / "full", "wb") as file, suppress(OSError):
            while True:
                file.write(bytes(2**16))
                file.flush()
        caplog.clear()
        running.now += 2 * HOUR
        running.look()  # no forecast can be stored, which is an alert, which cannot be noted
        said = [record.getMessage() for record in caplog.records]
        assert any("No space left on device" in line for line in said)
        assert any("the reserve" in line and "is removed" in line for line in said)
        assert not reserve.exists()
        faults = running._service.status()["faults"]
        assert _health(running._service.status())[0] == 503
        assert faults == {"all cities": [f"the disk of {running.data} is full or nearly so: make room"]}
    for _ in range(3):
        running.look()
    assert running.latest == running.now  # there is room for what is small
    run = running.stores.ledger.last(JOB, "small")
    assert run is not None and run.slot == running.now
    (small_disk / "disk" / "full").unlink()
    running._service.reserve.keep()
    assert reserve.exists() and not running._service.reserve.missing
    lines = (running.data / "small" / "alerts.jsonl").read_text().splitlines()
    told = [json.loads(line)["id"] for line in lines]
    assert len(told) == len(set(told)) > len(before)
    logged = [record.getMessage() for record in caplog.records if ": alert (" in record.getMessage()]
    assert len(logged) == len(set(logged)) > 0


def test_files_for_other_systems_that_found_no_space_are_written_by_the_next_look(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.now += HOUR
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pandas.DataFrame.to_csv", no_space)
        running.look()
    assert "No space left" in caplog.text
    assert running.latest == NOON
    running.look()
    assert running.latest == NOON + HOUR
    assert [run.attempts for run in running.runs(JOB) if run.slot == NOON + HOUR and run.model] == [1]


def test_a_list_of_champions_that_is_gone_is_written_again(running: Running) -> None:
    running.stores.registry.pointer.unlink()
    running.now += HOUR
    for _ in range(2):
        running.look()
    assert running.stores.registry.champion() == "vmrnn-c-1" and running.latest == running.now


def test_the_alerts_of_a_city_whose_models_are_gone_go_on(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    running._service.started = NOON - 4 * HOUR
    running.stores.registry.root.rename(running.data / "gone")
    running.now += 3 * HOUR
    running.look()
    assert "alert (critical): no forecast was ever published" in caplog.text


@pytest.mark.parametrize("name", ["data/ledger.sqlite", "data/alerts.sqlite", "models/small/champion"])
def test_damaged_databases_and_a_damaged_list_of_champions_are_mended_while_it_runs(
    name: str, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    file = running.data.parent / name
    file.write_bytes(b"\xff no such file" * 100)
    running.now += HOUR
    for _ in range(3):
        running.look()
    assert file.with_name(f"{file.name}.damaged-1").exists()
    assert running.latest == running.now
    assert [run.result for run in running.runs(JOB) if run.model and run.slot == running.now] == ["complete"]
    assert any("repaired" in record.getMessage() for record in caplog.records)
    caplog.clear()
    running.now += HOUR
    running.look()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert running.latest == running.now
