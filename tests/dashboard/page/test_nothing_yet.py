"""The sentences that pages show before there is anything to see."""

from __future__ import annotations

from typing import Any

from dashboard.page.nothing_yet import next_step


def test_the_next_step_is_a_command_to_run(place: Any) -> None:
    assert "trafficcast ingest PATH --city testville" in next_step(place.stores)
    place.add_flows()
    assert "trafficcast train --city testville" in next_step(place.stores)
    place.add_model()
    assert "trafficcast forecast --city testville" in next_step(place.stores)
