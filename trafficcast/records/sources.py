"""Find the files of records, and read their bytes: files, folders, globs, archives and fsspec URLs.

Archives and packings are recognised by their first bytes, whatever a file's name. Text of another encoding is read as
UTF-8. Every error while a stream is read, even in the middle and from another library, becomes an InputError that names
the file.
"""

from __future__ import annotations

import bz2
import errno
import glob
import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from trafficcast.errors import InputError
from trafficcast.records.archives import _ARCHIVE_HEAD_BYTES, _begins_archive, _Member, _members, _open_member
from trafficcast.records.encodings import _LONGEST_MARK, _marked_encoding, _Recoded
from trafficcast.records.xz import _Xz

UNFINISHED = (".tmp", ".part", ".crdownload", ".filepart", "~")
_COMPRESSED = re.compile(r"\.(gz|gzip|zst|zstd|bz2|xz|lz4)$", re.IGNORECASE)
PARQUET = b"PAR1"
# What undoes each packing, by the first bytes; zstd may begin with a frame to be skipped.
_PACKINGS: dict[bytes, Callable[[Any], Any]] = {
    rb"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw, mode="rb"),
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": lambda raw: pa.CompressedInputStream(raw, "zstd"),
    rb"BZh[1-9](\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)": bz2.BZ2File,
    rb"\xfd7zXZ\x00": _Xz,
    rb"\x04\x22\x4d\x18": lambda raw: pa.CompressedInputStream(raw, "lz4"),
}
_MAGIC_BYTES = 10
_DEPTH = 4  # of archives in one another
_BUFFER_BYTES = 1 << 20
_SPOOL_BYTES = 1 << 26  # a larger member of an archive goes to a temporary file
# A file unpacks to so many bytes, or to so many times its own size, if that is more.
_UNPACKED_BYTES, _UNPACKED_TIMES = 1 << 32, 200
_FREE_BYTES = 1 << 30  # of the disk, which temporary files leave
_MOST_FILES = 100_000  # of an archive and those in it
_NOT_ITS_FAULT = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_READ_ERRORS = (
    OSError,
    EOFError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    pa.ArrowException,
)


@contextmanager
def reading(path: str, errors: type[Exception] | tuple[type[Exception], ...] = _READ_ERRORS) -> Iterator[None]:
    """Turn the errors of reading or unpacking bytes into InputError, but not those of a full disk or memory.

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
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in _NOT_ITS_FAULT:
            raise
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        why = " ".join(why.split())  # messages of Arrow have several lines
        raise InputError(f"cannot read {_without_secrets(path)}: {_without_secrets(why)}") from None


class _Spool:
    """The bytes of an archive that has to be unpacked, or is in another one: in a temporary file that its files share.

    The file goes with the last source that has it. A process that gets a source from another one makes its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Spool, ()

    def open(self, source: BinaryIO) -> io.RawIOBase:
        """Return a stream of the bytes of a source, which is read the first time and closed."""
        with source, self._lock:
            if self._file is None:
                file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the spool
                try:
                    _copy_to_temporary(source, file)
                    file.flush()
                except BaseException:
                    file.close()
                    raise
                self._file = file
        return _SharedFile(self, self._file)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


class _SharedFile(io.RawIOBase):
    """A file that others read too, each at its own position."""

    def __init__(self, owner: _Spool, file: Any) -> None:
        self._owner = owner  # which closes the file when nobody needs it
        self._file, self._position, self._size = file, 0, os.fstat(file.fileno()).st_size

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
        data = os.pread(self._file.fileno(), len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _copy_to_temporary(source: BinaryIO, file: Any) -> None:
    """Copy a stream to a temporary file as long as the disk has room.

    Parameters
    ----------
    source
        The stream.
    file
        The file, open for writing.

    Raises
    ------
    OSError
        The disk is nearly full.
    """
    copied = 0
    while data := source.read(_BUFFER_BYTES):
        copied += len(data)
        if copied > _SPOOL_BYTES and shutil.disk_usage(tempfile.gettempdir()).free < _FREE_BYTES:
            raise OSError(
                errno.ENOSPC, f"temporary files leave {_FREE_BYTES >> 30} GB of the disk free", tempfile.gettempdir()
            )
        file.write(data)


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
    archive
        The archive that the file is in, if it is in one.
    member
        Position in the archive.
    encoding
        Encoding of its text; empty for UTF-8 and for that of its byte order mark.
    in_path
        Names and values of the columns that its path has, as in `vehicle=cab0/a.parquet`.
    """

    name: str
    path: str
    size: int | None
    where: str = field(repr=False)
    url: str = field(default="", repr=False)
    archive: Source | None = field(default=None, repr=False)
    member: _Member | None = field(default=None, repr=False)
    encoding: str = field(default="", repr=False)
    in_path: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    _spool: _Spool = field(default_factory=_Spool, repr=False, compare=False)

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
        """Open the decompressed bytes, text as UTF-8.

        Returns
        -------
        BinaryIO
            A stream; reading from it raises InputError too.

        Raises
        ------
        InputError
            The source cannot be opened.
        """
        return io.BufferedReader(self._as_utf8(), _BUFFER_BYTES)

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
        if self.member is None or self.member.as_it_is:
            return self._raw()
        return self._as_temporary(self._raw())

    def open_unpacked(self) -> BinaryIO:
        """Open the decompressed bytes with random access.

        Returns
        -------
        BinaryIO
            A stream over a temporary file.

        Raises
        ------
        InputError
            The source cannot be opened or read.
        """
        return self._as_temporary(self._decompressed())

    def head(self, n: int = 65536) -> bytes:
        """Read the first decompressed bytes, of text as UTF-8.

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
        with self._as_utf8() as stream:
            return stream.read(n)

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

    def unpacks_to_too_much(self, n: int) -> bool:
        """Say whether a number of unpacked bytes is more than a file of this size may have.

        Parameters
        ----------
        n
            Number of bytes.

        Returns
        -------
        bool
            True for more than 4 GB that are also more than 200 times the bytes of the file, or of the archive that it
            is in; False where that size is unknown.
        """
        outermost = self
        while outermost.archive is not None:
            outermost = outermost.archive
        return outermost.size is not None and n > max(_UNPACKED_BYTES, _UNPACKED_TIMES * outermost.size)

    def refuse_unpacked(self, n: int) -> None:
        """Refuse a source with too many unpacked bytes.

        Parameters
        ----------
        n
            Number of bytes that were, or would be, unpacked.

        Raises
        ------
        InputError
            They are too many.
        """
        if self.unpacks_to_too_much(n):
            raise InputError(
                f"cannot read {self.path}: it unpacks to more than {_UNPACKED_BYTES >> 30} GB and more than "
                f"{_UNPACKED_TIMES} times its size; if it is meant so, unpack it first"
            )

    def _as_temporary(self, stream: BinaryIO) -> BinaryIO:
        """Copy a stream, which is closed, to a temporary file, which is returned open at its begin."""
        spool = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115  # returned open
        try:
            with stream, reading(self.path):
                _copy_to_temporary(stream, spool)
                spool.seek(0)
        except BaseException:
            spool.close()
            raise
        return cast(BinaryIO, spool)

    def _raw(self) -> io.BufferedReader:
        """Open the stored bytes; those of an archive's member unpacked."""
        if self.archive is not None and self.member is not None:
            return io.BufferedReader(self._from_archive(self.archive, self.member))
        with reading(self.path):
            if not self.url:
                file: Any = open(self.where, "rb", 0)  # noqa: SIM115  # the stream around it closes it
                stream = _Stream(self.path, file)
            else:
                with reading(self.path, Exception):  # the drivers' errors have no other common base
                    file = fsspec.core.url_to_fs(self.url)[0].open(self.where, "rb")
                stream = _Stream(self.path, file, errors=Exception)
        return io.BufferedReader(stream)

    def _from_archive(self, archive: Source, member: _Member) -> _Stream:
        """Open a member of an archive."""
        stream = archive._with_random_access()
        try:
            with reading(self.path):
                self.refuse_unpacked(member.size)
                return _Stream(self.path, _open_member(stream, member), stream)
        except InputError:
            stream.close()
            raise

    def _with_random_access(self) -> io.RawIOBase | io.BufferedReader:
        """Open the bytes of an archive after its packing is undone."""
        raw = self._raw()
        if self.member is None and _packing(raw.peek(_MAGIC_BYTES)) is None:
            return raw
        raw.close()
        with reading(self.path):
            return self._spool.open(self._decompressed())

    def _as_utf8(self) -> io.BufferedReader:
        """Open the decompressed bytes, text as UTF-8; a small buffer, so that a head costs little."""
        stream = self._decompressed()
        try:
            head = stream.peek(_LONGEST_MARK)
        except InputError:
            stream.close()
            raise
        encoding = self.encoding or _marked_encoding(head)
        if not encoding or head.startswith(PARQUET):
            return stream
        return io.BufferedReader(_Recoded(stream, encoding))

    def _decompressed(self) -> io.BufferedReader:
        """Open the bytes after a packing is undone."""
        raw = self._raw()
        try:
            unpack = _packing(raw.peek(_MAGIC_BYTES))
            if unpack is None:
                return raw
            with reading(self.path):
                return io.BufferedReader(_Stream(self.path, unpack(raw), raw, check=self.refuse_unpacked))
        except InputError:
            raw.close()
            raise

    def _is_archive(self) -> bool:
        """Say whether the file is an archive; one that cannot be read is none."""
        try:
            with self._decompressed() as stream:
                return _begins_archive(stream.read(_ARCHIVE_HEAD_BYTES))
        except InputError:
            return False


def _packing(head: bytes) -> Callable[[Any], Any] | None:
    """Return what undoes the packing of a stream that begins so; None where it is not packed."""
    return next((unpack for magic, unpack in _PACKINGS.items() if re.match(magic, head, re.DOTALL)), None)


class _Stream(io.RawIOBase):
    """A stream over another one, whose errors become InputError; closing it closes those below it too.

    `check` is called with the number of bytes that were read, and raises an error for too many.
    """

    def __init__(
        self,
        path: str,
        inner: Any,
        *below: Any,
        errors: type[Exception] | tuple[type[Exception], ...] = _READ_ERRORS,
        check: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._path = path
        self._inner = inner
        self._below = below
        self._errors = errors
        self._check = check
        self._read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._inner.seekable())

    def readinto(self, buffer: Any) -> int:
        with reading(self._path, self._errors):
            n = int(self._inner.readinto(buffer))
        self._read += n
        self._check(self._read)
        return n

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


def find_sources(location: str) -> list[Source]:
    """Find the files at a location, sorted.

    Hidden and unfinished files in folders and globs are left out; an archive stands for the files in it, and they for
    those in them.

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
    sources: list[Source] = []
    errors: list[InputError] = []
    for file in files:
        try:
            sources += _opened_of(file)
        except InputError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else InputError("; ".join(map(str, errors)))
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


def _opened_of(file: Source) -> Iterator[Source]:
    """Yield a file, or the files in it; raise InputError where they are too many."""
    for n, source in enumerate(_opened(file)):
        if n == _MOST_FILES:
            raise InputError(f"cannot read {file.path}: it holds more than {_MOST_FILES:,} files; unpack it first")
        yield source


def _opened(file: Source, depth: int = 0) -> Iterator[Source]:
    """Yield a file, or the files in it where it is an archive; raise InputError where that is damaged."""
    if not (file.name.lower().endswith(".zip") or file._is_archive()):
        yield file
        return
    if depth == _DEPTH:
        raise InputError(f"cannot read {file.path}: it is an archive in {_DEPTH} others; unpack it first")
    with reading(file.path), file._with_random_access() as stream:
        members = islice(_members(stream), _MOST_FILES + 1)
        found = sorted((name.removeprefix("./"), member) for name, member in members)
    file.refuse_unpacked(sum(member.size for _, member in found))
    if not found:
        yield file
    for name, member in found:
        if not any(map(_is_ignored, name.split("/"))):
            where = f"{file.name}/{name}", f"{file.path}/{name}", member.size, file.where, file.url
            yield from _opened(Source(*where, archive=file, member=member), depth + 1)


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
