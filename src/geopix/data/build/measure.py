"""What is known about the things of an image, measured from its pixels and masks alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8
from numpy import ndarray

from geopix.data.build.colours import FEW, UNSURE, Colour, name_colour
from geopix.data.build.ground import ground_sampling
from geopix.data.georeference import place_of
from geopix.data.images import Scaling, read_image
from geopix.data.instances import InstanceMasks
from geopix.rle import decode_box

ELONGATED = 1.8
"""A thing has a direction when its least rectangle is at least so many times as long as wide."""
AGREED = 10.0
"""Degrees by which the directions of its least rectangle and of its moments differ at most."""
BESIDE_OTHERS = 0.3
"""A thing may go on beneath another when it touches masks of others with more than this share of the root of its area."""
SOLID = 0.9
"""Nothing of a thing is hidden, as far as its outline tells, when it fills this share of its convex hull."""
EDGE_CONTACT = 0.3
"""A thing is cut off when it lies along the border with more than this share of the root of its area."""


@dataclass(frozen=True)
class Limits:
    """Which instances may be asked for alone.

    Args:
        min_area: least number of pixels.
        min_side: least shorter side of the box in pixels.
        max_near: most others of the class whose boxes are nearer than half the root of the thing's own area.
        max_overlap: greatest share of its box that the box of another of its class covers.
    """

    min_area: int = 40
    min_side: int = 4
    max_near: int = 5
    max_overlap: float = 0.7


@dataclass(frozen=True)
class Thing:
    """An instance as it is seen.

    Args:
        name: class; None where unknown, then it may be anything.
        x, y: centre of its box as shares of the image's width and height.
        box: ``x1 y1 x2 y2`` in pixels, half-open.
        area: pixels that are seen.
        length, width: sides of the least rectangle around it in pixels.
        angle: direction of the longer side in degrees, 0 along the rows, counter-clockwise, in [0, 180); None without a clear one.
        whole: as far as can be seen, nothing of it is cut off or hidden; a guess that needs margins.
        reject: why it is not asked for alone; empty where it is.
    """

    id: int | str
    name: str | None
    colour: Colour
    x: float
    y: float
    box: tuple[int, int, int, int]
    area: int
    length: float
    width: float
    angle: float | None
    whole: bool
    reject: str


@dataclass(frozen=True)
class Picture:
    """An image with everything in it.

    Args:
        gsd: metres per pixel; None where it is not known.
        areas: pixels that the things of each class cover together.
    """

    key: str
    height: int
    width: int
    gsd: float | None
    things: tuple[Thing, ...]
    areas: dict[str, int]


def measure(
    record: dict[str, Any], locate: Callable[[str], Path], limits: Limits, *, bands: tuple[int, ...] | None = None, scale: Scaling | None = None
) -> Picture:
    """Measures one record's image.

    Args:
        record: one line of the JSONL format; a number ``gsd`` in it (metres per pixel) goes before the georeference, and the file's own before the record's.
        locate: from a path in the record to a file.
        limits: which instances may be asked for alone.
        bands: the bands that are red, green and blue; the only three of a file unless given. Without them colours are unsure.
        scale: the range of stored values, for files of other types than 8 bit.

    Raises:
        FileNotFoundError, ValueError: when the image or a mask is not what it should be.
    """
    values, found = read_image(locate(record["image"]), bands, scale or Scaling(), record.get("window"))
    place = place_of(record, found)
    _, height, width = values.shape
    image = values if len(values) == 3 else None
    masks = InstanceMasks(record, locate, height, width)
    pieces = [_cut_out(entry, masks) for entry in masks.instances.values()]
    owner = np.zeros((height, width), np.int32)
    covered: dict[str, ndarray] = {}
    for number, piece in enumerate(pieces, start=1):
        owner[piece.window][piece.crop.view(bool)] = number
        if piece.label is not None:
            covered.setdefault(piece.label, np.zeros((height, width), dtype=bool))[piece.window] |= piece.crop.view(bool)
    things = [_thing(piece, number, owner, image, limits) for number, piece in enumerate(pieces, start=1)]
    areas = {label: int(np.count_nonzero(cover)) for label, cover in covered.items()}
    gsd = float(record["gsd"]) if record.get("gsd") else None if place is None else ground_sampling(place, height, width)
    return Picture(str(record.get("key", record["image"])), height, width, gsd, tuple(_crowded(things, limits)), areas)


@dataclass(frozen=True)
class _Piece:
    """A mask, cut down to its box."""

    name: int | str
    label: str | None
    marked: bool
    box: tuple[int, int, int, int]
    crop: UInt8[ndarray, "h w"]

    @property
    def window(self) -> tuple[slice, slice]:
        x1, y1, x2, y2 = self.box
        return slice(y1, y2), slice(x1, x2)


def _cut_out(entry: dict[str, Any], masks: InstanceMasks) -> _Piece:
    spec = entry.get("mask")
    if isinstance(spec, dict) and isinstance(spec.get("counts"), str) and spec.get("size") == [masks.height, masks.width]:
        x, y, crop = decode_box({"size": spec["size"], "counts": spec["counts"]})
        down, across = crop.shape
    else:
        mask = masks.mask(entry["id"]).numpy()
        x, y, across, down = cv2.boundingRect(mask.view(np.uint8))
        crop = np.ascontiguousarray(mask[y : y + down, x : x + across]).view(np.uint8)
    return _Piece(entry["id"], entry.get("class"), bool(entry.get("distractor_only")), (x, y, x + across, y + down), crop)


def _thing(piece: _Piece, number: int, owner: Int32[ndarray, "h w"], image: Float32[ndarray, "3 h w"] | None, limits: Limits) -> Thing:
    (height, width), crop = owner.shape, piece.crop
    x1, y1, x2, y2 = piece.box
    area = int(np.count_nonzero(crop))
    if area == 0:
        return Thing(piece.name, piece.label, UNSURE, 0.0, 0.0, (0, 0, 0, 0), 0, 0.0, 0.0, None, False, "empty mask")
    length, breadth, angle, solid = _shape(crop, area)
    sides = ((crop[0], y1 == 0), (crop[-1], y2 == height), (crop[:, 0], x1 == 0), (crop[:, -1], x2 == width))
    contact = sum(int(np.count_nonzero(line)) for line, touches in sides if touches)
    hidden = _touched(piece, number, owner) > BESIDE_OTHERS * math.sqrt(area)
    whole = contact == 0 and solid and not hidden and area >= limits.min_area
    colour = UNSURE if image is None or area < limits.min_area else name_colour(_pixels(image, piece))
    reject = (
        "marked by its source" if piece.marked
        else "no class" if piece.label is None
        else "too small" if area < limits.min_area or min(x2 - x1, y2 - y1) < limits.min_side
        else "cut off by the border" if contact > EDGE_CONTACT * math.sqrt(area)
        else ""
    )  # fmt: skip
    centre = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
    return Thing(piece.name, piece.label, colour, *centre, piece.box, area, length, breadth, angle if contact == 0 else None, whole, reject)


def _pixels(image: Float32[ndarray, "3 h w"], piece: _Piece) -> UInt8[ndarray, "n 3"]:
    rows, columns = piece.window
    return np.asarray((image[:, rows, columns][:, _inner(piece.crop)].T * 255 + 0.5).astype(np.uint8))


def _touched(piece: _Piece, number: int, owner: Int32[ndarray, "h w"]) -> int:
    """Pixels of other things on or right beside a mask."""
    x1, y1, x2, y2 = piece.box
    padded = cv2.copyMakeBorder(piece.crop, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    near = cv2.dilate(padded, np.ones((3, 3), np.uint8))[int(y1 == 0) :, int(x1 == 0) :]
    around = owner[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1]
    near = near[: around.shape[0], : around.shape[1]]
    return int(np.count_nonzero((around != 0) & (around != number) & (near != 0)))


def _shape(crop: UInt8[ndarray, "h w"], area: int) -> tuple[float, float, float | None, bool]:
    """Sides of the least rectangle around a mask, the direction of the longer one, and whether it fills its convex hull."""
    outlines, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(outlines[0] if len(outlines) == 1 else np.concatenate(outlines))
    (_, (one, two), turn) = cv2.minAreaRect(hull)
    one, two = one + 1, two + 1  # from centres of pixels to their sides
    length, width = max(one, two), min(one, two)
    angle = (-turn if one >= two else 90 - turn) % 180
    moments = cv2.moments(crop, binaryImage=True)
    axis = math.degrees(-0.5 * math.atan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])) % 180
    clear = length >= ELONGATED * width and abs((angle - axis + 90) % 180 - 90) <= AGREED
    full = cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1  # Pick: pixels on and inside the hull
    return length, width, axis if clear else None, area >= SOLID * full


def _inner(crop: UInt8[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """The mask without its outermost pixels, whose colour is half the ground's, where enough is left."""
    inner = cv2.erode(crop, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    chosen: ndarray = inner if int(np.count_nonzero(inner)) >= FEW else crop
    return chosen.view(bool)


def _crowded(things: list[Thing], limits: Limits) -> list[Thing]:
    """The things, those among too many others of their class rejected."""
    boxes = np.array([thing.box for thing in things], dtype=np.float64).reshape(-1, 4)
    names = np.array([thing.name or "" for thing in things])
    kept = []
    for index, thing in enumerate(things):
        reason = thing.reject
        if not reason:
            same = names == thing.name
            same[index] = False
            near = box_gaps(boxes[same], boxes[index]) < math.sqrt(thing.area) / 2
            if int(np.count_nonzero(near)) > limits.max_near:
                reason = "crowded"
            elif len(near) and float(_covered(boxes[same], boxes[index]).max()) > limits.max_overlap:
                reason = "overlapped"
        kept.append(replace(thing, reject=reason))
    return kept


def box_gaps(boxes: Float[ndarray, "n 4"], box: Float[ndarray, " 4"]) -> Float[ndarray, " n"]:
    """Distances between boxes and one box, 0 where they touch or overlap."""
    across = np.maximum(np.maximum(boxes[:, 0] - box[2], box[0] - boxes[:, 2]), 0)
    down = np.maximum(np.maximum(boxes[:, 1] - box[3], box[1] - boxes[:, 3]), 0)
    return np.hypot(across, down)


def _covered(boxes: Float[ndarray, "n 4"], box: Float[ndarray, " 4"]) -> Float[ndarray, " n"]:
    """Share of one box that each of the boxes covers."""
    across = np.minimum(boxes[:, 2], box[2]) - np.maximum(boxes[:, 0], box[0])
    down = np.minimum(boxes[:, 3], box[3]) - np.maximum(boxes[:, 1], box[1])
    return np.asarray(np.maximum(across, 0) * np.maximum(down, 0) / ((box[2] - box[0]) * (box[3] - box[1])))
