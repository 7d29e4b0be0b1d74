"""A store's files are read as xarray reads them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from trafficcast.config.city import HORIZON, City
from trafficcast.errors import DamagedFile
from trafficcast.forecasting.intervals import Intervals
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_files import _DayRun
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


DIMENSIONS = {"flows": "time", "forecasts": "init_time", "scores": "init_time"}


@pytest.mark.parametrize("only", [None, [], ["flow"], ["rmse", "observed", "lower", "state"]])
@pytest.mark.parametrize("kind", ["flows", "forecasts", "scores"])
def test_it_is_what_xarray_reads(files: dict[str, Path], kind: str, only: list[str] | None) -> None:
    fast, plain = _DayRun(files[kind], DIMENSIONS[kind], only).dataset(), by_xarray(files[kind], only)
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
        _DayRun(file, "time")
    read = DayStore(file.parent, CITY, "time").read()
    assert read is not None and (read["flow"].values == plain["flow"].values).all()


def by_day(store: DayStore, only: list[str] | None = None) -> xr.Dataset:
    """The store's days, each read by xarray, as one dataset."""
    days = [by_xarray(store.root / f"{day}.nc", only) for day in store.days()]
    whole = xr.concat(
        days,
        store.dimension,
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="outer",
        combine_attrs="override",
    )
    return whole.assign_coords({store.dimension: whole[store.dimension].astype("datetime64[us]")})


def two_scores_a_day(stores: CityStores, day: int, names: tuple[str, ...] = ("v", "persistence")) -> None:
    """Scores of two forecasts of a day, the first with intervals."""
    truth = np.full((HORIZON, 2, 8, 8), 3.0)
    bounds = ("level", "lead_time", "flow_kind", "row", "col")
    bounded = xr.Dataset(
        {"lower": (bounds, truth[None] - 1), "upper": (bounds, truth[None] + day)}, {"level": ("level", [0.8])}
    )
    first, forecasts = TIME + np.timedelta64(day, "D"), {name: truth + i - day for i, name in enumerate(names)}
    stores.scores("v").write(score_dataset(CITY, first, forecasts, truth, bounded))
    stores.scores("v").write(score_dataset(CITY, first + CITY.slot, forecasts, truth))


@pytest.mark.parametrize("names", [("v", "persistence"), ("v",), ("v", "climatology", "persistence")])
def test_many_days_are_what_xarray_reads_of_each(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Also where a day has other forecasters than those around it."""
    stores = CityStores(CITY, tmp_path, tmp_path / "models")
    for day in range(5):
        two_scores_a_day(stores, day, names if day == 2 else ("v", "persistence"))
    read, expected = stores.scores("v").read(), by_day(stores.scores("v"))
    assert read is not None and read.sizes["init_time"] == 10
    xr.testing.assert_identical(read, expected.assign_coords(lead_time=read["lead_time"]))


def test_days_of_flows_are_what_xarray_reads_of_each(tmp_path: Path) -> None:
    store = CityStores(CITY, tmp_path, tmp_path / "models").flows
    draw = np.random.default_rng(0)
    times = TIME + np.timedelta64(30, "m") * np.arange(200)
    flow = draw.poisson(5, (200, 2, 8, 8))
    store.write(flows_dataset(CITY, times, flow, draw.integers(-1, 9, 200), draw.random(200)))
    for only in (None, ["observed", "vehicles"]):
        read = store.read(only=only)
        assert read is not None and read.identical(by_day(store, only))


def test_a_day_in_other_units_among_others_is_read_as_it_stands(tmp_path: Path) -> None:
    store = CityStores(CITY, tmp_path, tmp_path / "models").flows
    times = TIME + np.timedelta64(30, "m") * np.arange(144)
    flows = flows_dataset(CITY, times, np.zeros((144, 2, 8, 8)), np.full(144, 9), np.ones(144))
    store.write(flows)
    with h5py.File(store.root / "2008-06-05.nc", "r+") as file:
        file["time"][:] = file["time"][:] // 60
        file["time"].attrs["units"] = "minutes since 1970-01-01"
    read = store.read(only=["observed"])
    assert read is not None and (read["time"].values == times).all()


def test_damaged_days_are_left_out_where_they_are_asked_for(tmp_path: Path) -> None:
    stores = CityStores(CITY, tmp_path, tmp_path / "models")
    for day in range(4):
        two_scores_a_day(stores, day)
    store = stores.scores("v")
    (store.root / "2008-06-05.nc").write_bytes(b"damaged")
    with pytest.raises(DamagedFile):
        store.read()
    damaged: list[DamagedFile] = []
    read = store.read(damaged=damaged)
    assert read is not None and read.sizes["init_time"] == 6
    assert [error.file.name for error in damaged] == ["2008-06-05.nc"]


def test_times_that_no_calendar_has_are_damage(tmp_path: Path) -> None:
    stores = CityStores(CITY, tmp_path, tmp_path / "models")
    for day in range(3):
        two_scores_a_day(stores, day)
    with h5py.File(stores.scores("v").root / "2008-06-05.nc", "r+") as file:
        file["init_time"][:] = 2**62
    damaged: list[DamagedFile] = []
    read = stores.scores("v").read(damaged=damaged)
    assert read is not None and read.sizes["init_time"] == 4 and len(damaged) == 1
