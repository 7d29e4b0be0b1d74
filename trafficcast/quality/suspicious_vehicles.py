"""Vehicles whose points cannot be what they say: they never move, they jump, or their clock is off by whole hours.

The clock is judged by the feed's silences. Where the whole fleet falls silent within minutes, and comes back so, the
fault lies with the feed, and no vehicle can have been heard: one that says it was has another time. When the silences,
moved by some whole hours, are where this vehicle was silent, and its points resume and cease at their ends, that is
how far its clock is off. The begin and the end of all records are such silences too. So what cannot be found out is
a wrong clock in a feed that never failed, of a vehicle that was off duty when it did, or of so many vehicles at
once that there is no silence left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from trafficcast.config.city import City
from trafficcast.geography.cells import haversine_m
from trafficcast.records.records import HOUR_US, SECOND_US, Points

# Never moving: so many points in so many hours, and at most this share of them, or one stray there and back, further
# away than STILL_M from where the vehicle stood.
_STILL_M, _STILL_POINTS, _STILL_HOURS, _STILL_SHARE, _STRAY_MOVES = 100.0, 60, 4, 0.01, 2
# Jumping: so many pairs, and such a share of all, too fast and too far apart for noise. Of the 537 taxis of Cabspotting
# 0.2 % is usual, 99 in 100 stay below 4 %, and three exceed 5 %: 9 %, 35 % and 55 %.
_JUMP_M, _JUMPS, _JUMP_SHARE = 200.0, 10, 0.05

_BIN_MINUTES = 5
_BIN_US = _BIN_MINUTES * 60 * SECOND_US
_BINS_AN_HOUR = 60 // _BIN_MINUTES
_WATCHED_HOURS = 24 * 28
_WATCHED_CELLS = 2**26  # (vehicle, bin), a byte each
_MAX_HOURS_OFF = 14  # the zones of the earth lie that far from UTC
_FEWEST_VEHICLES = 20  # of a fleet whose silence says anything, usually heard in a bin
_SILENT_SHARE, _SHARP_SHARE = 0.1, 0.5  # of the usual number of vehicles: in a silence, and right beside it
_SHORTEST_SILENCE = 2  # bins
_NEAR = 3  # bins to a silence's end, in which a vehicle on duty is heard
_FEWEST_CONTRADICTIONS = 3  # bins in which a vehicle was heard while the feed was silent
_STILL_CONTRADICTED = 0.1  # of them, at most, with the clock set right
_FEWEST_ENDS = 2  # of silences at which the vehicle falls silent or is heard again, with the clock set right


@dataclass(frozen=True)
class _Window:
    """Bins, numbered since 1970, in which the clocks are judged; whether there are records just before and after."""

    first: int
    bins: int
    more_before: bool
    more_after: bool


def _window_of(records: dict[int, int], stored: list[int], vehicles: int) -> _Window:
    """The four weeks, fewer of a large fleet, with most records.

    Args:
        records: how many there are of each hour since 1970 that is looked at.
        stored: all hours that have any, in order.
        vehicles: the size of the fleet.
    """
    if not records:
        return _Window(0, 0, True, True)
    length = max(1, min(_WATCHED_HOURS, _WATCHED_CELLS // max(vehicles, 1) // _BINS_AN_HOUR))
    hours = np.array(sorted(records), np.int64)
    until = np.cumsum([0, *(records[hour] for hour in hours.tolist())])
    begin = np.searchsorted(hours, hours - length, side="right")
    best = int(np.argmax(until[1:] - until[begin]))
    first, last = int(hours[begin[best]]), int(hours[best])
    bins = (last + 1 - first) * _BINS_AN_HOUR
    near = _MAX_HOURS_OFF + 1
    before = any(first - near <= hour < first for hour in stored)
    after = any(last < hour <= last + near for hour in stored)
    return _Window(first * _BINS_AN_HOUR, bins, before, after)


class _VehicleChecks:
    """What is known of each vehicle (code) after some hours, seen in the order of time.

    `points`, `hours` with one, `moves` of more than STILL_M, `jumps`; `heard` (vehicle, bin of the window).
    """

    def __init__(self, city: City, vehicles: int, window: _Window) -> None:
        self.max_kmh, self.window = city.max_speed_kmh, window
        self.points, self.hours = np.zeros(vehicles, np.int64), np.zeros(vehicles, np.int64)
        self.moves, self.jumps = np.zeros(vehicles, np.int64), np.zeros(vehicles, np.int64)
        self.first, self.last = np.zeros(vehicles, np.int64), np.zeros(vehicles, np.int64)
        self.heard = np.zeros((vehicles, window.bins), np.bool_)
        self._place, self._stood = np.zeros((vehicles, 2)), np.zeros((vehicles, 2))

    def see(self, points: Points) -> None:
        """An hour's points, sorted by (vehicle, time)."""
        _see(
            points.vehicle, points.time, points.lon, points.lat, self.max_kmh, self.window.first,
            self.points, self.hours, self.moves, self.jumps, self.first, self.last,
            self._place, self._stood, self.heard,
        )  # fmt: skip

    def suspects(self, city: City, names: list[str]) -> list[dict[str, Any]]:
        """The suspicious vehicles, each with its name, what is suspicious of it and the evidence in numbers."""
        found: list[dict[str, Any]] = []
        for code in np.flatnonzero(self._never_moving()).tolist():
            found.append(
                self._suspect(
                    city, names, code, "never moving",
                    {"moves": int(self.moves[code]), "further_than_m": _STILL_M, "hours": int(self.hours[code])},
                )
            )  # fmt: skip
        for code in np.flatnonzero(self._jumping()).tolist():
            share = round(float(self.jumps[code] / (self.points[code] - 1)), 4)
            found.append(
                self._suspect(
                    city, names, code, "teleporting",
                    {"jumps": int(self.jumps[code]), "share_of_pairs": share, "faster_than_kmh": self.max_kmh},
                )
            )  # fmt: skip
        for code, evidence in _clocks_off(self.heard, self.window).items():
            found.append(self._suspect(city, names, code, "clock", evidence))
        return found

    def points_per_vehicle(self) -> dict[str, int]:
        """The least, the median and the most points of a vehicle that has any."""
        points = np.sort(self.points[self.points > 0])
        least, median, most = points[[0, len(points) // 2, -1]].tolist() if len(points) else (0, 0, 0)
        return {"least": least, "median": median, "most": most}

    def silence_ends(self) -> int:
        """How many ends of silences there are to judge clocks by."""
        return len(_silences(self.heard.sum(axis=0), self.window)[1])

    def _never_moving(self) -> np.ndarray:
        enough = (self.points >= _STILL_POINTS) & (self.hours >= _STILL_HOURS)
        return enough & (self.moves <= np.maximum(_STRAY_MOVES, _STILL_SHARE * self.points))

    def _jumping(self) -> np.ndarray:
        return (self.jumps >= _JUMPS) & (self.jumps > _JUMP_SHARE * (self.points - 1))

    def _suspect(
        self, city: City, names: list[str], code: int, kind: str, evidence: Mapping[str, Any]
    ) -> dict[str, Any]:
        first, last = (np.datetime64(int(time[code]), "us") for time in (self.first, self.last))
        return {
            "vehicle": names[code],
            "suspicion": kind,
            "points": int(self.points[code]),
            "first": city.isoformat(first),
            "last": city.isoformat(last),
            "evidence": dict(evidence),
        }


def _clocks_off(heard: np.ndarray, window: _Window) -> dict[int, dict[str, int]]:
    """Vehicles (codes) whose clock is off by whole hours, with the evidence. `heard` is (vehicle, bin of the window).

    `hours` is how far the clock is ahead, negative where it is behind; `heard_in_silence` and `heard_once_corrected`
    are bins of BIN_MINUTES in which the vehicle was heard and the feed silent, as the clock is and with it set right;
    `ends_matched` of `ends` of silences are those at which the vehicle, set right, falls silent or is heard again.
    """
    margin = _MAX_HOURS_OFF * _BINS_AN_HOUR
    silent, ends = _silences(heard.sum(axis=0), window)
    # Beyond the window the feed is silent where there is no record.
    silent = np.pad(silent, margin)
    silent[:margin], silent[len(silent) - margin :] = not window.more_before, not window.more_after
    contradictions = heard[:, silent[margin : len(silent) - margin]].sum(axis=1)
    found = {}
    for code in np.flatnonzero(contradictions >= _FEWEST_CONTRADICTIONS).tolist():
        bins = np.flatnonzero(heard[code])
        row = np.pad(heard[code], margin + _NEAR)
        fits = []
        for hours in range(-_MAX_HOURS_OFF, _MAX_HOURS_OFF + 1):
            shift = hours * _BINS_AN_HOUR
            against = int(np.count_nonzero(silent[margin + bins - shift]))
            # Where silences begin and end on this vehicle's clock: heard on the one side, not on the other.
            matched = 0
            for end, falls_silent in ends:
                at = margin + _NEAR + end + shift
                if _NEAR <= at <= len(row) - _NEAR:
                    before, after = row[at - _NEAR : at].any(), row[at : at + _NEAR].any()
                    matched += int(before and not after if falls_silent else after and not before)
            fits.append((hours, against, matched))
        as_it_is = fits[_MAX_HOURS_OFF][1]
        fits = [fit for fit in fits if fit[1] <= _STILL_CONTRADICTED * as_it_is]
        fits.sort(key=lambda fit: -fit[2])
        if not fits or fits[0][2] < _FEWEST_ENDS or (len(fits) > 1 and fits[1][2] == fits[0][2]):
            continue
        hours, against, matched = fits[0]
        found[code] = {
            "hours": hours,
            "heard_in_silence": as_it_is,
            "heard_once_corrected": against,
            "ends_matched": matched,
            "ends": len(ends),
        }
    return found


def _silences(vehicles: np.ndarray, window: _Window) -> tuple[np.ndarray, list[tuple[int, bool]]]:
    """Where the feed was silent, given the vehicles heard in each bin: a mask, and the silences' ends.

    An end is the first bin of a silence, or, with False, the first one after. Silences begin and end sharply, unlike
    nights; the begin of all records is the end of one.
    """
    silent = np.zeros(len(vehicles), np.bool_)
    ends: list[tuple[int, bool]] = []
    usual = np.median(vehicles[vehicles > 0]) if vehicles.any() else 0
    if usual < _FEWEST_VEHICLES:
        return silent, ends
    quiet = np.concatenate([[not window.more_before], vehicles <= _SILENT_SHARE * usual, [not window.more_after]])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8))) - 1
    for begin, end in edges.reshape(-1, 2).tolist():
        first, last = begin <= 0, end >= len(vehicles)
        sharp_begin = first or vehicles[max(begin - 2, 0) : begin].max() >= _SHARP_SHARE * usual
        sharp_end = last or vehicles[end : end + 2].max() >= _SHARP_SHARE * usual
        long_enough = first or last or end - begin >= _SHORTEST_SILENCE
        if sharp_begin and sharp_end and long_enough:
            silent[max(begin, 0) : end] = True
            ends += [] if first else [(begin, True)]
            ends += [] if last else [(end, False)]
    return silent, ends


@njit(cache=True, nogil=True)
def _see(  # type: ignore[no-untyped-def]
    vehicle, time, lon, lat, max_kmh, first_bin,
    points, hours, moves, jumps, first, last, place, stood, heard,
):  # fmt: skip
    for i in range(len(time)):
        v = vehicle[i]
        if points[v] == 0:
            first[v] = time[i]
            stood[v, 0], stood[v, 1] = lon[i], lat[i]
            hours[v] += 1
        else:
            hours[v] += time[i] // HOUR_US != last[v] // HOUR_US
            metres = haversine_m(place[v, 0], place[v, 1], lon[i], lat[i])
            jumps[v] += metres > _JUMP_M and metres / (time[i] - last[v]) * 3.6e6 > max_kmh
            if haversine_m(stood[v, 0], stood[v, 1], lon[i], lat[i]) > _STILL_M:
                moves[v] += 1
                stood[v, 0], stood[v, 1] = lon[i], lat[i]
        points[v] += 1
        last[v] = time[i]
        place[v, 0], place[v, 1] = lon[i], lat[i]
        column = time[i] // _BIN_US - first_bin
        if 0 <= column < heard.shape[1]:
            heard[v, column] = True
