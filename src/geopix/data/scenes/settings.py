"""The kinds of places that scenes show, each laid out from the pieces of ``places``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geopix.data.scenes.places import (
    Plan,
    Slot,
    apron,
    courts,
    helipads,
    houses,
    park,
    parking,
    pitch,
    road,
    scatter_trees,
    tanks,
    warehouses,
)


@dataclass(frozen=True)
class Setting:
    """A kind of place.

    Args:
        extents: range of metres that an image of it covers, before the level's zoom.
        lay: fills a plan.
        weight: how often it comes, relative to the others.
    """

    extents: tuple[float, float]
    lay: Callable[[Plan], None]
    weight: float


def harbour(plan: Plan) -> None:
    """A quay along one side, piers into the water, ships beside them and on the open water."""
    draw, reach, side = plan.random, plan.reach, plan.extent
    plan.base = "water"
    shore = draw.uniform(0.12, 0.36) * side
    plan.area(draw.choice(("concrete", "soil", "sand")), (-reach, shore, reach, reach))
    plan.area("concrete", (-reach, shore, reach, shore + side * 0.04))
    long = min(side * draw.uniform(0.35, 0.5), 90.0)
    gap = draw.uniform(0.3, 0.42) * side
    for x in plan.spots(-reach, reach, gap, draw.uniform(-0.5, 0.5) * gap):
        if draw.random() < 0.85 and abs(x) < side * 0.62:
            plan.slots.append(Slot(("harbour",), x, shore - long * 0.48, math.pi / 2, "water", (long * 0.9, long), must=True))
            fits = (max(9.0, long * 0.2), max(14.0, long * 0.42))
            for sign in (-1, 1):
                step = fits[1] * 0.5 if fits[1] < 22 else fits[1] * 1.15
                for y in np.arange(shore - long * 0.92, shore - fits[1] * 0.5, step):
                    if fits[1] < 22:
                        plan.slots.append(Slot(("ship",), x + sign * (long * 0.075 + fits[1] * 0.56), y, draw.choice((0.0, math.pi)), "water", fits))
                    else:
                        plan.slots.append(Slot(("ship",), x + sign * (long * 0.08 + fits[1] * 0.16), y, math.pi / 2, "water", fits))
    for _ in range(5):
        x, y = draw.uniform(-0.5, 0.5) * side, draw.uniform(-0.5, 0.1) * side
        plan.slots.append(Slot(("ship",), x, y, draw.uniform(0, 6.28), "water", (9, side * 0.28)))
    land = (shore + side * 0.06, reach)
    if draw.random() < 0.5:
        road(plan, (-reach, land[0] + 8), (reach, land[0] + 8), 8.0)
    for x in plan.spots(-reach, reach, side * 0.3):
        plan.slots.append(Slot(("building", "building", "storage tank"), x, land[0] + side * 0.18, 0.0, "concrete", (12, side * 0.22)))


def residential(plan: Plan) -> None:
    """Streets with houses on both sides."""
    reach, draw = plan.reach, plan.random
    offset = draw.uniform(-0.25, 0.25) * plan.extent
    streets = [offset + k * 74.0 for k in range(-3, 4) if abs(offset + k * 74.0) < reach + 37]
    for y in streets:
        houses(plan, (-reach, y + 5, reach, y + 37))
        houses(plan, (-reach, y - 37, reach, y - 5))
    scatter_trees(plan, (-reach, -reach, reach, reach), 26.0, (1.8, 3.6))
    for y in streets:
        road(plan, (-reach, y), (reach, y), 7.5, ("small vehicle",) * 5 + ("large vehicle",), 14.0)
    if draw.random() < 0.4:
        x = draw.uniform(-0.4, 0.4) * plan.extent
        road(plan, (x, -reach), (x, reach), 7.5, ("small vehicle",), 18.0)


def airport(plan: Plan) -> None:
    """An apron with planes, a terminal, a taxiway through the grass."""
    draw, reach, side = plan.random, plan.reach, plan.extent
    plan.base = draw.choice(("grass", "dry grass"))
    size = draw.uniform(0.13, 0.24) * side
    edge = draw.uniform(0.1, 0.3) * side
    apron(plan, (-reach, -side * 0.3, reach, edge), (max(20.0, size * 0.75), min(56.0, max(26.0, size * 1.2))))
    plan.area("asphalt", (-reach, edge + side * 0.06, reach, edge + side * 0.06 + 24))
    centre = edge + side * 0.06 + 12
    plan.mark((222, 190, 84), (-reach, centre), (reach, centre))
    for x in plan.spots(-reach, reach, side * 0.5):
        plan.slots.append(Slot(("plane",), x, centre, draw.choice((0.0, math.pi)), "asphalt", (20, max(24.0, size))))
    for x in plan.spots(-reach, reach, side * 0.34):
        plan.slots.append(Slot(("building",), x, -side * 0.4, 0.0, plan.base, (20, 45)))
    if draw.random() < 0.4:
        helipads(plan, (-reach, centre + 20.0, reach, centre + 50.0))


def heliport(plan: Plan) -> None:
    """Helicopter pads beside a hangar and a parking lot."""
    reach, side = plan.reach, plan.extent
    helipads(plan, (-reach, -side * 0.45, reach, side * 0.2))
    plan.slots.append(Slot(("building",), plan.random.uniform(-0.3, 0.3) * side, side * 0.38, 0.0, "grass", (15, 30)))
    if plan.random.random() < 0.6:
        parking(plan, (side * 0.1, side * 0.24, reach, side * 0.5))
    scatter_trees(plan, (-reach, side * 0.25, 0.0, reach), 14.0)


def industrial(plan: Plan) -> None:
    """A tank farm on one side of the road, halls on the other."""
    reach, side = plan.reach, plan.extent
    split = plan.random.uniform(-0.2, 0.3) * side
    tanks(plan, (-reach, -reach, reach, split - 8))
    warehouses(plan, (-reach, split + 8, reach, split + 8 + 44 * max(1, int((reach - split) / 44))))
    road(plan, (-reach, split), (reach, split), 9.0, ("large vehicle", "large vehicle", "small vehicle"), 19.0)


def sports(plan: Plan) -> None:
    """Courts in blocks, a large field, a parking lot."""
    reach, side, draw = plan.reach, plan.extent, plan.random
    plan.base = "grass"
    split = draw.uniform(-0.1, 0.1) * side
    if side > 150 or draw.random() < 0.3:
        pitch(plan, (-reach * 0.9, split - min(125, side * 0.52), reach * 0.9, split - 4))
    else:
        courts(plan, (-side * 0.5, -side * 0.5, side * 0.5, split - 4))
    courts(plan, (-side * 0.5, split + 4, side * 0.3, side * 0.5))
    if draw.random() < 0.6:
        parking(plan, (side * 0.32, split + 4, side * 0.6, side * 0.5))
    else:
        plan.slots.append(Slot(("swimming pool",), side * 0.38, side * 0.25, math.pi / 2, "grass", (14, 22)))
    scatter_trees(plan, (-reach, -reach, reach, reach), 30.0)


def stadium(plan: Plan) -> None:
    """A ground track field, soccer field or baseball diamonds that fill much of the image."""
    side, draw = plan.extent, plan.random
    plan.base = draw.choice(("grass", "dry grass"))
    x, y = (draw.uniform(-0.06, 0.06) * side for _ in range(2))
    names = ("ground track field", "ground track field", "soccer field", "baseball diamond")
    plan.slots.append(Slot((draw.choice(names),), x, y, draw.choice((0.0, 0.0, 1.57)), plan.base, must=True))
    courts(plan, (-side * 0.5, side * 0.27, side * 0.5, side * 0.5))
    plan.slots.append(Slot(("baseball diamond", "soccer field"), -side * 0.3, -side * 0.36, draw.choice((0.0, 1.57)), plan.base))
    if draw.random() < 0.6:
        parking(plan, (side * 0.05, -side * 0.5, side * 0.5, -side * 0.33))
    plan.slots.append(Slot(("building",), -side * 0.42, side * 0.24, 1.57, plan.base, (18, 40)))
    scatter_trees(plan, (-plan.reach, -plan.reach, plan.reach, plan.reach), 34.0)


def river(plan: Plan) -> None:
    """A river with one or two bridges, ships, and houses or halls on the banks."""
    reach, side, draw = plan.reach, plan.extent, plan.random
    wide = draw.uniform(0.24, 0.4) * side
    phase, sway = draw.uniform(0, 6.28), draw.uniform(0, 0.06) * side
    x = np.linspace(-reach, reach, 24)
    centre = sway * np.sin(x / side * 5 + phase)
    bank = houses if draw.random() < 0.6 else warehouses
    bank(plan, (-reach, wide * 0.5 + sway + 10, reach, reach))
    houses(plan, (-reach, -reach, reach, -wide * 0.5 - sway - 10))
    middles = [0.0] if draw.random() < 0.6 else [-0.27 * side, 0.27 * side]
    spans = [span + draw.uniform(-0.12, 0.12) * side for span in middles]
    for span in spans:
        road(plan, (span, -reach), (span, reach), 9.0, gap=16.0)
    for ground, more in (("soil", 6.0), ("water", 0.0)):
        upper, lower = np.stack([x, centre - wide / 2 - more], 1), np.stack([x, centre + wide / 2 + more], 1)
        plan.areas.append((ground, np.concatenate([upper, lower[::-1]])))
    for span in spans:
        middle = sway * math.sin(span / side * 5 + phase)
        long = min(120.0, wide + 12)
        plan.slots.append(Slot(("bridge",), span, middle, math.pi / 2, "water", (long * 0.97, long), must=True, width=draw.uniform(11.5, 14.5)))
    for at in plan.spots(-side * 0.5, side * 0.5, side * 0.13):
        y = sway * math.sin(at / side * 5 + phase) + draw.uniform(-0.3, 0.3) * wide
        plan.slots.append(Slot(("ship",), at, y, draw.choice((0.0, math.pi)) + draw.gauss(0, 0.15), "water", (9, max(12.0, wide * 0.7)), over=True))
    plan.slots = [slot for slot in plan.slots if slot.ground == "water" or slot.over or abs(slot.y) > wide * 0.5 + sway + 12]
    plan.trees = [tree for tree in plan.trees if abs(tree[1]) > wide * 0.5 + sway + 6]


def parking_lot(plan: Plan) -> None:
    """Stalls and stalls, a shop, trees."""
    reach, side, draw = plan.reach, plan.extent, plan.random
    plan.base = "grass"
    edge = draw.uniform(0.1, 0.5) * side
    parking(plan, (-reach, -side * draw.uniform(0.36, 0.6), reach, edge))
    plan.slots.append(Slot(("building",), draw.uniform(-0.2, 0.2) * side, edge + 9 + side * 0.08, 0.0, "grass", (14, 28)))
    scatter_trees(plan, (-reach, edge + 2, reach, reach), 9.0, (1.8, 3.2))
    scatter_trees(plan, (-reach, -reach, reach, -side * 0.42), 9.0, (1.8, 3.2))


def junction(plan: Plan) -> None:
    """Two roads that meet in a roundabout."""
    reach, side, draw = plan.reach, plan.extent, plan.random
    x, y = (draw.uniform(-0.15, 0.15) * side for _ in range(2))
    size = draw.uniform(34, 48)
    near = size / 2 + 6
    for box in ((-reach, -reach, x - near, y - near), (x + near, -reach, reach, y - near),
                (-reach, y + near, x - near, reach), (x + near, y + near, reach, reach)):  # fmt: skip
        draw.choice((houses, houses, park, warehouses, parking))(plan, box)
    road(plan, (-reach, y), (reach, y), 9.0)
    road(plan, (x, -reach), (x, reach), 9.0)
    plan.slots = [slot for slot in plan.slots if not slot.over or math.hypot(slot.x - x, slot.y - y) > size * 0.62]
    plan.slots.append(Slot(("roundabout",), x, y, 0.0, "grass", (size, size), must=True))
    for turn in (0.4, 2.0, 3.6, 5.2):
        at = turn + draw.uniform(-0.3, 0.3)
        spot = (x + size * 0.385 * math.cos(at), y + size * 0.385 * math.sin(at))
        plan.slots.append(Slot(("small vehicle", "small vehicle", "large vehicle"), *spot, at + math.pi / 2, "asphalt", (4.2, 10), over=True))


def town(plan: Plan) -> None:
    """Four blocks of different use around a crossing."""
    reach, side, draw = plan.reach, plan.extent, plan.random
    x, y = (draw.uniform(-0.15, 0.15) * side for _ in range(2))
    fillers = (houses, houses, courts, parking, tanks, warehouses, park, helipads)
    for box in ((-reach, -reach, x - 6, y - 6), (x + 6, -reach, reach, y - 6), (-reach, y + 6, x - 6, reach), (x + 6, y + 6, reach, reach)):
        draw.choice(fillers)(plan, box)
    road(plan, (-reach, y), (reach, y), 8.5)
    road(plan, (x, -reach), (x, reach), 8.5)


SETTINGS: dict[str, Setting] = {
    "harbour": Setting((110.0, 190.0), harbour, 1.4),
    "residential area": Setting((52.0, 78.0), residential, 1.1),
    "airport": Setting((150.0, 260.0), airport, 1.3),
    "heliport": Setting((80.0, 120.0), heliport, 1.0),
    "industrial area": Setting((90.0, 160.0), industrial, 1.1),
    "sports complex": Setting((110.0, 180.0), sports, 1.2),
    "stadium": Setting((205.0, 285.0), stadium, 1.2),
    "river crossing": Setting((85.0, 150.0), river, 1.2),
    "parking lot": Setting((42.0, 64.0), parking_lot, 0.8),
    "road junction": Setting((64.0, 94.0), junction, 1.0),
    "town": Setting((66.0, 100.0), town, 0.9),
}
"""Settings by the name that captions use."""
