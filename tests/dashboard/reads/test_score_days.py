from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from dashboard.reads.stores import scores_between
from dashboard.skill.reads import _newest_score
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.scores import as_datasets, read_score_day, score_dataset

SLOT = np.timedelta64(30, "m")

DAY = np.datetime64("2024-05-07")


def filled(place: Any, days: int = 1) -> DayStore:
    """A store with two scores a day, the first with intervals."""
    store = CityStores.of(place.config, place.city).scores("vmrnn-b-1")
    truth = np.full((4, 2, 5, 7), 3.0)
    bounds = ("level", "lead_time", "flow_kind", "row", "col")
    bounded = xr.Dataset(
        {"lower": (bounds, truth[None] - 1), "upper": (bounds, truth[None] + 1)}, {"level": ("level", [0.8])}
    )
    for day in range(days):
        first = place.start + np.timedelta64(day, "D") + 10 * SLOT
        store.write(score_dataset(place.city, first, {"vmrnn-b-1": truth + 1, "persistence": truth}, truth, bounded))
        store.write(score_dataset(place.city, first + SLOT, {"vmrnn-b-1": truth - 1}, truth))
    return store


def test_a_day_reads_as_the_store_reads_it(place: Any) -> None:
    store = filled(place)
    day, expected = read_score_day(store, DAY), store.read_day(DAY)
    assert day is not None and expected is not None
    (read,) = as_datasets([day])
    xr.testing.assert_equal(read, expected)
    assert read.attrs == expected.attrs
    assert read["init_time"].dtype == expected["init_time"].dtype


def test_a_file_laid_out_otherwise_is_left_to_the_store(place: Any) -> None:
    store = filled(place)
    with h5py.File(store.root / f"{DAY}.nc", "r+") as file:
        file["init_time"].attrs["units"] = "seconds since 1970-01-02"
    read, expected = read_score_day(store, DAY), store.read_day(DAY)
    assert read is None and expected is None  # they are of the next day


def test_damaged_and_foreign_files_are_errors(place: Any) -> None:
    store = filled(place)
    other = DayStore(store.root, place.city.model_copy(update={"rows": 6}), "init_time")
    with pytest.raises(InputError, match="rows"):
        read_score_day(other, DAY)
    (store.root / f"{DAY}.nc").write_bytes(b"no NetCDF")
    with pytest.raises(InputError, match="cannot read"):
        read_score_day(store, DAY)


def test_scores_of_a_period_follow_the_store(place: Any) -> None:
    filled(place, 3)
    newest = _newest_score(place.config, place.city, "vmrnn-b-1")
    assert newest == place.start + np.timedelta64(2, "D") + 11 * SLOT
    end = newest + SLOT
    everything = scores_between(place.config, place.city, "vmrnn-b-1", None, end)
    last_day = scores_between(place.config, place.city, "vmrnn-b-1", end - np.timedelta64(1, "D"), end)
    assert everything is not None and everything.sizes["init_time"] == 6
    assert last_day is not None and last_day.sizes["init_time"] == 2

    filled(place, 4)
    assert _newest_score(place.config, place.city, "vmrnn-b-1") == newest + np.timedelta64(1, "D")
    assert scores_between(place.config, place.city, "vmrnn-b-2", None, end) is None
    assert _newest_score(place.config, place.city, "vmrnn-b-2") is None
