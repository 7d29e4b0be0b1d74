"""Convert the cell values of a table - vehicles, times, positions, flags - to records.

Columns come as Arrow arrays of whatever type a file has. A function here returns, besides the converted values, a mask
of those that are valid, or None where all are: the usual case then costs nothing more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from decimal import Decimal
from fractions import Fraction
from math import isfinite

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from pandas.util import hash_array

from trafficcast.config.time_format import EXCEL
from trafficcast.records.occupied import UNKNOWN, meanings
from trafficcast.records.readers.columns import _OCCUPIED, _TIMES, _TRIP_ID
from trafficcast.records.records import Batch, Points, Records
from trafficcast.records.time_formats import read_format
from trafficcast.records.timestamps import (
    NAMES,
    UNIT_US,
    count_units,
    floor_time,
    local_to_utc,
    parse_times,
    to_microseconds,
)

_Mask = np.ndarray | None
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_WHOLE, _FRACTIONAL = r"^-?[0-9]{1,18}$", r"^(?P<whole>[0-9]{1,18})\.(?P<digits>[0-9]{0,6})[0-9]*$"
_EXCEL_DAYS, _DAY_MS = 25_569, 86_400_000  # days from 1899-12-30 to 1970, milliseconds of a day
_EXACT = 2.0**53  # beyond it float64 skips whole numbers
_NAME_LETTERS = 200  # of a vehicle, at most; all names stay in memory


def _to_batch(
    kind: type[Records],
    columns: Mapping[str, pa.Array | pa.ChunkedArray],
    zone: tzinfo,
    forms: Mapping[str, str] | None = None,
    unparsable: int = 0,
    notes: Sequence[str] = (),
    occupied_values: Sequence[str] = (),
) -> Batch:
    """Make a batch of records of a kind from the columns of their fields.

    Naive times are local to `zone`; `forms` has the unit (s, ms, us, ns) of every column of times that are numbers, and
    the format of those that are no ISO 8601. `occupied_values` are those that mean so, where not the usual words do.
    Rows with a missing or invalid value are dropped; `unparsable` more rows of the file have no columns.
    """
    forms = forms or {}
    values: dict[str, np.ndarray] = {}
    vehicles: list[str] = []
    masks: list[_Mask] = []
    existing: list[_Mask] = []
    twice: dict[str, np.ndarray] = {}
    for field, chunks in columns.items():
        column = chunks.combine_chunks() if isinstance(chunks, pa.ChunkedArray) else chunks
        if field == "vehicle":
            values[field], vehicles, ok = _vehicle_codes(column)
            masks.append(ok)
        elif field in _TIMES:
            values[field], ok, exists, again = _times(column, zone, forms.get(field))
            masks.append(ok)
            existing.append(exists)
            if again is not None:
                twice[field.removeprefix("pickup_")] = again
        elif field == _OCCUPIED:
            values[field] = _occupancy(column, occupied_values)
        elif field == _TRIP_ID:
            values[field] = _hashed_ids(column)
        else:
            values[field], ok = _whole_numbers(column) if field.endswith("zone") else _numbers(column)
            masks.append(ok)
    n = len(next(iter(values.values())))
    if kind is Points:
        values.setdefault(_OCCUPIED, np.full(n, -1, np.int8))
    else:
        values.setdefault(_TRIP_ID, np.zeros(n, np.int64))
    records = kind(**{field.removeprefix("pickup_"): array for field, array in values.items()})
    dropped: Counter[str] = Counter(unparsable=unparsable)
    parsed, exists = _all_of(masks), _all_of(existing)
    if parsed is not None or exists is not None:
        parsed = np.ones(n, np.bool_) if parsed is None else parsed
        keep = parsed if exists is None else parsed & exists
        dropped.update(unparsable=n - int(np.count_nonzero(parsed)), clock=int(np.count_nonzero(parsed & ~keep)))
        records = records.take(keep)
        twice = {name: again[keep] for name, again in twice.items()}
    of_times = dict.fromkeys(f"times are {_written(form)}" for form in forms.values() if form != "s")
    return Batch(records, n + unparsable, vehicles, +dropped, (*notes, *of_times), again=twice)


def _written(form: str) -> str:
    """Say how times of a form are written."""
    return f"in {NAMES[form]}" if form in NAMES else f"written as {form}"


def _all_of(masks: Sequence[_Mask]) -> _Mask:
    """Return the mask of what is true in every mask; None where all is true."""
    real = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(real) if real else None


def _is_text(kind: pa.DataType) -> bool:
    """Say whether a type is text, whatever Arrow's name for it."""
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind) or _is_bytes(kind)


def _is_number(text: str) -> bool:
    """Say whether a text is a decimal number."""
    return re.match(_NUMBER, text.strip()) is not None


def _texts(column: pa.Array) -> pa.Array:
    r"""Return text as strings; bytes that are no UTF-8 are written as `\xff`, so that nothing is lost."""
    try:
        strings = column if pt.is_string(column.type) else column.cast(pa.string())
        strings.validate(full=True)  # strings of Parquet may be no UTF-8
        return strings
    except pa.ArrowInvalid:
        values = column.cast(pa.binary()).to_pylist()
        return pa.array([value and value.decode("utf-8", "backslashreplace") for value in values], pa.string())


def _numbers(column: pa.Array) -> tuple[np.ndarray, _Mask]:
    """Convert numbers of any type, or as text, to float64; return them and which are finite."""
    column = _decoded(column)
    if _is_text(column.type):
        column = _parse_numbers(_texts(column))
    if not pt.is_float64(column.type):
        column = column.cast(pa.float64(), safe=False)
    values = (column.fill_null(np.nan) if column.null_count else column).to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):  # one cheap pass: the sum is finite only if all values are
            return values, None
    finite = np.isfinite(values)
    return values, None if finite.all() else finite


def _parse_numbers(column: pa.Array) -> pa.Array:
    """Convert strings to float64, and to null where one is no number."""
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        column = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.match_substring_regex(column, _NUMBER), column, pa.scalar(None, pa.string()))
        column = pc.utf8_ltrim(column, "+")
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:  # such as 1e999
        return pa.array([None if text is None else float(text) for text in column.to_pylist()], pa.float64())


def _whole_numbers(column: pa.Array) -> tuple[np.ndarray, _Mask]:
    """Convert whole numbers of any type, or as text, to int64; return them and which are whole numbers."""
    column = _decoded(column)
    if pt.is_signed_integer(column.type) and not column.null_count:
        return column.cast(pa.int64()).to_numpy(), None
    values, _ = _numbers(column)
    whole = (np.abs(values) <= _EXACT) & (np.floor(values) == values)
    return np.where(whole, values, 0).astype(np.int64), None if whole.all() else whole


def _occupancy(column: pa.Array, occupied_values: Sequence[str] = ()) -> np.ndarray:
    """Convert 0 and 1, counts, booleans, or words to int8: 1 occupied, 0 not, -1 null or unknown.

    Of a list of `occupied_values` each means occupied, and every other value free.
    """
    if pt.is_null(column.type):
        return np.full(len(column), -1, np.int8)
    if pt.is_boolean(column.type) and not occupied_values:
        column = column.cast(pa.int8())
    if pt.is_int8(column.type) and not column.null_count and not occupied_values:
        flags = column.to_numpy()
        if len(flags) and flags.min() >= 0 and flags.max() <= 1:
            return flags
    if not _is_text(_decoded(column).type) and not occupied_values:
        return _sign(_numbers(column)[0])
    encoded, words = _words(column)
    return np.append(meanings(words, occupied_values), np.int8(UNKNOWN))[_indices(encoded, len(words))]


def _words(column: pa.Array) -> tuple[pa.DictionaryArray, list[str]]:
    """Return a column with its dictionary, and the values of this as text: few, where the column is long."""
    encoded = column if pt.is_dictionary(column.type) else column.dictionary_encode()
    return encoded, _names(encoded.dictionary)


def _sign(values: np.ndarray) -> np.ndarray:
    """Return 1 for positive values, 0 for zero and -1 for others."""
    return np.where((values >= 0) & np.isfinite(values), values > 0, -1).astype(np.int8)


def _vehicle_codes(column: pa.Array) -> tuple[np.ndarray, list[str], _Mask]:
    """Convert names of vehicles, text or numbers; return codes (int32), the names by code, and which have a name."""
    if not pt.is_dictionary(column.type):
        column = (_texts(column) if _is_text(column.type) else column).dictionary_encode()
    codes: dict[str, int] = {}
    names = _names(column.dictionary)
    of_value = [codes.setdefault(name, len(codes)) if 0 < len(name) <= _NAME_LETTERS else -1 for name in names]
    if len(codes) == len(of_value) and not column.indices.null_count:  # the usual case: each value is another name
        return _indices(column), list(codes), None
    found = np.array([*of_value, -1], np.int32)[_indices(column, len(of_value))]
    named = found >= 0
    return found, list(codes), None if named.all() else named


def _hashed_ids(column: pa.Array) -> np.ndarray:
    """Hash the ids of trips, text or numbers, to int64, in one way whatever the format; 0 where there is none."""
    names = np.array(_names(_decoded(column)), object)
    hashed = hash_array(names, categorize=False).view(np.int64)
    return np.where(names == "", 0, np.where(hashed == 0, 1, hashed))


def _names(values: pa.Array) -> list[str]:
    """Return values as names, of vehicles or trips, the empty string for a value that is none."""
    if _is_text(values.type):
        return [(name or "").strip() for name in _texts(values).to_pylist()]
    names = values.to_pylist()
    if pt.is_floating(values.type) or pt.is_decimal(values.type):  # integers, where some are missing, become floats
        names = [name if name is None or not isfinite(name) or name != int(name) else int(name) for name in names]
    return ["" if name is None or (isinstance(name, float) and not isfinite(name)) else str(name) for name in names]


def _indices(column: pa.DictionaryArray, null: int = 0) -> np.ndarray:
    """Return positions in a dictionary, int32, and `null` for null values."""
    indices = column.indices.cast(pa.int32())
    return (indices.fill_null(null) if indices.null_count else indices).to_numpy()


_Times = tuple[np.ndarray, _Mask, _Mask, np.ndarray | None]


def _times(column: pa.Array, zone: tzinfo, form: str | None = None) -> _Times:
    """Convert times; return microseconds since 1970 UTC, which are times, and which of these the clocks do not skip.

    The last value is how much later each occurs again (see `local_to_utc`), None where none does. These are timestamps
    of any unit, dates (their midnight) and text. The form of numbers, also as text, is a unit (s, ms, us, ns), that of
    texts a format such as `%d.%m.%Y`. A time without zone or offset is local to `zone`.
    """
    column = _decoded(column)
    if form == EXCEL and not (pt.is_timestamp(column.type) or pt.is_date(column.type)):
        return _times_of_excel(column, zone)
    if form is not None and "%" in form and not (pt.is_timestamp(column.type) or pt.is_date(column.type)):
        column = column if _is_text(column.type) else column.cast(pa.string())
    if pt.is_decimal(column.type):
        column = column.cast(pa.string())
    if _is_text(column.type):
        return _times_of_text(_texts(column), zone, form)
    ok = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    if pt.is_null(column.type):
        return np.zeros(len(column), np.int64), ok, None, None
    if pt.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pt.is_date32(column.type) else "ms"))
    kind, unit = column.type, form
    if pt.is_timestamp(kind):
        unit, column = kind.unit, column.view(pa.int64())
    elif pt.is_uint64(kind):
        column = pc.min_element_wise(column, pa.scalar(2**63 - 1, pa.uint64()))
    column = column.cast(pa.float64() if pt.is_floating(kind) else pa.int64())
    values = (column.fill_null(0) if column.null_count else column).to_numpy()
    if pt.is_floating(kind) and not np.isfinite(values).all():
        ok = _all_of([ok, np.isfinite(values)])
    us = values if unit == "us" and not pt.is_floating(kind) else to_microseconds(values, unit or "s")
    if not pt.is_timestamp(kind) or kind.tz is not None:
        return us, ok, None, None
    us, exists, again = local_to_utc(us, zone)
    return us, ok, None if exists.all() else exists, again if again.any() else None


def _times_of_excel(column: pa.Array, zone: tzinfo) -> _Times:
    """Convert Excel's numbers of days, whose last digit is finer than a millisecond, as `_times` does."""
    days, ok = _numbers(column)
    local = to_microseconds(np.rint((days - _EXCEL_DAYS) * _DAY_MS), "ms")
    us, exists, again = local_to_utc(local, zone)
    return us, ok, None if exists.all() else exists, again if again.any() else None


def _times_of_text(column: pa.Array, zone: tzinfo, form: str | None) -> _Times:
    """Convert times written as text, as `_times` does; those that have not the format may be ISO 8601."""
    if form in UNIT_US:
        us, ok = _numbers_as_times(column, form)
        return us, None if ok.all() else ok, None, None
    us, again = np.zeros(len(column), np.int64), np.zeros(len(column), np.int64)
    ok, skipped = np.zeros(len(column), np.bool_), np.zeros(len(column), np.bool_)
    if form is not None:
        us, ok, has_offset = read_format(column, form)
        if not has_offset:
            us[ok], exists, again[ok] = local_to_utc(us[ok], zone)
            skipped[ok] = ~exists
    if not ok.all():
        us[~ok], exists, skipped[~ok], again[~ok] = parse_times(column.filter(pa.array(~ok)), zone)
        ok[~ok] = exists | skipped[~ok]
    return us, None if ok.all() else ok, ~skipped if skipped.any() else None, again if again.any() else None


def _numbers_as_times(column: pa.Array, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Convert numbers as strings, since 1970 in a unit, exactly; return microseconds and which are numbers."""
    column = pc.utf8_trim_whitespace(column)
    us = np.zeros(len(column), np.int64)
    whole = pc.match_substring_regex(column, _WHOLE).fill_null(False).to_numpy(zero_copy_only=False)
    us[whole] = to_microseconds(column.filter(pa.array(whole)).cast(pa.int64()).to_numpy(), unit)
    if whole.all():
        return us, whole
    parts = pc.extract_regex(column, _FRACTIONAL)
    fractional = parts.is_valid().to_numpy(zero_copy_only=False)
    parts = parts.drop_null()
    millionths = pc.utf8_rpad(parts.field("digits"), 6, "0").cast(pa.int64()).to_numpy()
    finer = {"s": millionths, "ms": millionths // 1_000}.get(unit, 0)
    us[fractional] = to_microseconds(parts.field("whole").cast(pa.int64()).to_numpy(), unit) + finer
    ok = whole | fractional
    rest = np.flatnonzero(~ok)  # negative fractions, powers of ten, more than 18 digits, and other texts
    for i, text in zip(rest.tolist(), column.take(pa.array(rest)).to_pylist(), strict=True):
        if text is not None and _is_number(text):
            us[i] = floor_time(Fraction(Decimal(text)) * UNIT_US[unit])
            ok[i] = True
    return us, ok


def _count_units(column: pa.Array | pa.ChunkedArray) -> Counter[str]:
    """Count the plausible times in each unit of a column of numbers, or of numbers as text."""
    values, _ = _numbers(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    return count_units(values)


def _is_bytes(kind: pa.DataType) -> bool:
    """Say whether a type is bytes."""
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)


def _shown(column: pa.Array) -> str:
    """Return values as a text for people, even where Python has no such values, as for times beyond the year 9999."""
    return " ".join(_decoded(column).to_string().strip("[]\n ").split())


def _decoded(column: pa.Array) -> pa.Array:
    """Return a column without its dictionary."""
    return column.dictionary_decode() if pt.is_dictionary(column.type) else column
