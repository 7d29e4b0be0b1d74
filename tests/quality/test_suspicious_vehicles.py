"""Suspicious vehicles: who never moves, who jumps, whose clock is off, and who must not be suspected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trafficcast.config.city import City
from trafficcast.quality.suspicious_vehicles import (
    _BINS_AN_HOUR,
    _JUDGED_BINS,
    _clocks_off,
    _silences,
    _VehicleChecks,
    _window_of,
)
from trafficcast.records.records import HOUR_US, SECOND_US, Points

CITY = City(west=9.0, east=9.2, south=45.0, north=45.2, timezone="Europe/Rome", name="small")
START = int(np.datetime64("2024-04-08T00:00", "h").astype(np.int64))  # an hour since 1970
DAYS = 6
METRE = 1 / 111_195  # degrees of latitude
OUTAGES = ((20.2, 21.4), (90.5, 91.3))  # hours after START


def track(code: int, seconds: np.ndarray, east_m: np.ndarray, north_m: np.ndarray) -> Points:
    """One vehicle's points, metres from a point in the box, seconds after START."""
    n = len(seconds)
    time = START * HOUR_US + np.round(seconds).astype(np.int64) * SECOND_US
    lon, lat = 9.1 + east_m * METRE / np.cos(np.radians(45.1)), 45.1 + north_m * METRE
    return Points(np.full(n, code, np.int32), time, lon, lat, np.full(n, -1, np.int8))


def driving(code: int, seconds: np.ndarray) -> Points:
    """Round and round at 36 km/h."""
    return track(code, seconds, 2000 * np.sin(seconds / 200), 2000 * np.cos(seconds / 200))


def suspicious(*tracks: Points, city: City = CITY, now_us: int = 2**62) -> list[dict[str, Any]]:
    points = Points.concatenate(tracks)
    points = points.take(np.lexsort((points.time, points.vehicle)))
    hour = points.time // HOUR_US
    records = dict(zip(*(column.tolist() for column in np.unique(hour, return_counts=True)), strict=True))
    vehicles = int(points.vehicle.max()) + 1
    checks = _VehicleChecks(city, vehicles, _window_of(records, sorted(records), vehicles))
    for one in sorted(records):
        checks.add(points.take(hour == one))
    assert checks.points.tolist() == np.bincount(points.vehicle).tolist()
    return checks.suspicious(city, [f"taxi-{code}" for code in range(vehicles)], now_us)


def fleet(vehicles: int, seed: int, outages: tuple[tuple[float, float], ...] = OUTAGES) -> list[np.ndarray]:
    """The seconds at which each taxi reports: in shifts of its own, about every minute, never in an outage."""
    rng = np.random.default_rng(seed)
    reports = []
    for _ in range(vehicles):
        begin = 24 * np.arange(DAYS) + rng.uniform(0, 24) + rng.normal(0, 0.5, DAYS)
        seconds = np.concatenate([np.arange(3600 * b, 3600 * (b + rng.uniform(9, 14)), 60) for b in begin])
        seconds = np.unique(np.round(seconds + rng.uniform(-20, 20, len(seconds))))
        heard = (seconds >= 0) & (seconds < DAYS * 24 * 3600)
        for outage in outages:
            heard &= (seconds < 3600 * outage[0]) | (seconds >= 3600 * outage[1])
        reports.append(seconds[heard])
    return reports


def shifted(reports: list[np.ndarray], hours: dict[int, int]) -> list[Points]:
    return [driving(code, seconds + 3600 * hours.get(code, 0)) for code, seconds in enumerate(reports)]


def clock_hours(found: list[dict[str, Any]]) -> dict[str, int]:
    assert {one["suspicion"] for one in found} <= {"clock"}
    return {one["vehicle"]: one["evidence"]["hours"] for one in found}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clocks_that_are_right_are_not_suspected(seed: int) -> None:
    assert suspicious(*shifted(fleet(80, seed), {})) == []


def telling(seconds: np.ndarray, hours: int) -> bool:
    """Whether a taxi was on duty around an outage, and when its clock, ahead by `hours`, read one."""
    around = any(all(np.any(np.abs(seconds - 3600 * end) < 300) for end in outage) for outage in OUTAGES)
    reading = (seconds + 3600 * hours) / 3600
    return around and any(np.any((reading > begin + 0.4) & (reading < end - 0.2)) for begin, end in OUTAGES)


@pytest.mark.parametrize("hours", [1, 7, -8])
def test_a_clock_off_by_whole_hours_is_found_and_by_how_many(hours: int) -> None:
    reports = fleet(80, seed=4)
    codes = [code for code, seconds in enumerate(reports) if telling(seconds, hours)][:8]
    found = [suspicious(*shifted(reports, {code: hours})) for code in codes]
    for code, one in zip(codes, found, strict=True):
        assert clock_hours(one) in ({}, {f"taxi-{code}": hours})
    told = [one[0]["evidence"] for one in found if one]
    assert len(told) >= len(codes) - 1 >= 5
    for evidence in told:
        assert evidence["heard_in_silence"] >= 3 and evidence["heard_once_corrected"] == 0
        assert 2 <= evidence["ends_matched"] <= evidence["ends"]


def test_a_clock_that_has_given_a_time_yet_to_come_is_ahead() -> None:
    """Three taxis that report until now, one of them 8 h ahead, and one by seconds."""
    seconds = np.arange(0, 3600.0, 60)
    now = START * HOUR_US + int(seconds[-1]) * SECOND_US
    found = suspicious(*(driving(i, seconds + ahead) for i, ahead in enumerate((0, 8 * 3600, 40))), now_us=now)
    assert [(one["vehicle"], one["suspicion"], one["evidence"]) for one in found] == [
        ("taxi-1", "clock ahead", {"minutes": 480})
    ]


def test_several_wrong_clocks_at_once() -> None:
    reports = fleet(120, seed=5)
    wrong: dict[int, int] = {}
    for hours in (1, 7, -8, 2):
        wrong[next(c for c, seconds in enumerate(reports) if c not in wrong and telling(seconds, hours))] = hours
    assert clock_hours(suspicious(*shifted(reports, wrong))) == {f"taxi-{code}": hours for code, hours in wrong.items()}


def test_without_a_silence_of_the_feed_no_clock_is_judged() -> None:
    reports = fleet(80, seed=6, outages=())
    middle = [seconds[(seconds > 24 * 3600) & (seconds < 96 * 3600)] for seconds in reports]
    heard = np.zeros((80, 6 * 24 * _BINS_AN_HOUR), bool)
    for code, seconds in enumerate(middle):
        heard[code, ((seconds + 3600 * (7 if code == 9 else 0)) // 300).astype(int)] = True
    # The records' begin and end are not the feed's: there are more before and after.
    window = _window_of({START: 1, START + 6 * 24 - 1: 1}, [START - 1, START, START + 143, START + 144], 80)
    assert window.more_before and window.more_after
    inner = heard[:, 32 * _BINS_AN_HOUR : 96 * _BINS_AN_HOUR]
    assert _clocks_off(inner, window) == {}


def test_a_night_is_no_silence_and_an_outage_is() -> None:
    window = _window_of({START: 1, START + 47: 1}, [START - 1, START, START + 47, START + 48], 500)
    hour = np.arange(48 * _BINS_AN_HOUR) / _BINS_AN_HOUR
    night = 100 - 99 * np.cos(2 * np.pi * (hour - 4) / 24)
    assert (night <= 0.1 * np.median(night)).any()
    assert _silences(night, window)[1] == []
    cut = night.copy()
    cut[240:252] = 0
    silent, ends = _silences(cut, window)
    assert ends == [(240, True), (252, False)]
    assert np.flatnonzero(silent).tolist() == list(range(240, 252))
    # A few vehicles say nothing about a feed.
    assert _silences(np.where(cut > 0, 5, 0), window)[1] == []


def test_who_never_moves() -> None:
    rng = np.random.default_rng(7)
    seconds = np.arange(0, 8 * 3600, 60.0)
    noise = rng.uniform(-30, 30, (2, len(seconds)))
    stray = noise.copy()
    stray[:, 100] = 5000
    found = suspicious(
        track(0, seconds, *noise),
        track(1, seconds, *stray),
        driving(2, seconds),
        track(3, seconds[:100], *noise[:, :100]),  # less than two hours: parked
        track(4, seconds, *np.where(seconds < 3600, 4000 * seconds / 3600, 4000) * np.ones((2, 1))),  # then parked
    )
    assert [(one["vehicle"], one["suspicion"]) for one in found] == [
        ("taxi-0", "never moving"),
        ("taxi-1", "never moving"),
    ]
    assert found[0]["evidence"] == {"moves": 0, "further_than_m": 100.0, "hours": 8}
    assert found[1]["evidence"]["moves"] == 2
    assert found[0]["points"] == 480
    assert found[0]["first"] == "2024-04-08T02:00:00+02:00"
    assert found[0]["last"] == "2024-04-08T09:59:00+02:00"


def test_two_devices_with_one_name_jump_and_a_few_wild_points_do_not() -> None:
    seconds = np.arange(0, 5 * 3600, 30.0)
    other = track(0, seconds + 1, np.full(len(seconds), 9000.0), np.zeros(len(seconds)))
    wild = 2000 * np.ones((2, len(seconds)))
    wild[:, ::100] = 9000
    found = suspicious(driving(0, seconds), other, track(1, seconds, *wild), driving(2, seconds))
    assert [(one["vehicle"], one["suspicion"]) for one in found if one["suspicion"] != "never moving"] == [
        ("taxi-0", "teleporting")
    ]
    evidence = next(one["evidence"] for one in found if one["suspicion"] == "teleporting")
    assert evidence["jumps"] == 2 * len(seconds) - 1 and evidence["share_of_pairs"] == 1.0
    # Noise of less than 200 m at a high rate is no jump, and a city may allow any speed.
    quick = np.arange(0, 4 * 3600, 1.0)
    assert not [
        s for s in suspicious(track(0, quick, 150.0 * (quick % 2), 0 * quick)) if s["suspicion"] == "teleporting"
    ]
    anything = CITY.model_copy(update={"max_speed_kmh": float("inf")})
    assert suspicious(driving(0, seconds), other, city=anything) == []


def test_clocks_are_judged_where_most_records_are_in_bounded_memory() -> None:
    busy = {START + i: 1000 for i in range(100)}
    stray = START - 200_000
    window = _window_of({stray: 1, **busy}, [stray, *busy], 50)
    assert (window.first, window.bins) == (START * _BINS_AN_HOUR, 100 * _BINS_AN_HOUR)
    assert not window.more_before and not window.more_after
    year = {START + i: 10 + (i > 5000) for i in range(8760)}
    window = _window_of(year, sorted(year), 100)
    assert window.bins == 28 * 24 * _BINS_AN_HOUR and window.first > 5000 * _BINS_AN_HOUR
    assert window.more_before
    for vehicles in (20_000, 1_000_000):
        assert vehicles * _window_of(year, sorted(year), vehicles).bins <= _JUDGED_BINS
