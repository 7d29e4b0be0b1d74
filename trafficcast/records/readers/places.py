"""Read places that stand in one column: points as well-known text or bytes, GeoJSON, pairs of numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
import shapely

from trafficcast.records.readers.cell_values import _decoded, _is_bytes, _texts

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
# POINT(9.18 45.47), also with an SRID and a height, [9.18, 45.47] and GeoJSON: the longitude first.
_LON_LAT = (
    r'^(?i:(?:SRID=\d+;)?\s*POINT\s*Z?M?\s*\(|\[|\{.*"coordinates"\s*:\s*\[)\s*'
    rf"(?P<lon>{_NUMBER})[\s,]+(?P<lat>{_NUMBER})(?:[\s,]+{_NUMBER})*\s*[)\]].*$"
)
_LAT_LON = rf"^\(?\s*(?P<lat>{_NUMBER})\s*[,;\s]\s*(?P<lon>{_NUMBER})\s*\)?$"  # as maps show a place to copy
_HEXADECIMAL = r"^0[01]([0-9A-Fa-f]{2}){20,}$"  # well-known bytes, as PostGIS writes them


def _lon_and_lat(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the longitudes and the latitudes of places; null where a value is no place."""
    column = _decoded(column)
    if pt.is_list(column.type) or pt.is_large_list(column.type) or pt.is_fixed_size_list(column.type):
        texts = pc.binary_join(pc.cast(column, pa.list_(pa.string())), ", ")
        column = pc.binary_join_element_wise("[", texts, "]", "")
    if _is_bytes(column.type) and (known := _of_bytes(column.cast(pa.binary()).to_numpy(zero_copy_only=False))):
        return known
    texts = pc.utf8_trim_whitespace(_texts(column))
    of_digits = pc.match_substring_regex(texts, _HEXADECIMAL)
    if pc.any(of_digits).as_py():
        digits = pc.if_else(of_digits, texts, pa.scalar(None, pa.string())).to_pylist()
        known = _of_bytes(np.array([text and bytes.fromhex(text) for text in digits], object))
        if known:
            return known
    found = [pc.extract_regex(texts, pattern) for pattern in (_LON_LAT, _LAT_LON)]
    lon, lat = (pc.coalesce(*(pc.struct_field(parts, name) for parts in found)) for name in ("lon", "lat"))
    return lon, lat


def _of_bytes(values: np.ndarray) -> tuple[pa.Array, pa.Array] | None:
    """Return longitudes and latitudes of well-known bytes; None where no value is a point."""
    points = shapely.from_wkb(values, on_invalid="ignore")
    if not np.isin(shapely.get_type_id(points), shapely.GeometryType.POINT).any():
        return None
    return pa.array(shapely.get_x(points)), pa.array(shapely.get_y(points))
