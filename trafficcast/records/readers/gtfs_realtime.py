"""GTFS Realtime: a protobuf message of the positions of all vehicles (its JSON is read as any other JSON)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.records.readers.cell_values import _to_batch
from trafficcast.records.records import Batch, Points
from trafficcast.records.sources import Source, reading

# A header of some bytes whose first field is the version, such as 2.0.
_HEADER = re.compile(rb"\x0a.\x0a\x03\d\.\d", re.DOTALL)
_MESSAGE_BYTES = 1 << 23  # some 50,000 vehicles
_TYPES = {"vehicle": pa.string(), "time": pa.int64(), "lon": pa.float64(), "lat": pa.float64()}


def recognise(source: Source, head: bytes) -> bool:
    """Say whether a file begins as a message does.

    Parameters
    ----------
    source
        A file.
    head
        Its first bytes, decompressed.

    Returns
    -------
    bool
        True where the header of a message comes first.
    """
    return _HEADER.match(head) is not None


def read(source: Source, city: City) -> Iterator[Batch]:
    """Read the vehicles of a message; trip updates and alerts are none.

    A vehicle without a time of its own was there at the time of the message.

    Parameters
    ----------
    source
        A file of the format.
    city
        The city whose records they are.

    Yields
    ------
    Batch
        The records of the message.

    Raises
    ------
    InputError
        The file cannot be read, or is not of the format.
    """
    from google.protobuf.message import DecodeError
    from google.transit.gtfs_realtime_pb2 import FeedMessage

    message = FeedMessage()
    with reading(source.path, DecodeError), source.open() as stream:
        data = stream.read(_MESSAGE_BYTES + 1)
        if len(data) > _MESSAGE_BYTES:
            raise InputError(
                f"{source.path} has more than {_MESSAGE_BYTES >> 20} MB, which no message of positions has"
            )
        message.ParseFromString(data)
    rows = [
        (
            entity.vehicle.vehicle.id or entity.vehicle.vehicle.label or entity.id,
            entity.vehicle.timestamp or message.header.timestamp or None,
            *((place.longitude, place.latitude) if entity.vehicle.HasField("position") else (None, None)),
        )
        for entity in message.entity
        if entity.HasField("vehicle") and (place := entity.vehicle.position) is not None
    ]
    if message.entity and not rows:
        raise InputError(f"{source.path} has no positions of vehicles: it is another message of GTFS Realtime")
    columns = {
        name: pa.array([row[i] for row in rows], kind, from_pandas=True)
        for i, (name, kind) in enumerate(_TYPES.items())
    }
    yield _to_batch(Points, columns, city.zone, {"time": "s"})
