"""The files in zip and tar archives, by their positions: with one, a file is opened without reading the directory."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_BLOCK = 512  # bytes of a tar archive's header
_OFFICE = {"[Content_Types].xml", "mimetype"}  # a workbook or a document, whose parts nobody means
_TAR = -1  # in place of a zip archive's method: a tar archive's bytes are those of its files
_ARCHIVE_HEAD_BYTES = _BLOCK
_DIRECTORY_BYTES = 1 << 24  # the largest part that is read at once: the directory of some 100,000 files
_DECODER_BYTES = 1 << 27  # of an LZMA decoder
_STEP_BYTES = 1 << 12  # which some packings make 80 MB of


@dataclass(frozen=True, order=True)
class _Member:
    """The position of one file in an archive: its offset there, its sizes in bytes, how it is packed, and its checksum.

    `unreadable` says why it cannot be read.
    """

    offset: int
    size: int
    compressed: int
    method: int
    crc: int
    unreadable: str = ""

    @property
    def as_it_is(self) -> bool:
        """Say whether the archive has the bytes of the file as they are."""
        return self.method == _TAR


def _begins_archive(head: bytes) -> bool:
    """Say whether the first bytes of a file are those of an archive."""
    return head.startswith(_ZIP) or _is_tar(head)


def _members(stream: Any) -> Iterator[tuple[str, _Member]]:
    """Yield the files in an archive with their names; none of a workbook or a document, which are archives too.

    Raises OSError, or an error of `zipfile` or `tarfile`, where the archive is damaged.
    """
    head = stream.read(_BLOCK)
    stream.seek(0)
    stream = _InParts(stream)
    yield from _of_tar(stream) if _is_tar(head) else _of_zip(stream)


def _open_member(stream: Any, member: _Member) -> Any:
    """Open a file of an archive; reading raises errors of `zipfile` and its packings."""
    if member.unreadable:
        raise OSError(member.unreadable)
    if member.as_it_is:
        return _Slice(stream, member.offset, member.size)
    stream.seek(member.offset)
    header = stream.read(30)
    if header is None or len(header) < 30 or not header.startswith(_ZIP[0]):
        raise zipfile.BadZipFile("the archive has changed or is damaged")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = member.offset + 30 + lengths  # past the name and the extra field
    stream.seek(start)
    if member.method == zipfile.ZIP_LZMA:
        properties = stream.read(9)
        if int.from_bytes(properties[5:9], "little") > _DECODER_BYTES:
            raise OSError(f"it needs more than {_DECODER_BYTES >> 20} MB of memory to be unpacked")
        stream.seek(start)
    info = zipfile.ZipInfo()
    info.compress_type, info.CRC = member.method, member.crc
    info.compress_size, info.file_size = member.compressed, member.size
    opened = zipfile.ZipExtFile(cast(Any, stream), "r", info)
    return _InSteps(opened) if member.method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2) else opened


def _is_tar(head: bytes) -> bool:
    """Say whether bytes begin with the header of a tar archive, whose checksum holds."""
    if len(head) < _BLOCK or not head[0]:
        return False
    try:
        return tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape") is not None
    except tarfile.HeaderError:
        return False


def _of_zip(stream: Any) -> Iterator[tuple[str, _Member]]:
    """Yield the files of a zip archive."""
    with zipfile.ZipFile(stream) as opened:
        infos = [] if _OFFICE & set(opened.namelist()) else opened.infolist()
        for info in infos:
            if not info.is_dir():
                why = "it is encrypted; unpack the archive first" if info.flag_bits & 1 else ""
                where = info.header_offset, info.file_size, info.compress_size, info.compress_type, info.CRC
                yield info.filename, _Member(*where, why)


def _of_tar(stream: Any) -> Iterator[tuple[str, _Member]]:
    """Yield the files of a tar archive."""
    with tarfile.open(fileobj=stream, mode="r:") as opened:
        for info in opened:
            if info.isreg():
                why = "it has holes; unpack the archive first" if info.sparse else ""
                yield info.name, _Member(info.offset_data, info.size, info.size, _TAR, 0, why)
        stream.seek(opened.offset)
        if stream.read(_BLOCK).strip(b"\0"):  # tarfile takes damage for the end
            raise OSError("the archive is damaged")


class _InSteps(io.RawIOBase):
    """A file of a zip archive whose packing, given much, would unpack all of it at once."""

    def __init__(self, opened: zipfile.ZipExtFile) -> None:
        self._opened = opened

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._opened.read1(min(len(buffer), _STEP_BYTES))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()


class _InParts(io.RawIOBase):
    """A stream that is read in parts of bounded size, whatever an archive says of its directory or a name."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._stream.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def read(self, size: int | None = -1, /) -> bytes:
        most = _DIRECTORY_BYTES
        data = bytes(self._stream.read(most + 1)) if size is None or size < 0 else b""
        if len(data) > most or (size or 0) > most:
            raise OSError(f"its list of files, or a name in it, takes more than {most >> 20} MB")
        return data or bytes(self._stream.read(size))


class _Slice(io.RawIOBase):
    """A part of a stream."""

    def __init__(self, stream: Any, start: int, size: int) -> None:
        self._stream, self._start, self._size, self._position = stream, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        n = min(len(buffer), max(0, self._size - self._position))
        self._stream.seek(self._start + self._position)
        data = self._stream.read(n)
        if n and not data:
            raise OSError("the archive ended before the file did")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
