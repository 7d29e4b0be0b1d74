"""Files that are written in one step, and locks that are waited for in bounded time."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from trafficcast.errors import JobError
from trafficcast.files import set_aside, write_text, writer_lock
from trafficcast.stores.sqlite import open_database


def test_a_lock_is_waited_for_in_bounded_time_and_its_holder_is_named(tmp_path: Path) -> None:
    backup = subprocess.Popen(["flock", "--no-fork", tmp_path / ".lock", "sleep", "600"])
    try:
        while True:
            try:
                with writer_lock(tmp_path, wait_seconds=0):
                    time.sleep(0.01)
            except JobError:
                break
        began = time.monotonic()
        with pytest.raises(JobError) as error, writer_lock(tmp_path, wait_seconds=0.5):
            pass
        assert 0.4 < time.monotonic() - began < 5
        who = f"process {backup.pid} (sleep)" if sys.platform == "linux" else "another process"
        assert str(error.value) == (
            f"{tmp_path / '.lock'} is locked by {who}, for more than 0.5 s: wait until it has ended, or end it"
        )
    finally:
        backup.kill()
        backup.wait()
    with writer_lock(tmp_path, wait_seconds=0):
        pass


def test_a_locked_database_is_named_with_who_holds_it(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE runs (slot)")
        other.execute("BEGIN EXCLUSIVE")
        sentence = rf"^{file} is locked by (process \d+ \(.+\)|another process), for more than 0.1 s: wait"
        with pytest.raises(JobError, match=sentence), open_database(file, wait_seconds=0.1) as database:
            database.execute("SELECT * FROM runs")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "new" / "file", "text")
        with writer_lock(tmp_path):
            pass
    finally:
        os.umask(before)
    for file in ("new/file", ".lock"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == mode
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["file"]


def test_after_a_replacement_the_folder_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = list[str]()
    replaced, synced = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replaced"), replaced(*paths)))

    def sync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        synced(handle)

    monkeypatch.setattr(os, "fsync", sync)
    write_text(tmp_path / "file", "text")
    assert done == ["file", "replaced", "folder"]
    done.clear()
    set_aside(tmp_path / "file")
    assert done == ["replaced", "folder"]
