"""Suspicious vehicles: they never move, they jump, or their clock is ahead of this machine's or off by whole hours.

A clock is ahead that has given a time yet to come. Otherwise clocks are judged by the silences of the feed. Where all
vehicles fall silent within minutes, and report again within minutes, the feed has failed, and no vehicle can have
reported meanwhile: the clock of a vehicle that did is wrong. If the silences, shifted by some whole hours, are where
this vehicle was silent, and it falls silent and reports again at their ends, the clock is off by these hours. The times
before the first and after the last record are such silences too. A wrong clock cannot be found in a feed that never
failed, nor of a vehicle that was off duty whenever the feed failed, nor where so many clocks are wrong that no silence
is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from trafficcast.config.city import MINUTE_US, City
from trafficcast.geography.cells import haversine_m
from trafficcast.records.records import HOUR_US, SECOND_US, Points

# Never moving: at least so many points in so many hours, and at most this share of moves, or one stray point there and
# back, further than _STILL_M from where the vehicle stood.
_STILL_M, _STILL_POINTS, _STILL_HOURS, _STILL_SHARE, _STRAY_MOVES = 100.0, 60, 4, 0.01, 2
# Jumping: at least so many pairs, and such a share of all, that are too fast, and too far apart for noise. Of
# Cabspotting's 537 taxis the median is 0.2 %, 99 in 100 stay below 4 %, and three exceed 5 %: 9 %, 35 % and 55 %.
_JUMP_M, _JUMPS, _JUMP_SHARE = 200.0, 10, 0.05

_BIN_MINUTES = 5
_BIN_US = _BIN_MINUTES * 60 * SECOND_US
_BINS_AN_HOUR = 60 // _BIN_MINUTES
_JUDGED_HOURS = 24 * 28
_JUDGED_BINS = 2**26  # of all vehicles, a byte each
_MAX_HOURS_OFF = 14  # the zones of the earth lie that far from UTC
_FEWEST_VEHICLES = 20  # median per bin; the silence of fewer proves nothing
_SILENT_SHARE, _SHARP_SHARE = 0.1, 0.5  # of the median number of vehicles: in a silence, and right beside it
_SHORTEST_SILENCE = 2  # bins
_NEAR = 3  # bins beside a silence's end, in one of which a vehicle on duty reports
_FEWEST_CONTRADICTIONS = 3  # bins in which a vehicle reported while the feed was silent
_STILL_CONTRADICTED = 0.1  # the largest share of them that may remain with the clock corrected
_AHEAD_US = 60 * SECOND_US  # clocks that differ by less are right
_FEWEST_ENDS = 2  # of silences at which the vehicle falls silent or reports again, with the clock corrected


@dataclass(frozen=True)
class _Window:
    """Bins, numbered since 1970, in which clocks are judged, and whether there are records just before and after."""

    first: int
    bins: int
    more_before: bool
    more_after: bool


def _window_of(records: dict[int, int], stored: list[int], vehicles: int) -> _Window:
    """Return the four weeks with most records, or a shorter window of many vehicles.

    `records` are the numbers of records by hour since 1970, `stored` all hours with a record, in order.
    """
    if not records:
        return _Window(0, 0, True, True)
    length = max(1, min(_JUDGED_HOURS, _JUDGED_BINS // max(vehicles, 1) // _BINS_AN_HOUR))
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
    """Statistics of each vehicle (code), from hours of points that are added in the order of time.

    They are the number of `points`, of `hours` with a point, of `moves` by more than _STILL_M and of `jumps`, the
    `first` and `last` time, and whether the vehicle was `heard` in each bin of the window, (vehicle, bin).
    """

    def __init__(self, city: City, vehicles: int, window: _Window) -> None:
        self.max_kmh, self.window = city.max_speed_kmh, window
        self.points, self.hours = np.zeros(vehicles, np.int64), np.zeros(vehicles, np.int64)
        self.moves, self.jumps = np.zeros(vehicles, np.int64), np.zeros(vehicles, np.int64)
        self.first, self.last = np.zeros(vehicles, np.int64), np.zeros(vehicles, np.int64)
        self.heard = np.zeros((vehicles, window.bins), np.bool_)
        self._last_position, self._stood = np.zeros((vehicles, 2)), np.zeros((vehicles, 2))

    def add(self, points: Points) -> None:
        """Add an hour's points, sorted by (vehicle, time)."""
        _add(
            points.vehicle, points.time, points.lon, points.lat, self.max_kmh, self.window.first,
            self.points, self.hours, self.moves, self.jumps, self.first, self.last,
            self._last_position, self._stood, self.heard,
        )  # fmt: skip

    def suspicious(self, city: City, names: list[str], now_us: int) -> list[dict[str, Any]]:
        """Return the suspicious vehicles, each with its name, the suspicion, and the evidence in numbers.

        `now_us` is the time of this machine's clock, microseconds since 1970 UTC.
        """
        found: list[dict[str, Any]] = []
        for code in np.flatnonzero(self._never_moving()).tolist():
            found.append(
                self._entry(
                    city, names, code, "never moving",
                    {"moves": int(self.moves[code]), "further_than_m": _STILL_M, "hours": int(self.hours[code])},
                )
            )  # fmt: skip
        for code in np.flatnonzero(self._jumping()).tolist():
            share = round(float(self.jumps[code] / (self.points[code] - 1)), 4)
            found.append(
                self._entry(
                    city, names, code, "teleporting",
                    {"jumps": int(self.jumps[code]), "share_of_pairs": share, "faster_than_kmh": self.max_kmh},
                )
            )  # fmt: skip
        for code in np.flatnonzero(self.last > now_us + _AHEAD_US).tolist():
            minutes = round((int(self.last[code]) - now_us) / MINUTE_US)
            found.append(self._entry(city, names, code, "clock ahead", {"minutes": minutes}))
        for code, evidence in _clocks_off(self.heard, self.window).items():
            found.append(self._entry(city, names, code, "clock", evidence))
        return found

    def points_per_vehicle(self) -> dict[str, int]:
        """Return the least, the median and the most points of a vehicle that has any."""
        points = np.sort(self.points[self.points > 0])
        least, median, most = points[[0, len(points) // 2, -1]].tolist() if len(points) else (0, 0, 0)
        return {"least": least, "median": median, "most": most}

    def silence_ends(self) -> int:
        """Return the number of ends of silences that clocks are judged by."""
        return len(_silences(self.heard.sum(axis=0), self.window)[1])

    def _never_moving(self) -> np.ndarray:
        """Return whether each vehicle never moves."""
        enough = (self.points >= _STILL_POINTS) & (self.hours >= _STILL_HOURS)
        return enough & (self.moves <= np.maximum(_STRAY_MOVES, _STILL_SHARE * self.points))

    def _jumping(self) -> np.ndarray:
        """Return whether each vehicle jumps."""
        return (self.jumps >= _JUMPS) & (self.jumps > _JUMP_SHARE * (self.points - 1))

    def _entry(self, city: City, names: list[str], code: int, kind: str, evidence: Mapping[str, Any]) -> dict[str, Any]:
        """Return a suspicious vehicle's entry in the report."""
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
    """Find vehicles (codes) whose clock is off by whole hours, with the evidence, from `heard` (vehicle, bin).

    `hours` is how far the clock is ahead, negative where it is behind. `heard_in_silence` and `heard_once_corrected`
    count bins in which the vehicle reported although the feed was silent, as the clock is and with the clock corrected.
    `ends_matched` of `ends` of silences are those at which the vehicle, corrected, falls silent or reports again.
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
            # An end matches where the vehicle reported on the one side, by its clock, and not on the other.
            matched = 0
            for end, falls_silent in ends:
                at = margin + _NEAR + end + shift
                if _NEAR <= at <= len(row) - _NEAR:
                    before, after = row[at - _NEAR : at].any(), row[at : at + _NEAR].any()
                    matched += int(before and not after if falls_silent else after and not before)
            fits.append((hours, against, matched))
        uncorrected = fits[_MAX_HOURS_OFF][1]
        fits = [fit for fit in fits if fit[1] <= _STILL_CONTRADICTED * uncorrected]
        fits.sort(key=lambda fit: -fit[2])
        if not fits or fits[0][2] < _FEWEST_ENDS or (len(fits) > 1 and fits[1][2] == fits[0][2]):
            continue
        hours, against, matched = fits[0]
        found[code] = {
            "hours": hours,
            "heard_in_silence": uncorrected,
            "heard_once_corrected": against,
            "ends_matched": matched,
            "ends": len(ends),
        }
    return found


def _silences(vehicles: np.ndarray, window: _Window) -> tuple[np.ndarray, list[tuple[int, bool]]]:
    """Find the feed's silences, given the number of vehicles that reported in each bin: a mask, and the silences' ends.

    An end is the first bin of a silence, with True, or the first one after it, with False. Silences begin and end
    sharply, unlike nights. The first record ends a silence.
    """
    silent = np.zeros(len(vehicles), np.bool_)
    ends: list[tuple[int, bool]] = []
    median = np.median(vehicles[vehicles > 0]) if vehicles.any() else 0
    if median < _FEWEST_VEHICLES:
        return silent, ends
    quiet = np.concatenate([[not window.more_before], vehicles <= _SILENT_SHARE * median, [not window.more_after]])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8))) - 1
    for begin, end in edges.reshape(-1, 2).tolist():
        first, last = begin <= 0, end >= len(vehicles)
        sharp_begin = first or vehicles[max(begin - 2, 0) : begin].max() >= _SHARP_SHARE * median
        sharp_end = last or vehicles[end : end + 2].max() >= _SHARP_SHARE * median
        long_enough = first or last or end - begin >= _SHORTEST_SILENCE
        if sharp_begin and sharp_end and long_enough:
            silent[max(begin, 0) : end] = True
            ends += [] if first else [(begin, True)]
            ends += [] if last else [(end, False)]
    return silent, ends


@njit(cache=True, nogil=True)
def _add(  # type: ignore[no-untyped-def]
    vehicle, time, lon, lat, max_kmh, first_bin,
    points, hours, moves, jumps, first, last, position, stood, heard,
):  # fmt: skip
    """Add points to the statistics of `_VehicleChecks`."""
    for i in range(len(time)):
        v = vehicle[i]
        if points[v] == 0:
            first[v] = time[i]
            stood[v, 0], stood[v, 1] = lon[i], lat[i]
            hours[v] += 1
        else:
            hours[v] += time[i] // HOUR_US != last[v] // HOUR_US
            metres = haversine_m(position[v, 0], position[v, 1], lon[i], lat[i])
            jumps[v] += metres > _JUMP_M and metres / (time[i] - last[v]) * 3.6e6 > max_kmh
            if haversine_m(stood[v, 0], stood[v, 1], lon[i], lat[i]) > _STILL_M:
                moves[v] += 1
                stood[v, 0], stood[v, 1] = lon[i], lat[i]
        points[v] += 1
        last[v] = time[i]
        position[v, 0], position[v, 1] = lon[i], lat[i]
        column = time[i] // _BIN_US - first_bin
        if 0 <= column < heard.shape[1]:
            heard[v, column] = True
