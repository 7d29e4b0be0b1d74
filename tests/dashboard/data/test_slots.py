"""The slots of many days at once, and the tables made of them."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dashboard.data.reads import _slots_between
from dashboard.data.slots import _slot_table, _table_of_days
from dashboard.reads.stamps import DAY
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores

HALF_HOUR = np.timedelta64(30, "m")


def known(times: np.ndarray, coverage: Any = 1.0, vehicles: Any = 9) -> xr.Dataset:
    coverage = np.broadcast_to(np.float32(coverage), len(times))
    columns = {"observed": coverage >= 0.8, "coverage": coverage, "vehicles": np.broadcast_to(vehicles, len(times))}
    return xr.Dataset({name: ("time", values) for name, values in columns.items()}, {"time": times})


def read(place: Any) -> tuple[xr.Dataset | None, list[Any]]:
    return _slots_between(place.stores, place.start, place.newest + HALF_HOUR)


def test_slots_are_what_the_store_holds(place: Any) -> None:
    flows = place.add_flows()
    slots, damaged = read(place)
    assert slots is not None and "flow" not in slots and damaged == []
    for name in ("time", "observed", "coverage", "vehicles"):
        assert np.array_equal(slots[name].values, flows[name].values), name


def test_no_days_are_no_slots(place: Any) -> None:
    assert read(place) == (None, [])
    table = _slot_table(place.city, None, place.start, place.start + 2 * HALF_HOUR)
    assert table["state"].tolist() == ["missing"] * 2 and table["vehicles"].isna().all()


def test_a_damaged_day_is_named_and_the_others_are_read(place: Any) -> None:
    place.add_flows()
    (place.flows.root / "2024-05-07.nc").write_bytes(b"damaged")
    slots, damaged = read(place)
    assert slots is not None and len(slots["time"]) == 19 and "2024-05-07.nc" in str(damaged[0])


def test_a_file_in_other_units_is_read(place: Any) -> None:
    flows = place.add_flows()
    with h5py.File(place.flows.root / "2024-05-08.nc", "r+") as file:
        file["time"][:] = file["time"][:] // 60
        file["time"].attrs["units"] = "minutes since 1970-01-01"
    slots, _ = read(place)
    assert slots is not None and np.array_equal(slots["time"].values, flows["time"].values)


def test_another_grid_is_refused(place: Any) -> None:
    place.add_flows()
    other = CityStores.of(place.config, place.city.model_copy(update={"rows": 6}))
    with pytest.raises(InputError, match="rows"):
        _slots_between(other, place.start, place.newest)


def test_states_and_unknown_numbers(place: Any) -> None:
    times = place.start + HALF_HOUR * np.array([0, 1, 3])
    stored = known(times, [1.0, 0.2, 0.0], [5, -1, 3])
    records = pd.Series([7], index=[int(times[0].astype(np.int64)) // place.city.slot_us])
    table = _slot_table(place.city, stored, times[0], times[0] + 5 * HALF_HOUR, records)
    assert list(table["state"]) == ["observed", "partial", "missing", "missing", "missing"]
    assert table["vehicles"].isna().tolist() == [False, True, True, False, True]
    assert table["records"].iloc[0] == 7 and table["records"].iloc[1:].isna().all()
    assert table["label"].iloc[1] == "Tue 07 May 2024 00:30 CEST"
    assert table["hour"].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize(("day", "slots", "twice"), [("2024-10-27", 50, 4), ("2024-03-31", 46, 0)])
def test_days_on_which_clocks_change(place: Any, day: str, slots: int, twice: int) -> None:
    start, end = (place.city.midnight(np.datetime64(day) + i * DAY) for i in (0, 1))
    table = _slot_table(place.city, known(np.arange(start, end, HALF_HOUR)), start, end)
    assert len(table) == slots and (table["parts"] == 2).sum() == twice
    assert table["hour"].isin([2.0, 2.5]).sum() == twice
    assert not table.duplicated(["day", "hour", "part"]).any()
    assert (table["state"] == "observed").all()


def test_slots_that_do_not_begin_at_midnight_end_with_the_day() -> None:
    nepal = City(west=85, east=86, south=27, north=28, timezone="Asia/Kathmandu", name="nepal")
    start, end = (nepal.midnight(np.datetime64("2024-05-07") + i * DAY) for i in (0, 1))
    table = _slot_table(nepal, known(np.zeros(0, "datetime64[us]")), start, end)
    assert len(table) == 48 and table["until"].max() == 24.0 and table["hour"].iloc[0] == 0.25


def test_days_are_summed_up_newest_first(place: Any) -> None:
    place.add_flows()
    stored, _ = read(place)
    table = _slot_table(place.city, stored, place.start, place.newest + HALF_HOUR)
    days = _table_of_days(table)
    assert days["day"].dt.strftime("%Y-%m-%d").tolist() == ["2024-05-08", "2024-05-07"]
    assert days["observed"].tolist() == [18, 48] and days["partial"].tolist() == [1, 0]
    assert days["missing"].tolist() == [0, 0] and days["most vehicles"].tolist() == [9, 9]
    assert days["records"].isna().all()
