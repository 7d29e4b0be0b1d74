"""The day stores: one file a local day, replaced whole, read back exactly."""

from __future__ import annotations

import random
import resource
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.files import writer_lock
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.flows import flows_dataset

HALF_HOUR = np.timedelta64(30, "m")


def city(timezone: str = "America/New_York") -> City:
    return City(west=0.1, east=1, south=-0.2, north=1, rows=3, cols=2, timezone=timezone, name="small")


def flows(start: str, slots: int, seed: int = 0, where: City | None = None) -> xr.Dataset:
    draw = np.random.default_rng(seed)
    time = np.datetime64(start, "us") + HALF_HOUR * np.arange(slots)
    coverage = draw.integers(0, 31, slots) / 30
    flow = draw.integers(0, 2**31 - 1, (slots, 2, 3, 2))
    return flows_dataset(where or city(), time, flow, draw.integers(-1, 500, slots), coverage)


def read(store: DayStore, *period: str) -> xr.Dataset:
    dataset = store.read(*(np.datetime64(time, "us") for time in period))
    assert dataset is not None
    return dataset


def ages(store: DayStore) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in store.root.glob("*.nc")}


@pytest.fixture
def store(tmp_path: Path) -> DayStore:
    return CityStores(city(), tmp_path, tmp_path.parent / "models").flows


def test_an_empty_store(store: DayStore) -> None:
    assert store.read() is None
    assert store.days() == []


def test_what_is_read_is_what_was_written_with_attributes_and_types(store: DayStore) -> None:
    written = flows("2008-06-04T04:00", 100)
    store.write(written)
    whole = read(store)
    assert whole.identical(written)
    assert {name: variable.dtype for name, variable in whole.variables.items()} == {
        name: variable.dtype for name, variable in written.variables.items()
    }
    assert {key: type(value) for key, value in city().grid().items()} == {
        "west": float, "east": float, "south": float, "north": float,
        "rows": int, "cols": int, "slot_minutes": int, "timezone": str,
    }  # fmt: skip
    assert {key: whole.attrs[key] for key in city().grid()} == city().grid()


def test_forecasts_keep_their_lead_times_and_valid_times(tmp_path: Path) -> None:
    store = CityStores(city(), tmp_path, tmp_path.parent / "models").forecasts("v1")
    init = np.array(["2008-06-04T03:30", "2008-06-04T04:00"], "datetime64[us]")
    lead = (HALF_HOUR * np.arange(4)).astype("timedelta64[us]")
    written = xr.Dataset(
        {"flow": (("init_time", "lead_time", "row"), np.float32([[[0.1, np.nan]] * 4, [[1e-30, 3]] * 4]))},
        {"init_time": init, "lead_time": lead, "valid_time": (("init_time", "lead_time"), init[:, None] + lead)},
        {**city().grid(), "model": "vmrnn", "version": "v1"},
    )
    store.write(written)
    assert read(store).identical(written)
    assert store.days() == [np.datetime64("2008-06-03"), np.datetime64("2008-06-04")]


@pytest.mark.parametrize("later", [HALF_HOUR, 48 * HALF_HOUR])
@pytest.mark.parametrize("names", [("a b c", "a b"), ("a b", "a b c"), ("a b", "b c")])
def test_scores_of_other_forecasters_keep_their_names(
    tmp_path: Path, names: tuple[str, str], later: np.timedelta64
) -> None:
    """In one file and in two: a baseline may be missing where its package is not installed."""
    store, start = (
        CityStores(city(), tmp_path, tmp_path.parent / "models").scores("v1"),
        np.datetime64("2008-06-04T12:00", "us"),
    )
    values = {"a": 1.0, "b": 2.0, "c": 3.0}
    for i, part in enumerate(names):
        rmse = ("init_time", "forecaster"), [[values[name] + 10 * i for name in part.split()]]
        coordinates = {"init_time": [start + i * later], "forecaster": part.split()}
        store.write(xr.Dataset({"rmse": rmse}, coordinates, city().grid()))
    found = read(store)
    for i, part in enumerate(names):
        scores = found["rmse"].isel(init_time=i).dropna("forecaster")
        assert dict(zip(scores["forecaster"].values, scores.values, strict=True)) == {
            name: values[name] + 10 * i for name in part.split()
        }


def test_the_three_stores_lie_apart(tmp_path: Path) -> None:
    roots = [
        CityStores(city(), tmp_path, tmp_path.parent / "models").flows.root,
        CityStores(city(), tmp_path, tmp_path.parent / "models").forecasts("v1").root,
        CityStores(city(), tmp_path, tmp_path.parent / "models").forecasts("v2").root,
        CityStores(city(), tmp_path, tmp_path.parent / "models").scores("v1").root,
    ]
    assert [str(root.relative_to(tmp_path / "small")) for root in roots] == [
        "flows", "forecasts/v1", "forecasts/v2", "scores/v1",
    ]  # fmt: skip


@pytest.mark.parametrize(("day", "slots"), [("2008-03-09", 46), ("2008-06-04", 48), ("2008-11-02", 50)])
def test_one_file_a_local_day(store: DayStore, day: str, slots: int) -> None:
    store.write(flows(f"{day}T00:00", 70))
    days = np.datetime64(day) + np.arange(-1, 2)
    assert [str(found) for found in store.days()] == [str(found) for found in days]
    with xr.open_dataset(store.root / f"{day}.nc", engine="h5netcdf") as one:
        assert one.sizes["time"] == slots
        assert set(city().local_days(one["time"].values).astype(str)) == {day}


def test_reading_from_start_up_to_end(store: DayStore) -> None:
    whole = flows("2008-06-04T00:00", 120)
    store.write(whole)
    part = read(store, "2008-06-04T03:30", "2008-06-05T04:00")
    assert part.identical(whole.isel(time=slice(7, 56)))
    assert read(store, "2008-06-05T03:30").identical(whole.isel(time=slice(55, None)))
    assert read(store, "2008-06-04T03:31", "2008-06-04T04:01").identical(whole.isel(time=[8]))
    assert store.read(None, np.datetime64("2008-06-04T00:00", "us")) is None
    assert store.read(np.datetime64("2009-01-01", "us")) is None
    assert store.read(np.datetime64("2008-06-04T03:31", "us"), np.datetime64("2008-06-04T03:59", "us")) is None


def test_times_come_in_order_where_the_clocks_go_back_over_midnight(tmp_path: Path) -> None:
    there = city("America/St_Johns")  # at 00:01 on 2008-11-02 it was 23:01 on the first again
    store = CityStores(there, tmp_path, tmp_path.parent / "models").flows
    whole = flows("2008-11-01T12:00", 60, where=there)
    store.write(whole)
    assert read(store).identical(whole)
    assert read(store, "2008-11-02T02:30", "2008-11-02T04:00").identical(whole.isel(time=slice(29, 32)))


def test_writing_replaces_the_same_times_and_keeps_the_others(store: DayStore) -> None:
    old, new = flows("2008-06-04T04:00", 60), flows("2008-06-04T14:00", 10, seed=1)
    store.write(old)
    store.write(new)
    whole = read(store)
    assert (whole["time"] == old["time"]).all()
    assert whole.isel(time=slice(20, 30)).identical(new)
    assert whole.isel(time=slice(0, 20)).identical(old.isel(time=slice(0, 20)))
    assert whole.isel(time=slice(30, None)).identical(old.isel(time=slice(30, None)))


def test_earlier_times_written_later_come_first(store: DayStore) -> None:
    whole = flows("2008-06-04T04:00", 20)
    for part in (slice(10, 20), slice(0, 5), slice(5, 10)):
        store.write(whole.isel(time=part))
    assert read(store).identical(whole)


def test_a_day_whose_content_does_not_change_keeps_its_file(store: DayStore) -> None:
    whole = flows("2008-06-04T04:00", 96)
    store.write(whole)
    before = ages(store)
    store.write(whole)
    store.write(whole.isel(time=slice(3, 9)))
    assert ages(store) == before
    changed = whole.isel(time=[50]).copy(deep=True)
    changed["flow"][:] = 1
    store.write(changed)
    assert [name for name, age in ages(store).items() if age != before[name]] == ["2008-06-05.nc"]


@pytest.mark.parametrize(
    "change", [{"rows": 4}, {"west": 0.2}, {"slot_minutes": 60}, {"timezone": "America/Toronto"}], ids=str
)
def test_another_grid_is_refused(store: DayStore, change: dict[str, Any]) -> None:
    store.write(flows("2008-06-04T04:00", 5))
    before = ages(store)
    other = city().model_copy(update=change)
    key, value = next(iter(change.items()))
    with pytest.raises(InputError, match=rf"2008-06-04\.nc was made with {key} = .*says {value}"):
        DayStore(store.root, other, "time").read()
    with pytest.raises(InputError, match=r"2008-06-04\.nc was made with"):
        DayStore(store.root, other, "time").write(flows("2008-06-04T08:00", 5))
    assert ages(store) == before


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_named(store: DayStore, share: float) -> None:
    store.write(flows("2008-06-04T04:00", 96))
    file = store.root / "2008-06-05.nc"
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"2008-06-05\.nc"):
        store.read()
    assert store.read(end=np.datetime64("2008-06-05T03:59", "us")) is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_byte_gone_wrong_never_escapes_as_anything_but_an_error_that_names_the_file(store: DayStore) -> None:
    store.write(flows("2008-06-04T04:00", 4))
    file = store.root / "2008-06-04.nc"
    data = file.read_bytes()
    draw, refused = random.Random(0), 0
    for _ in range(60):
        position = draw.randrange(len(data))
        file.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            store.read()
        except InputError as error:
            assert file.name in str(error)
            refused += 1
    assert refused > 10


def test_something_else_under_a_day_s_name_is_named(store: DayStore) -> None:
    store.root.mkdir(parents=True)
    (store.root / "2008-06-04.nc").write_text("not a grid")
    with pytest.raises(InputError, match=r"cannot read .*2008-06-04\.nc"):
        store.read()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    store: DayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = flows("2008-06-04T04:00", 5)
    store.write(old)
    before = {file.name: file.read_bytes() for file in store.root.iterdir()}
    seen: list[xr.Dataset] = []
    real = xr.Dataset.to_netcdf

    def half(dataset: xr.Dataset, path: Path, **options: Any) -> None:
        real(dataset, path, **options)
        seen.append(read(store))  # a reader comes by while the new file is being written
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_netcdf", half)
        with pytest.raises(OSError, match="no space left"):
            store.write(flows("2008-06-04T04:00", 5, seed=1))
    assert seen[0].identical(old)
    assert {file.name: file.read_bytes() for file in store.root.iterdir()} == before
    assert read(store).identical(old)
    store.write(flows("2008-06-04T04:00", 5, seed=1))  # and the lock is free again
    assert read(store).identical(flows("2008-06-04T04:00", 5, seed=1))


def test_a_writer_removes_what_a_killed_one_left(store: DayStore) -> None:
    store.write(flows("2008-06-04T04:00", 5))
    (store.root / ".2008-06-04.nc.abc.tmp").touch()
    store.write(flows("2008-06-05T04:00", 5))
    assert [file.name for file in store.root.iterdir() if file.name.endswith(".tmp")] == []
    assert [str(day) for day in store.days()] == ["2008-06-04", "2008-06-05"]


def test_one_writer_at_a_time_and_readers_do_not_wait(store: DayStore) -> None:
    store.write(flows("2008-06-04T04:00", 5))
    new = flows("2008-06-04T04:00", 5, seed=1)
    writer = threading.Thread(target=store.write, args=(new,))
    with writer_lock(store.root):
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert read(store).identical(flows("2008-06-04T04:00", 5))
    writer.join(20)
    assert not writer.is_alive()
    assert read(store).identical(new)


def test_many_writers_lose_nothing(store: DayStore) -> None:
    whole = flows("2008-06-04T04:00", 12)
    writers = [threading.Thread(target=store.write, args=(whole.isel(time=[slot]),)) for slot in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert read(store).identical(whole)


def test_a_write_for_which_there_is_no_room_fails_and_ends_no_process(store: DayStore) -> None:
    store.write(flows("2024-04-08T04:00", 4))
    before = read(store)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            store.write(flows("2024-04-08T06:00", 4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert read(store).identical(before) and not list(store.root.glob("*.tmp"))
