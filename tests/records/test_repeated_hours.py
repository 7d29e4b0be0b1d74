"""Local times that occur twice: the true times of a fleet, from files in one order or another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from trafficcast.config.city import City
from trafficcast.records import readers
from trafficcast.records.readers import delimited
from trafficcast.records.records import Points, Records, Trips
from trafficcast.records.sources import find_sources

ROME, LORD_HOWE = "Europe/Rome", "Australia/Lord_Howe"
CHANGE = {ROME: "2024-10-27T01:00", LORD_HOWE: "2024-04-06T15:00"}
SHIFT = {ROME: 60, LORD_HOWE: 30}
MINUTE = np.timedelta64(1, "m")


def city(zone: str = ROME, **feed: Any) -> City:
    return City(west=9.0, east=9.2, south=45.0, north=45.2, timezone=zone, name="small", feed=feed)


def fleet(zone: str = ROME, vehicles: int = 8, every: int = 60, hours: float = 3) -> pd.DataFrame:
    """Records of a fleet in the order of time, from some hours before a change of the clocks to as many after it."""
    rng = np.random.default_rng(3)
    n = round(2 * hours * 3600 / every)
    begin = np.datetime64(CHANGE[zone], "s") - np.timedelta64(round(hours * 3600), "s")
    utc = begin + np.arange(n)[:, None] * every + rng.integers(0, every // 2, (n, vehicles))
    frame = pd.DataFrame({"utc": utc.ravel(), "vehicle": np.tile([f"v{i}" for i in range(vehicles)], n)})
    frame["lon"], frame["lat"] = rng.uniform(9.0, 9.2, n * vehicles).round(6), 45.1
    return frame.sort_values("utc", kind="stable").reset_index(drop=True)


def local(utc: pd.Series, zone: str) -> pd.Series:
    return utc.dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)


def twice(utc: pd.Series, zone: str) -> pd.Series:
    change, shift = np.datetime64(CHANGE[zone], "s"), SHIFT[zone] * MINUTE
    return (utc >= change - shift) & (utc < change + shift)


def write(frame: pd.DataFrame, file: Path, zone: str = ROME) -> Path:
    frame.assign(time=local(frame["utc"], zone).astype(str)).drop(columns="utc").to_csv(file, index=False)
    return file


def read(file: Path, there: City) -> tuple[Records, list[str], int, int, list[str]]:
    """Return the records of a file, their vehicles' names, how many rows it has and lost by the clock, and notes."""
    parts, names, rows, clock, notes = [], [], 0, 0, []
    for batch in readers.read(find_sources(str(file))[0], there):
        parts.append(batch.records)
        if isinstance(batch.records, Points):
            names += [batch.vehicles[code] for code in batch.records.vehicle]
        rows, clock, notes = rows + batch.rows, clock + batch.dropped["clock"], [*notes, *batch.notes]
        assert not batch.again
    return type(parts[0]).concatenate(parts), names, rows, clock, notes


def found_in(file: Path, zone: str = ROME) -> set[tuple[str, np.datetime64, float]]:
    records, names, *_ = read(file, city(zone))
    assert isinstance(records, Points)
    return set(zip(names, records.time.astype("datetime64[us]"), records.lon.tolist(), strict=True))


def rows_of(frame: pd.DataFrame) -> set[tuple[str, np.datetime64, float]]:
    return set(zip(frame["vehicle"], frame["utc"].to_numpy("datetime64[us]"), frame["lon"], strict=True))


def disturbed(utc: pd.Series) -> np.ndarray:
    """Return the times at which records are delivered, some seconds late but for the minutes of the change."""
    late = np.random.default_rng(0).integers(0, 60, len(utc))
    near = np.logical_or.reduce(
        [np.abs(utc.to_numpy() - np.datetime64(at, "s")) < 5 * MINUTE for at in CHANGE.values()]
    )
    return utc.to_numpy().astype("datetime64[s]") + np.where(near, 0, late)


Order = Callable[[pd.DataFrame], pd.DataFrame]
ORDERS: dict[str, Order] = {
    "by time": lambda frame: frame,
    "by vehicle": lambda frame: frame.sort_values(["vehicle", "utc"]),
    "newest first": lambda frame: frame[::-1],
    "by vehicle, newest first": lambda frame: frame.sort_values(["vehicle", "utc"], ascending=[True, False]),
    "some seconds out of order": lambda frame: frame.iloc[np.argsort(disturbed(frame["utc"]), kind="stable")],
}


@pytest.mark.parametrize("zone", [ROME, LORD_HOWE])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_each_record_has_its_true_time(
    order: Order, zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = order(fleet(zone))
    file = write(frame, tmp_path / "a.csv", zone)
    assert found_in(file, zone) == rows_of(frame)
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 5_000)  # the hour comes in many parts
    assert found_in(file, zone) == rows_of(frame)
    *_, rows, clock, notes = read(file, city(zone))
    assert (rows, clock) == (len(frame), 0)
    assert f"{twice(frame['utc'], zone).sum():,} records have local times that occur twice" in notes[-1]


@pytest.mark.parametrize(
    "order",
    [
        lambda frame: frame.assign(at=local(frame["utc"], ROME)).sort_values("at").drop(columns="at"),
        lambda frame: frame.assign(at=local(frame["utc"], ROME)).sort_values(["vehicle", "at"]).drop(columns="at"),
        lambda frame: frame.sample(frac=1, random_state=0),
        lambda frame: frame.sort_values("lon"),
    ],
    ids=["by local time", "by vehicle and local time", "shuffled", "by place"],
)
def test_without_an_order_that_tells_them_apart_all_of_the_two_hours_are_dropped(order: Order, tmp_path: Path) -> None:
    frame = order(fleet())
    file = write(frame, tmp_path / "a.csv")
    lost = twice(frame["utc"], ROME)
    assert found_in(file) == rows_of(frame[~lost])
    *_, rows, clock, notes = read(file, city())
    assert (rows, clock) == (len(frame), lost.sum())
    assert notes[-1].endswith("their order does not tell them apart, and they are dropped (write times in UTC)")


def test_a_vehicle_with_one_run_belongs_where_it_leaves_no_gap(tmp_path: Path) -> None:
    """One goes off duty in the first hour, another comes in the second, a third rests an hour, a fourth is alone."""
    frame = fleet(vehicles=60)
    at = (frame["utc"] - np.datetime64(CHANGE[ROME], "s")) / MINUTE
    off, on = frame["vehicle"].eq("v0") & (at > -20), frame["vehicle"].eq("v1") & (at < 30)
    rests, alone = frame["vehicle"].eq("v2") & (at > 0) & (at < 60), frame["vehicle"].eq("v3") & ~at.between(20, 40)
    frame = frame[~(off | on | rests | alone)]
    lost = frame["vehicle"].isin(["v2", "v3"]) & twice(frame["utc"], ROME)
    file = write(frame, tmp_path / "a.csv")
    assert found_in(file) == rows_of(frame[~lost])
    *_, clock, notes = read(file, city())
    assert clock == lost.sum() > 0
    assert notes[-1].endswith(f"their order tells them apart; {clock} are not told apart by it, and are dropped")


def test_a_tenth_that_is_not_told_apart_takes_all_of_the_night(tmp_path: Path) -> None:
    frame = fleet(vehicles=5)
    rests = frame["vehicle"].eq("v2") & twice(frame["utc"], ROME) & (frame["utc"] >= np.datetime64(CHANGE[ROME], "s"))
    frame = frame[~rests]
    assert found_in(write(frame, tmp_path / "a.csv")) == rows_of(frame[~twice(frame["utc"], ROME)])


def trips(every: int = 90) -> pd.DataFrame:
    frame = fleet(vehicles=1, every=every).rename(columns={"utc": "start", "lon": "start_lon", "lat": "start_lat"})
    rng = np.random.default_rng(1)
    frame["end"] = frame["start"] + pd.to_timedelta(rng.integers(120, 1500, len(frame)), "s")
    return frame.drop(columns="vehicle").assign(end_lon=9.1, end_lat=45.05)


def write_trips(frame: pd.DataFrame, file: Path) -> Path:
    times = {f"{end}_time": local(frame[end], ROME).astype(str) for end in ("start", "end")}
    frame.assign(**times).drop(columns=["start", "end"]).to_csv(file, index=False)
    return file


def ends(frame: pd.DataFrame) -> set[tuple[np.datetime64, np.datetime64, float]]:
    times = (frame[end].to_numpy("datetime64[us]") for end in ("start", "end"))
    return set(zip(*times, frame["start_lon"], strict=True))


def trips_in(file: Path) -> set[tuple[np.datetime64, np.datetime64, float]]:
    records, *_ = read(file, city())
    assert isinstance(records, Trips)
    times = (time.astype("datetime64[us]") for time in (records.time, records.dropoff_time))
    return set(zip(*times, records.lon.tolist(), strict=True))


def test_trips_in_the_order_of_their_pick_ups_have_their_true_times(tmp_path: Path) -> None:
    frame = trips()
    assert trips_in(write_trips(frame, tmp_path / "a.csv")) == ends(frame)


def test_trips_in_no_order_that_tells_are_dropped_but_for_those_that_end_before_they_begin(tmp_path: Path) -> None:
    frame = trips()
    by_local_time = frame.iloc[np.argsort(local(frame["start"], ROME).to_numpy(), kind="stable")]
    lost = twice(frame["start"], ROME) | twice(frame["end"], ROME)
    assert trips_in(write_trips(by_local_time, tmp_path / "a.csv")) == ends(frame[~lost])
    few = pd.concat([frame[~lost], frame[(frame["start"] < CHANGE[ROME]) & (frame["end"] > CHANGE[ROME])]])
    assert trips_in(write_trips(few.sample(frac=1, random_state=1), tmp_path / "b.csv")) == ends(few)


@pytest.mark.parametrize("form", ["parquet", "jsonl", "tdrive", "time_format", "two columns"])
def test_every_form_of_local_times(form: str, tmp_path: Path) -> None:
    frame = fleet()
    at = local(frame["utc"], ROME)
    table, feed = frame.assign(time=at).drop(columns="utc"), {}
    file = tmp_path / f"{form}.txt"
    if form == "parquet":
        table.to_parquet(file)
    elif form == "jsonl":
        lines = table.assign(time=at.dt.strftime("%Y-%m-%dT%H:%M:%S")).to_dict("records")
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    elif form == "tdrive":
        table[["vehicle", "time", "lon", "lat"]].to_csv(file, index=False, header=False)
        feed = {"format": "tdrive"}
    elif form == "time_format":
        feed = {"time_format": "%d.%m.%Y %H:%M:%S"}
        table.assign(time=at.dt.strftime(feed["time_format"])).to_csv(file, index=False)
    else:
        table.assign(date=at.dt.strftime("%Y-%m-%d"), time=at.dt.strftime("%H:%M:%S")).to_csv(file, index=False)
    records, names, _, clock, _ = read(file, city(**feed))
    assert isinstance(records, Points)
    assert clock == 0
    assert set(zip(names, records.time.astype("datetime64[us]"), records.lon.tolist(), strict=True)) == rows_of(frame)


def test_times_with_an_offset_are_never_withheld(tmp_path: Path) -> None:
    frame = fleet().sample(frac=1, random_state=0)
    stamps = frame["utc"].dt.tz_localize("UTC").dt.tz_convert(ZoneInfo(ROME)).map(lambda time: time.isoformat())
    file = tmp_path / "a.csv"
    frame.assign(time=stamps).drop(columns="utc").to_csv(file, index=False)
    assert found_in(file) == rows_of(frame)
    *_, notes = read(file, city())
    assert not any("twice" in note for note in notes)


def test_the_command_finds_the_flows_of_the_true_times_or_does_not_mark_the_hours_observed(
    trafficcast: Callable[..., Any], tmp_path: Path
) -> None:
    frame = fleet(vehicles=20)
    frame["lon"] = 9.11 + 0.14 * (frame["lon"] - 9.0) / 0.2
    frame["lat"] = 45.47
    told, untold = tmp_path / "told.csv", tmp_path / "untold.csv"
    stamps = frame["utc"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    frame.assign(time=stamps).drop(columns="utc").to_csv(tmp_path / "utc.csv", index=False)
    write(frame, told)
    write(frame.iloc[np.argsort(local(frame["utc"], ROME).to_numpy(), kind="stable")], untold)
    reports = []
    for file in (tmp_path / "utc.csv", told, untold):
        ran = trafficcast("ingest", file, "--json")
        assert ran.code == 0, ran.err
        reports.append(ran.json)
        shutil.rmtree(tmp_path / "data")
    utc, as_told, as_untold = reports
    assert utc["slots"] == {"observed": 6, "partial": 0, "missing": 0}
    assert as_told == utc
    assert "their order tells them apart" in trafficcast("ingest", told, "--json").err
    assert as_untold["slots"] == {"observed": 4, "partial": 0, "missing": 2}
    assert as_untold["rows_dropped"]["clock"] == twice(frame["utc"], ROME).sum()
    assert as_untold["gaps"] == [
        {"start": "2024-10-27T02:00:00+02:00", "end": "2024-10-27T03:00:00+01:00", "partial": 0, "missing": 2}
    ]


def test_a_file_of_nothing_else_is_refused_with_what_helps(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    frame = fleet()
    ran = trafficcast(
        "ingest", write(frame[frame["utc"].between("2024-10-27T00:00", "2024-10-27T00:59")], tmp_path / "a")
    )
    assert ran.code == 1
    assert "line 2: time '2024-10-27 02:00:" in ran.err
    assert "these local times occur twice or never, as clocks are changed: write times in UTC or with" in ran.err
