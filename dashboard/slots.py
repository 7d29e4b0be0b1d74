"""The slots of many days at once: whether they were observed, their coverage and vehicles, without their grids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import h5py
import numpy as np
import pandas as pd

from trafficcast.city import City
from trafficcast.flows import UNKNOWN
from trafficcast.quality import MISSING, OBSERVED, PARTIAL
from trafficcast.stores import DamagedFile, DayStore

VARIABLES = ("observed", "coverage", "vehicles")
TIME_UNITS = b"seconds since 1970-01-01"
DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Slots:
    """Stored slots in order, (slot) each: start, naive UTC; observed; coverage, 0 to 1; vehicles, -1 unknown.

    `damaged`: what is wrong with the days that could not be read, a sentence each.
    """

    time: np.ndarray
    observed: np.ndarray
    coverage: np.ndarray
    vehicles: np.ndarray
    damaged: tuple[str, ...] = ()


def read_slots(store: DayStore, days: Iterable[np.datetime64]) -> Slots:
    """The slots of these local days of a flow store. A damaged day is left out and named.

    Raises InputError where a day was made for another grid.
    """
    parts, damaged = [], []
    for day in days:
        try:
            parts.append(_quickly(store, day) or _as_store(store, day))
        except DamagedFile as error:
            damaged.append(str(error))
    whole = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.zeros(0)] * 4
    time, observed, coverage, vehicles = whole
    order = np.argsort(time, kind="stable")  # clocks set back over midnight interleave the slots of two days
    return Slots(
        time[order].astype("datetime64[us]"),
        observed[order].astype(bool),
        coverage[order],
        vehicles[order],
        tuple(damaged),
    )


def slot_table(
    city: City, stored: Slots, start: np.datetime64, end: np.datetime64, records: pd.Series | None = None
) -> pd.DataFrame:
    """A row for each slot in [start, end), naive UTC, in order.

    Args:
        city: whose clock and slots count.
        stored: what is known of them; what is not among them is missing.
        start, end: the period.
        records: records of a slot by its number since 1970; None where they are unknown.

    Returns:
        time (naive UTC), day (local), hour (local, 0 up to 24), until (where it ends, at most 24), part and parts (1 of
        2 and 2 of 2 of an hour that the clocks repeat, 0 of 1 otherwise), state, coverage (0 to 1), vehicles, records
        (not a number where unknown or missing) and label (start in the city's zone).
    """
    first, last = (int(edge.astype("datetime64[us]").astype(np.int64)) for edge in (start, end))
    number = np.arange(-(-first // city.slot_us), -(-last // city.slot_us))
    time = (number * city.slot_us).astype("datetime64[us]")
    known = pd.DataFrame(
        {
            "observed": stored.observed,
            "coverage": stored.coverage.astype(np.float64),
            "vehicles": np.where(stored.vehicles == UNKNOWN, np.nan, stored.vehicles),
        },
        index=stored.time,
    )
    known = known[~known.index.duplicated(keep="last")].reindex(time)
    observed = known["observed"].eq(True).to_numpy()
    coverage = known["coverage"].fillna(0.0).to_numpy()
    local = city.local(time)
    naive = local.tz_localize(None)
    hour = (local.hour * 60 + local.minute).to_numpy() / 60
    repeats = pd.Series(1, index=range(len(time))).groupby(naive)
    counts = np.nan if records is None else records.reindex(number).to_numpy(np.float64)
    return pd.DataFrame(
        {
            "time": time,
            "day": naive.normalize(),
            "hour": hour,
            "until": np.minimum(hour + city.slot_minutes / 60, 24.0),
            "part": repeats.cumcount().to_numpy(),
            "parts": repeats.transform("size").to_numpy(),
            "state": np.where(observed, OBSERVED, np.where(coverage > 0, PARTIAL, MISSING)),
            "coverage": coverage,
            "vehicles": known["vehicles"].to_numpy(),
            "records": counts,
            "label": local.strftime("%a %d %b %Y %H:%M %Z"),
        }
    )


def table_of_days(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each local day of a `slot_table`, the newest first.

    Columns: day, slots observed, partial and missing, mean coverage (0 to 1), vehicles at most in a slot, records.
    """
    days = table.groupby("day", sort=True)
    states = pd.crosstab(table["day"], table["state"]).reindex(columns=[OBSERVED, PARTIAL, MISSING], fill_value=0)
    columns = {
        **{state: states[state] for state in states.columns},
        "coverage": days["coverage"].mean(),
        "most vehicles": days["vehicles"].max(),
        "records": days["records"].sum(min_count=1),
    }
    found = pd.DataFrame(columns).iloc[::-1]
    return found.rename_axis("day").reset_index()


def _quickly(store: DayStore, day: np.datetime64) -> tuple[np.ndarray, ...] | None:
    """A day's times, observed, coverage and vehicles; None where the file is not as the store writes it.

    The files are HDF5: without their coordinates, dimensions and attributes a year is read in 0.2 s instead of 10 s.
    """
    try:
        with h5py.File(store.root / f"{day}.nc") as file:
            grid = store.city.grid()
            if file["time"].attrs.get("units") not in (TIME_UNITS, TIME_UNITS.decode()) or any(
                file.attrs.get(key) != value for key, value in grid.items()
            ):
                return None
            time = file["time"][:].astype("datetime64[s]")
            return (time, *(file[name][:] for name in VARIABLES))
    except (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError):
        return None


def _as_store(store: DayStore, day: np.datetime64) -> tuple[np.ndarray, ...]:
    """As `_quickly`, with all the checks of the store. Raises as they do."""
    dataset = store.read_day(day, VARIABLES)
    if dataset is None:
        return tuple(np.zeros(0, kind) for kind in ("datetime64[s]", bool, np.float32, np.int32))
    return (dataset["time"].values.astype("datetime64[s]"), *(dataset[name].values for name in VARIABLES))
