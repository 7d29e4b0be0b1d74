"""The page of the alerts, run by Streamlit's own test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from streamlit.testing.v1 import AppTest

from trafficcast.alerts.book import AlertBook
from trafficcast.alerts.findings import Finding

SECONDS = 60
NOW = np.datetime64("2024-05-08T12:00", "us")
SECRET = "https://alerts.example/hook-SECRET"


def page(file: str) -> None:
    """A script of the page alone."""
    from pathlib import Path

    from dashboard.alerts.alerts import draw
    from dashboard.page.view import View
    from trafficcast.config.settings import load_config

    config = load_config(Path(file))
    draw(config, View(config.city("testville")))


def run(file: Path, section: str | None = None) -> AppTest:
    """The page at a section."""
    app = AppTest.from_function(page, default_timeout=SECONDS, args=(str(file),))
    if section is not None:
        app.session_state["alerts section testville"] = section
    app.run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    """All texts of a page."""
    kinds = ("caption", "text", "info", "error", "success", "warning", "markdown")
    return "\n".join(str(one.value) for kind in kinds for one in app.get(kind)).replace("\\", "")


def finding(message: str, severity: str = "critical") -> Finding:
    return Finding("flow above=5.0", "flow", severity, message, 7.0, 5.0, "row 1, column 4", 10.45, 45.35)


def test_without_a_book_it_says_what_to_do_and_makes_none(place: Any) -> None:
    app = run(place.file)
    assert "trafficcast schedule" in app.info[0].value
    assert not place.stores.alerts.exists()


def test_open_ones_first_then_past(place: Any) -> None:
    book = AlertBook(place.stores.alerts)
    book.update("testville", [finding("<script>alert(1)</script>")], NOW)
    app = run(place.file)
    assert "1 open alert in testville: 1 critical" in app.error[0].value.replace("\\", "")
    assert app.dataframe[0].value["since"].tolist() == ["2024-05-08 14:00 CEST"]
    assert app.text[0].value == "<script>alert(1)</script>"
    assert [button.label for button in app.button] == ["Show on the page Now", "Look back at its time"]
    book.update("testville", [], NOW + np.timedelta64(1, "h"))
    app = run(place.file)
    assert "No open alerts" in app.success[0].value.replace("\\", "")
    assert app.dataframe[0].value["until"].tolist() == ["2024-05-08 15:00 CEST"]
    assert "No alert is open" in words(run(place.file, "Open"))


def test_the_rules_without_the_webhook(place: Any) -> None:
    place.file.write_text(
        place.file.read_text() + f'\n[alerts]\nwebhook = "{SECRET}"\n[[alerts.rules]]\nkind = "flow"\nabove = 7\n'
    )
    app = run(place.file, "Rules")
    assert app.dataframe[0].value["limits"].tolist() == ["above = 7"]
    assert "SECRET" not in str(app) + words(app) and "alerts.example" not in str(app) + words(app)


def test_a_damaged_book_is_told_and_the_rules_stay(place: Any) -> None:
    file = place.stores.alerts
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"damaged" * 1000)
    app = run(place.file)
    assert "trafficcast repair" in app.error[0].value and len(app.dataframe[0].value) == 6


def test_areas_that_cannot_be_read_do_not_hide_the_alerts(place: Any) -> None:
    text = place.file.read_text().replace(
        'timezone = "Europe/Rome"\n', 'timezone = "Europe/Rome"\nareas = "none.json"\n', 1
    )
    place.file.write_text(text)
    AlertBook(place.stores.alerts).update("testville", [finding("much")], NOW)
    app = run(place.file)
    assert r"none\.json of areas" in app.warning[0].value and len(app.dataframe) == 1
