"""Importing TaxiBJ: all files or none, once or twice, into a city of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from tests.cities import small_city, stores_in
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.ingestion.ingest import ingest
from trafficcast.stores.flows import read_flows
from trafficcast.taxibj.files import export_taxibj, read_windows
from trafficcast.taxibj.import_grids import import_taxibj

HALF_HOUR = np.timedelta64(30, "m")


def city(timezone: str = "Asia/Shanghai", **changed: Any) -> City:
    return small_city(**{"rows": 3, "cols": 2, "timezone": timezone, "name": "beijing", **changed})


def grids(file: Path, day: str, slots: list[int], seed: int = 0) -> np.ndarray:
    data = np.random.default_rng(seed).integers(-1, 1293, (len(slots), 2, 3, 2)).astype(np.float64)
    with h5py.File(file, "w") as hdf5:
        hdf5["data"] = data
        hdf5["date"] = np.array([f"{day}{slot:02d}" for slot in slots], "S")
    return data


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder like the release: four periods, weather, holidays, and what else lies there."""
    folder = tmp_path / "TaxiBJ"
    folder.mkdir()
    for seed, (year, day, slots) in enumerate(
        [
            (13, "20130701", list(range(1, 49))),
            (14, "20140301", [3, 4, 9]),
            (15, "20150301", [1]),
            (16, "20151101", [48]),
        ]
    ):
        grids(folder / f"BJ{year}_M3x2_T30_InOut.h5", day, slots, seed)
    with h5py.File(folder / "BJ_Meteorology.h5", "w") as hdf5:
        hdf5["date"] = np.array([b"2013070101", b"2013070102"])
        hdf5["Temperature"] = [21.5, 22.0]
        hdf5["WindSpeed"] = [3.0, 4.0]
        hdf5["Weather"] = np.eye(17)[[0, 3]]
    (folder / "BJ_Holiday.txt").write_text("20130919\n20130920\n20130921\n")
    (folder / "md5sum.txt").write_text("d41d8cd98f00b204e9800998ecf8427e  BJ_Holiday.txt\n")
    (folder / "README.md").write_text("TaxiBJ")
    (folder / "._BJ13_M3x2_T30_InOut.h5").write_text("what macOS leaves behind")
    return folder


def npz(file: Path, n: int = 5) -> None:
    half = np.zeros((n, 4, 2, 3, 2), np.float32)
    np.savez(file, X_train=half, Y_train=half, X_test=half[:2], Y_test=half[:2])


def test_a_whole_release(released: Path, tmp_path: Path) -> None:
    npz(released / "dataset.npz")
    data = tmp_path / "data"
    stores = stores_in(data, city())
    report = import_taxibj(released, stores)
    flows = read_flows(stores)
    # Nothing lies between the files' periods, and what is missing in a period is not observed.
    assert flows.sizes["time"] == 48 + 7 + 1 + 1
    assert flows["observed"].values[48:].tolist() == [True, True, False, False, False, False, True, True, True]
    assert flows["time"].values[[0, 48, -1]].tolist() == [
        np.datetime64(text, "us").item() for text in ("2013-06-30T16:00", "2014-02-28T17:00", "2015-11-01T15:30")
    ]
    with h5py.File(released / "BJ13_M3x2_T30_InOut.h5") as hdf5:
        first = hdf5["data"][()]
    assert (flows["flow"].values[:48] == np.maximum(first, 0)).all()
    with xr.open_dataset(data / "beijing" / "weather.nc", engine="h5netcdf") as weather:
        assert weather["temperature"].values.tolist() == [21.5, 22.0]
    assert json.loads((data / "beijing" / "holidays.json").read_text()) == ["2013-09-19", "2013-09-20", "2013-09-21"]
    assert len(read_windows(data, city())["train"][0]) == 5
    assert [(one["file"], one["observed"], one["missing"]) for one in report["grids"]] == [
        ("BJ13_M3x2_T30_InOut.h5", 48, 0),
        ("BJ14_M3x2_T30_InOut.h5", 3, 4),
        ("BJ15_M3x2_T30_InOut.h5", 1, 0),
        ("BJ16_M3x2_T30_InOut.h5", 1, 0),
    ]
    assert report["grids"][0]["start"] == "2013-07-01T00:00:00+08:00"
    assert report["grids"][0]["end"] == "2013-07-02T00:00:00+08:00"
    assert report["negative_values_clipped"] > 0
    assert (report["weather_slots"], report["holidays"]) == (2, 3)
    assert report["windows"] == {"train": 5, "test": 2}


def test_the_same_import_twice_changes_nothing(
    released: Path, tmp_path: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    npz(released / "dataset.npz")
    data = tmp_path / "data"
    stores = stores_in(data, city())
    report = import_taxibj(released, stores)
    before = snapshot(data)
    assert import_taxibj(released, stores) == report
    assert snapshot(data) == before


def test_files_one_by_one_are_the_folder(
    released: Path, tmp_path: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    import_taxibj(released, stores_in(tmp_path / "whole", city()))
    for file in sorted(released.glob("BJ*"), reverse=True):
        import_taxibj(file, stores_in(tmp_path / "parts", city()))
    assert snapshot(tmp_path / "parts") == snapshot(tmp_path / "whole")


def test_a_file_says_all_of_its_period(tmp_path: Path) -> None:
    stores = stores_in(tmp_path, city())
    grids(tmp_path / "a.h5", "20130701", [1, 2, 3, 4])
    import_taxibj(tmp_path / "a.h5", stores)
    mended = grids(tmp_path / "b.h5", "20130701", [2, 4], seed=1)
    import_taxibj(tmp_path / "b.h5", stores)
    flows = read_flows(stores)
    assert flows["observed"].values.tolist() == [True, True, False, True]
    assert (flows["flow"].values[[1, 3]] == np.maximum(mended, 0)).all()


@pytest.mark.parametrize("day", ["2008-03-09", "2008-11-02"])
def test_import_export_import_over_a_clock_change(
    tmp_path: Path, day: str, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    there = city("America/New_York")
    stores = stores_in(tmp_path / "first", there)
    slots = [
        1,
        2,
        3,
        4,
        *([3, 4] if day == "2008-11-02" else []),
        *([5, 6] if day == "2008-11-02" else []),
        *range(7, 48),
    ]
    grids(tmp_path / "official.h5", day.replace("-", ""), slots)
    import_taxibj(tmp_path / "official.h5", stores)
    flows = read_flows(stores)
    assert flows.sizes["time"] == len(slots) and flows["observed"].values.all()
    export_taxibj(there, flows, tmp_path / "exported.h5")
    import_taxibj(tmp_path / "exported.h5", stores_in(tmp_path / "second", there))
    assert snapshot(tmp_path / "second") == snapshot(tmp_path / "first")
    with h5py.File(tmp_path / "official.h5") as official, h5py.File(tmp_path / "exported.h5") as exported:
        assert (official["date"][()] == exported["date"][()]).all()
        assert (np.maximum(official["data"][()], 0) == exported["data"][()]).all()


def break_(folder: Path, what: str) -> str:
    """Spoil one file of a release; what the error must say of it."""
    if what == "shape":
        np_data = np.zeros((1, 2, 3, 3))
        with h5py.File(folder / "BJ16_M3x2_T30_InOut.h5", "a") as hdf5:
            del hdf5["data"]
            hdf5["data"] = np_data
        return "BJ16.* holds grids 1 x 2 x 3 x 3"
    if what == "text":
        (folder / "BJ16_M3x2_T30_InOut.h5").write_text("text")
        return "cannot read .*BJ16_M3x2_T30_InOut.h5 as HDF5"
    if what == "other":
        with h5py.File(folder / "other.h5", "w") as hdf5:
            hdf5["something"] = 1
        return "other.h5 is not a file of TaxiBJ"
    if what == "weather":
        with h5py.File(folder / "BJ_Meteorology.h5", "a") as hdf5:
            hdf5["Weather"][0] = 0.5
        return "BJ_Meteorology.h5: .*one-hot Weather"
    if what == "holidays":
        (folder / "BJ_Holiday.txt").write_text("20131301\n")
        return "BJ_Holiday.txt, line 1"
    if what == "windows":
        (folder / "dataset.npz").write_text("text")
        return "cannot read X_train from .*dataset.npz"
    if what == "overlap":
        grids(folder / "again.h5", "20140301", [5])
        return "BJ14_M3x2_T30_InOut.h5 and .*again.h5 overlap in time"
    if what == "two weathers":
        (folder / "copy.h5").write_bytes((folder / "BJ_Meteorology.h5").read_bytes())
        return "BJ_Meteorology.h5 and .*copy.h5 hold the same"
    raise ValueError(what)


@pytest.mark.parametrize(
    "what", ["shape", "text", "other", "weather", "holidays", "windows", "overlap", "two weathers"]
)
def test_one_bad_file_and_nothing_is_written(
    released: Path, tmp_path: Path, snapshot: Callable[[Path], dict[str, bytes]], what: str
) -> None:
    data = tmp_path / "data"
    message = break_(released, what)
    with pytest.raises(InputError, match=message):
        import_taxibj(released, stores_in(data, city()))
    assert snapshot(data) == {} if data.exists() else True


@pytest.fixture
def cabs(tmp_path: Path) -> str:
    """A folder of GPS points: one cab, every minute of an hour."""
    folder = tmp_path / "gps"
    folder.mkdir()
    lines = [f"0.5 {0.2 + minute % 2 / 2} 0 {1_372_600_800 + 60 * minute}\n" for minute in range(60)]
    (folder / "new_a.txt").write_text("".join(lines))
    return str(folder)


def test_a_city_counted_from_records_is_refused(
    released: Path, cabs: str, tmp_path: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    data = tmp_path / "data"
    stores = stores_in(data, city())
    ingest(cabs, stores, "cabspotting")
    before = snapshot(data)
    with pytest.raises(InputError, match="'beijing' has flows counted from GPS records"):
        import_taxibj(released, stores)
    assert snapshot(data) == before


def test_an_imported_city_takes_no_records_and_further_imports(released: Path, cabs: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    stores = stores_in(data, city())
    report = import_taxibj(released, stores)
    with pytest.raises(InputError, match="'beijing' were not counted from the records here but imported"):
        ingest(cabs, stores, "cabspotting")
    assert import_taxibj(released, stores) == report


def test_a_store_of_another_grid_is_refused(released: Path, tmp_path: Path) -> None:
    import_taxibj(released, stores_in(tmp_path, city()))
    with pytest.raises(InputError, match="was made with east = 9.26, the configuration of 'beijing' says 10.0"):
        import_taxibj(released, stores_in(tmp_path, city().model_copy(update={"east": 10.0})))


def test_a_path_without_such_files(tmp_path: Path) -> None:
    stores = stores_in(tmp_path, city())
    with pytest.raises(InputError, match="there is no file or folder .*gone"):
        import_taxibj(tmp_path / "gone", stores)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("20130701")
    with pytest.raises(InputError, match="empty holds no file of TaxiBJ"):
        import_taxibj(tmp_path / "empty", stores)
    with pytest.raises(InputError, match="notes.txt holds no file of TaxiBJ"):
        import_taxibj(tmp_path / "empty" / "notes.txt", stores)


def test_windows_alone_enter_no_flow_store(tmp_path: Path) -> None:
    stores = stores_in(tmp_path, city())
    npz(tmp_path / "dataset.npz")
    report = import_taxibj(tmp_path / "dataset.npz", stores)
    assert report["grids"] == []
    assert stores.flows.days() == []
    assert (read_windows(tmp_path, city())["test"][1] == 0.5).all()
