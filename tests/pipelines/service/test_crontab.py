"""Crontabs mean what crontab(5) says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.triggers.base import BaseTrigger

from pipelines.service.crontab import _crontab_trigger

SUNDAY = datetime(2024, 3, 3, tzinfo=UTC)
MARCH_END = datetime(2024, 4, 1, tzinfo=UTC)
WEEK = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]


def times(trigger: BaseTrigger, end: datetime, start: datetime = SUNDAY) -> list[datetime]:
    found = []
    moment = trigger.get_next_fire_time(None, start)
    while moment is not None and moment < end:
        found.append(moment)
        moment = trigger.get_next_fire_time(moment, moment + timedelta(microseconds=1))
    return found


@pytest.mark.parametrize(
    ("weekday", "days"),
    [
        ("0", ["Sun"]),
        ("7", ["Sun"]),
        ("sun", ["Sun"]),
        ("SUN", ["Sun"]),
        ("1", ["Mon"]),
        ("6", ["Sat"]),
        ("*", WEEK),
        ("0-6", WEEK),
        ("0-7", WEEK),
        ("1-7", WEEK),
        ("1-5", WEEK[1:6]),
        ("mon-fri", WEEK[1:6]),
        ("0-3", WEEK[:4]),
        ("5-7", ["Sun", "Fri", "Sat"]),
        ("fri-sun", ["Sun", "Fri", "Sat"]),
        ("0,6", ["Sun", "Sat"]),
        ("sat,sun", ["Sun", "Sat"]),
        ("1,3-4,fri", ["Mon", "Wed", "Thu", "Fri"]),
        ("*/2", ["Sun", "Tue", "Thu", "Sat"]),
        ("1-5/2", ["Mon", "Wed", "Fri"]),
        ("2/2", ["Tue", "Thu", "Sat"]),
    ],
)
def test_days_of_the_week_are_counted_from_sunday(weekday: str, days: list[str]) -> None:
    found = times(_crontab_trigger(f"30 2 * * {weekday}", UTC), SUNDAY + timedelta(days=7))
    assert [f"{moment:%a}" for moment in found] == days
    assert {f"{moment:%H:%M}" for moment in found} == {"02:30"}


def test_a_day_of_the_month_or_a_weekday_is_enough_where_both_are_given() -> None:
    found = times(_crontab_trigger("0 3 10,13 * 5", UTC), MARCH_END)
    assert [moment.day for moment in found] == [8, 10, 13, 15, 22, 29]


@pytest.mark.parametrize(("crontab", "days"), [("0 3 */2 * 5", [15, 29]), ("0 3 10-20 * */6", [10, 16, 17])])
def test_both_must_hold_where_one_begins_with_a_star(crontab: str, days: list[int]) -> None:
    assert [moment.day for moment in times(_crontab_trigger(crontab, UTC), MARCH_END)] == days


@pytest.mark.parametrize(
    ("crontab", "sentence"),
    [
        ("0 3 * * 8", "'8' is no day of the week: that is 0 to 7, where 0 and 7 are Sunday"),
        ("0 3 * * sunday", "'sunday' is no day of the week"),
        ("0 3 * * 5-2", "'5-2' goes back in the week"),
        ("0 3 * * 1-5/0", "no day of the week"),
        ("0 3 * * 1,", "'' is no day of the week"),
        ("0 3 * *", "it has 4 fields"),
        ("60 3 * * *", "60"),
    ],
)
def test_what_is_no_crontab_is_refused(crontab: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _crontab_trigger(crontab, UTC)
