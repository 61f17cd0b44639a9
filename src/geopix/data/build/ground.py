"""The ground sampling distance of an image, from its georeference."""

from __future__ import annotations

import math

from rasterio.crs import CRS
from rasterio.warp import transform as reproject

from geopix.types import Georeference


def ground_sampling(place: Georeference, height: int, width: int) -> float | None:
    """Metres per pixel in the middle of an image, measured on the ground; None where the CRS has no place on the earth."""
    if not place["crs"]:
        return None
    a, b, c, d, e, f = place["transform"]
    crs = CRS.from_wkt(place["crs"])
    if not (crs.is_projected or crs.is_geographic):
        return None
    columns, rows = (width / 2, width / 2 + 1, width / 2), (height / 2, height / 2, height / 2 + 1)
    xs = [a * x + b * y + c for x, y in zip(columns, rows, strict=True)]
    ys = [d * x + e * y + f for x, y in zip(columns, rows, strict=True)]
    longitudes, latitudes = reproject(crs, CRS.from_epsg(4326), xs, ys)
    metres = 6371008.8 * math.pi / 180
    squash = math.cos(math.radians(latitudes[0]))
    steps = [math.hypot((longitudes[i] - longitudes[0]) * squash, latitudes[i] - latitudes[0]) * metres for i in (1, 2)]
    return round(math.sqrt(steps[0] * steps[1]), 4)
