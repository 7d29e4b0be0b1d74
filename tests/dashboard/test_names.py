"""Names come from data and configurations: no page compiles one, or shows it as anything but text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dashboard.page.labels import one_line, plain

SOURCES = sorted(Path(__file__).parents[2].glob("dashboard/**/*.py"))
COMPILERS = {"jinja2", "folium", "branca", "mako", "string.templatelib"}
SIGNS = st.one_of(st.text(), st.text(alphabet="\\`*_{}[]()<>#+-.!|~$:&^=%@/ aw1\n\t'\""))


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Calls of methods, by name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(file.parents[2])))
def test_no_page_can_compile_or_render_a_name(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            assert not {module.partition(".")[0] for module in modules} & COMPILERS
        assert not isinstance(node, ast.Name) or node.id not in {"eval", "exec", "compile"}
    for _, call in calls(file):
        assert not {keyword.arg for keyword in call.keywords} & {"unsafe_allow_html", "unsafe_allow_javascript"}


@given(SIGNS)
def test_any_name_is_shown_as_it_stands(name: str) -> None:
    escaped = plain(one_line(name))
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(f"before {escaped} after")
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
    shown = "".join(child.content for token in tokens for child in token.children or ())
    assert shown.replace("\N{WORD JOINER}", "").split() == f"before {one_line(name)} after".split()
