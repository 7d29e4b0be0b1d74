"""Damage files at random and read them, again and again: every reader and every loader, in one process.

    python tests/fuzz.py FOLDER SECONDS SEED

FOLDER has what `tests/whole/test_fuzz.py` puts there: `readers/`, good files of every format, and `city/`, a
configuration with stores and models. Each round damages one file in one way; what is read must be records or values, or
an InputError, JobError or DamagedFile in one sentence. The damaged file lies in FOLDER/tried until the next round, so
that it is at hand after a crash. At the end, or at the first failure, a line of JSON says what was tried, what was
refused, and how large the process was at most, in MB.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.cities import unsealed
from trafficcast.alerts.book import AlertBook
from trafficcast.config.city import City
from trafficcast.config.settings import load_config
from trafficcast.errors import InputError, JobError
from trafficcast.forecasting.model import load_model
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.records.readers import find_records, first_rows, read
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.ledger import Ledger

CITY = City(west=-122.52, east=-122.36, south=37.70, north=37.82, timezone="America/New_York", name="bay")
BITS = [
    b"\n", b"\r", b"\t", b" ", b",", b";", b'"', b"[", b"]", b"{", b"}", b"\\", b"\0", b"\xff", b"\x7f", b"-",
    b"nan", b"1e999", b"9" * 25, b"null", b"true", bytes(8), b"\xff" * 4, b"\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x10", b"PAR1", b"PK\x01\x02",
]  # fmt: skip


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bytes of which a few are cut, repeated, changed or put in."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        begin = chance.randrange(len(data) + 1)
        end = min(len(data), begin + chance.choice([0, 0, 1, 1, 2, 8, 100, 10_000]))
        way = chance.randrange(5)
        if way == 0 and begin < len(data):
            data[begin] ^= 1 << chance.randrange(8)
        elif way == 1:
            data[begin:end] = chance.choice(BITS)
        elif way == 2:
            data[begin:end] = chance.randbytes(end - begin)
        elif way == 3:
            data[begin:end] = bytes(data[begin:end]) * chance.choice([0, 2, 50])
        elif begin:
            del data[begin:]
    return bytes(data)


def read_records(file: Path) -> None:
    """Read a file as `ingest` does."""
    for source, name in find_records(str(file), CITY)[0]:
        for batch in read(source, CITY, name):
            assert len(batch.records) <= batch.rows or name == "porto"
        first_rows(source, CITY, name)


def loaders(folder: Path) -> dict[str, Callable[[], Any]]:
    """What reads each file of a city's configuration, stores and models, by the file's path."""
    settings = load_config(folder / "config.toml")
    stores = CityStores.of(settings, settings.city("small"))
    model = stores.registry.root / str(stores.registry.champion())
    unsealed(stores.registry, model.name)  # the seal would hide from a loader what is damaged
    found: dict[str, Callable[[], Any]] = {
        "config.toml": lambda: load_config(folder / "config.toml"),
        str((stores.records / "state.sqlite").relative_to(folder)): lambda: read_store(stores),
    }
    for file in model.iterdir():
        if file.name not in ("CARD.md", "curve.csv", "curve.png"):
            found[str(file.relative_to(folder))] = lambda: load_model(stores.registry)
    found[str((model.parent / "champion").relative_to(folder))] = lambda: load_model(stores.registry)
    day = stores.flows.days()[0]
    found[str(stores.flows.file(day).relative_to(folder))] = lambda: stores.flows.read_day(day)
    hour = sorted(stores.records.glob("*/*.parquet"))[0]
    found[str(hour.relative_to(folder))] = lambda: read_store(stores)
    for name, check in (("ledger", Ledger(stores.data / "ledger.sqlite").check), ("alerts", book(stores.data).check)):
        if (stores.data / f"{name}.sqlite").exists():
            found[str((stores.data / f"{name}.sqlite").relative_to(folder))] = check
    return found


def book(data: Path) -> AlertBook:
    return AlertBook(data / "alerts.sqlite")


def read_store(stores: CityStores) -> None:
    """Read a record store as an ingest does."""
    store = RecordStore(stores.records, read_only=True)
    state = store.load()
    if state.files:
        store.read(state, min(state.files))
    store.slot_facts()
    store.sources()


def main(folder: Path, seconds: float, seed: int) -> int:
    """Damage and read until the time is over; return 1 at the first failure."""
    logging.getLogger("trafficcast").setLevel(logging.CRITICAL)
    chance, tried, refused, failure = random.Random(seed), Counter[str](), Counter[str](), ""
    good = {file: file.read_bytes() for file in sorted((folder / "readers").iterdir())}
    stored = loaders(folder / "city")
    end = time.monotonic() + seconds
    while time.monotonic() < end and not failure:
        if chance.random() < 0.5:
            file = chance.choice(list(good))
            path, content, name = folder / "tried" / file.name, good[file], f"readers/{file.name}"
            use: Callable[[], Any] = partial(read_records, path)
        else:
            name = chance.choice(list(stored))
            path, use = folder / "city" / name, stored[name]
            content = path.read_bytes()
        path.write_bytes(damaged(content, chance))
        tried[name] += 1
        try:
            use()
        except (InputError, JobError) as error:
            refused[name] += 1
            failure = "" if str(error) and "\n" not in str(error) else f"{name}: {error!r} is not a sentence"
        except BaseException:  # noqa: BLE001  # whatever it is, it is to be told
            failure = f"{name}: {traceback.format_exc()}"
        if failure:
            (folder / "tried" / "failed").write_bytes(path.read_bytes())
        if name in stored:
            path.write_bytes(content)
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [int(line.split()[1]) >> 10 for line in status if line.startswith("VmHWM")]
    print(json.dumps({"failure": failure, "peak": peak, "tried": tried, "refused": refused}))
    return bool(failure)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
