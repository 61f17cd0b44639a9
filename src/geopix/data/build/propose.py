"""Finding expressions: proposals that a thing meets, of which only the proved are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from geopix.data.build.colours import WORDS
from geopix.data.build.expressions import ENDS, LINES, SIDES, Condition, Expression
from geopix.data.build.view import LENGTH_MARGIN, View, cells_of, indices
from geopix.data.scenes.expressions import CELLS
from geopix.data.scenes.phrases import choose
from geopix.data.scenes.references import weighted_order

WEIGHTS = {
    "class": 2.0, "colour": 5.0, "size": 5.0, "cell": 5.0, "edge": 1.5, "rank": 1.5, "direction": 4.0, "beside": 3.0, "nearest": 2.0, "orientation": 4.0,
    "longer": 2.5, "shorter": 2.5, "alone": 3.0, "cell+colour": 2.0, "colour+size": 2.0, "cell+edge": 0.5, "colour+edge": 0.5,
}  # fmt: skip
"""How readily each type of expression is taken where several are proved; types that are not named weigh 1."""
UNIQUE_WEIGHT = 25.0
"""Factor on "the ship" where there is one ship: nothing more is needed."""
METRES = (5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300)
ANCHORS = 5
"""Landmarks of other classes that are tried for each thing."""
OWN_ANCHORS = 3
"""Landmarks of its own class."""
PAIRS = 24
"""Pairs of conditions that are tried for each thing."""
TOPS = ("largest", "smallest", "leftmost", "rightmost", "topmost", "bottommost")

Found = dict[str, list[Expression]]
"""Proved expressions by type."""
Together = Mapping[str, Mapping[str, int]]
"""For each class of the set, how many images show it beside each other class (and, under its own name, at all)."""


class Finder:
    """Finds expressions about one image; what was proved is kept.

    Args:
        view: the image.
        rng: source of chance.
        together: the classes of the set.
    """

    def __init__(self, view: View, rng: np.random.Generator, together: Together) -> None:
        self.view, self.rng, self.together = view, rng, together
        self._proved: dict[int, Found] = {}
        self._kept: dict[int, list[Condition]] = {}

    def singles(self, index: int, count: int, *, without: Sequence[str] = ()) -> list[Expression]:
        """Up to ``count`` expressions of different types, each proved to select this thing alone.

        Args:
            index: of the thing.
            count: at most so many.
            without: kinds of conditions that are not used.
        """
        if index not in self._proved:
            self._proved[index] = {}
            for expression in self._proposals(index):
                if self.view.proves(expression, 1 << index) and self._is_needed(expression):
                    self._proved[index].setdefault(expression.type, []).append(expression)
        found = {
            name: kept for name, options in self._proved[index].items()
            if (kept := [one for one in options if not any(condition.kind in without for condition in one.conditions)])
        }  # fmt: skip
        types = list(found)
        weights = [WEIGHTS.get(name, 1.0) * (UNIQUE_WEIGHT if name == "class" else 1.0) for name in types]
        return [choose(self.rng, found[types[place]]) for place in weighted_order(self.rng, weights)[:count]]

    def _is_needed(self, expression: Expression) -> bool:
        """Whether each of several conditions is needed: "the largest ship on the left" is not said where "the largest ship" does."""
        said = expression.conditions
        if len(said) < 2:
            return True
        wanted = self.view.select(expression)
        return all(self.view.select(Expression(expression.name, tuple(other for other in said if other is not one))) != wanted for one in said)

    def _proposals(self, index: int) -> Iterator[Expression]:
        name = self.view.things[index].name
        if name is None:
            return
        kept = self.filters(index)
        yield Expression(name)
        enough = set()
        for condition in (*kept, *self._rankings(index, name), *(Condition("nearest", "", 0, anchor) for anchor in self._anchors(name))):
            yield Expression(name, (condition,))
            if self.view.proves(Expression(name, (condition,)), 1 << index):
                enough.add(condition)
        kept = [condition for condition in kept if condition not in enough]  # what is enough by itself needs no other
        yield from (Expression(name, pair) for pair in self._pairs(kept))
        for condition in kept:  # among fewer, the thing may come first
            if condition.kind in ("colour", "cell", "orientation"):
                rankings = (
                    ranking for ranking in self._rankings(index, name, condition) if not (condition.kind == "cell" and _same_axis(condition.word, ranking))
                )
                yield from (Expression(name, (condition, ranking)) for ranking in rankings)

    def _pairs(self, kept: Sequence[Condition]) -> list[tuple[Condition, Condition]]:
        """Some pairs of conditions with a colour or a cell; no cell beside an anchor, to which it would seem to belong."""
        pairs = [
            (one, two) for place, one in enumerate(kept) for two in kept[place + 1 :]
            if one.kind != two.kind and ("colour" in (one.kind, two.kind) or ("cell" in (one.kind, two.kind) and one.anchor is None and two.anchor is None))
        ]  # fmt: skip
        return [pairs[place] for place in self.rng.permutation(len(pairs))[:PAIRS].tolist()]

    def filters(self, index: int) -> list[Condition]:
        """Conditions that a thing clearly meets."""
        if index not in self._kept:
            thing = self.view.things[index]
            name, gsd = thing.name or "", self.view.picture.gsd
            found = [Condition("cell", cell) for cell in cells_of(thing.x, thing.y)]
            if thing.colour.word is not None:
                found.append(Condition("colour", thing.colour.word))
            options = [Condition("orientation", word) for word in LINES] + [Condition("alone")]
            if gsd is not None:
                longer = [metres for metres in METRES if metres <= thing.length * gsd / LENGTH_MARGIN]
                shorter = [metres for metres in METRES if metres >= thing.length * gsd * LENGTH_MARGIN]
                options += [Condition("longer", "", metres) for metres in longer[-2:]] + [Condition("shorter", "", metres) for metres in shorter[:2]]
            for anchor in self._anchors(name):
                options += [Condition("direction", word, 0, anchor) for word in SIDES] + [Condition("beside", "", 0, anchor)]
            self._kept[index] = found + [condition for condition in options if self.view.select(Expression(name, (condition,)))[0] >> index & 1]
        return self._kept[index]

    @cached_property
    def _landmarks(self) -> list[Expression]:
        """Things that their class, a colour or a place at an end tells apart, in random order; the plainer first."""
        plain, ends = [], []
        for index in self.rng.permutation(len(self.view.things)).tolist():
            thing = self.view.things[index]
            if thing.reject or thing.name is None:
                continue
            colour = () if thing.colour.word is None else (Condition("colour", thing.colour.word),)
            options = [Expression(thing.name, conditions) for conditions in dict.fromkeys(((), colour))]
            plain += [expression for expression in options if self.view.proves(expression, 1 << index)][:1]
        for name in self.view.classes:
            options = [Expression(name, (Condition("size" if by == "area" else "edge", word),)) for word, (by, _) in ENDS.items() if word in TOPS]
            found = [(expression, self.view.one(expression)) for expression in options]
            ends += [expression for expression, index in found if index is not None and self.view.targets >> index & 1]
        return plain + [ends[place] for place in self.rng.permutation(len(ends)).tolist()]

    def _anchors(self, name: str) -> list[Expression]:
        """Landmarks that a thing of a class is related to: some of other classes, some of its own, such as "the largest ship"."""
        others = [anchor for anchor in self._landmarks if anchor.name != name]
        many = self.view.classes[name].bit_count() > 2  # of two, "the ship below the topmost ship" is "the bottommost ship"
        own = [anchor for anchor in self._landmarks if many and anchor.name == name and anchor.conditions]
        return [*others[:ANCHORS], *own[:OWN_ANCHORS]]

    def _rankings(self, index: int, name: str, kept: Condition | None = None) -> list[Condition]:
        """Rankings in which a thing stands where they say, among its class or those of it that meet a condition."""
        pool = self.view.select(Expression(name, () if kept is None else (kept,)))[1]
        if pool.bit_count() < 2 or not pool >> index & 1:
            return []
        found = []
        before = {by: tuple((pool & side).bit_count() for side in self.view.sides(index, by)) for by in ("area", "x", "y")}
        for word, (by, descending) in ENDS.items():
            rank = before[by][descending]
            ordinal = word.startswith("from ")
            if rank == 0 and not ordinal and not (word in ("large", "small") and name.startswith(("large", "small"))):
                found.append(Condition("size" if by == "area" else "edge", word))
            if rank in (1, 2) and kept is None and (ordinal or word in ("largest", "smallest")):
                found.append(Condition("rank", word, rank))
        return found

    def groups(self, *, least: int = 2, counted: bool = False) -> list[tuple[Expression, int]]:
        """Proved expressions of several things, of different types, in random order: a class, those of it that meet a condition, the first of a ranking,
        a cluster.

        Args:
            least: things that an expression selects at least.
            counted: only those of which each thing is seen well enough to be counted, and no ranking or cluster, which say their number.
        """
        found: dict[str, list[tuple[Expression, int]]] = {}
        for expression, things in self._groups:
            says = counted and (expression.says("top") or expression.says("cluster") or things & ~self.view.targets)
            if things.bit_count() >= least and not says:
                found.setdefault(expression.type, []).append((expression, things))
        types = list(found)
        order = weighted_order(self.rng, [WEIGHTS.get(name, 2.0) for name in types])
        return [choose(self.rng, found[types[place]]) for place in order]

    @cached_property
    def _groups(self) -> list[tuple[Expression, int]]:
        proved = []
        for name, members in self.view.classes.items():
            options: list[tuple[Condition, ...]] = [()]
            firsts = indices(members & self.view.targets)
            for index in (firsts[place] for place in self.rng.permutation(len(firsts))[:4].tolist()):
                kept = self.filters(index)
                options += [(condition,) for condition in kept]
                options += [(one, two) for one in kept if one.kind == "colour" for two in kept if two.kind == "cell"]
            if members.bit_count() >= 4:
                options += [(Condition("top", word, count),) for word in TOPS for count in (2, 3)]
            sizes = {cluster.bit_count() for cluster in self.view.clusters(members) or ()} if members.bit_count() > 2 else set()
            options += [(Condition("cluster", "", size),) for size in sorted(sizes) if size < members.bit_count()]
            for conditions in dict.fromkeys(options):
                expression = Expression(name, conditions)
                sure, maybe = self.view.select(expression)
                if sure and sure == maybe and (not conditions or (sure != members and self._is_needed(expression))):
                    proved.append((expression, sure))
        return proved

    def absent_classes(self) -> dict[str, float]:
        """Classes of which nothing can be there, with how often they stand beside what is there in the rest of the set.

        Nothing is absent where an instance's class is unknown, nor a class whose name is part of that of one present ("vehicle", "small vehicle").
        """
        present = list(self.view.classes)
        if self.view.nameless:
            return {}
        return {
            name: sum(self.together[other].get(name, 0) for other in present if other in self.together) + 0.05
            for name in sorted(self.together)
            if not any(name in other or other in name for other in present)
        }

    def absent(self, *, present: bool, tries: int = 8) -> Expression | None:
        """An expression that nothing meets, not even perhaps; worded as those about what is there.

        Args:
            present: about a class that is there, with an attribute that none of its things has.
            tries: proposals to try.
        """
        weights = {} if present else self.absent_classes()
        names = list(self.view.classes) if present else list(weights)
        seen = [thing.colour.word for thing in self.view.things if thing.colour.word is not None]
        for attempt in range(tries if names else 0):
            words = seen if seen and attempt < tries // 2 else WORDS
            name = choose(self.rng, names) if present else names[weighted_order(self.rng, [weights[one] for one in names])[0]]
            chance = self.rng.random() * (0.7 if present else 1.0)
            conditions: tuple[Condition, ...] = ()
            if chance < 0.35:
                conditions = (Condition("colour", choose(self.rng, words)),)
            elif chance < 0.6:
                conditions = (Condition("cell", choose(self.rng, CELLS)),)
            elif chance < 0.7:
                conditions = (Condition("colour", choose(self.rng, words)), Condition("cell", choose(self.rng, CELLS)))
            expression = Expression(name, conditions)
            if self.view.select(expression) == (0, 0):
                return expression
        return None


def _same_axis(cell: str, ranking: Condition) -> bool:
    """Whether an edge is sought along an axis that the cell speaks of already: nobody says "the bottommost ship at the top"."""
    rows, columns = {"topmost", "bottommost"}, {"leftmost", "rightmost"}
    return (ranking.word in rows and ("top" in cell or "bottom" in cell)) or (ranking.word in columns and ("left" in cell or "right" in cell))
