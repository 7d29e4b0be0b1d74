"""Colour scales."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dashboard.maps.colours import (
    _difference_colours,
    _difference_legend,
    _flow_colours,
    _flow_legend,
    _flow_limit,
    difference_limit,
    round_up,
)


def opacity(colour: str) -> int:
    return int(colour[7:], 16)


def brightness(colour: str) -> int:
    return sum(int(colour[i : i + 2], 16) for i in (1, 3, 5))


@pytest.mark.parametrize(
    ("value", "rounded"), [(0, 4), (4, 4), (4.1, 5), (83, 100), (100, 100), (1010, 1200), (61, 80)]
)
def test_limits_are_round_and_never_below_the_value(value: float, rounded: float) -> None:
    assert round_up(value) == pytest.approx(rounded)


def test_the_flow_scale_ends_near_the_greatest_flows_not_at_an_outlier() -> None:
    flows = np.full((100, 2, 5, 7), 40)
    flows[0, 0, 0, 0] = 5000
    assert _flow_limit(flows) == 40
    assert _flow_limit(np.zeros((0, 2, 5, 7))) == 4


def test_no_flow_is_clear_and_more_is_darker_up_to_the_limit() -> None:
    nothing, few, half, full, beyond = _flow_colours(np.array([0.0, 10, 50, 100, 900]), 100)
    assert opacity(nothing) == 0
    assert brightness(few) > brightness(half) > brightness(full)
    assert full == beyond and opacity(full) < 255


def test_a_grid_is_coloured_row_after_row() -> None:
    grid = np.zeros((5, 7))
    grid[1, 2] = 100
    assert [i for i, colour in enumerate(_flow_colours(grid, 100)) if opacity(colour)] == [9]


def test_differences_are_blue_below_0_clear_at_0_and_red_above() -> None:
    below, none, above = _difference_colours(np.array([-30.0, 0, 30]), 25)
    assert int(below[1:3], 16) < int(below[5:7], 16)
    assert opacity(none) == 0
    assert int(above[1:3], 16) > int(above[5:7], 16)
    assert opacity(below) == opacity(above)


def test_legends_name_the_ends_and_the_unit() -> None:
    assert "&ge; 100" in _flow_legend(100) and "vehicles per slot" in _flow_legend(100)
    legend = _difference_legend(difference_limit(100))
    assert "&le; -25" in legend and "&ge; +25" in legend and ">0<" in legend
    assert not re.search(r"<(script|img|link)|url\(|on\w+=", legend)
