"""Read CSV files: their dialect, and their columns block by block, however odd single rows are."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from trafficcast.errors import InputError
from trafficcast.records.readers.cell_values import _is_number
from trafficcast.records.readers.columns import _columns_of_name, _has_usual_columns
from trafficcast.records.sources import Source, reading

_BLOCK_BYTES = 1 << 23
_LINE_BYTES = 1 << 24  # longer lines are refused
_HEAD_BYTES = 1 << 16
_SAMPLE_ROWS = 100
_HEADER_ROWS = 25  # within these a header is looked for
_DELIMITERS = ",;\t|"
_DELIMITER_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's first line
_NEWLINE = re.compile(rb"\r\n|\n|\r")
_LINES_OF_A_ROW = 100
_TRIES = 3


@dataclass(frozen=True)
class _Dialect:
    """How a CSV file is written.

    These are the delimiter, the names of the columns, the bytes before the first row, some rows, the bytes before the
    header, the number of the header's line, those of the rows' lines, and the mark of decimals. Columns beyond the
    header, which are empty where lines end with delimiters, have no names.
    """

    delimiter: str
    names: list[str]
    start: int
    sample: list[list[str]]
    above: int = 0
    line: int = 1
    lines: tuple[int, ...] = ()
    decimal: str = "."

    @cached_property
    def width(self) -> int:
        """Return the number of columns up to the last one with a name."""
        return max((i + 1 for i, name in enumerate(self.names) if name), default=0)

    def fits(self, row: list[str]) -> bool:
        """Say whether a row has a field for each name, and only empty ones beyond them."""
        return len(row) >= self.width and not "".join(row[self.width :]).strip()

    def notes(self) -> list[str]:
        """Return what is unusual about the file, for the user."""
        above = [f"its header is line {self.line}"] if self.line > 1 else []
        return above + (["its decimals are written with a comma"] if self.decimal == "," else [])


def _is_binary(head: bytes) -> bool:
    """Say whether bytes are no text; a line of NUL bytes among others is damage, as after a power failure."""
    lines = [line for line in head.splitlines() if line]
    return b"\0" in head and sum(b"\0" in line for line in lines) > len(lines) / 5


def _csv_dialect(head: bytes, named: Collection[str] = ()) -> _Dialect:
    """Find the dialect of a CSV text by its first bytes: a header, and the delimiter that most rows agree on.

    The header is the first line that has the columns that the feed names, or else usual ones. Where no line has them,
    it is the first one that is no comment (`#`) and has about as many fields as the rows.
    """
    lines = head.splitlines(keepends=True)
    if len(lines) > 1 and len(head) >= 4096:
        lines.pop()  # it may have been cut
    text = [line.decode("utf-8", "backslashreplace") for line in lines]
    text[:1] = [line.removeprefix("\ufeff") for line in text[:1]]
    told = _DELIMITER_LINE.fullmatch(text[0]) if text else None
    top = next((i for i, line in enumerate(text) if i >= bool(told) and _is_row(line)), len(text))
    found = []
    for delimiter in told[1] if told else _DELIMITERS:
        rows = _rows(text, top, delimiter)
        header = _header([fields for _, _, fields in rows], named)
        begin, end, names = rows[header] if rows else (top, top, [])
        rows, names = rows[header + 1 :][:_SAMPLE_ROWS], [name.strip() for name in names]
        mark = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
        start, above = sum(map(len, lines[:end])), max(mark, sum(map(len, lines[:begin])))
        sample, ends = [fields for _, _, fields in rows], tuple(end for _, end, _ in rows)
        dialect = _Dialect(delimiter, names, start, sample, above, begin + 1, ends)
        widths = Counter(len(row) for row in dialect.sample if dialect.fits(row))
        width = max(widths, key=lambda width: widths[width], default=len(names))
        names.extend([""] * (width - len(names)))
        score = _is_header(names, named), widths.total() if len(names) > 1 else -1, len(names)
        found.append((score, dialect))
    return max(found, key=lambda one: one[0])[1]


def _without_header(dialect: _Dialect) -> _Dialect:
    """Return the dialect of a text whose first row is no header; its columns are named "0", "1", ..."""
    names = [str(i) for i in range(len(dialect.names))]
    sample, lines = [dialect.names, *dialect.sample], (dialect.line, *dialect.lines)
    return replace(dialect, names=names, start=dialect.above, sample=sample, lines=lines)


def _is_row(line: str) -> bool:
    """Say whether a line is neither blank nor a comment."""
    return bool(line.strip()) and not line.startswith("#")


def _rows(text: list[str], top: int, delimiter: str) -> list[tuple[int, int, list[str]]]:
    """Return the fields of some rows, each with the numbers of its first line and of the one after it.

    The comment before the rows is one of them where it is a header.
    """
    rows: list[tuple[int, int, list[str]]] = []
    if top and text[top - 1].startswith("#"):
        fields = next(csv.reader([text[top - 1].strip("# \r\n")], delimiter=delimiter), [])
        rows = [(top - 1, top, fields)] if _is_header(fields, []) else []
    reader = csv.reader(text[top:], delimiter=delimiter)
    begin = top
    try:
        while len(rows) < _SAMPLE_ROWS + _HEADER_ROWS:
            if fields := next(reader):
                rows.append((begin, top + reader.line_num, fields))
            begin = top + reader.line_num
    except (StopIteration, csv.Error):  # csv.Error: the rest is no CSV, which the reader reports
        pass
    return rows


def _header(rows: list[list[str]], named: Collection[str]) -> int:
    """Return the position of the header among rows, or of the first row with about as many fields as most."""
    filled = [sum(map(bool, map(str.strip, row))) for row in rows]
    usual = sorted(filled)[len(filled) // 2] if filled else 0
    found = (i for i, row in enumerate(rows[:_HEADER_ROWS]) if _is_header(row, named))
    return next(found, next((i for i, n in enumerate(filled[:_HEADER_ROWS]) if 2 * n >= usual), 0))


def _is_header(names: list[str], named: Collection[str]) -> bool:
    """Say whether names are those of a table's columns: they have those that are named, or else usual ones."""
    if named:
        return all(_columns_of_name(names, name) for name in named)
    return len(names) > 1 and not any(map(_is_number, names)) and _has_usual_columns(names)


def _csv_tables(
    source: Source, dialect: _Dialect, columns: dict[str, int], types: dict[str, pa.DataType] | None = None
) -> Iterator[tuple[pa.Table, int]]:
    """Yield columns of a CSV file, by their positions, block by block, and the number of bad rows of each block.

    Columns have the given names, and `types` in the blocks where every value can be read so; in others, and without
    types, they are text. Raises InputError where the file cannot be read.
    """
    typed = None if types is None else {str(i): types[name] for name, i in columns.items()}
    plain = {str(i): pa.string() for i in columns.values()}
    hexadecimal = typed is not None and pa.int64() in typed.values()  # Arrow would read hexadecimal numbers
    failures = 0
    for block in map(_as_utf8, _text_blocks(source, dialect.start, quotes=True)):
        found, damaged = None, 0
        if b"\0" in block:
            lines = [line for line in _NEWLINE.split(block) if line]
            whole = [line for line in lines if b"\0" not in line]
            block, damaged = b"\n".join([*whole, b""]), len(lines) - len(whole)
        if typed is not None and failures < _TRIES and not (hexadecimal and (b"0x" in block or b"0X" in block)):
            found = _parse(block, dialect, typed)
            failures = 0 if found else failures + 1
        found = found or _parse(block, dialect, plain)
        if found is None:
            mended, bad = _mend(block, dialect)
            with reading(source.path):
                table, more = _read(mended, dialect, plain)
            found = table, bad + more
        table, bad = found[0], found[1] + damaged
        if dialect.decimal == "," and types is not None:
            table = _with_points(table, {str(i) for name, i in columns.items() if types[name] == pa.float64()})
        yield table.select([str(i) for i in columns.values()]).rename_columns(list(columns)), bad


def _parse(block: bytes, dialect: _Dialect, types: dict[str, pa.DataType]) -> tuple[pa.Table, int] | None:
    """Read a block as `_read` does; return None where a value is not of its type, or unclosed quotes swallow lines."""
    try:
        table, bad = _read(block, dialect, types)
    except pa.ArrowInvalid:
        return None
    lost_lines = b'"' in block and table.num_rows + bad < len(_NEWLINE.findall(block))
    return None if lost_lines else (table, bad)


def _read(block: bytes, dialect: _Dialect, types: dict[str, pa.DataType]) -> tuple[pa.Table, int]:
    """Return the columns of these names (positions) and types, and the number of rows that do not fit."""
    odd: list[str] = []

    def set_aside(row: Any) -> str:
        odd.append(row.text)
        return "skip"

    if not block.strip(b"\r\n"):  # Arrow refuses it
        return pa.table({name: pa.array([], kind) for name, kind in types.items()}), 0
    names = [str(i) for i in range(len(dialect.names))]
    table = arrow_csv.read_csv(
        io.BytesIO(block),
        arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block) + 1),
        arrow_csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True, invalid_row_handler=set_aside),
        arrow_csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=[], decimal_point=dialect.decimal
        ),
    )
    rows = [row for text in odd if dialect.fits(row := _fields([text], dialect))]
    if rows:
        fitting = pa.table([pa.array([row[int(name)] for row in rows]) for name in types], list(types))
        table = pa.concat_tables([table, fitting.cast(table.schema)])
    return table, len(odd) - len(rows)


def _with_points(table: pa.Table, columns: set[str]) -> pa.Table:
    """Return a table in whose columns of text, of those given, decimals are written with a point."""
    for i, column in enumerate(table.schema):
        if column.name in columns and column.type == pa.string():
            table = table.set_column(i, column, pc.replace_substring(table.column(i), ",", "."))
    return table


def _as_utf8(block: bytes) -> bytes:
    r"""Return a text in which bytes that are no UTF-8 are written as `\xff`."""
    try:
        block.isascii() or block.decode()
    except UnicodeDecodeError:
        return block.decode("utf-8", "backslashreplace").encode()
    return block


def _mend(block: bytes, dialect: _Dialect) -> tuple[bytes, int]:
    """Return a block without the lines whose quotes make no row, alone or with lines after them, and their number."""
    lines = [line for line in _NEWLINE.split(block) if line]
    good: list[bytes] = []
    bad = i = 0
    while i < len(lines):
        end, quotes = i + 1, lines[i].count(b'"')
        has_quotes = quotes > 0
        while quotes % 2 and end < min(len(lines), i + _LINES_OF_A_ROW):
            quotes += lines[end].count(b'"')
            end += 1
        text = [line.decode() + "\n" for line in lines[i:end]] if has_quotes else []
        if has_quotes and not dialect.fits(_fields(text, dialect)):
            bad += 1
            i += 1
        else:
            good.append(b"\n".join(lines[i:end]))
            i = end
    return b"\n".join(good), bad


def _fields(lines: list[str], dialect: _Dialect) -> list[str]:
    """Return the fields of the one row that lines make; none where they make no row, or several."""
    try:
        rows = list(csv.reader(lines, delimiter=dialect.delimiter, strict=True))
    except csv.Error:
        return []
    return rows[0] if len(rows) == 1 else []


def _text_blocks(source: Source, start: int = 0, quotes: bool = False) -> Iterator[bytes]:
    """Yield a text from a byte on in blocks of whole lines, cut outside of quotes where possible.

    Raises InputError where it cannot be read, and for a line that is too long for a text.
    """
    with source.open() as stream:
        stream.read(start)
        rest = b""
        while more := stream.read(_BLOCK_BYTES):
            block = rest + more
            if not quotes and len(more) < _BLOCK_BYTES and len(block) <= _LINE_BYTES:  # the end of the text
                yield block
                return
            cut = last = _last_break(block, len(block))
            if quotes and block.count(b'"', 0, last) % 2:
                cut = _break_outside_quotes(block, last)
                if not cut and len(block) > 2 * _BLOCK_BYTES:  # the quote is probably never closed
                    cut = last
            if cut:
                yield block[:cut]
            rest = block[cut:]
            if len(rest) > _LINE_BYTES:
                raise InputError(f"{source.path} has a line of more than {_LINE_BYTES >> 20} MB: is it text?")
        if rest:
            yield rest


def _break_outside_quotes(block: bytes, last: int) -> int:
    """Return the end of a line, shortly before the `last`, before which quotes are even; 0 where there is none."""
    end = last
    for _ in range(_LINES_OF_A_ROW):
        end = _last_break(block, max(block.rfind(b'"', 0, end), 0))
        if block.count(b'"', 0, end) % 2 == 0:
            return end
    return 0


def _last_break(block: bytes, end: int) -> int:
    """Return the end of the last whole line before a position; 0 where there is none."""
    return max(block.rfind(b"\n", 0, end), block.rfind(b"\r", 0, end)) + 1
