"""What an image file is: its real format, bands and type, gaps, and numbers by which equal and nearly equal images are found."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import rasterio
from jaxtyping import Bool, Float32
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geopix.data.images import Scaling, image_size, read_image
from geopix.data.records import Record
from geopix.types import Georeference

SUFFIXES = {"PNG": {".png"}, "JPEG": {".jpg", ".jpeg"}, "GTiff": {".tif", ".tiff", ".gtiff"}, "BMP": {".bmp"}, "WEBP": {".webp"}, "GIF": {".gif"}}
"""Endings that belong to a format, by GDAL's name of it."""

UNIFORM = 0.02
"""Standard deviation of the grey image, stretched to 0..1, below which a perceptual hash says nothing: all such images have the same."""


@dataclass(frozen=True)
class Look:
    """What reading an image file told.

    Args:
        height, width: in pixels.
        bands: as training reads them: without alpha.
        remarks: what is unusual about the file, in words.
        digest: of the file's bytes; where a part of it is read, of that part's values.
        perceptual, gradient: the 64 bits of imagehash's phash and dhash; None for an image without structure.
        georeference: where it lies on the earth, if it says so.
    """

    height: int
    width: int
    bands: int
    remarks: tuple[str, ...]
    digest: bytes
    perceptual: int | None
    gradient: int | None
    georeference: Georeference | None


def look_at(path: Path, window: Sequence[int] | None = None) -> Look:
    """Reads an image, or the part of it that a record is about.

    Raises:
        FileNotFoundError, ValueError: as :func:`geopix.data.images.read_image` does.
    """
    remarks, scale, missing = _examined(path, window)
    values, georeference = read_image(path, None, scale, window)
    bands, height, width = values.shape
    if bands == 1:
        remarks.append("image of one band")
    perceptual, gradient = hashes(values if missing is None else _filled(values, missing))
    content = path.read_bytes() if window is None else repr(values.shape).encode() + values.tobytes()
    place = georeference if georeference is not None and georeference["crs"] else None
    return Look(height, width, bands, tuple(remarks), hashlib.blake2b(content, digest_size=16).digest(), perceptual, gradient, place)


def own_size(record: Record, root: Path) -> tuple[int, int]:
    """Rows and columns of what a record is about, from the file's header.

    Raises:
        FileNotFoundError, ValueError: as :func:`geopix.data.images.image_size` does.
    """
    _, height, width = image_size(root / record["image"])
    window = record.get("window")
    return (height, width) if window is None else (window[3], window[2])


def hashes(values: Float32[np.ndarray, "c h w"]) -> tuple[int | None, int | None]:
    """The bits of imagehash's phash and dhash of the grey image, or None where there is nothing to tell images apart by."""
    grey = values.mean(axis=0)
    low, high = float(grey.min()), float(grey.max())
    if high <= low or float(((grey - low) / (high - low)).std()) < UNIFORM or min(grey.shape) < 8:
        return None, None
    picture = Image.fromarray(np.rint((grey - low) / (high - low) * 255).astype(np.uint8))
    perceptual, gradient = (int(str(of(picture)), 16) for of in (imagehash.phash, imagehash.dhash))
    return perceptual, gradient


def remarks_and_range(path: Path, window: Sequence[int] | None = None) -> tuple[list[str], Scaling]:
    """What is unusual about an image file or a part of it, and the range of its valid stored values where their type has none of its own.

    Raises:
        FileNotFoundError, ValueError: as :func:`geopix.data.images.image_size` does.
    """
    return _examined(path, window)[:2]


def _filled(values: Float32[np.ndarray, "c h w"], missing: Bool[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c h w"]:
    """An image whose missing values are the mean of their band, so that its gaps say nothing."""
    known = np.ma.masked_array(values, missing)
    return np.where(missing, known.mean(axis=(1, 2), keepdims=True).filled(0), values).astype(np.float32)


def _examined(path: Path, window: Sequence[int] | None) -> tuple[list[str], Scaling, Bool[np.ndarray, "c h w"] | None]:
    """Remarks and range, and where values are missing in an image that is not of 8 bits."""
    remarks: list[str] = []
    image_size(path)  # says in words what a file that is no image looks like
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                kind, driver, nodata = dataset.dtypes[0], dataset.driver, dataset.nodata
                bands = [band for band, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True) if meaning != ColorInterp.alpha]
                alpha = len(bands) < dataset.count
                values = None if kind == "uint8" and nodata is None else dataset.read(bands or [1], window=None if window is None else Window(*window))
    except RasterioError as error:
        raise ValueError(f"{path} cannot be read as an image: {str(error).splitlines()[0][:160]}") from error
    if driver in SUFFIXES and path.suffix.lower() not in SUFFIXES[driver]:
        remarks.append(f"{driver} file with another ending")
    if alpha:
        remarks.append("image with an alpha band")
    if kind != "uint8":
        remarks.append(f"{kind} image, whose range must be declared")
    if values is None:
        return remarks, Scaling(), None
    endless = ~np.isfinite(values)
    if endless.any():
        remarks.append("image with NaN or infinity")
    absent = np.zeros_like(endless) if nodata is None else values == nodata
    if absent.any():
        remarks.append("image with nodata")
    if kind == "uint8":
        return remarks, Scaling(), None
    missing = endless | absent
    valid = values[~missing]
    low, high = (float(valid.min()), float(valid.max())) if len(valid) else (0.0, 1.0)
    return remarks, Scaling(low, high if high > low else low + 1), missing
