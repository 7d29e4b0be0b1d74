from typing import Any

import numpy as np
import pytest
import xarray as xr

from dashboard.page.unreadable import begin_page, sentences
from dashboard.reads.stores import scores_between
from dashboard.skill.reads import _newest_score
from trafficcast.errors import InputError
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore
from trafficcast.stores.scores import score_dataset

SLOT = np.timedelta64(30, "m")

DAY = np.datetime64("2024-05-07")


def filled(place: Any, days: int = 1) -> DayStore:
    """A store with two scores a day, the first with intervals."""
    store = place.stores.scores("vmrnn-b-1")
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


def test_damaged_files_are_named_and_foreign_ones_refused(place: Any) -> None:
    store = filled(place, 3)
    other = CityStores.of(place.config, place.city.model_copy(update={"rows": 6}))
    end = place.start + np.timedelta64(9, "D")
    with pytest.raises(InputError, match="rows"):
        scores_between(other, "vmrnn-b-1", None, end)
    (store.root / f"{DAY}.nc").write_bytes(b"no NetCDF")
    for _ in range(2):  # also where the read is cached
        begin_page()
        others = scores_between(place.stores, "vmrnn-b-1", None, end)
        assert others is not None and str(DAY) not in str(others["init_time"].values)
        (said,) = sentences()
        assert f"{DAY}.nc" in said and "run trafficcast repair --city testville" in said


def test_scores_of_a_period_follow_the_store(place: Any) -> None:
    filled(place, 3)
    newest = _newest_score(place.stores, "vmrnn-b-1")
    assert newest == place.start + np.timedelta64(2, "D") + 11 * SLOT
    end = newest + SLOT
    everything = scores_between(place.stores, "vmrnn-b-1", None, end)
    last_day = scores_between(place.stores, "vmrnn-b-1", end - np.timedelta64(1, "D"), end)
    assert everything is not None and everything.sizes["init_time"] == 6
    assert last_day is not None and last_day.sizes["init_time"] == 2

    filled(place, 4)
    assert _newest_score(place.stores, "vmrnn-b-1") == newest + np.timedelta64(1, "D")
    assert scores_between(place.stores, "vmrnn-b-2", None, end) is None
    assert _newest_score(place.stores, "vmrnn-b-2") is None
