"""Inbox: a folder whose new files are ingested, once each; a bad file goes to quarantine/ with the reason beside it.

Only files are taken: links, pipes and devices, which may lead anywhere, go to quarantine/ and are never opened.
Good files stay where they are. The record store remembers the files that were ingested, so a look at an inbox of a
year costs no more than listing it.

New files are ingested together. It is noted before that they are tried, and taken back after: where that ends in an
error of a kind that nobody foresaw, such as a lack of memory, or the process is killed, each of them is tried alone,
and the third failure puts it into quarantine.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trafficcast.errors import InputError, JobError
from trafficcast.files import replace, write_json, write_text
from trafficcast.ingestion.ingest import (
    _check_is_whole,
    _ingest_sources,
    _NothingToCount,
    broken_days,
    mend_flows,
)
from trafficcast.ingestion.record_store import RecordStore, _InboxFile
from trafficcast.ingestion.threads import _Found
from trafficcast.ingestion.way_of_reading import _way_of_reading
from trafficcast.progress import log
from trafficcast.records.readers import find_records
from trafficcast.records.sources import UNFINISHED, Source
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import judged_otherwise

_QUARANTINE = "quarantine"
_ATTEMPTS = 3
_NOT_ITS_FAULT = (InputError, JobError, OSError)  # of the configuration, a lock, a full disk: a later look may go well
_QUIET_SECONDS = 5.0  # a file that changed since is taken to be still written
_AHEAD_SECONDS = 60.0  # the time of a file that lies further ahead of the clock says nothing
_KINDS = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


@dataclass
class _Look:
    """The files of one look at an inbox: ingested, put into quarantine and why, and still being written.

    `ahead` are those of them whose times lie ahead of the clock.
    """

    taken: list[str]
    quarantined: dict[str, str]
    waiting: list[str]
    report: dict[str, Any] | None = None
    ahead: list[str] = field(default_factory=list)


def watch(inbox: Path, stores: CityStores, every_seconds: float, workers: int) -> None:
    """Ingest the new files of an inbox again and again, without end; a job that fails is logged and tried again.

    Parameters
    ----------
    inbox
        The folder.
    stores
        The city and its stores.
    every_seconds
        Seconds from the start of one look to the start of the next.
    workers
        Threads that read, count and write.
    """
    log.info("watching %s for %s, every %g s; stop with Ctrl-C", inbox, stores.city.name, every_seconds)
    while True:
        began = time.monotonic()
        try:
            take_inbox(inbox, stores, workers)
        except (JobError, OSError) as error:
            log.error("%s: %s; trying again in %g s", inbox, error, every_seconds)
        time.sleep(max(0.0, every_seconds - (time.monotonic() - began)))


def take_inbox(inbox: Path, stores: CityStores, workers: int) -> _Look:
    """Ingest the files of an inbox that are new and whole.

    Parameters
    ----------
    inbox
        The folder.
    stores
        The city and its stores.
    workers
        Threads that read, count and write.

    Returns
    -------
    _Look
        The files that were ingested, those put into quarantine and why, and those that are still being written.

    Raises
    ------
    InputError
        There is no such folder.
    """
    if not inbox.is_dir():
        raise InputError(f"there is no folder {inbox} to take new files from")
    store = RecordStore(stores.records)
    _check_is_whole(store)
    taken, read_as = store.inbox_files()
    way = _way_of_reading(stores.city, None)
    seen = taken if read_as in (None, way) else set()
    if taken and not seen:
        log.info("%s: the configuration reads its files otherwise now: they are looked at again", inbox)
    look = _Look([], {}, [])
    new = {file: facts for file, facts in _files(inbox).items() if _identity(inbox, file, facts) not in seen}
    steady = _steady(inbox, new, look)
    whole: dict[Path, _InboxFile] = {}
    for file, facts in new.items():
        now, kind = _identity(inbox, file, facts), stat.S_IFMT(facts.st_mode)
        if kind != stat.S_IFREG:
            what = _KINDS.get(kind, "a device")
            _quarantine(inbox, file, InputError(f"it is {what}; only files are taken, and it was not opened"), look)
        elif file not in steady and _has_changed(file) or _is_open(file):
            look.waiting.append(now.name)
        else:
            whole[file] = now
    attempts = _Attempts(store.root / "attempts.json", list(whole.values()))
    taking = _Taking(inbox, stores, workers, way, taken, look)
    alone = sorted((file for file in whole if attempts[whole[file]]), key=lambda file: attempts[whole[file]])
    groups = deque([[file for file in whole if file not in alone], *([file] for file in alone)])
    while groups:
        files = {file: whole[file] for file in groups.popleft()}
        failed = f"it ended the ingest {_ATTEMPTS} times, as does a lack of memory: see the log"
        if all(attempts[now] < _ATTEMPTS for now in files.values()):
            try:
                with attempts.noted(list(files.values())):
                    taking.take(files)
                continue
            except _NOT_ITS_FAULT:
                raise
            except Exception as error:  # noqa: BLE001  # a file that meets a bug must keep no other one waiting
                failed = f"{failed} ({type(error).__name__}: {error})"
                is_bug = not isinstance(error, MemoryError)
                log.error("%s: the ingest ended with %r", inbox, error, exc_info=is_bug)
        if len(files) > 1:
            log.error("%s: the %d files that were to be taken are tried one by one", inbox, len(files))
            groups.extendleft([file] for file in reversed(list(files)))
            continue
        for file, now in files.items():
            if attempts[now] < _ATTEMPTS:
                log.error("%s failed %d times, and is tried %d times", file, attempts[now], _ATTEMPTS)
                continue
            taking.refuse(file, now, InputError(failed))
            if now in taken:
                store.add_inbox_files([now], way)
            attempts.clear([now])
    if not taking.ingested and store.exists() and (broken_days(stores) or judged_otherwise(stores)):
        mend_flows(stores)
    if look.taken or look.quarantined:
        log.info("%s: %d files taken, %d to quarantine", inbox, len(look.taken), len(look.quarantined))
    return look


class _Attempts:
    """How often files were tried and neither taken nor refused: in a file, as the process may be killed meanwhile."""

    def __init__(self, path: Path, files: list[_InboxFile]) -> None:
        self._path = path
        self._numbers: dict[_InboxFile, int] = {}
        with suppress(FileNotFoundError, ValueError, TypeError):  # without it they are tried as often again
            found = {_InboxFile(*row[:3]): int(row[3]) for row in json.loads(path.read_text())}
            self._numbers = {file: found[file] for file in files if file in found}

    def __getitem__(self, file: _InboxFile) -> int:
        return self._numbers.get(file, 0)

    @contextmanager
    def noted(self, files: list[_InboxFile]) -> Iterator[None]:
        """Note an attempt before the block, and take it back after it unless one file alone is at fault."""
        before = dict(self._numbers)
        self._write(before | {file: self[file] + 1 for file in files})
        try:
            yield
        except Exception as error:
            if len(files) > 1 or isinstance(error, _NOT_ITS_FAULT):
                self._write(before)
            raise
        except BaseException:  # somebody ends the program
            self._write(before)
            raise
        self.clear(files)

    def clear(self, files: list[_InboxFile]) -> None:
        """Forget the attempts of files."""
        self._write({file: n for file, n in self._numbers.items() if file not in files})

    def _write(self, numbers: dict[_InboxFile, int]) -> None:
        self._numbers = numbers
        if numbers:
            write_json(self._path, [[*file, n] for file, n in numbers.items()])
        else:
            self._path.unlink(missing_ok=True)


@dataclass
class _Taking:
    """One look's ingests; `taken` are the files that were ingested before, perhaps by another way of reading."""

    inbox: Path
    stores: CityStores
    workers: int
    way: dict[str, Any]
    taken: set[_InboxFile]
    look: _Look
    ingested: bool = False

    def take(self, files: dict[Path, _InboxFile]) -> None:
        """Ingest files together; those that are bad go to quarantine."""
        inbox, look = self.inbox, self.look
        found: _Found = []
        owner: dict[Source, Path] = {}
        for file, now in files.items():
            try:
                records, passed_over = find_records(str(file), self.stores.city)
            except InputError as error:
                self.refuse(file, now, error)
                continue
            except OSError as error:  # as of a full disk, where an archive is unpacked
                log.error("%s cannot be read now: %s", file, error)
                continue
            for line in passed_over if records else ():
                log.warning("passed over: %s", line)
            found += records
            owner.update((source, file) for source, _ in records)
        if not found:
            return
        self.ingested = True
        bad: dict[Path, Exception] = {}
        try:
            look.report = _ingest_sources(
                found, self.stores, workers=self.workers, on_bad=lambda source, why: bad.update({owner[source]: why})
            )
        except _NothingToCount as nothing:
            log.warning("%s: %s", inbox, nothing)
        finally:
            for file, why in bad.items():
                self.refuse(file, files[file], why)
        looked_at = [files[file] for file in dict.fromkeys(owner.values())]
        good = [now for now in looked_at if now.name not in look.quarantined]
        RecordStore(self.stores.records).add_inbox_files(good, self.way)
        look.taken = sorted({*look.taken, *(now.name for now in good)})

    def refuse(self, file: Path, now: _InboxFile, error: Exception) -> None:
        """Put a bad file into quarantine; one that was good before the configuration changed stays."""
        if now in self.taken:
            log.error("%s: %s; its records stay as they were read before", file, error)
        else:
            _quarantine(self.inbox, file, error, self.look)


def _files(inbox: Path) -> dict[Path, os.stat_result]:
    """What lies below an inbox and may be records: nothing hidden, unfinished by name, or in quarantine."""
    found = {}
    for file in sorted(inbox.rglob("*")):
        parts = file.relative_to(inbox).parts
        if any(part.startswith(".") or part == _QUARANTINE for part in parts) or file.name.endswith(UNFINISHED):
            continue
        with suppress(FileNotFoundError):  # it was removed just now
            facts = file.lstat()
            if not stat.S_ISDIR(facts.st_mode):
                found[file] = facts
    return found


def _identity(inbox: Path, file: Path, facts: os.stat_result) -> _InboxFile:
    return _InboxFile(str(file.relative_to(inbox)), facts.st_size, facts.st_mtime_ns)


def _steady(inbox: Path, new: dict[Path, os.stat_result], look: _Look) -> set[Path]:
    """Return those files that do not change for a while, of those whose times lie ahead of the clock; and say so."""
    now, steady = time.time(), set()
    ahead = {file: facts for file, facts in new.items() if facts.st_ctime - now > _AHEAD_SECONDS}
    if not ahead:
        return set()
    time.sleep(_QUIET_SECONDS)
    for file, before in ahead.items():
        with suppress(FileNotFoundError):
            facts = file.lstat()
            if (facts.st_size, facts.st_ctime_ns) == (before.st_size, before.st_ctime_ns):
                steady.add(file)
    look.ahead = [str(file.relative_to(inbox)) for file in ahead]
    minutes = (max(facts.st_ctime for facts in ahead.values()) - now) / 60
    log.warning(
        "%s: the times of %d new files, such as %s, lie up to %.0f minutes ahead of the clock; %d of them did not "
        "change for %g s and count as whole; see whether the clock is right",
        inbox, len(ahead), look.ahead[0], minutes, len(steady), _QUIET_SECONDS,
    )  # fmt: skip
    return steady


def _has_changed(file: Path) -> bool:
    """Whether a file changed a moment ago."""
    return time.time() - file.stat().st_ctime < _QUIET_SECONDS


def _is_open(file: Path) -> bool:
    """Whether some process has a file open for writing, as far as that can be known."""
    lease = getattr(fcntl, "F_SETLEASE", None)  # Linux
    if lease is None:
        return False
    with open(file, "rb") as stream:
        try:
            fcntl.fcntl(stream, lease, fcntl.F_RDLCK)  # granted only while nobody writes
            fcntl.fcntl(stream, lease, fcntl.F_UNLCK)
        except OSError as error:
            return error.errno == errno.EAGAIN
    return False


def _quarantine(inbox: Path, file: Path, error: Exception, look: _Look) -> None:
    """Move a file to the quarantine, under a name that is free there, and write why beside it."""
    name = str(file.relative_to(inbox))
    look.quarantined[name] = str(error)
    place = inbox / _QUARANTINE / name
    number = 0
    while os.path.lexists(place):
        number += 1
        place = inbox / _QUARANTINE / f"{name}.{number}"
    try:
        write_text(place.with_name(place.name + ".reason.txt"), f"{error}\n")
        replace(file, place)
    except OSError as reason:  # it is tried again at the next look, and keeps no other file waiting
        log.error("%s cannot be moved to %s: %s; it was not taken: %s", file, place, reason, error)
        return
    log.error("%s is now %s: %s", file, place, error)
