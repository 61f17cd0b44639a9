"""Drawing primitives of the scenes: oriented shapes, shadows, and noise that makes grounds look like grounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int8, Int32, UInt8
from numpy import ndarray

from geopix.data.scenes.catalogue import RGB

SHIFT = 4
TILE = 512


@dataclass(frozen=True)
class Pose:
    """Where a thing lies in the image.

    Args:
        x, y: centre in pixels of the image, pixel i reaching from i to i + 1.
        angle: direction of its long axis in radians, clockwise on the screen (rows grow downwards).
        length, width: in pixels.
    """

    x: float
    y: float
    angle: float
    length: float
    width: float


@dataclass(frozen=True)
class Part:
    """One stroke of a drawing, in units of the thing's length and width around its centre, each in [-0.5, 0.5].

    Args:
        line: draw the closed outline instead of filling.
    """

    colour: RGB
    points: Float[ndarray, "n 2"]
    line: bool = False


def project(points: Float[ndarray, "n 2"], pose: Pose, scale: int = 1) -> Int32[ndarray, "n 2"]:
    """Points of a thing as fixed-point coordinates for OpenCV in an image ``scale`` times as fine.

    OpenCV fills the pixels that an outline touches, half a pixel too many on each side: the shape is drawn that much smaller
    (on the finer canvas half of it, so that the pixels of a small thing's mask hold its paint rather than its ground's).
    """
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    one = 1 << SHIFT
    spare = 1 / scale
    long = max(pose.length * scale - spare, 0.1) * one
    short = max(pose.width * scale - spare, 0.1) * one
    matrix = np.array([[long * cos, long * sin], [-short * sin, short * cos]])
    centre = ((pose.x * scale - 0.5) * one, (pose.y * scale - 0.5) * one)
    fixed: Int32[ndarray, "n 2"] = (points @ matrix + centre).astype(np.int32)
    return fixed


def draw(canvas: UInt8[ndarray, "h w 3"], parts: list[Part], pose: Pose, scale: int) -> None:
    """Paint the parts in their order."""
    fixed = project(np.concatenate([part.points for part in parts]) if len(parts) > 1 else parts[0].points, pose, scale)
    start = 0
    for part in parts:
        stop = start + len(part.points)
        if part.line:
            cv2.polylines(canvas, [fixed[start:stop]], True, part.colour, 1, cv2.LINE_8, SHIFT)
        else:
            cv2.fillPoly(canvas, [fixed[start:stop]], part.colour, cv2.LINE_8, SHIFT)
        start = stop


def shade(canvas: UInt8[ndarray, "h w 3"], shapes: list[Int32[ndarray, "_ 2"]], darkness: float) -> None:
    """Darken the canvas once where any of the shapes lies."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    for shape in shapes:
        cv2.fillPoly(mask, [shape], 1, cv2.LINE_8, SHIFT)
    cv2.copyTo(cv2.convertScaleAbs(canvas, alpha=darkness), mask, canvas)


def extrude(shape: Int32[ndarray, "n 2"], shift: tuple[float, float], scale: int) -> Int32[ndarray, "_ 2"]:
    """What a convex prism on that base hides from a sun that throws its top by ``shift`` pixels."""
    offset = np.array(shift) * (scale << SHIFT)
    hull = cv2.convexHull(np.concatenate([shape, (shape + offset).astype(np.int32)]))
    return hull[:, 0].astype(np.int32)


def tint(colour: RGB, factor: float) -> RGB:
    """Lighter (above 1) or darker."""
    red, green, blue = (max(0, min(255, int(channel * factor))) for channel in colour)
    return red, green, blue


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """``share`` of the second colour in the first."""
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def distance(first: RGB, second: RGB) -> float:
    """Euclidean distance of two colours."""
    return math.dist(first, second)


@lru_cache(maxsize=1)
def tiles() -> Int8[ndarray, "512 512 4"]:
    """Noise that repeats at its borders, about 42 per standard deviation: grass, soil, asphalt, water."""
    rng = np.random.default_rng(20)
    white = rng.standard_normal((6, TILE, TILE)).astype(np.float32)

    def smooth(layer: int, sigma_x: float, sigma_y: float) -> Float[ndarray, "512 512"]:
        padded = np.pad(white[layer], 64, mode="wrap")
        soft = cv2.GaussianBlur(padded, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)[64:-64, 64:-64]
        scaled: Float[ndarray, "512 512"] = soft / soft.std()
        return scaled

    grass = smooth(0, 12.0, 12.0) * 0.8 + smooth(1, 2.2, 2.2) * 0.5 + white[2] * 0.45
    soil = smooth(1, 18.0, 18.0) * 0.7 + smooth(2, 3.5, 3.5) * 0.6 + white[3] * 0.25
    asphalt = smooth(2, 14.0, 14.0) * 0.5 + smooth(3, 1.0, 1.0) * 0.4 + white[4] * 0.6
    water = smooth(3, 22.0, 14.0) * 0.5 + smooth(4, 3.5, 1.1) * 0.7 + white[5] * 0.2
    stacked = np.stack([grass, soil, asphalt, water], 2)
    stacked = stacked / stacked.std((0, 1)) * 42
    levels: Int8[ndarray, "512 512 4"] = np.clip(np.rint(stacked), -127, 127).astype(np.int8)
    return levels


@lru_cache(maxsize=1)
def sensor() -> Float32[ndarray, "512 512 3"]:
    """White noise with a standard deviation of 1, mostly common to the bands."""
    rng = np.random.default_rng(21)
    noise = rng.standard_normal((TILE, TILE, 1)) * 0.8 + rng.standard_normal((TILE, TILE, 3)) * 0.6
    return noise.astype(np.float32)


def crop(tile: ndarray, top: int, left: int, size: int) -> ndarray:
    """A window of a tile that repeats without end."""
    if top + size <= TILE and left + size <= TILE:
        return tile[top : top + size, left : left + size]
    rows = np.arange(top, top + size) % TILE
    columns = np.arange(left, left + size) % TILE
    return tile[rows[:, None], columns]
