"""Decide how the times of a table's columns are written.

A form is a unit of numbers since 1970 (s, ms, us, ns) or a format of texts such as `%d.%m.%Y %H:%M`; texts without a
form are ISO 8601.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers.cell_values import _count_units, _decoded, _is_number, _is_text, _texts
from trafficcast.records.readers.columns import _DATES, _TIMES
from trafficcast.records.readers.combined_columns import _combined
from trafficcast.records.time_formats import count_matches, likely_formats
from trafficcast.records.timestamps import UNIT_US, best_unit

_ISO = re.compile(r"\s*\d{4}-\d\d-\d\d([ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?)?\s*")
_Tables = Callable[[list[str]], Iterator[tuple[Mapping[str, pa.Array], int]]]


def _time_forms(
    path: str, city: City, samples: Mapping[str, Sequence[Any]], tables: _Tables, month_first: bool = False
) -> dict[str, str]:
    """Return the forms of the times among a table's fields.

    `samples` has some values of each field, `tables` yields all values of some fields. Raises InputError where nothing
    tells day and month apart, unless `month_first` does.
    """
    times = {field: _with_dates(samples, field) for field in _TIMES if field in samples}
    if city.feed.time_format:
        return dict.fromkeys(times, city.feed.time_format)
    likely = {field: _likely_forms(values) for field, values in times.items()}
    if month_first:
        likely = {field: forms[:1] if "%" in "".join(forms) else forms for field, forms in likely.items()}
    forms = {field: found[0] for field, found in likely.items() if len(found) == 1}
    open_fields = {field: found for field, found in likely.items() if len(found) > 1}
    counts = {field: Counter[str]() for field in open_fields}
    needed = [name for field in open_fields for name in (field, _DATES[field]) if name in samples]
    for columns, _ in tables(needed) if needed else ():
        combined = _combined(columns)
        for field, count in counts.items():
            count.update(_count_forms(combined[field], open_fields[field]))
    for field, count in counts.items():
        (best, most), *others = count.most_common(2)
        if "%" in best and others and others[0][1] == most:
            raise _undecided(path, city, field, times[field], open_fields[field])
        forms[field] = best if "%" in best else best_unit(count)
    return forms


def _with_dates(samples: Mapping[str, Sequence[Any]], field: str) -> list[str]:
    """Return some times of a field as text, with their dates."""
    values = [str(value) for value in samples[field] if value is not None]
    if not values or _DATES[field] not in samples:
        return values
    pairs = [*zip(values, map(str, samples[_DATES[field]]), strict=False)]
    clocks, dates = (pa.array([pair[i] for pair in pairs], pa.string()) for i in (0, 1))
    return _combined({field: clocks, _DATES[field]: dates})[field].to_pylist()


def _likely_forms(texts: Sequence[str]) -> list[str]:
    """Return the forms that some times may have: none for ISO 8601, one, or several to choose from."""
    if _mostly_numbers(texts):
        return [*UNIT_US]
    if sum(map(bool, map(_ISO.fullmatch, texts))) > len(texts) / 2:
        return []
    return likely_formats(texts)


def _mostly_numbers(values: Iterable[Any]) -> bool:
    """Say whether most values, as text or not, are numbers; missing ones do not count."""
    texts = [text for value in values if value is not None and (text := str(value)).strip()]
    return sum(map(_is_number, texts)) > len(texts) / 2


def _count_forms(column: pa.Array, forms: Sequence[str]) -> Counter[str]:
    """Count the values of a column that have each form."""
    if "%" not in forms[0]:
        return _count_units(column)
    column = _decoded(column)
    return count_matches(_texts(column), forms) if _is_text(column.type) else Counter(dict.fromkeys(forms, 0))


def _undecided(path: str, city: City, field: str, texts: Sequence[str], forms: Sequence[str]) -> InputError:
    """Return the error of times whose day and month nothing tells apart."""
    shown = next(text for text in texts if text.strip())
    options = " or ".join(f'time_format = "{form}"' for form in forms)
    return InputError(
        f"{path}: no row tells whether the {field} has the month or the day first, as in {shown!r}: set {options} "
        f"under [cities.{city.name or 'NAME'}.feed]"
    )
