"""The pieces of a record, checked one by one: pictures, masks against pictures, boxes against masks, texts.

What cannot be used is left out under one of the kinds below; what is only worth knowing is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco

from geopix.data.images import describe, image_size
from geopix.data.records import Record, instance
from geopix.data.sources.reader import About, Report
from geopix.data.sources.wording import phrase
from geopix.rle import decode_rle, decode_runs, encode_rle
from geopix.types import SEG

Box = tuple[float, float, float, float]

AGREES = 0.3
"""Least IoU of a box with the tight box of its mask; below, the two are told to disagree."""


@dataclass(frozen=True)
class Picture:
    """A picture that can be read.

    Args:
        path: its file.
        height, width: its own size in pixels.
        where: what names it in a report.
    """

    path: Path
    height: int
    width: int
    where: str


def open_picture(path: Path, report: Report, where: str | None = None, *, any_bands: bool = False) -> Picture | None:
    """A picture's size from its header; None, and left out, where it is missing, damaged, or not of three bands.

    A set has one number of bands, so a grey picture among coloured ones cannot be part of it as it is. Alpha does not count.
    """
    where = path.name if where is None else where
    try:
        bands, height, width = image_size(path)
    except FileNotFoundError as error:
        report.leave_out("missing picture", where, str(error))
        return None
    except ValueError as error:
        report.leave_out("unreadable picture", where, str(error))
        return None
    if bands != 3 and not any_bands:
        report.leave_out("picture not RGB", where, f"{path} has {bands} band(s) besides alpha; convert it to red, green and blue")
        return None
    return Picture(path, height, width, where)


def record_of(
    about: About, picture: Picture, key: str, split: str | None, dialogues: Sequence[dict[str, Any]], instances: Sequence[dict[str, Any]] = ()
) -> Record:
    """A record with the licence and the source of its set."""
    record: Record = {"image": str(picture.path.absolute()), "key": key} | ({"split": split} if split is not None else {})
    record |= {"licence": about.licence, "source": f"{about.name} ({about.publication})", "image_size": [picture.height, picture.width]}
    return record | {"instances": list(instances), "dialogues": list(dialogues)}


def box_of(values: Sequence[Any], picture: Picture, report: Report) -> Box | None:
    """A box ``x1 y1 x2 y2`` in pixels, cut off at the picture's edge; None where nothing is left of it. Both are counted."""
    x1, y1, x2, y2 = (float(value) for value in values)
    if x2 < x1 or y2 < y1:
        report.note("box with its corners in another order")
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(picture.width)), min(y2, float(picture.height))
    if cut != (x1, y1, x2, y2):
        report.note("box beyond the picture")
    return cut if cut[0] < cut[2] and cut[1] < cut[3] else None


def percent(box: Box, picture: Picture) -> Box:
    """A box in pixels as percent of the picture's width and height."""
    return 100 * box[0] / picture.width, 100 * box[1] / picture.height, 100 * box[2] / picture.width, 100 * box[3] / picture.height


def from_rle(
    picture: Picture, name: int | str, rle: Any, report: Report, *, of_class: str | None = None, box: Sequence[Any] | None = None
) -> dict[str, Any] | None:
    """An instance from a COCO RLE of either kind, or from a list that holds one; None, and left out, where it does not fit the picture or is empty."""
    rle = rle[0] if isinstance(rle, list) and len(rle) == 1 else rle
    where = f"{picture.where}, instance {name}"
    try:
        size, counts = [int(side) for side in rle["size"]], rle["counts"]
        counts = counts.decode("ascii") if isinstance(counts, bytes) else counts
        mask = decode_rle({"size": size, "counts": counts}) if isinstance(counts, str) else decode_runs(size, counts)
    except (ValueError, KeyError, TypeError) as error:
        report.leave_out("mask that does not decode", where, f"{type(error).__name__}: {error}")
        return None
    if size != [picture.height, picture.width]:
        told = f"the mask is {size[0]} x {size[1]} (rows x columns), the picture {picture.height} x {picture.width}"
        report.leave_out("mask of another size than its picture", where, told)
        return None
    counts = counts if isinstance(counts, str) else [int(run) for run in counts]
    return _checked(picture, name, {"size": size, "counts": counts}, mask.numpy(), report, of_class, box)


def from_polygon(
    picture: Picture, name: int | str, rings: Sequence[Sequence[Any]], report: Report, *, of_class: str | None = None, box: Sequence[Any] | None = None
) -> dict[str, Any] | None:
    """An instance from rings ``[x, y, x, y, ...]`` or ``[[x, y], ...]`` in pixels, filled together; None, and left out, where nothing is filled."""
    where = f"{picture.where}, instance {name}"
    try:
        flat = [[value for point in ring for value in (point if isinstance(point, (list, tuple)) else (point,))] for ring in rings]
        if not all(np.isfinite(np.asarray(ring, dtype=np.float64)).all() for ring in flat):
            raise ValueError("a coordinate is not finite")
    except (ValueError, TypeError) as error:
        report.leave_out("mask that does not decode", where, f"a ring is no list of finite numbers: {error}")
        return None
    kept = [ring for ring in flat if len(ring) >= 6 and len(ring) % 2 == 0]
    if len(kept) < len(flat):
        report.note("ring of fewer than three points")
    if not kept:
        report.leave_out("empty mask", where, "no ring of three points or more")
        return None
    right, bottom = max(max(ring[::2]) for ring in kept), max(max(ring[1::2]) for ring in kept)
    if right > 1.5 * picture.width or bottom > 1.5 * picture.height:
        told = f"the polygon reaches x = {right:g}, y = {bottom:g}, the picture is {picture.height} x {picture.width} (rows x columns)"
        report.leave_out("mask of another size than its picture", where, told)
        return None
    mask = coco.decode(coco.merge(coco.frPyObjects([list(ring) for ring in kept], picture.height, picture.width)))
    return _checked(picture, name, {"polygon": kept}, mask.astype(bool), report, of_class, box)


def from_mask(
    picture: Picture, name: int | str, mask: np.ndarray, report: Report, *, of_class: str | None = None, box: Sequence[Any] | None = None
) -> dict[str, Any] | None:
    """An instance from its pixels; None, and left out, where it does not fit the picture or is empty."""
    if mask.shape != (picture.height, picture.width):
        told = f"the mask is {mask.shape[0]} x {mask.shape[1]} (rows x columns), the picture {picture.height} x {picture.width}"
        report.leave_out("mask of another size than its picture", f"{picture.where}, instance {name}", told)
        return None
    rle = encode_rle(torch.from_numpy(np.ascontiguousarray(mask)))
    return _checked(picture, name, dict(rle), mask, report, of_class, box)


def _checked(
    picture: Picture, name: int | str, spec: dict[str, Any], mask: np.ndarray, report: Report, of_class: str | None, box: Sequence[Any] | None
) -> dict[str, Any] | None:
    """The instance, unless its mask is empty; a box that has little to do with the mask is dropped and counted."""
    if not mask.any():
        report.leave_out("empty mask", f"{picture.where}, instance {name}", "no pixel of the mask is set")
        return None
    kept = None if box is None else box_of(box, picture, report)
    if kept is not None and overlap(kept, tight(mask)) < AGREES:
        report.note("box and mask disagree (IoU below 0.3)")
        kept = None
    return instance(name, spec, of_class=of_class, box=kept)


def tight(mask: np.ndarray) -> Box:
    """The smallest half-open box around the set pixels."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def overlap(one: Box, other: Box) -> float:
    """IoU of two boxes in pixels."""
    shared = max(min(one[2], other[2]) - max(one[0], other[0]), 0.0) * max(min(one[3], other[3]) - max(one[1], other[1]), 0.0)
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    return shared / union if union > 0 else 0.0


def read_values(path: Path, report: Report, where: str) -> np.ndarray | None:
    """The stored values of a mask picture, rows x columns (x channels); None, and left out, where it is missing or damaged."""
    if not path.is_file():
        report.leave_out("missing mask", where, f"{path} does not exist")
        return None
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        report.leave_out("unreadable mask", where, f"{path}: {describe(path)} ({type(error).__name__})")
        return None


def foreground(values: np.ndarray, report: Report) -> np.ndarray:
    """Where a mask picture is set: its greatest channel above 127, or above 0 where it holds nothing greater than 1. Other values are counted."""
    grey = values if values.ndim == 2 else values[..., :3].max(axis=2)
    if not np.isin(grey, (0, 1, 255)).all():
        report.note("mask picture with values besides 0, 1 and 255")
    return np.asarray(grey > (0 if grey.max(initial=0) <= 1 else 127))


def expression(text: Any, seen: Collection[str], where: str, report: Report) -> str | None:
    """A referring expression as prompts hold it; None, and left out, where it is empty or was given for this picture before."""
    said = phrase(text)
    if not said:
        report.leave_out("empty text", where, "no word in the expression")
    elif SEG in said:
        report.leave_out("text with [SEG]", where, f"an expression cannot hold {SEG}: {said!r}")
    elif said in seen:
        report.leave_out("duplicate text", where, f"{said!r} was said about this picture before")
    else:
        return said
    return None
