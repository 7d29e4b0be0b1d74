"""The tooltips of a map's cells."""

from __future__ import annotations

import numpy as np


def cell_words(names: list[str], values: np.ndarray, digits: int) -> list[str]:
    """Write the tooltip of each cell: its name and its value.

    Parameters
    ----------
    names
        The names of the cells, row after row (see `outlines_and_cells`).
    values
        The values of the cells, (row, col).
    digits
        Decimals of the values.

    Returns
    -------
    list[str]
        The tooltips, row after row.
    """
    # Adding 0 makes a plain 0 of what would print as -0.0.
    rounded = (values.round(digits) + 0.0).ravel().tolist()
    return [f"{name}: {value:.{digits}f}" for name, value in zip(names, rounded, strict=True)]
