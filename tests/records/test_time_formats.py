"""Formats of times: what they mean is what Python's strptime says, and the likely ones are found."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficcast.config.time_format import check_format
from trafficcast.records.time_formats import count_matches, likely_formats, read_format

FORMATS = [
    "%Y/%m/%d %H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%d-%b-%y %I.%M.%S %p", "%Y%m%d%H%M%S",
    "%y%m%d %H%M", "%d %B %Y, %H:%M", "%a, %d %b %Y %H:%M:%S %z", "%Y-%jT%H:%M", "%Y%m%dT%H%M%S.%f",
    "%H Uhr, %d.%m.%Y", "100%% %d.%m.%Y",
]  # fmt: skip
EPOCH = np.datetime64("1970-01-01T00:00:00", "us")


@pytest.mark.parametrize("form", FORMATS)
@settings(derandomize=True, max_examples=50, deadline=None, database=None)
@given(st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31), timezones=st.just(UTC)), max_size=9))
def test_what_python_writes_is_read_back(form: str, moments: list[datetime]) -> None:
    texts = [moment.strftime(form) for moment in moments]
    us, ok, has_offset = read_format(pa.array([*texts, "x", None], pa.string()), check_format(form))
    wanted = [np.datetime64(datetime.strptime(text, form).replace(tzinfo=None), "us") for text in texts]
    assert (EPOCH + us[: len(texts)]).tolist() == [one.tolist() for one in wanted]
    assert ok.tolist() == [True] * len(texts) + [False, False]
    assert has_offset == ("%z" in form)


@pytest.mark.parametrize(
    ("text", "form", "utc"),
    [
        ("01/31/2014 08:45:25 PM", "%m/%d/%Y %I:%M:%S %p", "2014-01-31T20:45:25"),
        ("1/3/2014 8:45:25 a.m.", "%m/%d/%Y %I:%M:%S %p", "2014-01-03T08:45:25"),
        ("01/31/2014 12:00:00 AM", "%m/%d/%Y %I:%M:%S %p", "2014-01-31T00:00:00"),
        ("01/31/2014 12:59:59 PM", "%m/%d/%Y %I:%M:%S %p", "2014-01-31T12:59:59"),
        ("01/31/2014 13:00:00 PM", "%m/%d/%Y %I:%M:%S %p", None),
        ("02/30/2014 08:45:25 AM", "%m/%d/%Y %I:%M:%S %p", None),
        ("31/12/2014 10:00", "%m/%d/%Y %H:%M", None),
        ("29.02.2023 10:00", "%d.%m.%Y %H:%M", None),
        ("29.02.2024 10:00", "%d.%m.%Y %H:%M", "2024-02-29T10:00:00"),
        ("366 2023", "%j %Y", None),
        ("366 2024", "%j %Y", "2024-12-31T00:00:00"),
        ("5-SEPT-69", "%d-%b-%y", "1969-09-05T00:00:00"),
        ("5-sep-68", "%d-%b-%y", "2068-09-05T00:00:00"),
        ("05.03.2024 10:00:00,1234567", "%d.%m.%Y %H:%M:%S", "2024-03-05T10:00:00.123456"),
        ("05.03.2024 10:00 +0530", "%d.%m.%Y %H:%M %z", "2024-03-05T04:30:00"),
        ("05.03.2024 10:00 -01", "%d.%m.%Y %H:%M %z", "2024-03-05T11:00:00"),
        ("05.03.2024 10:00 UTC", "%d.%m.%Y %H:%M %z", "2024-03-05T10:00:00"),
        ("10:05:06 12/31/99", "%T %D", "1999-12-31T10:05:06"),
        ("2024-03-05 10:05", "%F %R", "2024-03-05T10:05:00"),
        ("05.03.2024 24:00", "%d.%m.%Y %H:%M", None),
        ("05.03.2024 10:60", "%d.%m.%Y %H:%M", None),
    ],
)
def test_single_times(text: str, form: str, utc: str | None) -> None:
    us, ok, _ = read_format(pa.array([text]), form)
    assert ok.tolist() == [utc is not None]
    assert utc is None or EPOCH + us[0] == np.datetime64(utc)


@pytest.mark.parametrize(
    ("texts", "forms"),
    [
        (["2024/3/5 10:00:00"], ["%Y/%m/%d %H:%M:%S"]),
        (["3/5/2024 10:00"], ["%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"]),
        (["3/5/2024 10:00", "3/15/2024 10:00"], ["%m/%d/%Y %H:%M"]),
        (["3/5/2024 10:00", "15/3/2024 10:00", ""], ["%d/%m/%Y %H:%M"]),
        (["05.03.2024 10:00", "soon", "later"], []),
        (["20240305100000"], []),
        (["10:00:00"], []),
        ([], []),
    ],
)
def test_the_likely_formats(texts: list[str], forms: list[str]) -> None:
    assert likely_formats(texts) == forms


def test_matches_are_counted_by_format() -> None:
    texts = pa.array(["3/5/2024", " 13/5/2024 ", "3/13/2024", "x", None])
    assert count_matches(texts, ["%m/%d/%Y", "%d/%m/%Y"]) == {"%m/%d/%Y": 2, "%d/%m/%Y": 2}
