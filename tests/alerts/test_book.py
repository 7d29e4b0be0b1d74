"""The book of alerts: each raised once and cleared once, as of a clock that is given and may begin again."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from trafficcast.alerts.book import Alert, AlertBook
from trafficcast.alerts.findings import Finding
from trafficcast.errors import InputError, JobError
from trafficcast.stores.sqlite import open_database

NOON = np.datetime64("2008-06-04T19:00", "us")
MINUTE = np.timedelta64(1, "m")


@pytest.fixture
def book(tmp_path: Path) -> AlertBook:
    return AlertBook(tmp_path / "deep" / "alerts.sqlite")


def finding(rule: str = "skill", place: str = "", value: float | None = 1.5) -> Finding:
    kind = rule.split()[0]
    return Finding(rule, kind, "warning", f"{rule} at {place or 'the city'}", value, 1.0, place, 9.1, 45.4)


def at(minutes: int) -> np.datetime64:
    return NOON + minutes * MINUTE


def names(alerts: list[Alert]) -> list[str]:
    return [f"{alert.finding.rule} {alert.finding.place}".strip() for alert in alerts]


def rows(book: AlertBook, table: str = "alerts") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(book.file)) as database, database:
        return sorted(database.execute(f"SELECT * FROM {table}"), key=repr)


def test_a_book_that_was_never_written_knows_nothing_and_makes_no_file(book: AlertBook) -> None:
    assert book.open("small", NOON) == book.past("small", at(60), 9) == book.undelivered(9) == []
    assert not book.file.exists()


def test_an_alert_is_raised_once_and_cleared_once(book: AlertBook) -> None:
    first = finding(value=1.5)
    raised, cleared = book.update("small", [first], at(0))
    assert raised == [Alert("small", first, at(0), None)] and cleared == []
    assert book.update("small", [finding(value=9.9)], at(1)) == ([], [])
    assert book.open("small", at(1)) == [Alert("small", first, at(0), None)]  # as it was when it was raised
    assert book.update("small", [], at(2)) == ([], [Alert("small", first, at(0), at(2))])
    assert book.update("small", [], at(3)) == ([], [])
    assert book.open("small", at(3)) == []
    raised, cleared = book.update("small", [first], at(4))  # another time, another alert
    assert names(raised) == ["skill"] and cleared == [] and len(rows(book)) == 2


def test_rules_places_and_cities_are_alerts_of_their_own(book: AlertBook) -> None:
    flow = [finding("flow above=1", "row 0, column 1"), finding("flow above=1", "row 2, column 1")]
    raised, _ = book.update("small", [*flow, finding("flow above=2", "row 0, column 1")], at(0))
    assert len(raised) == 3
    book.update("large", flow[:1], at(0))
    raised, cleared = book.update("small", flow[1:], at(1))
    assert names(cleared) == ["flow above=1 row 0, column 1", "flow above=2 row 0, column 1"] and raised == []
    assert names(book.open("small", at(1))) == ["flow above=1 row 2, column 1"]
    assert names(book.open("large", at(1))) == ["flow above=1 row 0, column 1"]


def test_the_same_finding_twice_is_one_alert(book: AlertBook) -> None:
    raised, _ = book.update("small", [finding(), finding()], at(0))
    assert len(raised) == len(rows(book)) == 1


def test_open_is_as_of_the_time_asked_for(book: AlertBook) -> None:
    book.update("small", [finding()], at(10))
    book.update("small", [], at(20))
    assert [len(book.open("small", at(m))) for m in (9, 10, 19, 20)] == [0, 1, 1, 0]


def test_past_are_the_cleared_alerts_the_newest_first(book: AlertBook) -> None:
    book.update("small", [finding("skill")], at(10))
    book.update("small", [finding("coverage")], at(20))
    book.update("small", [finding("coverage"), finding("feed-silent")], at(30))
    book.update("small", [finding("feed-silent")], at(40))
    assert names(book.past("small", at(60), 9)) == ["coverage", "skill"]
    assert names(book.past("small", at(60), 1)) == ["coverage"]
    assert names(book.past("small", at(39), 9)) == ["skill"]
    assert [alert.cleared for alert in book.past("small", at(60), 9)] == [at(40), at(20)]
    assert book.past("small", at(19), 9) == book.past("large", at(60), 9) == []


def sequence(seed: int) -> list[tuple[np.datetime64, list[Finding]]]:
    draw = random.Random(seed)
    rules = [finding("skill"), finding("coverage"), finding("flow", "A"), finding("flow", "B")]
    return [(at(m), [rule for rule in rules if draw.random() < 0.5]) for m in range(0, 300, 10)]


@pytest.mark.parametrize("seed", range(5))
def test_the_same_updates_again_from_their_start_leave_the_same_rows(tmp_path: Path, seed: int) -> None:
    undisturbed, killed = AlertBook(tmp_path / "a.sqlite"), AlertBook(tmp_path / "b.sqlite")
    for now, found in sequence(seed):
        undisturbed.update("small", found, now, deliver=True)
    for upto in (7, 1, 18, 30, 30):
        told = 0
        for now, found in sequence(seed)[:upto]:
            told += sum(map(len, killed.update("small", found, now, deliver=True)))
            assert {f"{one.rule} {one.place}".strip() for one in found} == set(names(killed.open("small", now)))
    assert told == 0  # all of it was known
    assert rows(killed) == rows(undisturbed)
    assert rows(killed, "notices") == rows(undisturbed, "notices")


def test_a_later_life_of_the_book_does_not_hide_an_earlier_alert(book: AlertBook) -> None:
    book.update("small", [finding()], at(100))
    raised, _ = book.update("small", [finding()], at(0))
    assert len(raised) == 1
    assert len(book.update("small", [], at(10))[1]) == 1
    assert [len(book.open("small", at(m))) for m in (5, 50, 150)] == [1, 0, 1]


def test_an_alert_raised_again_by_a_clock_set_back_is_cleared_with_the_first(book: AlertBook) -> None:
    book.update("small", [finding()], at(100))
    book.update("small", [finding()], at(0))
    assert len(book.update("small", [], at(200))[1]) == 2
    assert book.open("small", at(200)) == [] and book.update("small", [], at(201)) == ([], [])


def test_times_are_whole_seconds(book: AlertBook) -> None:
    moment = NOON + np.timedelta64(1_900_000, "us")
    raised, _ = book.update("small", [finding()], moment)
    assert raised[0].raised == NOON + np.timedelta64(1, "s") == book.open("small", moment)[0].raised
    # Raised, cleared and raised again in one second is raised.
    book.update("small", [], moment)
    assert book.open("small", moment) == []
    book.update("small", [finding()], moment)
    assert len(book.open("small", moment)) == len(rows(book)) == 1


def test_a_value_that_is_not_there_stays_so(book: AlertBook) -> None:
    book.update("small", [finding(value=None)], at(0))
    assert book.open("small", at(0))[0].finding == finding(value=None)


def test_each_raise_and_clear_is_a_notice_that_is_written_once(book: AlertBook) -> None:
    book.update("small", [finding()], at(0))
    book.update("small", [], at(5))
    book.update("large", [finding()], at(3))
    with book.unwritten("small") as notices:
        assert [(notice.event, notice.time) for notice in notices] == [("raised", at(0)), ("cleared", at(5))]
        first = notices[0].as_json()
    assert first == {
        "id": notices[0].id, "event": "raised", "time": "2008-06-04T19:00:00Z", "city": "small",
        "rule": "skill", "kind": "skill", "severity": "warning", "message": "skill at the city",
        "value": 1.5, "limit": 1.0, "place": "", "lon": 9.1, "lat": 45.4,
        "raised": "2008-06-04T19:00:00Z", "cleared": None,
    }  # fmt: skip
    assert notices[1].as_json()["cleared"] == "2008-06-04T19:05:00Z" and notices[1].id != notices[0].id
    with book.unwritten("small") as notices:
        assert notices == []
    with book.unwritten("large") as notices:
        assert len(notices) == 1


def test_what_was_not_written_whole_stays_unwritten(book: AlertBook) -> None:
    book.update("small", [finding()], at(0))
    with pytest.raises(OSError, match="full"), book.unwritten("small"):
        raise OSError("disk full")
    with book.unwritten("small") as notices:
        assert len(notices) == 1


def test_only_what_shall_be_delivered_waits_for_it(book: AlertBook) -> None:
    book.update("small", [finding("skill")], at(0), deliver=False)
    book.update("small", [finding("coverage")], at(1), deliver=True)
    waiting = book.undelivered(9)
    assert sorted((notice.event, notice.alert.finding.rule) for notice in waiting) == [
        ("cleared", "skill"),
        ("raised", "coverage"),
    ]
    assert book.undelivered(1) == waiting[:1]
    book.delivered(waiting[:1])
    assert book.undelivered(9) == waiting[1:]
    book.delivered(waiting)
    assert book.undelivered(9) == []


def test_a_reader_does_not_wait_for_a_writer(book: AlertBook) -> None:
    book.update("small", [finding()], at(0))
    with book.unwritten("small"):
        reader = AlertBook(book.file, read_only=True)
        assert len(book.open("small", at(0))) == len(reader.open("small", at(0))) == 1


def test_a_damaged_book_is_named(book: AlertBook) -> None:
    book.update("small", [finding()], at(0))
    book.file.write_bytes(b"no database at all" * 100)
    for call in (lambda: book.open("small", at(0)), lambda: book.update("small", [], at(1))):
        with pytest.raises(InputError, match=r"cannot read .*alerts\.sqlite.*run trafficcast repair"):
            call()


def test_a_book_that_cannot_be_opened_now_is_no_damage(tmp_path: Path) -> None:
    folder = tmp_path / "alerts.sqlite"
    folder.mkdir()
    with pytest.raises(JobError, match=r"cannot use .*alerts\.sqlite"):
        AlertBook(folder).update("small", [finding()], at(0))


def test_an_empty_file_is_an_empty_book(book: AlertBook) -> None:
    book.file.parent.mkdir()
    book.file.touch()  # killed before the first table
    assert book.open("small", at(0)) == []
    assert len(book.update("small", [finding()], at(0))[0]) == 1


def read(file: Path, now: np.datetime64, most: int = 500) -> tuple[list[Alert], list[Alert]]:
    book = AlertBook(file, read_only=True)
    return book.open("small", now), book.past("small", now, most)


def test_a_reader_reads_what_the_writer_wrote(book: AlertBook) -> None:
    for minute, found in enumerate(("a", "ab", "bc", "")):
        book.update("small", [finding(rule) for rule in found], at(minute))
    book.update("rome", [finding("other")], at(0))
    is_open, is_over = read(book.file, at(2))
    assert names(is_open) == ["b", "c"] and is_open == book.open("small", at(2))
    assert is_over == [Alert("small", finding("a"), at(0), at(2))]
    assert read(book.file, at(3))[0] == []
    assert read(book.file, at(-1)) == ([], [])
    assert len(read(book.file, at(3), 2)[1]) == 2


def test_a_reader_makes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "alerts.sqlite"
    assert read(tmp_path / "none" / "alerts.sqlite", NOON) == ([], [])
    assert list(tmp_path.iterdir()) == []
    file.touch()
    assert read(file, NOON) == ([], [])
    assert file.stat().st_size == 0 and len(list(tmp_path.iterdir())) == 1


def test_names_with_signs_of_addresses(tmp_path: Path) -> None:
    file = tmp_path / "a?mode=rwc#b %20" / "alerts.sqlite"
    AlertBook(file).update("small", [finding()], NOON)
    assert len(read(file, NOON)[0]) == 1


def test_a_reader_names_a_damaged_book(tmp_path: Path) -> None:
    file = tmp_path / "alerts.sqlite"
    file.write_bytes(b"no database" * 500)
    with pytest.raises(InputError, match="cannot read"):
        read(file, NOON)


@pytest.mark.parametrize("change", ["raised = '1 o clock'", "cleared = 'NaT'", "\"limit\" = 'much'", "value = x'00'"])
def test_values_of_another_type_are_damage(book: AlertBook, change: str) -> None:
    book.update("small", [finding()], NOON)
    with open_database(book.file) as database:
        database.execute(f"UPDATE alerts SET {change}")
    with pytest.raises(InputError, match="cannot read"):
        read(book.file, NOON)


def test_a_reader_does_not_wait_for_a_locked_book(book: AlertBook) -> None:
    book.update("small", [finding()], NOON)
    with closing(sqlite3.connect(book.file, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(JobError, match="locked"):
            read(book.file, NOON)
        assert time.monotonic() - began < 5
        database.execute("ROLLBACK")
    assert len(read(book.file, NOON)[0]) == 1


def test_a_reader_changes_nothing(book: AlertBook) -> None:
    book.update("small", [finding()], NOON)
    before = book.file.read_bytes()
    read(book.file, NOON)
    assert book.file.read_bytes() == before and len(list(book.file.parent.iterdir())) == 1


def test_a_writer_waits_for_another_one(book: AlertBook) -> None:
    book.update("small", [], NOON)
    database = sqlite3.connect(book.file, isolation_level=None, check_same_thread=False)
    database.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, lambda: database.execute("ROLLBACK"))
    release.start()
    assert len(book.update("small", [finding()], NOON)[0]) == 1
    release.join()
    database.close()


def test_the_id_of_a_notice_is_32_hexadecimal_digits(book: AlertBook) -> None:
    book.update("small", [finding()], at(0))
    with book.unwritten("small") as notices:
        assert [len(notice.id) for notice in notices] == [32] and int(notices[0].id, 16) >= 0
