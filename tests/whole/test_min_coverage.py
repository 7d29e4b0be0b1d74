"""A changed min_coverage is noticed by the next read, and holds from the next ingest on."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

BEGIN = datetime(2024, 3, 21, 9, tzinfo=UTC)
SENTENCE = (
    "the slots of 'small' were judged by min_coverage = 0.8, and the configuration says 0.5: the next ingest judges "
    "them anew, also one of files that were ingested before (trafficcast ingest PATH --city small)"
)


@pytest.fixture
def inbox(tmp_path: Path, config: Path) -> Path:
    """A fleet of 20 over six hours, of which the third lacks 20 minutes; the file has lain in the inbox for a while."""
    config.write_text(config.read_text() + '\n[cities.small.feed]\ninbox = "inbox"\n')
    folder = tmp_path / "inbox"
    folder.mkdir()
    rows = [
        f"cab{vehicle},{BEGIN + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ},{9.11 + 0.002 * (minute % 60)},45.47"
        for minute in range(360)
        for vehicle in range(20)
        if not 130 <= minute < 150
    ]
    file = folder / "a.csv"
    file.write_text("\n".join(["vehicle,timestamp,lon,lat", *rows]) + "\n")
    now = datetime.now(UTC).timestamp()
    os.utime(file, (now - 600, now - 600))
    return folder


def change(config: Path) -> None:
    config.write_text(config.read_text().replace("slot_minutes = 60", "slot_minutes = 60\nmin_coverage = 0.5"))


def judged(trafficcast: Callable[..., Any]) -> str:
    found: str = trafficcast("status", "--json").json["cities"]["small"]["data"]["judged_otherwise"]
    return found


def test_reads_say_so_until_an_ingest_of_the_same_file(
    inbox: Path, config: Path, trafficcast: Callable[..., Any], tmp_path: Path
) -> None:
    first = trafficcast("ingest", inbox / "a.csv", "--json")
    assert first.json["slots"] == {"observed": 5, "partial": 1, "missing": 0}
    assert judged(trafficcast) == ""
    export = "export", "--format", "netcdf", "--out", tmp_path / "flows.nc"
    assert "min_coverage" not in trafficcast(*export).err
    change(config)
    assert judged(trafficcast) == SENTENCE
    assert "judged_otherwise" in trafficcast("status").out
    assert SENTENCE in trafficcast(*export).err
    again = trafficcast("ingest", inbox / "a.csv", "--json")
    assert again.json["slots"] == {"observed": 6, "partial": 0, "missing": 0}
    assert judged(trafficcast) == ""
    assert "min_coverage" not in trafficcast(*export).err


def test_the_next_look_into_an_inbox_applies_it(
    inbox: Path, config: Path, trafficcast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficcast.ingestion.inbox._QUIET_SECONDS", 0.0)
    assert trafficcast("ingest", "--json").json["taken"] == ["a.csv"]
    change(config)
    assert judged(trafficcast) == SENTENCE
    assert trafficcast("ingest", "--json").json["taken"] == []
    assert judged(trafficcast) == ""
    assert trafficcast("quality", "--json").json["period"]["slots"] == {"observed": 6, "partial": 0, "missing": 0}
