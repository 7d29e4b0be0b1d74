"""Tables - CSV, Parquet, JSON lines - whose columns the feed names, or that have usual names.

A file is read in parts, so that memory does not grow with it. Text is first read as the types of its first rows; a part
in which that fails, perhaps for a single value, is read again as text, which `cell_values` converts value by value.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers.cell_values import (
    _decoded,
    _indices,
    _is_number,
    _is_text,
    _shown,
    _texts,
    _to_batch,
)
from trafficcast.records.readers.columns import (
    _DATES,
    _OCCUPIED,
    _TIMES,
    _TRIP_ID,
    _find_columns,
    _has_usual_columns,
    _Layout,
    _named,
)
from trafficcast.records.readers.combined_columns import _combined, _with_dates_that_count
from trafficcast.records.readers.delimited import (
    _HEAD_BYTES,
    _LINE_BYTES,
    _NEWLINE,
    _SAMPLE_ROWS,
    _csv_dialect,
    _csv_tables,
    _Dialect,
    _is_binary,
    _without_header,
)
from trafficcast.records.readers.first_records import _check_first_records
from trafficcast.records.readers.json_lines import (
    _begin_of_array,
    _first_objects,
    _json_object,
    _json_rows,
    _json_tables,
)
from trafficcast.records.readers.nested_columns import _leaf, _leaves, _names_of_values, _value
from trafficcast.records.readers.parquet_pages import _BATCH_BYTES, _batch_rows
from trafficcast.records.readers.time_columns import _mostly_numbers, _time_forms
from trafficcast.records.records import Batch
from trafficcast.records.repeated_hours import RepeatedHours
from trafficcast.records.sources import PARQUET, Source, reading

_WITH_OFFSET = re.compile(r".*\d(Z|[+-]\d\d:?\d\d)\s*")
_WITH_COMMA = re.compile(r"\s*[+-]?\d{1,3},\d+\s*")
_NANOSECONDS = re.compile(r".*\.\d{7,9}\s*(Z|[+-]\d\d:?\d\d)?\s*")
_Row = tuple[int, dict[str, str]]  # the number of a line or row, and its values by field as the file has them
_TIME_FIELDS = {*_DATES, *_DATES.values()}
_SHOWN = 100  # characters of a bad row
_BUFFER_BYTES = 1 << 20
_WITHHELD_RECORDS = 8_000_000  # by RepeatedHours


def _recognise_csv(source: Source, head: bytes) -> bool:
    """Say whether a text has a header of usual names, or rows of three or more fields with two numbers."""
    if _is_binary(head) or head.startswith(PARQUET) or head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"["):
        return False
    dialect = _csv_dialect(head)
    if _has_usual_columns([*dialect.names, *dict(source.in_path)]):
        return True
    alike = [row for row in dialect.sample if dialect.fits(row) and sum(map(_is_number, row)) >= 2]
    return len(dialect.names) >= 3 and len(alike) > len(dialect.sample) // 2


def _read_csv(source: Source, city: City, month_first: bool = False) -> Iterator[Batch]:
    """Read a CSV file with a header, or without one where the feed names columns by position, "0" the first.

    `month_first` tells that dates such as 3/5/2024 have the month first.

    Raises InputError where it cannot be read, columns are not found, or no row is a record.
    """
    dialect, layout = _csv_layout(source, city)
    yield from _read_csv_columns(source, city, dialect, layout, month_first)


def _csv_layout(source: Source, city: City) -> tuple[_Dialect, _Layout]:
    """Return how a CSV file is written and where its columns are; raise InputError where they are not found."""
    dialect = _csv_dialect(_text_head(source), _named(city).values())
    if _positions_are_named(city, dialect.names):
        dialect = _without_header(dialect)
    try:
        return dialect, _find_columns(dialect.names, city, source)
    except InputError as error:
        if not any(map(_is_number, dialect.names)):
            raise
        raise InputError(f'{error}; where there is no header, name columns by position, "0" the first') from None


def _first_rows_of_csv(source: Source, city: City) -> list[_Row]:
    """Return some rows of a CSV file."""
    return _rows_of_sample(*_csv_layout(source, city))


def _rows_of_sample(dialect: _Dialect, layout: _Layout) -> list[_Row]:
    """Return the rows of a dialect's sample by field, with the numbers of their lines."""
    rows = zip(dialect.lines, dialect.sample, strict=True)
    return [(n, {field: row[i] for field, i in layout.columns.items() if i < len(row)}) for n, row in rows]


def _first_rows_of_parquet(source: Source, city: City) -> list[_Row]:
    """Return some rows of a Parquet file."""
    with _parquet(source) as file:
        leaves = file.leaves()
        layout = _find_columns([leaf.name for leaf in leaves], city, source)
        names = {field: leaves[i].name for field, i in layout.columns.items()}
        part = next(file.parts(names.values()), None)
        if part is None:
            return []
        part = part.slice(0, _SAMPLE_ROWS)
        columns = {field: _leaf(part, name) for field, name in names.items()}
        return [
            (i + 1, {field: _shown(column.slice(i, 1)).strip('"') for field, column in columns.items()})
            for i in range(len(part))
        ]


def _first_rows_of_jsonl(source: Source, city: City) -> list[_Row]:
    """Return some lines of a file of JSON objects."""
    rows = [(i + 1, _json_object(line)) for i, line in enumerate(_first_objects(source, _SAMPLE_ROWS))]
    objects = [(n, found) for n, found in rows if found is not None]
    names = list(dict.fromkeys(name for _, found in objects for name in _names_of_values(found)))
    layout = _find_columns(names, city, source)
    keys = {field: names[i] for field, i in layout.columns.items()}
    return [(n, {field: str(_value(found, key)) for field, key in keys.items()}) for n, found in objects]


def _text_head(source: Source) -> bytes:
    """Return the first bytes of a text; raise InputError where they are binary."""
    head = source.head(_HEAD_BYTES)
    if _is_binary(head):
        raise InputError(
            f"{source.path} is no text: it is binary, or UTF-16 without a byte order mark, for which set "
            f'encoding = "utf-16-le" under [cities.NAME.feed]'
        )
    return head


def _read_csv_columns(
    source: Source, city: City, dialect: _Dialect, layout: _Layout, month_first: bool = False
) -> Iterator[Batch]:
    """Read records from columns of a CSV file.

    Raises InputError where it cannot be read or no row is a record.
    """
    samples = {field: [row[i] for row in dialect.sample if i < len(row)] for field, i in layout.columns.items()}
    samples |= _values_in_path(layout, len(dialect.sample))
    layout = _with_dates_that_count(layout, samples, _named(city))
    samples = {field: samples[field] for field in (*layout.columns, *layout.in_path)}
    types = {field: _type_of_text(field, texts) for field, texts in samples.items()} | _types_of_places(layout)
    if any(_have_commas(texts) for field, texts in samples.items() if types[field] == pa.float64()):
        dialect = replace(dialect, decimal=",")

    def tables(fields: Iterable[str]) -> Iterator[tuple[Mapping[str, pa.Array], int]]:
        own = {field: i for field, i in layout.columns.items() if field in fields} or dict(
            [[*layout.columns.items()][0]]
        )
        for table, bad in _csv_tables(source, dialect, own, types):
            yield dict(zip(own, table.columns, strict=True)) | _columns_in_path(layout, len(table)), bad

    forms = _time_forms(source.path, city, samples, tables, month_first)
    types |= _types_of_times(layout, forms)
    batches = _batches(layout, city, source.path, tables([*layout.columns]), forms, dialect.notes())
    yield from _refuse_without_record(batches, partial(_csv_error, source, dialect))


def _batches(
    layout: _Layout,
    city: City,
    path: str,
    tables: Iterator[tuple[Mapping[str, pa.Array], int]],
    forms: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Iterator[Batch]:
    """Yield the batches of a file's columns, which come in parts with the number of bad rows of each.

    Raises InputError where the first records show that a column was guessed wrongly.
    """
    zone, first = _time_zone(city), True
    hours = RepeatedHours(zone, city.max_gap_us)
    for columns, bad in tables:
        fields = _combined(columns, layout.places())
        batch = _to_batch(layout.kind, fields, zone, forms, bad, notes, city.feed.occupied_values)
        if first and layout.names:
            batch = replace(batch, columns={field: layout.names[i] for field, i in layout.columns.items()})
            batch = replace(batch, notes=(*batch.notes, *_check_first_records(path, batch, fields, layout, city)))
        first = False
        yield hours.withhold(batch)
        if hours.withheld > _WITHHELD_RECORDS:
            raise InputError(
                f"{path} has more than {_WITHHELD_RECORDS:,} records within hours of the time when clocks are set "
                "back, which have to be told apart in memory: split it, or write times in UTC"
            )
    if (rest := hours.told_apart()) is not None:
        yield rest


def _values_in_path(layout: _Layout, rows: int) -> dict[str, list[str]]:
    """Return the values that the path has, as many times as there are rows."""
    return {field: [value] * rows for field, value in layout.in_path.items()}


def _columns_in_path(layout: _Layout, rows: int) -> dict[str, pa.Array]:
    """Return the values that the path has as columns."""
    return {field: pa.repeat(pa.scalar(value, pa.string()), rows) for field, value in layout.in_path.items()}


def _types_of_places(layout: _Layout) -> dict[str, pa.DataType]:
    """Return the types of columns that hold both longitude and latitude, which are text."""
    return dict.fromkeys([field for pair in layout.places() for field in pair], pa.string())


def _types_of_times(layout: _Layout, forms: Mapping[str, str]) -> dict[str, pa.DataType]:
    """Return the types of columns that have to be text: times of a format, and dates and the clocks beside them."""
    of_format = {field for field, form in forms.items() if "%" in form}
    dated = {*layout.columns, *layout.in_path}
    beside = {name for pair in _DATES.items() if pair[1] in dated for name in pair}
    return dict.fromkeys(of_format | beside, pa.string())


def _refuse_without_record(batches: Iterable[Batch], error: Callable[[], InputError]) -> Iterator[Batch]:
    """Yield the batches of a file; then raise the error where it has rows and all of them were unparsable."""
    rows = unparsable = 0
    for batch in batches:
        rows += batch.rows
        unparsable += batch.dropped["unparsable"]
        yield batch
    if rows and rows == unparsable:
        raise error()


def _csv_error(source: Source, dialect: _Dialect) -> InputError:
    """Return the error of a CSV file without a record, with its first row."""
    head = source.head(_HEAD_BYTES)
    lines = _NEWLINE.split(head[dialect.start :])
    blank = next((i for i, line in enumerate(lines) if line.strip()), 0)
    number = len(_NEWLINE.split(head[: dialect.start])) + blank
    return _no_record(source, number, lines[blank].decode("utf-8", "backslashreplace"))


def _no_record(source: Source, number: int, line: str) -> InputError:
    """Return the error of a file without a record, with one of its rows."""
    return InputError(
        f"{source.path}: not one row is a record; line {number} is {line[:_SHOWN]!r}{'...' if line[_SHOWN:] else ''}: "
        "check the format, and under [cities.NAME.feed.columns] which columns hold what"
    )


def _positions_are_named(city: City, header: Sequence[str]) -> bool:
    """Say whether the feed names columns by position, and the first row is not a header of just such names."""
    named = [name for _, name in city.feed.columns if name is not None]
    if not named or not all(re.fullmatch(r"[0-9]{1,4}", name) for name in named):
        return False
    return not all(header[int(name) : int(name) + 1] == [name] for name in named)


def _type_of_text(field: str, texts: Sequence[str]) -> pa.DataType:
    """Return the type to try first on a column of text, by some of its values; text where none is quicker."""
    if field == "vehicle":
        return pa.dictionary(pa.int32(), pa.string())
    if field == _OCCUPIED:
        return pa.int8() if all(text.strip() in ("0", "1") for text in texts) else pa.string()
    if field == _TRIP_ID or field in _DATES.values():
        return pa.string()
    if field not in _TIMES:
        return pa.float64()
    if _mostly_numbers(texts):
        return pa.int64() if all(text.strip().isdecimal() for text in texts) else pa.string()
    first = next((text for text in texts if text.strip()), "")
    return pa.timestamp("ns" if _NANOSECONDS.match(first) else "us", "UTC" if _WITH_OFFSET.match(first) else None)


def _have_commas(texts: Sequence[str]) -> bool:
    """Say whether most of some degrees are written with a comma before their decimals."""
    return sum(map(bool, map(_WITH_COMMA.fullmatch, texts))) > len(texts) / 2


def _time_zone(city: City) -> ZoneInfo:
    """Return the zone of times without an offset."""
    return ZoneInfo(city.feed.timezone or city.timezone)


def _recognise_parquet(source: Source, head: bytes) -> bool:
    """Say whether a file begins as Parquet does."""
    return head.startswith(PARQUET)


def _read_parquet(source: Source, city: City, month_first: bool = False) -> Iterator[Batch]:
    """Read the needed columns of a Parquet file.

    Raises InputError where it cannot be read, columns are not found or have an unsuitable type, or no row is a record.
    """
    with _parquet(source) as file:
        leaves = file.leaves()
        layout = _find_columns([leaf.name for leaf in leaves], city, source)
        columns = {field: leaves[i] for field, i in layout.columns.items()}
        times = {field: column for field, column in columns.items() if field in _TIME_FIELDS}
        samples = {field: _some_values(file, column) for field, column in times.items()}
        samples |= _values_in_path(layout, _SAMPLE_ROWS)
        layout = _with_dates_that_count(layout, samples, _named(city))
        samples = {field: samples[field] for field in samples if field in layout.columns or field in layout.in_path}
        for field in layout.columns:
            _check_type(source, field, columns[field], layout)

        def tables(fields: Iterable[str]) -> Iterator[tuple[Mapping[str, pa.Array], int]]:
            own = [field for field in layout.columns if field in fields] or [*layout.columns][:1]
            for part in file.parts([columns[field].name for field in own]):
                found = {field: _leaf(part, columns[field].name) for field in own}
                yield found | _columns_in_path(layout, len(part)), 0

        def error() -> InputError:
            first = {field: _shown(column.slice(0, 1)) for field, column in next(tables(layout.columns))[0].items()}
            return _no_record(source, 1, str(first))

        forms = _time_forms(source.path, city, samples, tables, month_first)
        batches = _batches(layout, city, source.path, tables(layout.columns), forms)
        yield from _refuse_without_record(batches, error)


def _parquet_names(source: Source) -> list[str]:
    """Return the names of a Parquet file's columns; raise InputError where it cannot be read."""
    with _parquet(source) as file:
        return [leaf.name for leaf in file.leaves()]


class _Parquet:
    """A Parquet file whose text is read with its dictionary; errors of Arrow are raised where it is damaged."""

    def __init__(self, source: Source, raw: BinaryIO) -> None:
        self._source, self._raw = source, raw
        raw.seek(0)
        metadata = pq.read_metadata(raw)
        text = [field.name for field in metadata.schema.to_arrow_schema() if _is_text(field.type)]
        raw.seek(0)
        options: Any = {"read_dictionary": text, "pre_buffer": False, "buffer_size": _BUFFER_BYTES}
        self._file = pq.ParquetFile(raw, metadata=metadata, **options)

    def leaves(self) -> list[pa.Field]:
        """Return the fields that hold values, under their dotted names."""
        return [*_leaves(self._file.schema_arrow)]

    def parts(self, columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
        """Yield columns in parts that fit in memory, also as text without a dictionary.

        Raises InputError where they cannot.
        """
        names, path, unpacked = list(dict.fromkeys(columns)), self._source.path, 0
        rows = _batch_rows(path, self._raw, self._file.metadata, names)
        for part in self._file.iter_batches(rows, columns=names, use_threads=False):
            sizes = np.sum([_value_bytes(_leaf(part, name)) for name in names], axis=0)
            unpacked += int(sizes.sum())
            self._source.refuse_unpacked(unpacked)
            if len(part) and sizes.max() > _LINE_BYTES:
                raise InputError(f"{path} has a row of more than {_LINE_BYTES >> 20} MB")
            begin = 0
            while begin < len(part):
                n = max(1, int(np.searchsorted(np.cumsum(sizes[begin:]), _BATCH_BYTES, "right")))
                yield part.slice(begin, n)
                begin += n


@contextmanager
def _parquet(source: Source) -> Iterator[_Parquet]:
    """Yield a Parquet file."""
    with reading(source.path), source.open_raw() as raw:
        if raw.read(len(PARQUET)) == PARQUET:
            yield _Parquet(source, raw)
        else:  # compressed as a whole
            with source.open_unpacked() as unpacked:
                yield _Parquet(source, unpacked)


def _value_bytes(column: pa.Array) -> np.ndarray:
    """Return how many bytes each value of a column takes when it is written out, (row), about."""
    values = column.dictionary if pt.is_dictionary(column.type) else column
    if not _is_text(values.type):
        return np.full(len(column), max(1, values.nbytes // max(1, len(values))))
    if pt.is_string_view(values.type) or pt.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
    lengths = pc.binary_length(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64) + 8
    return np.append(lengths, 0)[_indices(column, len(lengths))] if pt.is_dictionary(column.type) else lengths


def _check_type(source: Source, field: str, column: pa.Field, layout: _Layout) -> None:
    """Raise InputError where a column's type cannot be that of its field."""
    kind = _cell_type(column)
    may_be = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or _is_text(kind) or pt.is_null(kind)
    if field in _TIME_FIELDS:
        is_clock = pt.is_time(kind) and _DATES.get(field) in {*layout.columns, *layout.in_path}
        may_be = may_be or pt.is_timestamp(kind) or pt.is_date(kind) or is_clock
    if any(field in pair for pair in layout.places()):
        may_be = _is_text(kind) or pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    if not may_be and not (field == _OCCUPIED and pt.is_boolean(kind)):
        raise InputError(f"{source.path}: column '{column.name}' is of type {column.type}, which cannot be the {field}")


def _some_values(file: _Parquet, column: pa.Field) -> list[str]:
    """Return some values of a column as text; none of timestamps, which are times as they are."""
    if pt.is_timestamp(column.type) or (part := next(file.parts([column.name]), None)) is None:
        return []
    values = _decoded(_leaf(part, column.name).slice(0, _SAMPLE_ROWS)).drop_null()
    return (_texts(values) if _is_text(values.type) else values.cast(pa.string())).to_pylist()


def _cell_type(column: pa.Field) -> pa.DataType:
    """Return the type of a column's values."""
    return column.type.value_type if pt.is_dictionary(column.type) else column.type


def _recognise_jsonl(source: Source, head: bytes) -> bool:
    """Say whether the first object has three or more plain values, also inside of others, two of them numbers."""
    begin = _begin_of_array(head)
    first: Any = None
    if begin is not None:
        try:
            first, _ = json.JSONDecoder().raw_decode(head[begin:].decode("utf-8", "backslashreplace"))
        except (ValueError, RecursionError):
            return False
    elif lines := _json_rows(head):
        first = _json_object(lines[0])
    names = [*_names_of_values(first or {}), *dict(source.in_path)]
    found = [_value(first, name) for name in names]
    values = [part for value in found for part in (value if isinstance(value, list) else [value])]
    plain = [str(value) for value in values if isinstance(value, str | int | float)]
    return _has_usual_columns(names) or (len(plain) >= 3 and sum(map(_is_number, plain)) >= 2)


def _read_jsonl(source: Source, city: City) -> Iterator[Batch]:
    """Read a file of JSON objects, one a line or in an array.

    Raises InputError where it cannot be read, keys are not found, or no line is a record.
    """
    _text_head(source)
    lines = _first_objects(source, _SAMPLE_ROWS)
    objects = [found for line in lines if (found := _json_object(line)) is not None]
    names = list(dict.fromkeys(name for found in objects for name in _names_of_values(found)))
    if not names:
        raise InputError(f"{source.path} has no JSON lines: none of its first lines is an object such as {{...}}")
    layout = _find_columns(names, city, source)
    keys = {field: names[i] for field, i in layout.columns.items()}
    samples = {
        field: [value for found in objects if (value := _value(found, key)) is not None] for field, key in keys.items()
    }
    types = {field: _type_of_json(field, values) for field, values in samples.items()}
    samples |= _values_in_path(layout, len(objects))
    layout = _with_dates_that_count(layout, {field: [*map(str, v)] for field, v in samples.items()}, _named(city))
    keys = {field: keys[field] for field in layout.columns}

    def tables(fields: Iterable[str]) -> Iterator[tuple[Mapping[str, pa.Array], int]]:
        own = {field: key for field, key in keys.items() if field in fields} or dict([[*keys.items()][0]])
        for table, bad in _json_tables(source, own, types):
            yield dict(zip(own, table.columns, strict=True)) | _columns_in_path(layout, len(table)), bad

    samples = {field: samples[field] for field in (*layout.columns, *layout.in_path)}
    forms = _time_forms(source.path, city, samples, tables)
    types |= _types_of_times(layout, forms)
    batches = _batches(layout, city, source.path, tables(keys), forms)
    text = lines[0].decode("utf-8", "backslashreplace")
    yield from _refuse_without_record(batches, lambda: _no_record(source, 1, text))


def _type_of_json(field: str, values: Sequence[Any]) -> pa.DataType:
    """Return the type to try first on a key's values, by some of them."""
    kinds = {type(value) for value in values}
    if kinds == {list}:
        return pa.list_(pa.float64())
    if field == _OCCUPIED and kinds == {bool}:
        return pa.bool_()
    if kinds == {int} and not field.endswith(("lon", "lat")):
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} and field not in ("vehicle", _TRIP_ID) else pa.string()
