"""Hot spots: the cells and the named areas that are furthest above what is typical then."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from trafficcast.geography.areas import Area

# Counts vary with the root of their mean: so many vehicles above it, over that root, is as unusual here as there.
_LEAST = 1.0


def _unusual(flow: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """How far a flow is above typical, in standard deviations of such a count, any shape; vehicles per slot both."""
    return (flow - typical) / np.sqrt(np.maximum(typical, _LEAST))


def _hottest_cells(
    frames: dict[str, np.ndarray],
    typical: dict[str, np.ndarray],
    areas: Mapping[str, Area],
    most: int,
) -> pd.DataFrame:
    """The places furthest above typical, the furthest first, each with the slot where it is so.

    Args:
        frames: slot's label -> (row, col), vehicles per slot.
        typical: the same slots and shape.
        areas: named areas, whose flow is that of their cells together.
        most: rows at most.

    Returns
    -------
        place, slot, vehicles, typical, unusual (see `unusual`), row and col (of an area its busiest cell); only places
        above typical.
    """
    found = []
    for slot, frame in frames.items():
        normal = typical[slot]
        score = _unusual(frame, normal)
        for index in np.argsort(score, axis=None)[::-1][:most]:
            row, col = (int(i) for i in np.unravel_index(index, frame.shape))
            found.append(
                (f"row {row}, column {col}", slot, frame[row, col], normal[row, col], score[row, col], row, col)
            )
        for name, area in areas.items():
            own, usual = float((area.share * frame).sum()), float((area.share * normal).sum())
            busiest = np.argmax(area.share * (frame - normal))
            row, col = (int(i) for i in np.unravel_index(busiest, frame.shape))
            found.append((name, slot, own, usual, float(_unusual(np.array(own), np.array(usual))), row, col))
    columns = ["place", "slot", "vehicles", "typical", "unusual", "row", "col"]
    table = pd.DataFrame(found, columns=columns).sort_values("unusual", ascending=False, kind="stable")
    return table[table["unusual"] > 0].drop_duplicates("place").head(most).reset_index(drop=True)
