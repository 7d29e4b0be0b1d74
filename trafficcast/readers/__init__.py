"""Record readers: one file a format. `recognise` says whether a file is of it, `read` yields its batches.

To add one, write a module with both and name it in FORMATS.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trafficcast.city import City
from trafficcast.records import Batch
from trafficcast.sources import Source


@dataclass(frozen=True)
class Format:
    """How files of one kind are told from others and read.

    `recognise` is given a source and its first bytes, decompressed. `read` yields the records in batches of at most
    a million or so, times already in UTC, and raises InputError where the file is none of the format.
    """

    recognise: Callable[[Source, bytes], bool]
    read: Callable[[Source, City], Iterator[Batch]]
