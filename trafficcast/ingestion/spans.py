"""The spans of hours whose records share a file: files grow with the records, not with the hours.

Spans are 1, 2, 4, ... hours long and begin at multiples of their length since 1970, so two of them are nested or have
no hour in common. A span that gets too many records is halved, down to one hour.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_MOST_HOURS, _MOST_RECORDS = 1024, 32_768  # of a file; an hour may have more records
_HOURS_A_DAY = 24


class Span(NamedTuple):
    """Hours that follow one another.

    Attributes
    ----------
    first
        The first hour, since 1970 UTC.
    end
        The hour after the last one.
    """

    first: int
    end: int

    def _halves(self) -> tuple[Span, Span]:
        """Return the two halves."""
        middle = (self.first + self.end) // 2
        return Span(self.first, middle), Span(middle, self.end)

    def _parts_from(self, hour: int) -> list[Span]:
        """Return the longest parts that make up the hours from this one on."""
        if hour <= self.first:
            return [self]
        return [] if hour >= self.end else [part for half in self._halves() for part in half._parts_from(hour)]


@dataclass(frozen=True)
class _Merge:
    """What is merged into one file: a span of hours, and the span of the stored file that has its old records.

    The two differ where the stored file is split. Without a stored file, `stored` is None.
    """

    span: Span
    stored: Span | None


def _plan_merges(
    stored: Mapping[Span, int],
    new: Mapping[int, int],
    changed: Iterable[Span],
    hours_of: Callable[[Span], Mapping[int, int]],
    earliest: int,
) -> list[_Merge]:
    """Return what has to be merged, in the order of time.

    `stored` has the number of records of each stored file, `new` that of the new ones of each hour; the files of
    `changed` are merged even where they get no new record. `hours_of` returns the records of each hour of a file. No
    new file begins before the hour `earliest`, from which on records are kept.
    """
    spans = sorted(stored)
    added: dict[Span, dict[int, int]] = {span: {} for span in changed}
    for hour, n in sorted(new.items()):
        added.setdefault(_span_of(hour, spans, earliest), {})[hour] = n
    merges: list[_Merge] = []
    for span, hours in sorted(added.items()):
        old = stored.get(span)
        whole = sum(hours.values()) + (old or 0) <= _MOST_RECORDS or span.end - span.first == 1
        if whole:
            merges.append(_Merge(span, None if old is None else span))
        else:
            counts = dict(hours)
            for hour, n in (hours_of(span) if old else {}).items():
                counts[hour] = counts.get(hour, 0) + n
            merges += [_Merge(part, None if old is None else span) for part in _split(span, counts)]
    return merges


def _span_of(hour: int, stored: list[Span], earliest: int) -> Span:
    """Return the stored span of an hour, or else the longest one with the hour that is free and not too early."""
    at = bisect_left(stored, (hour + 1, hour + 1)) - 1
    if at >= 0 and hour < stored[at].end:
        return stored[at]
    length = _MOST_HOURS
    while True:
        first = hour // length * length
        following = stored[at + 1].first if at + 1 < len(stored) else first + length
        if first >= earliest and (at < 0 or stored[at].end <= first) and first + length <= following:
            return Span(first, first + length)
        length //= 2


def _split(span: Span, records: Mapping[int, int]) -> list[Span]:
    """Return the parts of a span that have records, none of them with too many records."""
    inside = {hour: n for hour, n in records.items() if span.first <= hour < span.end}
    if not inside:
        return []
    if sum(inside.values()) <= _MOST_RECORDS or span.end - span.first == 1:
        return [span]
    return [part for half in span._halves() for part in _split(half, inside)]


def _runs(merges: list[_Merge], stored: Iterable[Span]) -> list[list[_Merge]]:
    """Split merges into runs within a day without another stored span between them; parts of a file stay together."""
    others = sorted(set(stored) - {merge.stored for merge in merges})
    runs: list[list[_Merge]] = []
    for merge in merges:
        last = runs[-1][-1] if runs else None
        together = last is not None and (
            (merge.stored is not None and last.stored == merge.stored)
            or (
                merge.span.first // _HOURS_A_DAY == last.span.first // _HOURS_A_DAY
                and bisect_left(others, merge.span) == bisect_left(others, last.span)
            )
        )
        if together:
            runs[-1].append(merge)
        else:
            runs.append([merge])
    return runs
