"""Export of a city's flows as NetCDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.cities import small_city
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.stores.export import export
from trafficcast.stores.flows import flows_dataset

HALF_HOUR = np.timedelta64(30, "m")


def city(timezone: str = "Asia/Shanghai", slot_minutes: int = 30) -> City:
    return small_city(rows=3, cols=2, timezone=timezone, slot_minutes=slot_minutes)


def flows(start: str, slots: int, cut: list[int] | None = None) -> xr.Dataset:
    observed = np.ones(slots)
    observed[cut or []] = 0.5
    flow = np.random.default_rng(0).integers(0, 2**31 - 1, (slots, 2, 3, 2))
    time = np.datetime64(start, "us") + HALF_HOUR * np.arange(slots)
    return flows_dataset(city(), time, flow, np.full(slots, 7), observed)


def test_netcdf_holds_every_slot_with_its_flags(tmp_path: Path) -> None:
    whole = flows("2008-06-03T16:00", 6, cut=[2])
    assert export(city(), whole, tmp_path / "out.nc") == 6
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
    assert export(city(), stored, tmp_path / "out.nc") == 200
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as found:
        assert found.isel(time=[0, 1, 198, 199]).load().equals(stored)
        assert found["flow"].dtype == np.int32 and found["observed"].dtype == bool
        assert (found["time"].values == whole["time"].values).all()
        between = found.isel(time=slice(2, 198))
        assert not any(between[name].values.any() for name in ("flow", "observed", "vehicles", "coverage"))


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.write_text("precious")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OSError, match="no space left"):
        export(city(), flows("2008-06-03T16:00", 2), out)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert out.read_text() == "precious"


def test_a_file_that_is_there_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.nc"
    out.write_text("old")
    whole = flows("2008-06-03T16:00", 2)
    export(city(), whole, out)
    with xr.open_dataset(out, engine="h5netcdf") as found:
        assert found.load().equals(whole)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    whole = flows("2008-06-03T16:00", 2)
    with pytest.raises(InputError, match="no folder .*gone"):
        export(city(), whole, tmp_path / "gone" / "out.nc")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder"):
        export(city(), whole, tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
