"""What may be said of the things in a scene, and the proof that it selects exactly what it should.

An expression is a class, perhaps a colour, and one more condition. ``View.select`` gives the things that clearly meet it, or None when one of
them is so close to the line that two people could disagree; an expression is used only when what it selects is exactly what it is meant for.
Lengths are shares of the image's sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from geopix.data.scenes.records import Scene

SIZE_MARGIN = 1.3
"""The largest of a class covers at least so many times the area of the next."""
LARGE_MARGIN = 2.0
"""The same for "the large ship", which claims a plainer difference."""
AREA_STEP = 0.00025
"""Two areas also differ by this share of the image (4 pixels of 128 x 128), so that tiny things are not ranked by single pixels."""
EDGE_MARGIN = 0.04
"""How clear of a line, or of its neighbour, a centre must be."""
BESIDE, APART = 0.06, 0.15
"""A gap between boxes up to the first is "next to", from the second on it is not, between them nobody can tell."""

SIZES = ("largest", "smallest", "large", "small")
EDGES = ("leftmost", "rightmost", "topmost", "bottommost")
CELLS = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
RELATIONS = ("left of", "right of", "above", "below", "nearest to", "next to")

_NEAR = tuple(frozenset(pair) for pair in (("red", "brown"), ("red", "orange"), ("orange", "brown"), ("orange", "yellow")))
"""Colours that people, and haze, confuse: of one class, the one is not used to tell from the other."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One instance as expressions see it.

    Args:
        index: its place in ``Scene.instances``.
        x, y: centre of its box.
        box: ``x1 y1 x2 y2``.
        area: visible share of the image.
        target: it may be asked for; others only count against uniqueness.
        inside, near: bit ``i`` is set when the centre is clearly inside ``CELLS[i]``, or closer to its border than the margin.
    """

    index: int
    name: str
    colour: str | None
    x: float
    y: float
    box: tuple[float, float, float, float]
    area: float
    target: bool
    inside: int
    near: int


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition on things: a class, perhaps a colour, and one more.

    Args:
        how: "plain", "size", "edge", "cell", "rank" or "relation".
        word: which size, edge, cell, rank or relation; empty for "plain".
        anchor: the other end of a relation, selected by an expression of its own.
    """

    name: str
    colour: str | None = None
    how: str = "plain"
    word: str = ""
    anchor: Expression | None = None


class View:
    """A scene as expressions see it: measured once, then asked many times.

    Args:
        scene: the scene with all of its instances.
    """

    def __init__(self, scene: Scene) -> None:
        height, width = scene.image.shape[:2]
        self.setting = scene.setting
        self.height, self.width = height, width
        self.things = tuple(_measure(scene, index, height, width) for index in range(len(scene.instances)))
        self.targets = tuple(thing for thing in self.things if thing.target)
        self.names = tuple(dict.fromkeys(thing.name for thing in self.things))
        self._pools: dict[tuple[str, str | None], list[Thing] | None] = {}
        self._orders: dict[tuple[str, str | None, str], list[Thing]] = {}

    def pool(self, name: str, colour: str | None = None) -> list[Thing] | None:
        """All things of a class, or those of a colour among them; None when a colour of the class is unknown or too similar to tell."""
        key = (name, colour)
        if key not in self._pools:
            found = [thing for thing in self.things if thing.name == name]
            if colour is None:
                self._pools[key] = found
            elif any(thing.colour is None or frozenset((thing.colour, colour)) in _NEAR for thing in found):
                self._pools[key] = None
            else:
                self._pools[key] = [thing for thing in found if thing.colour == colour]
        return self._pools[key]

    def order(self, name: str, colour: str | None, by: str) -> list[Thing]:
        """A pool in ascending order of "area", "x" or "y"; empty when the pool is unknown."""
        key = (name, colour, by)
        if key not in self._orders:
            self._orders[key] = sorted(self.pool(name, colour) or [], key=_MEASURES[by])
        return self._orders[key]

    def select(self, expression: Expression, without: int = -1) -> tuple[int, ...] | None:
        """Indices of the things that clearly meet an expression, ascending.

        Args:
            expression: what to meet.
            without: index of a thing that is left out before anything is compared ("the one to its right").

        Returns:
            The indices, empty when clearly nothing does; None when some thing is too close to the line, or a relation's anchor is not unique.
        """
        pool = self.pool(expression.name, expression.colour)
        if pool is None:
            return None
        if expression.how == "plain":
            return tuple(thing.index for thing in pool if thing.index != without)
        if expression.how == "cell":
            return _in_cell([thing for thing in pool if thing.index != without], CELLS.index(expression.word))
        if expression.how == "relation":
            return self._related(pool, expression)
        return self._ranked(expression, without)

    def selects(self, expression: Expression, index: int) -> bool:
        """The proof: the expression selects this thing, clearly, and nothing else."""
        return self.select(expression) == (index,)

    def _ranked(self, expression: Expression, without: int) -> tuple[int, ...] | None:
        by, descending, place, ratio = _place(expression.word)
        things = [thing for thing in self.order(expression.name, expression.colour, by) if thing.index != without]
        if not things:
            return ()
        if descending:
            things.reverse()
        if len(things) < place + (2 if place else 1):  # the second of two has a plainer name
            return None
        apart = _areas_apart if by == "area" else _places_apart
        neighbours = things[max(place - 1, 0) : place + 2]
        value = _MEASURES[by]
        clear = all(apart(value(first), value(second), ratio) for first, second in pairwise(neighbours))
        return (things[place].index,) if clear else None

    def _related(self, pool: list[Thing], expression: Expression) -> tuple[int, ...] | None:
        assert expression.anchor is not None
        found = self.select(expression.anchor)
        if found is None or len(found) != 1:
            return None
        anchor = self.things[found[0]]
        others = [thing for thing in pool if thing.index != anchor.index]
        if expression.word == "nearest to":
            return _nearest(others, anchor)
        verdict = _beside if expression.word == "next to" else _DIRECTIONS[expression.word]
        verdicts = [verdict(thing, anchor) for thing in others]
        return None if 0 in verdicts else tuple(thing.index for thing, said in zip(others, verdicts, strict=True) if said > 0)


def gap(one: Thing, two: Thing) -> float:
    """Distance between two boxes, 0 where they touch or overlap."""
    across = max(one.box[0] - two.box[2], two.box[0] - one.box[2], 0.0)
    down = max(one.box[1] - two.box[3], two.box[1] - one.box[3], 0.0)
    return math.hypot(across, down)


def _measure(scene: Scene, index: int, height: int, width: int) -> Thing:
    instance = scene.instances[index]
    x1, y1, x2, y2 = instance.box
    box = (x1 / width, y1 / height, x2 / width, y2 / height)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    area = int(np.count_nonzero(instance.mask[y1:y2, x1:x2])) / (height * width)  # the box holds every visible pixel, and is far smaller than the mask
    inside, near = _cells(x, y)
    return Thing(index, instance.name, instance.colour, x, y, box, area, not instance.distractor_only, inside, near)


def _third(value: float) -> tuple[int, int]:
    """Bits of the thirds that a coordinate is clearly in, and of those that it might be in."""
    third = min(int(value * 3), 2)
    maybe = 1 << third
    for line in (1, 2):
        if abs(value - line / 3) < EDGE_MARGIN:
            maybe |= (1 << (line - 1)) | (1 << line)
    return (maybe if maybe.bit_count() == 1 else 0), maybe


def _cells(x: float, y: float) -> tuple[int, int]:
    """Bits of the cells that a point is clearly in, and of those where nobody can tell. "left" means the whole left third, so that "top left" is left too."""
    (in_column, maybe_column), (in_row, maybe_row) = _third(x), _third(y)
    inside = near = 0
    for bit, (column, row) in enumerate(_CELL_BITS):
        if _meets(in_column, column) and _meets(in_row, row):
            inside |= 1 << bit
        elif _meets(maybe_column, column) and _meets(maybe_row, row):
            near |= 1 << bit
    return inside, near


def _meets(thirds: int, wanted: int) -> bool:
    return wanted == _ANY or bool(thirds & wanted)


_ANY = 7
_CELL_BITS = ((1, 1), (_ANY, 1), (4, 1), (1, _ANY), (2, 2), (4, _ANY), (1, 4), (_ANY, 4), (4, 4))  # column and row of each cell; a side spans the whole image


def _in_cell(things: list[Thing], cell: int) -> tuple[int, ...] | None:
    if any(thing.near >> cell & 1 for thing in things):
        return None
    return tuple(thing.index for thing in things if thing.inside >> cell & 1)


def _place(word: str) -> tuple[str, bool, int, float]:
    """What a size, an edge or a rank orders by, whether from the far end, the place in that order, and the margin of sizes."""
    place = 0
    if word.startswith(("second ", "third ")):
        ordinal, word = word.split(" ", 1)
        place = 1 if ordinal == "second" else 2
    by, descending = _ORDERS[word]
    return by, descending, place, LARGE_MARGIN if word in ("large", "small") else SIZE_MARGIN


def _areas_apart(one: float, two: float, ratio: float) -> bool:
    low, high = min(one, two), max(one, two)
    return high >= ratio * low and high - low >= AREA_STEP


def _places_apart(one: float, two: float, ratio: float) -> bool:
    return abs(one - two) >= EDGE_MARGIN


def _nearest(things: list[Thing], anchor: Thing) -> tuple[int, ...] | None:
    """The nearest by centre and by gap alike: of large things, people may mean either."""
    if len(things) < 2:
        return tuple(thing.index for thing in things)
    ranked = sorted((math.hypot(thing.x - anchor.x, thing.y - anchor.y), thing.index, gap(thing, anchor)) for thing in things)
    distance, index, space = ranked[0]
    clear = ranked[1][0] >= max(SIZE_MARGIN * distance, distance + EDGE_MARGIN) and all(space <= other[2] - EDGE_MARGIN for other in ranked[1:])
    return (index,) if clear else None


def _beside(thing: Thing, anchor: Thing) -> int:
    space = gap(thing, anchor)
    return 1 if space <= BESIDE else -1 if space >= APART else 0


def _towards(along: float, across: float) -> int:
    """1 when a step is mainly along a direction, -1 when it is clearly not along it at all, else 0."""
    if along >= max(EDGE_MARGIN, abs(across)):
        return 1
    return -1 if along <= -EDGE_MARGIN else 0


_MEASURES: dict[str, Callable[[Thing], float]] = {"area": lambda thing: thing.area, "x": lambda thing: thing.x, "y": lambda thing: thing.y}
_ORDERS = {
    "largest": ("area", True), "smallest": ("area", False), "large": ("area", True), "small": ("area", False),
    "leftmost": ("x", False), "rightmost": ("x", True), "topmost": ("y", False), "bottommost": ("y", True),
    "from the left": ("x", False), "from the right": ("x", True), "from the top": ("y", False), "from the bottom": ("y", True),
}  # fmt: skip
_DIRECTIONS: dict[str, Callable[[Thing, Thing], int]] = {
    "left of": lambda thing, anchor: _towards(anchor.x - thing.x, thing.y - anchor.y),
    "right of": lambda thing, anchor: _towards(thing.x - anchor.x, thing.y - anchor.y),
    "above": lambda thing, anchor: _towards(anchor.y - thing.y, thing.x - anchor.x),
    "below": lambda thing, anchor: _towards(thing.y - anchor.y, thing.x - anchor.x),
}
