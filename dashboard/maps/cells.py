"""The cells of the grid on a map: which one holds a place, and what each says."""

from __future__ import annotations

import numpy as np


def cell_words(places: list[str], values: np.ndarray, digits: int) -> list[str]:
    """What a map says of each cell: its place and its value, (row, col), with so many decimals."""
    # Adding 0 makes a plain 0 of what would print as -0.0.
    rounded = (values.round(digits) + 0.0).ravel().tolist()
    return [f"{place}: {value:.{digits}f}" for place, value in zip(places, rounded, strict=True)]
