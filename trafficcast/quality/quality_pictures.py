"""The pictures of a quality report: its calendar, its lines over time, and a map of its records."""

from __future__ import annotations

import base64
import io
from datetime import date
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from trafficcast.config.city import FLOW_KINDS, City
from trafficcast.ingestion.quality_report import LETTERS, MISSING, NOT_ASKED, OBSERVED, PARTIAL
from trafficcast.quality.point_density import Box, PointDensity, shade_levels

# Sky blue, vermilion and black of Okabe and Ito, "Color Universal Design" (2008): they can be distinguished with any
# colour vision, and in grey print as well.
_COLOURS = {OBSERVED: "#56B4E9", PARTIAL: "#D55E00", MISSING: "#000000"}
_LINE, _INK, _FAINT = "#0072B2", "#262E3A", "#B8BFC9"
_DPI = 150
_WIDTH = 12.0  # inches
_AREA_PIXELS = 500
# So many consecutive empty days are drawn one by one; more are a break. Only the last days are drawn.
_FEW_DAYS, _MOST_DAYS = 3, 730
_DAY_LABELS = 14
_SEPARATED_DAYS = 62


def _columns_of(calendar: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns of the calendar: days with the letters of their slots, and breaks of many empty days."""
    columns: list[dict[str, Any]] = []
    for entry in calendar:
        if entry["slots"] is None and entry["days"] <= _FEW_DAYS:
            first = np.datetime64(entry["day"])
            columns += [{"day": str(first + i), "days": 1, "slots": None} for i in range(entry["days"])]
        else:
            columns.append(entry)
    return columns[-_MOST_DAYS:]


def _draw_calendar(city: City, columns: list[dict[str, Any]]) -> Figure:
    """Draw days to the right and the local time of day downward, with a colour for each state."""
    names = [OBSERVED, PARTIAL, MISSING]
    code = {LETTERS[name]: i + 1 for i, name in enumerate(names)} | {NOT_ASKED: 0}
    # Two columns a day: the two passes of an hour that the clocks repeat are drawn side by side.
    cells = np.zeros((city.slots_per_day, 2 * len(columns)), np.uint8)
    for i, column in enumerate(columns):
        if column["slots"] is None:
            cells[:, 2 * i : 2 * i + 2] = code[LETTERS[MISSING]] if column["days"] == 1 else 0
            continue
        row = city.slot_of_day(_starts_of_day(city, column["day"]))
        states = np.array([code[letter] for letter in column["slots"]], np.uint8)
        distinct, first = np.unique(row, return_index=True)
        cells[distinct, 2 * i] = cells[distinct, 2 * i + 1] = states[first]
        again = np.setdiff1d(np.arange(len(row)), first)
        cells[row[again], 2 * i + 1] = states[again]
    figure, (axes,) = _figure(2.9, 1)
    colours = ListedColormap(["white", *(_COLOURS[name] for name in names)])
    axes.imshow(
        cells, colours, vmin=0, vmax=len(names), aspect="auto", interpolation="nearest",
        extent=(0, len(columns), 24, 0),
    )  # fmt: skip
    axes.set_yticks(range(0, 25, 6), [f"{hour:02d}:00" for hour in range(0, 25, 6)])
    axes.set_ylabel("local time")
    _mark_days(axes, columns)
    if len(columns) <= _SEPARATED_DAYS:
        axes.vlines(np.arange(1, len(columns)), 0, 24, color="white", linewidth=1)
    return figure


def _draw_lines(city: City, period: dict[str, Any], columns: list[dict[str, Any]]) -> Figure:
    """Draw records, vehicles and the share outside the box over time, on the calendar's days."""
    per_slot = period["per_slot"]
    start = np.array([text[:19] for text in per_slot["start"]], "datetime64[s]")  # local
    day = start.astype("datetime64[D]")
    position = {np.datetime64(column["day"]): i for i, column in enumerate(columns)}
    shown = np.isin(day, list(position))
    x = np.array([position[one] for one in day[shown]]) + (start[shown] - day[shown]) / np.timedelta64(1, "D")
    series = {
        name: np.array(per_slot[key], np.float64)[shown]
        for name, key in (("records per slot", "records"), ("vehicles per slot", "vehicles"))
    }
    if "outside" in per_slot:
        outside = np.array(per_slot["outside"], np.float64)[shown]
        series["% outside the box"] = 100 * outside / series["records per slot"]
    series = {name: values for name, values in series.items() if not np.isnan(values).all()}
    if not series:  # imported grids
        series = {f"{kind} per slot": np.array(per_slot[kind], np.float64)[shown] for kind in FLOW_KINDS}
    # A line breaks where slots are missing, and where the clocks are set back.
    broken = np.flatnonzero(np.abs(np.diff(x) - city.slot_minutes / 1440) > 0.5 * city.slot_minutes / 1440) + 1
    figure, all_axes = _figure(0.5 + 1.25 * len(series), len(series))
    for axes, (name, values) in zip(all_axes, series.items(), strict=True):
        axes.plot(np.insert(x, broken, np.nan), np.insert(values, broken, np.nan), color=_LINE, linewidth=0.9)
        axes.set_ylim(0, max(1.0, float(np.nanmax(values))) * 1.08)
        axes.set_xlim(0, len(columns))
        axes.set_ylabel(name.replace(" per slot", "\nper slot").replace(" the box", "\nthe box"))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid(axis="y", color="#E4E8ED", linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for axes in all_axes:
        _mark_days(axes, columns, labels=axes is all_axes[-1])
    return figure


def _draw_area(city: City, density: PointDensity, suggested: dict[str, Any] | None) -> Figure:
    """Draw the points in and around the box, with the box."""
    box: Box = (city.west, city.east, city.south, city.north)
    points_box = density.smallest_box() or box
    west, south = min(points_box[0], box[0]), min(points_box[2], box[2])
    east, north = max(points_box[1], box[1]), max(points_box[3], box[3])
    margin = 0.05 * max(east - west, north - south)
    area = max(-180.0, west - margin), min(180.0, east + margin), max(-90.0, south - margin), min(90.0, north + margin)
    counts, edges = density.picture(area, _AREA_PIXELS)
    figure = Figure(figsize=(_WIDTH / 2, _WIDTH / 2), layout="constrained")
    axes = figure.subplots()
    shades = ListedColormap([str(shade) for shade in np.linspace(1, 0.1, 16)])
    axes.imshow(shade_levels(counts), shades, extent=edges, interpolation="nearest", aspect=1 / _narrowing(city))
    _outline(axes, box, _COLOURS[PARTIAL], "solid", "the box")
    if suggested is not None:
        values = tuple(float(suggested[key]) for key in ("west", "east", "south", "north"))
        _outline(axes, values, _LINE, "dashed", "suggested")  # type: ignore[arg-type]
    axes.set_xlim(edges[:2])
    axes.set_ylim(edges[2:])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, labelcolor=_INK)
    axes.set_xlabel("longitude, degrees")
    axes.set_ylabel("latitude, degrees")
    axes.locator_params(nbins=6)
    axes.ticklabel_format(useOffset=False)
    _quiet(axes)
    return figure


def _outline(axes: Axes, box: Box, colour: str, style: str, label: str) -> None:
    """Draw a box's outline."""
    west, east, south, north = box
    axes.add_patch(
        Rectangle(
            (west, south), east - west, north - south,
            fill=False, edgecolor=colour, linestyle=style, linewidth=2, label=label,
        )
    )  # fmt: skip


def _figure(height: float, panels: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels below one another, `height` in inches."""
    figure = Figure(figsize=(_WIDTH, height))
    # The same margins in every picture, so that a day has the same position in all of them.
    figure.subplots_adjust(left=0.075, right=0.99, top=1 - 0.1 / height, bottom=0.35 / height, hspace=0.12)
    axes = list(figure.subplots(panels, squeeze=False, sharex=True)[:, 0])
    for one in axes:
        _quiet(one)
    return figure, axes


def _quiet(axes: Axes) -> None:
    """Draw the frame and the labels of a panel less prominently."""
    for spine in axes.spines.values():
        spine.set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=_INK, size=9)


def _mark_days(axes: Axes, columns: list[dict[str, Any]], labels: bool = True) -> None:
    """Write days below a panel, and shade its breaks grey."""
    days = [i for i, column in enumerate(columns) if column["days"] == 1]
    marked = days[:: max(1, -(-len(days) // _DAY_LABELS))]
    with_year = len({columns[i]["day"][:4] for i in days}) > 1
    texts = [columns[i]["day"] if with_year else _short(columns[i]["day"]) for i in marked]
    axes.set_xticks([i + 0.5 for i in marked], texts if labels else [])
    axes.tick_params(axis="x", length=0)
    for i, column in enumerate(columns):
        if column["days"] > 1:
            axes.axvspan(i, i + 1, facecolor="#EEF0F3", hatch="////", edgecolor=_FAINT, linewidth=0)


def _short(day: str) -> str:
    """Return an ISO day as people write it, without the year."""
    moment = date.fromisoformat(day)
    return f"{moment:%a} {moment.day} {moment:%b}"


def _starts_of_day(city: City, day: str) -> np.ndarray:
    """Return the starts of a local day's slots, naive UTC."""
    return (city.slots_of_day(np.datetime64(day)) * city.slot_us).astype("datetime64[us]")


def _narrowing(city: City) -> float:
    """Return the length of a degree of longitude, in degrees of latitude."""
    return max(0.05, float(np.cos(np.radians((city.north + city.south) / 2))))


def _picture_uri(figure: Figure) -> str:
    """Return a figure as a PNG in a data URI."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
