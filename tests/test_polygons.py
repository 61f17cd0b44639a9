"""Polygons of masks: where they lie on the earth, however long their edges are."""

import numpy as np
import pytest
import shapely
import torch
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform
from shapely.geometry import shape

from geopix.polygons import vectorise
from geopix.types import Georeference

SIDE = 10_980
TILE = (10.0, 0.0, 399960.0, 0.0, -10.0, 5400000.0)
POLAR = (10_000.0, 0.0, -2_000_000.0, 0.0, -10_000.0, 2_000_000.0)


def _place(epsg: int, grid: tuple[float, ...]) -> Georeference:
    return {"crs": CRS.from_epsg(epsg).to_wkt(), "transform": grid}


def _in_pixels(ring: list[list[float]], place: Georeference) -> np.ndarray:
    """A hundred points on every edge of a ring, drawn straight in longitude and latitude, in pixels."""
    corners = np.array(ring)
    shares = np.linspace(0, 1, 100, endpoint=False)[:, None]
    points = (corners[:-1, None] + shares * (corners[1:] - corners[:-1])[:, None]).reshape(-1, 2)
    xs, ys = transform("EPSG:4326", CRS.from_wkt(place["crs"]), points[:, 0], points[:, 1])
    return np.stack(~Affine(*place["transform"]) * (np.array(xs), np.array(ys)), axis=1)


def test_a_whole_tile_with_a_hole_near_its_edge_is_valid_and_lies_where_it_lies() -> None:
    mask = torch.ones(SIDE, SIDE, dtype=torch.bool)
    mask[5485:5495, 3:9] = mask[1, 1000:9000] = False
    place = _place(32631, TILE)
    (feature,) = vectorise(mask, place)
    assert shape(feature["geometry"]).is_valid
    rings = feature["geometry"]["coordinates"]
    assert len(rings) == 3
    truth = shapely.unary_union([shapely.box(0, 0, SIDE, SIDE).boundary, shapely.box(3, 5485, 9, 5495).boundary, shapely.box(1000, 1, 9000, 2).boundary])
    strayed = [shapely.distance(shapely.points(_in_pixels(ring, place)), truth).max() for ring in rings]
    assert max(strayed) < 0.1
    assert sorted(map(len, rings)) < [5, 50, 200], "no more vertices than are needed"
    assert 5 in map(len, rings), "a small ring gets none"


@pytest.mark.parametrize(
    ("epsg", "grid"), [(3031, POLAR), (3035, (10_000.0, 0.0, 2_500_000.0, 0.0, -10_000.0, 5_400_000.0)), (4326, (0.01, 0.0, 5.0, 0.0, -0.01, 50.0))]
)
def test_edges_keep_to_their_pixels_in_every_kind_of_crs(epsg: int, grid: tuple[float, ...]) -> None:
    mask = torch.zeros(400, 400, dtype=torch.bool)
    mask[20:380, 15:150] = True
    place = _place(epsg, grid)
    (feature,) = vectorise(mask, place)
    points = _in_pixels(feature["geometry"]["coordinates"][0], place)
    assert shapely.distance(shapely.points(points), shapely.box(15, 20, 150, 380).boundary).max() < 0.1
    if epsg == 4326:
        assert len(feature["geometry"]["coordinates"][0]) == 5
