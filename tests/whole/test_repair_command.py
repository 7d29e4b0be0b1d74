"""`trafficcast fsck` finds each kind of file, damaged in each way; `trafficcast repair` mends it or sets it aside."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipelines.service.replay import replay
from trafficcast.alerts.book import AlertBook
from trafficcast.config.settings import load_config
from trafficcast.ingestion.record_store import RecordStore
from trafficcast.stores.city_stores import CityStores

pytestmark = pytest.mark.slow
DAY, VERSION = "2024-04-13", "vmrnn-c-1"
FILES = {
    "flows": f"data/small/flows/{DAY}.nc",
    "forecasts": f"data/small/forecasts/{VERSION}/{DAY}.nc",
    "scores": f"data/small/scores/{VERSION}/{DAY}.nc",
    "ledger": "data/ledger.sqlite",
    "alerts": "data/alerts.sqlite",
    "state": "data/small/records/state.sqlite",
    "champion": "models/small/champion",
    "latest": "data/small/latest.nc",
    "report": "data/small/quality.json",
}
# What nothing but the file itself held.
LOST = {"ledger", "alerts"}


def flipped(content: bytes) -> bytes:
    """A byte in the middle is another one."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut off": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "a byte flipped": flipped,
    "removed": lambda content: None,
    "not UTF-8": lambda content: b"\xff\xfe" * 50,
}


def stores_of(folder: Path) -> CityStores:
    config = load_config(folder / "config.toml")
    return CityStores.of(config, config.city("small"))


@pytest.fixture(scope="module")
def _replayed_once(_trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small city with two days of forecasts and scores, one open alert, and the latest files."""
    from trafficcast.alerts.findings import Finding
    from trafficcast.alerts.notify import _append
    from trafficcast.forecasting.verify import verify
    from trafficcast.repair.repair import _restore_latest

    folder = tmp_path_factory.mktemp("replayed")
    shutil.copytree(_trained_once, folder, dirs_exist_ok=True)
    stores = stores_of(folder)
    replay(stores, "2024-04-13T08:00", "2024-04-13T14:00", device="cpu")
    verify(stores)
    _restore_latest(stores)
    book, now = AlertBook(stores.alerts), np.datetime64("2024-04-13T10:00", "us")
    book.update("small", [Finding("flow", "flow", "warning", "much", 9.0, 5.0, "row 1, column 2", 9.15, 45.5)], now)
    with book.unwritten("small") as notices:
        _append(stores.folder / "alerts.jsonl", notices)
    return folder


@pytest.fixture
def replayed(_replayed_once: Path, config: Path) -> Path:
    shutil.copytree(_replayed_once, config.parent, dirs_exist_ok=True)
    return config.parent


def content(stores: CityStores) -> dict[str, Any]:
    """What the stores hold, but for how and when it was made."""
    made = stores.forecasts(VERSION).read()
    assert made is not None
    results = {job: stores.ledger.results(job, "small", VERSION) for job in ("forecast", "verify")}
    records = RecordStore(stores.records)
    state = records.load()
    return {
        "flows": stores.flows.read(),
        "forecasts": made.drop_vars(["hindcast", "created"]),
        "scores": stores.scores(VERSION).read(),
        "ledger": results,
        "alerts": AlertBook(stores.alerts).open("small", np.datetime64("2024-04-15", "us")),
        "slots": records.slot_facts().tolist(),
        "hours": state.files,
        "totals": state.totals.tolist(),
        "champion": stores.registry.champions(),
        "report": (stores.folder / "quality.json").read_text(),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one.items():
        if isinstance(value, xr.Dataset):
            xr.testing.assert_identical(value, other[name])
        else:
            assert value == other[name], name


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_found_and_mended(
    kind: str, replayed: Path, trafficcast: Callable[..., Any], snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    stores, file = stores_of(replayed), replayed / FILES[kind]
    before, number = content(stores), 0
    assert trafficcast("repair", "--device", "cpu").code == 0
    found = trafficcast("fsck")
    assert (found.code, found.out.partition(":")[0]) == (0, "small") and "all is whole" in found.out
    for damage, change in DAMAGES.items():
        new = change(file.read_bytes())
        file.unlink()
        if new is not None:
            file.write_bytes(new)
        there = snapshot(replayed)
        planned = trafficcast("fsck", "--json")
        assert snapshot(replayed) == there, "a check changes nothing"
        done = trafficcast("repair", "--json", "--device", "cpu")
        assert bool(planned.code) == bool(done.json["small"]), (damage, planned, done)
        told = [one for city in planned.json.values() for key in ("rebuildable", "lost") for one in city[key]]
        assert bool(told) == bool(planned.code)
        assert planned.code in ((0, 1, 3) if kind in LOST else (0, 1)), planned
        if done.code == 1 and kind in LOST:
            assert planned.code == 3, "what will be lost is said before"
        # A flipped byte may lie where nothing is stored.
        assert done.json["small"] or damage == "a byte flipped", done.err
        now = content(stores)
        if kind == "state" and done.code == 1:  # which files were ingested is lost, and the report counts them
            now["report"] = before["report"]
        same(before, now)
        aside = [one.read_bytes() for one in file.parent.glob(f"{file.name}.damaged-*") if "journal" not in one.name]
        if len(aside) > number:
            number += 1
            assert new in aside
            assert done.code == (1 if kind in LOST else 0) or kind == "state", (damage, done)
        else:
            assert damage in ("removed", "a byte flipped") or kind in ("latest", "report"), (damage, done)
            assert done.code == 0 or kind == "state", (damage, done)
        again = trafficcast("repair", "--json", "--device", "cpu")
        assert again.code == 0 and again.json == {"small": []}, (damage, again)


def test_a_damaged_hour_of_records_is_set_aside_and_comes_back_with_its_file(
    replayed: Path, trafficcast: Callable[..., Any]
) -> None:
    stores = stores_of(replayed)
    before = content(stores)
    file = max(stores.records.rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-20])
    done = trafficcast("repair", "--device", "cpu")
    assert done.code == 1 and "ingest the files again that held them" in done.out and str(file) in done.out
    assert trafficcast("repair", "--device", "cpu").code == 0
    assert trafficcast("ingest", replayed / "gps").code == 0
    after = content(stores)
    for name in ("flows", "slots", "totals"):
        same({name: before[name]}, after)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_next_ingest_makes_a_flow_day_again(damage: str, replayed: Path, trafficcast: Callable[..., Any]) -> None:
    stores, file = stores_of(replayed), replayed / FILES["flows"]
    before, new = stores.flows.read(), DAMAGES[damage](file.read_bytes())
    assert before is not None
    file.unlink()
    if new is not None:
        file.write_bytes(new)
    assert trafficcast("ingest", replayed / "gps").code == 0  # of files that it knows
    xr.testing.assert_identical(before, stores.flows.read())
    changed = file.stat().st_mtime_ns
    assert trafficcast("ingest", replayed / "gps").code == 0
    assert file.stat().st_mtime_ns == changed, "a whole day is left alone"


@pytest.mark.parametrize("file", ["state", "removed state"])
def test_an_ingest_never_takes_records_for_leftovers(
    file: str, replayed: Path, trafficcast: Callable[..., Any]
) -> None:
    stores, database = stores_of(replayed), replayed / FILES["state"]
    files = sorted(stores.records.glob("*/*.parquet"))
    database.unlink() if file == "removed state" else database.write_bytes(b"")
    shutil.rmtree(stores.flows.root)
    ran = trafficcast("ingest", replayed / "gps")
    assert ran.code == 2 and "run trafficcast repair --city small" in ran.err
    assert sorted(stores.records.glob("*/*.parquet")) == files
    assert trafficcast("repair", "--device", "cpu").code == 1  # which files were ingested is lost
    assert trafficcast("ingest", replayed / "gps").code == 0


def test_forecasts_of_a_clock_that_stood_ahead_are_removed(replayed: Path, trafficcast: Callable[..., Any]) -> None:
    stores = stores_of(replayed)
    kept, later = "2024-04-13T10:00", "2024-04-13T11:00"  # in Rome, of a day that has begun
    assert trafficcast("repair", "--after", kept).code == 2
    planned = trafficcast("repair", "--forecasts", "--after", kept, "--dry-run", "--json").json
    assert planned == {"small": {"forecasts": 3, "scores": 3, "ledger_rows": 6}}
    assert trafficcast("repair", "--forecasts", "--after", kept, "--json").json == planned
    last = stores.city.parse_time(kept)
    for store in (stores.forecasts(VERSION), stores.scores(VERSION)):
        times = store.check()[0]
        assert len(times) == 3 and times[-1] == last
    assert max(stores.ledger.results("forecast", "small", VERSION)) == last
    with xr.open_dataset(stores.folder / "latest.nc", engine="h5netcdf", decode_timedelta=True) as latest:
        assert latest["init_time"].values[0] == last
    assert trafficcast("repair", "--forecasts", "--after", kept, "--json").json["small"]["forecasts"] == 0
    assert trafficcast("repair", "--device", "cpu").code == 0
    # The slots are forecast when their time comes, as if never before.
    replay(stores, later, "2024-04-13T14:00", device="cpu")
    assert len(stores.forecasts(VERSION).check()[0]) == 6


def test_what_reads_goes_on_and_what_needs_all_advises_the_repair(
    replayed: Path, trafficcast: Callable[..., Any]
) -> None:
    file = replayed / FILES["flows"]
    file.write_bytes(b"no grid")
    exported = trafficcast("export", "--out", replayed / "flows.nc", "--json")
    assert exported.code == 0 and exported.json["unreadable"] == [str(file)]
    assert "run trafficcast repair --city small" in exported.err
    scored = trafficcast("backtest", "--start", "2024-04-14", "--end", "2024-04-15", "--device", "cpu", "--json")
    assert scored.code == 0 and str(file) in scored.err
    trained = trafficcast("train", "--epochs", "1", "--device", "cpu")
    assert trained.code == 2 and "run trafficcast repair --city small" in trained.err
    status = trafficcast("status", "--json").json["cities"]["small"]
    assert status["forecast"] is not None
    assert trafficcast("repair", "--device", "cpu").code == 0
    assert trafficcast("export", "--out", replayed / "flows.nc", "--json").json["unreadable"] == []


def test_a_check_of_many_cities_goes_on_beside_a_sick_one_and_mends_if_asked(
    replayed: Path, trafficcast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trafficcast.stores.registry import Registry

    config = replayed / "config.toml"
    table = config.read_text().partition("[cities.small]")[2]
    config.write_text(config.read_text() + f"\n[cities.other]{table}\n[cities.a-sick]{table}")
    for name in ("other", "a-sick"):
        shutil.copytree(replayed / "data" / "small", replayed / "data" / name)
        report = replayed / "data" / name / "quality.json"
        report.write_text(report.read_text().replace('"city": "small"', f'"city": "{name}"'))

    versions = Registry.versions

    def fail(registry: Registry) -> list[str]:
        if registry.city.name == "a-sick":
            raise PermissionError("nobody may read it")
        return versions(registry)

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "versions", fail)
        found = trafficcast("fsck", "--json")
    assert found.code == 4 and "nobody may read it" in found.json["a-sick"]["error"]
    assert found.json["small"]["error"] is None and found.json["small"]["checked"]["flows"] >= 7

    # The copied cities have forecasts that the ledger does not know; a day of flows and a model are damaged beside.
    (replayed / "data" / "other" / "flows" / f"{DAY}.nc").write_bytes(b"no grid")
    found = trafficcast("fsck", "--city", "other", "--json")
    assert found.code == 1
    assert [one["done"] for one in found.json["other"]["rebuildable"]] == [
        "it is set aside, and the day is counted again from the records",
    ]
    mended = trafficcast("fsck", "--city", "other", "--repair", "--json", "--device", "cpu")
    assert mended.code == 1 and "counted again from the records" in mended.json["other"]["rebuilt"][0]["done"]
    assert trafficcast("fsck", "--city", "other", "--repair", "--device", "cpu").code == 0
    weights = replayed / "models" / "small" / VERSION / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    found = trafficcast("fsck")
    assert found.code == 3 and "small: 1 lost" in found.out and "a-sick: " in found.out
    assert f"- lost: model {weights.parent} is damaged" in found.out and "restore" in found.out
    assert trafficcast("repair", "--dry-run").code == 2


def test_one_damaged_database_of_all_cities_is_told_once(replayed: Path, trafficcast: Callable[..., Any]) -> None:
    config = replayed / "config.toml"
    config.write_text(config.read_text() + "\n[cities.other]" + config.read_text().partition("[cities.small]")[2])
    (replayed / "data" / "ledger.sqlite").write_bytes(b"no ledger" * 99)
    found = trafficcast("fsck", "--json")
    assert found.code == 3 and len(found.json["all cities"]["lost"]) == 1
    assert found.json["small"]["lost"] == found.json["other"]["lost"] == []
