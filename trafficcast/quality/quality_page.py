"""A quality report as one page for people: HTML that needs no script, no other file and no network."""

from __future__ import annotations

from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from trafficcast.config.city import City
from trafficcast.ingestion.quality_report import MISSING, PARTIAL
from trafficcast.quality.point_density import PointDensity, png_uri, shade_levels
from trafficcast.quality.quality_pictures import (
    _COLOURS,
    _columns_of,
    _draw_area,
    _draw_calendar,
    _draw_lines,
    _narrowing,
    _picture_uri,
)

_MOST_BREAKS = 8
_MOST_GAPS = _MOST_SUSPICIOUS = _MOST_BAD_FILES = 50
_LARGEST_FILES = 10
_BOX_WIDTH = 600  # pixels; only the ratio to the height matters


def _page(city: City, report: dict[str, Any], raster: np.ndarray, density: PointDensity) -> str:
    """Return the page of a report (see `quality`), with pictures of the points in the box and on the globe."""
    period = report["period"]
    columns = _columns_of(period["calendar"])
    gaps = sorted(period["gaps"], key=lambda gap: -(gap[PARTIAL] + gap[MISSING]))[:_MOST_GAPS]
    loader = PackageLoader("trafficcast.quality", "")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=_number, percent=_percent, moment=_moment)
    return environment.get_template("quality_page.html.jinja").render(
        report=report,
        period=period,
        title=f"Quality of the records of {city.name}",
        lines=_picture_uri(_draw_lines(city, period, columns)),
        calendar=_picture_uri(_draw_calendar(city, columns)),
        days_left_out=sum(entry["days"] for entry in period["calendar"]) - sum(column["days"] for column in columns),
        breaks=sorted((column for column in columns if column["days"] > 1), key=lambda one: -one["days"])[
            :_MOST_BREAKS
        ],
        clock_changes=[
            entry["day"] for entry in period["calendar"] if entry["slots"] and len(entry["slots"]) != city.slots_per_day
        ],
        box=png_uri(shade_levels(raster)) if raster.any() else None,
        wide=_picture_uri(_draw_area(city, density, period["suggested_box"])) if len(density.cells()[0]) else None,
        gaps=sorted(gaps, key=lambda gap: gap["start"]),
        files=_files_to_show(report["files"]),
        suspicious=(period["suspects"] or [])[:_MOST_SUSPICIOUS],
        states=_COLOURS,
        min_coverage=city.min_coverage,
        width=_BOX_WIDTH,
        height=round(_BOX_WIDTH * (city.north - city.south) / ((city.east - city.west) * _narrowing(city))),
    )


def _files_to_show(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the files with most dropped rows, those with notes, and the largest."""
    dropped = {id(file): sum(file["rows_dropped"].values()) for file in files}
    bad = sorted((file for file in files if dropped[id(file)] or file["notes"]), key=lambda file: -dropped[id(file)])
    shown = bad[:_MOST_BAD_FILES]
    largest = sorted(files, key=lambda file: -file["rows_read"])[:_LARGEST_FILES]
    return shown + [file for file in largest if all(file is not other for other in shown)]


def _number(value: Any) -> str:
    """Return a number with thousands separated."""
    return "unknown" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    """Return a share as per cent."""
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _moment(text: str) -> str:
    """Return an ISO time as people write it, with its offset."""
    return f"{text[:10]} {text[11:16]} {text[19:] or 'UTC'}"
