"""The words by which feeds say whether a vehicle is occupied."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

import numpy as np

_OCCUPIED = (
    "true", "t", "yes", "y", "occupied", "hired", "busy", "taken", "engaged", "loaded", "full", "pob", "重车", "载客",
    "有客", "ocupado", "ocupada", "occupato", "besetzt", "occupé", "with passenger", "with passengers",
    "passenger on board", "on trip", "not available", "not free",
)  # fmt: skip
_FREE = (
    "false", "f", "no", "n", "free", "vacant", "available", "empty", "unoccupied", "idle", "空车", "空载", "无客",
    "livre", "libre", "libero", "frei", "without passenger", "without passengers", "no passenger", "for hire",
    "not hired", "not occupied",
)  # fmt: skip
_MEANING = dict.fromkeys(_OCCUPIED, 1) | dict.fromkeys(_FREE, 0)
_NOTHING = {"", "null", "none", "nan", "na", "n/a", "unknown", "?", "-"}  # said to be unknown
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?|[+-]?inf")
UNKNOWN = -1


def meanings(words: Sequence[str], occupied_values: Collection[str] = ()) -> np.ndarray:
    """Say what values mean: whether a vehicle is occupied.

    Parameters
    ----------
    words
        The values as they stand in a file, (value).
    occupied_values
        Those that mean occupied, where the feed lists them; all others then mean free.

    Returns
    -------
    np.ndarray
        1 occupied, 0 not, -1 unknown, int8, (value). Without a list a word is known, or the number of passengers.
    """
    listed = {_plain(value) for value in occupied_values}
    return np.array([_meaning(_plain(word), listed) for word in words], np.int8)


def not_understood(words: Sequence[str]) -> list[str]:
    """Return those values that neither say whether a vehicle is occupied, nor that this is unknown.

    Parameters
    ----------
    words
        The values as they stand in a file, (value).

    Returns
    -------
    list[str]
        The values, as they stand there.
    """
    odd = [word for word in words if (plain := _plain(word)) not in _NOTHING and plain not in _MEANING]
    return [word for word in odd if not _NUMBER.fullmatch(_plain(word))]  # a number below 0 is unknown


def _plain(word: str) -> str:
    """Return a word without capitals, and with single blanks for all that separates words."""
    return re.sub(r"[\s_]+|(?<=\w)-(?=\w)", " ", unicodedata.normalize("NFKC", word)).strip().casefold()


def _meaning(word: str, listed: Collection[str]) -> int:
    """Say what a plain word means."""
    if listed:
        return int(word in listed) if word not in _NOTHING else UNKNOWN
    if _NUMBER.fullmatch(word):
        number = float(word)
        return int(number > 0) if 0 <= number < np.inf else UNKNOWN
    return _MEANING.get(word, UNKNOWN)
