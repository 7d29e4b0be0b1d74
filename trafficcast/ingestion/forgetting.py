"""What was taken from which file, and taking the records of files back, as if they had never been ingested."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from trafficcast.errors import InputError
from trafficcast.geography.zones import Zones
from trafficcast.ingestion.ingest import _change, _Executor, _merge
from trafficcast.ingestion.record_store import RecordStore, SourceFacts, State
from trafficcast.ingestion.way_of_reading import _way_as_text
from trafficcast.progress import log
from trafficcast.stores.city_stores import CityStores

_DIGITS = 8  # of a file's SHA-256 that are shown


def files_taken(stores: CityStores) -> list[dict[str, Any]]:
    """List the files whose records the city's stores hold.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    list[dict[str, Any]]
        For each file, in the order of ingestion: its name, the beginning of its SHA-256, how it was read, when it was
        ingested, and its numbers of rows read, of records that are counted and of rows dropped by reason.
    """
    return [_entry(source) for source in RecordStore(stores.records, read_only=True).sources()]


def forget(stores: CityStores, names: list[str], dry_run: bool = False, workers: int = 2) -> dict[str, Any]:
    """Take the records of files back: every store is as if the files had never been ingested.

    A record that another file gave too stays. Flows of records that are no longer kept stay as well.

    Parameters
    ----------
    stores
        The city and its stores.
    names
        Names of the files as `files_taken` lists them, or patterns with `*`; an archive's name stands for all files in
        it. NAME:SHA256, of which the first digits are enough, tells files of the same name apart.
    dry_run
        Whether to change nothing.
    workers
        Threads that read, count and write.

    Returns
    -------
    dict[str, Any]
        The files that were forgotten, as `files_taken` lists them, and the quality report of all records that are left;
        None for a dry run, and where no record is left.

    Raises
    ------
    InputError
        No file has one of the names, or one was ingested by an earlier version.
    """
    chosen = _chosen(stores, RecordStore(stores.records).sources(), names)
    result: dict[str, Any] = {"forgotten": [_entry(source) for source in chosen], "report": None}
    if dry_run:
        return result
    result["report"] = _change(stores, partial(_take_back, stores, names), workers) or None
    return result


def _take_back(
    stores: CityStores, names: list[str], executor: _Executor, store: RecordStore, state: State, zones: Zones | None
) -> None:
    """Take the records of the files with these names back."""
    if state.retained_from:
        log.warning("records that are no longer kept cannot be taken back: their flows stay")
    forgotten = _chosen(stores, store.sources(), names)
    removed = frozenset(source.number for source in forgotten)
    _merge(executor, stores.city, store, state, zones, {}, removed, forgotten)


def _chosen(stores: CityStores, sources: list[SourceFacts], names: list[str]) -> list[SourceFacts]:
    """Return the sources that have one of these names; raise InputError where a name has none that can be forgotten."""
    chosen: dict[str, SourceFacts] = {}
    for name in names:
        found = [source for source in sources if _has_name(source, name)]
        if not found:
            raise InputError(
                f"no file of '{stores.city.name}' has the name {name}: trafficcast records list shows all names"
            )
        if old := next((source for source in found if source.number == 0), None):
            raise InputError(
                f"{old.name} was ingested by an earlier version, which did not note which records each file gave: move "
                f"{stores.folder} away and ingest all files but this one again"
            )
        chosen |= {source.digest: source for source in found}
    return list(chosen.values())


def _has_name(source: SourceFacts, name: str) -> bool:
    """Say whether a source has a name, or its archive, or both its name and the beginning of its digest."""
    if source.name == name or source.name.startswith(f"{name}/") or fnmatchcase(source.name, name):
        return True
    own, _, digits = name.rpartition(":")
    return bool(digits) and own == source.name and source.digest.removeprefix(f"{own}:").startswith(digits)


def _entry(source: SourceFacts) -> dict[str, Any]:
    """Return a source as a listing shows it."""
    return {
        "name": source.name,
        "sha256": source.digest.removeprefix(f"{source.name}:")[:_DIGITS],
        "read_as": _way_as_text(source.way or {"format": source.format}) if source.number else _way_as_text({}),
        "ingested": source.taken or None,
        "rows_read": source.rows,
        "records_counted": source.kept,
        "rows_dropped": {reason: n for reason, n in source.dropped.items() if n},
    }
