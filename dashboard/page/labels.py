"""Times and sentences as people read them, in the city's zone. Times come in as naive UTC."""

from __future__ import annotations

import re

import numpy as np

from trafficcast.config.city import City

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_MINUTE = np.timedelta64(1, "m")
# Where Streamlit finds links, emoji, icons and arrows after Markdown's backslashes have gone: a sign of no width there
# keeps them text. Times (12:30:00) are none of these.
_UNDONE = re.compile(
    r"(?<=:)(?!\d\d\b)(?=[\w+/-]+:|//|material/)|(?<=www)(?=\.)|(?<=@)(?=[\w-])"
    r"|(?<!\S)(?=(?:<->|->|<-|--|>=|<=|~=)(?!\S))",
    re.IGNORECASE,
)


def day_label(day: np.datetime64) -> str:
    """A local day -> 'Fri 6 Jun 2008'."""
    date = day.astype("datetime64[D]").item()
    return f"{date:%a} {date.day} {date:%b %Y}"


def clock_label(city: City, time: np.datetime64) -> str:
    """A time -> '18:00 PDT'; the zone tells the two 01:30 of an autumn night apart."""
    return f"{city.local(np.array([time]))[0]:%H:%M %Z}"


def moment_label(city: City, time: np.datetime64) -> str:
    """A time -> 'Fri 6 Jun 2008 18:00 PDT'."""
    return moment_labels(city, np.array([time]))[0]


def moment_labels(city: City, times: np.ndarray) -> list[str]:
    """`moment_label` of many times at once, which is much faster."""
    return [f"{local:%a} {local.day} {local:%b %Y %H:%M %Z}" for local in city.local(times)]


def _slot_label(city: City, start: np.datetime64) -> str:
    """A slot's start -> '18:00-18:30'."""
    start_local, end_local = city.local(np.array([start, start + city.slot]))
    return f"{start_local:%H:%M}-{end_local:%H:%M}"


def slot_labels(city: City, starts: np.ndarray) -> list[str]:
    """Slots' starts -> '18:00-18:30 PDT' each."""
    pairs = zip(city.local(starts), city.local(starts + city.slot), strict=True)
    return [f"{start:%H:%M}-{end:%H:%M} {start:%Z}" for start, end in pairs]


def lead_label(city: City, init_time: np.datetime64, lead_time: np.timedelta64) -> str:
    """The slot a lead time means -> '18:30-19:00 (+30 min)'."""
    return f"{_slot_label(city, init_time + lead_time)} (+{int(lead_time / _MINUTE)} min)"


def plain(text: str) -> str:
    """Text from data or files, escaped so that Streamlit's Markdown shows it as it stands."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^=])", r"\\\1", _UNDONE.sub("\N{WORD JOINER}", text))


def one_line(text: str) -> str:
    """Blanks in a row are one; what is not printable (control signs, names that are no Unicode) is replaced."""
    return "".join(sign if sign.isprintable() else _REPLACEMENT for sign in " ".join(text.split()))
