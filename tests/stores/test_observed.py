"""The judgement of which slots are observed, on feeds that were made with known outages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cities import small_city
from trafficcast.stores.observed import Evidence, judge_observed

CITY = small_city(timezone="UTC")
PER_DAY, LENGTH = CITY.slots_per_day, CITY.slot_minutes
FIRST = int(np.datetime64("2024-03-04", "D").astype(int)) * PER_DAY  # a Monday at midnight UTC


def daily(days: int, records: float, seed: int = 0, night: float = 0.02) -> np.ndarray:
    """Records of each minute, (slot, minute), with a mean of so many a slot at noon, and a share of it at night."""
    hour = np.arange(days * PER_DAY) % PER_DAY / PER_DAY * 24
    mean = records * (night + (1 - night) * np.clip(np.sin((hour - 6) / 18 * np.pi), 0, 1))
    return np.random.default_rng(seed).poisson(mean[:, None] / LENGTH, (len(hour), LENGTH))


def fleet(days: float, vehicles: int = 20, every: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Records of each minute of a fleet that reports day and night, and its vehicles."""
    slots = round(days * PER_DAY)
    minutes = np.zeros((slots, LENGTH), int)
    minutes[:, ::every] = vehicles
    return minutes, np.full(slots, vehicles)


def unobserved(minutes: np.ndarray, vehicles: np.ndarray | None, first: int = FIRST) -> list[int]:
    """Positions of the slots from the first record on that are not observed."""
    has_record = minutes.sum(axis=1) > 0
    numbers = first + np.flatnonzero(has_record)
    evidence = Evidence(
        numbers, minutes[has_record], None if vehicles is None else vehicles[has_record], vehicles is None
    )
    judged, observed = judge_observed(CITY, evidence)
    assert (np.diff(judged) > 0).all() and set(numbers) <= set(judged.tolist())
    return sorted(set(range(int(np.argmax(has_record)), len(minutes))) - set((judged[observed] - first).tolist()))


@pytest.mark.parametrize("parked", [0, 1, 2])
@pytest.mark.parametrize("days", [0.5, 1, 3, 10, 40])
def test_a_parked_car_does_not_stand_for_the_fleet(days: float, parked: int) -> None:
    minutes, vehicles = fleet(days)
    cut = slice(len(minutes) // 2 - 4, len(minutes) // 2 + 4)
    minutes[cut], vehicles[cut] = parked, parked
    assert unobserved(minutes, vehicles) == list(range(cut.start, cut.stop))


@pytest.mark.parametrize("vehicles", [6, 8, 12, 300])
def test_nor_does_it_stand_for_a_fleet_of_another_size(vehicles: int) -> None:
    minutes, fleet_size = fleet(1, vehicles)
    cut = slice(20, 28)
    minutes[cut], fleet_size[cut] = 1, 1
    assert unobserved(minutes, fleet_size) == list(range(20, 28))


@pytest.mark.parametrize("days", [0.5, 2, 30])
def test_slots_that_one_clock_ahead_makes_are_not_observed(days: float) -> None:
    minutes, vehicles = fleet(days)
    ahead = np.zeros((16, LENGTH), int) + 1
    assert unobserved(np.vstack([minutes, ahead]), np.append(vehicles, np.ones(16, int))) == list(
        range(len(minutes), len(minutes) + 16)
    )


def test_a_clock_ahead_beside_a_silent_fleet_of_some_hours() -> None:
    minutes, vehicles = fleet(26 / PER_DAY)
    minutes[10:20], vehicles[10:20] = 0, 0
    minutes[20:], vehicles[20:] = 1, 1
    assert unobserved(minutes, vehicles) == list(range(10, 26))


@pytest.mark.parametrize("parked", [0, 1])
@pytest.mark.parametrize(("silent", "observed"), [(6, True), (7, False), (30, False)])
def test_min_coverage_is_the_least_share_of_minutes_in_which_the_feed_was_alive(
    silent: int, observed: bool, parked: int
) -> None:
    minutes, vehicles = fleet(3)
    minutes[70, :silent] = parked
    vehicles[70] = 20 if silent < LENGTH else parked
    assert unobserved(minutes, vehicles) == ([] if observed else [70])


@pytest.mark.parametrize("every", [1, 5, 15])
def test_half_a_fleet_is_still_the_feed(every: int) -> None:
    minutes, vehicles = fleet(20, every=every)
    half = slice(600, 700)
    minutes[half] //= 2
    vehicles[half] //= 2
    assert unobserved(minutes, vehicles) == []


@pytest.mark.parametrize("records", [4, 30, 200, 3000])
def test_quiet_nights_are_true_zeros(records: int) -> None:
    minutes = daily(60, records, night=0.002)
    assert (minutes.sum(axis=1) == 0).any() == (records < 3000)
    assert len(unobserved(minutes, None)) <= 0.003 * len(minutes)


def test_an_outage_of_a_sparse_feed_with_a_night_in_it() -> None:
    minutes = daily(60, 60)
    cut = slice(30 * PER_DAY + 30, 31 * PER_DAY + 24)  # from 15:00 to noon of the next day
    minutes[cut] = 0
    found = unobserved(minutes, None)
    assert set(range(cut.start, cut.stop)) <= set(found) <= set(range(cut.start - 1, cut.stop + 1))


def test_days_without_any_record_are_no_zeros_and_teach_nothing() -> None:
    minutes = daily(70, 40)
    empty = slice(20 * PER_DAY, 34 * PER_DAY)
    minutes[empty] = 0
    found = unobserved(minutes, None)
    assert set(range(empty.start, empty.stop)) <= set(found)
    assert len(found) <= 14 * PER_DAY + 24  # and the night before it may belong to it


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_a_rainy_day_of_shared_bicycles_is_observed(share: float) -> None:
    minutes = daily(60, 300, seed=2)
    rain = slice(45 * PER_DAY, 46 * PER_DAY)
    minutes[rain] = np.random.default_rng(2).binomial(minutes[rain], share)
    assert unobserved(minutes, None) == []


def test_a_city_that_grows_tenfold_is_observed_throughout() -> None:
    minutes = daily(200, 400, seed=3)
    grown = np.linspace(0.1, 1, len(minutes))[:, None]
    assert len(unobserved(np.random.default_rng(3).binomial(minutes, grown), None)) <= 10


def test_later_weeks_change_no_judgement_after_the_first_four() -> None:
    minutes = daily(80, 60, seed=4)
    minutes[40 * PER_DAY + 20 : 40 * PER_DAY + 30] = 0
    cut = 49 * PER_DAY  # seven whole weeks
    early = [slot for slot in unobserved(minutes, None) if slot < cut - PER_DAY]
    assert early == [slot for slot in unobserved(minutes[:cut], None) if slot < cut - PER_DAY] != []


def test_a_change_of_the_clocks_is_no_outage() -> None:
    city = CITY.model_copy(update={"timezone": "Europe/Rome"})
    minutes = daily(60, 2000)
    numbers = FIRST + np.arange(len(minutes))
    assert judge_observed(city, Evidence(numbers, minutes, None, True))[1].all()


def test_no_record_in_the_hours_that_clocks_repeat_is_no_quiet_night() -> None:
    """There records are dropped whose local times do not tell which of the two hours they are of."""
    city = CITY.model_copy(update={"timezone": "Europe/Rome"})
    minutes = daily(60, 4, night=0.0)
    back = int((np.datetime64("2024-10-27T00:00") - np.datetime64("2024-10-01")) / np.timedelta64(30, "m"))
    minutes[back - 2 : back + 6] = 0  # from 01:00 to 04:00 as clocks went until then
    numbers = int(np.datetime64("2024-10-01", "D").astype(int)) * PER_DAY + np.arange(len(minutes))
    judged, observed = judge_observed(city, Evidence(numbers, minutes, None, True))
    missing = set(numbers[back - 2 : back + 6]) - set(judged[observed])
    assert missing == set(numbers[back : back + 4])  # 02:00 to 03:00, twice
    minutes[back + 1, 3] = 1
    judged, observed = judge_observed(city, Evidence(numbers, minutes, None, True))
    assert numbers[back + 1] in judged[observed]


def test_a_stray_record_of_another_year_costs_nothing_and_is_not_observed() -> None:
    minutes, vehicles = fleet(10)
    stray = np.zeros((1, LENGTH), int)
    stray[0, 3] = 1
    numbers = np.concatenate([[FIRST - 20 * 365 * PER_DAY], FIRST + np.arange(len(minutes))])
    evidence = Evidence(numbers, np.vstack([stray, minutes]), np.concatenate([[1], vehicles]), False)
    judged, observed = judge_observed(CITY, evidence)
    assert judged.tolist() == numbers.tolist()
    assert observed[1:].all()


def test_nothing_is_judged_without_records() -> None:
    nothing = np.empty(0, np.int64)
    judged, observed = judge_observed(CITY, Evidence(nothing, np.empty((0, LENGTH), np.int32), nothing, False))
    assert len(judged) == len(observed) == 0


SAN_FRANCISCO = Path(__file__).parents[2].parent / "shared" / "data" / "cabspotting"


@pytest.mark.skipif(not SAN_FRANCISCO.exists(), reason="the San Francisco records are not beside the project")
def test_the_cut_slots_of_san_francisco_are_found_and_no_other() -> None:
    times, cabs = [], []
    for number, file in enumerate(sorted(SAN_FRANCISCO.glob("*.txt*"))):
        found = np.loadtxt(file, usecols=3, dtype=np.int64, ndmin=1)
        times.append(found)
        cabs.append(np.full(len(found), number))
    minute, cab = np.concatenate(times) // 60, np.concatenate(cabs)
    first = minute.min() // LENGTH
    slots = int(minute.max() // LENGTH - first) + 1
    minutes = np.bincount(minute - first * LENGTH, minlength=slots * LENGTH).reshape(slots, LENGTH)
    pairs = np.unique(np.stack([minute // LENGTH - first, cab]), axis=1)
    vehicles = np.bincount(pairs[0], minlength=slots)
    cut = (first + np.array(unobserved(minutes, vehicles, int(first)))) * LENGTH
    assert [str(time) for time in cut.astype("datetime64[m]")] == [
        *(f"2008-05-20T{clock}" for clock in ("14:00", "14:30", "15:00", "15:30")),
        *(f"2008-05-21T{clock}" for clock in ("18:30", "19:00")),
    ]
