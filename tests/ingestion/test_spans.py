"""The spans of hours that share a file: planned merges against what a list of records says."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficcast.ingestion import spans
from trafficcast.ingestion.hour_files import _file_of, _span_of_file
from trafficcast.ingestion.spans import Span, _plan_merges, _runs

HOURS = st.dictionaries(st.integers(-40, 90), st.integers(1, 30), max_size=25)
MOST, LONGEST = 50, 16


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.lists(HOURS, max_size=6))
def test_files_grow_with_records_and_never_overlap(ingests: list[dict[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_MOST_RECORDS", MOST)
        patch.setattr(spans, "_MOST_HOURS", LONGEST)
        stored: dict[Span, Counter[int]] = {}
        every: Counter[int] = Counter()
        for new in ingests:
            every.update(new)
            merges = _plan_merges({s: n.total() for s, n in stored.items()}, new, [], stored.__getitem__, -40)
            assert [merge for run in _runs(merges, stored) for merge in run] == merges
            after = dict(stored)
            for merge in merges:
                old = {} if merge.stored is None else stored[merge.stored]
                after.pop(merge.stored, None)
                inside = range(*merge.span)
                after[merge.span] = Counter({hour: old.get(hour, 0) + new.get(hour, 0) for hour in inside})
                after[merge.span] = +after[merge.span]
            for run in _runs(merges, stored):  # no file that is not merged lies within a run, and parts stay together
                begin, end = run[0].span.first, run[-1].span.end
                own = {merge.stored for merge in run}
                assert not [s for s in stored if s not in own and s.first < end and begin < s.end]
                assert not own - {None} & {
                    merge.stored for other in _runs(merges, stored) if other != run for merge in other
                }
            stored = after
        found: Counter[int] = Counter()
        for span, hours in stored.items():
            length = span.end - span.first
            assert length in (1, 2, 4, 8, 16) and span.first % length == 0
            assert hours and (length == 1 or hours.total() <= MOST)
            assert all(span.first <= hour < span.end for hour in hours)
            found.update(hours)
        assert found == every
        ordered = sorted(stored)
        assert all(one.end <= other.first for one, other in zip(ordered, ordered[1:], strict=False))
        # Two halves that together have few records came from one file, or are one: there are never many small files.
        assert len(stored) <= 2 * len({hour // LONGEST for hour in every}) + 2 * every.total() / (MOST / 4)


@pytest.mark.parametrize("span", [Span(0, 1), Span(394_464, 394_465), Span(394_240, 395_264), Span(-8, 0)])
def test_a_file_says_its_span(span: Span) -> None:
    assert _span_of_file(_file_of(span, 7)) == span
