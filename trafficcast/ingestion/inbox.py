"""Inbox: a folder whose new files are ingested, once each; a bad file goes to quarantine/ with the reason beside it.

Good files stay where they are. The record store remembers the files that were ingested, so a look at an inbox of a
year costs no more than listing it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trafficcast.errors import InputError, JobError
from trafficcast.files import write_text
from trafficcast.ingestion.ingest import (
    _check_is_whole,
    _ingest_sources,
    _NothingToCount,
    broken_days,
    mend_flows,
)
from trafficcast.ingestion.record_store import RecordStore, _InboxFile
from trafficcast.ingestion.threads import _Found
from trafficcast.progress import log
from trafficcast.records.readers import find_records
from trafficcast.records.sources import UNFINISHED, Source
from trafficcast.stores.city_stores import CityStores

_QUARANTINE = "quarantine"
_QUIET_SECONDS = 5.0  # a file that changed since is taken to be still written


@dataclass
class _Look:
    """The files of one look at an inbox: ingested, put into quarantine and why, and still being written."""

    taken: list[str]
    quarantined: dict[str, str]
    waiting: list[str]
    report: dict[str, Any] | None = None


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
    seen = store.inbox_files()
    look = _Look([], {}, [])
    found: _Found = []
    owner: dict[Source, Path] = {}
    looked_at: list[_InboxFile] = []
    for file in _files(inbox):
        name = str(file.relative_to(inbox))
        now = _identity(inbox, file)
        if now in seen:
            continue
        if _still_written(file):
            look.waiting.append(name)
            continue
        try:
            records, passed_over = find_records(str(file), stores.city)
        except InputError as error:
            _quarantine(inbox, file, error, look)
            continue
        for line in passed_over if records else ():
            log.warning("passed over: %s", line)
        if records:
            found += records
            owner.update((source, file) for source, _ in records)
            looked_at.append(now)
    if found:
        bad: dict[Path, Exception] = {}
        try:
            look.report = _ingest_sources(
                found, stores, workers=workers, on_bad=lambda source, why: bad.update({owner[source]: why})
            )
        except _NothingToCount as nothing:
            log.warning("%s: %s", inbox, nothing)
        finally:
            for file, why in bad.items():
                _quarantine(inbox, file, why, look)
        store.add_inbox_files([now for now in looked_at if now.name not in look.quarantined])
        look.taken = sorted({str(file.relative_to(inbox)) for file in owner.values()} - set(look.quarantined))
    elif store.exists() and broken_days(stores):
        mend_flows(stores)
    if look.taken or look.quarantined:
        log.info("%s: %d files taken, %d to quarantine", inbox, len(look.taken), len(look.quarantined))
    return look


def _files(inbox: Path) -> list[Path]:
    """The files below an inbox that may be records: none hidden, unfinished by name, or in quarantine."""
    return [
        file
        for file in sorted(inbox.rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") or part == _QUARANTINE for part in file.relative_to(inbox).parts)
        and not file.name.endswith(UNFINISHED)
    ]


def _identity(inbox: Path, file: Path) -> _InboxFile:
    facts = file.stat()
    return _InboxFile(str(file.relative_to(inbox)), facts.st_size, facts.st_mtime_ns)


def _still_written(file: Path) -> bool:
    """Whether a file changed a moment ago, or some process has it open for writing, as far as that can be known."""
    if time.time() - file.stat().st_ctime < _QUIET_SECONDS:
        return True
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
    place = inbox / _QUARANTINE / name
    number = 0
    while place.exists():
        number += 1
        place = inbox / _QUARANTINE / f"{name}.{number}"
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text(place.with_name(place.name + ".reason.txt"), f"{error}\n")
    os.rename(file, place)
    look.quarantined[name] = str(error)
    log.error("%s is now %s: %s", file, place, error)
