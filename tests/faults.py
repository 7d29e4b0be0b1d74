"""Jobs of a city in processes that are killed, or whose writes fail, at one system call; and bits that flip.

    LD_PRELOAD=faults.so python tests/faults.py < order.json

The order names a folder with a city, a folder to work in, the job, the faults and how many moments of each are tried
(null: every system call). Each trial is a fork with a copy of the city. One JSON object a line tells how the job ended,
and whether the same job run again, undisturbed, gives the stores of a run that was never disturbed.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from pipelines.service.cycle import CityService, _undo_forecasts_ahead, run_cycle
from pipelines.service.fsck import fsck
from pipelines.service.repair import repair
from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding
from trafficcast.config.settings import Config, load_config
from trafficcast.errors import InputError, JobError
from trafficcast.files import remove_temporaries
from trafficcast.forecasting.publish import JOB
from trafficcast.forecasting.verify import VERIFY
from trafficcast.ingestion.ingest import ingest
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.latest_files import write_latest
from trafficcast.stores.published import latest_forecast

HOUR = np.timedelta64(1, "h")
NOON = np.datetime64("2024-04-14T10:00", "us")  # in Rome
FAULTS = {"kill": 0, "ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
SECONDS = 300.0  # a trial that takes longer hangs


def opened(folder: Path) -> tuple[Config, CityStores]:
    config = load_config(folder / "config.toml")
    return config, CityStores.of(config, config.city("small"))


def ingest_new(folder: Path) -> None:
    """What the service does with files that arrived."""
    _, stores = opened(folder)
    ingest(folder / "new", stores)


def run_cycles(folder: Path) -> None:
    """What the service does at the start, and at two slots; the clock stands a day ahead in between."""
    config, stores = opened(folder)
    remove_temporaries(stores.folder)
    service = CityService(stores, config.service, torch.device("cpu"))
    for now in (NOON, NOON + 24 * HOUR, NOON + HOUR):
        _undo_forecasts_ahead(stores, now)
        run_cycle(service, now, catch_up=False)
        served, newest = latest_forecast(stores, now), latest_forecast(stores)
        if served is None or newest is None or served[1]["init_time"].values[0] != now:
            raise JobError("no forecast was made")
        write_latest(stores, newest[1])


JOBS: dict[str, Callable[[Path], None]] = {"ingest": ingest_new, "cycle": run_cycles}


def contents(folder: Path) -> dict[str, str]:
    """A digest of what each store holds, but for when it was made."""
    _, stores = opened(folder)
    found: dict[str, Any] = {"flows": stores.flows.read(), "report": (stores.folder / "quality.json").read_text()}
    store = RecordStore(stores.records, read_only=True)
    state = store.load()
    hours = [store.read(state, span).arrays() for span in state.files]
    found["records"] = [sorted((name, array.tobytes()) for name, array in hour.items()) for hour in hours]
    found["counts"] = store.slot_facts().tolist(), state.totals.tolist(), state.vehicles.names
    found["champion"] = stores.registry.champions()
    book = AlertBook(stores.alerts)
    found["alerts"] = book.open("small", NOON), book.past("small", NOON, 99)
    for version in stores.registry.versions():
        forecasts = stores.forecasts(version).read()
        found[f"forecasts {version}"] = None if forecasts is None else forecasts.drop_vars(["created", "hindcast"])
        found[f"scores {version}"] = stores.scores(version).read()
        for job in (JOB, VERIFY):
            found[f"{job} {version}"] = sorted(stores.ledger.results(job, "small", version).items())
    if (stores.folder / "latest.csv").exists():
        found["latest"] = (stores.folder / "latest.csv").read_text()
    return {name: hashlib.sha256(_bytes(value)).hexdigest() for name, value in found.items()}


def _bytes(value: Any) -> bytes:
    if not isinstance(value, xr.Dataset):
        return repr(value).encode()
    parts = sorted(value.variables.items(), key=lambda item: str(item[0]))
    texts = {name: variable.values for name, variable in parts}
    return b"".join(
        str(n).encode() + (repr(v.tolist()).encode() if v.dtype == object else v.tobytes()) for n, v in texts.items()
    )


def in_a_child(work: Callable[[], Any]) -> Any:
    """What the work returns in a fork of this process, or how the fork ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            with os.fdopen(writer, "w") as pipe:
                json.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(writer)
    end = time.monotonic() + SECONDS
    with os.fdopen(reader) as pipe:
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
            time.sleep(0.005)
        if ended[0] == 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"ended": "hung"}
        text = pipe.read()
    if text:
        return json.loads(text)
    return {"ended": "killed" if ended[1] == signal.SIGKILL else "crashed", "result": f"wait status {ended[1]}"}


def tried(work: Callable[[], Any]) -> dict[str, Any]:
    """How some work ended: done, told in a sentence, or with a traceback."""
    try:
        return {"ended": "done", "result": work()}
    except (InputError, JobError, OSError) as error:
        return {"ended": "told", "result": str(error)}
    except Exception as error:  # noqa: BLE001  # it is counted
        return {"ended": "traceback", "result": f"{type(error).__name__}: {error}"}


def faulty_calls(order: dict[str, Any], work: Path) -> Iterator[dict[str, Any]]:
    """Run a job with a fault at each of its system calls."""
    shim, job = ctypes.CDLL(order["shim"]), JOBS[order["job"]]

    def run(at: int, fault: int) -> dict[str, Any]:
        shim.arm(str(work / "city" / "data").encode(), at, fault)
        ended = tried(lambda: job(work / "city"))
        calls = shim.seen()
        shim.arm(b"", -1, 0)
        return ended | {"calls": calls}

    def fresh() -> None:
        shutil.rmtree(work / "city", ignore_errors=True)
        shutil.copytree(order["folder"], work / "city")

    fresh()
    calls = in_a_child(lambda: run(10**9, 0))["calls"]
    wanted = in_a_child(lambda: contents(work / "city"))
    draw = random.Random(7)
    for name in order["faults"]:
        moments = range(calls) if order["trials"] is None else sorted(draw.sample(range(calls), order["trials"]))
        for at in moments:
            fresh()
            first = in_a_child(lambda: run(at, FAULTS[name]))  # noqa: B023
            second = in_a_child(lambda: tried(lambda: job(work / "city")))
            found = in_a_child(lambda: tried(lambda: contents(work / "city")))
            same = found["ended"] == "done" and found["result"] == wanted
            yield {
                "fault": f"{order['job']}, {name}", "at": at, "calls": calls, "first": first, "second": second,
                "silent": first["ended"] == "done" and not same, "recovered": same, "lost": not same,
                "traceback": any(map(is_bad, (first, second, found))),
                "different": [k for k in wanted if not same and found.get("result", {}).get(k) != wanted[k]]
                if found["ended"] == "done" else found,
            }  # fmt: skip


def flipped_bits(order: dict[str, Any], work: Path) -> Iterator[dict[str, Any]]:
    """Flip bits in every file of a city that has records, flows, forecasts, scores, alerts and a model."""
    whole = work / "whole"
    shutil.copytree(order["folder"], whole)
    for job in JOBS.values():
        in_a_child(lambda: tried(lambda: job(whole)))  # noqa: B023
    _, stores = opened(whole)
    found = [Finding("flow", "flow", "warning", "much", 9.0, 5.0, "row 1, column 2", 9.15, 45.5)]
    AlertBook(stores.alerts).update("small", found, NOON - HOUR)
    wanted = in_a_child(lambda: contents(whole))
    draw = random.Random(7)
    files = sorted(file for part in ("data", "models") for file in (whole / part).rglob("*") if is_part(file))
    kinds: dict[str, list[Path]] = {}
    for file in files:
        parts = file.relative_to(whole).parts
        kind = (
            "records" if file.suffix == ".parquet" else parts[2] if len(parts) > 3 and parts[0] == "data" else file.name
        )
        kinds.setdefault(kind, []).append(file)
    for kind, those in kinds.items():
        for _ in range(order["trials"]):
            shutil.rmtree(work / "city", ignore_errors=True)
            shutil.copytree(whole, work / "city")
            file = work / "city" / draw.choice(those).relative_to(whole)
            content = bytearray(file.read_bytes())
            place, bit = draw.randrange(len(content)), draw.randrange(8)
            content[place] ^= 1 << bit
            times = file.stat()
            file.write_bytes(content)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a disk flips it

            def check() -> Any:
                config, stores = opened(work / "city")
                return fsck(config, [stores], NOON + HOUR)[1]

            def mend() -> Any:
                config, stores = opened(work / "city")
                return any(one["lost"] for one in repair(config, stores, NOON + HOUR, "cpu"))

            checked = in_a_child(lambda: tried(check))
            before = in_a_child(lambda: tried(lambda: contents(work / "city")))
            mended = in_a_child(lambda: tried(mend))
            after = in_a_child(lambda: tried(lambda: contents(work / "city")))
            harmless = before.get("result") == wanted
            same = after.get("result") == wanted
            yield {
                "fault": f"bit flip, {kind}", "at": (str(file.name), place, bit), "first": checked, "second": mended,
                "silent": checked == {"ended": "done", "result": 0} and before["ended"] == "done" and not harmless,
                "recovered": same, "lost": not same,
                "told_lost": mended.get("result") is True,
                "traceback": any(map(is_bad, (checked, before, mended, after))),
                "different": [k for k in wanted if after["ended"] == "done" and after["result"].get(k) != wanted[k]],
            }  # fmt: skip


def is_bad(outcome: dict[str, Any]) -> bool:
    return outcome["ended"] in ("traceback", "crashed", "hung")


def is_part(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".") and file.stat().st_size > 0


def main() -> None:
    """Carry out an order."""
    logging.disable(logging.CRITICAL)
    order = json.load(sys.stdin)
    work = Path(order["work"])
    for trial in (flipped_bits if order["job"] == "flips" else faulty_calls)(order, work):
        print(json.dumps(trial), flush=True)


if __name__ == "__main__":
    main()
