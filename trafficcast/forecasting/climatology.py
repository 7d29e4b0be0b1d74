"""What is normal in a slot, by day of the week, and what the calendar says: all that is known before anything is seen.

Holidays count as Sundays. A day of the week has few samples, its kind (working day or day off) many: its mean is drawn
towards its kind's (empirical Bayes, as for baseball averages: Efron & Morris 1975), the less the more weeks there are,
and the less the larger the part of the city: that the whole city is busier on Fridays shows after two of them. Cells
share their rhythms: a kind's mean is itself drawn towards what the few rhythms that most cells follow say of it, the
leading singular vectors (Eckart & Young 1936) of the square roots, on whose scale all counts are equally uncertain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from safetensors import SafetensorError
from safetensors.numpy import load_file

from trafficcast.config.city import City, target_times
from trafficcast.errors import InputError
from trafficcast.stores.registry import Registry

# For the whole city, then for 4 x 4 districts, then for cells: how many days of its own a day of the week needs to
# weigh as much as what larger parts say, and the width of the Gaussian that smooths how it differs, minutes.
_SCALES = ((1, 2.0, 90.0), (4, 4.0, 90.0), (None, 8.0, 30.0))
# Width of the Gaussian that smooths everything over the time of day, minutes.
_SMOOTHING_MINUTES = 24.0
# How many rhythms there are, and how many days what they say weighs.
_RHYTHMS, _RHYTHMS_PRIOR = 10, 5.0
_TINY = 1e-6
_DAYS_OFF = np.array([False] * 5 + [True] * 2)
_FEATURES = 6  # what `calendar_features` tells of a slot


@dataclass(frozen=True)
class WeekdayClimatology:
    """`table`: (day of the week, slot of day, flow kind, row, col) float32, vehicles per slot; Monday is 0."""

    city: City
    table: np.ndarray

    @classmethod
    def fit(cls, city: City, flows: xr.Dataset) -> WeekdayClimatology:
        """From observed slots."""
        return cls(city, _table(city, *_sums(city, flows)))

    def at(self, times: np.ndarray) -> np.ndarray:
        """What is normal at slot starts of any shape (...), naive UTC: (..., flow kind, row, col)."""
        flat = times.ravel()
        return self.table[self.city.day_of_week(flat), self.city.slot_of_day(flat)].reshape(
            times.shape + self.table.shape[2:]
        )


def climatology_of_other_days(city: City, flows: xr.Dataset) -> np.ndarray:
    """What is normal in each slot of `flows` by all other local days: (time, flow kind, row, col), vehicles per slot.

    A network that trained on what is normal with the slot itself in it would trust it too much.
    """
    time = flows["time"].values
    days, weekday, slot = city.local_days(time), city.day_of_week(time), city.slot_of_day(time)
    sums, counts = _sums(city, flows)
    normal = np.empty(flows["flow"].shape, np.float32)
    for day in np.unique(days):
        own = days == day
        own_sums, own_counts = _sums(city, flows.isel(time=own))
        kind = weekday[own][0]
        others = _table(city, sums - own_sums, counts - own_counts, [kind])
        normal[own] = others[0, slot[own]]
    return normal


def calendar_features(city: City, times: np.ndarray) -> np.ndarray:
    """What the calendar says of slot starts (n), naive UTC: (n, FEATURES) float32.

    The local time of day as two harmonics, and 0 or 1 for a day off and for a holiday. Not which day of the week: a
    network would learn the days of a few weeks by heart.
    """
    angle = 2 * np.pi * (city.slot_of_day(times) + 0.5) / city.slots_per_day
    harmonics = [function(n * angle) for n in (1, 2) for function in (np.sin, np.cos)]
    off = _DAYS_OFF[city.day_of_week(times)]
    return np.stack([*harmonics, off, city.is_holiday(times)], axis=1).astype(np.float32)


def _sums(city: City, flows: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Sums (day of the week, slot of day, flow kind, row, col) of the observed slots, and the number of each."""
    flows = flows.isel(time=flows["observed"].values)
    time, values = flows["time"].values, flows["flow"].values
    shape = (7, city.slots_per_day)
    sums, counts = np.zeros(shape + values.shape[1:]), np.zeros(shape)
    key = city.day_of_week(time), city.slot_of_day(time)
    np.add.at(sums, key, values)
    np.add.at(counts, key, 1)
    return sums, counts


def _table(city: City, sums: np.ndarray, counts: np.ndarray, weekdays: Iterable[int] = range(7)) -> np.ndarray:
    """The table's entries for some days of the week."""
    sums, counts = (_smoothed(city, values, _SMOOTHING_MINUTES, axis=1) for values in (sums, counts))
    kinds = _kinds(sums, counts)
    table = []
    for weekday in weekdays:
        mean = kinds[int(_DAYS_OFF[weekday])]
        days = counts[weekday][:, None, None, None]
        for parts, prior, minutes in _SCALES:
            seen, expected, usual = (
                _smoothed(city, _pooled(values, parts), minutes, axis=0)
                for values in (sums[weekday], days * mean, prior * mean)
            )
            factor = (seen + usual + _TINY) / (expected + usual + _TINY)
            mean = mean * _spread_out(factor, *mean.shape[-2:])
        table.append(mean)
    return np.stack(table).astype(np.float32)


def _kinds(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The means (kind of day, slot of day, flow kind, row, col) of working days and days off."""
    overall = sums.sum((0, 1)) / max(counts.sum(), _TINY)
    seen = [(sums[alike].sum(0), counts[alike].sum(0)) for alike in (~_DAYS_OFF, _DAYS_OFF)]
    # A kind of day without a sample takes the other's mean, and a time of day without any the overall one.
    means = np.stack([_ratio(*own, _ratio(*other, overall)) for own, other in (seen, seen[::-1])])
    days = np.stack([n for _, n in seen])[..., None, None, None]
    roots = np.sqrt(means + 0.25).reshape(-1, means[0, 0].size)
    weights = np.sqrt(days + _TINY).reshape(-1, 1)
    weighted = weights * roots
    rhythms = np.linalg.eigh(weighted @ weighted.T)[1][:, -_RHYTHMS:]
    shared = (rhythms @ (rhythms.T @ weighted) / weights).clip(min=0.5) ** 2 - 0.25
    return np.asarray((days * means + _RHYTHMS_PRIOR * shared.reshape(means.shape)) / (days + _RHYTHMS_PRIOR))


def _ratio(sums: np.ndarray, counts: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    n = counts[:, None, None, None]
    return np.where(n > _TINY, sums / np.maximum(n, _TINY), otherwise)


def _pooled(grids: np.ndarray, parts: int | None) -> np.ndarray:
    """Sums (..., part, part) of (..., row, col) over at most parts x parts districts; None leaves the cells."""
    if parts is None:
        return grids
    rows, cols = (np.flatnonzero(np.diff(_district(side, parts), prepend=-1)) for side in grids.shape[-2:])
    return np.add.reduceat(np.add.reduceat(grids, rows, axis=-2), cols, axis=-1)


def _spread_out(values: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Each district's value (..., part, part) in all of its cells (..., row, col)."""
    down, across = _district(rows, values.shape[-2]), _district(cols, values.shape[-1])
    return values[..., down[:, None], across]


def _district(side: int, parts: int) -> np.ndarray:
    """Which district each row or column belongs to."""
    return np.arange(side) * min(parts, side) // side


def _smoothed(city: City, values: np.ndarray, minutes: float, axis: int) -> np.ndarray:
    """A Gaussian along the slots of a day, which follow one another in a circle."""
    width = minutes / city.slot_minutes
    reach = min(int(4 * width), (values.shape[axis] - 1) // 2)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weights /= weights.sum()
    shifted = (w * np.roll(values, shift, axis) for w, shift in zip(weights, range(-reach, reach + 1), strict=True))
    return np.asarray(sum(shifted))


def read_climatology(registry: Registry, version: str) -> WeekdayClimatology | Climatology:
    """What is normal on each day of the week where the model knows it, else its climatology.

    Both have `at(times)`, vehicles per slot. Raises InputError where the version is unknown or its file damaged.
    """
    registry.card(version)
    file = registry.root / version / "climatology.safetensors"
    try:
        tables = load_file(file)
        city = registry.city
        return WeekdayClimatology(city, tables["normal"]) if "normal" in tables else Climatology(city, tables["table"])
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"cannot read {file}: {error}") from None


@dataclass(frozen=True)
class Climatology:
    """The mean over the observed training slots by local slot of day and weekday/weekend.

    `table`: (weekday = 0 or weekend = 1, slot of day, flow kind, row, col) float32, vehicles per slot.
    """

    city: City
    table: np.ndarray

    @classmethod
    def fit(cls, city: City, flows: xr.Dataset) -> Climatology:
        """Average flows. A slot of day never observed takes the other kind of day's mean, or the overall one."""
        flows = flows.isel(time=flows["observed"].values)
        values, time = flows["flow"].values, flows["time"].values
        shape = (2, city.slots_per_day)
        sums, counts = np.zeros(shape + values.shape[1:]), np.zeros(shape)
        key = city.is_weekend(time).astype(int), city.slot_of_day(time)
        np.add.at(sums, key, values)
        np.add.at(counts, key, 1)
        with np.errstate(invalid="ignore"):
            table = sums / counts[..., None, None, None]
        table = np.where(np.isnan(table), table[::-1], table)
        return cls(city, np.where(np.isnan(table), values.mean(axis=0), table).astype(np.float32))

    def at(self, times: np.ndarray) -> np.ndarray:
        """What is normal at slot starts of any shape (...): (..., flow kind, row, col)."""
        flat = times.ravel()
        normal = self.table[self.city.is_weekend(flat).astype(int), self.city.slot_of_day(flat)]
        return normal.reshape(times.shape + self.table.shape[2:])

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """See Forecaster."""
        return self.at(target_times(self.city, init_times))
