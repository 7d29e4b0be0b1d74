"""The documents agree with one another and with the program: links, commands, keys of the configuration, file names."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import click
import pytest
import typer
from pydantic import BaseModel

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
# Pages that only include a file of the top level, for the site.
INCLUDES = {"contributing.md", "changelog.md"}
DOCUMENTS = [*TOP, *(file for file in sorted((ROOT / "docs").rglob("*.md")) if file.name not in INCLUDES)]
NAMES = [str(file.relative_to(ROOT)) for file in DOCUMENTS]
EACH = pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def text_of(document: Path) -> str:
    """A document without its code blocks."""
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """The anchors of headings that are the same in a plain view (GitHub's rule) and on the site (Python-Markdown's)."""
    found = set()
    for heading in HEADING.findall(text_of(document)):
        letters = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
        if letters.replace(" ", "-") == re.sub(r"[-\s]+", "-", letters):
            found.add(letters.replace(" ", "-"))
    return found


@EACH
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(text_of(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        outside = document.is_relative_to(ROOT / "docs") and not target.is_relative_to(ROOT / "docs")
        page = target.name in INCLUDES and target.parent == ROOT / "docs"
        if page:
            target = ROOT / target.name.upper().replace(".MD", ".md")
        if outside or not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_the_readme_is_short_and_names_the_targets_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {target for document in DOCUMENTS for target in re.findall(r"`make ([a-z]+)", document.read_text("utf-8"))}
    assert {"demo", "test"} <= named <= targets


def commands_of_the_program() -> set[str]:
    """Every command of the program, those of a group with the group's name."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    app = importlib.import_module(scripts["trafficcast"].partition(":")[0]).app

    def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            for name, child in command.commands.items():
                yield from walk(child, (*path, name))
        else:
            yield " ".join(path)

    return set(walk(typer.main.get_command(app), ()))


def test_the_table_of_commands_is_complete() -> None:
    table = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `trafficcast ([a-z -]+)` \|", table, re.MULTILINE)) == sorted(
        commands_of_the_program()
    )


@EACH
def test_every_command_that_is_named_exists(document: Path) -> None:
    known = commands_of_the_program()
    groups = {command.split()[0] for command in known if " " in command}
    text = document.read_text(encoding="utf-8")
    lines = [
        line for _, language, block in FENCE.findall(text) if language in ("", "bash") for line in block.split("\n")
    ]
    unknown = []
    for piece in (*lines, *SPAN.findall(text_of(document))):
        for first, second in re.findall(
            r"(?<!import )\btrafficcast\s+([a-z][a-z-]*)(?![\w/.:-])(?:\s+([a-z]+)\b)?", piece
        ):
            command = f"{first} {second}".strip() if first in groups else first
            if command not in known | groups:
                unknown.append(command)
    assert not unknown


def config_class() -> type[BaseModel]:
    """The class of the whole configuration."""
    package = importlib.import_module("trafficcast.config")
    found: type[BaseModel] = (
        getattr(package, "Config", None) or importlib.import_module("trafficcast.config.settings").Config
    )
    return found


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models that an annotation holds, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [model for argument in arguments for model in models_in(argument)]


def tables_of_the_program() -> dict[str, set[str]]:
    """The keys of each table of config.toml, by the table's heading in the document."""

    def walk(models: list[type[BaseModel]], name: str) -> Iterator[tuple[str, set[str]]]:
        fields = {key: field for model in models for key, field in model.model_fields.items()}
        yield f"[{name}]", fields.keys() - {"name"}
        for key, field in fields.items():
            if inner := models_in(field.annotation):
                yield from walk(inner, f"{name}.{key}")

    config = config_class().model_fields
    found: dict[str, set[str]] = {"Top level": set()}
    for key, field in config.items():
        if not (models := models_in(field.annotation)):
            found["Top level"].add(key)
        elif key == "cities":
            found |= dict(walk(models, "cities.NAME"))
        else:
            found |= dict(walk(models, key))
    rules = found.pop("[alerts.rules]")
    return found | {"[[alerts.rules]]": rules}


def test_the_tables_of_the_configuration_are_complete() -> None:
    document = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    written = {}
    for section in re.split(r"^## ", document, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        rows = re.findall(r"^\| (`[^|]+`) \|", body, re.MULTILINE)
        written[heading.replace("`", "")] = {key for row in rows for key in SPAN.findall(row)}
    assert written == tables_of_the_program()


@pytest.mark.skipif(
    not (ROOT / "trafficcast" / "forecasting").is_dir(), reason="the documents name the folders of the layout to come"
)
@EACH
def test_every_source_that_is_named_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:trafficcast|pipelines|dashboard|tests|models|docs)/[\w./-]+)`", text)
    modules = re.findall(r"^from ((?:trafficcast|pipelines|dashboard)[\w.]*) import", text, re.MULTILINE)
    modules += re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    absent = [path for path in paths if "CITY" not in path and not (ROOT / path).exists()]
    for module in modules:
        place = ROOT / module.replace(".", "/")
        if not place.is_dir() and not place.with_suffix(".py").is_file():
            absent.append(module)
    assert not absent


@EACH
def test_every_test_that_holds_a_promise_exists(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text(encoding="utf-8"))
    absent = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or f"\ndef {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert not absent
    assert len(named) == len(set(named)) and (named or document.name != "operations.md")
