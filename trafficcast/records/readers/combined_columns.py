"""Columns that belong together: a date and a clock are one time, and one column may hold longitude and latitude."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from trafficcast.records.readers.cell_values import _decoded, _is_text, _texts
from trafficcast.records.readers.columns import _DATES, _Layout
from trafficcast.records.readers.places import _lon_and_lat

_CLOCK = re.compile(r"\s*\d{1,2}[:.]\d\d([:.]\d\d(\.\d+)?)?(\s*[AaPp]\.?[Mm]\.?)?\s*")
_MIDNIGHT = r"[ T]0{1,2}:00(:00(\.0+)?)?$"  # which exports write behind a date


def _with_dates_that_count(layout: _Layout, samples: Mapping[str, Sequence[str]], named: Mapping[str, str]) -> _Layout:
    """Return a layout without the dates that the feed does not name and whose times are more than a clock's."""
    columns, in_path = dict(layout.columns), dict(layout.in_path)
    for time, date in _DATES.items():
        if (date in columns or date in in_path) and date not in named:
            clocks = [text for text in samples[time] if _CLOCK.fullmatch(text)]
            if 2 * len(clocks) <= len(samples[time]):
                columns.pop(date, None)
                in_path.pop(date, None)
    return replace(layout, columns=columns, in_path=in_path)


def _combined(
    columns: Mapping[str, pa.Array | pa.ChunkedArray], places: Iterable[tuple[str, str]] = ()
) -> dict[str, pa.Array]:
    """Return columns in which each time has its date; of `places` longitude and latitude are one column."""
    found = {
        field: column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        for field, column in columns.items()
    }
    for time, date in _DATES.items():
        if date in found:
            days = pc.replace_substring_regex(_as_text(found.pop(date)), _MIDNIGHT, "")
            found[time] = pc.binary_join_element_wise(days, _as_text(found[time]), " ")
    for lon, lat in places:
        found[lon], found[lat] = _lon_and_lat(found[lon])
    return found


def _as_text(column: pa.Array) -> pa.Array:
    """Return values as trimmed text, as a file of text would have them."""
    column = _decoded(column)
    return pc.utf8_trim_whitespace(_texts(column) if _is_text(column.type) else column.cast(pa.string()))
