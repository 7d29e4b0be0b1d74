"""Texts for people: times in the city's time zone, and text that is safe to show. Times are given as naive UTC."""

from __future__ import annotations

import re

import numpy as np

from trafficcast.config.city import City
from trafficcast.geography.cells import cell_name

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_MINUTE = np.timedelta64(1, "m")
# Where Streamlit finds links, emoji, icons and arrows after Markdown's backslashes have gone: a sign of no width there
# keeps them text. Times (12:30:00) are none of these.
_MARKUP = re.compile(
    r"(?<=:)(?!\d\d\b)(?=[\w+/-]+:|//|material/)|(?<=www)(?=\.)|(?<=@)(?=[\w-])"
    r"|(?<!\S)(?=(?:<->|->|<-|--|>=|<=|~=)(?!\S))",
    re.IGNORECASE,
)


def day_label(day: np.datetime64) -> str:
    """Write a local day, such as 'Fri 6 Jun 2008'.

    Parameters
    ----------
    day
        The local day.

    Returns
    -------
    str
        The text.
    """
    date = day.astype("datetime64[D]").item()
    return f"{date:%a} {date.day} {date:%b %Y}"


def clock_label(city: City, time: np.datetime64) -> str:
    """Write the time of day, such as '18:00 PDT'; the zone distinguishes the repeated hour in autumn.

    Parameters
    ----------
    city
        The city.
    time
        The time, naive UTC.

    Returns
    -------
    str
        The text.
    """
    return f"{city.local(np.array([time]))[0]:%H:%M %Z}"


def moment_label(city: City, time: np.datetime64) -> str:
    """Write day and time, such as 'Fri 6 Jun 2008 18:00 PDT'.

    Parameters
    ----------
    city
        The city.
    time
        The time, naive UTC.

    Returns
    -------
    str
        The text.
    """
    return moment_labels(city, np.array([time]))[0]


def moment_labels(city: City, times: np.ndarray) -> list[str]:
    """Write many times as `moment_label` does, which is much faster than one by one.

    Parameters
    ----------
    city
        The city.
    times
        The times, (time), naive UTC.

    Returns
    -------
    list[str]
        The texts.
    """
    return [f"{local:%a} {local.day} {local:%b %Y %H:%M %Z}" for local in city.local(times)]


def slot_labels(city: City, starts: np.ndarray) -> list[str]:
    """Write the times of slots, such as '18:00-18:30 PDT'.

    Parameters
    ----------
    city
        The city.
    starts
        Starts of the slots, (slot), naive UTC.

    Returns
    -------
    list[str]
        The texts.
    """
    pairs = zip(city.local(starts), city.local(starts + city.slot), strict=True)
    return [f"{start:%H:%M}-{end:%H:%M} {start:%Z}" for start, end in pairs]


def lead_name(minutes: int) -> str:
    """Write a lead time, such as '+30 min'.

    Parameters
    ----------
    minutes
        The lead time, minutes.

    Returns
    -------
    str
        The text.
    """
    return f"+{minutes} min"


def lead_label(city: City, init_time: np.datetime64, lead_time: np.timedelta64) -> str:
    """Write a forecast slot and its lead time, such as '18:30-19:00 PDT (+30 min)'.

    Parameters
    ----------
    city
        The city.
    init_time
        Start of the first slot that is forecast, naive UTC.
    lead_time
        The lead time of the slot.

    Returns
    -------
    str
        The text.
    """
    return f"{slot_labels(city, np.array([init_time + lead_time]))[0]} ({lead_name(int(lead_time / _MINUTE))})"


def so_far(city: City, coverage: float) -> str:
    """Write how much of the slot that still runs has been seen, such as 'so far, 24 of 30 min'.

    Parameters
    ----------
    city
        The city.
    coverage
        Share of the slot's minutes in which any vehicle reported, 0 to 1.

    Returns
    -------
    str
        The text.
    """
    return f"so far, {coverage * city.slot_minutes:.0f} of {city.slot_minutes} min"


def cell_heading(cell: tuple[int, int] | None) -> str:
    """Write the heading of what is shown of a cell, such as 'Cell: row 12, column 20'.

    Parameters
    ----------
    cell
        Row and column; None is the whole city.

    Returns
    -------
    str
        The text; 'City total' of the whole city.
    """
    return "City total" if cell is None else f"Cell: {cell_name(*cell)}"


def plain(text: str) -> str:
    """Escape text so that Streamlit's Markdown shows it unchanged.

    Parameters
    ----------
    text
        The text, which may come from data or files.

    Returns
    -------
    str
        The escaped text.
    """
    text = re.sub(r"\n\s+", "\n\n", text)  # an indented line would be shown as code
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^=])", r"\\\1", _MARKUP.sub("\N{WORD JOINER}", text))


def one_line(text: str) -> str:
    """Make one printable line of a text.

    Parameters
    ----------
    text
        The text.

    Returns
    -------
    str
        The text with single blanks; characters that cannot be printed are replaced by U+FFFD.
    """
    return "".join(sign if sign.isprintable() else _REPLACEMENT for sign in " ".join(text.split()))
