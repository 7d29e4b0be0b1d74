"""Bad input: one clear sentence on stderr, exit code 2, no traceback, and every store as it was."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PERIOD = ("--start", "2024-04-14", "--end", "2024-04-15")


@pytest.fixture
def ingested(trafficcast: Callable[..., Any], tmp_path: Path) -> Path:
    """Three simulated days in the stores."""
    trafficcast("simulate", "--vehicles", 20, "--days", 3, "--out", tmp_path / "gps")
    assert trafficcast("ingest", tmp_path / "gps").code == 0
    return tmp_path


def test_each_is_one_sentence_and_changes_nothing(
    ingested: Path, trafficcast: Callable[..., Any], snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    (ingested / "empty").mkdir()
    (ingested / "new_drive.txt").write_text("1,2008-02-02 15:36:08,116.51172,39.92123\n" * 3)
    with gzip.open(ingested / "new_picture.txt.gz", "wb") as file:
        file.write(bytes(range(256)) * 9)
    (ingested / "new_cut.txt.gz").write_bytes(gzip.compress(b"45.5 9.2 0 1712600000\n" * 99)[:-9])
    before = snapshot(ingested)
    calls = {
        ("ingest", ingested / "nowhere"): "nothing at",
        ("ingest", ingested / "empty"): "holds no cabspotting files",
        ("ingest", ingested / "new_drive.txt"): "new_drive.txt is not a Cabspotting file",
        ("ingest", ingested / "new_picture.txt.gz"): "new_picture.txt.gz is not a Cabspotting file",
        ("ingest", ingested / "new_cut.txt.gz"): "cannot read",
        ("ingest", ingested / "gps", "--format", "cabspoting"): "unknown format",
        ("ingest", ingested / "gps", "--city", "smal"): "did you mean 'small'",
        ("ingest", ingested / "gps", "--start", "yesterday"): "no date or time",
        ("train", "--model", "vmrnn-x"): "unknown model",
        ("train", "--train-end", "2024-04-09"): "--valid-end",
        ("train", "--train-end", "2024-04-10", "--valid-end", "2024-04-09"): "not in order",
        ("train", "--train-end", "2024-04-08T06:00", "--valid-end", "2024-04-09"): "eight contiguous",
        ("train", "--device", "abacus"): "no device 'abacus'",
        ("train", "--resume", "--train-end", "2024-04-09", "--valid-end", "2024-04-10"): "nothing to resume",
        ("backtest", *PERIOD): "no model yet",
        ("forecast",): "no model yet",
        ("export", "--out", ingested / "x.nc", "--start", "2030-01-01"): "no flows in that period",
        ("export", "--out", ingested / "x.nc", "--format", "csv"): "unknown format",
        ("export", "--out", ingested / "no" / "x.nc"): "no folder",
        ("models", "promote", "vmrnn-b-9"): "no model 'vmrnn-b-9'",
        ("forecast", "--config", ingested / "none.toml"): "cannot read the configuration",
        ("simulate", "--out", ingested / "gps"): "gps",
    }
    for call, sentence in calls.items():
        ran = trafficcast(*call)
        assert ran.code == 2, (call, ran)
        assert sentence in ran.err, (call, ran.err)
        assert "Traceback" not in ran.err and ran.out == "", (call, ran)
    assert snapshot(ingested) == before


def test_a_typo_in_the_configuration_names_the_key_and_the_nearest(
    trafficcast: Callable[..., Any], config: Path
) -> None:
    config.write_text(config.read_text().replace("rows =", "rowz ="))
    ran = trafficcast("forecast")
    assert ran.code == 2
    assert "cities.small.rowz" in ran.err and "did you mean 'rows'" in ran.err


def test_a_box_upside_down_is_refused(trafficcast: Callable[..., Any], config: Path) -> None:
    config.write_text(config.read_text().replace("south = 45.42", "south = 45.62"))
    ran = trafficcast("forecast")
    assert ran.code == 2
    assert "upside down" in ran.err and "cities.small" in ran.err


def test_too_few_slots_to_train(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    trafficcast("simulate", "--vehicles", 5, "--days", 1, "--out", tmp_path / "gps")
    trafficcast("ingest", tmp_path / "gps", "--end", "2024-04-08T06:00")
    ran = trafficcast("train")
    assert ran.code == 2
    assert "too few to split" in ran.err


def test_commands_say_so_where_nothing_was_ingested(trafficcast: Callable[..., Any]) -> None:
    for call in (("train",), ("export", "--out", "x.nc")):
        ran = trafficcast(*call)
        assert ran.code == 2
        assert "ingest" in ran.err
