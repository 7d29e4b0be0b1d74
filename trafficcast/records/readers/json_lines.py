"""Read files of JSON objects: values by their keys, block by block, however odd single lines are.

A file has one object a line, or is a document whose first array of objects counts, element by element.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json

from trafficcast.errors import InputError
from trafficcast.records.readers.delimited import _BLOCK_BYTES, _NEWLINE, _text_blocks
from trafficcast.records.readers.nested_columns import _leaf, _nested_schema, _value
from trafficcast.records.sources import Source

_ARRAY = re.compile(rb"\[\s*\{")
_SEPARATORS = re.compile(r"[\s,]*")
_CHUNK = 1 << 20  # letters
_OBJECT_BYTES = 1 << 22  # larger ones are refused: in memory an object is up to twenty times as large


def _json_tables(source: Source, keys: dict[str, str], types: dict[str, pa.DataType]) -> Iterator[tuple[pa.Table, int]]:
    """Yield the values of `keys`, block by block, and the number of lines of each block that are no objects.

    Columns have the names of `keys`, and `types` in the blocks where every value can be read so; in others they are
    text.
    """
    of_keys = {key: types[name] for name, key in keys.items()}
    schema = _nested_schema(of_keys)
    for block in _blocks(source):
        lines = _json_rows(block)
        if not lines:
            continue
        table, bad = _parse_json(block, len(lines), schema) or _parse_objects(lines, of_keys)
        yield pa.table([_leaf(table, key) for key in keys.values()], [*keys]), bad


def _blocks(source: Source) -> Iterator[bytes]:
    """Yield the objects of a file, one a line, in blocks."""
    begin = _begin_of_array(source.head())
    if begin is None:
        yield from _text_blocks(source)
        return
    lines: list[str] = []
    size = 0
    for line in _elements(source, begin):
        lines.append(line)
        size += len(line)
        if size > _BLOCK_BYTES:
            yield "\n".join(lines).encode("utf-8", "backslashreplace")
            lines, size = [], 0
    yield "\n".join(lines).encode("utf-8", "backslashreplace")


def _begin_of_array(head: bytes) -> int | None:
    """Return where the elements of a document's array begin, bytes; None where a file has one object a line."""
    lines = _json_rows(head)
    if not lines or not lines[0].lstrip().startswith((b"{", b"[")):
        return None
    found = _ARRAY.search(head)
    whole = _json_object(lines[0])
    return found.end() - 1 if found and (whole is None or len(lines) == 1) else None


def _elements(source: Source, begin: int) -> Iterator[str]:
    """Yield the elements of an array that begins at a byte, each as one line; raise InputError where it has no end."""
    decoder, text, at = json.JSONDecoder(), "", 0
    with source.open() as raw, io.TextIOWrapper(raw, "utf-8", "backslashreplace") as stream:
        stream.buffer.read(begin)
        more = stream.read(_CHUNK)
        while True:
            text, at = text[at:] + more, 0
            while (found := _SEPARATORS.match(text, at)) and (at := found.end()) < len(text):
                if text[at] == "]":
                    return
                try:
                    _, end = decoder.raw_decode(text, at)
                except (ValueError, RecursionError):
                    break
                yield text[at:end].replace("\n", " ").replace("\r", " ")
                at = end
            begun = len(text) - at
            if begun >= _OBJECT_BYTES:
                raise InputError(
                    f"cannot read {source.path}: its array of JSON objects is damaged, or has an object of more than "
                    f"{_OBJECT_BYTES >> 20} MB"
                )
            more = stream.read(min(max(_CHUNK, begun), _OBJECT_BYTES - begun))  # a long one is not tried too often
            if not more:
                raise InputError(f"cannot read {source.path}: its array of JSON objects is damaged or has no end")


def _first_objects(source: Source, rows: int) -> list[bytes]:
    """Return the lines of a file's first objects."""
    begin = _begin_of_array(source.head())
    if begin is None:
        return _json_rows(source.head())[:rows]
    lines: list[bytes] = []
    for line in islice(_elements(source, begin), rows):
        lines.append(line.encode("utf-8", "backslashreplace"))
        if sum(map(len, lines)) > _CHUNK:
            break
    return lines


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
    values: dict[str, list[str | None]] = {key: [] for key in keys}
    bad = 0
    for line in lines:
        found = _json_object(line)
        bad += found is None
        if found is not None:
            for key, texts in values.items():
                texts.append(_as_text(_value(found, key)))
    return pa.table({key: pa.array(texts, pa.string()) for key, texts in values.items()}), bad


def _json_rows(text: bytes) -> list[bytes]:
    """Return the lines of a text that are not blank."""
    return [line for line in _NEWLINE.split(text.removeprefix(codecs.BOM_UTF8)) if line.strip()]


def _json_object(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line; None where it has none."""
    try:
        found = json.loads(line) if len(line) <= _OBJECT_BYTES else None
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
