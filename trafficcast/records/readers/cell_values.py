"""Cells of a table -> records: what vehicles, times, places and flags stand for, and a batch made of them.

Cells come as Arrow arrays of whatever type a file has. A function here returns, beside the values, a mask of the
cells that are what they should be, or None where all are: that is the usual case, and costs nothing further on.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from decimal import Decimal
from fractions import Fraction
from math import floor, isfinite

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from trafficcast.records.readers.columns import _OCCUPIED, _TIMES
from trafficcast.records.records import DAY_US, EARLIEST_US, SECOND_US, Batch, Points, Records
from trafficcast.records.timestamps import FAR_US, NAMES, UNITS, local_to_utc, parse_times, to_microseconds

_Mask = np.ndarray | None
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_WHOLE, _FRACTIONAL = r"^-?[0-9]{1,18}$", r"^(?P<whole>[0-9]{1,18})\.(?P<digits>[0-9]{0,6})[0-9]*$"
_FLAGS = dict.fromkeys(("true", "t", "yes", "y"), "1") | dict.fromkeys(("false", "f", "no", "n"), "0")
_A_UNIT_US = {"s": Fraction(10**6), "ms": Fraction(10**3), "us": Fraction(1), "ns": Fraction(1, 10**3)}
_EXACT = 2.0**53  # beyond it float64 skips whole numbers


def _to_batch(
    kind: type[Records],
    columns: Mapping[str, pa.Array | pa.ChunkedArray],
    zone: tzinfo,
    units: Mapping[str, str] | None = None,
    lost: int = 0,
) -> Batch:
    """Columns of one length, by their fields' names -> a batch of that kind.

    Naive times are local to `zone`; `units` has the unit (s, ms, us, ns) of every column of times that are numbers.
    `lost` rows were unparsable before they had columns. Rows with a cell missing or senseless are dropped.
    """
    units = units or {}
    values: dict[str, np.ndarray] = {}
    vehicles: list[str] = []
    masks: list[_Mask] = []
    masks_of_clocks: list[_Mask] = []
    for field, column in columns.items():
        cells = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if field == "vehicle":
            values[field], vehicles, ok = _vehicle_codes(cells)
            masks.append(ok)
        elif field in _TIMES:
            values[field], ok, exists = _times(cells, zone, units.get(field))
            masks.append(ok)
            masks_of_clocks.append(exists)
        elif field == _OCCUPIED:
            values[field] = _occupancy(cells)
        else:
            values[field], ok = _whole_numbers(cells) if field.endswith("zone") else _numbers(cells)
            masks.append(ok)
    n = len(next(iter(values.values())))
    if kind is Points:
        values.setdefault(_OCCUPIED, np.full(n, -1, np.int8))
    records = kind(**{field.removeprefix("pickup_"): array for field, array in values.items()})
    dropped: Counter[str] = Counter(unparsable=lost)
    parsed, exists = _all_of(masks), _all_of(masks_of_clocks)
    if parsed is not None or exists is not None:
        parsed = np.ones(n, np.bool_) if parsed is None else parsed
        keep = parsed if exists is None else parsed & exists
        dropped.update(unparsable=n - int(np.count_nonzero(parsed)), clock=int(np.count_nonzero(parsed & ~keep)))
        records = records.take(keep)
    notes = dict.fromkeys(f"times are in {NAMES[unit]}" for unit in units.values() if unit != "s")
    return Batch(records, n + lost, vehicles, +dropped, tuple(notes))


def _all_of(masks: Sequence[_Mask]) -> _Mask:
    """The mask of what is true in every mask; None where there is nothing to leave out."""
    real = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(real) if real else None


def _is_text(kind: pa.DataType) -> bool:
    """Whether cells of a type are text, whatever Arrow's name for it."""
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind) or _is_bytes(kind)


def _is_number(cell: str) -> bool:
    """Whether a text is a number as people write them."""
    return re.match(_NUMBER, cell.strip()) is not None


def _texts(cells: pa.Array) -> pa.Array:
    """Cells of text as strings; in what is no UTF-8 the odd bytes are written as `\\xff`, which loses nothing."""
    try:
        strings = cells if pt.is_string(cells.type) else cells.cast(pa.string())
        strings.validate(full=True)  # Parquet's strings may be no UTF-8, and nobody has looked
        return strings
    except pa.ArrowInvalid:
        odd = cells.cast(pa.binary()).to_pylist()
        return pa.array([cell and cell.decode("utf-8", "backslashreplace") for cell in odd], pa.string())


def _numbers(cells: pa.Array) -> tuple[np.ndarray, _Mask]:
    """Cells of any numeric type or of text -> float64, and which are finite numbers."""
    cells = _decoded(cells)
    if _is_text(cells.type):
        cells = _parse_numbers(_texts(cells))
    if not pt.is_float64(cells.type):
        cells = cells.cast(pa.float64(), safe=False)
    values = (cells.fill_null(np.nan) if cells.null_count else cells).to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):  # one cheap pass: what is not finite stays so in a sum
            return values, None
    finite = np.isfinite(values)
    return values, None if finite.all() else finite


def _parse_numbers(cells: pa.Array) -> pa.Array:
    """Strings -> float64, null where one is no number."""
    try:
        return cells.cast(pa.float64())
    except pa.ArrowInvalid:
        cells = pc.utf8_trim_whitespace(cells)
        cells = pc.if_else(pc.match_substring_regex(cells, _NUMBER), cells, pa.scalar(None, pa.string()))
        cells = pc.utf8_ltrim(cells, "+")
    try:
        return cells.cast(pa.float64())
    except pa.ArrowInvalid:  # such as 1e999
        return pa.array([None if cell is None else float(cell) for cell in cells.to_pylist()], pa.float64())


def _whole_numbers(cells: pa.Array) -> tuple[np.ndarray, _Mask]:
    """Cells of any numeric type or of text -> int64, and which are whole numbers."""
    cells = _decoded(cells)
    if pt.is_signed_integer(cells.type) and not cells.null_count:
        return cells.cast(pa.int64()).to_numpy(), None
    values, _ = _numbers(cells)
    whole = (np.abs(values) <= _EXACT) & (np.floor(values) == values)
    return np.where(whole, values, 0).astype(np.int64), None if whole.all() else whole


def _occupancy(cells: pa.Array) -> np.ndarray:
    """Cells of 0 and 1, counts, booleans, or yes and no -> int8: 1 occupied, 0 not, -1 null or senseless."""
    if pt.is_null(cells.type):
        return np.full(len(cells), -1, np.int8)
    if pt.is_boolean(cells.type):
        cells = cells.cast(pa.int8())
    if pt.is_int8(cells.type) and not cells.null_count:
        flags = cells.to_numpy()
        if len(flags) and flags.min() >= 0 and flags.max() <= 1:
            return flags
    if not _is_text(_decoded(cells).type):
        return _sign(_numbers(cells)[0])
    encoded = cells if pt.is_dictionary(cells.type) else cells.dictionary_encode()  # few words, many cells
    words = [_FLAGS.get((word or "").strip().lower(), word) for word in _texts(encoded.dictionary).to_pylist()]
    meaning = np.append(_sign(_numbers(pa.array(words, pa.string()))[0]), np.int8(-1))
    return meaning[_indices(encoded, len(words))]


def _sign(values: np.ndarray) -> np.ndarray:
    return np.where((values >= 0) & np.isfinite(values), values > 0, -1).astype(np.int8)


def _vehicle_codes(cells: pa.Array) -> tuple[np.ndarray, list[str], _Mask]:
    """Cells that name vehicles, text or numbers -> codes (int32), the names by code, and which cells have a name."""
    if not pt.is_dictionary(cells.type):
        cells = (_texts(cells) if _is_text(cells.type) else cells).dictionary_encode()
    codes: dict[str, int] = {}
    of_value = [codes.setdefault(name, len(codes)) if name else -1 for name in _names(cells.dictionary)]
    if len(codes) == len(of_value) and not cells.indices.null_count:  # the usual case: each value is another name
        return _indices(cells), list(codes), None
    found = np.array([*of_value, -1], np.int32)[_indices(cells, len(of_value))]
    named = found >= 0
    return found, list(codes), None if named.all() else named


def _names(values: pa.Array) -> list[str]:
    """Distinct values as vehicles' names, the empty string for what is none."""
    if _is_text(values.type):
        return [(name or "").strip() for name in _texts(values).to_pylist()]
    cells = values.to_pylist()
    if pt.is_floating(values.type) or pt.is_decimal(values.type):  # which whole numbers become where some are missing
        cells = [cell if cell is None or not isfinite(cell) or cell != int(cell) else int(cell) for cell in cells]
    return ["" if cell is None or (isinstance(cell, float) and not isfinite(cell)) else str(cell) for cell in cells]


def _indices(cells: pa.DictionaryArray, null: int = 0) -> np.ndarray:
    """Positions in a dictionary, int32, `null` for what is null."""
    indices = cells.indices.cast(pa.int32())
    return (indices.fill_null(null) if indices.null_count else indices).to_numpy()


def _times(cells: pa.Array, zone: tzinfo, unit: str | None = None) -> tuple[np.ndarray, _Mask, _Mask]:
    """Cells of times -> microseconds UTC, which cells are times, and which of these exist: the clocks skip some.

    Timestamps of any unit, dates (their midnight) and text; with a unit (s, ms, us, ns) numbers, as such or as text.
    What has neither zone nor offset is local to `zone`.
    """
    cells = _decoded(cells)
    if pt.is_decimal(cells.type):
        cells = cells.cast(pa.string())
    if _is_text(cells.type):
        return _times_of_text(_texts(cells), zone, unit)
    ok = cells.is_valid().to_numpy(zero_copy_only=False) if cells.null_count else None
    if pt.is_null(cells.type):
        return np.zeros(len(cells), np.int64), ok, None
    if pt.is_date(cells.type):
        cells = cells.cast(pa.timestamp("s" if pt.is_date32(cells.type) else "ms"))
    kind = cells.type
    if pt.is_timestamp(kind):
        unit, cells = kind.unit, cells.view(pa.int64())
    elif pt.is_uint64(kind):
        cells = pc.min_element_wise(cells, pa.scalar(2**63 - 1, pa.uint64()))
    cells = cells.cast(pa.float64() if pt.is_floating(kind) else pa.int64())
    values = (cells.fill_null(0) if cells.null_count else cells).to_numpy()
    if pt.is_floating(kind) and not np.isfinite(values).all():
        ok = _all_of([ok, np.isfinite(values)])
    us = values if unit == "us" and not pt.is_floating(kind) else to_microseconds(values, unit or "s")
    if not pt.is_timestamp(kind) or kind.tz is not None:
        return us, ok, None
    us, exists = local_to_utc(us, zone)
    return us, ok, None if exists.all() else exists


def _times_of_text(cells: pa.Array, zone: tzinfo, unit: str | None) -> tuple[np.ndarray, _Mask, _Mask]:
    if unit is not None:
        us, ok = _numbers_as_times(cells, unit)
        return us, None if ok.all() else ok, None
    us, exists, skipped = parse_times(cells, zone)
    ok = exists | skipped
    return us, None if ok.all() else ok, ~skipped if skipped.any() else None


def _numbers_as_times(cells: pa.Array, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as strings, since 1970 in a unit -> microseconds, digit for digit, and which cells are numbers."""
    cells = pc.utf8_trim_whitespace(cells)
    us = np.zeros(len(cells), np.int64)
    whole = pc.match_substring_regex(cells, _WHOLE).fill_null(False).to_numpy(zero_copy_only=False)
    us[whole] = to_microseconds(cells.filter(pa.array(whole)).cast(pa.int64()).to_numpy(), unit)
    if whole.all():
        return us, whole
    parts = pc.extract_regex(cells, _FRACTIONAL)
    fractional = parts.is_valid().to_numpy(zero_copy_only=False)
    parts = parts.drop_null()
    millionths = pc.utf8_rpad(parts.field("digits"), 6, "0").cast(pa.int64()).to_numpy()
    finer = {"s": millionths, "ms": millionths // 1_000}.get(unit, 0)
    us[fractional] = to_microseconds(parts.field("whole").cast(pa.int64()).to_numpy(), unit) + finer
    ok = whole | fractional
    rest = np.flatnonzero(~ok)  # negative fractions, powers of ten, more than 18 digits, and what is no number
    for i, cell in zip(rest.tolist(), cells.take(pa.array(rest)).to_pylist(), strict=True):
        if cell is not None and _is_number(cell):
            us[i] = min(max(floor(Fraction(Decimal(cell)) * _A_UNIT_US[unit]), -FAR_US), FAR_US)
            ok[i] = True
    return us, ok


def _count_units(cells: pa.Array | pa.ChunkedArray) -> Counter[str]:
    """Of cells that are numbers, or numbers as text: how many are a time from 2000 to a day from now in each unit."""
    values, _ = _numbers(cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells)
    latest = int(time.time()) * SECOND_US + DAY_US
    return Counter(
        {
            unit: int(np.count_nonzero((values >= EARLIEST_US / float(us)) & (values < latest / float(us))))
            for unit, us in _A_UNIT_US.items()
        }
    )


def _best_unit(counts: Counter[str]) -> str:
    """The unit in which most are times; seconds in a tie."""
    return max(UNITS, key=lambda unit: counts[unit])


def _is_bytes(kind: pa.DataType) -> bool:
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)


def _shown(cells: pa.Array) -> str:
    """Cells as a text for people, also those that Python has no value for, such as times beyond the year 9999."""
    return " ".join(_decoded(cells).to_string().strip("[]\n ").split())


def _decoded(cells: pa.Array) -> pa.Array:
    """Cells without their dictionary."""
    return cells.dictionary_decode() if pt.is_dictionary(cells.type) else cells
