"""The picture of where vehicles report as an image of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from dashboard.data.street_image import _street_image
from trafficcast.quality.point_density import png_uri


def test_it_is_as_high_as_the_box_on_the_ground_and_light(place: Any) -> None:
    levels = np.zeros((64, 64), np.uint8)
    levels[:32, :32] = 15
    image = _street_image(png_uri(levels), place.city, 400)
    # 0.7 degrees of longitude at 45.25 degrees north are 0.493 of latitude; a frame of 2 pixels around.
    assert image.width == 404 and abs(image.height - 4 - 400 * 0.5 / 0.4928) < 2
    dark, light = image.getpixel((100, 100)), image.getpixel((300, 300))
    assert sum(dark) < 300 and light == (255, 255, 255)  # type: ignore[arg-type]
