"""Record readers: one file a format. A reader takes a path and yields one Batch a file.

To add one, write a module with `find(path)` (its files below a path) and `read(file)`, and name it in FORMATS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trafficcast.errors import InputError
from trafficcast.points import Batch
from trafficcast.readers import cabspotting


@dataclass(frozen=True)
class Format:
    """How records of one kind are found below a path and read, a file at a time."""

    find: Callable[[Path], list[Path]]
    read: Callable[[Path], Batch]


FORMATS = {
    "cabspotting": Format(cabspotting.find, cabspotting.read),
}


def find_files(path: Path, record_format: str) -> list[Path]:
    """The files of that format at or below a path, sorted. Raises InputError where there are none."""
    if record_format not in FORMATS:
        raise InputError(f"unknown format '{record_format}'; known are: {', '.join(FORMATS)}")
    if not path.exists():
        raise InputError(f"there is nothing at {path}")
    files = FORMATS[record_format].find(path)
    if not files:
        raise InputError(f"{path} holds no {record_format} files")
    return files
