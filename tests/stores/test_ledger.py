"""The run ledger: one row a (job, city, model, slot)."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trafficcast.errors import InputError, JobError
from trafficcast.stores import ledger as ledger_module
from trafficcast.stores.ledger import Ledger
from trafficcast.stores.sqlite import open_database

SLOT = np.datetime64("2008-06-04T12:00", "us")
HALF_HOUR = np.timedelta64(30, "m")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "deep" / "ledger.sqlite")


def rows(ledger: Ledger) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(ledger.file)) as database, database:
        return database.execute(
            "SELECT job, city, model, slot, result, finished FROM runs ORDER BY job, city, model, slot"
        ).fetchall()


def test_a_ledger_that_was_never_written_knows_nothing_and_makes_no_file(ledger: Ledger) -> None:
    assert ledger.results("forecast", "small", "v1") == {}
    assert not ledger.file.exists()


def test_what_was_recorded_is_found_by_job_city_and_model(ledger: Ledger) -> None:
    ledger.record("forecast", "small", "v1", SLOT, "done")
    ledger.record("forecast", "small", "v1", SLOT + HALF_HOUR, "no history")
    for job, city, model in (("verify", "small", "v1"), ("forecast", "large", "v1"), ("forecast", "small", "v2")):
        ledger.record(job, city, model, SLOT, f"{job} {city} {model}")
        assert ledger.results(job, city, model) == {SLOT: f"{job} {city} {model}"}
    assert ledger.results("forecast", "small", "v1") == {SLOT: "done", SLOT + HALF_HOUR: "no history"}
    assert ledger.results("forecast", "small", "v3") == {}


def test_slots_are_whole_seconds_of_utc_with_a_z_and_so_is_the_end_of_the_run(ledger: Ledger) -> None:
    ledger.record("forecast", "small", "v1", SLOT, "done")
    ((*key, finished),) = rows(ledger)
    assert key == ["forecast", "small", "v1", "2008-06-04T12:00:00Z", "done"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", finished)


@pytest.mark.parametrize("unit", ["us", "ns", "m"])
def test_one_slot_is_one_row_whatever_the_unit_of_its_time(ledger: Ledger, unit: str) -> None:
    ledger.record("forecast", "small", "v1", SLOT, "done")
    ledger.record("forecast", "small", "v1", SLOT.astype(f"datetime64[{unit}]"), "done")
    assert len(rows(ledger)) == 1


def test_the_same_run_again_is_the_same_row_with_one_more_attempt(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.record("forecast", "small", "v1", SLOT, "done", "all four slots observed", 0.25)
    run = ledger.last("forecast", "small")
    assert run is not None and len(rows(ledger)) == 1
    assert (run.slot, run.result, run.detail, run.attempts, run.seconds) == (
        SLOT, "done", "all four slots observed", 3, 0.25,
    )  # fmt: skip
    assert abs(run.finished - np.datetime64("now")) < np.timedelta64(1, "m")


def test_the_last_run_is_that_of_the_newest_slot(ledger: Ledger) -> None:
    assert ledger.last("forecast", "small") is None
    ledger.record("forecast", "small", "v1", SLOT + HALF_HOUR, "newest")
    ledger.record("forecast", "small", "v2", SLOT, "older, noted later")
    ledger.record("forecast", "large", "v2", SLOT + 2 * HALF_HOUR, "another city")
    last = ledger.last("forecast", "small")
    assert last is not None and (last.model, last.slot, last.result) == ("v1", SLOT + HALF_HOUR, "newest")


def test_what_is_lost_is_to_be_made_again(ledger: Ledger) -> None:
    ledger.lose("forecast", "small", "v1", SLOT, SLOT + HALF_HOUR)
    assert not ledger.file.exists()
    for number in range(4):
        ledger.record("forecast", "small", "v1", SLOT + number * HALF_HOUR, "done")
    ledger.record("verify", "small", "v1", SLOT + HALF_HOUR, "done")
    ledger.lose("forecast", "small", "v1", SLOT + HALF_HOUR, SLOT + 3 * HALF_HOUR)
    runs = ledger.runs("forecast", "small", SLOT + HALF_HOUR)
    assert [(run.result, run.attempts) for run in runs] == [("lost", 0), ("lost", 0), ("done", 1)]
    assert set(ledger.results("verify", "small", "v1").values()) == {"done"}


def test_another_result_takes_the_place_of_the_first(ledger: Ledger) -> None:
    ledger.record("forecast", "small", "v1", SLOT, "failed")
    with open_database(ledger.file) as database:
        database.execute("UPDATE runs SET finished = '2008-06-04T12:30:00Z'")
    ledger.record("forecast", "small", "v1", SLOT, "done")
    ((*_, result, finished),) = rows(ledger)
    assert result == "done"
    assert finished > "2008-06-04T12:30:00Z"


def test_text_is_kept_as_it_is(ledger: Ledger) -> None:
    result = 'it\'s "quoted"; DROP TABLE runs; \u00e9'
    ledger.record("forecast", "small", "v1", SLOT, result)
    assert ledger.results("forecast", "small", "v1") == {SLOT: result}


def test_a_damaged_ledger_is_named_with_what_to_do(ledger: Ledger) -> None:
    ledger.file.parent.mkdir()
    ledger.file.write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=r"ledger\.sqlite: file is not a database; run trafficcast repair"):
        ledger.last("forecast", "small")


def test_a_ledger_that_cannot_be_written_is_named(ledger: Ledger) -> None:
    ledger.file.mkdir(parents=True)
    with pytest.raises(JobError, match=r"cannot use .*ledger\.sqlite: unable to open database file"):
        ledger.record("forecast", "small", "v1", SLOT, "done")


def test_the_first_slot_is_the_oldest_that_the_job_ran_for(ledger: Ledger) -> None:
    assert ledger.first_slot("forecast", "small") is None
    ledger.record("forecast", "small", "v2", SLOT + HALF_HOUR, "complete")
    assert ledger.first_slot("forecast", "small") == SLOT + HALF_HOUR
    ledger.record("forecast", "small", "v1", SLOT, "failed")
    ledger.record("verify", "small", "v1", SLOT - HALF_HOUR, "done")
    ledger.record("forecast", "large", "v1", SLOT - HALF_HOUR, "complete")
    assert ledger.first_slot("forecast", "small") == SLOT


def test_a_run_recorded_without_a_time_took_none(ledger: Ledger) -> None:
    ledger.record("forecast", "small", "v1", SLOT, "complete")
    run = ledger.last("forecast", "small")
    assert run is not None and (run.detail, run.seconds, run.attempts) == ("", 0.0, 1)


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("text", [b"2008-06-04T13:00:00Z", b"in one sentence"])
def test_a_row_with_a_flipped_bit_is_set_aside_and_hides_no_other(ledger: Ledger, text: bytes, bit: int) -> None:
    for number in range(6):
        ledger.record("forecast", "small", "v1", SLOT + number * HALF_HOUR, "done", "in one sentence")
    content = bytearray(ledger.file.read_bytes())
    table = content.index(b"in one sentence") // 4096 * 4096  # the page of the rows, not that of the index
    place = content.index(text, table) + 10
    content[place] ^= 1 << bit
    ledger.file.write_bytes(content)

    found = ledger.results("forecast", "small", "v1")
    assert ledger.last("forecast", "small") is not None and ledger.first_slot("forecast", "small") is not None
    assert len(found) == 6 - ledger.unreadable() >= 5
    if ledger.unreadable():
        ledger.check()
    ledger.record("forecast", "small", "v1", SLOT + 2 * HALF_HOUR, "done")
    assert len(ledger.results("forecast", "small", "v1")) >= 5


def test_a_reader_that_may_not_write_leaves_out_a_row_that_it_cannot_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        ledger.record("forecast", "small", "v1", SLOT + number * HALF_HOUR, "done")
    with open_database(ledger.file) as database:
        database.execute("UPDATE runs SET slot = 'never' WHERE slot LIKE '%T12:30%'")
    opened = open_database

    def open_read_only(file: Path, tables: str = "", **more: Any) -> Any:
        return opened(file, read_only=True)

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "open_database", open_read_only)
        assert len(ledger.results("forecast", "small", "v1")) == 2
    assert "nor be set aside" in caplog.text and ledger.unreadable() == 0
    assert len(ledger.results("forecast", "small", "v1")) == 2 and ledger.unreadable() == 1
    assert "'never'" in caplog.text
