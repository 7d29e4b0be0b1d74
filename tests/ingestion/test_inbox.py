"""The inbox: what is new and whole is taken once, what is bad goes to quarantine, and nothing is lost."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cities import small_city, stores_in
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.ingestion import inbox as module
from trafficcast.ingestion.inbox import take_inbox
from trafficcast.ingestion.ingest import ingest
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.records.readers import _FORMATS
from trafficcast.records.records import Batch
from trafficcast.records.sources import Source

CITY = small_city()
NOON = 1_712_570_400


def rows(start: int, n: int = 30, lat: float = 45.47) -> bytes:
    return "".join(f"{lat} {9.11 + 0.02 * (i % 7)} 0 {start + 60 * i}\n" for i in range(n)).encode()


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty inbox, for whose files nobody waits."""
    monkeypatch.setattr(module, "_QUIET_SECONDS", 0.0)
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def look(box: Path) -> module._Look:
    return take_inbox(box, stores_in(box.parent / "data", CITY), 2)


def flows(data: Path) -> Any:
    return stores_in(data, CITY).flows.read()


def test_new_files_are_taken_once(box: Path, snapshot: Callable[[Path], dict[str, bytes]]) -> None:
    (box / "new_a.txt").write_bytes(rows(NOON))
    assert look(box).taken == ["new_a.txt"]
    before = snapshot(box.parent)
    assert look(box) == module._Look([], {}, [])
    assert snapshot(box.parent) == before
    (box / "sub").mkdir()
    (box / "sub" / "new_b.txt.gz").write_bytes(gzip.compress(rows(NOON, lat=45.5)))
    assert look(box).taken == ["sub/new_b.txt.gz"]
    ingest(str(box), stores_in(box.parent / "at once", CITY))
    assert flows(box.parent / "data").identical(flows(box.parent / "at once"))


def test_a_file_that_has_grown_is_taken_again(box: Path) -> None:
    (box / "new_a.txt").write_bytes(rows(NOON))
    look(box)
    (box / "new_a.txt").write_bytes(rows(NOON, 50))
    taken = look(box)
    assert taken.taken == ["new_a.txt"] and taken.report is not None
    assert taken.report["points_kept"] == 50
    assert taken.report["rows_dropped"]["duplicate"] == 30


def test_bad_files_go_to_quarantine_and_do_not_stop_the_others(box: Path) -> None:
    whole = gzip.compress(rows(NOON, 500))
    (box / "new_a.txt").write_bytes(rows(NOON))
    (box / "new_cut.txt.gz").write_bytes(whole[:-20])
    (box / "picture.csv").write_bytes(bytes(range(256)) * 9)
    (box / "new_swapped.txt").write_text("".join(f"9.15 45.47 0 {NOON + i}\n" for i in range(99)))
    bad = {name: (box / name).read_bytes() for name in ("new_cut.txt.gz", "picture.csv", "new_swapped.txt")}
    found = look(box)
    assert found.taken == ["new_a.txt"]
    assert set(found.quarantined) == set(bad)
    for name, content in bad.items():
        assert not (box / name).exists()
        assert (box / "quarantine" / name).read_bytes() == content
        assert (box / "quarantine" / f"{name}.reason.txt").read_text().strip() == found.quarantined[name]
    assert "cannot read" in found.quarantined["new_cut.txt.gz"]
    assert "are swapped" in found.quarantined["new_swapped.txt"]
    ingest(str(box / "new_a.txt"), stores_in(box.parent / "alone", CITY))
    assert flows(box.parent / "data").identical(flows(box.parent / "alone"))
    assert look(box) == module._Look([], {}, [])


def test_a_second_bad_file_of_a_name_finds_its_place(box: Path) -> None:
    for content in (b"\0\1\2" * 99, b"\3\4\5\0" * 99):
        (box / "x.csv").write_bytes(content)
        look(box)
    assert {file.name for file in (box / "quarantine").iterdir()} == {
        "x.csv", "x.csv.reason.txt", "x.csv.1", "x.csv.1.reason.txt",
    }  # fmt: skip


def test_a_file_with_nothing_to_count_does_not_stop_the_watch(box: Path) -> None:
    (box / "new_a.txt").write_bytes(rows(5))  # of 1970
    found = look(box)
    assert found.report is None and "seconds since the start of a simulation" in found.quarantined["new_a.txt"]
    (box / "new_b.txt").write_bytes(rows(NOON))
    assert look(box).taken == ["new_b.txt"]


def test_a_file_that_changed_a_moment_ago_is_left(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUIET_SECONDS", 60.0)
    (box / "new_a.txt").write_bytes(rows(NOON))
    os.utime(box / "new_a.txt", (1, 1))  # as a copy that keeps the time of its original would be
    assert look(box).waiting == ["new_a.txt"]
    assert not stores_in(box.parent / "data", CITY).flows.days()


@pytest.mark.parametrize("grows", [False, True])
def test_a_file_whose_time_lies_ahead_of_the_clock_is_taken_when_it_does_not_change(
    box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, grows: bool
) -> None:
    monkeypatch.setattr(module, "_QUIET_SECONDS", 5.0)
    (box / "new_a.txt").write_bytes(rows(NOON))

    def sleep(seconds: float) -> None:
        assert seconds == 5.0
        if grows:
            with open(box / "new_a.txt", "ab") as file:
                file.write(rows(NOON + 1800))

    clock = SimpleNamespace(time=lambda: time.time() - 6 * 3600, monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(module, "time", clock)
    found = look(box)
    assert (found.taken, found.waiting) == (([], ["new_a.txt"]) if grows else (["new_a.txt"], []))
    assert found.ahead == ["new_a.txt"]
    (said,) = [record.getMessage() for record in caplog.records if "ahead of the clock" in record.getMessage()]
    assert "new_a.txt" in said and "360 minutes" in said and f"{0 if grows else 1} of them did not change" in said
    if not grows:
        assert look(box) == module._Look([], {}, [])


def test_links_pipes_and_devices_are_refused_and_never_opened(box: Path, tmp_path: Path) -> None:
    secret = tmp_path / "passwd"
    secret.write_text("root:x:0:0:secret\n" * 9)
    (box / "new_a.txt").write_bytes(rows(NOON))
    (box / "link.csv").symlink_to(secret)
    (box / "folder").symlink_to(tmp_path)
    (box / "nowhere.csv").symlink_to(tmp_path / "nowhere")
    os.mkfifo(box / "pipe.csv")  # who opens it waits for ever
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(box / "socket.csv"))
        found = look(box)
    assert found.taken == ["new_a.txt"]
    kinds = {name: reason.split(";")[0] for name, reason in found.quarantined.items()}
    assert kinds == {
        "folder": "it is a link", "link.csv": "it is a link", "nowhere.csv": "it is a link",
        "pipe.csv": "it is a pipe", "socket.csv": "it is a socket",
    }  # fmt: skip
    assert {file.name for file in box.iterdir()} == {"new_a.txt", "quarantine"}
    assert not any("secret" in file.read_text() for file in (box / "quarantine").glob("*.reason.txt"))
    assert secret.exists() and (box / "quarantine" / "link.csv").is_symlink()
    (box / "nowhere.csv").symlink_to(tmp_path / "nowhere")
    look(box)
    assert (box / "quarantine" / "nowhere.csv.1").is_symlink()


def test_a_bad_file_that_cannot_be_moved_keeps_no_other_waiting(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (box / "new_a.txt").write_bytes(rows(NOON))
    (box / "bad.csv").write_bytes(b"\0\1\2" * 99)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "replace", full)
        assert look(box).taken == ["new_a.txt"]
    assert [*look(box).quarantined] == ["bad.csv"] and not (box / "bad.csv").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who has a file open for writing")
def test_a_file_that_somebody_still_writes_is_left_until_it_is_whole(box: Path) -> None:
    with open(box / "new_a.txt", "wb") as file:
        file.write(rows(NOON, 20))
        file.flush()
        assert look(box).waiting == ["new_a.txt"]
        file.write(rows(NOON + 1200, 20))
    taken = look(box)
    assert taken.taken == ["new_a.txt"] and taken.report is not None
    assert taken.report["points_kept"] == 40


def test_hidden_and_unfinished_files_are_left(box: Path) -> None:
    for name in (".new_a.txt", "new_a.txt.part", "new_a.txt.tmp"):
        (box / name).write_bytes(rows(NOON))
    assert look(box) == module._Look([], {}, [])


def test_a_crash_after_the_records_are_stored_changes_nothing(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (box / "new_a.txt").write_bytes(rows(NOON))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RecordStore, "add_inbox_files", crash)
        with pytest.raises(KeyboardInterrupt):
            look(box)
    before = flows(box.parent / "data")
    again = look(box)
    assert again.report is not None and again.report["rows_dropped"]["duplicate"] == 0
    assert flows(box.parent / "data").identical(before)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder .*nowhere"):
        take_inbox(tmp_path / "nowhere", stores_in(tmp_path / "data", CITY), 1)


@pytest.mark.slow
def test_the_command_watches_and_survives_being_killed(config: Path, tmp_path: Path) -> None:
    stores = stores_in(tmp_path / "at once", CITY.model_copy(update={"slot_minutes": 60}))
    box = tmp_path / "inbox"
    box.mkdir()
    words = [
        sys.executable, "-m", "pipelines",
        "ingest", str(box), "--watch", "--every", "1", "--config", str(config),
    ]  # fmt: skip
    report = tmp_path / "data" / "small" / "quality.json"

    def files() -> int:
        return int(json.loads(report.read_text())["files"]) if report.exists() else 0

    def wait_for(n: int) -> None:
        end = time.monotonic() + 60
        while files() < n:
            assert time.monotonic() < end, "the watch takes nothing"
            assert process.poll() is None
            time.sleep(0.1)

    written = 0
    for _ in range(2):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        try:
            for _ in range(2):
                (box / f"new_{written}.txt").write_bytes(rows(NOON + 100 * written, 40, 45.43 + 0.02 * written))
                written += 1
            wait_for(written)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    ingest(
        str(box),
        stores,
    )
    whole = stores.flows.read()
    assert whole is not None
    found = stores_in(tmp_path / "data", CITY.model_copy(update={"slot_minutes": 60})).flows.read()
    assert whole.identical(found)


def test_without_a_path_the_configured_inbox_is_taken(trafficcast: Callable[..., Any], config: Path, box: Path) -> None:
    assert "name the PATH" in trafficcast("ingest").err
    config.write_text(config.read_text() + '[cities.small.feed]\ninbox = "inbox"\n')
    (box / "new_a.txt").write_bytes(rows(NOON))
    ran = trafficcast("ingest", "--json")
    assert ran.json["taken"] == ["new_a.txt"]
    assert ran.json["report"]["points_kept"] == 30
    assert "go with the PATH" in trafficcast("ingest", "--start", "2024-04-08").err


# Files that end the ingest


def poisoned(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[str]:
    """Have the reading of new_poison.txt end with an error; return the names of the files that are read."""
    seen: list[str] = []
    whole = _FORMATS["cabspotting"]

    def read(source: Source, city: City) -> Iterator[Batch]:
        seen.append(source.name)
        if source.name == "new_poison.txt":
            raise error
        return whole.read(source, city)

    monkeypatch.setitem(_FORMATS, "cabspotting", replace(whole, read=read))
    return seen


@pytest.mark.parametrize("error", [MemoryError(), ValueError("a bug of a reader")])
def test_files_beside_one_that_ends_the_ingest_are_taken_at_the_first_look(
    box: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in ("new_a.txt", "new_poison.txt", "new_z.txt"):
        (box / name).write_bytes(rows(NOON))
    seen = poisoned(monkeypatch, error)
    first = look(box)
    assert first.taken == ["new_a.txt", "new_z.txt"] and first.quarantined == {}
    (box / "new_b.txt").write_bytes(rows(NOON, lat=45.5))
    assert look(box).taken == ["new_b.txt"]
    seen.clear()
    third = look(box)
    assert seen == ["new_poison.txt"]
    assert type(error).__name__ in third.quarantined["new_poison.txt"]
    assert (box / "quarantine" / "new_poison.txt").read_bytes() == rows(NOON)
    assert look(box) == module._Look([], {}, [])
    assert not list(box.parent.rglob("attempts.json"))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt()])
def test_a_full_disk_and_an_end_by_a_person_are_no_fault_of_a_file(
    box: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (box / "new_a.txt").write_bytes(rows(NOON))
    (box / "new_poison.txt").write_bytes(rows(NOON))
    with monkeypatch.context() as patch:
        poisoned(patch, error)
        for _ in range(4):
            with pytest.raises(type(error)):
                look(box)
            assert not list(box.parent.rglob("attempts.json"))
    assert look(box).taken == ["new_a.txt", "new_poison.txt"]


def test_a_file_that_changes_is_tried_as_often_again(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        poisoned(patch, MemoryError())
        for size in (10, 11, 12, 13):
            (box / "new_poison.txt").write_bytes(rows(NOON, size))
            assert look(box).quarantined == {}
    assert look(box).taken == ["new_poison.txt"]


KILLED = """
import os, signal, sys
from dataclasses import replace
from trafficcast.ingestion import inbox
from trafficcast.records.readers import _FORMATS

whole = _FORMATS["cabspotting"]

def read(source, city):
    if source.name == "new_poison.txt":
        os.kill(os.getpid(), signal.SIGKILL)
    return whole.read(source, city)

_FORMATS["cabspotting"] = replace(whole, read=read)
inbox._QUIET_SECONDS = 0.0
from pipelines.cli.main import main
main()
"""


@pytest.mark.slow
def test_a_file_whose_reading_is_killed_three_times_goes_to_quarantine(config: Path, box: Path) -> None:
    for name in ("new_a.txt", "new_poison.txt", "new_z.txt"):
        (box / name).write_bytes(rows(NOON, lat=45.47 if name < "new_b" else 45.5))
    config.write_text(config.read_text() + '[cities.small.feed]\ninbox = "inbox"\n')
    words = [sys.executable, "-c", KILLED, "ingest", "--config", str(config)]
    report = config.parent / "data" / "small" / "quality.json"
    codes, files = [], []
    for _ in range(4):
        codes.append(subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode)
        files.append(json.loads(report.read_text())["files"] if report.exists() else 0)
    assert codes == [-signal.SIGKILL] * 3 + [0]
    assert files == [0, 1, 2, 2]  # one that is good may come after it once
    assert "3 times" in (box / "quarantine" / "new_poison.txt.reason.txt").read_text()
    assert {file.name for file in box.iterdir()} == {"new_a.txt", "new_z.txt", "quarantine"}
