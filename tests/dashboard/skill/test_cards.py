"""What the page says of models, whatever their cards hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dashboard.skill.cards import (
    _best_baseline,
    _card_facts,
    _comparison_table,
    _coverage_of,
    _fact_comparison,
    _lead_errors,
    _metric_table,
    _own_error,
    _read_curve,
    _registry_table,
    _same_days,
)
from dashboard.skill.reads import _card_of, _card_text_of, _curve_of, _registry_stamp
from trafficcast.config.city import City
from trafficcast.errors import InputError

CITY = City(west=10, east=11, south=45, north=46, timezone="Europe/Rome", name="testville")
HOSTILE = "<script>alert(1)</script>"
# What a person or a broken disk may leave in place of any part of a card.
ODD: tuple[Any, ...] = (None, "x", 3, [], [1], {}, {"a": {"b": 1}}, float("nan"), float("inf"), 10**400, True, "\ud800")


def metrics(rmse: float) -> dict[str, Any]:
    return {"rmse": rmse, "mae": rmse / 2, "psnr": 30.0, "by_lead": {"rmse": [rmse, rmse + 1], "mae": [1.0, 2.0]}}


def a_card(version: str = "vmrnn-c-1", rmse: float = 2.0, created: str = "2024-05-01T10:00:00+02:00") -> dict[str, Any]:
    coverage = {"inside": {"by_lead": [0.82, 0.81]}, "width": {"by_lead": [3.0, 4.0]}}
    part = {"persistence": metrics(4.0), "climatology": metrics(3.0)}
    return {
        "version": version,
        "architecture": {"name": "vmrnn-c"},
        "grid": {"rows": 5, "cols": 7, "slot_minutes": 30},
        "parameters": {"live": 1234567},
        "split": {
            "start": "2024-03-01T00:00:00+01:00",
            "train_end": "2024-04-01T00:00:00+02:00",
            "valid_end": "2024-04-08T00:00:00+02:00",
            "test_end": "2024-04-15T00:00:00+02:00",
        },
        "windows": {"training": 100},
        "periods": {"training": {"slots": 1488, "observed": 1480, "windows_by_hour": []}},
        "training": {"batch_size": 8},
        "scale": 207.0,
        "created": created,
        "metrics": {"test": {version: metrics(rmse), **part}, "validation": {version: metrics(rmse - 0.5), **part}},
        "intervals": {"test": {"forecasts": 9, "levels": {"0.8": coverage}}},
    }


def test_registry_table_has_the_newest_first_and_the_best_baseline_beside() -> None:
    cards = {"vmrnn-c-1": a_card(), "vmrnn-c-2": a_card("vmrnn-c-2", 1.5, "2024-05-08T10:00:00+02:00"), "odd-1": None}
    table = _registry_table(CITY, cards, ["vmrnn-c-1", "gone-1", "vmrnn-c-2"])
    assert table["version"].tolist() == ["vmrnn-c-2", "vmrnn-c-1", "odd-1"]
    assert table["role"].tolist() == ["former", "champion", ""]
    row = table.iloc[1]
    assert row["created"] == "Wed 1 May 2024 10:00 CEST" and (row["trained from"], row["to"]) == (
        "2024-03-01",
        "2024-04-01",
    )
    assert (row["test RMSE"], row["best baseline, test"], row["which, test"]) == (2.0, 3.0, "climatology")
    assert row["validation RMSE"] == 1.5
    assert "cannot be read" in table.iloc[2]["created"]


def test_metric_table_over_all_leads_and_at_one() -> None:
    table = _metric_table(a_card(), "test")
    assert table["forecaster"].tolist() == ["vmrnn-c-1", "climatology", "persistence"]
    assert table["SSIM"].isna().all()
    assert _metric_table(a_card(), "test", 1)["RMSE"].tolist() == [3.0, 4.0, 5.0]


def test_facts_are_words_and_leave_out_what_is_not_there() -> None:
    facts = _card_facts(CITY, a_card()).set_index("fact")["value"]
    assert facts["live parameters"] == "1,234,567" and facts["training: batch size"] == "8"
    assert facts["training to"] == "Mon 1 Apr 2024 00:00 CEST"
    assert facts["training slots not observed"] == "8 of 1,488"
    assert "test windows" not in facts and "command" not in facts
    beside = _fact_comparison(CITY, {"a": a_card(), "b": {"scale": 3}})
    assert beside.set_index("fact").loc["scale, vehicles per slot"].tolist() == ["207.0", "3"]


def test_champion_against_challenger() -> None:
    cards = {"vmrnn-c-1": a_card(), "vmrnn-c-2": a_card("vmrnn-c-2", 1.5)}
    table = _comparison_table("vmrnn-c-1", "vmrnn-c-2", cards, "test")
    assert table["lead"].tolist() == ["all leads", "+0 min", "+30 min"]
    assert table["vmrnn-c-2"].tolist() == [1.5, 1.5, 2.5]
    assert table["better"].tolist() == pytest.approx([25, 25, 100 / 6])
    assert _same_days(cards, "test")
    cards["vmrnn-c-2"]["split"]["test_end"] = "2024-04-16T00:00:00+02:00"
    assert not _same_days(cards, "test") and _same_days(cards, "validation")


def test_errors_by_lead_say_whose_card_they_are_from() -> None:
    errors = _lead_errors({"vmrnn-c-1": a_card()}, "test")
    assert errors["group"].tolist() == [0, 30] * 3
    assert set(errors["forecaster"]) == {"vmrnn-c-1", "persistence", "climatology"}


def test_intervals_of_a_card() -> None:
    table = _coverage_of(a_card(), "test")
    assert table[["level", "lead", "inside", "width", "slots"]].values.tolist() == [
        [0.8, 0, 0.82, 3.0, 9],
        [0.8, 30, 0.81, 4.0, 9],
    ]
    assert _coverage_of(a_card(), "validation").empty


def places(card: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all parts of a card."""
    found = []
    for key, value in card.items():
        found.append((*path, key))
        if isinstance(value, dict):
            found += places(value, (*path, key))
    return found


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: ascii(odd)[:20])
def test_whatever_stands_in_a_card_is_no_error(odd: Any) -> None:
    for path in places(a_card()):
        card = a_card()
        part = card
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = odd
        tables = [
            _registry_table(CITY, {"vmrnn-c-1": card}, []),
            _card_facts(CITY, card),
            _fact_comparison(CITY, {"vmrnn-c-1": card, "vmrnn-c-2": a_card("vmrnn-c-2")}),
            _metric_table(card, "test"),
            _metric_table(card, "test", 1),
            _coverage_of(card, "test"),
            _lead_errors({"vmrnn-c-1": card}, "test"),
            _comparison_table("vmrnn-c-2", "vmrnn-c-1", {"vmrnn-c-1": card, "vmrnn-c-2": a_card("vmrnn-c-2")}, "test"),
        ]
        for table in tables:
            table.to_csv().encode()  # no lone surrogate, which no page could show
    assert _best_baseline({}, "test") is None and _own_error({}, "test") != _own_error({}, "test")


def test_files_of_a_model_are_read_and_their_absence_is_none(place: Any) -> None:
    place.add_model()
    registry = place.stores.registry
    folder = registry.root / "vmrnn-b-1"
    assert _card_text_of(registry, "vmrnn-b-1") is None and _curve_of(registry, "vmrnn-b-1") is None

    (folder / "CARD.md").write_text(f"# {HOSTILE}", encoding="utf-8")
    (folder / "curve.csv").write_text("epoch,train_loss,valid_rmse\n1,0.5,3\n2,0.4,oops\n", encoding="utf-8")
    assert _card_text_of(registry, "vmrnn-b-1") == f"# {HOSTILE}"
    curve = _curve_of(registry, "vmrnn-b-1")
    assert curve is not None and curve["train_loss"].tolist() == [0.5, 0.4] and curve["valid_rmse"].isna().sum() == 1


@pytest.mark.parametrize("content", [b"", b"no,curve\n1,2\n", b"epoch\n1\n", b"\xff\xfe\x00", b"a\nb,c,d\n"])
def test_a_damaged_curve_is_none(content: bytes) -> None:
    assert _read_curve(content) is None


def test_a_card_is_read_again_when_it_changes(place: Any) -> None:
    place.add_model()
    registry = place.stores.registry
    file = registry.root / "vmrnn-b-1" / "card.json"
    before = _registry_stamp(registry)
    assert _card_of(registry, "vmrnn-b-1")["scale"] == 1000.0
    file.write_text(json.dumps(a_card()), encoding="utf-8")
    assert _registry_stamp(registry) != before
    assert _card_of(registry, "vmrnn-b-1")["scale"] == 207.0
    file.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"card\.json"):
        _card_of(registry, "vmrnn-b-1")
