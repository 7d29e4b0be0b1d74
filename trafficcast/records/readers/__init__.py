"""Record readers, a module a format: `recognise` says whether a file has the format, `read` yields its batches.

A new format is a module with these two functions and an entry in _FORMATS.
"""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import unquote

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers import cabspotting, gtfs_realtime, porto, table, tdrive, tlc
from trafficcast.records.readers.delimited import _csv_dialect
from trafficcast.records.readers.time_columns import _ISO
from trafficcast.records.records import Batch
from trafficcast.records.sources import Source, find_sources
from trafficcast.records.time_formats import likely_formats

_HEADS = 4096, 65536  # bytes: the first number is quick and mostly enough, the second is for long lines


@dataclass(frozen=True)
class _Format:
    """How files of a format are recognised and read.

    `recognise` gets a source and its first bytes, decompressed. `read` yields batches of at most a million records or
    so, times in UTC, and raises InputError where the file is not of the format. `first_rows` returns some rows with
    their numbers and their values by field, as the file has them, for messages.
    """

    recognise: Callable[[Source, bytes], bool]
    read: Callable[[Source, City], Iterator[Batch]]
    first_rows: Callable[[Source, City], list[tuple[int, dict[str, str]]]] = lambda source, city: []


# In the order of recognition: special formats before general ones.
_FORMATS = {
    "cabspotting": _Format(cabspotting.recognise, cabspotting.read, cabspotting._first_rows),
    "tdrive": _Format(tdrive.recognise, tdrive.read, tdrive._first_rows),
    "porto": _Format(porto.recognise, porto.read),
    "tlc": _Format(tlc.recognise, tlc.read, tlc._first_rows),
    "gtfs-realtime": _Format(gtfs_realtime.recognise, gtfs_realtime.read),
    "csv": _Format(table._recognise_csv, table._read_csv, table._first_rows_of_csv),
    "parquet": _Format(table._recognise_parquet, table._read_parquet, table._first_rows_of_parquet),
    "jsonl": _Format(table._recognise_jsonl, table._read_jsonl, table._first_rows_of_jsonl),
}
# What people take for records, by the first bytes, and what to do.
_OTHERS = {
    b"PK\x03\x04": "a workbook or document (Excel, OpenDocument): save its sheet as CSV",
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel: save its sheet as CSV",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"SQLite format 3": "a SQLite database (GeoPackage too): export its table as CSV or Parquet",
    b"\x89HDF": "an HDF5 or NetCDF file: export its table as CSV or Parquet",
    b"ARROW1": "an Arrow file: write it as Parquet",
    b"Obj\x01": "an Avro file: write it as Parquet",
}
_CLOSED_ARCHIVES = b"7z\xbc\xaf\x27\x1c", b"Rar!"  # which may hold records that nobody would miss
_TABLES = ("csv", "parquet", "jsonl")


def find_records(
    location: str, city: City, format_name: str | None = None
) -> tuple[list[tuple[Source, str]], list[str]]:
    """Find the files of records at a location, and their formats.

    A file of only blanks is passed over; so is, among others, a file of no known format or not of the named one.

    Parameters
    ----------
    location
        A file, a folder, a glob or a URL; see `find_sources`.
    city
        The city whose records they are.
    format_name
        Format of all files; None is that of the city's feed, or else the recognised one of each file.

    Returns
    -------
    tuple[list[tuple[Source, str]], list[str]]
        Each file with its format, and a line on each file that was passed over. A file that cannot be read, which
        reading reports, has no format but the one that is wanted.

    Raises
    ------
    InputError
        There is nothing, an archive cannot be read, or no file is of a known format or of the named one.
    """
    wanted = _check_known(format_name or city.feed.format)
    found, passed_over, refusal = [], [], None
    sources = find_sources(location)
    for source in (_as_fed(source, city) for source in sources):
        try:
            head = source.head(_HEADS[0])
            known = wanted if wanted and len(sources) == 1 else _recognise(source, head, city, wanted)
        except InputError:  # which reading it reports
            found.append((source, wanted or ""))
            continue
        if _is_blank(head):
            passed_over.append(f"{source.path} is empty")
        elif known or head.startswith(_CLOSED_ARCHIVES):
            found.append((source, known or wanted or ""))
        else:
            passed_over.append(f"{source.path} is not {wanted or 'recognised'}: {_first_line(head)}")
            refusal = refusal or _not_recognised(source, head, city, wanted)
    if refusal and not found:
        raise InputError(refusal if len(sources) == 1 else f"none of {len(sources)} files holds records: {refusal}")
    return found, passed_over


def recognise(source: Source, city: City) -> str:
    """Find the format of a source.

    Parameters
    ----------
    source
        The source.
    city
        The city, whose feed may name the format.

    Returns
    -------
    str
        Name of the format: that of the city's feed, or else the first one that recognises the source.

    Raises
    ------
    InputError
        The source cannot be read, or no format recognises it.
    """
    source = _as_fed(source, city)
    head = source.head(_HEADS[0])
    name = _check_known(city.feed.format) or _recognise(source, head, city)
    if name is None:
        raise InputError(_not_recognised(source, head, city))
    return name


def read(source: Source, city: City, format_name: str | None = None) -> Iterator[Batch]:
    """Read a source.

    Parameters
    ----------
    source
        The source.
    city
        The city whose records they are.
    format_name
        Format of the source; None to recognise it.

    Returns
    -------
    Iterator[Batch]
        The batches of the source, none where it is empty; reading them raises InputError where it cannot be read.

    Raises
    ------
    InputError
        The format is unknown, or the source cannot be read.
    """
    name, source = _check_known(format_name or None), _as_fed(source, city)
    head = source.head(_HEADS[0])
    if _is_blank(head):
        return iter(())
    if head.startswith(_CLOSED_ARCHIVES):
        raise InputError(f"cannot read {source.path}: {_first_line(head)}")
    return _FORMATS[name or recognise(source, city)].read(source, city)


def first_rows(source: Source, city: City, format_name: str | None = None) -> list[tuple[int, dict[str, str]]]:
    """Read some rows of a source as they stand in it.

    Parameters
    ----------
    source
        The source.
    city
        The city whose records they are.
    format_name
        Format of the source; None to recognise it.

    Returns
    -------
    list[tuple[int, dict[str, str]]]
        The number of each row's line, or of the row, and its values by field; none where the format shows none.

    Raises
    ------
    InputError
        The source cannot be read.
    """
    source = _as_fed(source, city)
    return _FORMATS[format_name or recognise(source, city)].first_rows(source, city)


def _as_fed(source: Source, city: City) -> Source:
    """Return a source with what the city's feed says of it: its encoding, and the columns that its path has.

    The parts of the path that have columns belong to its name: files of two vehicles may be alike.
    """
    in_path = [pair for part in source.path.split("/")[:-1] if (pair := part.partition("="))[1] and pair[0]]
    pairs = [(name, unquote(value)) for name, _, value in in_path]
    name = (
        "/".join(["=".join(pair) for pair in pairs] + [source.name])
        if pairs and "=" not in source.name
        else source.name
    )
    if city.feed.path:
        pieces = re.split(r"{(\w+)}", city.feed.path)
        pattern = "".join(f"(?P<{piece}>[^/]+?)" if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))
        found = re.search(f"(?:^|/)({pattern})$", source.path)
        if found:
            name, pairs = found[1], [*pairs, *found.groupdict().items()]
    return replace(source, encoding=city.feed.encoding or "", in_path=tuple(pairs), name=name)


def _check_known(name: str | None) -> str | None:
    """Return a format's name; raise InputError where there is no such format."""
    if name is not None and name not in _FORMATS:
        close = difflib.get_close_matches(name, _FORMATS, 1)
        hint = f", did you mean '{close[0]}'?" if close else "."
        raise InputError(f"unknown format '{name}'{hint} Known are {', '.join(_FORMATS)}")
    return name


def _recognise(source: Source, head: bytes, city: City, wanted: str | None = None) -> str | None:
    """Return the first format that recognises a source; where columns are named, only tables are tried."""
    named = any(name is not None for _, name in city.feed.columns)
    formats = (wanted,) if wanted else _TABLES if named else _FORMATS
    for name in formats:
        if _FORMATS[name].recognise(source, head):
            return name
    return _recognise(source, source.head(_HEADS[1]), city, wanted) if len(head) == _HEADS[0] else None


def _is_blank(head: bytes) -> bool:
    """Say whether a source holds only blanks."""
    return len(head) < _HEADS[0] and not head.removeprefix(codecs.BOM_UTF8).strip()


def _not_recognised(source: Source, head: bytes, city: City, wanted: str | None = None) -> str:
    """Return the message about a source that no format recognises."""
    return (
        f"{source.path} is {f'not {wanted}' if wanted else 'of no known format'}: {_first_line(head)}; known are "
        f"{', '.join(_FORMATS)}, and --format, or `format` in [cities.{city.name or 'NAME'}.feed], names one"
        f"{_proposed_positions(head, city)}"
    )


def _proposed_positions(head: bytes, city: City) -> str:
    """Return what to write about rows without a header that have a time and a place in one column, if they have."""
    row = [] if b"\0" in head else _csv_dialect(head).names
    times = [i for i, cell in enumerate(row) if _ISO.match(cell) or likely_formats([cell])]
    places = [i for i, cell in enumerate(row) if cell.lstrip().upper().startswith(("POINT", "SRID="))]
    others = [i for i in range(len(row)) if i not in (*times, *places)]
    if not (times and places and others):
        return ""
    return (
        f'. It seems to have no header: set format = "csv" and, under [cities.{city.name or "NAME"}.feed.columns], '
        f'vehicle = "{others[0]}", time = "{times[0]}", lon = "{places[0]}", lat = "{places[0]}"'
    )


def _first_line(head: bytes) -> str:
    """Return a description of a file's first bytes that is safe to print."""
    if b"\0" in head:
        known = next((what for magic, what in _OTHERS.items() if head.startswith(magic)), "")
        return f"it is {known or f'binary and begins {head[:16]!r}'}"
    line = head.removeprefix(codecs.BOM_UTF8).lstrip().splitlines()[0]
    text = line.decode("utf-8", "backslashreplace")
    return f"its first line is {text[:80]!r}{'...' if len(text) > 80 else ''}"
