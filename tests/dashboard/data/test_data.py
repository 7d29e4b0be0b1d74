"""The page of the data, run by Streamlit's own test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.page import clock
from trafficcast.config.settings import load_config
from trafficcast.files import write_json
from trafficcast.ingestion.quality_report import quality_report, stored_slots

SECONDS = 60


def page(file: str, time: str | None = None) -> None:
    """A script of the page alone."""
    from pathlib import Path

    from dashboard.data.data import draw
    from dashboard.page.view import View
    from trafficcast.config.settings import load_config

    config = load_config(Path(file))
    city = config.city("testville")
    draw(config, View(city, None if time is None else city.parse_time(time)))


def run(file: Path, time: str | None = None, section: str | None = None) -> AppTest:
    """The page at a section."""
    app = AppTest.from_function(page, default_timeout=SECONDS, args=(str(file), time))
    if section is not None:
        app.session_state["data section"] = section
    app.run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    """All texts of a page."""
    kinds = ("caption", "text", "info", "error", "success", "warning", "markdown", "code")
    return "\n".join(str(one.value) for kind in kinds for one in app.get(kind))


def test_without_data_it_says_what_to_do(place: Any) -> None:
    assert "trafficcast ingest" in words(run(place.file)).replace("\\", "")
    for section in ("Quality report", "Where records lie", "Quarantine"):
        app = run(place.file, section=section)
        assert app.info and not app.error
    assert not (place.config.paths.data / "testville" / "records").exists()


def test_the_last_weeks_and_any_month(place: Any) -> None:
    place.add_flows()
    app = run(place.file)
    assert "67 slots: 66 observed, 1 partial, 0 missing" in words(app).replace("\\", "")
    assert "imported as grids" in words(app)
    (period,) = app.selectbox
    assert period.options == ["Last 8 weeks", "May 2024"] and period.value == "Last 8 weeks"
    assert run(place.file, time="2024-05-07T12:00").selectbox[0].index == 1
    assert run(place.file, time="2023-05-07T12:00").selectbox[0].index == 0
    assert app.dataframe[0].value["observed"].tolist() == [18, 48]


def test_a_damaged_day_is_told_and_the_others_shown(place: Any) -> None:
    place.add_flows()
    (place.flows.root / "2024-05-07.nc").write_bytes(b"damaged")
    app = run(place.file)
    assert "2024-05-07.nc" in str([*app.session_state["unreadable files"]]) and len(app.dataframe) == 1


def test_the_quality_report(place: Any) -> None:
    store = place.add_records([10.1, 10.35, 99.0], [45.4, 45.25, 45.1])
    file = place.stores.folder / "quality.json"
    slots = stored_slots(place.city, store, "points")
    write_json(file, quality_report(place.city, store, store.load(), slots))
    app = run(place.file, section="Quality report")
    assert len(app.dataframe) >= 2 and "trafficcast quality --city testville" in words(app)
    app = run(place.file, section="Where records lie")
    assert app.metric[0].value == "33.3%" and len(app.get("image")) == 1
    file.write_text('{"files": "<script>"}')
    assert "quality report" in run(place.file, section="Quality report").error[0].value
    assert "quality report" in run(place.file, section="Where records lie").error[0].value


def test_damaged_records_are_told(place: Any) -> None:
    store = place.add_records([10.1], [45.4])
    place.add_flows()
    (store.root / "state.sqlite").write_bytes(b"damaged" * 1000)
    assert "is not a database; run trafficcast repair" in words(run(place.file))
    assert "trafficcast repair" in run(place.file, section="Where records lie").error[0].value


@pytest.mark.parametrize("name", ["<script>alert(1)<|script>.csv", "**bold**[a](b).csv"])
def test_the_quarantine(place: Any, name: str) -> None:
    text = place.file.read_text().replace(
        'timezone = "Europe/Rome"\n', 'timezone = "Europe/Rome"\nfeed = {inbox = "in"}\n'
    )
    place.file.write_text(text)
    assert load_config(place.file).city("testville").feed.inbox == place.file.parent / "in"
    assert run(place.file, section="Quarantine").success
    folder = place.file.parent / "in" / "quarantine"
    folder.mkdir(parents=True)
    (folder / name).touch()
    (folder / f"{name}.reason.txt").write_text("<b>no</b>")
    app = run(place.file, section="Quarantine")
    assert app.dataframe[0].value["file"].tolist() == [name]
    assert app.dataframe[0].value["reason"].tolist() == ["<b>no</b>"]


def test_the_slot_that_runs_is_neither_observed_nor_counted(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    flows = place.add_flows()
    flows["coverage"].values[-1] = 24 / 30
    place.flows.write(flows)
    monkeypatch.setattr(clock, "present", lambda: place.newest + np.timedelta64(25, "m"))
    said = words(run(place.file)).replace("\\", "")
    assert "66 slots: 65 observed, 1 partial, 0 missing" in said
    assert "The last one ended Wed 8 May 2024 09:00 CEST, 25 min ago" in said
    assert "The slot from Wed 08 May 2024 09:00 CEST still runs: so far, 24 of 30 min" in said
    assert run(place.file).dataframe[0].value["observed"].tolist() == [17, 48]
    monkeypatch.setattr(clock, "present", lambda: place.newest - np.timedelta64(300, "m"))  # the rest lies ahead
    assert run(place.file).dataframe[0].value["observed"].tolist() == [8, 48]
