"""The tables `[alerts]` and `[[alerts.rules]]`: strict, with defaults, and with an address that nobody sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trafficcast.config.alert_rules import (
    _DEFAULTS,
    CoverageRule,
    FeedSilentRule,
    FlowRule,
    ForecastOverdueRule,
    ModelDamagedRule,
    SkillRule,
)
from trafficcast.config.settings import _PREFIX, Config, load_config
from trafficcast.errors import InputError

BOX = 'west = 9.1\neast = 9.3\nsouth = 45.4\nnorth = 45.5\nrows = 10\ncols = 6\ntimezone = "Europe/Rome"\n'
SMALL = f"[cities.small]\n{BOX}"
LARGE = f"[cities.large]\n{BOX}"
SECRET = "https://hooks.example:8443/services/T0P/s3cret?token=hush"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in os.environ:
        if key.upper().startswith(_PREFIX):
            monkeypatch.delenv(key)


def load(folder: Path, text: str) -> Config:
    file = folder / "config.toml"
    file.write_text(text)
    return load_config(file)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as error:
        load(folder, text)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_rules_the_defaults_hold_for_every_city(tmp_path: Path) -> None:
    alerts = load(tmp_path, SMALL).alerts
    assert alerts.webhook is None and alerts.webhook_host == ""
    assert alerts.rules == _DEFAULTS
    assert [(rule.kind, rule.city, rule.severity) for rule in alerts.rules] == [
        ("forecast-overdue", None, "critical"),
        ("feed-silent", None, "critical"),
        ("fleet", None, "warning"),
        ("skill", None, "warning"),
        ("coverage", None, "warning"),
        ("model-damaged", None, "critical"),
    ]


def test_every_rule_can_be_written(tmp_path: Path) -> None:
    alerts = load(
        tmp_path,
        SMALL.replace("rows", 'areas = "areas.geojson"\nrows')
        + """
        [[alerts.rules]]
        kind = "forecast-overdue"
        minutes = 5
        severity = "warning"
        [[alerts.rules]]
        kind = "feed-silent"
        city = "small"
        [[alerts.rules]]
        kind = "skill"
        cycles = 12
        [[alerts.rules]]
        kind = "coverage"
        level = 0.95
        tolerance = 0.04
        hours = 6
        [[alerts.rules]]
        kind = "model-damaged"
        city = "small"
        [[alerts.rules]]
        kind = "flow"
        above = 200
        flow_kind = "outflow"
        cell = [9, 5]
        [[alerts.rules]]
        kind = "flow"
        times_typical = 3
        at_least = 30
        area = "Stadium"
        """,
    ).alerts
    assert alerts.rules == (
        ForecastOverdueRule(minutes=5, severity="warning"),
        FeedSilentRule(city="small", minutes=60),
        SkillRule(cycles=12),
        CoverageRule(level=0.95, tolerance=0.04, hours=6),
        ModelDamagedRule(city="small"),
        FlowRule(above=200, flow_kind="outflow", cell=(9, 5)),
        FlowRule(times_typical=3, at_least=30, area="Stadium"),
    )
    # A rule's name tells it from the others of its kind, and outlives a change of severity.
    assert [rule.name for rule in alerts.rules] == [
        "forecast-overdue minutes=5.0",
        "feed-silent",
        "skill cycles=12",
        "coverage level=0.95 tolerance=0.04 hours=6.0",
        "model-damaged",
        "flow above=200.0 cell=(9, 5) flow_kind=outflow",
        "flow times_typical=3.0 at_least=30.0 area=Stadium",
    ]


def test_the_file_of_areas_lies_beside_the_configuration(tmp_path: Path) -> None:
    assert load(tmp_path, SMALL).city().areas is None
    assert load(tmp_path, SMALL + 'areas = "maps/areas.geojson"').city().areas == tmp_path / "maps" / "areas.geojson"
    assert load(tmp_path, SMALL + 'areas = "/srv/areas.geojson"').city().areas == Path("/srv/areas.geojson")


@pytest.mark.parametrize(
    ("rule", "parts"),
    [
        ('kind = "skil"', ["alerts.rules.0", "skil", "'skill'"]),
        ("minutes = 5", ["alerts.rules.0", "kind"]),
        ('kind = "skill"\ncycle = 5', ["unknown key 'alerts.rules.0.skill.cycle'", "did you mean 'cycles'"]),
        ('kind = "skill"\ncycles = 0', ["alerts.rules.0.skill.cycles", "given: 0"]),
        ('kind = "feed-silent"\nminutes = nan', ["minutes"]),
        ('kind = "feed-silent"\nseverity = "fatal"', ["severity", "'warning'", "'critical'"]),
        ('kind = "coverage"\nlevel = 80', ["level", "80"]),
        ('kind = "flow"', ["'above'", "'times_typical'"]),
        ('kind = "flow"\nabove = 0', ["above", "given: 0"]),
        ('kind = "flow"\nabove = 9\nat_least = 3', ["'at_least' belongs to 'times_typical'"]),
        ('kind = "flow"\ntimes_typical = 0.5', ["times_typical", "0.5"]),
        ('kind = "flow"\nabove = 9\narea = "A"\ncell = [1, 1]', ["'area' or 'cell', not both"]),
        ('kind = "flow"\nabove = 9\ncell = [-1, 0]', ["cell.0", "-1"]),
        ('kind = "flow"\nabove = 9\ncell = [1]', ["cell"]),
        ('kind = "flow"\nabove = 9\ncell = [10, 0]', ["alerts.rules.0 (flow)", "[10, 0]", "0 to 9", "0 to 5"]),
        ('kind = "flow"\nabove = 9\narea = "A"', ["alerts.rules.0 (flow)", "cities.small has no file of areas"]),
        ('kind = "skill"\ncity = "smal"', ["alerts.rules.0 (skill)", "no city 'smal'", "small"]),
    ],
)
def test_a_rule_that_cannot_be_is_named(tmp_path: Path, rule: str, parts: list[str]) -> None:
    message = refused(tmp_path, SMALL + "[[alerts.rules]]\n" + rule)
    assert [part for part in parts if part not in message] == []


def test_of_several_cities_a_cell_needs_one(tmp_path: Path) -> None:
    rule = '[[alerts.rules]]\nkind = "flow"\nabove = 9\ncell = [1, 1]\n'
    assert "name it, city = ..." in refused(tmp_path, SMALL + LARGE + rule)
    assert load(tmp_path, SMALL + LARGE + rule + 'city = "large"').alerts.rules[0].city == "large"


def test_the_address_is_shown_nowhere_but_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(tmp_path, f'{SMALL}[alerts]\nwebhook = "{SECRET}"')
    monkeypatch.setenv("TRAFFICCAST__ALERTS__WEBHOOK", SECRET)
    from_environment = load(tmp_path, SMALL + '[alerts]\nwebhook = "https://other.example"')
    for alerts in (config.alerts, from_environment.alerts):
        assert alerts.webhook is not None and alerts.webhook.get_secret_value() == SECRET
        assert alerts.webhook_host == "hooks.example:8443"
        assert alerts.rules == _DEFAULTS
        for shown in (repr(alerts), str(alerts), alerts.model_dump_json(), repr(config)):
            assert "s3cret" not in shown and "hush" not in shown


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/s3cret",
        "s3cret",
        "https:///s3cret",
        "https://host:port/s3cret",
        "http://[s3cret",
        "http://h/s3cret x",
    ],
)
def test_a_wrong_address_is_refused_and_not_shown(tmp_path: Path, address: str) -> None:
    message = refused(tmp_path, f'{SMALL}[alerts]\nwebhook = "{address}"')
    assert "alerts.webhook" in message and "https://alerts.example/hook" in message
    assert "s3cret" not in message


def test_an_address_in_the_wrong_place_is_not_shown_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "s3cret" not in refused(tmp_path, f'alerts = "{SECRET}"\n{SMALL}')
    assert "s3cret" not in refused(tmp_path, f'{SMALL}[alerts]\nwebhok = "{SECRET}"')
    for wrong in (SECRET, f'"{SECRET}"', f'{{"webhok": "{SECRET}"}}'):
        monkeypatch.setenv("TRAFFICCAST__ALERTS", wrong)
        assert "s3cret" not in refused(tmp_path, SMALL)


def test_the_example_of_the_document_is_what_it_says(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    example = document.split("```toml\n")[1].split("```")[0]
    alerts = load(tmp_path, example + BOX).alerts
    assert alerts.rules[:6] == _DEFAULTS  # "as above"
    assert alerts.rules[6:] == (
        FlowRule(city="san-francisco", area="Financial District", above=500, severity="critical"),
        FlowRule(times_typical=2, at_least=30),
    )
    assert alerts.webhook_host == "alerts.example"


@pytest.mark.parametrize(
    ("kind", "key", "allowed", "refuse"),
    [
        ("forecast-overdue", "minutes", [0.5], [0]),
        ("feed-silent", "minutes", [0.5], [0]),
        ("skill", "cycles", [1, 1000], [0, 1001]),
        ("coverage", "level", [0.01, 0.99], [0, 1]),
        ("coverage", "tolerance", [0.01, 0.99], [0, 1]),
        ("coverage", "hours", [0.5, 24 * 31], [0, 24 * 31 + 1]),
        ("flow", "above", [0.5], [0]),
        ("flow", "times_typical", [1.01], [1]),
    ],
)
def test_numbers_have_their_ranges(
    tmp_path: Path, kind: str, key: str, allowed: list[float], refuse: list[float]
) -> None:
    rule = f'{SMALL}[[alerts.rules]]\nkind = "{kind}"\n{key} = '
    for value in allowed:
        (found,) = load(tmp_path, f"{rule}{value}").alerts.rules
        assert getattr(found, key) == value
    for value in refuse:
        assert f"alerts.rules.0.{kind}.{key}" in refused(tmp_path, f"{rule}{value}")


def test_without_at_least_no_flow_below_20_vehicles_is_far_above_the_typical_one() -> None:
    assert FlowRule(times_typical=2).at_least == 20  # as docs/alerts.md says


@pytest.mark.parametrize("cell", ["[9, 5]", "[0, 0]", "[10, 5]", "[9, 6]"])
def test_a_cell_is_one_of_the_grid_to_its_last_row_and_column(tmp_path: Path, cell: str) -> None:
    rule = f'{SMALL}[[alerts.rules]]\nkind = "flow"\nabove = 9\ncell = {cell}'
    if cell in ("[9, 5]", "[0, 0]"):
        load(tmp_path, rule)
    else:
        assert f"cell {cell} lies outside the grid of 'small'" in refused(tmp_path, rule)
