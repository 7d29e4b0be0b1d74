"""Read files of one JSON object a line: values by their keys, block by block, however odd single lines are."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json

from trafficcast.records.readers.delimited import _NEWLINE, _text_blocks
from trafficcast.records.readers.nested_columns import _leaf, _nested_schema, _value
from trafficcast.records.sources import Source


def _json_tables(source: Source, keys: dict[str, str], types: dict[str, pa.DataType]) -> Iterator[tuple[pa.Table, int]]:
    """Yield the values of `keys`, block by block, and the number of lines of each block that are no objects.

    Columns have the names of `keys`, and `types` in the blocks where every value can be read so; in others they are
    text.
    """
    of_keys = {key: types[name] for name, key in keys.items()}
    schema = _nested_schema(of_keys)
    for block in _text_blocks(source):
        lines = _json_rows(block)
        if not lines:
            continue
        table, bad = _parse_json(block, len(lines), schema) or _parse_objects(lines, of_keys)
        yield pa.table([_leaf(table, key) for key in keys.values()], [*keys]), bad


def _parse_json(block: bytes, rows: int, schema: pa.Schema | None) -> tuple[pa.Table, int] | None:
    """Read a block by Arrow; return None where a value is not of its type, or a line is no object."""
    if schema is None:
        return None
    try:
        table = arrow_json.read_json(
            io.BytesIO(block.removeprefix(codecs.BOM_UTF8)),
            arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        table.validate(full=True)  # that text is UTF-8
    except pa.ArrowInvalid:
        return None
    return (table, 0) if table.num_rows == rows else None


def _parse_objects(lines: list[bytes], keys: Iterable[str]) -> tuple[pa.Table, int]:
    """Read a block line by line, to text."""
    objects = [found for line in lines if (found := _json_object(line)) is not None]
    columns = {key: pa.array([_as_text(_value(found, key)) for found in objects], pa.string()) for key in keys}
    return pa.table(columns), len(lines) - len(objects)


def _json_rows(text: bytes) -> list[bytes]:
    """Return the lines of a text that are not blank."""
    return [line for line in _NEWLINE.split(text.removeprefix(codecs.BOM_UTF8)) if line.strip()]


def _json_object(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line; None where it has none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _as_text(value: Any) -> str | None:
    """Return a plain value as text, without halves of surrogate pairs; None for other values."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bool | list):
        return str(value)
    return repr(value) if isinstance(value, int | float) else None
