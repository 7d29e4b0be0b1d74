"""Times in the city's zone, and text that stays text."""

from __future__ import annotations

import numpy as np
import pytest

from dashboard.page.labels import clock_label, lead_label, moment_label, plain
from trafficcast.config.city import City

SAN_FRANCISCO = City(west=-122.52, east=-122.36, south=37.7, north=37.82, timezone="America/Los_Angeles")


def test_a_moment_is_read_on_the_citys_clock() -> None:
    assert moment_label(SAN_FRANCISCO, np.datetime64("2008-06-07T01:00")) == "Fri 6 Jun 2008 18:00 PDT"


def test_a_lead_time_is_named_by_its_slot() -> None:
    init_time, lead_time = np.datetime64("2008-06-07T01:00"), np.timedelta64(90, "m")
    assert lead_label(SAN_FRANCISCO, init_time, lead_time) == "19:30-20:00 PDT (+90 min)"


def test_the_zone_tells_the_repeated_hour_apart() -> None:
    labels = [clock_label(SAN_FRANCISCO, np.datetime64(f"2008-11-02T{hour}:30")) for hour in ("08", "09")]
    assert labels == ["01:30 PDT", "01:30 PST"]


def test_markdown_and_html_in_names_lose_their_meaning() -> None:
    assert plain("a*b <i>[x](y)") == r"a\*b \<i\>\[x\]\(y\)"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("see https://x.example", ["see https:", "//x.example"]),
        ("www.x.example", ["www", ".x.example"]),
        ("a@x.example", ["a@", "x.example"]),
        (":material/home: :100: :+1:", [":", "material/home: :", "100: :", "+1:"]),
        ("a -> b", ["a ", "-> b"]),
        ("city: x, 2024-05-08 12:30:00+02:00, run x --city y", ["city: x, 2024-05-08 12:30:00+02:00, run x --city y"]),
    ],
)
def test_what_becomes_a_link_or_a_picture_without_markdown_is_broken_up(text: str, parts: list[str]) -> None:
    assert plain(text).replace("\\", "") == "\N{WORD JOINER}".join(parts)


def test_an_indented_line_is_no_code() -> None:
    assert plain("a\n\n    b\n\tc\nd") == "a\n\nb\n\nc\nd"
