"""What an address says a page shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.page.view import View

TIME = np.datetime64("2024-05-07T08:30", "us")


def test_a_view_comes_back_from_its_address(place: Any) -> None:
    view = View(place.city, TIME, TIME - np.timedelta64(7, "D"), "net", (3, 6), 2)
    address = view.address()
    assert address["time"] == "2024-05-07T10:30:00+02:00" and address["cell"] == "3,6"
    assert View.from_address(address, place.config, "nowhere") == view


def test_what_says_nothing_is_not_in_the_address(place: Any) -> None:
    assert View(place.city).address() == {"city": "testville"}
    assert View.from_address({}, place.config, "testville") == View(place.city)


def test_a_time_is_its_slot_and_a_blank_the_plus_it_was(place: Any) -> None:
    for text in ("2024-05-07T10:44:59+02:00", "2024-05-07T10:30:00 02:00", "2024-05-07T10:30", "2024-05-07T08:31Z"):
        assert View.from_address({"city": "testville", "time": text}, place.config, "nowhere").time == TIME


@pytest.mark.parametrize(
    "parameters",
    [
        {"time": "yesterday"},
        {"time": "9999-12-31T23:59"},
        {"time": "0001-01-01"},
        {"lead": "4"},
        {"lead": "-1"},
        {"kind": "<script>alert(1)</script>"},
        {"cell": "5,0"},
        {"cell": "-1,2"},
        {"cell": "1"},
        {"cell": "1,2,3"},
        {"cell": "١,٢"},
        {"cell": "99999999999999999999,1"},
        {"unknown": "x"},
    ],
)
def test_what_is_not_known_counts_as_not_given(place: Any, parameters: dict[str, str]) -> None:
    view = View.from_address({"city": "testville", **parameters}, place.config, "nowhere")
    assert view == View(place.city, time=view.time) and (view.time is None or parameters["time"].startswith("9999"))


@pytest.mark.parametrize("name", ["atlantis", "../testville", "<b>", ""])
def test_an_unknown_city_is_the_default_one_without_the_rest(place: Any, name: str) -> None:
    address = {"city": name, "cell": "1,1", "time": "2024-05-07"}
    assert View.from_address(address, place.config, "testville") == View(place.city)
