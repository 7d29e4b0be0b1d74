"""The simulated fleet: what its files look like, and that its city has the tides the demo needs."""

from __future__ import annotations

import gzip
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.cities import small_city
from trafficcast.errors import InputError
from trafficcast.simulator.simulator import _SimulationSummary, simulate

CITY = small_city(rows=16, cols=16)
LINE = re.compile(rb"-?\d{1,2}\.\d{5} -?\d{1,3}\.\d{5} [01] \d{10}")
VEHICLES, DAYS = 60, 8


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[_SimulationSummary, dict[str, bytes]]:
    """A summary, and the unpacked text of each file."""
    out = tmp_path_factory.mktemp("simulated") / "fleet"
    summary = simulate(CITY, out, VEHICLES, DAYS, seed=3)
    return summary, {name: gzip.decompress(data) for name, data in contents(out).items()}


@pytest.fixture(scope="module")
def tracks(fleet: tuple[_SimulationSummary, dict[str, bytes]]) -> list[np.ndarray]:
    """Each taxi's records, (n, 4): latitude, longitude, occupied, unix seconds."""
    return [np.array(text.split(), np.float64).reshape(-1, 4) for text in fleet[1].values()]


def inside(records: np.ndarray) -> np.ndarray:
    lat, lon = records[:, 0], records[:, 1]
    return (lat > CITY.south) & (lat <= CITY.north) & (lon >= CITY.west) & (lon < CITY.east)


def test_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    first = simulate(CITY, tmp_path / "a", vehicles=5, days=2, seed=1)
    second = simulate(CITY, tmp_path / "b", vehicles=5, days=2, seed=1)
    assert first == second
    assert (first.points, first.duplicates) == (5880, 4)  # the realisations that the shipped model and the demo show
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a",
        "a.truth.nc",
        "b",
        "b.truth.nc",
    ]  # nothing temporary


def test_another_seed_is_another_realisation_of_the_same_city(tracks: list[np.ndarray], tmp_path: Path) -> None:
    simulate(CITY, tmp_path / "other", VEHICLES, DAYS, seed=4)
    other = np.concatenate(
        [
            np.array(gzip.decompress(data).split(), np.float64).reshape(-1, 4)
            for data in contents(tmp_path / "other").values()
        ]
    )
    mine = np.concatenate(tracks)
    assert len(mine) != len(other) or (mine != other).any()

    box = [[CITY.south, CITY.north], [CITY.west, CITY.east]]
    maps = [np.histogram2d(r[:, 0], r[:, 1], bins=16, range=box)[0].ravel() for r in (mine, other)]
    assert np.corrcoef(maps)[0, 1] > 0.85  # the busy places are the same ones


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        simulate(CITY, tmp_path, vehicles=1, days=1)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_failure_on_the_way_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(CITY, tmp_path / "out", vehicles=3, days=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"vehicles": 0}, {"days": 0}, {"seed": -1}])
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        simulate(CITY, tmp_path / "out", **wrong)  # type: ignore[arg-type]


def test_progress_rises_to_one_and_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    shares: list[float] = []
    summary = simulate(CITY, tmp_path, vehicles=4, days=2, progress=shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert len(contents(tmp_path)) == summary.files > 0


@pytest.mark.parametrize("file_format", ["parquet", "porto"])
def test_progress_rises_to_one_in_other_formats_too(file_format: str, tmp_path: Path) -> None:
    shares: list[float] = []
    simulate(CITY, tmp_path / "out", vehicles=4, days=2, progress=shares.append, file_format=file_format)
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_outage_and_match_are_told(fleet: tuple[_SimulationSummary, dict[str, bytes]]) -> None:
    summary = fleet[0]
    assert summary.outage == (np.datetime64("2024-04-12T12:10"), np.datetime64("2024-04-12T14:10"))
    assert summary.match.day == np.datetime64("2024-04-11")
    assert CITY.west < summary.match.lon < CITY.east and CITY.south < summary.match.lat < CITY.north


def test_a_short_period_has_no_outage(tmp_path: Path) -> None:
    assert simulate(CITY, tmp_path / "out", vehicles=1, days=6).outage is None


def test_the_period_begins_at_the_local_midnight_of_start(tmp_path: Path) -> None:
    start = np.datetime64("2008-06-04T18:00")
    summary = simulate(CITY, tmp_path / "out", vehicles=1, days=2, start=start)
    assert summary.start == np.datetime64("2008-06-03T22:00")
    assert summary.end == np.datetime64("2008-06-05T22:00")


def test_lines_are_well_formed_and_in_order(
    fleet: tuple[_SimulationSummary, dict[str, bytes]], tracks: list[np.ndarray]
) -> None:
    summary, texts = fleet
    assert summary.files == len(texts)
    assert summary.points == sum(len(track) for track in tracks)
    assert all(re.fullmatch(r"new_\w+\.txt\.gz", name) for name in texts)
    assert all(LINE.fullmatch(line) for text in texts.values() for line in text.splitlines())
    begin, end = (time.astype("datetime64[s]").astype(np.int64) for time in (summary.start, summary.end))
    for track in tracks:
        assert (np.diff(track[:, 3]) >= 0).all()
        assert begin <= track[0, 3] and track[-1, 3] < end


def test_a_thousandth_of_the_records_repeats(
    fleet: tuple[_SimulationSummary, dict[str, bytes]], tracks: list[np.ndarray]
) -> None:
    pairs = [(a, b) for track in tracks for a, b in pairwise(track) if a[3] == b[3]]
    assert len(pairs) == fleet[0].duplicates
    assert 0.0005 < len(pairs) / fleet[0].points < 0.002
    exact = [(a == b).all() for a, b in pairs]
    assert any(exact) and not all(exact)


def test_one_outage_silences_the_fleet_for_two_hours(
    fleet: tuple[_SimulationSummary, dict[str, bytes]], tracks: list[np.ndarray]
) -> None:
    seconds = np.unique(np.concatenate(tracks)[:, 3]).astype(np.int64)
    gaps = np.diff(seconds)
    (at,) = np.flatnonzero(gaps > 3600)
    assert 7200 <= gaps[at] < 7200 + 120
    end = fleet[0].end.astype("datetime64[s]").astype(np.int64)
    assert end - seconds[at + 1] > 3 * 86_400


def test_taxis_move_at_plausible_speeds_and_report_each_minute(tracks: list[np.ndarray]) -> None:
    moving = []
    for track in tracks:
        seconds = np.diff(track[:, 3])
        short = (seconds > 0) & (seconds <= 600)
        assert seconds[short].max() <= 76
        assert (seconds[seconds > 600] >= 3600).all()  # off shift, or the outage
        north_km = np.diff(track[:, 0]) * 111.195
        east_km = np.diff(track[:, 1]) * 111.195 * np.cos(np.radians(45.47))
        moving.append(np.hypot(north_km, east_km)[short] / seconds[short] * 3600)
    speeds = np.concatenate(moving)
    assert speeds.max() < 80
    assert 15 < np.median(speeds[speeds > 3]) < 40


def test_most_points_are_inside_the_box_and_some_are_not(tracks: list[np.ndarray]) -> None:
    share = inside(np.concatenate(tracks)).mean()
    assert 0.9 < share < 0.999


def test_weekday_mornings_are_busier_than_weekend_mornings(tracks: list[np.ndarray]) -> None:
    records = np.concatenate(tracks)
    local = CITY.local(records[:, 3].astype(np.int64).astype("datetime64[s]"))
    morning, weekend = (local.hour >= 7) & (local.hour < 9), local.day_of_week >= 5
    per_day = [np.count_nonzero(morning & (weekend == kind)) / days for kind, days in ((False, 6), (True, 2))]
    assert per_day[0] > 1.3 * per_day[1]


def test_the_fleet_is_heard_every_minute_of_the_night(tracks: list[np.ndarray]) -> None:
    records = np.concatenate(tracks)
    night = np.datetime64("2024-04-10T01:00", "s").astype(np.int64)  # 03:00 in Rome
    minutes = np.unique((records[:, 3].astype(np.int64) - night) // 60)
    assert np.count_nonzero((minutes >= 0) & (minutes < 60)) >= 55
