"""The tables [service], [retraining] and [retention] of config.toml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trafficcast.config.service import Service
from trafficcast.config.settings import Config, load_config
from trafficcast.errors import InputError

CITY = """
[cities.small]
west = 0
east = 1
south = 0
north = 1
timezone = "UTC"
"""


def load(folder: Path, text: str = "") -> Config:
    file = folder / "config.toml"
    file.write_text(text + CITY)
    return load_config(file)


def test_without_the_tables_all_is_kept_and_only_this_machine_is_told(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert (config.service.ingest_seconds, config.service.wait_minutes, config.service.catch_up_hours) == (60, 10, 24)
    assert (config.service.address, config.service.port) == ("127.0.0.1", 9464)
    assert (config.retraining.schedule, config.retraining.when_worse_than) == ("0 3 * * sun", 1.05)
    assert set(config.retention.model_dump().values()) == {None}


def test_what_is_given_takes_the_place_of_the_defaults(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "[service]\nwait_minutes = 2.5\nport = 0\n"
        '[retraining]\nschedule = "30 2 1 * *"\nmargin = 0\n'
        "[retention]\nflow_days = 400\nmodels = 3\n",
    )
    assert (config.service.wait_minutes, config.service.port, config.service.catch_up_hours) == (2.5, 0, 24)
    assert (config.retraining.schedule, config.retraining.margin, config.retraining.test_days) == ("30 2 1 * *", 0, 3)
    assert config.retention.model_dump() == {
        "flow_days": 400, "forecast_days": None, "score_days": None, "models": 3,
    }  # fmt: skip


def test_an_empty_schedule_is_no_retraining_by_the_calendar(tmp_path: Path) -> None:
    assert load(tmp_path, '[retraining]\nschedule = ""\n').retraining.schedule == ""


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAFFICCAST__SERVICE__WAIT_MINUTES", "3")
    monkeypatch.setenv("TRAFFICCAST__RETENTION__FORECAST_DAYS", "30")
    config = load(tmp_path, "[service]\nwait_minutes = 2\n")
    assert (config.service.wait_minutes, config.retention.forecast_days) == (3, 30)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[service]\nwait_minute = 5", r"unknown key 'service.wait_minute' \(did you mean 'wait_minutes'\?\)"),
        ("[retraining]\nday = 5", "unknown key 'retraining.day'"),
        ("[retention]\nflows = 5", r"unknown key 'retention.flows' \(did you mean 'flow_days'\?\)"),
        ("[service]\ningest_seconds = 0.5", "service.ingest_seconds: .*greater than or equal to 1"),
        ("[service]\nwait_minutes = -1", "service.wait_minutes: .*greater than or equal to 0"),
        ("[service]\nport = 65536", "service.port: .*65535"),
        ("[retraining]\nmargin = 1", "retraining.margin: .*less than 1"),
        ("[retraining]\ntest_days = 0", "retraining.test_days: .*greater than or equal to 1"),
        ("[retention]\nflow_days = 0", "retention.flow_days: .*greater than or equal to 1"),
        ("[retention]\nmodels = 0", "retention.models: .*greater than or equal to 1"),
        ("[retention]\nforecast_days = 1.5", "retention.forecast_days: .*integer"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load(tmp_path, text + "\n")


def test_data_are_never_waited_for_until_the_next_slot() -> None:
    waits = [Service(wait_minutes=10).wait(slot) for slot in (60, 10, 5, 2, 1)]
    assert waits == [np.timedelta64(seconds, "s") for seconds in (600, 540, 240, 60, 30)]
