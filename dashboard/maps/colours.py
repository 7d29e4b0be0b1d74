"""Colour scales that colour-blind people can read, and their legends. Colours are #rrggbbaa."""

from __future__ import annotations

import numpy as np

from dashboard.reads.cached import cached
from dashboard.reads.stamps import stamp
from dashboard.reads.stores import closed
from trafficcast.errors import DamagedFile
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.day_store import DayStore

# The colour scale is computed from this number of days: two weeks are enough to know a city's flows.
_SCALE_DAYS = 14
# From this number of days on, the scale is computed again only for a new day, so that colours do not jump.
_SCALE_SETTLED = 7

# Viridis (van der Walt & Smith, 2015) from its light end to its dark one: on a light map, dark is much.
_VIRIDIS = ("#fde725", "#aadc32", "#5ec962", "#27ad81", "#21918c", "#2c728e", "#3b528b", "#472d7b", "#440154")
# Red to blue by Brewer (ColorBrewer RdBu), which colour-blind people can tell apart.
_BLUE_RED = ("#053061", "#2166ac", "#4393c3", "#92c5de", "#f7f7f7", "#f4a582", "#d6604d", "#b2182b", "#67001f")
# Streets must be visible through the fullest cell, and a cell with almost no flow must not cover them.
_OPAQUE = 0.66
_FULL_COLOUR_AT = 0.12
# The flow scale ends at this share of a city's cells and slots.
_PERCENTILE = 99.5
_STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_SMALLEST_LIMIT = 4.0
_LEGEND_STOPS = 33
# Marks of the flow legend, as shares of its limit.
_FLOW_MARKS = (0.0, 0.05, 0.2, 0.5)


def _flow_limit(flows: np.ndarray) -> float:
    """Return the end of the flow scale, vehicles per slot: the 99.5th percentile of (time, flow kind, row, col)."""
    return round_up(float(np.percentile(flows, _PERCENTILE)) if flows.size else 0.0)


def difference_limit(limit: float) -> float:
    """Return where the colour scale of differences ends on both sides: at a quarter of the flow scale.

    Parameters
    ----------
    limit
        End of the flows' colour scale, vehicles per slot.

    Returns
    -------
    float
        Vehicles per slot.
    """
    return round_up(limit / 4)


def round_up(value: float) -> float:
    """Round a scale's end up to a round number.

    Parameters
    ----------
    value
        The value, vehicles per slot.

    Returns
    -------
    float
        The next round number, at least 4, vehicles per slot.
    """
    value = max(value, _SMALLEST_LIMIT)
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step for step in _STEPS if step * power >= value * (1 - 1e-9)) * power)


def _flow_colours(values: np.ndarray, limit: float) -> list[str]:
    """Colours of flows, any shape, flattened; even in their square root, as most cells hold little."""
    share = np.sqrt(np.clip(np.ravel(values) / limit, 0, 1))
    return _hex(_blend(_VIRIDIS, share), _OPAQUE * np.clip(share / _FULL_COLOUR_AT, 0, 1))


def _difference_colours(values: np.ndarray, limit: float) -> list[str]:
    """Colours of differences, any shape, flattened: blue below 0, clear at 0, red above."""
    share = np.clip(np.ravel(values) / limit, -1, 1)
    return _hex(_blend(_BLUE_RED, (share + 1) / 2), _OPAQUE * np.clip(np.abs(share) / _FULL_COLOUR_AT, 0, 1))


def _flow_legend(limit: float) -> str:
    """HTML of the flow scale: numbers and colours only."""
    shares = np.linspace(0, 1, _LEGEND_STOPS)
    marks = [(float(np.sqrt(mark)), f"{mark * limit:g}") for mark in _FLOW_MARKS]
    return _legend(_flow_colours(shares**2 * limit, limit), [*marks, (1.0, f"&ge; {limit:g}")])


def _difference_legend(limit: float) -> str:
    """HTML of the difference's scale: numbers and colours only."""
    shares = np.linspace(-1, 1, _LEGEND_STOPS)
    ends = [(0.0, f"&le; -{limit:g}"), (1.0, f"&ge; +{limit:g}")]
    marks = [(0.25, f"-{limit / 2:g}"), (0.5, "0"), (0.75, f"+{limit / 2:g}")]
    return _legend(_difference_colours(shares * limit, limit), [*ends, *marks])


def _legend(colours: list[str], marks: list[tuple[float, str]]) -> str:
    """A bar of colours, and the marks below it at shares of its width; the outermost stay within it."""
    ends = {0.0: "left:0", 1.0: "right:0"}
    labels = "".join(
        f'<span style="position:absolute;{ends.get(at, f"left:{at:.1%};transform:translateX(-50%)")}">{text}</span>'
        for at, text in marks
    )
    bar = f"height:10px;border:1px solid #8888;background:linear-gradient(to right,{','.join(colours)}),#fbfbfb"
    return (
        f'<div style="{bar}"></div>'
        f'<div style="position:relative;height:17px;font-size:12px;opacity:0.75">{labels}</div>'
        '<div style="text-align:center;font-size:12px;opacity:0.75">vehicles per slot</div>'
    )


def _blend(anchors: tuple[str, ...], share: np.ndarray) -> np.ndarray:
    """(n, 3) red, green and blue, 0 to 255, at shares (n) of the way along the anchors."""
    rgb = np.array([[int(anchor[i : i + 2], 16) for i in (1, 3, 5)] for anchor in anchors])
    at = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(share, at, channel) for channel in rgb.T], axis=1)


def _hex(rgb: np.ndarray, opacity: np.ndarray) -> list[str]:
    rgba = np.column_stack([rgb, opacity * 255]).round().astype(int)
    return [f"#{r:02x}{g:02x}{b:02x}{a:02x}" for r, g, b, a in rgba.tolist()]


def _scale_stamp(stores: CityStores) -> object:
    days = stores.flows.days()
    return [str(day) for day in days] if len(days) >= _SCALE_SETTLED else stamp(stores.flows)


@cached(stamp=_scale_stamp, entries=16, spinner="Reading flows")
def colour_limit(stores: CityStores) -> float:
    """Return where the colour scale of a city's flows ends; it is the same for every slot of a day.

    Parameters
    ----------
    stores
        The city and its stores.

    Returns
    -------
    float
        Vehicles per slot.
    """
    return _flow_limit(_sample_flows(stores.flows, _SCALE_DAYS))


def _sample_flows(store: DayStore, days: int) -> np.ndarray:
    """Read the observed flows of at most so many days, spread over the store: (time, flow kind, row, col)."""
    known = store.days()
    damaged: list[DamagedFile] = []  # which the maps of their days name
    wanted = [known[i] for i in _sample_positions(len(known), days)]
    parts = [store.read_day(day, ["flow", "observed"], damaged) for day in wanted]
    values = [part["flow"].values[closed(store.city, part)["observed"].values] for part in parts if part is not None]
    return np.concatenate(values) if values else np.zeros((0, 2, store.city.rows, store.city.cols), np.int32)


def _sample_positions(known: int, days: int) -> list[int]:
    """Choose at most so many of the known days, spread over them and over the days of the week."""
    weeks = np.linspace(0, max(known - 1, 0), days).astype(int) // 7
    positions: list[int] = np.unique(weeks * 7 + np.arange(days) % 7).tolist()
    return [position for position in positions if position < known]
