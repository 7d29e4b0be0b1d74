"""Published forecasts: one series, whichever champion made each, and when one is overdue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.cities import small_city, stores_in
from trafficcast.config.service import Service
from trafficcast.errors import InputError
from trafficcast.files import write_text
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.forecasts import forecast_dataset
from trafficcast.stores.published import is_overdue, latest_forecast, published

CITY = small_city(rows=2, cols=3, timezone="America/New_York")
INIT = np.datetime64("2024-04-09T03:00", "us")  # 23:00 on the 8th in New York


@pytest.fixture
def stores(tmp_path: Path) -> CityStores:
    return stores_in(tmp_path / "data", CITY)


def champions(stores: CityStores, *versions: str) -> None:
    write_text(stores.registry.root / "champion", "\n".join(versions) + "\n")


def forecast(stores: CityStores, version: str, *slots: int) -> None:
    """Forecasts by a version, of which each value is its slot's number."""
    card = {"version": version, "architecture": {"name": "vmrnn-b"}}
    for slot in slots:
        time, flow = INIT + slot * CITY.slot, np.full((4, 2, 2, 3), float(slot))
        stores.forecasts(version).write(forecast_dataset(CITY, card, time, flow, time))


def slots_of(found: list[tuple[str, xr.Dataset]]) -> dict[str, list[int]]:
    """Version -> the slots, in the order given; the flows must be those of the slots."""
    slots = {}
    for version, made in found:
        numbers = (made["init_time"].values - INIT) // CITY.slot
        np.testing.assert_array_equal(made["flow"].values[:, 0, 0, 0, 0], numbers)
        slots[version] = numbers.tolist()
    return slots


def test_nothing_is_published_without_a_champion_or_a_forecast(stores: CityStores) -> None:
    assert published(stores) == [] and latest_forecast(stores) is None
    champions(stores, "b", "a")
    assert published(stores) == [] and latest_forecast(stores) is None


def test_a_slot_forecast_by_two_champions_is_the_newer_one_s(stores: CityStores) -> None:
    champions(stores, "c", "b", "a")
    forecast(stores, "a", 0, 1, 2, 3)
    forecast(stores, "b", 2, 4)
    forecast(stores, "c", 3, 5)
    found = published(stores)
    assert slots_of(found) == {"c": [3, 5], "b": [2, 4], "a": [0, 1]}
    assert [version for version, _ in found] == ["c", "b", "a"]


def test_one_whose_slots_all_were_forecast_by_newer_ones_has_none(stores: CityStores) -> None:
    champions(stores, "b", "a")
    forecast(stores, "a", 1)
    forecast(stores, "b", 1, 2)
    assert slots_of(published(stores)) == {"b": [1, 2]}


def test_of_a_model_that_was_never_champion_nothing_is_published(stores: CityStores) -> None:
    champions(stores, "a")
    forecast(stores, "a", 0)
    forecast(stores, "other", 0, 1)
    assert slots_of(published(stores)) == {"a": [0]}
    latest = latest_forecast(stores)
    assert latest is not None and slots_of([latest]) == {"a": [0]}


def test_a_period_has_its_start_and_not_its_end(stores: CityStores) -> None:
    champions(stores, "b", "a")
    forecast(stores, "a", 0, 1, 2)
    forecast(stores, "b", 3, 4, 5)
    period = INIT + CITY.slot, INIT + 4 * CITY.slot
    assert slots_of(published(stores, *period)) == {
        "b": [3],
        "a": [1, 2],
    }
    assert published(stores, INIT + 6 * CITY.slot) == []


def test_the_latest_is_that_of_the_newest_slot_whoever_made_it(stores: CityStores) -> None:
    champions(stores, "b", "a")
    forecast(stores, "b", 0, 1)
    forecast(stores, "a", 0, 1, 2, 3)  # b was damaged meanwhile
    latest = latest_forecast(stores)
    assert latest is not None and slots_of([latest]) == {"a": [3]}
    assert latest[1].sizes["init_time"] == 1
    forecast(stores, "b", 3)
    latest = latest_forecast(stores)
    assert latest is not None and slots_of([latest]) == {"b": [3]}


def test_a_damaged_file_is_named(stores: CityStores) -> None:
    champions(stores, "a")
    forecast(stores, "a", 0, 4)
    (stores.forecasts("a").root / "2024-04-09.nc").write_bytes(b"no grid")
    for ask in (published, latest_forecast):
        with pytest.raises(InputError, match=r"2024-04-09\.nc"):
            ask(stores)


def test_a_forecast_is_overdue_three_minutes_after_the_wait_for_its_data() -> None:
    settings, minute = Service(wait_minutes=10), np.timedelta64(1, "m")
    limit = INIT + CITY.slot + 13 * minute  # ten minutes' wait and the three minutes that docs/operations.md promises
    assert not is_overdue(CITY, settings, INIT, limit - np.timedelta64(1, "s"))
    assert is_overdue(CITY, settings, INIT, limit)
    assert not is_overdue(CITY, settings, INIT + CITY.slot, limit)
    assert not is_overdue(CITY, Service(wait_minutes=20), INIT, limit)
    assert is_overdue(CITY, Service(wait_minutes=20), INIT, limit + 10 * minute)


def test_a_city_without_a_forecast_is_overdue() -> None:
    assert is_overdue(CITY, Service(), None, INIT)
