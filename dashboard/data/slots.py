"""The slots of many days at once: whether they were observed, their coverage and vehicles, without their grids."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from dashboard.page import clock
from trafficcast.config.city import City
from trafficcast.ingestion.quality_report import MISSING, OBSERVED, PARTIAL
from trafficcast.stores.flows import UNKNOWN

_RUNNING = "running"  # the state of the slot that has not ended
_VARIABLES = ("observed", "coverage", "vehicles")


def _slot_table(
    city: City, slots: xr.Dataset | None, start: np.datetime64, end: np.datetime64, records: pd.Series | None = None
) -> pd.DataFrame:
    """Make a table with a row for each slot in [start, end), naive UTC, in order.

    `slots` are the stored slots (see `flows_dataset`); slots that are not among them are missing. `records` is the
    number of records by the slot's number since 1970. Columns: time (naive UTC), day (local), hour (local, 0 to 24),
    until (when the slot ends, at most 24), part and parts (0 or 1 of 2 in an hour that clocks repeat, else 0 of 1),
    state, coverage (0 to 1), vehicles and records (NaN where unknown or missing), label (start in the city's zone).
    """
    first, last = (int(edge.astype("datetime64[us]").astype(np.int64)) for edge in (start, end))
    number = np.arange(-(-first // city.slot_us), -(-last // city.slot_us))
    time = (number * city.slot_us).astype("datetime64[us]")
    known = pd.DataFrame(columns=list(_VARIABLES), index=pd.DatetimeIndex([]))
    if slots is not None:
        known = pd.DataFrame({name: slots[name].values for name in _VARIABLES}, slots["time"].values)
    known = known[~known.index.duplicated(keep="last")].reindex(time)
    observed = known["observed"].eq(True).to_numpy()
    coverage = known["coverage"].astype(np.float64).fillna(0.0).to_numpy()
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
            "state": np.select(
                [time + city.slot > clock.present(), observed, coverage > 0], [_RUNNING, OBSERVED, PARTIAL], MISSING
            ),
            "coverage": coverage,
            "vehicles": known["vehicles"].astype(np.float64).replace(UNKNOWN, np.nan).to_numpy(),
            "records": counts,
            "label": local.strftime("%a %d %b %Y %H:%M %Z"),
        }
    )


def _table_of_days(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each local day of a `_slot_table`, the newest first; the slot that still runs is left out.

    Columns: day, slots observed, partial and missing, mean coverage (0 to 1), vehicles at most in a slot, records.
    """
    table = table[table["state"] != _RUNNING]
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
