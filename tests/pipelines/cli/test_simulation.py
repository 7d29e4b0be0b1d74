"""What the command says about simulated records."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.cli.simulation import _simulate
from tests.cities import small_city

CITY = small_city(rows=16, cols=16)


@pytest.mark.parametrize(("file_format", "records"), [("cabspotting", "points"), ("tlc", "trips")])
def test_the_report_names_records_repeats_outage_and_event(file_format: str, records: str, tmp_path: Path) -> None:
    report = _simulate(CITY, tmp_path / "out", 30, 7, 1, file_format)
    assert report["format"] == file_format
    assert report[records] > 1000 and 0 < report["duplicates"] < report[records] / 100
    assert report["outage_start"] == "2024-04-11T14:10:00+02:00"
    assert report["outage_end"] == "2024-04-11T16:10:00+02:00"
    assert report["event"] == "match in the stadium" and report["event_day"] == "2024-04-10"
    assert Path(report["truth"]).is_file() and Path(report["out"]).is_dir()


def test_without_an_outage_none_is_named(tmp_path: Path) -> None:
    report = _simulate(CITY, tmp_path / "out", 2, 2, 1)
    assert report["outage_start"] is None and report["outage_end"] is None
