"""The sentences that pages show before there is anything to see."""

from __future__ import annotations

from typing import Any

from dashboard.page.nothing_yet import what_is_missing


def test_what_is_missing_says_what_to_run(place: Any) -> None:
    assert "trafficcast ingest PATH --city testville" in what_is_missing(place.config, place.city)
    place.add_flows()
    assert "trafficcast train --city testville" in what_is_missing(place.config, place.city)
    place.add_model()
    assert "trafficcast forecast --city testville" in what_is_missing(place.config, place.city)
