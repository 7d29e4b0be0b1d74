"""The picture of where vehicles report, framed by the city's box, as an image of its own."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageOps

from trafficcast.config.city import City

_PAPER, _FRAME = "white", "#7d7d7d"  # the ink is dark: without paper a dark page would hide it


def _street_image(picture: str, city: City, width: int) -> Image.Image:
    """The picture (a data URI, see `record_picture`) of the given width, pixels, with the box's proportions."""
    encoded = picture.partition(",")[2]
    ink = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA")
    narrowing = np.cos(np.radians((city.north + city.south) / 2))
    height = round(width * (city.north - city.south) / ((city.east - city.west) * narrowing))
    ink = ink.resize((width, max(1, min(height, 4 * width))), Image.Resampling.LANCZOS)
    paper = Image.new("RGBA", ink.size, _PAPER)
    paper.alpha_composite(ink)
    return ImageOps.expand(paper.convert("RGB"), border=2, fill=_FRAME)
