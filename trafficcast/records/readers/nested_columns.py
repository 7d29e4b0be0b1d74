"""Values inside of others, by dotted names: `vehicle.position.latitude` of a struct or a JSON object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt


def _leaves(fields: Iterable[pa.Field], above: str = "") -> Iterator[pa.Field]:
    """Yield the fields that hold values, under their dotted names."""
    for field in fields:
        if pt.is_struct(field.type):
            yield from _leaves(field.type.fields, f"{above}{field.name}.")
        else:
            yield field.with_name(above + field.name)


def _leaf(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array | pa.ChunkedArray:
    """Return the column of a dotted name."""
    if name in table.schema.names:
        return table.column(name)
    first, _, rest = name.partition(".")
    while first not in table.schema.names:  # a name with a dot of its own
        more, _, rest = rest.partition(".")
        first = f"{first}.{more}"
    column = table.column(first)
    for part in rest.split("."):
        column = pc.struct_field(column, part)
    return column


def _nested_schema(types: Mapping[str, pa.DataType]) -> pa.Schema | None:
    """Return the schema of objects that hold values under dotted names; None where a value would hold another."""
    tree: dict[str, Any] = {}
    for name, kind in types.items():
        *parents, last = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                return None
        if last in branch:
            return None
        branch[last] = kind
    return pa.schema(_fields(tree))


def _fields(tree: Mapping[str, Any]) -> list[pa.Field]:
    """Return the fields of a tree of types."""
    return [pa.field(name, pa.struct(_fields(kind)) if isinstance(kind, dict) else kind) for name, kind in tree.items()]


def _names_of_values(found: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted names of an object's values."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _names_of_values(value, f"{above}{name}.")
        else:
            yield above + name


def _value(found: Any, name: str) -> Any:
    """Return an object's value under a dotted name; None where there is none."""
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
