"""The configuration: strict, with errors that name the key, and overridable from the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trafficcast.config.settings import _PREFIX, load_config
from trafficcast.errors import InputError

CITY = """
west = -122.52
east = -122.36
south = 37.70
north = 37.82
timezone = "America/Los_Angeles"
"""
SMALL = f"[cities.san-francisco]{CITY}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in os.environ:
        if key.upper().startswith(_PREFIX):
            monkeypatch.delenv(key)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "conf" / "config.toml"
    path.parent.mkdir()
    path.write_text(SMALL, encoding="utf-8")
    return path


def refused(file: Path, text: str) -> str:
    """The one sentence a configuration is refused with."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_config(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_defaults_lie_beside_the_file(file: Path) -> None:
    config = load_config(file)
    assert config.paths.data == file.parent / "data"
    assert config.paths.models == file.parent / "models"
    assert config.map.tiles_url is None
    city = config.city()
    assert city.name == "san-francisco"
    assert (city.west, city.north, city.rows, city.timezone) == (-122.52, 37.82, 32, "America/Los_Angeles")


def test_the_configuration_is_read_without_the_scheduler() -> None:
    script = "import sys, trafficcast.config.settings; sys.exit('apscheduler' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_relative_paths_are_relative_to_the_file_and_absolute_ones_stay(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(SMALL + '[paths]\ndata = "../stores"\nmodels = "/srv/models"\n')
    monkeypatch.chdir(file.parent)
    for path in (file, Path("config.toml")):  # from wherever it is called
        config = load_config(path)
        assert config.paths.data.resolve() == file.parent.parent / "stores"
        assert config.paths.models == Path("/srv/models")


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        (SMALL + "slot_minuts = 30\n", "cities.san-francisco.slot_minuts", "slot_minutes"),
        (SMALL + '[path]\ndata = "x"\n', "path", "paths"),
        (SMALL + '[paths]\nmodel = "x"\n', "paths.model", "models"),
        (SMALL + '[map]\ntile_url = "x"\n', "map.tile_url", "tiles_url"),
        ('defaultcity = "x"\n' + SMALL, "defaultcity", "default_city"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(file: Path, text: str, key: str, nearest: str) -> None:
    message = refused(file, text)
    assert f"unknown key '{key}'" in message
    assert f"did you mean '{nearest}'" in message


def test_an_unknown_key_like_no_other_gets_no_guess(file: Path) -> None:
    message = refused(file, SMALL + "zzz = 1\n")
    assert "unknown key 'cities.san-francisco.zzz'" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (SMALL.replace("-122.36", "-122.99"), ["cities.san-francisco", "upside down", "-122.99"]),
        (SMALL.replace("37.82", "37.70"), ["cities.san-francisco", "upside down", "37.7"]),
        (SMALL + "slot_minutes = 7\n", ["slot_minutes", "7 minutes do not divide a day"]),
        (SMALL.replace("America/Los_Angeles", "Los Angeles"), ["timezone", "'Los Angeles'", "IANA"]),
        (SMALL.replace("west = -122.52\n", ""), ["cities.san-francisco.west", "required"]),
        (SMALL + 'rows = "many"\n', ["cities.san-francisco.rows", "'many'"]),
        ("paths = 3\n" + SMALL, ["paths"]),
        (f'[cities."San Francisco"]{CITY}', ["San Francisco", "lower-case"]),
    ],
)
def test_a_value_that_cannot_be_is_named(file: Path, text: str, parts: list[str]) -> None:
    message = refused(file, text)
    assert [part for part in parts if part not in message] == []


def test_not_toml(file: Path) -> None:
    assert "not valid TOML" in refused(file, "west = \n")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        load_config(file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*gone\.toml.*--config"):
        load_config(tmp_path / "gone.toml")
    with pytest.raises(InputError, match="cannot read"):
        load_config(tmp_path)


def test_an_unknown_city_is_named_with_the_nearest(file: Path) -> None:
    with pytest.raises(InputError, match="no city 'san-fransisco' .*mean 'san-francisco'.* it has: san-francisco"):
        load_config(file).city("san-fransisco")


def test_the_city_is_the_one_named_the_default_or_the_only_one(file: Path) -> None:
    two = SMALL + f"[cities.oakland]{CITY}"
    file.write_text(two)
    with pytest.raises(InputError, match="which city.*oakland, san-francisco"):
        load_config(file).city()
    assert load_config(file).city("oakland").name == "oakland"
    file.write_text('default_city = "oakland"\n' + two)
    assert load_config(file).city().name == "oakland"
    assert load_config(file).city("san-francisco").name == "san-francisco"


def test_a_default_city_that_is_not_there_is_refused(file: Path) -> None:
    file.write_text('default_city = "oaklend"\n' + SMALL + f"[cities.oakland]{CITY}")
    with pytest.raises(InputError, match="no city 'oaklend'.*'oakland'"):
        load_config(file)


def test_no_city_at_all(file: Path) -> None:
    file.write_text("")
    with pytest.raises(InputError, match="the configuration has: none"):
        load_config(file).city()


def test_the_environment_wins_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(SMALL + '[paths]\ndata = "x"\nmodels = "y"\n')
    monkeypatch.setenv("TRAFFICCAST__PATHS__DATA", "/srv/data")
    monkeypatch.setenv("TRAFFICCAST__CITIES__SAN-FRANCISCO__ROWS", "8")
    monkeypatch.setenv("TRAFFICCAST__CITIES__SAN-FRANCISCO__MIN_COVERAGE", "0.5")
    config = load_config(file)
    assert config.paths.data == Path("/srv/data")
    assert config.paths.models == file.parent / "y"
    city = config.city()
    assert (city.rows, city.min_coverage, city.cols, city.west) == (8, 0.5, 32, -122.52)


def test_a_single_value_of_the_top_level_from_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(SMALL + f"[cities.oakland]{CITY}")
    monkeypatch.setenv("TRAFFICCAST__DEFAULT_CITY", "oakland")
    assert load_config(file).city().name == "oakland"


def test_a_relative_path_of_the_environment_is_relative_to_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAFFICCAST__PATHS__DATA", "elsewhere")
    assert load_config(file).paths.data == file.parent / "elsewhere"


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("TRAFFICCAST__PATHES__DATA", "x", ["TRAFFICCAST__PATHES__DATA", "unknown section", "'paths'"]),
        ("TRAFFICCAST__PATHS__DATTA", "x", ["paths.datta", "'data'"]),
        ("TRAFFICCAST__CITIES__SAN-FRANCISCO__ROWS", "many", ["rows", "many"]),
        ("TRAFFICCAST__CITIES__SAN-FRANCISCO__SLOT_MINUTES", "7", ["slot_minutes", "do not divide a day"]),
        ("TRAFFICCAST__CITIES__OAKLAND__ROWS", "8", ["oakland", "west"]),
        ("TRAFFICCAST__PATHS", "elsewhere", ["paths"]),
        ("TRAFFICCAST__CITIES", "{", ["cities"]),
    ],
)
def test_a_wrong_variable_is_refused_and_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, parts: list[str]
) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(InputError) as error:
        load_config(file)
    assert [part for part in parts if part not in str(error.value)] == []


def test_variables_of_others_are_left_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAFFICCASTER__PATHS__DATA", "x")
    monkeypatch.setenv("PATHS__DATA", "x")
    assert load_config(file).paths.data == file.parent / "data"
