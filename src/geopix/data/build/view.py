"""What expressions select: the things that clearly meet them and those that perhaps do.

Conditions are three-valued: a thing meets one clearly, perhaps, or clearly not. An expression is proved for
a set of things when they are exactly those that clearly meet it *and* exactly those that perhaps do: then nobody can take another thing for one of
them, whether it may be asked for itself or is cut off, hidden, tiny or of unsure colour.

Sets are integers: bit ``i`` stands for thing ``i``. Distances are shares of the image's longer side, centres are those of boxes.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from geopix.data.build.colours import WORDS
from geopix.data.build.expressions import ENDS, RANKING, SIDES, Condition, Expression
from geopix.data.build.measure import Picture, box_gaps
from geopix.data.scenes.expressions import APART, AREA_STEP, BESIDE, CELLS, EDGE_MARGIN, LARGE_MARGIN, SIZE_MARGIN

CUT_MARGIN = 2.0
"""The ratio of areas that ranks two things of which one is cut off or hidden in part; between whole ones it is ``SIZE_MARGIN``."""
LENGTH_MARGIN = 1.25
"""How clear of a length in metres the length of a thing must be."""
ALONE, NOT_ALONE = 0.2, 0.12
"""A thing stands alone when the next of its class is at least the first away, and does not from the second down."""
UPRIGHT, SLANTED, DOUBT = 15.0, 30.0, 8.0
"""Degrees from an axis up to which a long thing lies along it, from which on it lies diagonally, and by which either may be off."""
CROWD = 300
"""Of more things of a class no clusters are sought."""

Selected = tuple[int, int]
"""Who clearly meets an expression, and who perhaps does."""


class View:
    """An image's things as expressions see them: measured once, then asked many times."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.things = things = picture.things
        side = max(picture.height, picture.width, 1)
        self.boxes: Float[ndarray, "n 4"] = np.array([thing.box for thing in things], dtype=np.float64).reshape(-1, 4) / side
        self.x, self.y = (np.array([getattr(thing, axis) for thing in things], dtype=np.float64) for axis in ("x", "y"))
        self.centres = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        self.area = np.array([thing.area for thing in things], dtype=np.float64) / max(picture.height * picture.width, 1)
        self.whole = np.array([thing.whole for thing in things], dtype=bool)
        self.all = (1 << len(things)) - 1
        self.targets = _bits(np.array([not thing.reject for thing in things], dtype=bool))
        self.nameless = _bits(np.array([thing.name is None and thing.area > 0 for thing in things], dtype=bool))
        self.classes: dict[str, int] = {}
        for index, thing in enumerate(things):
            if thing.name is not None and thing.area > 0:  # what has no pixel is not in the image
                self.classes[thing.name] = self.classes.get(thing.name, 0) | 1 << index
        self._kept: dict[tuple[str, Condition], Selected] = {}
        self._selected: dict[Expression, Selected] = {}
        self._orders: dict[tuple[str, bool], list[int]] = {}
        self._sides: dict[tuple[int, str], tuple[int, int]] = {}
        self._later: dict[tuple[int, str, bool, float], int] = {}

    def select(self, expression: Expression) -> Selected:
        """Who clearly meets an expression, and who perhaps does; the latter is everything where its anchor is not proved."""
        found = self._selected.get(expression)
        if found is None:
            sure = self.classes.get(expression.name, 0)
            maybe = sure | self.nameless
            for condition in expression.conditions:
                if condition.kind not in RANKING:
                    clear, perhaps = self._filter(expression.name, condition)
                    sure, maybe = sure & clear, maybe & perhaps
            for condition in expression.conditions:
                if condition.kind in RANKING:
                    sure, maybe = self._ranked(sure, maybe, condition)
            found = self._selected[expression] = sure, maybe
        return found

    def proves(self, expression: Expression, wanted: int) -> bool:
        """The proof: exactly these things meet the expression, clearly, and no other does perhaps."""
        return wanted != 0 and self.select(expression) == (wanted, wanted)

    def one(self, expression: Expression) -> int | None:
        """The index of the only thing that an expression selects; None where it is not proved."""
        sure, maybe = self.select(expression)
        return sure.bit_length() - 1 if sure == maybe and sure.bit_count() == 1 else None

    def _filter(self, name: str, condition: Condition) -> Selected:
        key = (name if condition.kind == "alone" else "", condition)
        if key not in self._kept:
            self._kept[key] = self._measured(name, condition)
        return self._kept[key]

    def _measured(self, name: str, condition: Condition) -> Selected:
        kind, word = condition.kind, condition.word
        if kind == "colour":
            bit = WORDS.index(word)
            clear = np.array([thing.colour.word == word for thing in self.things], dtype=bool)
            return _bits(clear), _bits(np.array([bool(thing.colour.possible >> bit & 1) for thing in self.things], dtype=bool))
        if kind == "cell":
            return self._cell(word)
        if kind == "orientation":
            return self._orientation(word)
        if kind in ("longer", "shorter"):
            return self._length(kind, condition.value)
        if kind == "alone":
            space = self._spaces(name)
            return _bits((space >= ALONE) & np.isfinite(space)), _bits(space > NOT_ALONE)
        anchor = None if condition.anchor is None else self.one(condition.anchor)
        if anchor is None:
            return 0, self.all
        if kind == "beside":
            gaps = box_gaps(self.boxes, self.boxes[anchor])
            clear, perhaps = gaps <= BESIDE, gaps < APART
        else:
            step = (self.centres - self.centres[anchor]) @ np.array([SIDES[word], SIDES[word][::-1]]).T
            clear, perhaps = (step[:, 0] >= np.maximum(EDGE_MARGIN, np.abs(step[:, 1]) + EDGE_MARGIN / 2)), step[:, 0] > -EDGE_MARGIN
        clear[anchor] = perhaps[anchor] = False
        return _bits(clear), _bits(perhaps)

    def _cell(self, word: str) -> Selected:
        """Clearly within the cell of thirds; perhaps, up to where "left" ends for those who think in halves. A side spans the image: "top left" is left too."""
        sure, maybe = np.ones(len(self.things), dtype=bool), np.ones(len(self.things), dtype=bool)
        for value, low, high in ((self.x, "left", "right"), (self.y, "top", "bottom")):
            if low in word or high in word or word == "centre":
                third = 0 if low in word else 2 if high in word else 1
                start, end = third / 3, (third + 1) / 3
                sure &= ((value >= start + EDGE_MARGIN) | (third == 0)) & ((value <= end - EDGE_MARGIN) | (third == 2))
                low_end, high_end = (0.0, 0.5) if third == 0 else (0.5, 1.0) if third == 2 else (0.25, 0.75)
                maybe &= (value >= min(start - EDGE_MARGIN, low_end)) & (value <= max(end + EDGE_MARGIN, high_end))
        return _bits(sure), _bits(maybe)

    def _orientation(self, word: str) -> Selected:
        clear, perhaps = [], []
        for thing in self.things:
            if thing.angle is None:
                clear.append(False)
                perhaps.append(True)  # compact, or hidden in part so that it looks compact
                continue
            off = min(thing.angle % 180, 180 - thing.angle % 180)
            off = off if word == "horizontal" else 90 - off if word == "vertical" else abs(45 - off)
            limit = UPRIGHT if word != "diagonal" else 45 - SLANTED
            clear.append(thing.whole and off <= limit)
            perhaps.append(not thing.whole or off <= limit + DOUBT)
        return _bits(np.array(clear, dtype=bool)), _bits(np.array(perhaps, dtype=bool))

    def _length(self, kind: str, metres: int) -> Selected:
        """What is seen of a thing is a lower bound of its length, unless it is seen whole."""
        if self.picture.gsd is None:
            return 0, self.all
        length = np.array([thing.length for thing in self.things]) * self.picture.gsd
        if kind == "longer":
            return _bits(length >= LENGTH_MARGIN * metres), _bits(~self.whole | (length > metres / LENGTH_MARGIN))
        return _bits(self.whole & (length <= metres / LENGTH_MARGIN)), _bits(length < LENGTH_MARGIN * metres)

    def _spaces(self, name: str) -> Float[ndarray, " n"]:
        """Of each thing of a class, the gap to the next that is or may be of the class; infinite for others."""
        spaces = np.full(len(self.things), np.inf)
        pool = indices(self.classes.get(name, 0) | self.nameless)
        boxes = self.boxes[pool]
        for place, index in enumerate(pool):
            gaps = box_gaps(boxes, self.boxes[index])
            gaps[place] = np.inf
            spaces[index] = gaps.min()
        return spaces

    def _ranked(self, sure: int, maybe: int, condition: Condition) -> Selected:
        if condition.kind == "cluster":
            return self._cluster(sure, maybe, condition.value)
        if condition.kind == "nearest":
            return self._nearest(sure, maybe, condition)
        place = condition.value if condition.kind != "top" else condition.value - 1
        needed = place + 2 if place else 2  # the second of two has a plainer name, and so has the only one
        if maybe.bit_count() < needed or (place and sure != maybe):
            return 0, maybe
        by, descending = ENDS[condition.word]
        first = list(islice((index for index in self._order(by, descending) if maybe >> index & 1), place + 1))
        chosen, bits = first[-1], sum(1 << index for index in first)
        rest, margin = maybe & ~bits, LARGE_MARGIN if condition.word in ("large", "small") else SIZE_MARGIN
        if condition.kind == "top":
            return (0, maybe) if any(rest & ~self._before(index, by, descending, margin) for index in first) else (bits, bits)
        after = all(self._before(index, by, descending, margin) >> chosen & 1 for index in first[:-1])
        clear = sure >> chosen & 1 and after and not rest & ~self._before(chosen, by, descending, margin)
        return (1 << chosen, 1 << chosen) if clear else (0, maybe)

    def values(self, by: str) -> Float[ndarray, " n"]:
        """What things are ranked by: their area, or a coordinate of their centres."""
        return {"area": self.area, "x": self.x, "y": self.y}[by]

    def _order(self, by: str, descending: bool) -> list[int]:
        """All things from the first to the last."""
        if (by, descending) not in self._orders:
            self._orders[by, descending] = np.argsort(-self.values(by) if descending else self.values(by), kind="stable").tolist()
        return self._orders[by, descending]

    def sides(self, index: int, by: str) -> tuple[int, int]:
        """Things whose value is below that of one, and those whose is above."""
        if (index, by) not in self._sides:
            values = self.values(by)
            self._sides[index, by] = _bits(values < values[index]), _bits(values > values[index])
        return self._sides[index, by]

    def _before(self, index: int, by: str, descending: bool, size_margin: float) -> int:
        """Things that one clearly comes before."""
        key = index, by, descending, size_margin
        if key not in self._later:
            self._later[key] = _bits(self._comes_before(*key))
        return self._later[key]

    def _comes_before(self, index: int, by: str, descending: bool, size_margin: float) -> Bool[ndarray, " n"]:
        if by == "area":
            margin = np.where(self.whole & self.whole[index], size_margin, max(CUT_MARGIN, size_margin))
            high, low = (self.area[index], self.area) if descending else (self.area, self.area[index])
            return np.asarray((high >= margin * low) & (high - low >= AREA_STEP))
        # Its centre by the margin, and both of its sides: what spans another comes neither before nor after it.
        axis, sign = (0 if by == "x" else 1), (-1 if descending else 1)
        centre, low, high = self.values(by), self.boxes[:, axis], self.boxes[:, axis + 2]
        return np.asarray((sign * (centre - centre[index]) >= EDGE_MARGIN) & (sign * (low - low[index]) >= 0) & (sign * (high - high[index]) >= 0))

    def _nearest(self, sure: int, maybe: int, condition: Condition) -> Selected:
        """The nearest by centre and by gap alike: of large things, people may mean either."""
        anchor = None if condition.anchor is None else self.one(condition.anchor)
        if anchor is None:
            return 0, self.all
        pool = np.array(indices(maybe & ~(1 << anchor)), dtype=np.intp)
        if len(pool) < 2:
            return 0, _of(pool)
        distance = np.hypot(*(self.centres[pool] - self.centres[anchor]).T)
        gaps = box_gaps(self.boxes[pool], self.boxes[anchor])
        order = np.argsort(distance, kind="stable")
        first, rest = order[0], order[1:]
        clear = distance[rest].min() >= max(SIZE_MARGIN * distance[first], distance[first] + EDGE_MARGIN) and (gaps[rest] >= gaps[first] + EDGE_MARGIN).all()
        bit = 1 << int(pool[first])
        return (bit, bit) if clear and sure & bit else (0, _of(pool))

    def _cluster(self, sure: int, maybe: int, count: int) -> Selected:
        found = None if sure != maybe else self.clusters(sure)
        if found is None:
            return 0, maybe
        chosen = [members for members in found if members.bit_count() == count]
        return (chosen[0], chosen[0]) if len(chosen) == 1 else (0, sum(chosen))

    def clusters(self, pool: int) -> list[int] | None:
        """Things that stand close together, as sets of two or more; None where somebody could draw the line elsewhere."""
        members = indices(pool)
        if len(members) > CROWD:
            return None
        gaps = np.stack([box_gaps(self.boxes[members], self.boxes[index]) for index in members]) if members else np.zeros((0, 0))
        label = np.arange(len(members))
        for one, two in zip(*np.nonzero(gaps <= BESIDE), strict=True):
            label[label == label[two]] = label[one]
        if (gaps[label[:, None] != label[None]] < APART).any():
            return None
        sets = [_of(np.array(members, dtype=np.intp)[label == number]) for number in dict.fromkeys(label.tolist())]
        return [found for found in sets if found.bit_count() > 1]

    @cached_property
    def ids(self) -> list[int | str]:
        """Ids of the things, in order."""
        return [thing.id for thing in self.things]


def indices(bits: int) -> list[int]:
    """Positions of the set bits, ascending."""
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


def _bits(values: Bool[ndarray, " n"]) -> int:
    return int.from_bytes(np.packbits(values, bitorder="little").tobytes(), "little")


def _of(places: ndarray) -> int:
    return sum(1 << int(place) for place in places)


def cells_of(x: float, y: float) -> list[str]:
    """The cells that a point is clearly in, corners and centre first."""
    columns = [name for name, low, high in (("left", 0.0, 1 / 3), ("", 1 / 3, 2 / 3), ("right", 2 / 3, 1.0)) if _within(x, low, high)]
    rows = [name for name, low, high in (("top", 0.0, 1 / 3), ("", 1 / 3, 2 / 3), ("bottom", 2 / 3, 1.0)) if _within(y, low, high)]
    both = [f"{row} {column}".strip() or "centre" for row in rows for column in columns if (row and column) or not (row or column)]
    return [*both, *(side for side in (*rows, *columns) if side in CELLS)]


def _within(value: float, low: float, high: float) -> bool:
    return (value >= low + EDGE_MARGIN or low == 0) and (value <= high - EDGE_MARGIN or high == 1) and not math.isnan(value)
