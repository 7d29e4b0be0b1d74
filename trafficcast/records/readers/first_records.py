"""Look at the first records of a table, which show whether a column was guessed wrongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.occupied import not_understood
from trafficcast.records.readers.cell_values import _decoded, _is_text, _words
from trafficcast.records.readers.columns import _OCCUPIED, _endings, _Layout, _listed, _named, _table
from trafficcast.records.records import DAY_US, EARLIEST_US, SECOND_US, Batch, Points

_LATEST_US = 4_102_444_800 * SECOND_US
_MOST, _FEWEST = 5_000, 30  # records that are looked at
_SHOWN = 3  # values
_WEAK_NAMES = {"id", "uid", "objectid", "fid", "rowid", "index"}  # as often of the row as of the vehicle


def _check_first_records(
    path: str, batch: Batch, fields: Mapping[str, pa.Array | pa.ChunkedArray], layout: _Layout, city: City
) -> list[str]:
    """Return notes on the first records of a table; raise InputError, with a proposal, where they make no sense.

    `fields` has the values as they stand in the file.
    """
    notes = _check_occupied(path, fields, layout, city) if _OCCUPIED in layout.columns else []
    records = batch.records.take(slice(_MOST))
    # Of times before 2000 and after 2100 screening says what they look like.
    records = records.take((records.time >= EARLIEST_US) & (records.time < _LATEST_US))
    if len(records) < _FEWEST:
        return notes
    advice = f"name the right one under {_table(city)}; its columns are {_listed(layout.names)}"
    if _are_midnights(records.time, city):
        raise InputError(
            f"{path}: the first {len(records):,} times are all at midnight: column {_name(layout, 'time')} has no time "
            f"of day; {advice} (date and time may be two columns)"
        )
    if not isinstance(records, Points):
        return notes
    if _are_row_numbers(records, batch.vehicles, layout, city):
        raise InputError(
            f"{path}: each of the first {len(records):,} records has a vehicle of its own: column "
            f"{_name(layout, 'vehicle')} looks like the number of the row; {advice}, such as vehicle = "
            f'"{_proposed(layout)}"'
        )
    places = np.rec.fromarrays([records.vehicle, records.time, records.lon, records.lat])
    times = np.rec.fromarrays([records.vehicle, records.time])
    if 2 * len(np.unique(times)) < len(np.unique(places)):
        raise InputError(
            f"{path}: most of the first {len(records):,} records have the vehicle and the time of another one, at "
            f"another place: column {_name(layout, 'vehicle')} is not the vehicle, or column {_name(layout, 'time')} "
            f"lacks a part of the time; {advice}"
        )
    if not notes and _OCCUPIED in layout.columns and (records.occupied < 0).all():
        what = f"no value of column {_name(layout, _OCCUPIED)} says whether a vehicle is occupied: write 0 or 1"
        if city.feed.trips:
            raise InputError(f"{path}: {what}, or {advice}")
        return [what]
    return notes


def _check_occupied(
    path: str, fields: Mapping[str, pa.Array | pa.ChunkedArray], layout: _Layout, city: City
) -> list[str]:
    """Return a note on values that do not say whether a vehicle is occupied; raise InputError where that counts."""
    column = fields[_OCCUPIED].slice(0, _MOST)
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if city.feed.occupied_values or not _is_text(_decoded(column).type):
        return []
    encoded, words = _words(column)
    present = [words[i] for i in dict.fromkeys(encoded.indices.drop_null().to_pylist())]
    odd = not_understood(present)
    if not odd:
        return []
    what = (
        f"column {_name(layout, _OCCUPIED)} has values that do not say whether a vehicle is occupied: "
        f"{_listed(odd, _SHOWN)}; list those that mean so under [cities.{city.name or 'NAME'}.feed], such as "
        f'occupied_values = ["{odd[0]}"], and all others mean that it is free'
    )
    if city.feed.trips:
        raise InputError(f"{path}: {what}")
    return [what]


def _name(layout: _Layout, field: str) -> str:
    """Return the name of a field's column, for messages."""
    field = field if field in layout.columns else next((one for one in layout.columns if one.endswith(field)), field)
    return repr(layout.names[layout.columns[field]]) if field in layout.columns else f"of the {field}"


def _are_midnights(times: np.ndarray, city: City) -> bool:
    """Say whether all times are local midnights, of more than one day or vehicle."""
    if len(np.unique(times % DAY_US)) > 2:
        return False
    local = city.local(times.astype("datetime64[us]"))
    return bool(((local.hour == 0) & (local.minute == 0) & (local.second == 0)).all())


def _are_row_numbers(records: Points, vehicles: Sequence[str], layout: _Layout, city: City) -> bool:
    """Say whether every record has a vehicle of its own while the time goes on, so that none could ever move.

    A list of where all vehicles are is no such table: it names them.
    """
    if "vehicle" in _named(city) or "vehicle" not in layout.columns or len(np.unique(records.vehicle)) < len(records):
        return False
    if np.ptp(records.time) <= city.max_gap_us:
        return False
    names = [vehicles[code] for code in records.vehicle[:_FEWEST]]
    counted = all(name.isdecimal() for name in names) and {*np.diff([int(name) for name in names])} == {1}
    return counted or not _endings(layout.names[layout.columns["vehicle"]]).isdisjoint(_WEAK_NAMES)


def _proposed(layout: _Layout) -> str:
    """Return the name of a column that may be the vehicle's."""
    others = [name for i, name in enumerate(layout.names) if name and i not in layout.columns.values()]
    likely = [name for name in others if any(word in name.lower() for word in ("id", "user", "cab", "taxi", "car"))]
    return (likely or others or ["NAME"])[0]
