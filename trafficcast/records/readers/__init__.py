"""Record readers: one file a format. `recognise` says whether a file is of it, `read` yields its batches.

To add one, write a module with both and name it in FORMATS.
"""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers import cabspotting, porto, table, tdrive, tlc
from trafficcast.records.records import Batch
from trafficcast.records.sources import Source, find_sources

_HEADS = 4096, 65536  # bytes: few are quick and mostly enough, many are for long lines


@dataclass(frozen=True)
class _Format:
    """How files of one kind are told from others and read.

    `recognise` is given a source and its first bytes, decompressed. `read` yields the records in batches of at most
    a million or so, times already in UTC, and raises InputError where the file is none of the format.
    """

    recognise: Callable[[Source, bytes], bool]
    read: Callable[[Source, City], Iterator[Batch]]


# In the order of recognition: the particular before the general.
_FORMATS = {
    "cabspotting": _Format(cabspotting.recognise, cabspotting.read),
    "tdrive": _Format(tdrive.recognise, tdrive.read),
    "porto": _Format(porto.recognise, porto.read),
    "tlc": _Format(tlc.recognise, tlc.read),
    "csv": _Format(table._recognise_csv, table._read_csv),
    "parquet": _Format(table._recognise_parquet, table._read_parquet),
    "jsonl": _Format(table._recognise_jsonl, table._read_jsonl),
}
_TABLES = ("csv", "parquet", "jsonl")


def find_records(
    location: str, city: City, format_name: str | None = None
) -> tuple[list[tuple[Source, str]], list[str]]:
    """The files of records at a location, each with its format, and a line on each file that was passed over.

    The format is the one named, else that of the city's feed, else recognised file by file. A file of nothing but
    blanks holds no records and is passed over; so is a file of no format, or not of the one named, among others.
    Raises InputError where there is nothing or something cannot be read, and where no file is of a format.
    """
    wanted = _known(format_name or city.feed.format)
    found, passed_over, strange = [], [], None
    sources = find_sources(location)
    for source in sources:
        head = source.head(_HEADS[0])
        if _is_blank(head):
            passed_over.append(f"{source.path} is empty")
        elif name := wanted if wanted and len(sources) == 1 else _recognise(source, head, city, wanted):
            found.append((source, name))
        else:
            passed_over.append(f"{source.path} is not {wanted or 'recognised'}: {_first_line(head)}")
            strange = strange or _not_recognised(source, head, city, wanted)
    if strange and not found:
        raise InputError(strange if len(sources) == 1 else f"none of {len(sources)} files holds records: {strange}")
    return found, passed_over


def recognise(source: Source, city: City) -> str:
    """The name of a source's format: that of the city's feed, else the first that knows its content as its own.

    Raises InputError where none does, or the source cannot be read.
    """
    head = source.head(_HEADS[0])
    name = _known(city.feed.format) or _recognise(source, head, city)
    if name is None:
        raise InputError(_not_recognised(source, head, city))
    return name


def read(source: Source, city: City, format_name: str | None = None) -> Iterator[Batch]:
    """The batches of a source, none where it is empty; its format is recognised when not named.

    Raises InputError for an unknown name or format, and while reading, where the source cannot be read.
    """
    name = _known(format_name)
    if _is_blank(source.head(_HEADS[0])):
        return iter(())
    return _FORMATS[name or recognise(source, city)].read(source, city)


def _known(name: str | None) -> str | None:
    if name is not None and name not in _FORMATS:
        near = difflib.get_close_matches(name, _FORMATS, 1)
        hint = f", did you mean '{near[0]}'?" if near else "."
        raise InputError(f"unknown format '{name}'{hint} Known are {', '.join(_FORMATS)}")
    return name


def _recognise(source: Source, head: bytes, city: City, wanted: str | None = None) -> str | None:
    # Where columns are named, the files are tables of those columns, whatever else they look like.
    named = any(name is not None for _, name in city.feed.columns)
    formats = (wanted,) if wanted else _TABLES if named else _FORMATS
    for name in formats:
        if _FORMATS[name].recognise(source, head):
            return name
    return _recognise(source, source.head(_HEADS[1]), city, wanted) if len(head) == _HEADS[0] else None


def _is_blank(head: bytes) -> bool:
    return len(head) < _HEADS[0] and not head.removeprefix(codecs.BOM_UTF8).strip()


def _not_recognised(source: Source, head: bytes, city: City, wanted: str | None = None) -> str:
    return (
        f"{source.path} is {f'not {wanted}' if wanted else 'of no known format'}: {_first_line(head)}; known are "
        f"{', '.join(_FORMATS)}, and --format, or `format` in [cities.{city.name or 'NAME'}.feed], names one"
    )


def _first_line(head: bytes) -> str:
    """What a file's first bytes look like, safe to print."""
    if b"\0" in head:
        return f"it is binary and begins {head[:16]!r}"
    line = head.removeprefix(codecs.BOM_UTF8).lstrip().splitlines()[0]
    text = line.decode("utf-8", "backslashreplace")
    return f"its first line is {text[:80]!r}{'...' if len(text) > 80 else ''}"
