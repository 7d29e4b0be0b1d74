"""Cabspotting: one text file a cab, `new_<cab>.txt`, each line `lat lon occupied unix_seconds`."""

from __future__ import annotations

import codecs
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
from pyarrow import csv

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers.delimited import _text_blocks
from trafficcast.records.records import Batch, Points
from trafficcast.records.sources import Source
from trafficcast.records.timestamps import NAMES, UNIT_US, epoch_unit, floor_time, to_microseconds

_FILE_NAME = re.compile(r"new_(.+)\.txt", re.DOTALL)
_COLUMNS = {"lat": pa.float64(), "lon": pa.float64(), "occupied": pa.float64(), "time": pa.int64()}
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # lat, lon, occupied, microseconds


def recognise(source: Source, head: bytes) -> bool:
    """Say whether a source has a cab's name, and a row of four numbers or damaged text.

    Parameters
    ----------
    source
        A file.
    head
        Its first bytes, decompressed.

    Returns
    -------
    bool
        True where the name is a cab's and the first bytes have a row of four numbers or are no text.
    """
    if not _FILE_NAME.fullmatch(source.stem):
        return False
    return b"\0" in head or any(_numbers(line) for line in head.removeprefix(codecs.BOM_UTF8).splitlines())


def read(source: Source, city: City) -> Iterator[Batch]:
    """Read one cab's file, of the usual size in one batch; its first part tells the unit of all times.

    Parameters
    ----------
    source
        A file of the format.
    city
        The city whose records they are.

    Yields
    ------
    Batch
        Records in parts of the file.

    Raises
    ------
    InputError
        The file cannot be read, or is not of the format.
    """
    name = _FILE_NAME.fullmatch(source.stem)
    if name is None:
        raise InputError(f"{source.path}: a Cabspotting file is named new_<cab>.txt, new_<cab>.txt.gz or .zst")
    unit, read, found = "", 0, 0
    for block in _text_blocks(source):
        text = block.removeprefix(codecs.BOM_UTF8)
        if not text.strip():
            continue
        try:
            (lat, lon, occupied, time), rows, of_block = _parse_table(text, unit)
        except pa.ArrowInvalid:
            (lat, lon, occupied, time), rows, of_block = _parse_lines(text, unit)
        unit = of_block if len(time) else unit
        read, found = read + rows, found + len(time)
        points = Points(np.zeros(len(time), np.int32), time, lon, lat, (occupied != 0).astype(np.int8))
        notes = (f"times are in {NAMES[unit]}",) if unit not in ("", "s") else ()
        yield Batch(points, rows, [name[1]], Counter(unparsable=rows - len(time)), notes)
    if read and not found:
        raise InputError(
            f"{source.path} is not a Cabspotting file: no row reads 'latitude longitude occupied unix_seconds'"
        )


def _first_rows(source: Source, city: City) -> list[tuple[int, dict[str, str]]]:
    """Return some rows of a file."""
    rows = enumerate(source.head().decode("utf-8", "backslashreplace").splitlines()[:100], 1)
    return [(number, dict(zip(_COLUMNS, line.split(), strict=False))) for number, line in rows if line.strip()]


def _parse_table(text: bytes, unit: str) -> tuple[_Columns, int, str]:
    """Read a text by Arrow; raise ArrowInvalid unless every row has three numbers and a whole one.

    The unit of times is found where it is empty.
    """
    if b"x" in text or b"X" in text:
        raise pa.ArrowInvalid("hexadecimal times, which Arrow would read")
    table = csv.read_csv(
        io.BytesIO(text),
        csv.ReadOptions(column_names=list(_COLUMNS), use_threads=False),
        csv.ParseOptions(delimiter=" ", quote_char=False),
        csv.ConvertOptions(column_types=_COLUMNS, null_values=[]),
    )
    columns = [column.to_numpy() for column in table.columns]
    finite = np.isfinite(columns[0]) & np.isfinite(columns[1]) & np.isfinite(columns[2])
    lat, lon, occupied, time = columns if finite.all() else [column[finite] for column in columns]
    unit = unit or epoch_unit(time)
    return (lat, lon, occupied, to_microseconds(time, unit)), table.num_rows, unit


def _parse_lines(text: bytes, unit: str) -> tuple[_Columns, int, str]:
    """Read a text row by row, where rows have to be dropped; blank lines are no rows."""
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [row for line in lines if (row := _numbers(line))]
    lat, lon, occupied = (np.array([float(row[i]) for row in rows], np.float64) for i in range(3))
    times = [Fraction(Decimal(row[3].decode())) for row in rows]  # exact, unlike products of Decimals
    unit = unit or epoch_unit(_floor(times))
    return (lat, lon, occupied, _floor([time * UNIT_US[unit] for time in times])), len(lines), unit


def _numbers(line: bytes) -> list[bytes]:
    """Return the four finite numbers of a row as written, or nothing."""
    words = line.split()
    if len(words) != 4 or not all(_NUMBER.fullmatch(word) for word in words):
        return []
    return words if all(math.isfinite(float(word)) for word in words[:3]) else []


def _floor(times: list[Fraction]) -> np.ndarray:
    """Round exact times down to whole numbers."""
    return np.array([floor_time(time) for time in times], np.int64)
