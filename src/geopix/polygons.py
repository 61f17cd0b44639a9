"""Masks as polygons in longitude and latitude, as GeoJSON asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, TypedDict

import numpy as np
from jaxtyping import Bool, Float
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.warp import transform, transform_geom
from torch import Tensor

from geopix.types import Georeference

WGS84 = "EPSG:4326"

TOLERANCE = 0.05
"""Pixels that an edge may stray from its line of pixels where that is tried; half of what is promised, for between those places it may stray further."""

TRIED = np.array([[0.25], [0.5], [0.75]])
"""Shares of an edge where it is tried: an edge that bends to both sides may be right in its middle."""

Ring = list[list[float]]
Properties = Mapping[str, str | int | float]


class Polygon(TypedDict):
    """A GeoJSON polygon: the outer ring counterclockwise, then its holes clockwise; each point is longitude, latitude."""

    type: Literal["Polygon"]
    coordinates: list[Ring]


class Feature(TypedDict):
    """A GeoJSON feature."""

    type: Literal["Feature"]
    properties: dict[str, str | int | float]
    geometry: Polygon


def vectorise(mask: Bool[Tensor, "h w"], georeference: Georeference, properties: Properties | None = None) -> list[Feature]:
    """The connected regions of a mask as GeoJSON polygons in WGS84 longitude and latitude, as RFC 7946 asks.

    Outlines follow the edges of pixels; pixels that touch only at a corner are separate regions, so every polygon is valid. What is straight in the image's
    own CRS is bent in longitude and latitude, so long edges get vertices between their ends until none strays by more than 0.1 pixels; short ones get none.

    Args:
        georeference: of the image that the mask belongs to.
        properties: copied into each feature.

    Raises:
        ValueError: when the georeference has no CRS.
    """
    if not georeference["crs"]:
        raise ValueError("the georeference has no CRS, so its pixels have no longitude and latitude; give the image a CRS or use the GeoTIFF.")
    crs, grid, pixels = CRS.from_wkt(georeference["crs"]), Affine(*georeference["transform"]), mask.detach().cpu().numpy()
    regions = [region["coordinates"] for region, _ in shapes(pixels.astype(np.uint8), mask=pixels, connectivity=4)]
    if not regions:
        return []
    dense = iter(_dense([np.array(ring) for rings in regions for ring in rings], crs, grid))
    placed = [{"type": "Polygon", "coordinates": [_through(grid, next(dense)).tolist() for _ in rings]} for rings in regions]
    features: list[Feature] = []
    for polygon in transform_geom(crs, WGS84, placed):
        parts = [polygon["coordinates"]] if polygon["type"] == "Polygon" else polygon["coordinates"]  # two where it crosses the date line
        for rings in parts:
            wound = [_wind(ring, outer=place == 0) for place, ring in enumerate(rings)]
            features.append({"type": "Feature", "properties": dict(properties or {}), "geometry": {"type": "Polygon", "coordinates": wound}})
    return features


def on_earth(georeference: Georeference) -> bool:
    """Whether a georeference leads to longitude and latitude."""
    if not georeference["crs"]:
        return False
    crs = CRS.from_wkt(georeference["crs"])
    return bool(crs.is_geographic or crs.is_projected)


def _dense(rings: list[Float[np.ndarray, "_ 2"]], crs: CRS, grid: Affine) -> list[Float[np.ndarray, "_ 2"]]:
    """Rings in pixels, x before y, with vertices put into edges that would stray too far, but none closer than a pixel to the next."""
    while True:
        starts, ends = np.concatenate([ring[:-1] for ring in rings]), np.concatenate([ring[1:] for ring in rings])
        lengths = np.abs(ends - starts).max(axis=1)
        pieces, long = np.ones(len(starts), dtype=int), lengths > 1
        strayed = _strayed(starts[long], ends[long], crs, grid)
        # An edge strays by the square of its length.
        pieces[long] = np.clip(np.ceil(np.sqrt(strayed / TOLERANCE)), 1, np.ceil(lengths[long])).astype(int)
        if (pieces == 1).all():
            return rings
        first = np.cumsum(pieces) - pieces
        share = (np.arange(pieces.sum()) - np.repeat(first, pieces)) / np.repeat(pieces, pieces)
        points = np.repeat(starts, pieces, axis=0) + share[:, None] * np.repeat(ends - starts, pieces, axis=0)
        edges = np.cumsum([len(ring) - 1 for ring in rings])[:-1]
        rings = [np.concatenate([part, part[:1]]) for part in np.split(points, first[edges])]


def _strayed(starts: Float[np.ndarray, "e 2"], ends: Float[np.ndarray, "e 2"], crs: CRS, grid: Affine) -> Float[np.ndarray, " e"]:
    """How many pixels each edge, drawn straight in longitude and latitude, leaves its line of pixels, which run along rows and columns."""
    if not len(starts):
        return np.zeros(0)
    here, there = (_transformed(crs, WGS84, _through(grid, points)) for points in (starts, ends))
    turn = there - here
    turn[:, 0] = (turn[:, 0] + 180) % 360 - 180
    straight = (here[:, None] + TRIED * turn[:, None]).reshape(-1, 2)
    back = _through(~grid, _transformed(WGS84, crs, straight)).reshape(len(starts), len(TRIED), 2)
    along = np.sign(ends - starts)[:, None]
    off = back - starts[:, None]
    return np.nan_to_num(np.abs(along[..., 0] * off[..., 1] - along[..., 1] * off[..., 0]).max(axis=1), posinf=0)


def _through(grid: Affine, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    return np.asarray(points @ np.array([[grid.a, grid.d], [grid.b, grid.e]]) + (grid.c, grid.f))


def _transformed(source: CRS | str, target: CRS | str, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    return np.stack(transform(source, target, points[:, 0], points[:, 1]), axis=1)


def _wind(ring: Sequence[Sequence[float]], *, outer: bool) -> Ring:
    west, south = ring[0][:2]  # measured from here, or a pixel would drown in the rounding of degrees
    points = [[float(point[0]), float(point[1])] for point in ring]
    area = sum((x - west) * (v - south) - (u - west) * (y - south) for (x, y), (u, v) in pairwise(points))
    return points if (area > 0) == outer else points[::-1]
