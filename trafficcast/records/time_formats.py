"""Read times by a format such as `%d.%m.%Y %H:%M`, and find the formats that times are written in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trafficcast.config.time_format import MONTHS, pattern_of
from trafficcast.records.records import DAY_US, SECOND_US

# Of two dates that may be taken for one another, the American one comes first.
_DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%m-%Y",
    "%d-%b-%Y", "%d-%b-%y", "%d/%b/%Y", "%d %b %Y", "%d %b, %Y", "%b %d, %Y", "%b %d %Y", "%a, %d %b %Y", "%d.%m.%y",
    "%m/%d/%y", "%d/%m/%y", "%Y年%m月%d日",
)  # fmt: skip
_BETWEEN = (" ", "T", ", ", ":", "")
_CLOCKS = (
    "%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%I:%M:%S%p", "%I:%M%p", "%H.%M.%S", "%I.%M.%S %p", "%H-%M-%S",
    "%H%M%S", "%H时%M分%S秒",
)  # fmt: skip
_OFFSETS = ("", "%z", " %z")


def likely_formats(texts: Iterable[str]) -> list[str]:
    """Find the formats that most of some times have.

    Parameters
    ----------
    texts
        Some texts.

    Returns
    -------
    list[str]
        The formats that fit most of them: more than one where nothing tells day and month apart, none where no common
        format fits half of them.
    """
    texts = [text.strip() for text in texts if text.strip()]
    counts = Counter(found for text in texts for found in _formats_of(text))
    most = max(counts.values(), default=0)
    return [found for found in counts if counts[found] == most] if 2 * most > len(texts) else []


def _formats_of(text: str) -> list[str]:
    """Return the common formats that a text has; digits alone might be anything."""
    if text.isdecimal():
        return []
    found = []
    for date in _DATES:
        if (day := _python(date).match(text)) is None:
            continue
        rest = text[day.end() :]
        if not rest:
            found.append(date)
        for between, clock in product(_BETWEEN, _CLOCKS):
            if rest.startswith(between) and (time := _python(clock).match(rest, len(between))):
                offsets = (offset for offset in _OFFSETS if _python(offset).fullmatch(rest, time.end()))
                found += [date + between + clock + offset for offset in offsets]
    return found


def count_matches(texts: pa.Array, formats: Sequence[str]) -> Counter[str]:
    """Count the texts that each format fits.

    Parameters
    ----------
    texts
        The texts, (row).
    formats
        Formats of times.

    Returns
    -------
    Counter[str]
        Number of texts by format.
    """
    texts = pc.utf8_trim_whitespace(texts)
    return Counter({one: pc.sum(pc.match_substring_regex(texts, _whole(one))).as_py() or 0 for one in formats})


def read_format(texts: pa.Array, time_format: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Read the times that have a format.

    Parameters
    ----------
    texts
        The texts, (row).
    time_format
        Their format.

    Returns
    -------
    tuple[np.ndarray, np.ndarray, bool]
        Microseconds since 1970, UTC where the format has an offset and local where not; which texts have the format and
        are times, (row) each; and whether the format has an offset.
    """
    parts = pc.extract_regex(pc.utf8_trim_whitespace(texts), _whole(time_format))
    ok = parts.is_valid().to_numpy(zero_copy_only=False)
    us = np.zeros(len(texts), np.int64)
    fields = dict(zip((field.name for field in parts.type), parts.drop_null().flatten(), strict=True))

    def _number(name: str) -> Any:
        return fields[name].cast(pa.int64()).to_numpy() if name in fields else 0

    year = _number("Y") if "Y" in fields else (_number("y") + 31) % 100 + 1969  # as Python: 69 is 1969, 68 is 2068
    if "j" in fields:
        first, after = (((year - 1970 + i).astype("datetime64[Y]")).astype("datetime64[D]") for i in (0, 1))
        days = first + (_number("j") - 1)
        exists = (days >= first) & (days < after)
    else:
        names = pa.array(MONTHS)
        month = pc.index_in(pc.utf8_lower(fields["b"]), names).to_numpy() if "b" in fields else _number("m") - 1
        months = ((year - 1970) * 12 + month).astype("datetime64[M]")
        days = months.astype("datetime64[D]") + (_number("d") - 1)
        exists = days.astype("datetime64[M]") == months  # there is no 30 February
    hour = _number("H")
    if "I" in fields:
        hour = _number("I") % 12 + 12 * pc.equal(pc.utf8_lower(fields["p"]), "p").to_numpy(zero_copy_only=False)
    time = days.astype(np.int64) * DAY_US + ((hour * 60 + _number("M")) * 60 + _number("S")) * SECOND_US
    if "f" in fields:
        time = time + pc.utf8_rpad(pc.utf8_slice_codeunits(fields["f"], 0, 6), 6, "0").cast(pa.int64()).to_numpy()
    if "z" in fields:
        time = time - _offset_us(fields["z"])
    us[ok] = np.where(exists, time, 0)
    ok[ok] = exists
    return us, ok, "z" in fields


def _offset_us(offsets: pa.Array) -> np.ndarray:
    """Return offsets such as +01, +0530, -05:00, Z and UTC as microseconds."""
    few = offsets.dictionary_encode()
    us = np.zeros(len(few.dictionary), np.int64)
    for i, text in enumerate(few.dictionary.to_pylist()):
        digits = re.sub(r"\D", "", text).ljust(4, "0")
        us[i] = (-1 if text.startswith("-") else 1) * (int(digits[:2]) * 60 + int(digits[2:])) * 60 * SECOND_US
    return us.take(few.indices.to_numpy())


@lru_cache(64)
def _python(time_format: str) -> re.Pattern[str]:
    """Return a format as a regular expression of Python."""
    return re.compile(pattern_of(time_format) or "")


def _whole(time_format: str) -> str:
    """Return the regular expression of a text that has a format from beginning to end."""
    return f"^{pattern_of(time_format)}$"
