"""Simulated files of every format, packed in every way: an ingest finds the flows that the simulator knows."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xarray as xr

from tests.cities import small_city, stores_in
from trafficcast.config.city import City
from trafficcast.config.feed import Feed
from trafficcast.ingestion.ingest import ingest
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.records.readers import find_records
from trafficcast.simulator.files import _FORMATS
from trafficcast.simulator.simulator import simulate, truth_file
from trafficcast.stores.flows import read_flows

CITY = small_city(rows=16, cols=16)
PERIODS = {
    "in April": np.datetime64("2024-04-08T12:00"),
    "clocks set forward": np.datetime64("2024-03-30T12:00"),
    "clocks set back": np.datetime64("2024-10-26T12:00"),
}
ALL = [*((name, False) for name in _FORMATS), ("cabspotting", True), ("porto", True)]  # a format, whether trips count
Records = Callable[[str, bool, str], tuple[City, Path]]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Twenty taxis of two days, simulated once for each format, what counts, and period."""
    made: dict[tuple[str, bool, str], tuple[City, Path]] = {}

    def simulated(file_format: str, trips: bool, period: str) -> tuple[City, Path]:
        key = file_format, trips, period
        if key not in made:
            city = CITY.model_copy(update={"feed": Feed(trips=trips)})
            folder = tmp_path_factory.mktemp("simulated") / "records"
            simulate(city, folder, vehicles=20, days=2, seed=3, start=PERIODS[period], file_format=file_format)
            made[key] = city, folder
        return made[key]

    return simulated


def check_ingest(city: City, file_format: str, location: Path, truth: Path, data: Path) -> None:
    stores = stores_in(data, city)
    found, passed_over = find_records(str(location), city)
    assert {name for _, name in found} == {file_format}
    assert passed_over == []
    ingest(str(location), stores)
    flows = read_flows(stores)
    wanted = xr.load_dataset(truth_file(truth), engine="h5netcdf")
    assert int(wanted["flow"].sum()) > 50
    for name in ("time", "flow", "vehicles", "coverage", "observed"):
        np.testing.assert_array_equal(flows[name].values, wanted[name].values, err_msg=name)
    sources = RecordStore(data / city.name / "records").sources()
    dropped = {reason for source in sources for reason, n in source.dropped.items() if n}
    assert dropped <= ({"duplicate", "clock"} if file_format == "tlc" else {"duplicate"})
    assert all("local times that occur twice" in note for source in sources for note in source.notes)


@pytest.mark.slow
@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize(("file_format", "trips"), ALL)
def test_the_flows_are_the_true_ones(
    file_format: str, trips: bool, period: str, records: Records, tmp_path: Path
) -> None:
    city, folder = records(file_format, trips, period)
    check_ingest(city, file_format, folder, folder, tmp_path)


@pytest.mark.parametrize("packing", ["zip", "gz", "zst"])
@pytest.mark.parametrize("file_format", _FORMATS)
def test_the_flows_of_packed_files_are_the_true_ones(
    file_format: str, packing: str, records: Records, tmp_path: Path
) -> None:
    city, folder = records(file_format, False, "clocks set back")
    check_ingest(city, file_format, packed(folder, packing, tmp_path / "packed"), folder, tmp_path / "data")


def test_times_without_offset_are_on_the_clock_of_the_feed(tmp_path: Path) -> None:
    city = CITY.model_copy(update={"feed": Feed(timezone="America/New_York")})
    for file_format in ("tdrive", "tlc"):
        folder = tmp_path / file_format
        simulate(city, folder, vehicles=20, days=1, seed=3, file_format=file_format)
        check_ingest(city, file_format, folder, folder, tmp_path / f"data of {file_format}")


def packed(folder: Path, packing: str, to: Path) -> Path:
    """The same files, each compressed, or all in one archive; where they then lie."""
    to.mkdir()
    for file in sorted(folder.iterdir()):
        name, text = file.name, file.read_bytes()
        if name.endswith(".gz"):  # as Cabspotting's are simulated
            name, text = name.removesuffix(".gz"), gzip.decompress(text)
        if packing == "zip":
            with zipfile.ZipFile(to / "all.zip", "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"records/{name}", text)
        elif packing == "gz":
            (to / f"{name}.gz").write_bytes(gzip.compress(text, 1))
        else:
            (to / f"{name}.zst").write_bytes(pa.Codec("zstd").compress(text, asbytes=True))
    return to / "all.zip" if packing == "zip" else to
