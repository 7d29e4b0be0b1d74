"""The plan of the simulated city: districts, reasons for rides, and how each day varies at random.

The districts follow from the city's box alone; the seed decides the random variation. There are tides between homes and
work, other weekends, party nights, a match in a stadium and an outage of the whole feed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trafficcast.config.city import City

_HOUR_S = 3600
_STEP_MINUTES = 15  # demand and speed change in steps
_METRES_PER_DEGREE = 111_195.0  # of latitude
_SPEED_KMH = ((0, 5, 8, 11, 14, 18, 21, 24), (36, 40, 22, 28, 29, 21, 31, 36))  # local hour, mean speed
_WAIT_MINUTES = 7.0  # between two passengers at average demand
_MIN_DEMAND = 0.3  # of the average; below it waits get no longer
_NOISE_HOURS = 6  # time scale of the random variation of a day
_OUTAGE_HOURS = (14 + 1 / 6, 16 + 1 / 6)  # local; neither end is a slot edge, so that slots are cut as well
_MIN_DAYS_WITH_OUTAGE = 7  # so that the middle day is none of the last three
_MATCH_DAYS_BEFORE_END = 5

# The districts of each kind: number, distance from the middle, width (both as a share of the box's sides).
_HOME, _WORK, _CENTRE, _BARS, _STATION, _STADIUM, _AIRPORT, _ANYWHERE = range(8)
_DISTRICTS = {
    _HOME: (9, 0.36, 0.060),
    _WORK: (3, 0.20, 0.045),
    _CENTRE: (1, 0.03, 0.090),
    _BARS: (2, 0.15, 0.030),
    _STATION: (1, 0.13, 0.010),
    _STADIUM: (1, 0.40, 0.012),
    _AIRPORT: (1, 0.62, 0.010),  # beyond the box, so that taxis leave it and come back
    _ANYWHERE: (1, 0.00, 0.220),
}
_DISTRICTS_AT_HOME = _DISTRICTS[_HOME][0]  # they come first

# The rides: from, to, then waves of (days, local hour of the peak, half width in hours, strength). An hour above 24
# belongs to the night that follows the day.
_WEEK, _WORKDAYS, _SATURDAY, _SUNDAY, _WEEKEND = range(7), range(5), (5,), (6,), (5, 6)
_PARTY_NIGHTS = (4, 5)
_Wave = tuple[range | tuple[int, ...], float, float, float]
_RIDES: tuple[tuple[int, int, tuple[_Wave, ...]], ...] = (
    (_HOME, _WORK, ((_WORKDAYS, 8.2, 1.1, 11.0), (_SATURDAY, 9.5, 1.5, 1.5))),
    (_WORK, _HOME, ((_WORKDAYS, 18.2, 1.4, 10.0), (_SATURDAY, 14.0, 1.5, 1.5))),
    (_WORK, _CENTRE, ((_WORKDAYS, 12.5, 2.0, 1.8),)),
    (_CENTRE, _WORK, ((_WORKDAYS, 14.2, 2.0, 1.8),)),
    (_HOME, _CENTRE, ((_WORKDAYS, 10.5, 2.5, 2.0), (_SATURDAY, 14.5, 2.5, 6.0), (_SUNDAY, 15.5, 2.5, 4.0))),
    (_CENTRE, _HOME, ((_WORKDAYS, 17.5, 2.5, 2.5), (_SATURDAY, 18.5, 2.0, 6.0), (_SUNDAY, 18.5, 2.5, 4.0))),
    (_HOME, _BARS, ((_WEEK, 20.2, 1.3, 2.5), (_PARTY_NIGHTS, 21.5, 1.6, 9.0))),
    (_BARS, _HOME, ((_WEEK, 23.3, 1.5, 2.0), (_PARTY_NIGHTS, 26.0, 1.7, 10.0))),
    (_HOME, _STATION, ((_WORKDAYS, 7.0, 1.2, 2.0), (_WEEKEND, 9.5, 2.0, 1.5))),
    (_STATION, _WORK, ((_WORKDAYS, 9.0, 1.5, 2.5),)),
    (_WORK, _STATION, ((_WORKDAYS, 17.0, 1.5, 2.5),)),
    (_STATION, _HOME, ((_WEEK, 19.5, 2.5, 1.0), (_SUNDAY, 20.5, 2.0, 3.0))),
    (_HOME, _AIRPORT, ((_WEEK, 6.5, 2.0, 0.5),)),
    (_AIRPORT, _CENTRE, ((_WEEK, 13.0, 5.0, 0.3),)),
    (_ANYWHERE, _ANYWHERE, ((_WEEK, 4.0, 12.0, 0.4), (_WEEK, 14.0, 5.0, 2.0))),
)
# Rides on the evening of the match: from, to, local hour of the peak, half width in hours, strength.
_MATCH_RIDES = ((_HOME, _STADIUM, 19.8, 0.7, 9.0), (_STADIUM, _HOME, 22.6, 0.6, 12.0))


class _World(NamedTuple):
    """The data that all taxis share; seconds count from the first midnight, metres from the box's south-west corner."""

    start_s: int  # the first midnight, unix time
    midnights: np.ndarray  # (days + 2): from the day before the period to the end of its last day
    weekdays: np.ndarray  # (days + 1): Monday is 0
    outage: tuple[float, float]  # no taxi reports from the first to before the second; both are -inf without an outage
    match: tuple[float, float, float]  # the midnight before it, x and y of the stadium
    metres_per_degree: tuple[float, float]  # of longitude, of latitude
    districts: np.ndarray  # (district, 3): x, y, spread
    rides: np.ndarray  # (ride, 2): kind of the origin, kind of the destination
    ride_odds: np.ndarray  # (step, ride), cumulative
    district_odds: np.ndarray  # (step, kind, district), cumulative
    wait_s: np.ndarray  # (step), mean
    speed_ms: np.ndarray  # (step), mean


def _make_world(city: City, first_day: np.datetime64, days: int, rng: np.random.Generator) -> _World:
    """Make the city, its regular week and the random variation of each day."""
    dates = first_day + np.arange(-1, days + 1)
    unix_s = np.array([city.midnight(date) for date in dates], "datetime64[s]").astype(np.int64)
    midnights = unix_s - unix_s[1]
    steps = np.arange(-(-int(midnights[-1]) // (_STEP_MINUTES * 60)))
    local = city.local((unix_s[1] + steps * _STEP_MINUTES * 60).astype("datetime64[s]"))
    hour = np.asarray(local.hour + local.minute / 60)
    day_of_week = np.asarray(local.day_of_week)
    days_before_match = max(0, days - _MATCH_DAYS_BEFORE_END)
    match_day = local.tz_localize(None).normalize() == first_day + days_before_match

    parallel = float(np.cos(np.radians((city.south + city.north) / 2)))
    metres_per_degree = (_METRES_PER_DEGREE * parallel, _METRES_PER_DEGREE)
    kinds, districts = _layout(city, metres_per_degree)
    rides = [(origin, target) for origin, target, _ in _RIDES] + [ride[:2] for ride in _MATCH_RIDES]
    hour_of_week = 24 * day_of_week + hour + _smooth_noise(rng, len(steps), 1, 0.2)[:, 0]  # early and late days
    regular = [_weekly_demand(hour_of_week, waves) for _, _, waves in _RIDES]
    match = [match_day * weight * _bell(hour - peak, width) for _, _, peak, width, weight in _MATCH_RIDES]
    demand = np.stack(regular + match, axis=1) * np.exp(_smooth_noise(rng, len(steps), len(rides), 0.25))
    popularity = np.exp(_smooth_noise(rng, len(steps), len(kinds), 0.3))
    of_kind = kinds == np.arange(len(_DISTRICTS))[:, None]  # (kind, district)
    speed = np.interp(hour, *_SPEED_KMH) * np.where(day_of_week >= 5, 1.12, 1.0)
    total = demand.sum(axis=1)
    stadium = districts[kinds == _STADIUM][0]
    outage_day = float(midnights[1 + days // 2]) if days >= _MIN_DAYS_WITH_OUTAGE else -np.inf
    return _World(
        start_s=int(unix_s[1]),
        midnights=midnights,
        weekdays=(dates[:-1].astype(np.int64) + 3) % 7,  # unix day 0 was a Thursday
        outage=(outage_day + _OUTAGE_HOURS[0] * _HOUR_S, outage_day + _OUTAGE_HOURS[1] * _HOUR_S),
        match=(float(midnights[1 + days_before_match]), float(stadium[0]), float(stadium[1])),
        metres_per_degree=metres_per_degree,
        districts=districts,
        rides=np.array(rides),
        ride_odds=_cumulative(demand),
        district_odds=_cumulative(popularity[:, None, :] * of_kind),
        wait_s=60 * _WAIT_MINUTES / np.maximum(total / total.mean(), _MIN_DEMAND),
        speed_ms=speed * np.exp(_smooth_noise(rng, len(steps), 1, 0.06)[:, 0]) / 3.6,
    )


def _layout(city: City, metres_per_degree: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return a box's districts, whatever the seed: kinds, (district); x, y, spread in metres, (district, 3)."""
    edges = (city.west, city.east, city.south, city.north)
    rng = np.random.default_rng([round((edge + 360) * 1e6) for edge in edges])
    kinds, shapes = [], []
    for kind, (count, distance, spread) in _DISTRICTS.items():
        angle = 2 * np.pi * (rng.random() + np.arange(count) / count) + rng.normal(0, 0.15, count)
        radius = distance * rng.uniform(0.85, 1.1, count)
        if kind == _AIRPORT:  # due east or west of the middle, where a box is sure to end
            angle, radius = np.pi * np.round(angle / np.pi), np.full(count, distance)
        x, y = 0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)
        shapes.append(np.stack([x, y, np.full(count, spread)]))
        kinds.append(np.full(count, kind))
    x, y, spread = np.concatenate(shapes, axis=1)
    width = (city.east - city.west) * metres_per_degree[0]
    height = (city.north - city.south) * metres_per_degree[1]
    return np.concatenate(kinds), np.stack([x * width, y * height, spread * min(width, height)], axis=1)


def _weekly_demand(hour_of_week: np.ndarray, waves: tuple[_Wave, ...]) -> np.ndarray:
    """Return the demand of one kind of ride in a regular week, (step); the week is a circle."""
    demand = np.zeros(len(hour_of_week))
    for days, peak, width, strength in waves:
        for day in days:
            demand += strength * _bell((hour_of_week - 24 * day - peak + 84) % 168 - 84, width)
    return demand


def _bell(hours_off: np.ndarray, width: float) -> np.ndarray:
    """Return 1 at the peak, falling to 0.6 at the half width."""
    bell: np.ndarray = np.exp(-0.5 * (hours_off / width) ** 2)
    return bell


def _smooth_noise(rng: np.random.Generator, steps: int, columns: int, deviation: float) -> np.ndarray:
    """Return smooth noise about 0, (step, column)."""
    steps_per_knot = _NOISE_HOURS * 60 // _STEP_MINUTES
    knots = rng.normal(0, deviation, (steps // steps_per_knot + 2, columns))
    at = np.arange(steps) / steps_per_knot
    return np.stack([np.interp(at, np.arange(len(knots)), column) for column in knots.T], axis=1)


def _cumulative(weights: np.ndarray) -> np.ndarray:
    """Return the cumulative odds of weights along the last axis, which end at exactly 1."""
    total: np.ndarray = np.cumsum(weights, axis=-1)
    total /= total[..., -1:].copy()
    return total
