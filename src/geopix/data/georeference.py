"""Where an image lies on the earth: as its file says it, or its record."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window
from rasterio.windows import transform as transform_of

from geopix.data.records import Record
from geopix.types import Georeference

LOG = logging.getLogger(__name__)

FITS = 1.0
"""Pixels by which the transform that fits control points best may miss one of them without a warning."""


def place_of(record: Record, found: Georeference | None) -> Georeference | None:
    """Where a record's image (or the part of it that the record is about) lies: as its file says it, or else the record.

    Args:
        found: what the file says.

    Raises:
        ValueError: when the record names no CRS that is known.
    """
    said = record.get("georeference")
    if not said or (found is not None and found["crs"]):
        return found
    try:
        crs = CRS.from_user_input(said["crs"])
    except CRSError as error:
        name, wrong = record.get("key", record["image"]), f"{said['crs'][:60]!r} ({error})"
        raise ValueError(f"the georeference of {name} names a CRS that is not known: {wrong}; expected one like EPSG:32636.") from error
    a, b, c, d, e, f = map(float, said["transform"])
    return {"crs": crs.to_wkt(), "transform": (a, b, c, d, e, f)}


def place_in_file(path: Path, dataset: rasterio.io.DatasetReader, part: Window | None) -> Georeference | None:
    """Where an image file, or a part of it, lies: by its transform, or else by control points, of which one message tells how well they are met.

    Returns:
        None where the file says nothing; a CRS "" where it has a grid without one.
    """
    points, crs = dataset.gcps
    whole = dataset.transform
    if not whole.is_identity:
        crs = dataset.crs
    elif not points or (whole := _fitted(path, points)) is None:
        return None
    a, b, c, d, e, f = map(float, tuple(whole if part is None else transform_of(part, whole))[:6])
    return {"crs": crs.to_wkt() if crs else "", "transform": (a, b, c, d, e, f)}


def _fitted(path: Path, points: Sequence[GroundControlPoint]) -> Affine | None:
    """The affine transform that fits control points best; None where they lie on a line. (Of such, rasterio's from_gcps makes arbitrary numbers.)"""
    pixels, places = np.array([(point.col, point.row, 1) for point in points]), np.array([(point.x, point.y) for point in points])
    middle = places.mean(axis=0)
    (across, down, start), _, rank, _ = np.linalg.lstsq(pixels, places - middle)
    steps = np.stack([across, down], axis=1)
    if rank < 3 or np.linalg.matrix_rank(steps) < 2:
        _tell(logging.WARNING, f"the {len(points)} control points of {path} do not tell where it lies: it takes three or more that lie on no line.")
        return None
    off = np.hypot(*np.linalg.solve(steps, (places - middle - pixels @ np.stack([across, down, start])).T)).max()
    said = f"{path} says where it lies by {len(points)} control points: the affine transform that fits them best misses them by up to {off:.2f} pixels"
    if off > FITS:
        _tell(logging.WARNING, f"{said}, so what is drawn lies that far off on the earth. Warp the image to a grid first (gdalwarp).")
    else:
        _tell(logging.INFO, f"{said}.")
    return Affine(across[0], down[0], start[0] + middle[0], across[1], down[1], start[1] + middle[1])


@lru_cache(maxsize=1024)
def _tell(level: int, text: str) -> None:
    """Logs a text once, however often its file is read."""
    LOG.log(level, text)
