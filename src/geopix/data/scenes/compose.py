"""Which things a scene holds: from the slots of a plan to things that fit, each with its look and its pixels."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int32
from numpy import ndarray

from geopix.data.scenes.catalogue import COLOURS, KINDS, PAINTS, RGB, Level
from geopix.data.scenes.paint import SHIFT, Pose, distance, project, tint
from geopix.data.scenes.places import Plan, Slot
from geopix.data.scenes.shapes import LOOKS, Brief, Look

REFERENCE = 128
"""Image size in pixels at which a level's sizes are meant."""
SMALL = 13
"""Length in such pixels below which a thing is small: the box of one that lies askew has sides of less than 12."""
CROWD = 1.0
"""How far many slots of one class are kept from crowding out the rest: 0 not at all, 1 every class alike."""


@dataclass(frozen=True)
class View:
    """How metres of the place become pixels of the image, and where the sun stands.

    Args:
        size: side of the image in pixels.
        scale: canvas pixels per image pixel.
        gsd: metres per pixel.
        turn: rotation of the place in radians.
        sun: pixels per metre of height by which a shadow is thrown, x and y.
    """

    size: int
    scale: int
    gsd: float
    turn: float
    sun: tuple[float, float]

    def point(self, x: float, y: float) -> tuple[float, float]:
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return (x * cos - y * sin) / self.gsd + self.size / 2, (x * sin + y * cos) / self.gsd + self.size / 2

    def fixed(self, points: Float[ndarray, "*n 2"], scale: int) -> Int32[ndarray, "*n 2"]:
        """Points in metres as fixed-point coordinates for OpenCV in an image ``scale`` times as fine."""
        factor = scale / self.gsd * (1 << SHIFT)
        cos, sin = math.cos(self.turn) * factor, math.sin(self.turn) * factor
        centre = (self.size * scale / 2 - 0.5) * (1 << SHIFT)
        fixed: Int32[ndarray, "*n 2"] = (points @ np.array([[cos, sin], [-sin, cos]]) + centre).astype(np.int32)
        return fixed


@dataclass(frozen=True)
class Thing:
    """A chosen thing: what it is, where, how it looks, and the pixels that it would cover alone."""

    name: str
    colour: str | None
    pose: Pose
    length: float
    width: float
    height: float
    look: Look
    footprint: Bool[ndarray, "h w"]
    window: tuple[slice, slice]
    whole: int


def _colour(name: str, under: RGB, contrast: float, random: Random) -> tuple[str | None, RGB]:
    """A colour word that stands out from what lies under the thing, and its paint."""
    words = KINDS[name].colours
    if not words:
        return None, (200, 200, 196)
    paints = [(word, PAINTS.get((name, word), COLOURS[word])) for word in words]
    clear = [pair for pair in paints if distance(pair[1], under) >= contrast] or [max(paints, key=lambda pair: distance(pair[1], under))]
    word, paint = random.choice(clear)
    shift, factor = random.uniform(-6, 6), random.uniform(0.94, 1.05)
    return word, tint((int(paint[0] + shift), int(paint[1]), int(paint[2] - shift)), factor)


def choose(plan: Plan, view: View, level: Level, paints: dict[str, RGB]) -> list[Thing]:
    """Things for as many slots as the level wants, in painter's order, none on top of another that it may not cover."""
    random = plan.random
    wanted = random.randint(*level.count)
    occupied = np.zeros((view.size, view.size), np.uint8)  # 1 on the ground, 2 above it
    for road in plan.roads:
        cv2.fillPoly(occupied, [view.fixed(road, 1)], 1, cv2.LINE_8, SHIFT)
    things: list[Thing] = []
    spare = round(level.small * wanted)
    for slot in _order(plan, level):
        if len(things) >= wanted:
            break
        x, y = view.point(slot.x, slot.y)
        if not (slot.must or (0 < x < view.size and 0 < y < view.size and occupied[int(y), int(x)] <= slot.over)):
            continue
        thing = _fit(slot, x, y, plan, view, level, paints)
        if thing is None:
            continue
        if not slot.must and int(occupied[thing.window][thing.footprint].max()) > slot.over:
            continue
        if thing.length < SMALL * plan.extent / REFERENCE:
            if not spare:
                continue
            spare -= 1
        taken_by = 1 if KINDS[thing.name].layer in (0, 2) else 2
        occupied[thing.window][thing.footprint] = taken_by
        things.append(thing)
        if slot.yard is not None:
            ground, (x1, y1, x2, y2) = slot.yard
            plan.areas.insert(len(plan.areas) if plan.paved is None else plan.paved, (ground, np.array(((x1, y1), (x2, y1), (x2, y2), (x1, y2)))))
    things.sort(key=lambda thing: KINDS[thing.name].layer)
    return things


def _order(plan: Plan, level: Level) -> list[Slot]:
    """Slots in a random order in which no class drowns the others, however many slots it has, and larger things come rather first."""
    numbers = Counter(slot.names for slot in plan.slots)

    def key(slot: Slot) -> float:
        if slot.must:
            return -1.0
        low, high = slot.lengths or KINDS[slot.names[0]].lengths
        weight: float = ((low + high) / plan.extent) ** level.lean / numbers[slot.names] ** CROWD
        return plan.random.expovariate(1.0) / weight

    return sorted(plan.slots, key=key)


def _fit(slot: Slot, x: float, y: float, plan: Plan, view: View, level: Level, paints: dict[str, RGB]) -> Thing | None:
    """A thing for the slot, or None where it would be too small or too little of it would be seen."""
    random = plan.random
    name = random.choice(slot.names)
    kind = KINDS[name]
    low, high = kind.lengths
    if slot.lengths is not None:
        low, high = max(low, slot.lengths[0]), min(high, slot.lengths[1])
        if low > high:
            low = high = min(max(sum(slot.lengths) / 2, kind.lengths[0]), kind.lengths[1])
    length = low + (high - low) * random.random()
    if length < level.smallest * plan.extent / REFERENCE:
        return None
    width = slot.width or length * random.uniform(*kind.aspects)
    pose = Pose(x, y, slot.heading + view.turn, length / view.gsd, width / view.gsd)
    colour, paint = _colour(name, paints[slot.ground], level.contrast, random)
    facing = view.sun[0] * math.sin(pose.angle) - view.sun[1] * math.cos(pose.angle)
    look = LOOKS[name](Brief(paint, length, pose.length, width / length, 1 if facing > 0 else -1, random))
    footprint, window, whole = _rasterise(look, pose, view.size)
    seen = int(np.count_nonzero(footprint))
    edge = 0.4 if random.random() < (1.0 if slot.must else level.edge) else 0.97
    if seen < edge * whole or seen < max(1, 4 * (view.size / REFERENCE) ** 2):
        return None
    return Thing(name, colour, pose, length, width, random.uniform(*kind.height), look, footprint, window, whole)


def _rasterise(look: Look, pose: Pose, size: int) -> tuple[Bool[ndarray, "h w"], tuple[slice, slice], int]:
    """Pixels inside the outline: those within the image, the window they lie in, and the number of all."""
    shapes = [project(shape, pose) for shape in look.outline]
    corners = np.concatenate(shapes)
    left, top = (int(value) >> SHIFT for value in corners.min(0))
    right, bottom = ((int(value) >> SHIFT) + 2 for value in corners.max(0))
    alone = np.zeros((bottom - top, right - left), np.uint8)
    offset = np.array((left << SHIFT, top << SHIFT), np.int32)
    for shape in shapes:
        cv2.fillPoly(alone, [shape - offset], 1, cv2.LINE_8, SHIFT)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), max(min(right, size), 0), max(min(bottom, size), 0)
    inside = alone[y1 - top : max(y2 - top, 0), x1 - left : max(x2 - left, 0)]
    return inside.astype(bool), (slice(y1, y2), slice(x1, x2)), int(cv2.countNonZero(alone))
