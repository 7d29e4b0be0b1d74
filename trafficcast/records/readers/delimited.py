"""Read CSV files: their dialect, and their columns block by block, however odd single rows are."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from trafficcast.errors import InputError
from trafficcast.records.sources import Source, reading

_BLOCK_BYTES = 1 << 23
_LINE_BYTES = 1 << 26  # longer lines are refused
_HEAD_BYTES = 1 << 16
_SAMPLE_ROWS = 100
_DELIMITERS = ",;\t|"
_NEWLINE = re.compile(rb"\r\n|\n|\r")
_LINES_OF_A_ROW = 100
_TRIES = 3


@dataclass(frozen=True)
class _Dialect:
    """How a CSV file is written: delimiter, names of the columns, bytes before the first row, and some rows.

    Columns beyond the header, which are empty where lines end with delimiters, have no names.
    """

    delimiter: str
    names: list[str]
    start: int
    sample: list[list[str]]

    def fits(self, row: list[str]) -> bool:
        """Say whether a row has a field for each name, and only empty ones beyond them."""
        named = max((i + 1 for i, name in enumerate(self.names) if name), default=0)
        return len(row) >= named and not "".join(row[named:]).strip()


def _csv_dialect(head: bytes) -> _Dialect:
    """Find the dialect of a CSV text by its first bytes: a header, and the delimiter that most rows agree on."""
    lines = head.splitlines(keepends=True)
    if len(lines) > 1 and len(head) >= 4096:
        lines.pop()  # it may have been cut
    text = [line.decode("utf-8", "backslashreplace") for line in lines]
    text[:1] = [line.removeprefix("\ufeff") for line in text[:1]]
    blank = next((i for i, line in enumerate(text) if line.strip()), len(text))
    found = []
    for delimiter in _DELIMITERS:
        names, header_lines, sample = _sample(text[blank:], delimiter)
        dialect = _Dialect(delimiter, names, sum(map(len, lines[: blank + header_lines])), sample)
        widths = Counter(len(row) for row in sample if dialect.fits(row))
        width = max(widths, key=lambda width: widths[width], default=len(names))
        names.extend([""] * (width - len(names)))
        found.append((widths.total() if len(names) > 1 else -1, len(names), dialect))
    return max(found, key=lambda one: one[:2])[2]


def _without_header(dialect: _Dialect, head: bytes) -> _Dialect:
    """Return the dialect of a text whose first row is no header; its columns are named "0", "1", ..."""
    start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    names = [str(i) for i in range(len(dialect.names))]
    return _Dialect(dialect.delimiter, names, start, [dialect.names, *dialect.sample])


def _sample(text: list[str], delimiter: str) -> tuple[list[str], int, list[list[str]]]:
    """Return the fields of the first row, the number of its lines, and some rows after it."""
    rows = csv.reader(text, delimiter=delimiter)
    names: list[str] = []
    sample: list[list[str]] = []
    header_lines = 0
    try:
        names = [name.strip() for name in next(rows, [])]
        header_lines = rows.line_num
        while len(sample) < _SAMPLE_ROWS:
            if row := next(rows):
                sample.append(row)
    except (StopIteration, csv.Error):  # csv.Error: the rest is no CSV, which the reader reports
        pass
    return names, header_lines, sample


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
        found = None
        if typed is not None and failures < _TRIES and not (hexadecimal and (b"0x" in block or b"0X" in block)):
            found = _parse(block, dialect, typed)
            failures = 0 if found else failures + 1
        found = found or _parse(block, dialect, plain)
        if found is None:
            mended, bad = _mend(block, dialect)
            with reading(source.path):
                table, more = _read(mended, dialect, plain)
            found = table, bad + more
        table, bad = found
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
        arrow_csv.ConvertOptions(column_types=types, include_columns=list(types), null_values=[]),
    )
    rows = [row for text in odd if dialect.fits(row := _fields([text], dialect))]
    if rows:
        fitting = pa.table([pa.array([row[int(name)] for row in rows]) for name in types], list(types))
        table = pa.concat_tables([table, fitting.cast(table.schema)])
    return table, len(odd) - len(rows)


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
