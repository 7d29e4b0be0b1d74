"""Crontabs as cron reads them: 0 and 7 are Sunday, and a day is due by its date or by its weekday.

APScheduler counts weekdays from Monday, and would want both, the date and the weekday.
"""

from __future__ import annotations

import re
from datetime import tzinfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ONE_DAY = "|".join(("[0-7]", *_DAYS))
_WEEKDAYS = re.compile(rf"(?:(\*)|({_ONE_DAY})(?:-({_ONE_DAY}))?)(?:/([1-9]\d*))?", re.IGNORECASE)


def _crontab_trigger(schedule: str, zone: tzinfo) -> BaseTrigger:
    """Return the times of a crontab of five fields; raise ValueError where it is none."""
    fields = schedule.split()
    if len(fields) != 5:
        raise ValueError(f"it has {len(fields)} fields")
    minute, hour, day, month, weekday = fields
    weekdays = "*" if weekday == "*" else _weekdays(weekday)

    def trigger(day: str, weekdays: str) -> CronTrigger:
        return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekdays, timezone=zone)

    if day.startswith("*") or weekday.startswith("*"):
        return trigger(day, weekdays)
    return OrTrigger([trigger(day, "*"), trigger("*", weekdays)])


def _weekdays(field: str) -> str:
    """Return the names of the days that a field of weekdays lists, such as `1-5`, `*/2`, `sat,sun` or `0`."""
    days: set[int] = set()
    for part in field.split(","):
        found = _WEEKDAYS.fullmatch(part)
        if found is None:
            raise ValueError(f"'{part}' is no day of the week: that is 0 to 7, where 0 and 7 are Sunday, or mon to sun")
        all_days, first, last, step = found.groups()
        begin, end = (0, 6) if all_days else (_number(first), _number(last or first))
        if step and not (all_days or last):
            end = 6  # as cron reads 1/2
        if last and end == 0 < begin:
            end = 7  # a week that ends on Sunday
        if end < begin:
            raise ValueError(f"'{part}' goes back in the week")
        days.update(range(begin, end + 1, int(step or 1)))
    return ",".join(name for i, name in enumerate(_DAYS) if i in days or i == 0 and 7 in days)


def _number(day: str) -> int:
    """Return the number of a day of the week, which cron counts from Sunday, 0."""
    return int(day) if day.isdecimal() else _DAYS.index(day.lower())
