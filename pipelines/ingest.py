"""Ingest: records -> record store -> flow store and quality report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.progress import log, track
from trafficcast.city import City
from trafficcast.errors import InputError
from trafficcast.files import write_json, writer_lock
from trafficcast.flows import FlowCounter
from trafficcast.points import DAY_US, EARLIEST_US, SECOND_US, Batch, drop_implausible
from trafficcast.quality import quality_report
from trafficcast.readers import FORMATS, find_files
from trafficcast.records import Manifest, RecordStore, digest
from trafficcast.stores import flow_store


def ingest(
    path: Path,
    record_format: str,
    city: City,
    data: Path,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
) -> dict[str, Any]:
    """Add the records at a path to the city's stores and return the quality report of all it now holds.

    A file whose very bytes were ingested before is passed over. Only timestamps in [start, end) (naive UTC;
    by default from 2000 to a day from now) are kept. Raises InputError, with every store as it was, where a file
    cannot be read or nothing is left to count.
    """
    files = find_files(path, record_format)
    earliest = EARLIEST_US if start is None else _microseconds(start)
    latest = int(time.time()) * SECOND_US + DAY_US if end is None else _microseconds(end)
    records = RecordStore(data / city.name / "records")
    store = flow_store(data, city)
    with writer_lock(data / city.name):
        manifest = records.manifest()
        store.check()
        digests = {digest(file): file for file in files}
        new = {key: file for key, file in digests.items() if key not in manifest.sources}
        if len(new) < len(files):
            log.info("%d of %d files were ingested before and are passed over", len(files) - len(new), len(files))
        read = FORMATS[record_format].read

        def batches() -> Iterator[Batch]:
            for file in track(new.values(), f"reading {record_format}", len(new)):
                yield drop_implausible(read(file), earliest, latest)

        try:
            state = records.add(manifest, batches(), sorted(new)) if new else manifest
            if not state.days:
                raise InputError(f"no record at {path} is left to count; dropped were {state.dropped}")
            counter, vehicles = count_flows(city, records, state)
            flows = counter.dataset()
            report = quality_report(city, state, counter.totals, vehicles, flows)
        except BaseException:
            records.clean(manifest)
            raise
        if new:
            records.publish(state)
        # From here on a crash is mended by the next ingest, which counts anew what the records say.
        store.write(flows)
        write_json(data / city.name / "quality.json", report)
    return report


def count_flows(city: City, records: RecordStore, state: Manifest) -> tuple[FlowCounter, int]:
    """Count every day of a state, and how many vehicles it has."""
    days = sorted(state.days)
    counter = FlowCounter(city, np.datetime64(days[0]), np.datetime64(days[-1]))
    codes: dict[str, int] = {}
    for names, points in track(records.read_days(state), "counting flows", len(days)):
        code = np.array([codes.setdefault(name, len(codes)) for name in names], np.int32)
        counter.add(replace(points, vehicle=code[points.vehicle]))
    return counter, len(codes)


def _microseconds(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[us]").astype(np.int64))
