"""The page of operations, made from the OpenAPI schema: HTML without scripts and without any other file."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment


def _operations_page(schema: dict[str, Any]) -> str:
    """Return the page of an OpenAPI schema: operations with their parameters, and answers with their fields."""
    operations = [
        {"method": method.upper(), "path": path, "answer": _answer(operation), **operation}
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    ]
    answers = {
        name: [
            {"name": field, "type": _type(details), "description": details.get("description", "")}
            for field, details in described.get("properties", {}).items()
        ]
        for name, described in schema["components"]["schemas"].items()
    }
    about = {name: described.get("description", "") for name, described in schema["components"]["schemas"].items()}
    return _TEMPLATE.render(info=schema["info"], operations=operations, answers=answers, about=about)


def _answer(operation: dict[str, Any]) -> str:
    """Return the type of an operation's answer in words."""
    content = operation["responses"]["200"]["content"]
    return _type(content["application/json"]["schema"])


def _type(schema: dict[str, Any]) -> str:
    """Return a type in words, such as `array of number or null`."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))


def _linked(text: str, known: Any) -> list[tuple[str, bool]]:
    """Return a type's words, and whether each has its own section on the page."""
    return [(word, word in known) for word in re.split(r"(\W+)", text)]


_ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.filters["linked"] = _linked
_TEMPLATE = _ENVIRONMENT.from_string("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ info.title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
code { font-family: ui-monospace, monospace; font-size: 0.95em; }
h2 { margin-top: 2.5rem; }
h3 { margin: 1.8rem 0 0.3rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: 0.2rem 1rem 0.2rem 0; border-bottom: 1px solid #8884; }
td:first-child { white-space: nowrap; width: 9rem; }
td:nth-child(2) { width: 14rem; }
p { margin: 0.3rem 0; }
</style>
</head>
<body>
{% macro type(text) %}
{% for word, known in text | linked(answers) %}
{%- if known %}<a href="#{{ word }}">{{ word }}</a>{% else %}{{ word }}{% endif -%}
{% endfor %}
{% endmacro %}
<h1>{{ info.title }} {{ info.version }}</h1>
{% for line in info.description.split("\n\n") %}
<p>{{ line }}</p>
{% endfor %}
<p>For programs: <a href="openapi.json">openapi.json</a></p>
<h2>Operations</h2>
{% for operation in operations %}
<h3><code>{{ operation.method }} {{ operation.path }}</code></h3>
<p>{{ operation.description }}</p>
{% if operation.parameters %}
<table>
{% for parameter in operation.parameters %}
<tr><td><code>{{ parameter.name }}</code></td>
<td>{{ "required" if parameter.required else "optional" }}, in the {{ parameter["in"] }}</td>
<td>{{ parameter.description or "" }}</td></tr>
{% endfor %}
</table>
{% endif %}
<p>Answers {{ type(operation.answer) }}</p>
{% endfor %}
<h2>Answers</h2>
{% for name, fields in answers.items() %}
<h3 id="{{ name }}">{{ name }}</h3>
<p>{{ about[name] }}</p>
<table>
{% for field in fields %}
<tr><td><code>{{ field.name }}</code></td><td>{{ type(field.type) }}</td><td>{{ field.description }}</td></tr>
{% endfor %}
</table>
{% endfor %}
</body>
</html>
""")
