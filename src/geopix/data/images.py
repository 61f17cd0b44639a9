"""Reading images from files: PNG, JPEG, GeoTIFF and whatever else GDAL opens, any number of bands, any real dtype.

Values come out in 0..1 by a range that the user declares; only 8-bit files have one by themselves. A range is never guessed from the pixels, because
two images of one data set would then mean different things.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Bool, Float32, Shaped
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geopix.data.georeference import place_in_file
from geopix.types import Georeference

STRICT = {"GDAL_ERROR_ON_LIBJPEG_WARNING": "YES"}
"""GDAL fills the missing end of a cut-off JPEG with grey unless told otherwise."""

SIGNATURES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "BigTIFF", b"MM\0+": "BigTIFF"}


@dataclass(frozen=True)
class Scaling:
    """The declared range of stored values: ``low`` becomes 0, ``high`` becomes 1, and what lies outside is clipped.

    Args:
        low: stored value that means 0.
        high: stored value that means 1; None means the greatest value of an 8-bit file and is refused for every other type.

    Raises:
        ValueError: unless ``high`` is above ``low``.
    """

    low: float | int = 0.0
    high: float | int | None = None

    def __post_init__(self) -> None:
        if self.high is not None and not self.high > self.low:
            raise ValueError(f"a range of stored values needs low < high; found low={self.low}, high={self.high}.")


@dataclass(frozen=True)
class Original:
    """An image at its own size, as it stands in its file.

    Args:
        path: the file.
        values: in 0..1; 0 where they are missing.
        valid: where any band has a value.
        georeference: its place on the earth; None where the file does not say it.
    """

    path: Path
    values: Float32[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]
    georeference: Georeference | None


def read_image(
    path: Path, bands: Sequence[int] | None, scale: Scaling, window: Sequence[int] | None = None
) -> tuple[Float32[np.ndarray, "c h w"], Georeference | None]:
    """Values and place of :func:`read_original`."""
    image = read_original(path, bands, scale, window)
    return image.values, image.georeference


def read_original(path: Path, bands: Sequence[int] | None, scale: Scaling, window: Sequence[int] | None = None) -> Original:
    """An image with values in 0..1, where it has data, and its place on the earth, if the file says it.

    Missing values become 0. In an 8-bit file a pixel is missing when *all* bands read hold the declared nodata value (0 and 255 are ordinary in
    one band alone); in other types each band counts for itself. NaN and infinity are always missing, and so is what a mask of the file leaves out, or an
    alpha band that is not read itself and holds 0. A palette becomes red, green, blue.
    Scales, offsets and EXIF orientation that a file may declare are not applied.

    A place that is said by control points is the affine transform that fits them best; a grid without a CRS has the CRS "".

    Args:
        path: the file.
        bands: numbers of the bands to read, in this order, the first being 1 as in rasterio; None reads all except alpha.
        scale: the declared range.
        window: the part to read, as left, top, width and height in pixels; all of it by default. Of a tiled file only the tiles that it touches are read.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no image, is damaged, lacks a band, needs a declared range, or does not hold the window.
    """
    _require_file(path)
    try:
        with rasterio.Env(**STRICT), _opened(path) as dataset:
            if dataset.driver == "PNG" and not _is_whole_png(path):
                raise ValueError(f"{path} cannot be read as an image: {describe(path)}.")
            chosen = _choose(path, dataset, bands)
            part = _window(path, dataset, window)
            values = dataset.read(chosen, window=part)
            if bands is None and dataset.colorinterp[0] == ColorInterp.palette:
                values, missing = _palette(values, dataset), np.zeros((1, 1, 1), dtype=bool)
            else:
                missing = _missing(values, [dataset.nodatavals[band - 1] for band in chosen])
            missing = missing | _masked(dataset, chosen, part)
            low, high = _range(path, values, missing, scale, dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS"))
            place = place_in_file(path, dataset, part)
    except RasterioError as error:
        raise ValueError(f"{path} cannot be read as an image: {describe(path)}. ({_short(error)})") from error
    if values.dtype == np.uint8:  # 256 values are scaled once, and looked up
        image = _scaled(np.arange(256, dtype=np.uint8), low, high).take(values)
    else:
        image = _scaled(np.where(missing, values.dtype.type(0), values), low, high)
    valid = np.broadcast_to(~missing.all(axis=0), values.shape[1:])
    return Original(path, np.where(missing, np.float32(0), image) if missing.any() else image, valid, place)


def check_image(path: Path, bands: Sequence[int] | None, scale: Scaling, window: Sequence[int] | None = None) -> tuple[int, int, int]:
    """Bands, rows and columns that :func:`read_image` would give, and most of what it would complain about: all that shows without decoding pixels.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_image` does.
    """
    _require_file(path)
    try:
        with _opened(path) as dataset:
            count, part = _count(path, dataset, bands), _window(path, dataset, window)
            height, width = (dataset.height, dataset.width) if part is None else (part.height, part.width)
            doubtful = (dataset.driver == "PNG" and not _is_whole_png(path)) or (scale.high is None and dataset.dtypes[0] != "uint8")
    except RasterioError as error:
        raise ValueError(f"{path} cannot be read as an image: {describe(path)}. ({_short(error)})") from error
    if doubtful:
        read_image(path, bands, scale, window)  # says what is wrong
    return count, height, width


def image_size(path: Path, bands: Sequence[int] | None = None) -> tuple[int, int, int]:
    """Bands that :func:`read_image` would give, rows and columns, from the file's header alone.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no image or lacks a band.
    """
    _require_file(path)
    try:
        with _opened(path) as dataset:
            return _count(path, dataset, bands), dataset.height, dataset.width
    except RasterioError as error:
        raise ValueError(f"{path} cannot be read as an image: {describe(path)}. ({_short(error)})") from error


def describe(path: Path) -> str:
    """What a file that is not what it should be looks like, in words, from its first bytes."""
    with path.open("rb") as file:
        head = file.read(2048)
    size = path.stat().st_size
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \r\n\t")
    if not head:
        return "it is empty (0 bytes); download it again"
    if text.startswith("version https://git-lfs"):
        return f"it is a git-lfs pointer ({size} bytes), not the file itself; run 'git lfs pull' where it was cloned"
    if re.match(r"(?i)<!doctype html|<html", text):
        title = re.search(r"(?is)<title>(.*?)</title>", text)
        return f"it is an HTML page ({size} bytes{f', title {title[1].strip()!r}' if title else ''}), such as a failed download leaves; download it again"
    if head.startswith(b"PK\x03\x04"):
        return f"it is a zip archive ({size} bytes); unpack it"
    for signature, name in SIGNATURES.items():
        if head.startswith(signature):
            return f"it begins like a {name} ({size} bytes) but is cut off or damaged; download it again"
    if "\0" not in text and "\ufffd" not in text:
        return f"it is a text file ({size} bytes) that begins with {text[:40]!r}"
    return f"its content is of no known image format ({size} bytes, first bytes {head[:8].hex(' ')})"


def _require_file(path: Path) -> None:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist" if path.parent.is_dir() else f"does not exist (nor does its folder {path.parent})"
        hint = " Its name holds backslashes; write paths with forward slashes." if "\\" in str(path) else ""
        raise FileNotFoundError(f"the image {path} {found}.{hint}")


def _opened(path: Path) -> rasterio.io.DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


def _is_whole_png(path: Path) -> bool:
    """Whether the chunks of a PNG reach its end mark; GDAL returns zeros for what was cut off and says nothing."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"IEND":
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _count(path: Path, dataset: rasterio.io.DatasetReader, bands: Sequence[int] | None) -> int:
    """Bands that reading gives."""
    return 3 if bands is None and dataset.colorinterp[0] == ColorInterp.palette else len(_choose(path, dataset, bands))


def _choose(path: Path, dataset: rasterio.io.DatasetReader, bands: Sequence[int] | None) -> list[int]:
    """Numbers of the bands to read."""
    if bands is None:
        return [band for band, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True) if meaning != ColorInterp.alpha] or [1]
    if beyond := [band for band in bands if not 1 <= band <= dataset.count]:
        raise ValueError(
            f"{path} has {dataset.count} band(s), numbered from 1, of type {dataset.dtypes[0]}; asked for bands {list(bands)}, without {beyond}. "
            "Give the numbers of bands that every file has, or none to read all."
        )
    if not bands:
        raise ValueError(f"no band to read from {path}: bands is empty. Leave it out to read all.")
    return list(bands)


def _window(path: Path, dataset: rasterio.io.DatasetReader, window: Sequence[int] | None) -> Window | None:
    if window is None:
        return None
    left, top, width, height = window
    if min(left, top) < 0 or min(width, height) < 1 or left + width > dataset.width or top + height > dataset.height:
        raise ValueError(f"{path} is {dataset.width} x {dataset.height} pixels; the window {list(window)} (left, top, width, height) does not lie in it.")
    return Window(left, top, width, height)


def _palette(values: Shaped[np.ndarray, "1 h w"], dataset: rasterio.io.DatasetReader) -> Shaped[np.ndarray, "3 h w"]:
    table = np.zeros((256, 3), dtype=np.uint8)
    for index, colour in dataset.colormap(1).items():
        table[index] = colour[:3]
    return np.ascontiguousarray(table[values[0]].transpose(2, 0, 1))


def _missing(values: Shaped[np.ndarray, "c h w"], nodata: Sequence[float | None]) -> Bool[np.ndarray, "_ _ _"]:
    """Where values are missing by themselves, by the rule that :func:`read_original` documents."""
    if values.dtype.kind in "iu" and all(value is None for value in nodata):
        return np.zeros((1, 1, 1), dtype=bool)
    missing: np.ndarray = ~np.isfinite(values)
    for band, value in enumerate(nodata):
        if value is not None and not np.isnan(value):
            missing[band] |= values[band] == value
    return np.asarray(missing.all(axis=0, keepdims=True)) if values.dtype == np.uint8 else missing


def _masked(dataset: rasterio.io.DatasetReader, chosen: Sequence[int], part: Window | None) -> Bool[np.ndarray, "1 _ _"]:
    """Where a mask of the file, or an alpha band of all or nothing that is not among the chosen, says that there is no data."""
    alpha = [band for band, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True) if meaning == ColorInterp.alpha]
    if alpha and alpha[0] not in chosen:
        values = dataset.read(alpha[:1], window=part)
        seen = values[values != 0]
        if (seen == seen[:1]).all():  # GDAL calls any fourth band alpha; infrared has many values
            return np.asarray(values == 0)
    if dataset.mask_flag_enums[chosen[0] - 1] == [MaskFlags.per_dataset]:
        return np.asarray(dataset.read_masks(chosen[:1], window=part) == 0)
    return np.zeros((1, 1, 1), dtype=bool)


def _range(path: Path, values: Shaped[np.ndarray, "c h w"], missing: Bool[np.ndarray, "_ _ _"], scale: Scaling, bits: str | None) -> tuple[float, float]:
    """The declared range, or the natural one of an 8-bit file."""
    if np.iscomplexobj(values):
        raise ValueError(f"{path} holds complex numbers ({values.dtype}); write its magnitude to a file of real numbers first.")
    if scale.high is not None:
        return float(scale.low), float(scale.high)
    if values.dtype == np.uint8:
        return float(scale.low), max(float(2 ** int(bits or 8) - 1), float(scale.low) + 1)
    valid = values[~np.broadcast_to(missing, values.shape)]
    if not len(valid):
        raise ValueError(f"{path} is {values.dtype}, holds no valid value at all, and no range is declared; give low and high, the values that mean 0 and 1.")
    low, high = np.percentile(valid, [2, 98])
    raise ValueError(
        f"{path} is {values.dtype}, and no range is declared: which stored value means 1 cannot be known. Found: min {valid.min():g}, 2 % below {low:g}, "
        f"98 % below {high:g}, max {valid.max():g}. Declare one range for the whole data set, such as low={min(low, 0):g} and high={high:g} "
        "(0 and 10000 for reflectance stored as integers)."
    )


def _scaled(values: Shaped[np.ndarray, "*sides"], low: float, high: float) -> Float32[np.ndarray, "*sides"]:
    return np.clip((values.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
