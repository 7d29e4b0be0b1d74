"""Formats of times such as `%d.%m.%Y %H:%M`, as regular expressions.

A format has the directives of Python's `strptime`. After the seconds a fraction may follow, which need not be in it.
"""

from __future__ import annotations

import re
from functools import lru_cache

EXCEL = "excel"  # in place of a format: days since 1899-12-30, as Excel counts them
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_PATTERNS = {
    "Y": r"(?P<Y>\d{4})", "y": r"(?P<y>\d\d)", "m": r"(?P<m>1[0-2]|0[1-9]|[1-9])",
    "d": r"(?P<d>3[01]|[12]\d|0[1-9]|[1-9])", "j": r"(?P<j>\d{1,3})",
    "b": rf"(?P<b>(?i:{'|'.join(MONTHS)}))[a-zA-Z]*\.?", "a": r"[a-zA-Z]+\.?",
    "H": r"(?P<H>2[0-3]|[01]\d|\d)", "I": r"(?P<I>1[0-2]|0[1-9]|[1-9])", "M": r"(?P<M>[0-5]\d|\d)",
    "S": r"(?P<S>[0-5]\d|\d)", "f": r"(?P<f>\d+)", "p": r"(?P<p>[aApP])\.?[mM]\.?",
    "z": r"(?P<z>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)", "%": "%",
}  # fmt: skip
_PATTERNS |= {"B": _PATTERNS["b"], "h": _PATTERNS["b"], "A": _PATTERNS["a"], "Z": _PATTERNS["z"]}
_SHORT = {"T": "%H:%M:%S", "D": "%m/%d/%y", "F": "%Y-%m-%d", "R": "%H:%M"}
_FRACTION = r"(?:[.,](?P<f>\d+))?"
_DIRECTIVE = re.compile(r"%(.)|(\s+)|([^%\s]+)", re.DOTALL)


@lru_cache(64)
def pattern_of(time_format: str) -> str | None:
    """Return the regular expression of a format.

    Parameters
    ----------
    time_format
        A format.

    Returns
    -------
    str | None
        The expression, for RE2 too, whose groups have the directives' letters; None where it is no format.
    """
    for short, long in _SHORT.items():
        time_format = time_format.replace(f"%{short}", long)
    found, fraction = [], "%f" not in time_format
    for directive, blank, text in _DIRECTIVE.findall(time_format):
        if directive and directive not in _PATTERNS:
            return None
        found.append(_PATTERNS[directive] if directive else r"\s+" if blank else re.escape(text))
        if directive == "S" and fraction:
            found.append(_FRACTION)
    return "".join(found)


def check_format(time_format: str) -> str:
    """Check a format of times.

    Parameters
    ----------
    time_format
        A format such as `%d.%m.%Y %H:%M`, or `excel`.

    Returns
    -------
    str
        The format.

    Raises
    ------
    ValueError
        It has an unknown directive, a part of a time twice, no whole date, or one of %I and %p without the other.
    """
    if time_format == EXCEL:
        return time_format
    pattern, known = pattern_of(time_format), "%" + " %".join([*_PATTERNS, *_SHORT])
    try:
        found = set(re.compile(pattern or "").groupindex)
    except re.error:
        raise ValueError(f"'{time_format}' has a part of a time twice") from None
    if pattern is None or not (found & {"Y", "y"} and ("j" in found or (found & {"m", "b"} and "d" in found))):
        raise ValueError(f"'{time_format}' is no format of whole dates such as '%d.%m.%Y %H:%M'; it is made of {known}")
    if ("I" in found) != ("p" in found):
        raise ValueError(f"'{time_format}': %I, the hour of twelve, and %p, AM or PM, go together")
    return time_format
