"""The flow store: its contract, flow(time, flow_kind, row, col), and its readers."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from trafficcast.config.city import FLOW_KINDS, City
from trafficcast.errors import DamagedFile, InputError
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore

_WEEKS_BACK, _FEWEST_DAYS = np.timedelta64(28, "D"), 3
UNKNOWN = -1  # vehicles of a slot whose number is not known


def flows_dataset(
    city: City,
    time: np.ndarray,
    flow: np.ndarray,
    vehicles: np.ndarray,
    coverage: np.ndarray,
    observed: np.ndarray | None = None,
    late: np.ndarray | None = None,
) -> xr.Dataset:
    """Make a dataset of flows as the flow store keeps it.

    Parameters
    ----------
    city
        The city.
    time
        Slot starts, (time), naive UTC.
    flow
        Flows, (time, flow kind, row, col), whole vehicles per slot.
    vehicles
        Distinct vehicles of each slot, (time); -1 where the number is unknown.
    coverage
        Share of a slot's one-minute bins in which any vehicle reported, (time), 0 to 1.
    observed
        Whether each slot is observed, (time); None where nothing but the coverage is known, which must then be
        `min_coverage` at least.
    late
        The part of the flow that was not known yet 1, 2, ... slots after the slot began, (time, age, flow kind, row,
        col); None where all is known at the slot's end, or nothing about it.

    Returns
    -------
    xr.Dataset
        The variables flow (time, flow_kind, row, col), vehicles per slot; observed, vehicles and coverage (time); and
        late_flow (time, age, flow_kind, row, col) if it was given. The coordinate time is the slot's start, naive UTC.
    """
    coverage = np.asarray(coverage, np.float32)
    if observed is None:
        observed = coverage >= np.float32(city.min_coverage)
    dataset = xr.Dataset(
        {
            "flow": (
                ("time", "flow_kind", "row", "col"),
                np.asarray(flow, np.int32),
                {"units": "1", "long_name": "vehicles per slot"},
            ),
            "observed": ("time", np.asarray(observed, np.bool_), {"long_name": "the feed was alive in the slot"}),
            "vehicles": (
                "time",
                np.asarray(vehicles, np.int32),
                {"units": "1", "long_name": "distinct vehicles seen, -1 unknown"},
            ),
            "coverage": ("time", coverage, {"units": "1", "long_name": "share of one-minute bins with a report"}),
        },
        coords={
            "time": ("time", time, {"standard_name": "time", "long_name": "slot start, UTC"}),
            **_grid_coordinates(city),
        },
        attrs=city_attributes(city),
    )
    if late is not None:
        age = np.arange(1, late.shape[1] + 1, dtype=np.int32)
        dataset = dataset.assign_coords(age=("age", age, {"long_name": "slots since the slot began"}))
        dataset["late_flow"] = (
            ("time", "age", "flow_kind", "row", "col"),
            np.asarray(late, np.int32),
            {"units": "1", "long_name": "vehicles per slot that were not known yet at that age"},
        )
    return dataset


def late_flow(flows: xr.Dataset) -> np.ndarray | None:
    """Return the part of the flows that was not known yet 1, 2, ... slots after each slot began.

    Parameters
    ----------
    flows
        Flows (see `flows_dataset`).

    Returns
    -------
    np.ndarray | None
        (time, age, flow kind, row, col), vehicles per slot; 0 in slots of which nothing is known about it, such as
        those of files of an earlier version; None where that holds for all slots.
    """
    return np.nan_to_num(flows["late_flow"].values) if "late_flow" in flows else None


def _grid_coordinates(city: City) -> dict[str, object]:
    """Coordinates that flows and forecasts share: flow_kind, lat(row), lon(col)."""
    return {
        "flow_kind": ("flow_kind", list(FLOW_KINDS)),
        "lat": ("row", city.lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("col", city.lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }


def city_attributes(city: City) -> dict[str, object]:
    """Return the city's box, grid, slot length and time zone as attributes of a file.

    Parameters
    ----------
    city
        The city.

    Returns
    -------
    dict[str, object]
        The attributes by name.
    """
    return {"Conventions": "CF-1.11", "city": city.name, **city.grid()}


def read_flows(
    stores: CityStores,
    start: str | np.datetime64 | None = None,
    end: str | np.datetime64 | None = None,
    damaged: list[DamagedFile] | None = None,
) -> xr.Dataset:
    """Read a city's observed flows of a period.

    Parameters
    ----------
    stores
        The city and its stores.
    start
        Start of the first slot, inclusive, text in the city's time zone or naive UTC; None is the first stored slot.
    end
        End of the last slot, exclusive; None is the end of the last stored slot.
    damaged
        A list to which damaged files are added, whose days are then left out; with None the first one is raised.

    Returns
    -------
    xr.Dataset
        The flows: flow(time, flow_kind, row, col), vehicles per slot; time is the slot's start, naive UTC (see
        `flows_dataset`).

    Raises
    ------
    InputError
        The city has no flows in the period, or a day's file is damaged.

    Examples
    --------
    >>> flows = tc.read_flows(city, start="2024-04-15", end="2024-04-16")
    >>> flows["flow"].dims
    ('time', 'flow_kind', 'row', 'col')
    """
    city = stores.city
    start, end = city.as_time(start), city.as_time(end)
    if otherwise := judged_otherwise(stores):
        log.warning(otherwise)
    flows = stores.flows.read(start, end, damaged=damaged)
    if flows is None and stores.flows.days():
        since = "" if start is None else f" from {city.isoformat(start)}"
        until = "" if end is None else f" before {city.isoformat(end)}"
        raise InputError(
            f"'{city.name}' has no flows in that period,{since}{until}: choose another or ingest its records"
        )
    if flows is None:
        raise InputError(f"'{city.name}' has no flows yet: run trafficcast ingest PATH --city {city.name}")
    return flows


def judged_otherwise(stores: CityStores) -> str:
    """Say whether the observed slots were judged by another `min_coverage` than the configuration has now.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    str
        What differs and what helps; empty where nothing does, or where it is not known.
    """
    name, wanted = stores.city.name, stores.city.min_coverage
    try:
        judged = json.loads((stores.folder / "quality.json").read_text(encoding="utf-8"))["min_coverage"]
    except (OSError, ValueError, TypeError, KeyError):  # imported flows, an earlier version, or damage
        return ""
    if judged == wanted:
        return ""
    return (
        f"the slots of '{name}' were judged by min_coverage = {judged}, and the configuration says {wanted}: the next "
        f"ingest judges them anew, also one of files that were ingested before (trafficcast ingest PATH --city {name})"
    )


def last_observed(
    flows: DayStore, now: np.datetime64 | None = None, damaged: list[DamagedFile] | None = None
) -> np.datetime64 | None:
    """Find the newest observed slot of a flow store that has ended.

    A slot that is still running, or that lies ahead by a vehicle's wrong clock, is not observed yet.

    Parameters
    ----------
    flows
        The flow store.
    now
        The present time, naive UTC; None is that of this machine's clock.
    damaged
        A list to which damaged files are added, which are then left out; with None the first one is raised.

    Returns
    -------
    np.datetime64 | None
        The slot's start, naive UTC; None where no slot was observed.
    """
    now = np.datetime64("now", "us") if now is None else now
    for day in reversed(flows.days()):
        dataset = flows.read_day(day, ["observed"], damaged)
        if dataset is not None:
            time = dataset["time"].values
            observed = time[dataset["observed"].values & (time + flows.city.slot <= now)]
            if len(observed):
                newest: np.datetime64 = observed.max()
                return newest
    return None


def reporting_vehicles(flows: DayStore, slot: np.datetime64) -> tuple[int, float] | None:
    """Return how many vehicles reported in a slot, and how many usually do.

    Usual is the upper quartile at the same local time of the four weeks before, of working days or of weekends where
    three of them are known.

    Parameters
    ----------
    flows
        The flow store.
    slot
        The slot's start, naive UTC.

    Returns
    -------
    tuple[int, float] | None
        The number of distinct vehicles and the usual number; None where the one or the other is not known.
    """
    city = flows.city
    today = city.local_days(np.array([slot]))[0]
    days = [day for day in flows.days() if today - _WEEKS_BACK <= day <= today]
    parts = [part for day in days if (part := flows.read_day(day, ["vehicles", "observed"], [])) is not None]
    if not parts:
        return None
    time, vehicles, observed = (
        np.concatenate([part[name].values for part in parts]) for name in ("time", "vehicles", "observed")
    )
    now = vehicles[time == slot]
    alike = (city.slot_of_day(time) == city.slot_of_day(np.array([slot]))) & (time < slot) & observed & (vehicles >= 0)
    same_kind = alike & (city.is_weekend(time) == city.is_weekend(np.array([slot])))
    known = vehicles[same_kind if np.count_nonzero(same_kind) >= _FEWEST_DAYS else alike]
    if not len(now) or now[0] == UNKNOWN or len(known) < _FEWEST_DAYS:
        return None
    return int(now[0]), float(np.quantile(known, 0.75))
