"""A file that is read otherwise takes its own place, a file that gives nothing is named, and files can be forgotten.

All through the real command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cities import small_city, stores_in
from trafficcast.ingestion import inbox as inbox_module

Command = Callable[..., Any]
CITY = small_city(slot_minutes=60)


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "_QUIET_SECONDS", 0.0)


def points(file: Path, day: str = "2024-03-05", lon: float = 9.11, seconds: int = 0) -> Path:
    """Five vehicles that each change their cell every five minutes for two hours; local times."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        f"cab{v},{day} {9 + minute // 60:02d}:{minute % 60:02d}:{seconds:02d},{lon + 0.03 * (minute // 5 % 3)},45.47\n"
        for v in range(5)
        for minute in range(0, 120, 5)
    ]
    file.write_text("vehicle,time,lon,lat\n" + "".join(rows))
    return file


def flows(data: Path) -> dict[str, int]:
    """Inflow and outflow of each slot that has some, by its start in UTC."""
    dataset = stores_in(data, CITY).flows.read()
    if dataset is None:
        return {}
    totals = dataset["flow"].values.sum(axis=(1, 2, 3))
    return {str(time)[:16]: int(n) for time, n in zip(dataset["time"].values, totals, strict=True) if n}


def report(data: Path) -> Any:
    return json.loads((data / "small" / "quality.json").read_text())


def test_a_mended_configuration_reads_the_same_file_anew_in_its_place(
    trafficcast: Command, config: Path, tmp_path: Path
) -> None:
    file = points(tmp_path / "a.csv")
    assert trafficcast("ingest", file).code == 0
    assert set(flows(tmp_path / "data")) == {"2024-03-05T08:00", "2024-03-05T09:00"}
    config.write_text(config.read_text() + '[cities.small.feed]\ntimezone = "UTC"\n')
    again = trafficcast("ingest", file)
    assert again.code == 0 and "a.csv was read otherwise before (csv, timezone Europe/Rome)" in again.err
    assert set(flows(tmp_path / "data")) == {"2024-03-05T09:00", "2024-03-05T10:00"}
    (listed,) = trafficcast("records", "list", "--json").json["files"]
    assert (listed["name"], listed["read_as"], listed["records_counted"]) == ("a.csv", "csv, timezone UTC", 120)
    (tmp_path / "data").rename(tmp_path / "before")
    assert trafficcast("ingest", file).code == 0
    assert flows(tmp_path / "before") == flows(tmp_path / "data")
    assert report(tmp_path / "before") == report(tmp_path / "data")
    assert "passed over" in trafficcast("ingest", file).err


@pytest.mark.parametrize("key", ["swapped = true", 'columns.lon = "lat"\ncolumns.lat = "lon"'])
def test_other_keys_belong_to_the_way_of_reading_too(
    trafficcast: Command, config: Path, tmp_path: Path, key: str
) -> None:
    file = points(tmp_path / "a.csv")
    file.write_text(file.read_text().replace("lon,lat", "lat,lon"))
    assert trafficcast("ingest", file).code == 1  # swapped, and said so
    config.write_text(config.read_text() + f"[cities.small.feed]\n{key}\n")
    assert trafficcast("ingest", file).code == 0
    whole = flows(tmp_path / "data")
    other = points(tmp_path / "other" / "b.csv", day="2024-03-06")
    other.write_text(other.read_text().replace("lon,lat", "lat,lon"))
    assert trafficcast("ingest", other).code == 0 and flows(tmp_path / "data") != whole
    assert trafficcast("records", "forget", "b.csv").code == 0 and flows(tmp_path / "data") == whole


def test_an_earlier_start_keeps_no_record_out_for_ever(trafficcast: Command, tmp_path: Path) -> None:
    points(tmp_path / "in" / "good.csv")
    points(tmp_path / "in" / "next.csv", day="2024-03-06")
    assert trafficcast("ingest", tmp_path / "in", "--start", "2024-03-06").code == 0
    assert {time[:10] for time in flows(tmp_path / "data")} == {"2024-03-06"}
    assert trafficcast("ingest", tmp_path / "in").code == 0
    assert {time[:10] for time in flows(tmp_path / "data")} == {"2024-03-05", "2024-03-06"}
    assert report(tmp_path / "data")["points_kept"] == 240
    assert report(tmp_path / "data")["rows_dropped"]["timestamp"] == 0


def test_equal_trips_of_one_file_all_count_and_of_two_files_once(trafficcast: Command, tmp_path: Path) -> None:
    header = "pickup_time,pickup_lon,pickup_lat,dropoff_time,dropoff_lon,dropoff_lat\n"
    row = "2024-03-05 09:{:02d}:00,9.11,45.47,2024-03-05 09:45:00,9.2,45.5\n"
    (tmp_path / "march.csv").write_text(header + 3 * row.format(15) + row.format(30))
    (tmp_path / "spring.csv").write_text(header + 2 * row.format(15) + 2 * row.format(30))
    assert trafficcast("ingest", tmp_path / "march.csv").code == 0
    assert flows(tmp_path / "data") == {"2024-03-05T08:00": 8}
    assert trafficcast("ingest", tmp_path / "spring.csv").code == 0
    assert flows(tmp_path / "data") == {"2024-03-05T08:00": 10}  # three of 09:15, two of 09:30
    assert report(tmp_path / "data")["rows_dropped"]["duplicate"] == 3
    assert trafficcast("records", "forget", "march.csv").code == 0
    assert flows(tmp_path / "data") == {"2024-03-05T08:00": 8}
    assert report(tmp_path / "data")["rows_dropped"]["duplicate"] == 0


def test_a_file_that_gives_nothing_is_named_among_others(
    trafficcast: Command, config: Path, tmp_path: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    box = tmp_path / "inbox"
    points(box / "good.csv")
    points(box / "projected.csv", lon=1_013_000.0)
    points(box / "wrongdate.csv", day="1970-03-05")
    ran = trafficcast("ingest", box)
    assert ran.code == 1 and not list((tmp_path / "data").rglob("*.nc"))
    for name, reason in (("projected.csv", "coordinates 120"), ("wrongdate.csv", "timestamp 120")):
        assert f"{name} is left to count; dropped were: {reason}" in ran.err
    config.write_text(config.read_text() + '[cities.small.feed]\ninbox = "inbox"\n')
    look = trafficcast("ingest", "--json").json
    assert look["taken"] == ["good.csv"] and set(look["quarantined"]) == {"projected.csv", "wrongdate.csv"}
    assert report(tmp_path / "data")["files"] == 1
    before = snapshot(tmp_path / "data")
    assert trafficcast("ingest", points(tmp_path / "late.csv", day="1970-03-05")).code == 1
    assert snapshot(tmp_path / "data") == before


def test_an_inbox_is_read_anew_when_the_configuration_reads_it_otherwise(
    trafficcast: Command, config: Path, tmp_path: Path
) -> None:
    text = config.read_text()
    config.write_text(text + '[cities.small.feed]\ninbox = "inbox"\n')
    for number in range(2):
        points(tmp_path / "inbox" / f"{number}.csv", seconds=number)
    assert trafficcast("ingest").code == 0
    (tmp_path / "inbox" / "0.csv").unlink()
    config.write_text(text + '[cities.small.feed]\ninbox = "inbox"\ntimezone = "UTC"\n')
    look = trafficcast("ingest", "--json")
    assert look.json["taken"] == ["1.csv"] and "looked at again" in look.err
    read_as = {one["name"]: one["read_as"] for one in trafficcast("records", "list", "--json").json["files"]}
    assert read_as == {"0.csv": "csv, timezone Europe/Rome", "1.csv": "csv, timezone UTC"}
    assert trafficcast("ingest", "--json").json["taken"] == []
    assert trafficcast("records", "forget", "0.csv").code == 0
    assert trafficcast("ingest", "--json").json["taken"] == []
    # A configuration that is wrong now moves no file that was good, and takes no record back.
    config.write_text(text + '[cities.small.feed]\ninbox = "inbox"\nswapped = true\n')
    before = flows(tmp_path / "data")
    look = trafficcast("ingest", "--json")
    assert look.json["quarantined"] == {} and "its records stay as they were read before" in look.err
    assert (tmp_path / "inbox" / "1.csv").exists() and flows(tmp_path / "data") == before


def test_records_are_listed_and_forgotten_by_their_files(trafficcast: Command, tmp_path: Path) -> None:
    assert "holds no records yet" in trafficcast("records", "list").out
    points(tmp_path / "in" / "a.csv")
    points(tmp_path / "in" / "b.csv", lon=9.14)
    assert trafficcast("ingest", tmp_path / "in" / "a.csv").code == 0
    alone = flows(tmp_path / "data")
    assert trafficcast("ingest", tmp_path / "in").code == 0
    shown = trafficcast("records", "list")
    assert shown.code == 0 and "csv, timezone Europe/Rome" in shown.out and "duplicate 120" in shown.out
    dry = trafficcast("records", "forget", "b.csv", "--dry-run")
    assert dry.code == 0 and "Would be forgotten" in dry.out and flows(tmp_path / "data") != {}
    assert len(trafficcast("records", "list", "--json").json["files"]) == 2
    gone = trafficcast("records", "forget", "b.csv", "--json").json
    assert [one["name"] for one in gone["forgotten"]] == ["b.csv"] and gone["report"]["files"] == 1
    assert flows(tmp_path / "data") == alone
    refused = trafficcast("records", "forget", "b.csv")
    assert refused.code == 2 and "no file of 'small' has the name b.csv" in refused.err
    assert trafficcast("records", "forget", "a.csv").code == 0
    assert flows(tmp_path / "data") == {} and "holds no records yet" in trafficcast("records", "list").out
    for command in ("status", "quality", "repair"):
        ran = trafficcast(command)
        assert "Traceback" not in ran.err and ran.code in (0, 2), ran
    assert trafficcast("ingest", tmp_path / "in" / "a.csv").code == 0 and flows(tmp_path / "data") == alone
