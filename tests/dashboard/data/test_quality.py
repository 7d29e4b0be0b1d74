"""The quality report as tables."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dashboard.data.quality import (
    _LARGEST,
    _counter_table,
    _drop_table,
    _gap_table,
    _Quality,
    _read_quality,
    _suspect_table,
)
from trafficcast.errors import InputError
from trafficcast.files import write_json
from trafficcast.ingestion.quality_report import quality_report, stored_slots

GAP = {"start": "2024-05-07T02:00:00+02:00", "end": "2024-05-07T03:00:00+02:00", "partial": 1, "missing": 1}


def test_the_report_of_an_ingest_is_read(place: Any) -> None:
    store = place.add_records([10.1, 10.35, 99.0], [45.4, 45.25, 45.1])
    file = place.stores.folder / "quality.json"
    slots = stored_slots(place.city, store, "points")
    write_json(file, quality_report(place.city, store, store.load(), slots))
    quality = _read_quality(file)
    assert quality is not None and quality.points_kept == 3 and quality.share_outside == pytest.approx(1 / 3)
    counted = _counter_table(quality).set_index("counter")["number"]
    assert counted["vehicles"] == 1 and counted["of them outside the city's box"] == 1
    assert _drop_table(quality)["rows"].sum() == 0
    assert _suspect_table(quality) is None


def test_no_report_is_none(tmp_path: Path) -> None:
    assert _read_quality(tmp_path / "quality.json") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"files": "many"}',
        b'{"gaps": [{"start": 1}]}',
        b'{"slots": {"a": null}}',
    ],
)
def test_what_is_no_report_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "quality.json").write_bytes(content)
    with pytest.raises(InputError, match="is no quality report.*move it away"):
        _read_quality(tmp_path / "quality.json")


def test_a_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        _read_quality(tmp_path)
    huge = tmp_path / "quality.json"
    huge.touch()
    os.truncate(huge, _LARGEST + 1)
    with pytest.raises(InputError, match="larger"):
        _read_quality(huge)


def test_rows_dropped_most_first() -> None:
    table = _drop_table(_Quality(rows_read=10, rows_dropped={"clock": 1, "too_late": 4}))
    assert table.values.tolist() == [["too late", 4, 0.4], ["clock", 1, 0.1]]
    assert _drop_table(_Quality(rows_dropped={"clock": 0}))["share"].tolist() == [0.0]


def test_the_longest_gaps_newest_first() -> None:
    later = GAP | {"start": "2024-05-08T02:00:00+02:00", "missing": 0}
    table = _gap_table(_Quality.model_validate({"gaps": [GAP, later] + [GAP | {"missing": 5}] * 200}))
    assert len(table) == 200 and (table["missing"] == 5).all()
    table = _gap_table(_Quality.model_validate({"gaps": [GAP, later]}))
    assert table["from"].tolist() == ["2024-05-08 02:00 +02:00", "2024-05-07 02:00 +02:00"]


def test_suspects_are_told_as_far_as_they_are_there() -> None:
    table = _suspect_table(_Quality.model_validate(json.loads('{"suspects": [{"vehicle": "a\\nb", "points": 3}]}')))
    assert table is not None and table.values.tolist() == [["a b", "", "3", "", ""]]


def test_without_points_no_share_lies_outside() -> None:
    assert _Quality(points_kept=0, points_outside=0).share_outside is None
    assert _Quality().share_outside is None
