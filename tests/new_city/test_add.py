"""City add, and docs/new-city.md followed from records to the dashboard."""

from __future__ import annotations

import functools
import inspect
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trafficcast.config.city import City
from trafficcast.config.settings import load_config
from trafficcast.simulator.simulator import simulate

DOCUMENT = Path(__file__).parents[2] / "docs" / "new-city.md"
KOLKATA = City(
    west=88.30, east=88.42, south=22.50, north=22.59, rows=20, cols=24, timezone="Asia/Kolkata", name="kolkata"
)
START_S = 1_712_514_600
BENGALURU = 77.59, 12.97


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """2,000 points of seven taxis in the middle of Bengaluru."""
    return _write(tmp_path / "records.csv", *BENGALURU)


def _write(file: Path, lon: float, lat: float, n: int = 2000, header: str = "vehicle,time,lon,lat") -> Path:
    rng = np.random.default_rng(0)
    places = zip(lon + 0.02 * rng.standard_normal(n), lat + 0.02 * rng.standard_normal(n), strict=True)
    lines = (f"t{i % 7},{START_S + 60 * i},{x:.5f},{y:.5f}" for i, (x, y) in enumerate(places))
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


def _blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for named, text in fenced if named == language]


def _commands(text: str) -> list[list[str]]:
    """The calls of trafficcast in a text, without that word."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line.partition("trafficcast ")[2]) for line in lines if "trafficcast " in line]


def test_the_document_leads_from_records_to_the_dashboard(
    trafficcast: Callable[..., Any], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trafficcast.forecasting.model import ARCHITECTURES

    simulate(KOLKATA, tmp_path / "gps", vehicles=60, days=7, file_format="parquet")
    _write(tmp_path / "taxis.csv", *BENGALURU, header="taxi,when,x,y")
    monkeypatch.chdir(tmp_path)
    for name, function in list(ARCHITECTURES.items()):
        if "depth" in inspect.signature(function).parameters:
            monkeypatch.setitem(ARCHITECTURES, name, functools.partial(function, depth=1, embed=32))
    served: list[list[str]] = []
    monkeypatch.setattr("pipelines.cli.serving.os.execv", lambda _, words: served.append(words))
    scheduled: list[str] = []
    monkeypatch.setattr(
        "pipelines.service.schedule.schedule", lambda _, cities, *more: scheduled.extend(city.name for city in cities)
    )

    places = {"PATH/TO/RECORDS": "gps"}
    # Of an option given twice the last counts.
    few = ["--epochs", "1", "--train-end", "2024-04-10", "--valid-end", "2024-04-12"]
    quicker = {"train": few, "replay": ["--end", "2024-04-14T03:00"]}
    commands = [[places.get(word, word) for word in words] for block in _blocks("") for words in _commands(block)]
    results: dict[str, Any] = {}
    for words in commands:
        printed = [] if words[0] in ("dashboard", "schedule") else ["--json"]
        ran = trafficcast(*words, *quicker.get(words[0], []), *printed)
        assert ran.code == 0, (words, ran.err)
        results.setdefault(" ".join(words[:3] if words[0] == "city" else words[:1]), ran.json if printed else None)

    (shown,) = _blocks("toml")
    assert results["city add kolkata"]["toml"] == shown
    city = load_config(config).city("kolkata")
    assert (city.rows, city.cols, city.slot_minutes, city.timezone) == (20, 24, 30, "Asia/Kolkata")
    assert city.holidays == "IN"
    assert load_config(config).city("bengaluru").feed.columns.time == "when"

    # What was estimated from the records is near what was then counted.
    report = results["ingest"]
    mean = report["inflow"] / (city.rows * city.cols * report["slots"]["observed"])
    told = float(re.findall(r"about ([0-9.]+) enter", results["city add kolkata"]["why"]["slot"])[0])
    assert told == pytest.approx(mean, rel=0.4)
    assert report["first_slot"] == "2024-04-08T00:00:00+05:30"
    assert (tmp_path / "quality.html").is_file()

    version = results["train"]["version"]
    assert results["train"]["grid"]["cols"] == 24 and results["train"]["training"]["epochs"] == 1
    assert results["backtest"]["champion"] == version and results["backtest"]["forecasts"] == 45
    assert results["forecast"]["model"] == version
    assert len(results["forecast"]["slots"]) == 4
    assert results["forecast"]["init_time"] == "2024-04-15T00:00:00+05:30"
    assert results["verify"]["waiting"] == 1
    assert results["replay"]["forecasts"] == 6 and results["replay"]["verified"] == 3
    assert scheduled == ["kolkata"] and len(served) == 1
    assert results["status"]["cities"]["kolkata"]["champion"] == version


def test_the_file_keeps_all_it_had(trafficcast: Callable[..., Any], config: Path, records: Path) -> None:
    before = "# Mine.\n" + config.read_text().rstrip("\n") + "  # the last line, unfinished"
    config.write_text(before)
    config.chmod(0o600)
    result = trafficcast("city", "add", "bengaluru", "--records", records, "--timezone", "Asia/Kolkata", "--json").json
    assert config.read_text() == before + "\n\n" + result["toml"]
    assert config.stat().st_mode & 0o777 == 0o600
    assert not list(config.parent.glob(".config*"))
    city = load_config(config).city("bengaluru")
    assert city.west < 77.59 < city.east and city.south < 12.97 < city.north
    assert {key: getattr(city, key) for key in ("west", "east", "south", "north")} == result["box"]
    assert result["written"] is True and 0.97 <= result["share_in_box"] < 1


def test_a_link_to_the_configuration_stays_one(
    trafficcast: Callable[..., Any], config: Path, records: Path, tmp_path: Path
) -> None:
    link = tmp_path / "linked.toml"
    link.symlink_to(config)
    call = ("city", "add", "bengaluru", "--records", records, "--timezone", "Asia/Kolkata", "--config", link)
    assert trafficcast(*call).code == 0
    assert link.is_symlink() and "bengaluru" in load_config(config).cities


def test_a_dry_run_prints_the_table_alone(trafficcast: Callable[..., Any], config: Path, records: Path) -> None:
    before = config.read_bytes()
    call = ("city", "add", "bengaluru", "--records", records, "--timezone", "Asia/Kolkata", "--dry-run")
    ran = trafficcast(*call)
    assert set(tomllib.loads(ran.out)) == {"cities"} and ran.out.startswith("# From 2,000 GPS points")
    assert trafficcast(*call, "--json").json["toml"] == ran.out
    assert config.read_bytes() == before


def test_it_says_what_was_chosen_and_what_comes_next(
    trafficcast: Callable[..., Any], config: Path, records: Path
) -> None:
    call = ("city", "add", "bengaluru", "--records", records, "--timezone", "Asia/Kolkata")
    ran = trafficcast(*call, "--rows", 10, "--slot-minutes", 60)
    assert ran.code == 0
    assert "[cities.bengaluru]" in ran.out and "rows = 10\n" in ran.out and "slot_minutes = 60\n" in ran.out
    for said in ("as given: a cell is", "97%", "2,000", f"trafficcast ingest {records} --city bengaluru"):
        assert said in ran.out


def test_the_time_zone_is_the_one_where_the_records_lie(
    trafficcast: Callable[..., Any], config: Path, records: Path, tmp_path: Path
) -> None:
    before = config.read_bytes()
    at_sea = _write(tmp_path / "sea.csv", -30.0, 30.0)
    ran = trafficcast("city", "add", "atlantis", "--records", at_sea)
    assert ran.code == 2 and "--timezone" in ran.err and ") lies at sea" in ran.err
    assert config.read_bytes() == before
    added = trafficcast("city", "add", "bengaluru", "--records", records, "--json").json
    assert added["timezone"] == "Asia/Kolkata" and "lies in Asia/Kolkata" in added["why"]["timezone"]
    rome = _write(tmp_path / "rome.csv", 12.49, 41.90)
    assert trafficcast("city", "add", "rome", "--records", rome, "--json").json["timezone"] == "Europe/Rome"
    added = trafficcast("city", "add", "universal", "--records", rome, "--timezone", "UTC", "--json").json
    assert added["timezone"] == "UTC" and "lies in Europe/Rome, not in UTC" in added["notes"][-1]
    assert load_config(config).city("rome").holidays == "IT" and load_config(config).city("universal").holidays is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("small",), "has a city 'small' already"),
        (("Small",), "cannot be a city's name"),
        (("new", "--timezone", "Mars"), "'Mars' is not an IANA time zone"),
        (("new", "--slot-minutes", 7), "do not divide a day"),
        (("new", "--format", "csvv"), "did you mean 'csv'?"),
        (("new", "--feed", "swaped=true"), "swaped: unknown key"),
        (("new", "--feed", "swapped"), "KEY=VALUE"),
        (("new", "--feed", "columns.when=time"), "columns.when: unknown key"),
        (("new", "--feed", "columns.time=when"), "has no column 'when'"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[Any, ...], said: str, trafficcast: Callable[..., Any], config: Path, records: Path
) -> None:
    before = config.read_bytes()
    ran = trafficcast("city", "add", *words, "--records", records)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err
    assert config.read_bytes() == before


def test_records_that_make_no_city_are_refused(trafficcast: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    before = config.read_bytes()
    zones = tmp_path / "zones.csv"
    header = "tpep_pickup_datetime,tpep_dropoff_datetime,PULocationID,DOLocationID\n"
    zones.write_text(header + "2024-04-08 10:00:00,2024-04-08 10:20:00,1,2\n" * 9)
    empty = tmp_path / "empty.csv"
    empty.write_text("vehicle,time,lon,lat\n")
    files = {
        zones: "trips between zones",
        empty: "0 records are too few",
        _write(tmp_path / "few.csv", *BENGALURU, n=999): "999 records are too few",
        _write(tmp_path / "odd.csv", *BENGALURU, header="taxi,when,x,y"): "--feed columns.time=NAME",
        _write(tmp_path / "swapped.csv", *BENGALURU[::-1]): "seem to have changed places",
        _write(tmp_path / "off.csv", 37.75, -122.45): "longitude and latitude are swapped",
        tmp_path / "nothing": "there is nothing at",
    }
    for file, said in files.items():
        ran = trafficcast("city", "add", "new", "--records", file, "--timezone", "Asia/Kolkata")
        assert ran.code == 2 and said in ran.err, (file, ran.err)
    assert config.read_bytes() == before


def test_the_feed_is_read_by_and_written(trafficcast: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    file = _write(tmp_path / "swapped.csv", *BENGALURU[::-1], header='taxi "1",time,lon,lat')
    feed = ("--feed", "swapped=true", "--feed", 'columns.vehicle=taxi "1"', "--feed", "retain_days=30")
    call = ("city", "add", "new", "--records", file, "--timezone", "Asia/Kolkata", "--format", "csv", *feed)
    ran = trafficcast(*call)
    assert ran.code == 0, ran.err
    city = load_config(config).city("new")
    assert city.west < 77.59 < city.east
    assert (city.feed.format, city.feed.swapped, city.feed.retain_days) == ("csv", True, 30)
    assert city.feed.columns.vehicle == 'taxi "1"'
    assert trafficcast("ingest", file, "--city", "new", "--json").json["points_kept"] == 2000


def test_a_sparse_feed_is_pointed_out(trafficcast: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    seconds = (600 * i for i in range(2000) if i // 144 % 3 or i % 144 < 72)  # every third day the feed stops at noon
    lines = (f"t,{START_S + at},{77.59 + at % 24_000 / 300_000},12.97" for at in seconds)
    file = tmp_path / "sparse.csv"
    file.write_text("\n".join(["vehicle,time,lon,lat", *lines]))
    result = trafficcast("city", "add", "new", "--records", file, "--timezone", "Europe/Rome", "--json").json
    assert result["slot_minutes"] == 120
    cells, silence, zone = result["notes"]
    assert "nearly empty" in cells and "Europe/Rome" in zone
    assert f"about {result['observed']:.0%} of the slots would count as observed" in silence
    assert 0.75 < result["observed"] < 0.9 and "most of them at" in silence


def test_a_configuration_that_takes_no_table_is_left_alone(
    trafficcast: Callable[..., Any], config: Path, records: Path
) -> None:
    config.write_text(
        'cities = { small = { west = 9.1, east = 9.2, south = 45.4, north = 45.5, timezone = "Europe/Rome" } }\n'
    )
    before = config.read_bytes()
    ran = trafficcast("city", "add", "new", "--records", records, "--timezone", "Asia/Kolkata")
    assert ran.code == 2 and "by hand" in ran.err and str(config) in ran.err and ".tmp" not in ran.err
    assert config.read_bytes() == before
    assert not list(config.parent.glob(".config*"))
