"""Tables - CSV, Parquet, JSON lines - whose columns the feed names, or that have usual names.

A file is read in parts, so that memory does not grow with it. Text is first read as the types of its first rows; a part
in which that fails, perhaps for a single value, is read again as text, which `cell_values` converts value by value.
"""

from __future__ import annotations

import codecs
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers.cell_values import (
    _count_units,
    _decoded,
    _is_number,
    _is_text,
    _shown,
    _texts,
    _to_batch,
)
from trafficcast.records.readers.columns import _OCCUPIED, _TIMES, _find_columns, _has_usual_columns, _Layout
from trafficcast.records.readers.delimited import (
    _HEAD_BYTES,
    _NEWLINE,
    _SAMPLE_ROWS,
    _csv_dialect,
    _csv_tables,
    _Dialect,
    _without_header,
)
from trafficcast.records.readers.json_lines import _json_object, _json_rows, _json_tables
from trafficcast.records.records import Batch
from trafficcast.records.sources import SPOOL_BYTES, Source, reading
from trafficcast.records.timestamps import best_unit

_BATCH_ROWS = 250_000
_PARQUET = b"PAR1"
_WITH_OFFSET = re.compile(r".*\d(Z|[+-]\d\d:?\d\d)\s*")
_NANOSECONDS = re.compile(r".*\.\d{7,9}\s*(Z|[+-]\d\d:?\d\d)?\s*")
_SHOWN = 100  # characters of a bad row


def _recognise_csv(source: Source, head: bytes) -> bool:
    """Say whether a text has a header of usual names, or rows of three or more fields with two numbers."""
    if b"\0" in head or head.startswith(_PARQUET) or head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"["):
        return False
    dialect = _csv_dialect(head)
    if _has_usual_columns(dialect.names):
        return True
    alike = [row for row in dialect.sample if dialect.fits(row) and sum(map(_is_number, row)) >= 2]
    return len(dialect.names) >= 3 and len(alike) > len(dialect.sample) // 2


def _read_csv(source: Source, city: City) -> Iterator[Batch]:
    """Read a CSV file with a header, or without one where the feed names columns by position, "0" the first.

    Raises InputError where it cannot be read, columns are not found, or no row is a record.
    """
    head = _text_head(source)
    dialect = _csv_dialect(head)
    if _positions_are_named(city, dialect.names):
        dialect = _without_header(dialect, head)
    try:
        layout = _find_columns(dialect.names, city, source.path)
    except InputError as error:
        if not any(map(_is_number, dialect.names)):
            raise
        raise InputError(f'{error}; where there is no header, name columns by position, "0" the first') from None
    yield from _read_csv_columns(source, dialect, layout, _time_zone(city))


def _text_head(source: Source) -> bytes:
    """Return the first bytes of a text; raise InputError where they are binary."""
    head = source.head(_HEAD_BYTES)
    if b"\0" in head:
        raise InputError(f"{source.path} is no text: it is binary, or UTF-16, of which UTF-8 has to be made")
    return head


def _read_csv_columns(source: Source, dialect: _Dialect, layout: _Layout, zone: ZoneInfo) -> Iterator[Batch]:
    """Read records from columns of a CSV file.

    Raises InputError where it cannot be read or no row is a record.
    """
    columns = layout.columns
    samples = {field: [row[i] for row in dialect.sample if i < len(row)] for field, i in columns.items()}
    types = {field: _type_of_text(field, texts) for field, texts in samples.items()}
    epochs = {field: columns[field] for field in _TIMES if _mostly_numbers(samples.get(field, ()))}
    units = _units(epochs, (table for table, _ in _csv_tables(source, dialect, epochs, types)))
    batches = (
        _to_batch(layout.kind, dict(zip(columns, table.columns, strict=True)), zone, units, bad)
        for table, bad in _csv_tables(source, dialect, columns, types)
    )
    yield from _refuse_without_record(batches, partial(_csv_error, source, dialect))


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
    if field not in _TIMES:
        return pa.float64()
    if _mostly_numbers(texts):
        return pa.int64() if all(text.strip().isdecimal() for text in texts) else pa.string()
    first = next((text for text in texts if text.strip()), "")
    return pa.timestamp("ns" if _NANOSECONDS.match(first) else "us", "UTC" if _WITH_OFFSET.match(first) else None)


def _mostly_numbers(values: Iterable[Any]) -> bool:
    """Say whether most values, as text or not, are numbers; missing ones do not count."""
    texts = [text for value in values if value is not None and (text := str(value)).strip()]
    return sum(map(_is_number, texts)) > len(texts) / 2


def _units(fields: Iterable[str], tables: Iterable[pa.Table | pa.RecordBatch]) -> dict[str, str]:
    """Return the unit of each of these columns of numbers, which all tables have; without any, no table is read."""
    counts = {field: Counter[str]() for field in fields}
    for table in tables if counts else ():
        for field, count in counts.items():
            count.update(_count_units(table.column(field)))
    return {field: best_unit(count) for field, count in counts.items()}


def _time_zone(city: City) -> ZoneInfo:
    """Return the zone of times without an offset."""
    return ZoneInfo(city.feed.timezone or city.timezone)


def _recognise_parquet(source: Source, head: bytes) -> bool:
    """Say whether a file begins as Parquet does."""
    return head.startswith(_PARQUET)


def _read_parquet(source: Source, city: City) -> Iterator[Batch]:
    """Read the needed columns of a Parquet file.

    Raises InputError where it cannot be read, columns are not found or have an unsuitable type, or no row is a record.
    """
    with _parquet(source) as file:
        schema = file.schema_arrow
        layout = _find_columns(schema.names, city, source.path)
        columns = {field: schema.field(i) for field, i in layout.columns.items()}
        for field, column in columns.items():
            _check_type(source, field, column)
        epochs = {
            field: column.name for field, column in columns.items() if field in _TIMES and _are_epochs(file, column)
        }
        renamed = (part.select([*epochs.values()]).rename_columns([*epochs]) for part in _parts(file, epochs.values()))
        units = _units(epochs, renamed)

        def parts() -> Iterator[dict[str, pa.Array]]:
            for part in _parts(file, [column.name for column in columns.values()]):
                yield {field: part.column(column.name) for field, column in columns.items()}

        def error() -> InputError:
            first = {field: _shown(column.slice(0, 1)) for field, column in next(parts()).items()}
            return _no_record(source, 1, str(first))

        batches = (_to_batch(layout.kind, part, _time_zone(city), units) for part in parts())
        yield from _refuse_without_record(batches, error)


def _parquet_names(source: Source) -> list[str]:
    """Return the names of a Parquet file's columns; raise InputError where it cannot be read."""
    with _parquet(source) as file:
        return list(file.schema_arrow.names)


@contextmanager
def _parquet(source: Source) -> Iterator[pq.ParquetFile]:
    """Yield a Parquet file whose text is read with its dictionary."""
    with reading(source.path), source.open_raw() as raw, tempfile.SpooledTemporaryFile(SPOOL_BYTES) as unpacked:
        file: Any = raw
        if raw.read(len(_PARQUET)) != _PARQUET:  # compressed as a whole
            file = unpacked
            with source.open() as stream:
                shutil.copyfileobj(stream, file)
        file.seek(0)
        metadata = pq.read_metadata(file)
        text = [field.name for field in metadata.schema.to_arrow_schema() if _is_text(field.type)]
        file.seek(0)
        yield pq.ParquetFile(file, metadata=metadata, read_dictionary=text, pre_buffer=False)


def _parts(file: pq.ParquetFile, columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """Yield columns of a Parquet file in parts."""
    parts = file.iter_batches(_BATCH_ROWS, columns=list(dict.fromkeys(columns)), use_threads=False)
    return (part for part in parts if part.num_rows)


def _check_type(source: Source, field: str, column: pa.Field) -> None:
    """Raise InputError where a column's type cannot be that of its field."""
    kind = _cell_type(column)
    may_be = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or _is_text(kind) or pt.is_null(kind)
    if field in _TIMES:
        may_be = may_be or pt.is_timestamp(kind) or pt.is_date(kind)
    if not may_be and not (field == _OCCUPIED and pt.is_boolean(kind)):
        raise InputError(f"{source.path}: column '{column.name}' is of type {column.type}, which cannot be the {field}")


def _are_epochs(file: pq.ParquetFile, column: pa.Field) -> bool:
    """Say whether a column's times are numbers, as such or, by its first values, as text."""
    kind = _cell_type(column)
    if not _is_text(kind):
        return not (pt.is_timestamp(kind) or pt.is_date(kind) or pt.is_null(kind))
    part = next(_parts(file, [column.name]), None)
    return part is not None and _mostly_numbers(_texts(_decoded(part.column(0).slice(0, _SAMPLE_ROWS))).to_pylist())


def _cell_type(column: pa.Field) -> pa.DataType:
    """Return the type of a column's values."""
    return column.type.value_type if pt.is_dictionary(column.type) else column.type


def _recognise_jsonl(source: Source, head: bytes) -> bool:
    """Say whether the first line is a JSON object of three or more plain values, two of them numbers."""
    lines = _json_rows(head)
    values = [*((_json_object(lines[0]) if lines else None) or {}).values()]
    plain = [str(value) for value in values if isinstance(value, str | int | float)]
    return len(plain) >= 3 and sum(map(_is_number, plain)) >= 2


def _read_jsonl(source: Source, city: City) -> Iterator[Batch]:
    """Read a file of one JSON object a line.

    Raises InputError where it cannot be read, keys are not found, or no line is a record.
    """
    lines = _json_rows(_text_head(source))
    objects = [found for line in lines[:_SAMPLE_ROWS] if (found := _json_object(line)) is not None]
    names = list(dict.fromkeys(name for found in objects for name in found))
    if not names:
        raise InputError(f"{source.path} has no JSON lines: none of its first lines is an object such as {{...}}")
    layout = _find_columns(names, city, source.path)
    keys = {field: names[i] for field, i in layout.columns.items()}
    samples = {field: [found[key] for found in objects if found.get(key) is not None] for field, key in keys.items()}
    types = {field: _type_of_json(field, values) for field, values in samples.items()}
    epochs = {field: keys[field] for field in _TIMES if _mostly_numbers(samples.get(field, ()))}
    units = _units(epochs, (table for table, _ in _json_tables(source, epochs, types)))
    batches = (
        _to_batch(layout.kind, dict(zip(keys, table.columns, strict=True)), _time_zone(city), units, bad)
        for table, bad in _json_tables(source, keys, types)
    )
    text = lines[0].decode("utf-8", "backslashreplace")
    yield from _refuse_without_record(batches, lambda: _no_record(source, 1, text))


def _type_of_json(field: str, values: Sequence[Any]) -> pa.DataType:
    """Return the type to try first on a key's values, by some of them."""
    kinds = {type(value) for value in values}
    if field == _OCCUPIED and kinds == {bool}:
        return pa.bool_()
    if kinds == {int} and not field.endswith(("lon", "lat")):
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} and field != "vehicle" else pa.string()
