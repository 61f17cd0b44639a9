"""How each class looks from above: its outline and the strokes that paint it, in units of its own length and width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from geopix.data.scenes.catalogue import RGB
from geopix.data.scenes.paint import Part, mix, tint

Points = Float[ndarray, "_ 2"]
WHITE: RGB = (242, 242, 238)
GLASS: RGB = (40, 46, 56)


@dataclass(frozen=True)
class Look:
    """Outline (the union of polygons) and strokes of one thing."""

    outline: tuple[Points, ...]
    parts: list[Part]


@dataclass(frozen=True)
class Brief:
    """What a class is told when it is drawn.

    Args:
        paint: its colour.
        length: in metres.
        pixels: its length in pixels; fine strokes are left out when it is small.
        ratio: width over length.
        sun: which of its long sides faces the sun, 1 for +y and -1 for -y.
    """

    paint: RGB
    length: float
    pixels: float
    ratio: float
    sun: int
    random: Random


def points(*pairs: float) -> Points:
    """A polygon from x, y, x, y, ..."""
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def rect(x1: float, y1: float, x2: float, y2: float) -> Points:
    return np.array(((x1, y1), (x2, y1), (x2, y2), (x1, y2)), dtype=np.float64)


def oval(x: float, y: float, radius_x: float, radius_y: float) -> Points:
    return CIRCLE * (radius_x * 2, radius_y * 2) + (x, y)


def both(shape: Points) -> Points:
    """The shape's mirror image in its long axis."""
    return shape * (1.0, -1.0)


_TURN = np.linspace(0, 2 * np.pi, 28, endpoint=False)
CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1) / 2
FULL = rect(-0.5, -0.5, 0.5, 0.5)
CAR = points(-0.5, -0.36, -0.44, -0.5, 0.36, -0.5, 0.5, -0.32, 0.5, 0.32, 0.36, 0.5, -0.44, 0.5, -0.5, 0.36)
HULL = points(-0.5, -0.4, -0.4, -0.5, 0.12, -0.5, 0.34, -0.3, 0.5, 0.0, 0.34, 0.3, 0.12, 0.5, -0.4, 0.5, -0.5, 0.4)
FUSELAGE = points(-0.5, -0.015, -0.35, -0.052, 0.38, -0.058, 0.46, -0.04, 0.5, 0.0, 0.46, 0.04, 0.38, 0.058, -0.35, 0.052, -0.5, 0.015)
WING = points(0.14, 0.03, 0.02, 0.22, -0.15, 0.5, -0.22, 0.5, -0.13, 0.2, -0.12, 0.03)
TAIL = points(-0.34, 0.01, -0.46, 0.19, -0.5, 0.19, -0.46, 0.01)
JET = (FUSELAGE, WING, both(WING), TAIL, both(TAIL))
STRAIGHT_WING = points(0.16, 0.02, 0.14, 0.5, -0.02, 0.5, -0.06, 0.02)
PROPELLER = (FUSELAGE * (1.0, 1.5), STRAIGHT_WING, both(STRAIGHT_WING), TAIL * (1.0, 1.15), both(TAIL) * (1.0, 1.15))
ENGINES = tuple(rect(0.0, side * y - 0.025, 0.12, side * y + 0.025) for side in (-1, 1) for y in (0.17, 0.3))
COPTER_BODY = oval(0.17, 0.0, 0.3, 0.16)
COPTER_TAIL = points(-0.05, -0.075, -0.5, -0.04, -0.5, 0.04, -0.05, 0.075)
COPTER_FIN = rect(-0.5, -0.13, -0.42, 0.13)


def _blades() -> tuple[Points, ...]:
    bars = []
    for angle in (0.6, 0.6 + math.pi / 2):
        cos, sin = math.cos(angle), math.sin(angle)
        bar = rect(-0.5, -0.022, 0.5, 0.022) @ np.array([[cos, sin], [-sin, cos]])
        bars.append(bar * (0.68, 0.82) + (0.14, 0))
    return tuple(bars)


BLADES = _blades()


def small_vehicle(brief: Brief) -> Look:
    parts = [Part(brief.paint, CAR)]
    glass = GLASS if sum(brief.paint) > 200 else (112, 120, 130)
    if brief.pixels > 8:
        parts += [Part(glass, rect(0.1, -0.36, 0.23, 0.36)), Part(glass, rect(-0.4, -0.34, -0.34, 0.34))]
    elif brief.pixels > 5:
        parts.append(Part(mix(glass, brief.paint, 0.35), rect(0.12, -0.3, 0.2, 0.3)))
    if brief.pixels > 11:
        parts += [Part(tint(brief.paint, 1.12), rect(-0.26, -0.3, 0.06, 0.3)), Part(tint(brief.paint, 0.8), rect(0.47, -0.3, 0.5, 0.3))]
    return Look((CAR,), parts)


def large_vehicle(brief: Brief) -> Look:
    cab = mix(brief.paint, WHITE, 0.75) if brief.random.random() < 0.6 else tint(brief.paint, 0.72)
    parts = [Part((52, 52, 56), FULL), Part(brief.paint, rect(-0.5, -0.5, 0.27, 0.5)), Part(cab, rect(0.32, -0.46, 0.5, 0.46))]
    if brief.pixels > 9:
        parts.append(Part(GLASS, rect(0.43, -0.42, 0.47, 0.42)))
        parts.append(Part(tint(brief.paint, 0.88), rect(-0.5, -0.1 * brief.sun, 0.27, -0.5 * brief.sun)))
    if brief.pixels > 22:
        parts += [Part(tint(brief.paint, 0.78), rect(x, -0.48, x, 0.48), line=True) for x in (-0.35, -0.2, -0.05, 0.1)]
    return Look((FULL,), parts)


def plane(brief: Brief) -> Look:
    shapes = PROPELLER if brief.length < 26 else JET
    dim = tint(brief.paint, 0.86)
    parts = [Part(dim, shape) for shape in shapes[1:]]
    if brief.length >= 26:
        parts += [Part(tint(brief.paint, 0.55), engine) for engine in (ENGINES if brief.length > 42 else ENGINES[::2])]
    parts.append(Part(brief.paint, shapes[0]))
    if brief.pixels > 14:
        parts.append(Part(GLASS, rect(0.42, -0.03, 0.445, 0.03)))
    return Look(shapes, parts)


def helicopter(brief: Brief) -> Look:
    body = (COPTER_TAIL, COPTER_FIN, COPTER_BODY)
    parts = [Part(brief.paint, shape) for shape in body]
    if brief.pixels > 9:
        parts.append(Part(GLASS, points(0.3, -0.1, 0.42, -0.06, 0.42, 0.06, 0.3, 0.1)))
    parts += [Part((70, 72, 76), blade) for blade in BLADES]
    return Look((*body, *BLADES), parts)


def ship(brief: Brief) -> Look:
    light = sum(brief.paint) > 560
    parts = [Part(tint(brief.paint, 0.72), HULL), Part(brief.paint, HULL * (0.96, 0.86))]
    house = (120, 124, 130) if light else WHITE
    if brief.length > 40:
        parts.append(Part(house, rect(-0.42, -0.38, -0.28, 0.38)))
        shade = tint(brief.paint, 0.78 if sum(brief.paint) > 200 else 1.9)
        parts += [Part(shade, rect(x, -0.3, x + 0.1, 0.3)) for x in (-0.2, -0.05, 0.1)]
    elif brief.pixels > 6:
        parts.append(Part(house, rect(-0.22, -0.24, 0.06, 0.24)))
        parts.append(Part(GLASS, rect(0.06, -0.24, 0.12, 0.24)))
    return Look((HULL,), parts)


def harbour(brief: Brief) -> Look:
    edge = tint(brief.paint, 0.76)
    parts = [Part(brief.paint, FULL), Part(edge, FULL * 0.99, line=True)]
    gap = max(0.04, 5.0 / brief.pixels)
    parts += [Part(tint(brief.paint, 0.9), rect(x, -0.45, x, 0.45), line=True) for x in np.arange(-0.5 + gap, 0.5, gap)]
    return Look((FULL,), parts)


def bridge(brief: Brief) -> Look:
    parts = [Part((208, 204, 196), FULL), Part((112, 112, 116), rect(-0.5, -0.34, 0.5, 0.34))]
    step = 7.0 / brief.length
    dashes = np.arange(-0.5 + step / 2, 0.5, step)
    parts += [Part((236, 230, 190), rect(x, 0.0, x + step * 0.45, 0.0), line=True) for x in dashes]
    parts += [Part((150, 146, 140), rect(x, -0.5, x + 0.012, 0.5)) for x in (-0.5, 0.488)]
    return Look((FULL,), parts)


def _gable(brief: Brief, low: float, high: float) -> list[Part]:
    bright, dim = tint(brief.paint, 1.1), tint(brief.paint, 0.76)
    hip = brief.random.choice((0.0, 0.0, 0.5)) * brief.ratio
    ridge_a, ridge_b = -0.5 + hip, 0.5 - hip
    upper = points(-0.5, low, ridge_a, 0.0, ridge_b, 0.0, 0.5, low)
    lower = points(-0.5, high, ridge_a, 0.0, ridge_b, 0.0, 0.5, high)
    parts = [Part(brief.paint, FULL), Part(dim if brief.sun > 0 else bright, upper), Part(bright if brief.sun > 0 else dim, lower)]
    if brief.pixels > 10:
        parts.append(Part(tint(brief.paint, 1.25), points(ridge_a, 0.0, ridge_b, 0.0), line=True))
    if brief.pixels > 16:
        x = brief.random.uniform(-0.25, 0.25)
        parts.append(Part((96, 70, 62), rect(x, 0.06, x + 0.07, 0.06 + 0.07 / brief.ratio)))
    return parts


def building(brief: Brief) -> Look:
    draw = brief.random.random
    if brief.length < 17 and draw() < 0.8:
        return Look((FULL,), _gable(brief, -0.5, 0.5))
    outline = FULL
    if draw() < 0.4:
        x, y = brief.random.uniform(-0.1, 0.15), brief.random.uniform(-0.05, 0.15)
        outline = points(-0.5, -0.5, 0.5, -0.5, 0.5, y, x, y, x, 0.5, -0.5, 0.5)
    parts = [Part(brief.paint, outline)]
    if brief.pixels > 10:
        parts.append(Part(tint(brief.paint, 0.7), outline * 0.97, line=True))
    if brief.length > 26 and draw() < 0.5:
        parts += [Part(tint(brief.paint, 0.87), rect(x, -0.46, x, -0.08), line=True) for x in np.arange(-0.42, 0.5, 0.085)]
    grey = (205, 207, 210) if sum(brief.paint) < 480 else (120, 124, 130)
    for _ in range(brief.random.randrange(1, 4) if brief.pixels > 12 else 0):
        x, y = -0.42 + 0.7 * draw(), -0.4 + 0.28 * draw()
        side = min(0.09, 3.0 / brief.length)
        parts.append(Part(tint(grey, 0.5), rect(x + 0.02, y + 0.02, x + 0.02 + side, y + 0.02 + side / brief.ratio)))
        parts.append(Part(grey, rect(x, y, x + side, y + side / brief.ratio)))
    return Look((outline,), parts)


def storage_tank(brief: Brief) -> Look:
    parts = [Part(tint(brief.paint, 0.68), CIRCLE), Part(brief.paint, CIRCLE * 0.9)]
    if brief.random.random() < 0.5:
        parts.append(Part(tint(brief.paint, 0.8), CIRCLE * 0.8))
        parts.append(Part(tint(brief.paint, 1.04), CIRCLE * 0.72 + (0.03, 0.05 * brief.sun)))
    else:
        parts.append(Part(tint(brief.paint, 1.1), CIRCLE * 0.5 + (0, 0.1 * brief.sun)))
    if brief.pixels > 12:
        parts.append(Part(tint(brief.paint, 0.6), CIRCLE * 0.1))
        parts.append(Part(tint(brief.paint, 0.62), points(0.0, 0.0, 0.46, 0.0), line=True))
    return Look((CIRCLE,), parts)


def tennis_court(brief: Brief) -> Look:
    inner = rect(-0.33, -0.31, 0.33, 0.31)
    other = tint(brief.paint, 1.22) if brief.random.random() < 0.7 else tint(brief.paint, 0.8)
    parts = [Part(brief.paint, FULL), Part(other, inner), Part(WHITE if brief.pixels > 20 else mix(WHITE, other, 0.4), inner, line=True)]
    if brief.pixels > 24:
        parts += [Part(WHITE, rect(-0.33, -0.235, 0.33, 0.235), line=True), Part(WHITE, points(-0.18, 0.0, 0.18, 0.0), line=True)]
        parts += [Part(WHITE, points(x, -0.235, x, 0.235), line=True) for x in (-0.18, 0.18)]
    parts.append(Part((50, 54, 54), points(0.0, -0.36, 0.0, 0.36), line=True))
    return Look((FULL,), parts)


def basketball_court(brief: Brief) -> Look:
    key = tint(brief.paint, 0.68) if brief.random.random() < 0.5 else mix(brief.paint, (60, 90, 170), 0.55)
    parts = [Part(brief.paint, FULL)]
    for side in (-1, 1):
        parts.append(Part(key, rect(side * 0.47, -0.17, side * 0.27, 0.17)))
        if brief.pixels > 20:
            arc = oval(side * 0.4, 0.0, 0.22, 0.22 / brief.ratio)
            parts.append(Part(WHITE, arc[np.abs(arc[:, 0]) < 0.46], line=True))
    circle, paint = oval(0.0, 0.0, 0.09, 0.09 / brief.ratio), WHITE if brief.pixels > 20 else mix(WHITE, brief.paint, 0.35)
    parts += [Part(key, circle), Part(paint, circle, line=True), Part(paint, points(0.0, -0.44, 0.0, 0.44), line=True)]
    if brief.pixels > 16:
        parts.append(Part(WHITE, rect(-0.46, -0.44, 0.46, 0.44), line=True))
    return Look((FULL,), parts)


def _pitch(length: float, width: float, ratio: float) -> list[Part]:
    bands = np.linspace(-length / 2, length / 2, 9)
    parts = [Part((66, 138, 58) if i % 2 else (84, 156, 72), rect(bands[i], -width / 2, bands[i + 1], width / 2)) for i in range(8)]
    x, y = length * 0.46, width * 0.45
    parts += [Part(WHITE, rect(-x, -y, x, y), line=True), Part(WHITE, points(0.0, -y, 0.0, y), line=True)]
    parts.append(Part(WHITE, oval(0.0, 0.0, 0.085 * length, 0.085 * length / ratio), line=True))
    parts += [Part(WHITE, rect(side * x, -y * 0.55, side * (x - 0.15 * length), y * 0.55), line=True) for side in (-1, 1)]
    return parts


def soccer_field(brief: Brief) -> Look:
    return Look((FULL,), _pitch(1.0, 1.0, brief.ratio))


def _stadium(ratio: float, inset: float) -> Points:
    """An oval of two straights and two half circles, ``inset`` of the length inside the full one."""
    radius = ratio / 2
    turn = np.linspace(-np.pi / 2, np.pi / 2, 14)
    half = np.stack([0.5 - radius + (radius - inset) * np.cos(turn), (radius - inset) * np.sin(turn)], 1)
    return np.concatenate([half, -half]) / (1.0, ratio)


def track(brief: Brief) -> Look:
    outline = _stadium(brief.ratio, 0.0)
    red = brief.random.choice(((178, 74, 58), (190, 92, 66), (164, 66, 62)))
    parts = [Part(red, outline)]
    lanes = (0.016, 0.032, 0.048) if brief.pixels > 60 else (0.03,)
    parts += [Part(tint(red, 1.32), _stadium(brief.ratio, lane), line=True) for lane in lanes]
    parts.append(Part((96, 140, 74), _stadium(brief.ratio, 0.066)))
    return Look((outline,), parts + _pitch(0.56, 0.62, brief.ratio * 0.62 / 0.56))


def _sector(radius: float) -> Points:
    turn = np.linspace(0, np.pi / 2, 12)
    return np.concatenate([[[0.0, 0.0]], np.stack([np.cos(turn), np.sin(turn)], 1) * radius]) - 0.5


def baseball_diamond(brief: Brief) -> Look:
    dirt = brief.random.choice(((190, 138, 92), (178, 122, 84), (200, 152, 108)))
    outline = _sector(1.0)
    parts = [Part(dirt, outline), Part((88, 148, 70), _sector(0.95)), Part(dirt, _sector(0.52)), Part((92, 154, 76), rect(-0.43, -0.43, -0.14, -0.14))]
    parts += [Part(dirt, oval(-0.285, -0.285, 0.05, 0.05)), Part(dirt, oval(-0.44, -0.44, 0.06, 0.06))]
    parts += [Part(WHITE, points(-0.47, -0.47, *end), line=True) for end in ((0.46, -0.47), (-0.47, 0.46))]
    return Look((outline,), parts)


def swimming_pool(brief: Brief) -> Look:
    outline = brief.random.choice((FULL, FULL, CIRCLE, np.concatenate([CIRCLE[:14] * (1.0, 1.0), rect(-0.5, -0.45, 0.5, -0.45)[:2]])))
    parts = [Part((232, 226, 212), outline), Part(brief.paint, outline * 0.88), Part(tint(brief.paint, 1.18), outline * (0.55, 0.4) + (0.08, 0.06))]
    if brief.length > 17 and outline is FULL:
        parts += [Part(tint(brief.paint, 0.75), points(-0.42, y, 0.42, y), line=True) for y in (-0.25, 0.0, 0.25)]
    return Look((outline,), parts)


def roundabout(brief: Brief) -> Look:
    parts = [Part((222, 220, 212), CIRCLE), Part((98, 98, 102), CIRCLE * 0.97), Part((226, 224, 216), CIRCLE * 0.56), Part((86, 142, 66), CIRCLE * 0.52)]
    parts.append(Part((190, 180, 150), CIRCLE * 0.2))
    if brief.pixels > 20:
        parts.append(Part((64, 108, 52), CIRCLE * 0.1))
    return Look((CIRCLE,), parts)


def helipad(brief: Brief) -> Look:
    outline = CIRCLE if brief.random.random() < 0.6 else FULL
    parts = [Part(brief.paint, outline), Part(WHITE, CIRCLE * 0.88), Part(tint(brief.paint, 0.85), CIRCLE * 0.74)]
    parts += [Part(WHITE, rect(x - 0.035, -0.2, x + 0.035, 0.2)) for x in (-0.13, 0.13)]
    parts.append(Part(WHITE, rect(-0.13, -0.035, 0.13, 0.035)))
    return Look((outline,), parts)


LOOKS: dict[str, Callable[[Brief], Look]] = {
    "baseball diamond": baseball_diamond, "basketball court": basketball_court, "bridge": bridge, "building": building,
    "ground track field": track, "harbour": harbour, "helicopter": helicopter, "helipad": helipad, "large vehicle": large_vehicle,
    "plane": plane, "roundabout": roundabout, "ship": ship, "small vehicle": small_vehicle, "soccer field": soccer_field,
    "storage tank": storage_tank, "swimming pool": swimming_pool, "tennis court": tennis_court,
}  # fmt: skip
