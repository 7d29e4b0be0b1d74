"""The page Data: the calendar of slots, vehicles and records over time, quality, positions, and the quarantine."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.data.calendar import (
    _BY_COVERAGE,
    _BY_STATE,
    _SLOT,
    _WEEKS,
    _calendar_chart,
    _line_chart,
    _month_label,
    _months,
    _period_days,
)
from dashboard.data.quality import (
    _MOST_GAPS,
    _counter_table,
    _drop_table,
    _gap_table,
    _Quality,
    _read_quality,
    _suspect_table,
)
from dashboard.data.quarantine import _quarantine_table
from dashboard.data.reads import _records_by_slot, _slots_between
from dashboard.data.slots import _RUNNING, _slot_table, _table_of_days
from dashboard.data.street_image import _street_image
from dashboard.page import clock
from dashboard.page.address import change
from dashboard.page.banner import age
from dashboard.page.labels import moment_label, plain, so_far
from dashboard.page.navigation import LOOK_BACK, open_page
from dashboard.page.nothing_yet import next_step
from dashboard.page.refresh import rerun_when_changed
from dashboard.page.unreadable import readable
from dashboard.page.view import View
from dashboard.reads.pictures import record_picture
from dashboard.reads.stamps import DAY, records_stamp, stamp
from dashboard.reads.stores import known_days, running_slot
from trafficcast.config.settings import Config
from trafficcast.errors import InputError, JobError
from trafficcast.ingestion.quality_report import MISSING, OBSERVED, PARTIAL
from trafficcast.quality.point_density import MUCH_OUTSIDE
from trafficcast.stores.city_stores import CityStores

_CALENDAR_HEIGHT, _CHART_HEIGHT, _TABLE_HEIGHT, _ROW_HEIGHT = 290, 140, 470, 31
_PICTURE_WIDTH = 520
_REPORT_WIDTHS = 290, 255, 385  # of its tables, beside each other on 1024 pixels
_CALENDAR, _QUALITY, _RECORDS, _QUARANTINE = "Calendar", "Quality report", "Where records lie", "Quarantine"
_RECENT = f"Last {_WEEKS} weeks"
_SECTIONS = (_CALENDAR, _QUALITY, _RECORDS, _QUARANTINE)


def draw(config: Config, view: View) -> None:
    """Draw the page Data.

    Parameters
    ----------
    config
        The configuration.
    view
        The view, as the address gives it.
    """
    stores = CityStores.of(config, view.city)
    rerun_when_changed(view.city, lambda: (stamp(stores.flows), records_stamp(stores)))
    section = st.segmented_control(
        "Section",
        _SECTIONS,
        default=_CALENDAR,
        key="data section",
        required=True,
        label_visibility="collapsed",
    )
    if section == _QUALITY:
        _quality(stores)
    elif section == _RECORDS:
        _records_map(stores)
    elif section == _QUARANTINE:
        _quarantine(view)
    elif days := list(known_days(view.city, [stores.flows])):
        _calendar(stores, view, days)
    else:
        st.info(plain(next_step(stores)))


def _calendar(stores: CityStores, view: View, days: list[np.datetime64]) -> None:
    """Draw the choice of a period, its calendar and charts, and the table of its days."""
    left, middle, right = st.columns([1.4, 1.4, 4], vertical_alignment="bottom")
    known = _months(days)
    month = _month(view, known)
    st.session_state["data period"] = month or _RECENT
    left.selectbox(
        "Period",
        [_RECENT, *known],
        key="data period",
        format_func=lambda one: one if isinstance(one, str) else _month_label(one),
        on_change=partial(_choose_period, view, days),
    )
    by = middle.segmented_control("Colour", (_BY_STATE, _BY_COVERAGE), default=_BY_STATE, key="by", required=True)
    first, last = _period_days(days, month)
    start, end = view.city.midnight(first), view.city.midnight(last + DAY)
    slots = readable(_slots_between(stores, start, end))
    # Nothing is shown before the first and after the last stored slot.
    if slots is not None and first == days[0]:
        start = slots["time"].values[0]
    if slots is not None and last == days[-1]:
        end = min(slots["time"].values[-1], running_slot(view.city)) + view.city.slot
    records, why_not = _records(stores)
    table = _slot_table(view.city, slots, start, end, records)
    right.caption(plain(_summary(view, table, last == days[-1])))
    if len(table):
        _charts(view, table, str(by), f"{first} {last}", why_not)
        _days(table)


def _month(view: View, known: list[np.datetime64]) -> np.datetime64 | None:
    """Return the month of the view's time; None, the last weeks, where it has none or one without data."""
    if view.time is None:
        return None
    month = view.city.local_days(np.array([view.time]))[0].astype("datetime64[M]")
    return month if month in known else None


def _choose_period(view: View, days: list[np.datetime64]) -> None:
    month = st.session_state["data period"]
    if month == _RECENT:
        change(view, time=None)
        return
    first = view.city.slots_of_day(_period_days(days, month)[0])[0] * view.city.slot_us
    change(view, time=np.datetime64(int(first), "us"))


def _records(stores: CityStores) -> tuple[pd.Series | None, str]:
    """Read the number of records by slot, or say why there are none."""
    try:
        found = _records_by_slot(stores)
    except (InputError, JobError) as error:
        return None, str(error)
    return found, "" if found is not None else "These flows have no records: they were imported as grids."


def _summary(view: View, table: pd.DataFrame, newest: bool) -> str:
    """Count the slots by state and, where the period contains the newest slot, say when the data end."""
    if not len(table):
        return "There are no slots in this period."
    over = table[table["state"] != _RUNNING]
    counts = over["state"].value_counts()
    end = over["time"].to_numpy()[-1:] + view.city.slot
    states = ", ".join(f"{counts.get(state, 0):,} {state}" for state in (OBSERVED, PARTIAL, MISSING))
    said = [f"{len(over):,} slots: {states}."]
    if newest and len(end):
        said.append(f"The last one ended {moment_label(view.city, end[0])}, {age(clock.present() - end[0])} ago.")
    for _, row in table[table["state"] == _RUNNING].iterrows():
        said.append(f"The slot from {row['label']} still runs: {so_far(view.city, row['coverage'])}.")
    return " ".join([*said, f"Times are {view.city.timezone}."])


def _charts(view: View, table: pd.DataFrame, by: str, period: str, why_no_records: str) -> None:
    zone = view.city.timezone
    chosen = st.altair_chart(
        _calendar_chart(table, by, zone, _CALENDAR_HEIGHT),
        width="stretch",
        on_select="rerun",
        selection_mode=_SLOT,
        key=f"calendar {view.city.name} {period}",
    )
    _chosen_slot(view, table, chosen["selection"].get(_SLOT) or [])
    left, right = st.columns(2)
    left.markdown("**Vehicles per slot**")
    if table["vehicles"].notna().any():
        left.altair_chart(_line_chart(table, "vehicles", _CHART_HEIGHT), width="stretch")
    else:
        left.caption("The number of vehicles is unknown in this period.")
    right.markdown("**Records per slot**")
    if table["records"].notna().any():
        right.altair_chart(_line_chart(table, "records", _CHART_HEIGHT), width="stretch")
    else:
        right.caption(plain(why_no_records or "There are no records in this period."))


def _chosen_slot(view: View, table: pd.DataFrame, chosen: list[dict[str, int]]) -> None:
    """Describe the slot that was clicked, with a button that opens its day."""
    if not chosen or not 0 <= chosen[0]["id"] < len(table):
        return
    row = table.iloc[chosen[0]["id"]]
    with st.container(horizontal=True, vertical_alignment="center"):
        running = row["state"] == _RUNNING
        share = so_far(view.city, row["coverage"]) if running else f"{row['coverage']:.0%} of its minutes"
        known = [(row["vehicles"], "vehicles"), (row["records"], "records")]
        words = [f"{value:,.0f} {unit}" for value, unit in known if not np.isnan(value)]
        st.text(", ".join([f"{row['label']}: {row['state']}", share, *words]))
        if st.button("Look back at this slot", key="look back at slot"):
            change(view, time=row["time"].to_datetime64().astype("datetime64[us]"))
            open_page(LOOK_BACK)


def _days(table: pd.DataFrame) -> None:
    st.markdown("**Days**")
    st.dataframe(
        _table_of_days(table),
        hide_index=True,
        height=_TABLE_HEIGHT,
        column_config={
            "day": st.column_config.DateColumn("local day", format="ddd D MMM YYYY"),
            OBSERVED: st.column_config.NumberColumn("slots observed"),
            PARTIAL: st.column_config.NumberColumn("slots partial"),
            MISSING: st.column_config.NumberColumn("slots missing"),
            "coverage": st.column_config.NumberColumn("minutes with a report", format="percent"),
            "most vehicles": st.column_config.NumberColumn("most vehicles in a slot", format="localized"),
            "records": st.column_config.NumberColumn("records", format="localized"),
        },
    )


def _quality(stores: CityStores) -> None:
    """Draw the tables of the quality report, or say why there is none."""
    quality = _report(stores)
    if quality is None:
        return
    if quality.first_slot and quality.last_slot:
        st.text(f"The report covers all ingested records: slots from {quality.first_slot} to {quality.last_slot}.")
    with st.container(horizontal=True):  # wraps on a narrow screen
        numbers, drops, gaps = (st.container(width=width) for width in _REPORT_WIDTHS)
    numbers.markdown("**Counters**")
    numbers.dataframe(_counter_table(quality), hide_index=True, height=_TABLE_HEIGHT, column_config=_LOCALIZED)
    drops.markdown("**Rows dropped, by reason**")
    drops.dataframe(_drop_table(quality), hide_index=True, column_config=_LOCALIZED)
    gaps.markdown(f"**Gaps**, the longest {_MOST_GAPS}" if len(quality.gaps) > _MOST_GAPS else "**Gaps**")
    if quality.gaps:
        table = _gap_table(quality)
        times = {name: st.column_config.TextColumn(width=135) for name in ("from", "to")}
        height = min(_TABLE_HEIGHT, _ROW_HEIGHT * (len(table) + 1) + 3)
        gaps.dataframe(table, hide_index=True, height=height, column_config=times)
    else:
        gaps.caption("There are no gaps: every slot was observed.")
    drops.markdown("**Suspicious vehicles**")
    suspects = _suspect_table(quality)
    if suspects is None:
        drops.caption("An ingest does not look for suspicious vehicles. This command does:")
        drops.code(f"trafficcast quality --city {stores.city.name} --html quality.html", language=None, wrap_lines=True)
    elif len(suspects):
        drops.dataframe(suspects, hide_index=True)
    else:
        drops.caption("There are no suspicious vehicles.")


def _report(stores: CityStores) -> _Quality | None:
    """Read the city's report; where there is none, the page says so."""
    try:
        quality = _read_quality(stores.folder / "quality.json")
    except InputError as error:
        st.error(plain(str(error)))
        return None
    if quality is None:
        command = f"Run trafficcast ingest PATH --city {stores.city.name}."
        st.info(plain(f"There is no quality report yet: every ingest of records writes one. {command}"))
    return quality


def _records_map(stores: CityStores) -> None:
    """Draw the positions of records in the city's box, and the share of records outside it."""
    city = stores.city
    try:
        picture = record_picture(stores)
    except (InputError, JobError) as error:
        st.error(plain(str(error)))
        return
    left, right = st.columns([1, 1])
    if picture is None:
        left.info("No positions are known: there are no records, or they are trips between zones.")
    else:
        left.image(_street_image(picture, city, _PICTURE_WIDTH))
    right.markdown("**The city's box**, which the frame in the picture shows")
    edges = {f"{edge} (degrees)": f"{getattr(city, edge):g}" for edge in ("west", "east", "south", "north")}
    edges |= {"grid": f"{city.rows} rows x {city.cols} columns", "slots": f"{city.slot_minutes} minutes"}
    right.dataframe(pd.DataFrame(list(edges.items()), columns=["property", "value"]), hide_index=True)
    with right:
        quality = _report(stores)
        if quality is None or quality.share_outside is None:
            return
        st.metric("of the records lie outside the box and are not counted", f"{quality.share_outside:.1%}")
        if quality.share_outside > MUCH_OUTSIDE:
            st.caption("This is a large share. This command suggests another box:")
            st.code(f"trafficcast quality --city {city.name}", language=None)
        st.caption("The picture shows the last four weeks of records inside the box, darker where there are more.")


def _quarantine(view: View) -> None:
    """Draw the table of the files in the quarantine of the city's inbox."""
    inbox = view.city.feed.inbox
    if inbox is None:
        st.info(plain(f"{view.city.name} has no inbox: name a folder as inbox under [cities.{view.city.name}.feed]."))
        return
    try:
        table, files = _quarantine_table(inbox, view.city)
    except OSError as error:
        st.error(plain(f"cannot read the quarantine of {inbox}: {error.strerror}"))
        return
    if not files:
        st.success("The quarantine is empty: every file of the inbox could be read.")
        return
    st.text(f"{files:,} files could not be read. Correct a file and move it back into {inbox}, or remove it.")
    if files > len(table):
        st.text(f"The table shows the newest {len(table):,} of them.")
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            "reason": st.column_config.TextColumn(width="large"),
            "since": st.column_config.TextColumn(width=150),
            "size": st.column_config.NumberColumn(format="bytes", width="small"),
        },
    )


_LOCALIZED = {
    "number": st.column_config.NumberColumn("number", format="localized"),
    "rows": st.column_config.NumberColumn("rows", format="localized"),
    "share": st.column_config.NumberColumn("share", format="percent"),
}
