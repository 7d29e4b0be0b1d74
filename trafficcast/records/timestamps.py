"""Read the times that files hold as microseconds since 1970 UTC."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta, tzinfo
from fractions import Fraction
from functools import lru_cache
from math import floor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trafficcast.records.records import DAY_US, EARLIEST_US, SECOND_US

UNIT_US = {"s": Fraction(SECOND_US), "ms": Fraction(1_000), "us": Fraction(1), "ns": Fraction(1, 1_000)}
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_FAR_US = 2**62  # beyond any plausible date on either side, and still far from the ends of 64 bits
_LATEST_CHANGE_US = 4_102_444_800 * SECOND_US  # 2100: no clock change is looked for after it
_MICROSECOND = timedelta(microseconds=1)
_SHAPE = r"^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?"
_NAIVE = _SHAPE + "$"
_WITH_OFFSET = _SHAPE + r"(Z|[+-]\d{2}:?\d{2})$"
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_FINER = r"(\.\d{6})\d+"
_HALF_A_STEP_US = 0.13  # float64 seconds and their microseconds, around today, are known in steps of 0.25 µs


def epoch_unit(values: np.ndarray) -> str:
    """Find the unit of times since 1970.

    Parameters
    ----------
    values
        Times, (row).

    Returns
    -------
    str
        The unit (s, ms, us or ns) in which most of the values are plausible; seconds in a tie.
    """
    return best_unit(count_units(values))


def count_units(values: np.ndarray) -> Counter[str]:
    """Count the plausible times, from 2000 to a day from now, in each unit.

    Parameters
    ----------
    values
        Times since 1970, (row).

    Returns
    -------
    Counter[str]
        Number of plausible times by unit (s, ms, us, ns).
    """
    latest = int(time.time()) * SECOND_US + DAY_US
    return Counter(
        {
            unit: int(np.count_nonzero((values >= EARLIEST_US / float(us)) & (values < latest / float(us))))
            for unit, us in UNIT_US.items()
        }
    )


def best_unit(counts: Counter[str]) -> str:
    """Return the unit with most plausible times.

    Parameters
    ----------
    counts
        Numbers of plausible times by unit.

    Returns
    -------
    str
        The unit; seconds in a tie.
    """
    return max(UNIT_US, key=lambda unit: counts[unit])  # the first of the largest


def floor_time(number: Fraction) -> int:
    """Round a time down, and clamp it to the range of 64 bits.

    Parameters
    ----------
    number
        Exact time in any unit.

    Returns
    -------
    int
        A whole number; a time that would not fit stays far from any plausible one.
    """
    return min(max(floor(number), -_FAR_US), _FAR_US)


def to_microseconds(values: np.ndarray, unit: str) -> np.ndarray:
    """Convert times since 1970 to whole microseconds, rounding down.

    A time beyond some 146,000 years, an infinite one or NaN becomes a time far from any plausible one.

    Parameters
    ----------
    values
        Times, integers or floats, (row).
    unit
        Their unit: s, ms, us or ns.

    Returns
    -------
    np.ndarray
        Microseconds, int64, (row).
    """
    values = np.asarray(values)
    if values.dtype.kind in "iu":
        if unit == "ns":
            return (values // 1_000).astype(np.int64)
        factor = int(UNIT_US[unit])
        return np.clip(values, -(_FAR_US // factor), _FAR_US // factor).astype(np.int64) * factor
    product = values / 1_000 if unit == "ns" else values * float(UNIT_US[unit])
    # The decimal 1213084659.1 is not exact in float64: a value within its precision of a whole microsecond is that one.
    whole = np.rint(product)
    with np.errstate(invalid="ignore"):  # an infinite value or NaN becomes a time far from any plausible one
        near = np.abs(product - whole) <= np.minimum(np.spacing(np.abs(product)), _HALF_A_STEP_US)
        us = np.where(near, whole, np.floor(product))
    far = float(_FAR_US)
    return np.nan_to_num(us, nan=-far, posinf=far, neginf=-far).clip(-far, far).astype(np.int64)


def local_to_utc(naive_us: np.ndarray, zone: tzinfo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert naive local times to UTC.

    A time that occurs twice, where clocks are set back, is its first occurrence.

    Parameters
    ----------
    naive_us
        Local times, microseconds since 1970, (row).
    zone
        Their time zone.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, np.ndarray]
        Microseconds since 1970 UTC, whether the local time exists, and how many microseconds later it occurs again, 0
        where it does not, (row) each.
    """
    naive_us = np.asarray(naive_us, np.int64)
    if not len(naive_us):
        return naive_us, np.zeros(0, np.bool_), naive_us
    starts, offsets = _offsets_between(zone, int(naive_us.min()), int(naive_us.max()))
    # Offset i holds for local times from begins[i] to before ends[i]; of two possible offsets the earlier one counts.
    begins, ends = starts + offsets, starts[1:] + offsets[:-1]
    i = np.searchsorted(ends, naive_us, side="right")
    next_begins, shifts = np.append(begins[1:], _FAR_US), np.append(offsets[:-1] - offsets[1:], 0)
    again = np.where(naive_us >= next_begins[i], shifts[i], 0)
    return naive_us - offsets[i], (naive_us >= begins[i]) | (i == 0), again


def _set_back(zone: tzinfo, first_us: int, last_us: int) -> tuple[np.ndarray, np.ndarray]:
    """Return when the clocks of a zone are set back, and by how much, microseconds, (time) each.

    The times, since 1970 UTC and rising, are those from a year before `first_us` to a year after `last_us`.
    """
    starts, offsets = _offsets_between(zone, first_us, last_us)
    back = offsets[1:] < offsets[:-1]
    return starts[1:][back], (offsets[:-1] - offsets[1:])[back]


def _offsets_between(zone: tzinfo, first_us: int, last_us: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets of a zone from a year before a time to a year after another, as `_offsets` does."""
    years = np.clip([first_us, last_us], EARLIEST_US - DAY_US, _LATEST_CHANGE_US)
    first, last = years.astype("datetime64[us]").astype("datetime64[Y]").astype(int) + 1970
    return _offsets(zone, int(first) - 1, int(last) + 1)


@lru_cache(64)
def _offsets(zone: tzinfo, first_year: int, last_year: int) -> tuple[np.ndarray, np.ndarray]:
    """Return when each offset of a zone starts (UTC), and the offset, both in microseconds.

    The first offset also holds before its start.
    """

    def offset(second: int) -> int:
        moment = datetime.fromtimestamp(second, zone).utcoffset()
        return 0 if moment is None else round(moment.total_seconds())

    day = 86_400
    begin, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (first_year, last_year + 1))
    starts, offsets = [begin], [offset(begin)]
    for second in range(begin, end, day // 4):
        while offset(second) != offsets[-1]:
            low, high = max(starts[-1], second - day // 4), second  # the change lies in (low, high]
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
            starts.append(high)
            offsets.append(offset(high))
    return np.array(starts, np.int64) * SECOND_US, np.array(offsets, np.int64) * SECOND_US


def parse_times(
    texts: pa.ChunkedArray | pa.Array, zone: tzinfo
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read dates and times written as text.

    These are ISO 8601 with a blank or T, to the second or finer; a date is its midnight. A bare number is no time.

    Parameters
    ----------
    texts
        The texts, (row).
    zone
        Zone of times without an offset or Z.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
        Microseconds since 1970 UTC, whether the text is a time, whether it is one that the clocks skip, and how many
        microseconds later it occurs again (see `local_to_utc`), (row) each.
    """
    texts = pc.utf8_trim_whitespace(texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts)
    if pc.any(pc.match_substring_regex(texts, _FINER)).as_py():
        texts = pc.replace_substring_regex(texts, _FINER, r"\1")
    n = len(texts)
    us, again = np.zeros(n, np.int64), np.zeros(n, np.int64)
    ok, skipped = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    if not n:
        return us, ok, skipped, again
    rest = np.ones(n, np.bool_)
    for pattern, parse in _PARSERS:
        matches = pc.match_substring_regex(texts, pattern).fill_null(False)
        if not pc.any(matches).as_py():
            continue
        whole = pc.all(matches).as_py()
        try:
            found = parse(texts if whole else texts.filter(matches))
        except pa.ArrowInvalid:
            continue  # a day such as 30 February: row by row
        here = slice(None) if whole else matches.to_numpy(zero_copy_only=False)
        us[here], ok[here], rest[here] = found, True, False
        if pattern != _WITH_OFFSET:
            us[here], exists, again[here] = local_to_utc(found, zone)
            ok[here], skipped[here] = exists, ~exists
        if whole:
            return us, ok, skipped, again
    rows = np.flatnonzero(rest)
    moments = [_moment(text) for text in texts.take(pa.array(rows)).to_pylist()]
    naive = [i for i, moment in zip(rows, moments, strict=True) if moment is not None and moment.tzinfo is None]
    us[rows] = [0 if moment is None else _microseconds(moment) for moment in moments]
    ok[rows] = [moment is not None for moment in moments]
    us[naive], ok[naive], again[naive] = local_to_utc(us[naive], zone)
    skipped[naive] = ~ok[naive]
    return us, ok, skipped, again


def _parse_naive(texts: pa.Array) -> np.ndarray:
    """Read ISO times without an offset."""
    return texts.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()


def _parse_with_offset(texts: pa.Array) -> np.ndarray:
    """Read ISO times with an offset."""
    return texts.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()


_PARSERS = ((_NAIVE, _parse_naive), (_WITH_OFFSET, _parse_with_offset))


def _moment(text: str | None) -> datetime | None:
    """Read one time, aware where the text has an offset; None for another text."""
    if text is None or not _DATE.match(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970 of an aware time in UTC, of a naive one in local time."""
    return (moment - datetime(1970, 1, 1, tzinfo=None if moment.tzinfo is None else UTC)) // _MICROSECOND
