"""Exports: the whole of a store as NetCDF, and observed slots in the layout of the TaxiBJ files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.stores.export import export
from trafficcast.stores.flows import flows_dataset

HALF_HOUR = np.timedelta64(30, "m")


def city(timezone: str = "Asia/Shanghai", slot_minutes: int = 30) -> City:
    return City(
        west=0, east=1, south=0, north=1, rows=3, cols=2, timezone=timezone, slot_minutes=slot_minutes, name="small"
    )


def flows(start: str, slots: int, cut: list[int] | None = None) -> xr.Dataset:
    observed = np.ones(slots)
    observed[cut or []] = 0.5
    flow = np.random.default_rng(0).integers(0, 2**31 - 1, (slots, 2, 3, 2))
    time = np.datetime64(start, "us") + HALF_HOUR * np.arange(slots)
    return flows_dataset(city(), time, flow, np.full(slots, 7), observed)


def test_netcdf_holds_every_slot_with_its_flags(tmp_path: Path) -> None:
    whole = flows("2008-06-03T16:00", 6, cut=[2])
    assert export(city(), whole, "netcdf", tmp_path / "out.nc") == 6
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as found:
        assert found.load().equals(whole)
        assert found["flow"].dtype.kind == "i"
        assert found["flow_kind"].values.tolist() == ["inflow", "outflow"]
        assert found["observed"].values.tolist() == [True, True, False, True, True, True]
        assert found.attrs["Conventions"].startswith("CF-")
        assert (found.attrs["timezone"], found.attrs["slot_minutes"]) == ("Asia/Shanghai", 30)


def test_netcdf_holds_the_slots_of_days_without_a_record_too(tmp_path: Path) -> None:
    whole = flows("2008-06-03T16:00", 200)
    stored = whole.isel(time=[0, 1, 198, 199])
    assert export(city(), stored, "netcdf", tmp_path / "out.nc") == 200
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as found:
        assert found.isel(time=[0, 1, 198, 199]).load().equals(stored)
        assert found["flow"].dtype == np.int32 and found["observed"].dtype == bool
        assert (found["time"].values == whole["time"].values).all()
        between = found.isel(time=slice(2, 198))
        assert not any(between[name].values.any() for name in ("flow", "observed", "vehicles", "coverage"))


def test_taxibj_holds_observed_slots_inflow_first(tmp_path: Path) -> None:
    whole = flows("2008-06-03T16:00", 6, cut=[2, 5])
    assert export(city(), whole, "taxibj", tmp_path / "out.h5") == 4
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file) == {"data", "date"}
        assert file["data"].shape == (4, 2, 3, 2)
        assert file["data"].dtype.kind == "i"
        assert (file["data"][:] == whole["flow"].values[[0, 1, 3, 4]]).all()
        assert (file["data"][:, 0] == whole["flow"].sel(flow_kind="inflow").values[[0, 1, 3, 4]]).all()
        assert file["date"][:].tolist() == [b"2008060401", b"2008060402", b"2008060404", b"2008060405"]


def test_a_zone_whose_midnight_is_no_slot_edge_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    with pytest.raises(InputError, match="midnight in Asia/Kathmandu is no edge of slots of 30 minutes"):
        export(city("Asia/Kathmandu"), flows("2008-06-04T00:00", 4), "taxibj", out)
    assert not out.exists()
    export(city("Asia/Kathmandu"), flows("2008-06-04T00:00", 4), "netcdf", out)  # which has no such labels


def test_without_any_observed_slot_the_dates_are_still_byte_strings_or_it_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    try:
        export(city(), flows("2008-06-03T16:00", 2, cut=[0, 1]), "taxibj", out)
    except InputError:
        assert not out.exists()
        return
    with h5py.File(out) as file:
        assert file["date"].dtype.kind == "S"


@pytest.mark.parametrize("name", ["netcdf", "taxibj"])
def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    out = tmp_path / "out"
    out.write_text("precious")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    monkeypatch.setattr(h5py.File, "create_dataset", fail)
    with pytest.raises(OSError, match="no space left"):
        export(city(), flows("2008-06-03T16:00", 2), name, out)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert out.read_text() == "precious"


def test_a_file_that_is_there_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.nc"
    out.write_text("old")
    whole = flows("2008-06-03T16:00", 2)
    export(city(), whole, "netcdf", out)
    with xr.open_dataset(out, engine="h5netcdf") as found:
        assert found.load().equals(whole)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    whole = flows("2008-06-03T16:00", 2)
    with pytest.raises(InputError, match="unknown format 'csv'; known are: netcdf, taxibj"):
        export(city(), whole, "csv", tmp_path / "out.csv")
    with pytest.raises(InputError, match="no folder .*gone"):
        export(city(), whole, "netcdf", tmp_path / "gone" / "out.nc")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder"):
        export(city(), whole, "netcdf", tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
