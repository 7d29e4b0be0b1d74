"""The picture of where vehicles report."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from dashboard.density import png_uri, point_counts, shade_levels


def test_points_fall_on_their_pixels_north_up(place: Any) -> None:
    store = place.add_records([10.01, 10.01, 10.69, 10.35, 11.0], [45.49, 45.49, 45.01, 45.25, 45.2])
    counts = point_counts(store, store.manifest(), place.city, size=8)
    assert counts[0, 0] == 2 and counts[7, 7] == 1
    assert counts.sum() == 4  # one lies outside the box
    # On a Mercator map the middle latitude lies a little south of the middle.
    assert counts[4, 4] == 1


def test_shades_grow_with_the_logarithm_and_none_is_none() -> None:
    levels = shade_levels(np.array([[0, 1, 10], [100, 1000, 1000]]))
    assert levels[0, 0] == 0 and levels[1, 2] == 15
    assert levels[0, 1] > 0
    assert np.ptp(np.diff([levels[0, 2], levels[1, 0], levels[1, 1]]).astype(int)) <= 1
    assert not shade_levels(np.zeros((2, 2), int)).any()


def test_the_picture_is_a_png_within_the_page_clear_where_nobody_reported() -> None:
    levels = np.array([[0, 15], [7, 0]], np.uint8)
    uri = png_uri(levels)
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))[:, :, 3]
    assert alpha[0, 0] == alpha[1, 1] == 0
    assert alpha[0, 1] > alpha[1, 0] > 0
