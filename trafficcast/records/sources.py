"""Find the files of records, and read their bytes: files, folders, globs, zip archives and fsspec URLs.

Gzip and zstd are recognised by their first bytes, whatever a file's name. Every error while a stream is read, even in
the middle and from another library, becomes an InputError that names the file.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from trafficcast.errors import InputError

UNFINISHED = (".tmp", ".part", ".crdownload", ".filepart", "~")
_COMPRESSED = re.compile(r"\.(gz|gzip|zst|zstd)$", re.IGNORECASE)
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BUFFER_BYTES = 1 << 20
SPOOL_BYTES = 1 << 26  # a larger member of an archive goes to a temporary file
_READ_ERRORS = (
    OSError,
    EOFError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    pa.ArrowException,
)


@contextmanager
def reading(path: str, errors: type[Exception] | tuple[type[Exception], ...] = _READ_ERRORS) -> Iterator[None]:
    """Turn the errors of reading or unpacking bytes into InputError.

    Parameters
    ----------
    path
        Name of the source, for the message.
    errors
        Types of the errors.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    InputError
        The block raised one of the errors; the message is `cannot read PATH: why`.
    """
    try:
        yield
    except InputError:
        raise
    except errors as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        why = " ".join(why.split())  # messages of Arrow have several lines
        raise InputError(f"cannot read {_without_secrets(path)}: {_without_secrets(why)}") from None


@dataclass(frozen=True)
class _Member:
    """The position of one file in a zip archive; with it the archive's directory need not be read again."""

    offset: int
    size: int
    compressed: int
    method: int
    crc: int
    encrypted: bool


@dataclass(frozen=True)
class Source:
    """One file of records.

    Attributes
    ----------
    name
        Last part of the path (`new_abc.txt.gz`; within an archive `trips.zip/sub/a.csv`).
    path
        Whole path without secrets, for messages.
    size
        Stored size in bytes, None where it is unknown.
    where
        Path by which the file system opens the file.
    url
        URL of the file system; empty for the local one.
    member
        Position in a zip archive, if the file is in one.
    """

    name: str
    path: str
    size: int | None
    where: str = field(repr=False)
    url: str = field(default="", repr=False)
    member: _Member | None = field(default=None, repr=False)

    @property
    def stem(self) -> str:
        """Return the name without folders and without the endings of compression.

        Returns
        -------
        str
            A name such as `new_abc.txt` or `a.csv`.
        """
        return _COMPRESSED.sub("", self.name.rpartition("/")[2])

    def open(self) -> BinaryIO:
        """Open the decompressed bytes.

        Returns
        -------
        BinaryIO
            A stream; reading from it raises InputError too.

        Raises
        ------
        InputError
            The source cannot be opened.
        """
        return io.BufferedReader(self._decompressed(), _BUFFER_BYTES)

    def open_raw(self) -> BinaryIO:
        """Open the stored bytes with random access.

        Returns
        -------
        BinaryIO
            A stream; reading from it raises InputError too.

        Raises
        ------
        InputError
            The source cannot be opened.
        """
        if self.member is None:
            return self._raw()
        spool = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115  # returned open
        try:
            with self._raw() as stream, reading(self.path):
                shutil.copyfileobj(stream, spool, _BUFFER_BYTES)
                spool.seek(0)
        except InputError:
            spool.close()
            raise
        return cast(BinaryIO, spool)

    def head(self, n: int = 65536) -> bytes:
        """Read the first decompressed bytes.

        Parameters
        ----------
        n
            Number of bytes.

        Returns
        -------
        bytes
            The bytes, fewer where the source is shorter.

        Raises
        ------
        InputError
            The source cannot be read.
        """
        head = b""
        with self._decompressed() as stream:
            while len(head) < n and (more := stream.read(n - len(head))):
                head += more
        return head

    def digest(self) -> str:
        """Return the identity of a source, whatever its folder.

        Returns
        -------
        str
            Its name and the SHA-256 of its stored bytes.

        Raises
        ------
        InputError
            The source cannot be read.
        """
        with self._raw() as stream:
            return f"{self.name}:{hashlib.file_digest(cast(Any, stream), 'sha256').hexdigest()}"

    def _raw(self) -> io.BufferedReader:
        """Open the stored bytes; those of an archive's member unpacked."""
        with reading(self.path):
            if not self.url:
                file: Any = open(self.where, "rb", 0)  # noqa: SIM115  # the stream around it closes it
                stream = _Stream(self.path, file)
            else:
                with reading(self.path, Exception):  # the drivers' errors have no other common base
                    file = fsspec.core.url_to_fs(self.url)[0].open(self.where, "rb")
                stream = _Stream(self.path, file, errors=Exception)
            if self.member is not None:
                stream = self._unzipped(stream, self.member)
        return io.BufferedReader(stream)

    def _unzipped(self, archive: _Stream, member: _Member) -> _Stream:
        """Open a member of an archive."""
        try:
            with reading(self.path):
                return _Stream(self.path, _open_member(archive, member), archive)
        except InputError:
            archive.close()
            raise

    def _decompressed(self) -> _Stream:
        """Open the bytes after gzip or zstd is undone."""
        raw = self._raw()
        try:
            magic = raw.peek(4)[:4]
            with reading(self.path):
                if magic.startswith(_GZIP):
                    return _Stream(self.path, gzip.GzipFile(fileobj=raw, mode="rb"), raw)
                if magic == _ZSTD:
                    return _Stream(self.path, pa.CompressedInputStream(raw, "zstd"), raw)
            return _Stream(self.path, raw)
        except InputError:
            raw.close()
            raise


class _Stream(io.RawIOBase):
    """A stream over another one, whose errors become InputError; closing it closes those below it too."""

    def __init__(
        self, path: str, inner: Any, *below: Any, errors: type[Exception] | tuple[type[Exception], ...] = _READ_ERRORS
    ) -> None:
        self._path = path
        self._inner = inner
        self._below = below
        self._errors = errors

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._inner.seekable())

    def readinto(self, buffer: Any) -> int:
        with reading(self._path, self._errors):
            return int(self._inner.readinto(buffer))

    def readall(self) -> bytes:
        with reading(self._path, self._errors):
            return bytes(self._inner.read())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return int(self._inner.seek(offset, whence))
        except ValueError as error:  # as drivers do before the start of a file, where zipfile knows OSError only
            raise OSError(str(error)) from None

    def tell(self) -> int:
        return int(self._inner.tell())

    def close(self) -> None:
        if not self.closed:
            for stream in (self._inner, *self._below):
                stream.close()
        super().close()


def _open_member(archive: _Stream, member: _Member) -> zipfile.ZipExtFile:
    """Open a file of an archive by its position: reading the directory for each of thousands is slow."""
    if member.encrypted:
        raise OSError("it is encrypted; unpack the archive first")
    archive.seek(member.offset)
    header = archive.read(30)
    if header is None or len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile("the archive has changed or is damaged")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    archive.seek(member.offset + 30 + lengths)  # past the name and the extra field
    info = zipfile.ZipInfo()
    info.compress_type, info.CRC = member.method, member.crc
    info.compress_size, info.file_size = member.compressed, member.size
    return zipfile.ZipExtFile(cast(Any, archive), "r", info)


def find_sources(location: str) -> list[Source]:
    """Find the files at a location, sorted.

    Hidden and unfinished files in folders and globs are left out; a `.zip` stands for the files in it.

    Parameters
    ----------
    location
        A file, a folder with all that is below it, a glob, or an fsspec URL of either.

    Returns
    -------
    list[Source]
        The files.

    Raises
    ------
    InputError
        There is nothing, or a folder, an archive or a file system cannot be read.
    """
    if not os.path.lexists(location) and ("://" in location or "::" in location):
        if fsspec.utils.get_protocol(location) in ("file", "local"):
            return find_sources(LocalFileSystem._strip_protocol(location))
        files = _find_remote(location)
    else:
        files = _find_local(location)
    sources = [source for file in files for source in (_members(file) if _is_archive(file.name) else [file])]
    if not sources:
        raise InputError(f"there is nothing at {_without_secrets(location)}")
    return sources


def _find_local(location: str) -> list[Source]:
    """Find the files at a local path or glob."""
    if os.path.isdir(location):
        paths = list(_walk(location, set()))
    elif os.path.isfile(location):
        paths = [location]
    elif os.path.lexists(location):
        raise InputError(f"{_without_secrets(location)} is neither a file nor a folder")
    else:
        matches = [path for path in glob.glob(location, recursive=True) if not _is_ignored(os.path.basename(path))]
        visited: set[str] = set()
        below = (file for path in matches if os.path.isdir(path) for file in _walk(path, visited))
        paths = list({os.path.normpath(path) for path in (*filter(os.path.isfile, matches), *below)})
    return [Source(os.path.basename(_printable(path)), _printable(path), _size(path), path) for path in sorted(paths)]


def _walk(folder: str, visited: set[str]) -> Iterator[str]:
    """Yield the files below a folder, through links too, each folder once; raise InputError for an unreadable one."""
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    with reading(_printable(folder)), os.scandir(folder) as scan:
        entries = list(scan)
    for entry in entries:
        if _is_ignored(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, visited)
        elif entry.is_file() or entry.is_symlink():  # a link to nothing is a file that cannot be read, and is named
            yield entry.path


def _find_remote(url: str) -> list[Source]:
    """Find the files at a URL."""
    with reading(url, Exception):  # the drivers' errors have no other common base
        system, path = fsspec.core.url_to_fs(url)
        if glob.has_magic(path) and not system.exists(path):
            found, base = system.glob(path, detail=True), re.split(r"[*?[]", path)[0]
        else:
            found, base = ({path: system.info(path)} if system.exists(path) else {}), path
        for folder in [name for name, info in found.items() if info["type"] == "directory"]:
            del found[folder]
            for _, _, files in system.walk(folder, on_error="raise", detail=True):
                found |= {info["name"]: info for info in files.values()}
    return [
        Source(_remote_name(name), _without_secrets(system.unstrip_protocol(name)), info.get("size"), name, url)
        for name, info in sorted(found.items())
        if name == path or not (name.endswith("/") or any(map(_is_ignored, name[len(base) :].split("/"))))
    ]


def _remote_name(name: str) -> str:
    """Return the last part of a remote path, without a query."""
    is_url = "://" in name  # as over HTTP, where a query, which may be a secret, can follow
    return (name.partition("?")[0] if is_url else name).rpartition("/")[2]


def _members(archive: Source) -> list[Source]:
    """Return the files in a zip archive; raise InputError where it is damaged."""
    with archive.open_raw() as stream, reading(archive.path), zipfile.ZipFile(stream) as opened:
        return [
            replace(
                archive,
                name=f"{archive.name}/{info.filename}",
                path=f"{archive.path}/{info.filename}",
                size=info.file_size,
                member=_Member(
                    info.header_offset,
                    info.file_size,
                    info.compress_size,
                    info.compress_type,
                    info.CRC,
                    bool(info.flag_bits & 1),
                ),
            )
            for info in sorted(opened.infolist(), key=lambda info: info.filename)
            if not info.is_dir() and not any(map(_is_ignored, info.filename.split("/")))
        ]


def _is_archive(name: str) -> bool:
    """Say whether a name is that of a zip archive."""
    return name.lower().endswith(".zip")


def _is_ignored(name: str) -> bool:
    """Say whether a name is that of a hidden or unfinished file."""
    return name.startswith(".") or name == "__MACOSX" or name.endswith(UNFINISHED)


def _size(path: str) -> int | None:
    """Return the size of a file in bytes, None where it cannot be known."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None  # reading it raises the error


def _printable(path: str) -> str:
    """Return a path as text that can be printed and stored: bytes that are no UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _without_secrets(text: str) -> str:
    """Return a text without the user info and the query of the URLs in it, which may be secrets."""
    text = re.sub(r"(://)[^\s/?'\"]*@", r"\1", text)
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\"]*", r"\1?...", text)
