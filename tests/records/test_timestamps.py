"""Times as files write them, against zoneinfo and datetime, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficcast.records.timestamps import UNIT_US, epoch_unit, local_to_utc, parse_times, to_microseconds

EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
ZONES = [
    "Europe/Rome", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "Europe/Dublin",
    "Asia/Kathmandu", "Africa/Casablanca", "Asia/Gaza", "America/Sao_Paulo", "Antarctica/Troll", "UTC",
]  # fmt: skip
NEW_YORK = ZoneInfo("America/New_York")


def by_hand(naive: int, zone: ZoneInfo) -> tuple[int, bool]:
    """Local microseconds -> UTC microseconds of the first occurrence, and whether there is one."""
    local = (EPOCH + naive * MICROSECOND).replace(tzinfo=zone, fold=0)
    utc = local.astimezone(UTC)
    exists = utc.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None)
    return (utc.replace(tzinfo=None) - EPOCH) // MICROSECOND, exists


def later_by_hand(naive: int, zone: ZoneInfo) -> int:
    """Local microseconds -> how much later the local time occurs again, 0 where it does not."""
    local = EPOCH + naive * MICROSECOND
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return max(0, (second - first) // MICROSECOND) if by_hand(naive, zone)[1] else 0


@pytest.mark.parametrize("name", ZONES)
def test_every_quarter_of_an_hour_of_a_year_is_what_zoneinfo_says(name: str) -> None:
    zone = ZoneInfo(name)
    year = 2011 if name == "Pacific/Apia" else 2009 if name in ("America/St_Johns", "America/Sao_Paulo") else 2023
    start = (datetime(year, 1, 1) - EPOCH) // MICROSECOND
    naive = start + np.arange(365 * 96) * 900_000_000 + np.arange(365 * 96) % 7
    utc, exists, again = local_to_utc(naive, zone)
    wanted = [by_hand(int(moment), zone) for moment in naive]
    assert again.tolist() == [later_by_hand(int(moment), zone) for moment in naive]
    assert exists.tolist() == [there for _, there in wanted]
    assert utc[exists].tolist() == [moment for moment, there in wanted if there]


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(
    st.sampled_from(ZONES), st.lists(st.integers(946_771_200_000_000, 2_000_000_000_000_000), min_size=1, max_size=4)
)
def test_any_times_in_any_company_are_what_zoneinfo_says(name: str, naive: list[int]) -> None:
    zone = ZoneInfo(name)
    utc, exists, again = (array.tolist() for array in local_to_utc(np.array(naive), zone))
    assert again == [later_by_hand(moment, zone) for moment in naive]
    for moment, found, there in zip(naive, utc, exists, strict=True):
        wanted, does = by_hand(moment, zone)
        assert there == does
        assert not there or found == wanted


def test_times_beyond_the_calendar_do_not_fail() -> None:
    far = np.array([-(2**62), 0, 2**62])
    utc, _, again = local_to_utc(far, NEW_YORK)
    assert not again.any()
    assert utc[0] < 0 and utc[2] > 2**61


@pytest.mark.parametrize("unit", UNIT_US)
def test_the_unit_is_that_of_most_values(unit: str) -> None:
    second = 1_213_084_659
    value = second * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    assert epoch_unit(np.array([value, value + 1, 7])) == unit
    assert epoch_unit(np.array([value, value + 1, second * 10**12], np.float64)) == unit
    assert to_microseconds(np.array([value]), unit).tolist() == [second * 10**6]


def test_nothing_plausible_is_seconds() -> None:
    assert epoch_unit(np.array([5, -3])) == epoch_unit(np.array([], np.int64)) == epoch_unit(np.array([np.nan])) == "s"


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.integers(946_684_800 * 10**6, 2_147_483_647 * 10**6))
def test_a_decimal_of_microseconds_is_that_many(us: int) -> None:
    assert to_microseconds(np.array([us / 10**6]), "s").tolist() == [us]
    assert to_microseconds(np.array([us / 10**3]), "ms").tolist() == [us]
    assert to_microseconds(np.array([float(us)]), "us").tolist() == [us]


@pytest.mark.parametrize(
    ("value", "unit", "us"),
    [
        (1.7, "s", 1_700_000),
        (1.6999999, "s", 1_699_999),
        (1_213_084_659.1234567, "s", 1_213_084_659_123_456),
        (1_213_084_659_123.4567, "ms", 1_213_084_659_123_456),
        (1_213_084_659_123_456.8, "us", 1_213_084_659_123_456),
        (-0.5, "s", -500_000),
    ],
)
def test_finer_digits_are_cut_off(value: float, unit: str, us: int) -> None:
    assert to_microseconds(np.array([value]), unit).tolist() == [us]


def test_what_is_far_away_stays_far_away() -> None:
    values = np.array([np.inf, -np.inf, np.nan, 1e300])
    for unit in UNIT_US:
        found = to_microseconds(values, unit)
        assert (np.abs(found) > 2**60).all()
        assert (found > 0).tolist() == [True, False, False, True]
    assert (to_microseconds(np.array([2**64 - 1], np.uint64), "ms") > 2**60).all()
    assert (to_microseconds(np.array([-(2**63)]), "s") < -(2**60)).all()


def parsed(*texts: str | None, zone: ZoneInfo = NEW_YORK) -> list[str | None]:
    us, ok, skipped, _ = parse_times(pa.array(texts, pa.string()), zone)
    moments = us.astype("datetime64[us]").astype(str)
    return [str(m) if fine else "skipped" if gone else None for m, fine, gone in zip(moments, ok, skipped, strict=True)]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2008-02-02 15:36:08", "2008-02-02T20:36:08.000000"),
        ("2008-02-02T15:36:08", "2008-02-02T20:36:08.000000"),
        (" 2008-02-02 15:36:08.25 ", "2008-02-02T20:36:08.250000"),
        ("2008-02-02 15:36:08.123456789", "2008-02-02T20:36:08.123456"),
        ("2008-02-02 15:36:08Z", "2008-02-02T15:36:08.000000"),
        ("2008-02-02T15:36:08.5+08:00", "2008-02-02T07:36:08.500000"),
        ("2008-02-02T15:36:08+0800", "2008-02-02T07:36:08.000000"),
        ("2008-02-02T15:36:08-05", "2008-02-02T20:36:08.000000"),
        ("2008-02-02 15:36", "2008-02-02T20:36:00.000000"),
        ("2008-02-02", "2008-02-02T05:00:00.000000"),
        ("2014-11-02 01:30:00", "2014-11-02T05:30:00.000000"),  # the first of two
        ("2014-03-09 02:30:00", "skipped"),
        ("2014-02-30 10:00:00", None),
        ("2014-13-01 10:00:00", None),
        ("1213084659", None),
        ("20080202", None),
        ("2008-W05", None),
        ("tpep_pickup_datetime", None),
        ("", None),
        (None, None),
    ],
)
def test_a_text_alone_and_in_company_is_the_same(text: str | None, utc: str | None) -> None:
    company = ["2008-02-02 15:36:08", "2008-02-02 15:36:08Z", "x", "2008-02-30 00:00:00"]
    assert parsed(text) == [utc]
    assert parsed(*company, text)[-1] == parsed(text, *company)[0] == utc


@settings(derandomize=True, max_examples=50, deadline=None, database=None)
@given(
    st.lists(st.datetimes(datetime(2000, 1, 2), datetime(2037, 1, 1)), min_size=1, max_size=20), st.sampled_from(ZONES)
)
def test_the_fast_way_and_the_plain_way_agree(moments: list[datetime], name: str) -> None:
    zone = ZoneInfo(name)
    texts = [moment.isoformat(" ") for moment in moments]
    fast = parsed(*texts, zone=zone)
    assert [parsed(text + "0" if "." in text else text + ".0000000", zone=zone)[0] for text in texts] == fast
    assert fast == [
        str(np.datetime64(by_hand((m - EPOCH) // MICROSECOND, zone)[0], "us"))
        if by_hand((m - EPOCH) // MICROSECOND, zone)[1]
        else "skipped"
        for m in moments
    ]


def test_no_rows() -> None:
    assert [len(part) for part in parse_times(pa.array([], pa.string()), NEW_YORK)] == [0, 0, 0, 0]
