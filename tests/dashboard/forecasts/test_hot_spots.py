"""What is furthest above typical."""

from __future__ import annotations

import numpy as np
import pytest

from dashboard.forecasts.hot_spots import _hottest_cells, _unusual
from trafficcast.geography.areas import Area

TYPICAL = np.full((3, 4), 9.0)


def frame(**cells: float) -> np.ndarray:
    """Typical but for cells named r1c2."""
    values = TYPICAL.copy()
    for name, value in cells.items():
        values[int(name[1]), int(name[3])] = value
    return values


def test_a_vehicle_more_counts_less_where_many_are_typical() -> None:
    assert _unusual(np.array([4.0, 103.0, 3.0]), np.array([1.0, 100.0, 0.0])) == pytest.approx([3.0, 0.3, 3.0])


def test_the_furthest_above_comes_first_and_what_is_below_does_not() -> None:
    table = _hottest_cells({"now": frame(r1c2=18, r0c0=12, r2c3=1)}, {"now": TYPICAL}, {}, 8)
    assert list(zip(table["row"], table["col"], strict=True)) == [(1, 2), (0, 0)]
    assert table["unusual"].tolist() == pytest.approx([3.0, 1.0])
    assert table["vehicles"].tolist() == [18, 12] and table["typical"].tolist() == [9, 9]


def test_a_place_stands_once_with_the_slot_where_it_is_furthest() -> None:
    frames = {"now": frame(r1c2=12), "later": frame(r1c2=15)}
    table = _hottest_cells(frames, dict.fromkeys(frames, TYPICAL), {}, 8)
    assert table[["place", "slot"]].to_numpy().tolist() == [["row 1, column 2", "later"]]


def test_there_are_no_more_than_asked_for() -> None:
    assert len(_hottest_cells({"now": TYPICAL + 1}, {"now": TYPICAL}, {}, 5)) == 5
    assert _hottest_cells({"now": TYPICAL}, {"now": TYPICAL}, {}, 5).empty


def test_an_area_counts_its_cells_together_and_leads_to_its_busiest() -> None:
    share = np.zeros((3, 4))
    share[0, 0], share[1, 2] = 1.0, 0.5
    table = _hottest_cells(
        {"now": frame(r0c0=12, r1c2=17)}, {"now": TYPICAL}, {"the stadium": Area("x", share, 0, 0, {})}, 8
    )
    area = table[table["place"] == "the stadium"].iloc[0]
    assert area["vehicles"] == 20.5 and area["typical"] == 13.5
    assert area["unusual"] == pytest.approx(7 / np.sqrt(13.5))
    assert (area["row"], area["col"]) == (1, 2)
