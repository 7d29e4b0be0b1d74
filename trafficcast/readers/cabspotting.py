"""Cabspotting: one text file a cab, `new_<cab>.txt` or `.txt.gz`, each line `lat lon occupied unix_seconds`."""

from __future__ import annotations

import codecs
import gzip
import io
import math
import re
import zlib
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from trafficcast.errors import InputError
from trafficcast.points import SECOND_US, Batch, Points

FILE_NAME = re.compile(r"new_(.+)\.txt(\.gz)?")
COLUMNS = {"lat": pa.float64(), "lon": pa.float64(), "occupied": pa.float64(), "seconds": pa.int64()}
NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # lat, lon, occupied, microseconds
FAR_SECONDS = 9_000_000_000_000  # beyond any plausible date, and its microseconds still fit 64 bits


def find(path: Path) -> list[Path]:
    """The cabs' files at or below a path, sorted."""
    found = [path] if path.is_file() else sorted(path.rglob("new_*.txt*"))
    return [file for file in found if FILE_NAME.fullmatch(file.name) and not file.is_dir()]


def read(file: Path) -> Batch:
    """Read one cab's file. Raises InputError when it cannot be read or no row of it is a Cabspotting row."""
    name = FILE_NAME.fullmatch(file.name)
    if name is None:
        raise InputError(f"{file}: a Cabspotting file is named new_<cab>.txt or new_<cab>.txt.gz")
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if name[2] else data).removeprefix(codecs.BOM_UTF8)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {file}: {error}") from None
    try:
        columns, rows = _parse_table(text)
    except pa.ArrowInvalid:
        columns, rows = _parse_lines(text)
    lat, lon, occupied, time = columns
    keep = np.isfinite(lat) & np.isfinite(lon) & np.isfinite(occupied)
    if rows and not keep.any():
        raise InputError(f"{file} is not a Cabspotting file: no row reads 'latitude longitude occupied unix_seconds'")
    points = Points(np.zeros(len(time), np.int32), time, lon, lat, (occupied != 0).astype(np.int8))
    return Batch([name[1]], points.take(keep), rows, Counter(unparsable=rows - int(np.count_nonzero(keep))))


def _parse_table(text: bytes) -> tuple[Columns, int]:
    """The fast way. Raises ArrowInvalid for anything but three numbers and a whole one in every row."""
    if not text.strip():
        return _columns([]), 0
    if b"x" in text or b"X" in text:
        raise pa.ArrowInvalid("hexadecimal seconds, which Arrow would read")
    table = csv.read_csv(
        io.BytesIO(text),
        csv.ReadOptions(column_names=list(COLUMNS), use_threads=False),
        csv.ParseOptions(delimiter=" ", quote_char=False),
        csv.ConvertOptions(column_types=COLUMNS, null_values=[]),
    )
    lat, lon, occupied, seconds = (column.to_numpy() for column in table.columns)
    return (lat, lon, occupied, np.clip(seconds, -FAR_SECONDS, FAR_SECONDS) * SECOND_US), table.num_rows


def _parse_lines(text: bytes) -> tuple[Columns, int]:
    """The plain way, row by row, for files with rows to drop; blank lines are no rows."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    good = [row for row in rows if len(row) == 4 and all(NUMBER.fullmatch(word) for word in row)]
    return _columns(good), len(rows)


def _columns(rows: list[list[bytes]]) -> Columns:
    lat, lon, occupied = (np.array([float(row[i]) for row in rows], np.float64) for i in range(3))
    time = [_microseconds(row[3]) for row in rows]
    return lat, lon, occupied, np.array(time, np.int64)


def _microseconds(word: bytes) -> int:
    """Unix seconds as written -> whole microseconds, finer digits cut off."""
    seconds = min(max(Decimal(word.decode()), Decimal(-FAR_SECONDS)), Decimal(FAR_SECONDS))
    return math.floor(Fraction(seconds) * SECOND_US)  # a product of Decimals would be rounded to 28 digits
