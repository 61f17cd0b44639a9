"""Pieces of which places are laid out: roads, parking lots, plots with houses, courts, tank farms, aprons. All in metres around the image's centre."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from geopix.data.scenes.catalogue import RGB

Points = Float[ndarray, "_ 2"]
Rect = tuple[float, float, float, float]
LINE: RGB = (226, 224, 214)
YELLOW: RGB = (222, 190, 84)


class Slot(NamedTuple):
    """A spot where one thing of some classes may lie.

    Args:
        names: the classes, one of which is drawn; a name may be repeated to make it likelier.
        x, y: centre in metres from the image's centre, y downwards.
        heading: direction of the long axis in radians.
        ground: what lies under it, which its paint must differ from.
        lengths: range of lengths in metres that fit, or None for all of the class.
        over: it may lie on top of things on the ground.
        must: laid before the others, whatever the number of things.
        yard: a ground and its box that come with it, such as a drive.
        width: in metres, where the place sets it, or None for what is usual.
    """

    names: tuple[str, ...]
    x: float
    y: float
    heading: float
    ground: str
    lengths: tuple[float, float] | None = None
    over: bool = False
    must: bool = False
    yard: tuple[str, Rect] | None = None
    width: float | None = None


@dataclass
class Plan:
    """A place before it is drawn.

    Args:
        random: source of all choices.
        extent: side of the image in metres.
        setting: name of the kind of place.
        base: the ground that everything lies on.
        areas: grounds and their outlines, in the order in which they are laid.
        roads: outlines of roads, which are areas too; nothing is built on them.
        paved: how many areas were laid before the first road.
        marks: coloured lines: runs of points, each with the same number.
        trees: x, y and radius of canopies.
    """

    random: Random
    extent: float
    setting: str = ""
    base: str = "grass"
    areas: list[tuple[str, Points]] = field(default_factory=list)
    roads: list[Points] = field(default_factory=list)
    paved: int | None = None
    marks: list[tuple[RGB, Float[ndarray, "_ _ 2"]]] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    trees: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def reach(self) -> float:
        """Half the image's diagonal: nothing farther from the centre is seen."""
        return self.extent * 0.72

    def area(self, ground: str, box: Rect) -> None:
        x1, y1, x2, y2 = box
        self.areas.append((ground, np.array(((x1, y1), (x2, y1), (x2, y2), (x1, y2)))))

    def mark(self, colour: RGB, *pairs: tuple[float, float]) -> None:
        """One line through the points."""
        self.marks.append((colour, np.array([pairs], dtype=np.float64)))

    def rows(self, colour: RGB, xs: Float[ndarray, " n"], y1: float, y2: float) -> None:
        """A line from y1 to y2 at each x."""
        low, high = np.stack([xs, np.full(len(xs), y1)], 1), np.stack([xs, np.full(len(xs), y2)], 1)
        self.marks.append((colour, np.stack([low, high], 1)))

    def spots(self, low: float, high: float, step: float, shift: float = 0.0) -> list[float]:
        """Positions ``step`` apart that fill a range from its middle, all moved by ``shift``; one at least."""
        number = max(1, int((high - low) / step))
        return [(low + high) / 2 + shift + (place - (number - 1) / 2) * step for place in range(number)]

    def seen(self, x: float, y: float, margin: float = 0.0) -> bool:
        return x * x + y * y < (self.reach + margin) ** 2


VEHICLES = ("small vehicle", "small vehicle", "small vehicle", "large vehicle")


def road(plan: Plan, start: tuple[float, float], stop: tuple[float, float], width: float, names: tuple[str, ...] = VEHICLES, gap: float = 13.0) -> None:
    """A straight two-lane road, with vehicles that keep to the right."""
    (x1, y1), (x2, y2) = start, stop
    length = math.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    nx, ny = -uy * width / 2, ux * width / 2
    if plan.paved is None:
        plan.paved = len(plan.areas)
    ends = np.array(((x1, y1), (x2, y2), (x2, y2), (x1, y1)))
    sides = np.array(((nx, ny), (nx, ny), (-nx, -ny), (-nx, -ny)))
    plan.areas += [("concrete", ends + sides * 1.25), ("asphalt", ends + sides)]
    plan.roads.append(ends + sides * 1.25)
    for _ in range(int(plan.extent / 9)):
        along, side, radius = plan.random.uniform(0, length), plan.random.choice((-1, 1)), plan.random.uniform(1.8, 3.2)
        off = side * (1.3 + 2 * radius / width * plan.random.uniform(0.05, 0.9))
        plan.trees.append((x1 + ux * along + nx * off, y1 + uy * along + ny * off, radius))
    at = np.arange(2.0, length - 4, 9.0)[:, None]
    dashes = np.array([(x1, y1)]) + at * (ux, uy)
    plan.marks.append((LINE, np.stack([dashes, dashes + np.array((ux * 4, uy * 4))], 1)))
    heading = math.atan2(uy, ux)
    for lane in (-0.48, 0.48):
        start_at = plan.random.uniform(3, 9)
        for step in range(int((length - start_at) / gap)):
            shift = start_at + step * gap + plan.random.uniform(0, gap - 11)
            x, y = x1 + ux * shift + nx * lane, y1 + uy * shift + ny * lane
            if plan.seen(x, y):
                plan.slots.append(Slot(names, x, y, heading if lane > 0 else heading + math.pi, "asphalt", (4.2, 12.0), over=True))


def scatter_trees(plan: Plan, box: Rect, spacing: float, radius: tuple[float, float] = (2.0, 4.5)) -> None:
    """Trees at random, about one per ``spacing`` squared."""
    x1, y1, x2, y2 = box
    x1, y1, x2, y2 = max(x1, -plan.reach), max(y1, -plan.reach), min(x2, plan.reach), min(y2, plan.reach)
    if x2 <= x1 or y2 <= y1:
        return
    for _ in range(min(26, int((x2 - x1) * (y2 - y1) / spacing**2 + plan.random.random()))):
        plan.trees.append((plan.random.uniform(x1, x2), plan.random.uniform(y1, y2), plan.random.uniform(*radius)))


def parking(plan: Plan, box: Rect, names: tuple[str, ...] = ("small vehicle",)) -> None:
    """Rows of stalls on asphalt; every fourth or so is for lorries."""
    x1, y1, x2, y2 = box
    plan.area("asphalt", box)
    y = y1 + 1
    while y + 5.5 < y2:
        lorries = plan.random.random() < 0.22 and y + 15 < y2
        deep, wide = (15.0, 4.6) if lorries else (5.6, 2.9)
        if abs(y + deep / 2) < plan.reach:
            row = plan.spots(max(x1 + 1, -plan.reach), min(x2 - 1, plan.reach), wide)
            plan.rows(LINE, np.array(row) - wide / 2, y, y + deep)
            kind, lengths = (("large vehicle",), (9.0, 13.5)) if lorries else (names, None)
            for x in row:
                if plan.seen(x, y + deep / 2):
                    turn = (1.57 if plan.random.random() < 0.5 else -1.57) + plan.random.uniform(-0.05, 0.05)
                    plan.slots.append(Slot(kind, x, y + deep / 2, turn, "asphalt", lengths))
        back_to_back = plan.random.random() < 0.5
        y += deep + (0.4 if back_to_back else 6.5)


def houses(plan: Plan, box: Rect, *, size: tuple[float, float] = (10.0, 17.0)) -> None:
    """Plots in rows with a house, sometimes a pool behind it, a car on the drive, trees."""
    x1, y1, x2, y2 = box
    draw = plan.random
    plan.area("lawn" if draw.random() < 0.6 else "grass", box)
    deep = 32.0
    rows = plan.spots(y1, y2, deep) if y2 - y1 > deep else [(y1 + y2) / 2]
    for number, y in enumerate(rows):
        front = 1 if number % 2 else -1
        for x in plan.spots(max(x1, -plan.reach - 20), min(x2, plan.reach + 20), 23.0):
            if not plan.seen(x, y, 16.0):
                continue
            house_x, house_y = x - 2.5 + draw.uniform(-1, 1), y + front * draw.uniform(2, 5)
            turn = draw.choice((0.0, 0.0, math.pi / 2)) + draw.gauss(0, 0.04)
            drive = x + 8.0
            yard = ("concrete", (drive - 1.8, min(y, y + front * 16), drive + 1.8, max(y, y + front * 16)))
            plan.slots.append(Slot(("building",), house_x, house_y, turn, "lawn", size, yard=yard))
            plan.slots.append(Slot(("small vehicle",), drive, y + front * draw.uniform(4, 10), math.pi / 2, "concrete", yard=yard))
            if draw.random() < 0.6:
                plan.slots.append(Slot(("swimming pool",), x + draw.uniform(-3, 1), y - front * draw.uniform(9, 11), draw.gauss(0, 0.1), "lawn", (8, 12.5)))
            if draw.random() < 0.7:
                plan.trees.append((x + draw.choice((-9.5, 10.0)), y - front * draw.uniform(4, 13), draw.uniform(2, 3.8)))


def courts(plan: Plan, box: Rect) -> None:
    """Courts of one sport in rows, with some of the other."""
    x1, y1, x2, y2 = box
    ground = plan.random.choice(("grass", "soil", "concrete"))
    plan.area(ground, box)
    tennis = plan.random.random() < 0.6
    wide, deep = (41.0, 22.0) if tennis else (36.0, 21.0)
    main, other = ("tennis court", "basketball court") if tennis else ("basketball court", "tennis court")
    shift = plan.random.uniform(-0.3, 0.3) * min(wide, deep)
    for x in plan.spots(x1, x2, wide, shift):
        for y in plan.spots(y1, y2, deep):
            if plan.seen(x, y, 10.0):
                plan.slots.append(Slot((main, main, main, other), x, y, 0.0, ground, None if tennis else (26, 34)))


def tanks(plan: Plan, box: Rect) -> None:
    """A tank farm: round tanks on a grid inside low dikes."""
    x1, y1, x2, y2 = box
    ground = plan.random.choice(("soil", "concrete", "sand"))
    plan.area(ground, box)
    size = plan.random.uniform(13, 32)
    step = size * 1.45
    for x in plan.spots(x1, x2, step):
        for y in plan.spots(y1, y2, step):
            if plan.seen(x, y, size / 2) and x1 + size * 0.4 < x < x2 - size * 0.4 and y1 + size * 0.4 < y < y2 - size * 0.4:
                plan.slots.append(Slot(("storage tank",), x, y, plan.random.uniform(0, 6.28), ground, (max(11, size * 0.6), size * 1.05)))
                if plan.random.random() < 0.35:
                    half = step * 0.48
                    corners = ((x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half), (x - half, y - half))
                    plan.mark((140, 126, 108), *corners)


def warehouses(plan: Plan, box: Rect) -> None:
    """Large halls on a concrete yard, with lorries in front."""
    x1, y1, x2, y2 = box
    plan.area("concrete" if plan.random.random() < 0.5 else "asphalt", box)
    ground = plan.areas[-1][0]
    for x in plan.spots(x1, x2, 50.0):
        for y in plan.spots(y1, y2, 44.0):
            if not (plan.seen(x, y, 25.0) and y1 + 8 < y - 7 < y2 - 8):
                continue
            plan.slots.append(Slot(("building",), x, y - 7, 0.0, ground, (24, 42)))
            for lorry in plan.spots(x - 20, x + 20, 5.5):
                if not (x1 + 3 < lorry < x2 - 3 and y1 < y + 18 < y2 - 6):
                    continue
                plan.slots.append(Slot(("large vehicle", "large vehicle", "small vehicle"), lorry, y + 18, -math.pi / 2, ground, (4.2, 14)))


def park(plan: Plan, box: Rect) -> None:
    """Grass, trees, now and then a path."""
    plan.area(plan.random.choice(("grass", "dry grass", "lawn")), box)
    scatter_trees(plan, box, 15.0)


def pitch(plan: Plan, box: Rect, names: tuple[str, ...] = ("soccer field", "baseball diamond", "ground track field")) -> None:
    """One large field in the middle of its ground."""
    x1, y1, x2, y2 = box
    name = plan.random.choice(names)
    ground = "soil" if name == "soccer field" and plan.random.random() < 0.5 else "dry grass"
    plan.area(ground, box)
    turn = 0.0 if x2 - x1 > y2 - y1 else math.pi / 2
    fits = max(x2 - x1, y2 - y1) * 0.95
    plan.slots.append(Slot((name,), (x1 + x2) / 2, (y1 + y2) / 2, turn, ground, (min(55, fits), max(fits, 56)), must=True))


def helipads(plan: Plan, box: Rect) -> None:
    """Pads in a row, with helicopters on and beside them."""
    x1, y1, x2, y2 = box
    ground = plan.random.choice(("grass", "asphalt", "concrete"))
    plan.area(ground, box)
    for x in plan.spots(x1, x2, 30.0):
        for y in plan.spots(y1, y2, 30.0):
            if not plan.seen(x, y, 8.0):
                continue
            turn = plan.random.uniform(0, 6.28)
            if plan.random.random() < 0.75:
                plan.slots.append(Slot(("helipad",), x, y, turn, ground))
            if plan.random.random() < 0.8:
                plan.slots.append(Slot(("helicopter",), x + plan.random.uniform(-2, 2), y + plan.random.uniform(-2, 2), turn, ground, over=True))


def apron(plan: Plan, box: Rect, sizes: tuple[float, float]) -> None:
    """Planes side by side at their stands, with yellow lead-in lines and service vehicles between."""
    x1, y1, x2, y2 = box
    ground = plan.random.choice(("concrete", "asphalt"))
    plan.area(ground, box)
    step = sizes[1] * 1.08
    plan.rows((150, 148, 142), np.arange(-plan.reach, plan.reach, 25.0), y1, y2)
    turn = math.pi / 2 * plan.random.choice((-1, 1))
    for y in plan.spots(y1, y2, step * 1.25):
        for x in plan.spots(max(x1, -plan.reach), min(x2, plan.reach), step):
            if not plan.seen(x, y, step / 2):
                continue
            plan.mark(YELLOW, (x, y - step * 0.6), (x, y + step * 0.6))
            plan.slots.append(Slot(("plane",), x, y, turn + plan.random.gauss(0, 0.08), ground, sizes))
            if plan.random.random() < 0.35:
                names = ("large vehicle", "large vehicle", "small vehicle")
                plan.slots.append(Slot(names, x + step / 2, y + plan.random.uniform(-0.3, 0.3) * step, plan.random.choice((0.0, 1.57)), ground))
