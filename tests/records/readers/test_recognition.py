"""Which files are records, of which format, and what a person is told about the others."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trafficcast.config.city import City
from trafficcast.config.feed import Feed, _ColumnNames
from trafficcast.errors import InputError
from trafficcast.records import readers
from trafficcast.records.readers import _FORMATS, _Format, find_records, read, recognise
from trafficcast.records.records import Batch, Points
from trafficcast.records.sources import Source, find_sources

CITY = City(west=-123, east=-122, south=37, north=38, timezone="UTC", name="bay")
ROW = b"37.75134 -122.39488 1 1213084687\n"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
SHARED = Path(__file__).parents[4] / "shared" / "data" / "cabspotting"


def write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)


def source(folder: Path, data: bytes, name: str = "notes.txt") -> Source:
    (folder / name).write_bytes(data)
    return find_sources(str(folder / name))[0]


def with_format(name: str) -> City:
    return CITY.model_copy(update={"feed": Feed(format=name)})


@pytest.fixture
def starred(monkeypatch: pytest.MonkeyPatch) -> Callable[[Source, City], Iterator[Batch]]:
    """One more format, known by a star anywhere in the first bytes; its reader yields a batch of no rows."""

    def read_starred(source: Source, city: City) -> Iterator[Batch]:
        yield Batch(Points.concatenate([]), 0, notes=(f"{source.name} in {city.name}",))

    monkeypatch.setitem(_FORMATS, "starred", _Format(lambda source, head: b"*" in head, read_starred))
    return read_starred


def test_in_a_folder_what_is_no_record_is_passed_over_and_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        new_a__txt=ROW,
        new_b__txt__gz=gzip.compress(ROW),
        README__md=b"# Taxis\n\nOf San Francisco\n",
        _SUCCESS=b"",
        map__png=PNG,
        new_notes__txt=b"what is new\n",
        LICENSE=b"Permission is hereby granted\n",
    )
    for location in (str(tmp_path), str(tmp_path / "*")):
        found, passed_over = find_records(location, CITY)
        assert [(one.name, name) for one, name in found] == [
            ("new_a.txt", "cabspotting"),
            ("new_b.txt.gz", "cabspotting"),
        ]
        told = dict(zip(("LICENSE", "README.md", "_SUCCESS", "map.png", "new_notes.txt"), passed_over, strict=True))
        assert all(f"{tmp_path / name} is " in line for name, line in told.items())
        assert told["README.md"].endswith("is not recognised: its first line is '# Taxis'")
        assert told["_SUCCESS"].endswith("is empty")
        assert "is binary" in told["map.png"]


def test_one_file_of_no_format_is_refused_with_what_it_looks_like_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_records(source(tmp_path, b"\n  dear diary\nsecond line\n").path, CITY)
    text = str(caught.value)
    assert f"{tmp_path / 'notes.txt'} is of no known format: its first line is 'dear diary'" in text
    assert "--format" in text
    assert "[cities.bay.feed]" in text
    assert all(name in text for name in _FORMATS)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (PNG, r"binary and begins b'\x89PNG"),
        (b"a\x1b[31mb\x07\n", r"'a\x1b[31mb\x07'"),
        (b"caf\xe9 au lait", r"'caf\\xe9 au lait'"),
        ("\u4e0a\u6d77 taxi".encode(), "'\u4e0a\u6d77 taxi'"),
        (b"\xef\xbb\xbfmarked", "'marked'"),
        (b"w" * 1000, "'" + 80 * "w" + "'..."),
        (b"w " * 100_000, "..."),
    ],
    ids=["binary", "control", "latin-1", "chinese", "mark", "long", "very long"],
)
def test_the_first_bytes_are_shown_safely(tmp_path: Path, data: bytes, shown: str) -> None:
    with pytest.raises(InputError) as caught:
        recognise(source(tmp_path, data), CITY)
    assert shown in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "\x1b" not in str(caught.value)


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    write(tmp_path, a__md=b"# one\n", b__md=b"# two\n")
    with pytest.raises(
        InputError, match=r"none of 2 files holds records: .*a\.md is of no known format: its first line is '# one'"
    ):
        find_records(str(tmp_path), CITY)


@pytest.mark.parametrize("data", [b"", b"\n \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("name", ["new_a.txt", "records.csv"])
def test_an_empty_file_holds_no_records_and_is_no_mistake(tmp_path: Path, name: str, data: bytes) -> None:
    empty = source(tmp_path, data, name)
    for wanted in (None, "cabspotting"):
        assert find_records(str(tmp_path), CITY, wanted) == ([], [f"{empty.path} is empty"])
        assert list(read(empty, CITY, wanted)) == []


def test_a_file_is_not_empty_because_it_begins_with_blanks(tmp_path: Path) -> None:
    late = source(tmp_path, b"\n" * 10_000 + ROW, "new_a.txt")
    [batch] = read(late, CITY)
    assert batch.rows == 1


def test_a_damaged_file_of_a_cabs_name_stops_a_folder_and_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, new_a__txt=ROW, new_b__txt=PNG)
    [_, (damaged, name)] = find_records(str(tmp_path), CITY)[0]
    with pytest.raises(InputError, match=r"new_b\.txt is not a Cabspotting file"):
        list(read(damaged, CITY, name))
    (tmp_path / "new_b.txt").write_bytes(gzip.compress(ROW)[:12])
    [_, (damaged, name)] = find_records(str(tmp_path), CITY)[0]
    with pytest.raises(InputError, match=r"cannot read .*new_b\.txt"):
        list(read(damaged, CITY, name))


def test_the_first_format_that_says_yes_is_taken(tmp_path: Path, starred: object) -> None:
    assert recognise(source(tmp_path, b"1 2 3 * \n" + ROW, "new_a.txt"), CITY) == "cabspotting"
    assert recognise(source(tmp_path, b"1 2 3 * \n" + ROW, "old_a.txt"), CITY) == "starred"


def test_more_of_a_file_is_looked_at_where_a_little_does_not_tell(tmp_path: Path, starred: object) -> None:
    assert recognise(source(tmp_path, b"-" * 60_000 + b"*"), CITY) == "starred"
    with pytest.raises(InputError):
        recognise(source(tmp_path, b"-" * 70_000 + b"*"), CITY)


def test_a_named_format_is_that_of_one_file_and_chooses_among_many(tmp_path: Path, starred: object) -> None:
    plain = source(tmp_path, b"no star\n")
    for city, wanted in ((CITY, "starred"), (with_format("starred"), None)):
        assert find_records(str(tmp_path / "notes.txt"), city, wanted) == ([(plain, "starred")], [])
    write(tmp_path, b__txt=b"a *\n", new_c__txt=ROW)
    for city, wanted in ((CITY, "starred"), (with_format("starred"), None)):
        found, passed_over = find_records(str(tmp_path), city, wanted)
        assert [one.name for one, _ in found] == ["b.txt"]
        assert [line.partition(" is ")[2] for line in passed_over] == [
            f"not starred: its first line is '{ROW.decode().strip()}'",
            "not starred: its first line is 'no star'",
        ]


def test_the_named_format_goes_before_the_feeds(tmp_path: Path, starred: object) -> None:
    write(tmp_path, new_a__txt=ROW, b__txt=b"a *\n")
    [(found, name)], _ = find_records(str(tmp_path), with_format("starred"), "cabspotting")
    assert (found.name, name) == ("new_a.txt", "cabspotting")


def test_among_many_none_of_the_named_format_is_refused(tmp_path: Path, starred: object) -> None:
    write(tmp_path, new_a__txt=ROW, new_b__txt=ROW)
    with pytest.raises(InputError, match=r"new_a\.txt is not starred: .*; known are .*starred"):
        find_records(str(tmp_path), CITY, "starred")


def test_an_unknown_format_is_refused_with_the_nearest_and_all(tmp_path: Path) -> None:
    some = source(tmp_path, ROW, "new_a.txt")
    calls: list[Callable[[], object]] = [
        lambda: read(some, CITY, "cabspoting"),
        lambda: find_records(some.path, CITY, "cabspoting"),
        lambda: find_records(some.path, with_format("cabspoting")),
        lambda: recognise(some, with_format("cabspoting")),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"'cabspoting', did you mean 'cabspotting'\? Known are cabspotting"):
            call()
    with pytest.raises(InputError, match=r"unknown format 'qqq'\. Known are cabspotting"):
        read(some, CITY, "qqq")


def test_read_recognises_what_is_not_named(tmp_path: Path, starred: object) -> None:
    [batch] = read(source(tmp_path, ROW, "new_a.txt"), CITY)
    assert batch.vehicles == ["a"]
    [batch] = read(source(tmp_path, ROW, "new_a.txt"), CITY, "starred")
    assert batch.notes == ("new_a.txt in bay",)
    with pytest.raises(InputError, match="no known format"):
        read(source(tmp_path, b"nothing\n"), CITY)


def test_every_format_is_named_and_the_particular_go_before_the_general() -> None:
    assert list(readers._FORMATS) == [
        *("cabspotting", "tdrive", "porto", "tlc", "gtfs-realtime", "csv", "parquet", "jsonl"),
    ]


@pytest.mark.skipif(not SHARED.exists(), reason="the Cabspotting records are not beside the project")
def test_the_real_folder() -> None:
    found, passed_over = find_records(str(SHARED), CITY)
    assert len(found) == 537
    assert {name for _, name in found} == {"cabspotting"}
    assert [line.split(" is ")[0] for line in passed_over] == [str(SHARED / "README.md")]


def test_where_columns_are_named_a_file_is_a_table_of_them(tmp_path: Path) -> None:
    """A table with the latitude first, which looks like T-Drive's."""
    file = tmp_path / "taxis.csv"
    file.write_text("7,2008-02-02 15:36:08,39.9,41.5\n" * 3)
    feed = Feed(columns=_ColumnNames(vehicle="0", time="1", lat="2", lon="3"))
    city = CITY.model_copy(update={"feed": feed})
    ((source, name),), _ = find_records(str(file), city)
    assert name == "csv"
    (batch,) = read(source, city, name)
    assert isinstance(batch.records, Points)
    assert (batch.records.lon.tolist(), batch.records.lat.tolist()) == ([41.5] * 3, [39.9] * 3)
    ((_, name),), _ = find_records(str(file), CITY)
    assert name == "tdrive"
