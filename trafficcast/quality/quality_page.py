"""A quality report as one page for people: HTML that needs no script, no other file and no network."""

from __future__ import annotations

from typing import Any

import numpy as np
from jinja2 import Environment

from trafficcast.config.city import City
from trafficcast.ingest.quality_report import MISSING, PARTIAL
from trafficcast.quality.point_density import Places, png_uri, shade_levels
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
_MOST_GAPS = _MOST_SUSPECTS = _MOST_BAD_FILES = 50
_LARGEST_FILES = 10
_BOX_WIDTH = 600  # pixels, of which only the ratio to the height counts


def _page(city: City, report: dict[str, Any], raster: np.ndarray, places: Places) -> str:
    """The page of a report (see `pipelines.quality`).

    `raster` counts points on the pixels of the city's box and `places` everywhere, none where places are unknown.
    """
    period = report["period"]
    columns = _columns_of(period["calendar"])
    located = len(places.cells()[0]) > 0
    gaps = sorted(period["gaps"], key=lambda gap: -(gap[PARTIAL] + gap[MISSING]))[:_MOST_GAPS]
    return _TEMPLATE.render(
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
        wide=_picture_uri(_draw_area(city, places, period["suggested_box"])) if located else None,
        gaps=sorted(gaps, key=lambda gap: gap["start"]),
        files=_files_to_show(report["files"]),
        suspects=(period["suspects"] or [])[:_MOST_SUSPECTS],
        states=_COLOURS,
        width=_BOX_WIDTH,
        height=round(_BOX_WIDTH * (city.north - city.south) / ((city.east - city.west) * _narrowing(city))),
    )


def _files_to_show(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those with most drops, those with notes, and the largest."""
    dropped = {id(file): sum(file["rows_dropped"].values()) for file in files}
    bad = sorted((file for file in files if dropped[id(file)] or file["notes"]), key=lambda file: -dropped[id(file)])
    shown = bad[:_MOST_BAD_FILES]
    largest = sorted(files, key=lambda file: -file["rows_read"])[:_LARGEST_FILES]
    return shown + [file for file in largest if all(file is not other for other in shown)]


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _moment(text: str) -> str:
    """An ISO time for people, with its offset."""
    return f"{text[:10]} {text[11:16]} {text[19:] or 'UTC'}"


_ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.filters.update(number=_number, percent=_percent, moment=_moment)
_TEMPLATE = _ENVIRONMENT.from_string(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
body { font: 15px/1.45 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; color: #262E3A;
  background: #fff; max-width: 1200px; margin: 2rem auto; padding: 0 2rem; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; }
p { margin: 0.4rem 0; max-width: 60rem; }
.sub { color: #5A6575; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 0.8rem; margin: 1.4rem 0; }
.tiles div { border: 1px solid #DDE2E8; border-radius: 6px; padding: 0.7rem 0.9rem; }
.tiles b { display: block; font-size: 1.45rem; font-weight: 600; }
.tiles span { color: #5A6575; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 1.1rem 0.25rem 0; border-bottom: 1px solid #E8EBEF; vertical-align: top; }
th { color: #5A6575; font-weight: 600; }
td.n, th.n { text-align: right; }
img { display: block; max-width: 100%; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; align-items: start; }
.frame { border: 1px solid #B8BFC9; width: 100%; }
.key i { display: inline-block; width: 0.9em; height: 0.9em; margin: 0 0.35em 0 1em; vertical-align: -0.1em; }
td { overflow-wrap: break-word; }
td.short { white-space: nowrap; }
.name { min-width: 8rem; max-width: 24rem; }
pre { background: #F4F6F8; border-radius: 6px; padding: 0.8rem 1rem; margin: 0.6rem 0; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="sub">{{ period.first_slot | moment }} to {{ period.last_slot | moment }} (last slot),
slots of {{ report.slot_minutes }} minutes, times in {{ report.timezone }}.
{% if not period.everything %}A period of what the stores hold{% if report.ever %}; rows read and dropped are of all
that was ever ingested{% endif %}.{% endif %}
{% if report.records_kept_from %}Records before {{ report.records_kept_from | moment }} are no longer kept: suspicious
vehicles and pictures of places are of the records since.{% endif %}</p>

<div class="tiles">
{% if report.kind != "grids" %}
<div><b>{{ period.points_kept | number }}</b><span>{{ "points" if report.kind == "points" else "ends of trips" }} kept
</span></div>
<div><b>{{ period.share_outside | percent }}</b><span>of them outside the box</span></div>
{% endif %}
{% if report.kind == "points" %}
<div><b>{{ period.vehicles | number }}</b><span>vehicles, {{ period.suspects | length }} found suspicious</span></div>
{% endif %}
<div><b>{{ (period.slots.observed / (period.slots.observed + period.slots.partial + period.slots.missing)) | percent }}
</b><span>of the slots observed</span></div>
</div>

<h2>Calendar</h2>
<p class="key">A column a day, local time ({{ report.timezone }}) downward.
{% for name, colour in states.items() %}<i style="background:{{ colour }}"></i>{{ name }}
{{ period.slots[name] | number }}{% endfor %}</p>
<img src="{{ calendar }}" alt="Calendar of observed, partial and missing slots">
{% if clock_changes %}<p>The clocks change on {{ clock_changes | join(", ") }}: a skipped hour is white, one that comes
twice stands side by side.</p>{% endif %}
{% if days_left_out %}<p>{{ days_left_out | number }} days before are left out of the pictures; the JSON has them.
</p>{% endif %}
{% if breaks %}<p>Hatched: days in a row without any record, drawn as one:
{% for one in breaks %}{{ one.days | number }} from {{ one.day }}{{ "" if loop.last else ", " }}{% endfor %}.
</p>{% endif %}


<h2>Over time</h2>
<img src="{{ lines }}" alt="Records and vehicles per slot and the share outside the box over time">

<h2>Gaps</h2>
{% if gaps %}
<table><tr><th>from</th><th>to</th><th class="n">slots partial</th><th class="n">slots missing</th></tr>
{% for gap in gaps %}
<tr><td>{{ gap.start | moment }}</td><td>{{ gap.end | moment }}</td><td class="n">{{ gap.partial | number }}</td>
<td class="n">{{ gap.missing | number }}</td></tr>
{% endfor %}</table>
{% if period.gaps | length > gaps | length %}<p>The longest {{ gaps | length }} of {{ period.gaps | length | number }};
the JSON has all.</p>{% endif %}
{% else %}<p>None: every slot was observed.</p>{% endif %}

{% if wide %}
<h2>Where records lie</h2>
<div class="pair">
<div>{% if box %}
<img class="frame" style="aspect-ratio:{{ width }}/{{ height }}" src="{{ box }}" alt="Points in the box">
<p class="sub">Inside the box, darker where vehicles report more often (logarithmic). It is the map's base.</p>
{% else %}<p>No record lies in the box: check west, east, south and north.</p>{% endif %}</div>
<div><img src="{{ wide }}" alt="Points in and around the box">
<p class="sub">In and around the box, in cells of 100 m or more.</p></div>
</div>
{% endif %}
{% if period.suggested_box %}
<p>{{ period.share_outside | percent }} of the records lie outside the box, and count nowhere. This one would hold about
{{ period.suggested_box.share_held | percent }}. What is stored was counted on the old grid: give the city another name,
or set [paths] data elsewhere, and ingest the records again.</p>
<pre>{{ period.suggested_box.toml }}</pre>
{% endif %}

{% if report.kind == "points" %}
<h2>Suspicious vehicles</h2>
{% if suspects %}
<table><tr><th>vehicle</th><th>suspicion</th><th>evidence</th><th class="n">points</th><th>first</th><th>last</th></tr>
{% for one in suspects %}
<tr><td class="name">{{ one.vehicle }}</td><td class="short">{{ one.suspicion }}</td>
<td>{% if one.suspicion == "clock" %}{{ one.evidence.hours | abs }} h
{{ "ahead" if one.evidence.hours > 0 else "behind" }}: heard in {{ one.evidence.heard_in_silence }} bins of 5 minutes in
which the feed was silent, {{ one.evidence.heard_once_corrected }} once corrected; then
{{ one.evidence.ends_matched }} of {{ one.evidence.ends }} ends of silences match
{% elif one.suspicion == "teleporting" %}{{ one.evidence.jumps | number }} pairs
({{ one.evidence.share_of_pairs | percent }}) faster than {{ one.evidence.faster_than_kmh | round | int }} km/h
{% else %}{{ one.evidence.moves }} moves of more than {{ one.evidence.further_than_m | round | int }} m in
{{ one.evidence.hours | number }} hours with a report{% endif %}</td>
<td class="n">{{ one.points | number }}</td><td class="short">{{ one.first | moment }}</td>
<td class="short">{{ one.last | moment }}</td></tr>
{% endfor %}</table>
{% if period.suspects | length > suspects | length %}<p>The first {{ suspects | length }} of
{{ period.suspects | length | number }}; the JSON has all.</p>{% endif %}
{% else %}<p>None.</p>{% endif %}
<p class="sub">A vehicle has {{ period.points_per_vehicle.least | number }} to
{{ period.points_per_vehicle.most | number }} points, one in the middle {{ period.points_per_vehicle.median | number }}.
Looked for: vehicles that never move, that jump, and whose clock is off by whole hours.
{% if period.silence_ends %}Clocks are told by the {{ period.silence_ends }} times at which the whole feed fell silent
or was heard again: the clock of a vehicle that was off duty then cannot be judged.{% else %}The whole feed never fell
silent at once (or hardly any vehicle is in it), so that no clock can be judged.{% endif %}</p>
{% endif %}

{% if report.kind != "grids" %}
<h2>Counters</h2>
<div class="pair">
<table>
<tr><th>Records of {{ "everything" if period.everything else "the period" }}</th><th></th></tr>
{% if report.kind == "points" %}
<tr><td>pairs of consecutive points</td><td class="n">{{ period.pairs | number }}</td></tr>
<tr><td>pairs further apart than the longest gap</td><td class="n">{{ period.pairs_beyond_max_gap | number }}</td></tr>
<tr><td>transitions</td><td class="n">{{ period.transitions | number }}</td></tr>
<tr><td>transitions refused for the gap</td><td class="n">{{ period.transitions_refused.gap | number }}</td></tr>
<tr><td>transitions refused for the speed</td><td class="n">{{ period.transitions_refused.speed | number }}</td></tr>
{% endif %}
<tr><td>{{ "points" if report.kind == "points" else "ends of trips" }} kept</td>
<td class="n">{{ period.points_kept | number }}</td></tr>
<tr><td>of them outside the box</td><td class="n">{{ period.points_outside | number }}</td></tr>
<tr><td>inflow</td><td class="n">{{ period.inflow | number }}</td></tr>
<tr><td>outflow</td><td class="n">{{ period.outflow | number }}</td></tr>
</table>
<table>
<tr><th>Ever ingested</th><th></th></tr>
<tr><td>files</td><td class="n">{{ report.ever.files | number }}</td></tr>
<tr><td>rows read</td><td class="n">{{ report.ever.rows_read | number }}</td></tr>
{% for reason, n in report.ever.rows_dropped.items() %}
<tr><td>rows dropped: {{ reason | replace("_", " ") }}</td><td class="n">{{ n | number }}</td></tr>
{% endfor %}
</table>
</div>

<h2>Files</h2>
<p class="sub">{{ files | length | number }} of {{ report.files | length | number }}: those with dropped rows or notes,
and the largest. The JSON has all.</p>
<table>
<tr><th>file</th><th>format</th><th class="n">rows</th><th class="n">outside</th><th>dropped</th><th>notes</th></tr>
{% for file in files %}
<tr><td class="name">{{ file.name }}</td><td>{{ file.format }}</td><td class="n">{{ file.rows_read | number }}</td>
<td class="n">{{ file.points_outside | number }}</td>
<td>{% for reason, n in file.rows_dropped.items() if n %}{{ reason | replace("_", " ") }} {{ n | number }}
{{ "" if loop.last else ", " }}{% else %}none{% endfor %}</td>
<td class="name">{{ file.notes | join("; ") }}</td></tr>
{% endfor %}</table>
{% else %}
<p>These flows were imported as grids: of their records and vehicles nothing is known.</p>
{% endif %}
</body>
</html>
"""
)
