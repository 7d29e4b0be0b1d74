"""Public means used from another folder or by users, or the type of something public; other names begin with _."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import trafficcast
import trafficcast.nn

PROJECT = Path(__file__).parents[2]
PACKAGES = ("trafficcast", "pipelines", "dashboard")
# Called by users and by programs: commands, endpoints and their answers, pages, readers, the modules' entry points.
INTERFACES = ("pipelines.cli.", "trafficcast.api.app.", "trafficcast.api.schema.", "trafficcast.api.answers.")
ENTRIES = {"app", "draw", "main", "read", "recognise"}


def modules() -> dict[str, ast.Module]:
    """Every module's name and tree."""
    files = (file for package in PACKAGES for file in sorted((PROJECT / package).rglob("*.py")))
    return {
        ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            file.read_text(encoding="utf-8")
        )
        for file in files
    }


def defined(tree: ast.Module) -> set[str]:
    """The functions, classes and constants of a module."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            elements = target.elts if isinstance(target, ast.Tuple) else [target]
            names |= {element.id for element in elements if isinstance(element, ast.Name)}
    return {name for name in names if not name.startswith("__")}


def folder(module: str) -> str:
    """The folder of a module's file."""
    path = PROJECT.joinpath(*module.split("."))
    return str(path if path.is_dir() else path.parent)


def annotated(trees: dict[str, ast.Module]) -> set[str]:
    """The names of types that public functions take or return, and that public classes hold."""
    names: set[str] = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            annotation = node.annotation if isinstance(node, ast.AnnAssign | ast.arg) else None
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                annotation = node.returns
            names |= {one.id for one in ast.walk(annotation) if isinstance(one, ast.Name)} if annotation else set()
    return names


def uses(trees: dict[str, ast.Module]) -> dict[tuple[str, str], set[str]]:
    """(module, name) -> the folders whose modules import the name, or take it from the imported module."""
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for user, tree in trees.items():
        imported: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    if whole in trees:
                        imported[alias.asname or alias.name] = whole
                    found[node.module, alias.name].add(folder(user))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
                found[imported[node.value.id], node.attr].add(folder(user))
    return found


def test_a_name_is_public_exactly_where_another_folder_or_a_user_uses_it() -> None:
    trees = modules()
    used = uses(trees)
    offered = {*trafficcast.__all__, *trafficcast.nn.__all__, *annotated(trees)}
    needless, trespassed = [], []
    for module, tree in trees.items():
        for name in sorted(defined(tree)):
            elsewhere = used[module, name] - {folder(module)}
            called = name in ENTRIES or name in offered or f"{module}.".startswith(INTERFACES)
            if name.startswith("_") and elsewhere:
                trespassed.append(f"{module}.{name}")
            elif not name.startswith("_") and not elsewhere and not called:
                needless.append(f"{module}.{name}")
    assert not needless, "no other folder uses them: begin them with an underscore"
    assert not trespassed, "other folders use them: take the underscore away"
