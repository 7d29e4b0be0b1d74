"""Repair: a damaged file is set aside and its products are made again, and nothing of other days or of a writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.service.repair import _remove_leftovers, _repair
from trafficcast.config.city import City
from trafficcast.errors import DamagedFile
from trafficcast.files import writer_lock
from trafficcast.stores.city_stores import CityStores

CITY = City(west=0, east=1, south=0, north=1, rows=2, cols=3, timezone="America/New_York", name="small")
DAY = "2024-04-08"
START, END = np.datetime64("2024-04-08T04:00", "us"), np.datetime64("2024-04-09T04:00", "us")  # of that day, in UTC
# The day's first and last slot, and the slots before and after the day.
INSIDE, OUTSIDE = (START, END - CITY.slot), (START - CITY.slot, END)


@pytest.fixture
def stores(tmp_path: Path) -> CityStores:
    """A city whose forecasts by two models were made and verified."""
    stores = CityStores(CITY, tmp_path / "data", tmp_path / "models")
    for job in ("forecast", "verify"):
        for version in ("v-1", "v-2"):
            for slot in (*INSIDE, *OUTSIDE):
                stores.ledger.record(job, "small", version, slot, "done")
    return stores


def damage(root: Path) -> DamagedFile:
    """The damaged file of a day."""
    root.mkdir(parents=True, exist_ok=True)
    file = root / f"{DAY}.nc"
    file.write_bytes(b"no grid")
    return DamagedFile(file, OSError("it is no NetCDF file"))


def test_damaged_files_of_one_day_lie_side_by_side(stores: CityStores, caplog: pytest.LogCaptureFixture) -> None:
    root = stores.forecasts("v-1").root
    for number in (1, 2, 3):
        aside = root / f"{DAY}.nc.damaged-{number}"
        assert str(aside) in _repair(stores, damage(root)) and aside.read_bytes() == b"no grid"
        assert str(aside) in caplog.messages[-1]
    assert not (root / f"{DAY}.nc").exists()
    assert len([file for file in root.iterdir() if not file.name.startswith(".")]) == 3


@pytest.mark.parametrize("job", ["forecast", "verify"])
def test_forecasts_or_scores_of_the_day_and_the_model_are_lost(stores: CityStores, job: str) -> None:
    store = stores.forecasts("v-1") if job == "forecast" else stores.scores("v-1")
    _repair(stores, damage(store.root))
    lost = {
        (other, version): {
            slot for slot, result in stores.ledger.results(other, "small", version).items() if result == "lost"
        }
        for other in ("forecast", "verify")
        for version in ("v-1", "v-2")
    }
    assert lost.pop((job, "v-1")) == set(INSIDE)
    assert not any(lost.values())


def test_flows_without_records_are_lost(stores: CityStores) -> None:
    said = _repair(stores, damage(stores.flows.root))
    assert f"the flows of {DAY} are lost: there are no records to count them from" in said
    assert set(stores.ledger.results("forecast", "small", "v-1").values()) == {"done"}


def test_a_file_that_was_mended_meanwhile_stays(stores: CityStores) -> None:
    error = damage(stores.forecasts("v-1").root)
    error.file.unlink()
    _repair(stores, error)
    assert not list(error.file.parent.glob("*.damaged-*"))


def test_leftovers_go_unless_somebody_writes(tmp_path: Path) -> None:
    left, kept = tmp_path / ".2024-04-08.nc.1.tmp", tmp_path / "2024-04-08.nc"
    left.touch()
    kept.touch()
    with writer_lock(tmp_path):
        _remove_leftovers(tmp_path)
        assert left.exists()
    _remove_leftovers(tmp_path)
    assert not left.exists() and kept.exists()


def test_a_folder_without_leftovers_gets_no_lock(tmp_path: Path) -> None:
    _remove_leftovers(tmp_path)
    _remove_leftovers(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
