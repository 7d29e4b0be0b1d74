"""Hot spots: the cells and the named areas that are furthest above their typical flow at that time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from trafficcast.geography.areas import Area
from trafficcast.geography.cells import cell_name

# A count's standard deviation is about the root of its mean, so excesses over that root are comparable between cells.
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
    """The cells and areas furthest above their typical flow, the furthest first, each with the slot where it is so.

    `frames` and `typical` map a slot's label to flows (row, col), vehicles per slot; the table has `most` rows at most.
    Columns: place, slot, vehicles, typical, unusual (see `_unusual`), and row and col, which are those of the area's
    busiest cell for an area.
    """
    found = []
    for slot, frame in frames.items():
        normal = typical[slot]
        score = _unusual(frame, normal)
        for index in np.argsort(score, axis=None)[::-1][:most]:
            row, col = (int(i) for i in np.unravel_index(index, frame.shape))
            found.append((cell_name(row, col), slot, frame[row, col], normal[row, col], score[row, col], row, col))
        for name, area in areas.items():
            own, usual = float((area.share * frame).sum()), float((area.share * normal).sum())
            busiest = np.argmax(area.share * (frame - normal))
            row, col = (int(i) for i in np.unravel_index(busiest, frame.shape))
            found.append((name, slot, own, usual, float(_unusual(np.array(own), np.array(usual))), row, col))
    columns = ["place", "slot", "vehicles", "typical", "unusual", "row", "col"]
    table = pd.DataFrame(found, columns=columns).sort_values("unusual", ascending=False, kind="stable")
    return table[table["unusual"] > 0].drop_duplicates("place").head(most).reset_index(drop=True)
