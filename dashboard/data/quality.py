"""The quality report that every ingest writes, data/<city>/quality.json, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field, ValidationError

from dashboard.page.labels import one_line
from trafficcast.errors import InputError

_LARGEST = 64 * 2**20  # bytes: of a report of many years with a gap every hour
_MOST_GAPS = 200
_COUNTERS = {
    "files": "files and archive members read",
    "rows_read": "rows read",
    "points_kept": "points kept (of trips: their ends)",
    "points_outside": "of them outside the city's box",
    "vehicles": "vehicles",
    "pairs": "pairs of consecutive points",
    "pairs_beyond_max_gap": "pairs further apart than the longest gap",
    "transitions": "transitions from cell to cell",
    "inflow": "inflow, vehicles",
    "outflow": "outflow, vehicles",
}


class _Gap(BaseModel):
    """Slots in a row that were not observed; times are ISO 8601 with the offset of the city's zone."""

    start: str
    end: str
    partial: int
    missing: int


class _Quality(BaseModel):
    """The fields of a quality report that a page shows (see `quality_report`); a counter that is missing is unknown."""

    kind: str | None = None
    files: int | None = None
    rows_read: int | None = None
    rows_dropped: dict[str, int] = Field(default_factory=dict)
    points_kept: int | None = None
    points_outside: int | None = None
    vehicles: int | None = None
    pairs: int | None = None
    pairs_beyond_max_gap: int | None = None
    transitions: int | None = None
    transitions_refused: dict[str, int] = Field(default_factory=dict)
    first_slot: str | None = None
    last_slot: str | None = None
    inflow: int | None = None
    outflow: int | None = None
    slots: dict[str, int] = Field(default_factory=dict)
    gaps: list[_Gap] = Field(default_factory=list)
    suspects: list[dict[str, Any]] | None = None

    @property
    def share_outside(self) -> float | None:
        """The share of the kept points outside the city's box, 0 to 1; None where it is unknown."""
        if self.points_kept is None or self.points_outside is None or self.points_kept <= 0:
            return None
        return self.points_outside / self.points_kept


def _read_quality(file: Path) -> _Quality | None:
    """A quality report; None where there is none. Raises InputError where it cannot be read."""
    try:
        if file.stat().st_size > _LARGEST:
            raise InputError(f"{file} is larger than any report: move it away, the next ingest writes another")
        return _Quality.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{file} is no quality report ({where + ': ' if where else ''}{first['msg']}): move it away, the next "
            "ingest writes another"
        ) from None


def _counter_table(quality: _Quality) -> pd.DataFrame:
    """The counters of a quality report that are known."""
    found = {words: getattr(quality, name) for name, words in _COUNTERS.items()}
    found |= {f"transitions refused for the {one_line(why)}": n for why, n in quality.transitions_refused.items()}
    found |= {f"slots {one_line(state)}": n for state, n in quality.slots.items()}
    return pd.DataFrame([(words, n) for words, n in found.items() if n is not None], columns=["counter", "number"])


def _drop_table(quality: _Quality) -> pd.DataFrame:
    """A row for each reason to drop rows: reason, rows, and their share of the rows read (0 to 1)."""
    read = quality.rows_read or 0
    rows = [(one_line(why).replace("_", " "), n, n / read if read else 0.0) for why, n in quality.rows_dropped.items()]
    return pd.DataFrame(rows, columns=["reason", "rows", "share"]).sort_values("rows", ascending=False, kind="stable")


def _gap_table(quality: _Quality) -> pd.DataFrame:
    """The longest stretches of slots that were not observed, the newest first: from, to, slots partial and missing."""
    longest = sorted(quality.gaps, key=lambda gap: -(gap.partial + gap.missing))[:_MOST_GAPS]
    rows = [(_moment(gap.start), _moment(gap.end), gap.partial, gap.missing) for gap in longest]
    table = pd.DataFrame(rows, columns=["from", "to", "partial", "missing"])
    return table.sort_values("from", ascending=False, kind="stable", ignore_index=True)


def _suspect_table(quality: _Quality) -> pd.DataFrame | None:
    """Suspicious vehicles: vehicle, suspicion, points, first and last of them; None where none were looked for."""
    if quality.suspects is None:
        return None
    names = ("vehicle", "suspicion", "points", "first", "last")
    rows = [tuple(one_line(str(one.get(name, ""))) for name in names) for one in quality.suspects]
    return pd.DataFrame(rows, columns=list(names))


def _moment(text: str) -> str:
    """An ISO time for people, with its offset: '2008-05-20 07:00 -07:00'."""
    text = one_line(text)
    return f"{text[:10]} {text[11:16]} {text[19:] or 'UTC'}"
