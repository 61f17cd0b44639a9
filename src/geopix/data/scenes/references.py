"""Drawing expressions: those that select one given thing, those that select several, and those that select nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from geopix.data.scenes.catalogue import CLASSES, KINDS
from geopix.data.scenes.expressions import CELLS, EDGES, SIZES, Expression, Thing, View
from geopix.data.scenes.phrases import choose

HOW_WEIGHTS = {"plain": 2.0, "colour": 5.0, "size": 4.5, "cell": 6.0, "edge": 1.5, "colour+cell": 1.5, "colour+size": 1.0, "rank": 0.8, "relation": 3.0}
"""How often each way of telling a thing apart is tried first; the next is tried where the first proves nothing."""

FREQUENCY: dict[str, float] = {
    "baseball diamond": 0.05, "basketball court": 0.15, "bridge": 0.1, "building": 0.45, "ground track field": 0.05, "harbour": 0.12,
    "helicopter": 0.1, "helipad": 0.07, "large vehicle": 0.46, "plane": 0.1, "roundabout": 0.08, "ship": 0.2, "small vehicle": 0.6,
    "soccer field": 0.04, "storage tank": 0.11, "swimming pool": 0.16, "tennis court": 0.15,
}  # fmt: skip
"""Share of the scenes that hold a class, as measured at ``standard``; so that asking for it is answered by yes as often as by no."""

NEEDS_MORE_SHARE = 0.69
"""Share of single references drawn among things that their class alone would not tell apart."""


def frequency(name: str) -> float:
    """Share of the scenes that hold a class."""
    return FREQUENCY.get(name, 0.2)


def missing_class(view: View, rng: np.random.Generator) -> str:
    """A class of which nothing is there, common ones most, as they are missed most; empty when none is missing. "No harbour" is not said of a harbour."""
    weights = [0.0 if name in view.names or name in view.setting else frequency(name) for name in CLASSES]
    return CLASSES[weighted_order(rng, weights)[0]] if any(weights) else ""


def weighted_order(rng: np.random.Generator, weights: Sequence[float]) -> list[int]:
    """A random order in which heavier entries tend to come first (drawn one by one without replacement)."""
    draws = rng.random(len(weights))
    return sorted((index for index, weight in enumerate(weights) if weight > 0), key=lambda index: np.log(draws[index]) / weights[index], reverse=True)


def needs_more(view: View, thing: Thing) -> bool:
    """Whether the class name alone would not tell this thing apart."""
    return len(view.pool(thing.name) or ()) > 1


def draw_single(view: View, rng: np.random.Generator, taken: set[object], *, tries: int = 8) -> tuple[Thing, Expression] | None:
    """A thing, small ones as readily as large, with an expression that selects it alone; None when chance found none.

    Args:
        view: the scene.
        rng: source of chance.
        taken: expressions that were used already.
        tries: things to try.
    """
    crowd = [thing for thing in view.targets if needs_more(view, thing)]
    alone = [thing for thing in view.targets if not needs_more(view, thing)]
    options = (crowd if rng.random() < NEEDS_MORE_SHARE else alone) or crowd or alone
    bounds = np.cumsum([_surprise(view, thing) for thing in options])
    for _ in range(tries if options else 0):
        thing = options[int(np.searchsorted(bounds, rng.random() * bounds[-1]))]
        expression = draw_expression(view, thing, rng, taken)
        if expression is not None:
            return thing, expression
    return None


def _surprise(view: View, thing: Thing) -> float:
    """Weight of a thing as a target: how little of its class it makes up, so that drawing the whole class is seldom nearly right."""
    total = sum(other.area for other in view.pool(thing.name) or ())
    return (1.0 - 0.95 * thing.area / total) ** 3 if total else 1.0


def draw_expression(view: View, thing: Thing, rng: np.random.Generator, taken: set[object], *, without: Sequence[str] = ()) -> Expression | None:
    """An expression proven to select ``thing`` and nothing else; None when there is none among those tried.

    Args:
        view: the scene.
        thing: what to select.
        rng: source of chance.
        taken: expressions not to use again.
        without: ways not to use, of those in ``HOW_WEIGHTS``.
    """
    hows = list(HOW_WEIGHTS)
    weights = [0.0 if how in without else HOW_WEIGHTS[how] for how in hows]
    if not needs_more(view, thing):
        weights[0] *= 25  # nothing more is needed
    for place in weighted_order(rng, weights):
        for expression in _proposals(view, thing, hows[place], rng):
            if expression not in taken and view.selects(expression, thing.index):
                return expression
    return None


def _proposals(view: View, thing: Thing, how: str, rng: np.random.Generator) -> Iterator[Expression]:
    """Expressions of one kind that this thing meets; whether others meet them too is not asked here."""
    name, colour = thing.name, None
    if how.startswith("colour"):
        if thing.colour is None or view.pool(name, thing.colour) is None:
            return
        colour = thing.colour
        if how == "colour":
            yield Expression(name, colour)
            return
        how = how.removeprefix("colour+")
    if how == "plain":
        yield Expression(name)
    elif how == "cell":
        cells = [bit for bit in range(9) if thing.inside >> bit & 1]
        for place in weighted_order(rng, [1.0] * len(cells)):
            yield Expression(name, colour, "cell", CELLS[cells[place]])
    elif how == "size":
        yield from (Expression(name, colour, "size", word) for word in _extremes(view, thing, colour, "area", rng))
    elif how == "edge":
        for by in ("x", "y") if rng.random() < 0.5 else ("y", "x"):
            yield from (Expression(name, colour, "edge", word) for word in _extremes(view, thing, colour, by, rng))
    elif how == "rank":
        yield from _ranks(view, thing, rng)
    elif how == "relation":
        yield from _relations(view, thing, rng)


def _extremes(view: View, thing: Thing, colour: str | None, by: str, rng: np.random.Generator) -> list[str]:
    order = view.order(thing.name, colour, by)
    if len(order) < 2:
        return []
    if by == "area":
        adjective = rng.random() < 0.35 and not thing.name.startswith(("small", "large"))  # no "large small vehicle"
        low, high = ("small", "large") if adjective else ("smallest", "largest")
    else:
        low, high = (EDGES[0], EDGES[1]) if by == "x" else (EDGES[2], EDGES[3])
    return [low] if order[0] is thing else [high] if order[-1] is thing else []


def _ranks(view: View, thing: Thing, rng: np.random.Generator) -> Iterator[Expression]:
    bys = ("area", "x", "y")
    for which in weighted_order(rng, (2.0, 1.0, 1.0)):
        order = view.order(thing.name, None, bys[which])
        place = order.index(thing)
        low, high = (("smallest", "largest"), ("from the left", "from the right"), ("from the top", "from the bottom"))[which]
        for rank, word in ((place, low), (len(order) - 1 - place, high)):
            if rank in (1, 2) and len(order) >= rank + 2:
                yield Expression(thing.name, None, "rank", f"{('second', 'third')[rank - 1]} {word}")


def _relations(view: View, thing: Thing, rng: np.random.Generator, tries: int = 6) -> Iterator[Expression]:
    if len(view.targets) < 2:
        return
    for _ in range(tries):
        other = choose(rng, view.targets)
        if other.name == thing.name:
            continue
        anchor = Expression(other.name)
        if not view.selects(anchor, other.index):
            anchor = Expression(other.name, other.colour)
            if other.colour is None or not view.selects(anchor, other.index):
                continue
        dx, dy = thing.x - other.x, thing.y - other.y
        aside = ("right of" if dx > 0 else "left of") if abs(dx) > abs(dy) else ("below" if dy > 0 else "above")
        words = (aside, "nearest to", "next to")
        for place in weighted_order(rng, (2.0, 1.0, 1.0)):
            yield Expression(thing.name, None, "relation", words[place], anchor)


def draw_group(view: View, rng: np.random.Generator, *, least: int = 2, tries: int = 6) -> tuple[tuple[int, ...], Expression] | None:
    """At least ``least`` things that an expression selects together: a class, those of a colour, those in a part of the image. None holds a distractor."""
    for _ in range(tries if view.targets else 0):
        thing = choose(rng, view.targets)
        if len(view.pool(thing.name) or ()) < least:
            continue
        cells = [bit for bit in range(9) if thing.inside >> bit & 1]
        coloured = thing.colour is not None and rng.random() < 0.5
        placed = bool(cells) and rng.random() < 0.4
        how, word = ("cell", CELLS[choose(rng, cells)]) if placed else ("plain", "")
        expression = Expression(thing.name, thing.colour if coloured else None, how, word)
        found = view.select(expression)
        if found is not None and len(found) >= least and all(view.things[index].target for index in found):
            return found, expression
    return None


def draw_absent(view: View, rng: np.random.Generator, *, present: bool, tries: int = 8) -> Expression | None:
    """An expression that clearly selects nothing: a class that is not there, or one that is with a colour or a place that none of its things has."""
    options = [name for name in view.names if any(thing.target for thing in view.pool(name) or ())]
    for _ in range(tries):
        if present and options:
            expression = _false_attribute(view, choose(rng, options), rng)
        elif present:
            return None
        else:
            name = missing_class(view, rng)
            expression = any_expression(name, rng) if name else None
        if expression is not None and view.select(expression) == ():
            return expression
    return None


def _false_attribute(view: View, name: str, rng: np.random.Generator) -> Expression | None:
    chance = rng.random()
    colours = colours_of(name)
    if chance < 0.5:
        return Expression(name, choose(rng, colours)) if colours else None
    if chance < 0.8:
        return Expression(name, None, "cell", choose(rng, CELLS))
    colour = choose(rng, view.pool(name) or ()).colour
    return Expression(name, colour, "cell", choose(rng, CELLS)) if colour else None


def colours_of(name: str) -> tuple[str, ...]:
    """Colours that may be asked of a class: those it comes in, so that no wording gives away what cannot be."""
    return KINDS[name].colours if name in KINDS else ()


def any_expression(name: str, rng: np.random.Generator) -> Expression:
    """An expression about a class, worded as often with colour, place or size as those about things that are there."""
    chance = rng.random()
    colours = colours_of(name)
    colour = choose(rng, colours) if colours and 0.3 <= chance < 0.65 else None
    if 0.55 <= chance < 0.8:
        return Expression(name, colour, "cell", choose(rng, CELLS))
    if chance >= 0.8:
        return Expression(name, None, "size", SIZES[int(rng.random() * 2)]) if rng.random() < 0.6 else Expression(name, None, "edge", choose(rng, EDGES))
    return Expression(name, colour)
