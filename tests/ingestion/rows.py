"""Rows of one source, for the tests of what is stored by source."""

from __future__ import annotations

import numpy as np

from trafficcast.ingestion.deduplication import _deduplicate, _Rows, _sort
from trafficcast.records.records import Records


def rows_of(records: Records, source: int = 1) -> _Rows:
    """Records as the rows of a source."""
    return _Rows(records, np.full(len(records), source, np.int32))


def sorted_and_deduplicated(records: Records) -> tuple[Records, int]:
    """What is counted of the records of one source, and the number of repeats among them."""
    rows, repeats = _sort(rows_of(records))
    return _deduplicate(rows)[0], repeats.total()
