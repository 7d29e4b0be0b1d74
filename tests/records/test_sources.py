"""Where records lie: what is found, how bytes are unpacked, and that whatever cannot be read is named."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet

from trafficcast.errors import InputError
from trafficcast.records import archives, sources
from trafficcast.records.sources import Source, find_sources, reading

TEXT = b"".join(b"%d,%d\n" % (i, i * i) for i in range(50_000))
PACKED = gzip.compress(TEXT)


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def write(folder: Path, *names: str, data: bytes = b"1 2\n") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def zipped(file: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def only(location: Path | str) -> Source:
    [source] = find_sources(str(location))
    return source


def source_of(folder: Path, data: bytes, name: str = "a.csv") -> Source:
    write(folder, name, data=data)
    return only(folder / name)


def content(source: Source) -> bytes:
    with source.open() as stream:
        return stream.read()


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """fsspec's file system in this process's memory, which all tests share."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


# What is found


def test_a_folder_is_searched_through_in_order_without_hidden_and_unfinished_files(tmp_path: Path) -> None:
    kept = ["a.csv", "b/a.csv", "b/c/new_x.txt.gz", "z"]
    left = [".hidden", ".git/a.csv", "b/.DS_Store", "a.csv.tmp", "b.part", "c.crdownload", "d.filepart", "a.csv~"]
    write(tmp_path, *kept, *left)
    sources = find_sources(str(tmp_path))
    assert [source.path for source in sources] == [str(tmp_path / name) for name in kept]
    assert [source.name for source in sources] == ["a.csv", "a.csv", "new_x.txt.gz", "z"]
    assert [source.size for source in sources] == [4] * 4


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, ".a.tmp")
    assert only(tmp_path / ".a.tmp").name == ".a.tmp"


def test_a_glob_finds_files_and_folders_each_file_once(tmp_path: Path) -> None:
    write(tmp_path, "a1.csv", "a2.csv", "b.csv", "a3/x.csv", "a3/.hidden", "a4.csv.tmp")
    names = [source.path for source in find_sources(str(tmp_path / "a*"))]
    assert names == [str(tmp_path / name) for name in ("a1.csv", "a2.csv", "a3/x.csv")]
    everything = [source.path for source in find_sources(str(tmp_path / "**"))]
    assert everything == [str(tmp_path / name) for name in ("a1.csv", "a2.csv", "a3/x.csv", "b.csv")]


def test_a_name_with_the_marks_of_a_glob_or_a_url_is_a_name_where_it_exists(tmp_path: Path) -> None:
    write(tmp_path, "a[1].csv", "a1.csv", "b::c/d.csv")
    assert only(tmp_path / "a[1].csv").name == "a[1].csv"
    assert only(tmp_path / "b::c").name == "d.csv"


def test_links_to_folders_are_followed_once_and_links_to_nothing_are_named(tmp_path: Path) -> None:
    write(tmp_path, "real/a.csv")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "in")
    assert [source.name for source in find_sources(str(tmp_path / "in"))] == ["a.csv"]
    (tmp_path / "in" / "gone.csv").symlink_to(tmp_path / "nowhere")
    [broken] = [source for source in find_sources(str(tmp_path / "in")) if source.name == "gone.csv"]
    assert broken.size is None
    with pytest.raises(InputError, match=r"cannot read .*gone\.csv: No such file"):
        broken.head()


def test_where_nothing_is_is_said(tmp_path: Path, memory: MemoryFileSystem) -> None:
    (tmp_path / "empty").mkdir()
    for location in (tmp_path / "gone.csv", tmp_path / "empty", tmp_path / "*.csv", "memory://gone", "memory://gone/*"):
        with pytest.raises(InputError, match="there is nothing at .*(gone|empty|csv)"):
            find_sources(str(location))


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path, "a.csv")
    with pytest.raises(InputError, match="pipe is neither a file nor a folder"):
        find_sources(str(tmp_path / "pipe"))
    assert only(tmp_path).name == "a.csv"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_named_and_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "closed/b.csv")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(InputError, match="cannot read .*closed: Permission denied"):
            find_sources(str(tmp_path))
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.csv", "closed/b.csv")
    scandir = os.scandir

    def refuse(folder: str) -> Iterator[os.DirEntry[str]]:
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="cannot read .*closed: Permission denied"):
        find_sources(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("new_abc.txt", "new_abc.txt"),
        ("new_abc.txt.gz", "new_abc.txt"),
        ("new_abc.txt.zst", "new_abc.txt"),
        ("A.CSV.GZ", "A.CSV"),
        ("gz", "gz"),
    ],
)
def test_the_stem_is_the_name_without_what_says_compressed(tmp_path: Path, name: str, stem: str) -> None:
    assert source_of(tmp_path, b"1", name).stem == stem


def test_a_name_that_is_no_text_can_be_printed_and_stored(tmp_path: Path) -> None:
    name = os.fsdecode(b"new_caf\xe9.txt")
    write(tmp_path, name, data=TEXT)
    source = only(tmp_path)
    assert source.name == source.stem == "new_caf\\xe9.txt"
    assert source.path.encode().endswith(b"new_caf\\xe9.txt")
    assert content(source) == TEXT


# Bytes


PACKINGS = {
    "plain": TEXT,
    "empty": b"",
    "one byte": b"\x1f",
    "gzip": PACKED,
    "gzip of many members": gzip.compress(TEXT[:1000]) + gzip.compress(b"") + gzip.compress(TEXT[1000:]),
    "gzip padded with zeros": PACKED + bytes(512),
    "zstd": zstd(TEXT),
    "zstd of many frames": zstd(TEXT[:1000]) + zstd(TEXT[1000:]),
    "zstd after a frame to be skipped": b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(TEXT),
    "bzip2": bz2.compress(TEXT),
    "bzip2 of many streams": bz2.compress(TEXT[:1000]) + bz2.compress(TEXT[1000:]),
    "xz": lzma.compress(TEXT),
}
UNPACKED = {"empty": b"", "one byte": b"\x1f"}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_compression_is_known_by_content_whatever_the_name(tmp_path: Path, packing: str, name: str) -> None:
    source = source_of(tmp_path, PACKINGS[packing], name)
    wanted = UNPACKED.get(packing, TEXT)
    assert content(source) == wanted
    assert source.head() == wanted[:65536]
    assert source.head(7) == wanted[:7]
    with source.open_raw() as stream:
        assert stream.read() == PACKINGS[packing]
    with source.open() as stream:
        assert list(stream) == wanted.splitlines(keepends=True)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_archive_stands_for_its_files(tmp_path: Path, method: int) -> None:
    members = {"b.csv": TEXT, "sub/a.csv.gz": PACKED, "sub/": b"", "__MACOSX/._b.csv": b"", "sub/.x": b"", "c.tmp": b""}
    file = zipped(tmp_path / "trips.zip", members, method)
    first, second = find_sources(str(file))
    assert (first.name, first.stem, first.size) == ("trips.zip/b.csv", "b.csv", len(TEXT))
    assert (second.name, second.stem, second.path) == (
        "trips.zip/sub/a.csv.gz",
        "a.csv",
        f"{file}/sub/a.csv.gz",
    )
    assert content(first) == content(second) == TEXT
    assert first.head(5) == TEXT[:5]
    with second.open_raw() as stream:
        assert stream.read() == PACKED
    assert first.digest() == f"trips.zip/b.csv:{hashlib.sha256(TEXT).hexdigest()}"
    assert second.digest() == f"trips.zip/sub/a.csv.gz:{hashlib.sha256(PACKED).hexdigest()}"


def test_members_of_an_archive_that_was_streamed_or_appended_to_are_found(tmp_path: Path) -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    stream = Unseekable()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:  # sizes stand after the data, not before
        archive.writestr("a.csv", TEXT)
    (tmp_path / "a.ZIP").write_bytes(b"#!/bin/sh\n" + stream.getvalue())
    assert content(only(tmp_path / "a.ZIP")) == TEXT


def test_raw_bytes_have_random_access(tmp_path: Path, memory: MemoryFileSystem) -> None:
    table = pa.table({"x": range(1000)})
    parquet.write_table(table, tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    zipped(tmp_path / "a.zip", {"a.parquet": data})
    memory.pipe("/a.parquet", data)
    for location in (tmp_path / "a.parquet", tmp_path / "a.zip", "memory://a.parquet"):
        with only(location).open_raw() as stream:
            assert parquet.read_table(stream).equals(table)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(cut=st.integers(0, len(PACKED)), sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=20))
def test_however_it_is_read_a_stream_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, cut: int, sizes: list[int]
) -> None:
    source = source_of(tmp_path_factory.mktemp("stream"), gzip.compress(TEXT[:cut]) + gzip.compress(TEXT[cut:]))
    with source.open() as stream:
        parts = [stream.read(size) for size in sizes]
        assert b"".join([*parts, stream.read()]) == TEXT


def test_the_digest_is_of_the_bytes_as_they_lie_and_the_same_in_whatever_folder(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        write(tmp_path, f"{folder}/a.csv.gz", data=PACKED)
    here, there = find_sources(str(tmp_path))
    assert here.digest() == there.digest() == f"a.csv.gz:{hashlib.sha256(PACKED).hexdigest()}"
    assert source_of(tmp_path, PACKED, "b.csv.gz").digest() != here.digest()


def test_a_source_can_be_sent_to_another_process(tmp_path: Path) -> None:
    for location in (source_of(tmp_path, PACKED).path, zipped(tmp_path / "a.zip", {"a": PACKED})):
        source = only(location)
        copy = pickle.loads(pickle.dumps(source))  # noqa: S301  # as a scheduler does
        assert copy == source
        assert content(copy) == TEXT


# What cannot be read


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def zip_bytes(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


MEMBERS = {"./a.csv": b"1 2\n", "sub/b.csv": TEXT, "sub/.hidden": b"x", "long/" + "n" * 120 + ".csv": b"3\n"}
ARCHIVES = {
    "tar": tarred(MEMBERS),
    "tar.gz": tarred(MEMBERS, "w:gz"),
    "tar.bz2": tarred(MEMBERS, "w:bz2"),
    "tar.xz": tarred(MEMBERS, "w:xz"),
    "tar.zst": zstd(tarred(MEMBERS)),
    "zip": zip_bytes(MEMBERS),
    "zip in a zip": zip_bytes({"inner.zip": zip_bytes(MEMBERS)}),
    "tar.gz in a zip in a tar": tarred({"z": zip_bytes({"inner": tarred(MEMBERS, "w:gz")})}),
    "packed files in a tar": tarred({name: gzip.compress(data) for name, data in MEMBERS.items()}),
}


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("name", ["download", "records.csv", "records.tgz"])
def test_an_archive_is_known_by_content_and_stands_for_its_files(tmp_path: Path, kind: str, name: str) -> None:
    write(tmp_path, name, data=ARCHIVES[kind])
    sources = find_sources(str(tmp_path / name))
    found = {source.name.rpartition("/")[2][-10:]: content(source) for source in sources}
    assert found == {"a.csv": b"1 2\n", "b.csv": TEXT, "nnnnnn.csv": b"3\n"}
    assert all(source.path.startswith(f"{tmp_path / name}/") for source in sources)
    for source in sources:
        copy = pickle.loads(pickle.dumps(source))  # noqa: S301  # as a scheduler does
        assert (copy, copy.digest(), content(copy)) == (source, source.digest(), content(source))
        with source.open_raw() as stream:
            stream.seek(1)
            assert stream.seekable()
    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(content, sources * 5)] == [content(source) for source in sources] * 5


def test_an_archive_in_too_many_others_is_named(tmp_path: Path) -> None:
    data = TEXT
    for _ in range(5):
        data = zip_bytes({"in": data})
    write(tmp_path, "a.zip", data=data)
    with pytest.raises(InputError, match=r"cannot read .*a\.zip/in/in/in/in: it is an archive in 4 others"):
        find_sources(str(tmp_path / "a.zip"))


@pytest.mark.parametrize("cut", [700, 1500, -20_000])
def test_a_damaged_tar_archive_is_named(tmp_path: Path, cut: int) -> None:
    whole = tarred({"a": TEXT[:900], "b": TEXT})
    for data in (whole[:cut], whole[:1536] + b"x" * 512 + whole[2048:], gzip.compress(whole)[: cut // 10]):
        write(tmp_path, "a.tar", data=data)
        with pytest.raises(InputError, match=r"^cannot read .*a\.tar"):
            for source in find_sources(str(tmp_path / "a.tar")):
                content(source)


def test_an_archive_in_an_archive_that_is_damaged_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a.zip", data=zip_bytes({"good.csv": TEXT, "bad.zip": zip_bytes({"b.csv": TEXT})[:-30]}))
    with pytest.raises(InputError, match=r"cannot read .*a\.zip/bad\.zip: "):
        find_sources(str(tmp_path / "a.zip"))


def test_a_workbook_is_a_file_and_no_archive(tmp_path: Path) -> None:
    write(tmp_path, "a.xlsx", data=zip_bytes({"[Content_Types].xml": b"<x/>", "xl/sheet.xml": b"<x/>"}))
    assert only(tmp_path / "a.xlsx").name == "a.xlsx"


def damaged(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]


BROKEN = {
    "truncated gzip": PACKED[:-20],
    "gzip without its end": PACKED[:-4],
    "gzip cut in the header": PACKED[:5],
    "damaged gzip": damaged(PACKED),
    "wrong checksum": PACKED[:-5] + bytes([PACKED[-5] ^ 1]) + PACKED[-4:],
    "gzip and then junk": PACKED + b"junk",
    "truncated zstd": zstd(TEXT)[:-20],
    "truncated bzip2": bz2.compress(TEXT)[:-20],
    "damaged bzip2": damaged(bz2.compress(TEXT)),
    "truncated xz": lzma.compress(TEXT)[:-20],
    "damaged xz": damaged(lzma.compress(TEXT)),
    "damaged zstd": zstd(TEXT)[:10] + b"\xff" * 50 + zstd(TEXT)[60:],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_streams_are_named_in_whoever_reads_them(tmp_path: Path, data: bytes) -> None:
    source = source_of(tmp_path, data)
    with pytest.raises(InputError, match=r"^cannot read .*/a\.csv: ."):
        content(source)
    with pytest.raises(InputError, match=r"^cannot read .*/a\.csv: ."), source.open() as stream:
        pd.read_csv(stream)
    with pytest.raises(InputError, match=r"^cannot read .*/a\.csv: ."), source.open() as stream:
        csv.read_csv(stream)
    with pytest.raises(InputError, match=r"^cannot read .*/a\.csv: ."), source.open() as stream:
        for _ in csv.open_csv(stream, csv.ReadOptions(block_size=4096)):
            pass


def test_a_stream_that_fails_late_gives_what_comes_before(tmp_path: Path) -> None:
    source = source_of(tmp_path, PACKED[:-20])
    assert source.head(1000) == TEXT[:1000]


def rewritten(file: Path, old: bytes, new: bytes) -> Path:
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new))
    return file


def test_broken_archives_are_named(tmp_path: Path, memory: MemoryFileSystem) -> None:
    write(tmp_path, "none.zip", data=b"no archive")
    memory.pipe("/none.zip", b"no archive")
    for location in (tmp_path / "none.zip", tmp_path, "memory://none.zip"):
        with pytest.raises(InputError, match=r"cannot read .*none\.zip: File is not a zip file"):
            find_sources(str(location))
    file = zipped(tmp_path / "a.zip", {"a.csv": TEXT}, zipfile.ZIP_STORED)
    changed = only(rewritten(file, TEXT[:10], b"9" * 10))
    with pytest.raises(InputError, match=r"cannot read .*a\.zip/a\.csv: Bad CRC"):
        content(changed)
    with pytest.raises(InputError, match=r"cannot read .*a\.zip/a\.csv: Bad CRC"):
        changed.open_raw()
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot read .*a\.zip/a\.csv: the archive has changed"):
        content(changed)
    file.unlink()
    with pytest.raises(InputError, match=r"cannot read .*a\.zip: No such file"):
        content(changed)


@pytest.mark.parametrize(("offset", "value", "why"), [(8, 1, "encrypted"), (10, 9, "compression")])
def test_members_that_are_encrypted_or_packed_in_an_unknown_way_are_named(
    tmp_path: Path, offset: int, value: int, why: str
) -> None:
    file = zipped(tmp_path / "a.zip", {"a.csv": TEXT})
    data = bytearray(file.read_bytes())
    data[data.index(b"PK\x01\x02") + offset] = value
    file.write_bytes(data)
    with pytest.raises(InputError, match=rf"cannot read .*a\.zip/a\.csv: .*{why}"):
        content(only(file))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    source = source_of(tmp_path, TEXT)
    (tmp_path / "a.csv").unlink()
    for read in (source.open, source.open_raw, source.head, source.digest):
        with pytest.raises(InputError, match=r"cannot read .*/a\.csv: No such file"):
            read()


def test_reading_turns_arrows_errors_and_no_bugs() -> None:
    with pytest.raises(InputError, match="^cannot read a.parquet: .*Parquet"), reading("a.parquet"):
        parquet.read_table(io.BytesIO(b"no table at all"))
    with pytest.raises(InputError, match="^cannot read b.csv: CSV parse error"), reading("b.csv"):
        csv.read_csv(io.BytesIO(b"a,b\n1\n"))
    with pytest.raises(ZeroDivisionError), reading("a.csv"):
        _ = 1 / 0
    with pytest.raises(InputError, match="^as it was$"), reading("a.csv"):
        raise InputError("as it was")


# URLs


def test_file_urls_are_files_with_the_same_digest(tmp_path: Path) -> None:
    plain = source_of(tmp_path, PACKED)
    assert find_sources(f"file://{tmp_path}/a.csv") == find_sources(f"file://{tmp_path}") == [plain]
    assert find_sources(f"file://{tmp_path}/*.csv") == [plain]


def test_a_remote_file_folder_and_glob(memory: MemoryFileSystem) -> None:
    for name in ("a.csv", "sub/b.csv", "sub/.c", ".d/e.csv", "f.tmp", "new_1.csv"):
        memory.pipe(f"/in/{name}", PACKED)
    file = only("memory://in/a.csv")
    assert (file.name, file.path, file.size) == ("a.csv", "memory:///in/a.csv", len(PACKED))
    assert content(file) == TEXT
    assert file.head(9) == TEXT[:9]
    assert file.digest() == f"a.csv:{hashlib.sha256(PACKED).hexdigest()}"
    assert [source.name for source in find_sources("memory://in")] == ["a.csv", "new_1.csv", "b.csv"]
    assert [source.name for source in find_sources("memory://in/new_*.csv")] == ["new_1.csv"]
    assert [source.name for source in find_sources("memory://in/s*")] == ["b.csv"]
    assert pickle.loads(pickle.dumps(file)).head(9) == TEXT[:9]  # noqa: S301


def test_a_remote_archive(tmp_path: Path, memory: MemoryFileSystem) -> None:
    memory.pipe("/in/trips.zip", zipped(tmp_path / "t.zip", {"a.csv": TEXT, "sub/b.csv": b"x"}).read_bytes())
    first, second = find_sources("memory://in/trips.zip")
    assert (first.name, second.name) == ("trips.zip/a.csv", "trips.zip/sub/b.csv")
    assert (content(first), content(second)) == (TEXT, b"x")


@pytest.mark.parametrize("data", [PACKED[:-20], damaged(PACKED)])
def test_broken_remote_streams_are_named(memory: MemoryFileSystem, data: bytes) -> None:
    memory.pipe("/in/a.csv", data)
    with pytest.raises(InputError, match=r"^cannot read memory:///in/a\.csv: ."):
        content(only("memory://in/a.csv"))


def test_a_driver_that_fails_in_its_own_way_while_a_file_is_read_is_named(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ClientError(Exception):
        """As of a driver: no OSError, and it tells secrets."""

    class Failing(io.BytesIO):
        def readinto(self, _: object) -> int:
            raise ClientError("403 for https://me:hunter2@host/a.csv?sig=hunter2")

    memory.pipe("/a.csv", TEXT)
    source = only("memory://a.csv")
    monkeypatch.setattr(MemoryFileSystem, "open", lambda *_: Failing())
    with pytest.raises(InputError, match=r"^cannot read memory:///a\.csv: 403 for https://host/a\.csv") as caught:
        source.head()
    assert "hunter2" not in str(caught.value)


def test_a_file_system_without_a_driver_is_named_without_secrets() -> None:
    for url in ("nosuch://me:hunter2@host/a.csv?key=hunter2", "nosuch://me:hunter2@host/new_*.csv"):
        with pytest.raises(InputError, match="cannot read nosuch://host/.*Protocol not known: nosuch") as caught:
            find_sources(url)
        assert "hunter2" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known_implementations, "far", {"class": "no_such_driver.Far", "err": "Install far"})
    with pytest.raises(InputError, match="cannot read far://bucket/a.csv: Install far"):
        find_sources("far://bucket/a.csv")


def test_a_source_shows_no_secrets() -> None:
    url = "https://me:hunter2@host/a.csv?sig=hunter2"
    source = Source("a.csv", "https://host/a.csv?...", None, url, url)
    assert "hunter2" not in repr(source)


# What a file may unpack to


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_UNPACKED_BYTES", 100_000)
    text = bytes(600_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", text)
        archive.writestr("b.csv", text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    for name in ("a.zip", "a.csv.gz"):
        with pytest.raises(InputError, match=f"{name}.*200 times its size"), only(tmp_path / name).open() as stream:
            stream.read()
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text, 0))  # as large as it is
    with only(tmp_path / "b.csv.gz").open() as stream:
        assert stream.read() == text


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_FILES", 9)
    for name, n in (("a.zip", 9), ("b.zip", 10)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for i in range(n):
                archive.writestr(f"{i}.csv", b"1")
    assert len(find_sources(str(tmp_path / "a.zip"))) == 9
    with pytest.raises(InputError, match=r"b.zip: it holds more than 9 files"):
        find_sources(str(tmp_path / "b.zip"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_file_of_an_archive_is_unpacked_in_steps(
    tmp_path: Path, method: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = random.Random(0).randbytes(30_000) * 9
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.csv", text)
    asked: list[int] = []
    read = zipfile.ZipExtFile._read2  # type: ignore[attr-defined]
    monkeypatch.setattr(zipfile.ZipExtFile, "_read2", lambda self, n: asked.append(n) or read(self, n))
    with only(tmp_path / "a.zip").open() as stream:
        assert stream.read() == text
    assert max(asked) <= 4096
    if method == zipfile.ZIP_LZMA:
        monkeypatch.setattr(archives, "_DECODER_BYTES", 1 << 16)
        with pytest.raises(InputError, match="memory to be unpacked"):
            only(tmp_path / "a.zip").open()


def test_a_full_disk_is_no_fault_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        (tmp_path / "a.csv").write_bytes(bytes(3000))
        archive.add(tmp_path / "a.csv", "a.csv")
    monkeypatch.setattr(sources, "_SPOOL_BYTES", 1000)
    monkeypatch.setattr(sources, "_FREE_BYTES", 1 << 60)
    with pytest.raises(OSError, match="of the disk free"):
        find_sources(str(tmp_path / "a.tar.gz"))
