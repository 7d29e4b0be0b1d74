"""A store's files are read as xarray reads them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from trafficcast.config.city import HORIZON, City
from trafficcast.forecasting.intervals import Intervals
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_files import _read_day_file
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.forecasts import BASELINE, Provenance, forecast_dataset
from trafficcast.stores.scores import score_dataset

CITY = City(west=0.1, east=1, south=-0.2, north=1, rows=8, cols=8, timezone="America/New_York", name="small")
TIME = np.datetime64("2008-06-04T04:00", "us")
CARD = {"version": "vmrnn-b-1", "architecture": {"name": "vmrnn-b"}}


def by_xarray(file: Path, only: Collection[str] | None = None) -> xr.Dataset:
    with xr.open_dataset(file, engine="h5netcdf", decode_timedelta=True) as dataset:
        return dataset.drop_vars([] if only is None else dataset.data_vars.keys() - only).load()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A day of flows, of forecasts with and without intervals and words, and of scores."""
    draw = np.random.default_rng(0)
    flow = draw.poisson(5, (6, HORIZON, 2, 8, 8)).astype(np.float64)
    times = TIME + np.timedelta64(30, "m") * np.arange(6)
    flows = flows_dataset(CITY, times, flow[:, 0], draw.integers(-1, 9, 6), draw.random(6))
    errors = draw.normal(size=(64, HORIZON, 2, 8, 8))
    intervals = Intervals.fit(np.full(errors.shape, 6.0), (6 + errors).clip(0))
    baseline = Provenance("persistence", BASELINE, "ein Slot fehlt: 18:00 \N{LATIN SMALL LETTER U WITH DIAERESIS}")
    first = forecast_dataset(CITY, CARD, times[0], flow[0], times[0], (intervals.levels, *intervals.around(flow[0])))
    second = forecast_dataset(CITY, CARD, times[1], flow[1], times[1], origin=baseline)
    stores = (
        CityStores(CITY, tmp_path, tmp_path.parent / "models").flows,
        CityStores(CITY, tmp_path, tmp_path.parent / "models").forecasts("v"),
        CityStores(CITY, tmp_path, tmp_path.parent / "models").scores("v"),
    )
    stores[0].write(flows)
    stores[1].write(first)
    stores[1].write(second)
    stores[2].write(score_dataset(CITY, times[0], {"v": flow[0], "persistence": flow[1]}, flow[2]))
    return {store.root.relative_to(tmp_path).parts[1]: next(store.root.glob("*.nc")) for store in stores}


@pytest.mark.parametrize("only", [None, [], ["flow"], ["rmse", "observed", "lower", "state"]])
@pytest.mark.parametrize("kind", ["flows", "forecasts", "scores"])
def test_it_is_what_xarray_reads(files: dict[str, Path], kind: str, only: list[str] | None) -> None:
    fast, plain = _read_day_file(files[kind], only), by_xarray(files[kind], only)
    assert fast.identical(plain)
    for one, other in zip(fast.variables.items(), plain.variables.items(), strict=True):
        assert (one[0], one[1].dtype) == (other[0], other[1].dtype)
    assert [(name, type(value)) for name, value in fast.attrs.items()] == [
        (name, type(value)) for name, value in plain.attrs.items()
    ]


def test_a_file_that_another_program_laid_out_is_read_by_xarray(files: dict[str, Path]) -> None:
    file = files["flows"]
    plain = by_xarray(file)
    with h5py.File(file, "a") as opened:
        for variable in opened.values():
            variable.attrs.pop("_Netcdf4Coordinates", None)
    with pytest.raises(LookupError):
        _read_day_file(file)
    read = DayStore(file.parent, CITY, "time").read()
    assert read is not None and (read["flow"].values == plain["flow"].values).all()
