"""Climatology: the mean flow of a slot by day of the week and slot of day; and the calendar features of a slot.

Holidays count as Sundays. A day of the week has few samples, its kind (working day or day off) has many. So the mean of
a day of the week is shrunk towards that of its kind (empirical Bayes, as for baseball averages: Efron & Morris 1975):
first for the whole city, then for districts, then for cells, and the less the more weeks there are. Cells share daily
rhythms: the mean of a kind of day is itself shrunk towards its projection on the leading singular vectors (Eckart &
Young 1936) of the square roots of all cells' means, on whose scale all counts are equally uncertain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from safetensors.numpy import load

from trafficcast.config.city import FLOW_KINDS, City, target_times
from trafficcast.stores.registry import Registry

# For the whole city, then for 4 x 4 districts, then for cells: the districts a side, the days whose weight the means of
# the larger parts have, and the width of the Gaussian that smooths the correction, minutes.
_SCALES = ((1, 2.0, 90.0), (4, 4.0, 90.0), (None, 8.0, 30.0))
# Width of the Gaussian that smooths all sums over the time of day, minutes.
_SMOOTHING_MINUTES = 24.0
# The number of rhythms, and the days whose weight the projection on them has.
_RHYTHMS, _RHYTHMS_PRIOR = 10, 5.0
_TINY = 1e-6
_DAYS_OFF = np.array([False] * 5 + [True] * 2)


class _ClimatologyTable:
    """Means by kind of day and slot of day: `table` (kind of day, slot of day, flow kind, row, col) float32."""

    city: City
    table: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """Look up the climatology of slots.

        Parameters
        ----------
        times
            Starts of slots (...), naive UTC.

        Returns
        -------
        np.ndarray
            Climatology (..., flow kind, row, col), vehicles per slot.
        """
        flat = times.ravel()
        means = self.table[self._kind_of_day(flat), self.city.slot_of_day(flat)]
        return means.reshape(times.shape + self.table.shape[2:])

    def _kind_of_day(self, times: np.ndarray) -> np.ndarray:
        """Return the first index of `table` for slot starts (n), naive UTC."""
        raise NotImplementedError


@dataclass(frozen=True)
class WeekdayClimatology(_ClimatologyTable):
    """The climatology by day of the week.

    Attributes
    ----------
    city
        The city.
    table
        Means (day of the week, slot of day, flow kind, row, col) float32, vehicles per slot; Monday is 0.
    """

    city: City
    table: np.ndarray

    @classmethod
    def fit(cls, city: City, flows: xr.Dataset) -> WeekdayClimatology:
        """Fit the climatology to the observed slots.

        Parameters
        ----------
        city
            The city.
        flows
            Its flows.

        Returns
        -------
        WeekdayClimatology
            The climatology.
        """
        return cls(city, _weekday_table(city, *_weekday_sums(city, flows)))

    def _kind_of_day(self, times: np.ndarray) -> np.ndarray:
        return self.city.day_of_week(times)


@dataclass(frozen=True)
class Climatology(_ClimatologyTable):
    """The climatology by weekday or weekend: the plain means over the observed training slots.

    Attributes
    ----------
    city
        The city.
    table
        Means (weekday = 0 or weekend = 1, slot of day, flow kind, row, col) float32, vehicles per slot.
    """

    city: City
    table: np.ndarray

    @classmethod
    def fit(cls, city: City, flows: xr.Dataset) -> Climatology:
        """Average the observed slots.

        Parameters
        ----------
        city
            The city.
        flows
            Its flows.

        Returns
        -------
        Climatology
            The climatology. A slot of day never observed has the mean of the other kind of day, or one between those of
            the times before and after it.
        """
        flows = flows.isel(time=flows["observed"].values)
        sums, counts = _sums(city, flows, city.is_weekend(flows["time"].values).astype(int), 2)
        return cls(city, _means(sums, counts).astype(np.float32))

    def _kind_of_day(self, times: np.ndarray) -> np.ndarray:
        return self.city.is_weekend(times).astype(int)

    def forecast(self, history: np.ndarray, init_times: np.ndarray) -> np.ndarray:
        """Forecast the climatology itself; see Forecaster.

        Parameters
        ----------
        history
            Flows (n, HISTORY, flow kind, row, col), vehicles per slot; not used.
        init_times
            Init times (n), naive UTC.

        Returns
        -------
        np.ndarray
            Forecasts (n, HORIZON, flow kind, row, col), vehicles per slot.
        """
        return self.at(target_times(self.city, init_times))


def read_climatology(registry: Registry, version: str) -> WeekdayClimatology | Climatology:
    """Read the climatology of a model.

    Parameters
    ----------
    registry
        The city's models.
    version
        The model.

    Returns
    -------
    WeekdayClimatology | Climatology
        The climatology by day of the week, or by weekday and weekend where the model has no other.

    Raises
    ------
    InputError
        The version is unknown, or its file is damaged.
    """
    city, card = registry.city, registry.card(version)

    def _parse(content: bytes) -> WeekdayClimatology | Climatology:
        tables, scale = load(content), float(card["scale"])
        if "normal" in tables:
            return WeekdayClimatology(city, _check_table(city, tables["normal"], 7, scale))
        return Climatology(city, _check_table(city, tables["table"], 2, scale))

    return registry.read(version, "climatology.safetensors", _parse)


def _check_table(city: City, table: np.ndarray, kinds_of_day: int, scale: float) -> np.ndarray:
    """Return a table (kind of day, slot of day, flow kind, row, col) that was read from a file.

    Raises ValueError where it is no climatology of flows up to `scale`, vehicles per slot.
    """
    expected = (kinds_of_day, city.slots_per_day, len(FLOW_KINDS), city.rows, city.cols)
    if table.shape != expected or table.dtype != np.float32:
        raise ValueError(f"a climatology is {table.dtype} {table.shape}, not float32 {expected}")
    # Means are no higher than the highest flow; one that was drawn towards others may be a little higher.
    if not ((table >= 0) & (table <= 2 * scale)).all():
        raise ValueError(f"a climatology has values that no mean of flows up to {scale:g} can have")
    return table


def climatology_of_other_days(city: City, flows: xr.Dataset) -> np.ndarray:
    """Compute the climatology of each slot from all other local days.

    A network that is trained with a climatology in which the slot itself has a part would trust it too much.

    Parameters
    ----------
    city
        The city.
    flows
        Its flows.

    Returns
    -------
    np.ndarray
        Climatology (time, flow kind, row, col) of the slots of `flows`, vehicles per slot.
    """
    time = flows["time"].values
    days, weekday, slot = city.local_days(time), city.day_of_week(time), city.slot_of_day(time)
    sums, counts = _weekday_sums(city, flows)
    climatology = np.empty(flows["flow"].shape, np.float32)
    for day in np.unique(days):
        own = days == day
        own_sums, own_counts = _weekday_sums(city, flows.isel(time=own))
        others = _weekday_table(city, sums - own_sums, counts - own_counts, [weekday[own][0]])
        climatology[own] = others[0, slot[own]]
    return climatology


def calendar_features(city: City, times: np.ndarray) -> np.ndarray:
    """Compute the calendar features of slots.

    The day of the week is not among them: a network would memorise the days of a few weeks.

    Parameters
    ----------
    city
        The city.
    times
        Starts of slots (n), naive UTC.

    Returns
    -------
    np.ndarray
        Features (n, 6) float32: sine and cosine of the local time of day, the same of twice its angle, and 0 or 1 for
        a day off and for a holiday.
    """
    angle = 2 * np.pi * (city.slot_of_day(times) + 0.5) / city.slots_per_day
    harmonics = [function(n * angle) for n in (1, 2) for function in (np.sin, np.cos)]
    off = _DAYS_OFF[city.day_of_week(times)]
    return np.stack([*harmonics, off, city.is_holiday(times)], axis=1).astype(np.float32)


def _sums(city: City, flows: xr.Dataset, kinds: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum observed slots by kind of day: sums (kind, slot of day, flow kind, row, col) and numbers of slots.

    `kinds` holds the kind of day, below `number`, of each slot of `flows`.
    """
    values = flows["flow"].values
    shape = (number, city.slots_per_day)
    sums, counts = np.zeros(shape + values.shape[1:]), np.zeros(shape)
    key = kinds, city.slot_of_day(flows["time"].values)
    np.add.at(sums, key, values)
    np.add.at(counts, key, 1)
    return sums, counts


def _weekday_sums(city: City, flows: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Sum the observed slots of `flows` by day of the week."""
    flows = flows.isel(time=flows["observed"].values)
    return _sums(city, flows, city.day_of_week(flows["time"].values), 7)


def _weekday_table(city: City, sums: np.ndarray, counts: np.ndarray, weekdays: Iterable[int] = range(7)) -> np.ndarray:
    """Return the table's entries for some days of the week."""
    sums, counts = (_smoothed(city, values, _SMOOTHING_MINUTES, axis=1) for values in (sums, counts))
    kinds = _kind_means(sums, counts)
    table = []
    for weekday in weekdays:
        mean = kinds[int(_DAYS_OFF[weekday])]
        days = counts[weekday][:, None, None, None]
        for parts, prior_days, minutes in _SCALES:
            observed, expected, prior = (
                _smoothed(city, _pooled(values, parts), minutes, axis=0)
                for values in (sums[weekday], days * mean, prior_days * mean)
            )
            factor = (observed + prior + _TINY) / (expected + prior + _TINY)
            mean = mean * _spread_out(factor, *mean.shape[-2:])
        table.append(mean)
    return np.stack(table).astype(np.float32)


def _kind_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the means (kind of day, slot of day, flow kind, row, col) of working days and days off."""
    kind_sums, kind_counts = (
        np.stack([values[alike].sum(0) for alike in (~_DAYS_OFF, _DAYS_OFF)]) for values in (sums, counts)
    )
    means, days = _means(kind_sums, kind_counts), kind_counts[..., None, None, None]
    roots = np.sqrt(means + 0.25).reshape(-1, means[0, 0].size)
    weights = np.sqrt(days + _TINY).reshape(-1, 1)
    weighted = weights * roots
    rhythms = np.linalg.eigh(weighted @ weighted.T)[1][:, -_RHYTHMS:]
    projected = (rhythms @ (rhythms.T @ weighted) / weights).clip(min=0.5) ** 2 - 0.25
    return np.asarray((days * means + _RHYTHMS_PRIOR * projected.reshape(means.shape)) / (days + _RHYTHMS_PRIOR))


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return means of two kinds of day; where one has no sample the other's, else one between those of other times."""
    between = _between_times(sums.sum(axis=0), counts.sum(axis=0))
    return _ratio(sums, counts, _ratio(sums[::-1], counts[::-1], between))


def _between_times(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Interpolate means linearly between the slots of day that have a sample; the first slot follows the last."""
    known = np.flatnonzero(counts > _TINY)
    if not len(known):
        return np.zeros_like(sums)
    means = sums[known] / counts[known][:, None, None, None]
    slot = np.arange(len(counts))
    after = np.searchsorted(known, slot) % len(known)
    before = after - 1
    gap = (known[after] - known[before]) % len(counts)
    share = (slot - known[before]) % len(counts) / np.where(gap == 0, len(counts), gap)
    share = share[:, None, None, None]
    return np.asarray(means[before] * (1 - share) + means[after] * share)


def _ratio(sums: np.ndarray, counts: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """Return sums (..., flow kind, row, col) divided by counts (...), and `fallback` where there are none."""
    n = counts[..., None, None, None]
    return np.where(n > _TINY, sums / np.maximum(n, _TINY), fallback)


def _pooled(grids: np.ndarray, parts: int | None) -> np.ndarray:
    """Sum grids (..., row, col) over at most parts x parts districts, (..., part, part); None leaves the cells."""
    if parts is None:
        return grids
    rows, cols = (np.flatnonzero(np.diff(_district(side, parts), prepend=-1)) for side in grids.shape[-2:])
    return np.add.reduceat(np.add.reduceat(grids, rows, axis=-2), cols, axis=-1)


def _spread_out(values: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Give all cells of a district, (..., row, col), its value of (..., part, part)."""
    down, across = _district(rows, values.shape[-2]), _district(cols, values.shape[-1])
    return values[..., down[:, None], across]


def _district(side: int, parts: int) -> np.ndarray:
    """Return the district of each row or column."""
    return np.arange(side) * min(parts, side) // side


def _smoothed(city: City, values: np.ndarray, minutes: float, axis: int) -> np.ndarray:
    """Smooth values along the slots of a day by a Gaussian; the first slot follows the last."""
    width = minutes / city.slot_minutes
    reach = min(int(4 * width), (values.shape[axis] - 1) // 2)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weights /= weights.sum()
    shifted = (w * np.roll(values, shift, axis) for w, shift in zip(weights, range(-reach, reach + 1), strict=True))
    return np.asarray(sum(shifted))
