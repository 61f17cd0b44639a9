"""Questions with an answer in words: yes or no, how many, which colour, and captions."""

from __future__ import annotations

import numpy as np

from geopix.data.scenes.expressions import CELLS, Expression, Thing, View
from geopix.data.scenes.phrases import CELL_WORDS, article, ask, choose, describe, listing, number, plural
from geopix.data.scenes.references import colours_of, draw_absent, draw_expression, draw_group, frequency, missing_class, weighted_order
from geopix.types import Turn

_EXPECTED = 0.6
"""Share of the comparisons left out that come out as one would bet without looking."""
_MANY = 12
_BUSY, _QUIET = 15, 3
_CAPTION_CLASSES = 5


def presence(view: View, rng: np.random.Generator, used: set[object]) -> Turn | None:
    """A question whether something is there. Its form and its answer are drawn first, so that neither the wording nor the class gives the answer away."""
    for _ in range(3):
        coloured, placed = _FORMS[int(rng.random() * len(_FORMS))]
        wanted = bool(view.targets) and rng.random() < 0.5
        for _ in range(8):
            name = _present(view, rng) if wanted or ((coloured or placed) and rng.random() < 0.8 and view.targets) else missing_class(view, rng)
            expression = _formed(view, name, rng, coloured, placed, wanted) if name else None
            found = view.select(expression) if expression else None
            if expression is None or found is None or bool(found) != wanted or expression in used or not all(view.things[index].target for index in found):
                continue
            used.add(expression)
            return Turn(ask(rng, "vqa/presence", article(describe(expression, rng))), "yes" if wanted else "no")
    return None


_FORMS = ((False, False),) * 5 + ((True, False),) * 2 + ((False, True),) * 2 + ((True, True),)


def _present(view: View, rng: np.random.Generator) -> str:
    names = list(dict.fromkeys(thing.name for thing in view.targets))
    return names[weighted_order(rng, [1 - frequency(name) for name in names])[0]]


def _formed(view: View, name: str, rng: np.random.Generator, coloured: bool, placed: bool, wanted: bool) -> Expression | None:
    """An expression of a form about a class: with the attributes of one of its things when the answer is to be yes, with any of its kind otherwise."""
    thing = choose(rng, view.pool(name) or [None]) if wanted else None
    colours = ((thing.colour,) if thing.colour else ()) if thing else colours_of(name)
    cells = [cell for bit, cell in enumerate(CELLS) if thing.inside >> bit & 1] if thing else list(CELLS)
    if (coloured and not colours) or (placed and not cells):
        return None
    how, word = ("cell", choose(rng, cells)) if placed else ("plain", "")
    return Expression(name, choose(rng, colours) if coloured else None, how, word)


def count(view: View, rng: np.random.Generator, used: set[object]) -> Turn | None:
    """A question how many there are; of what is counted nothing is half hidden."""
    for _ in range(6):
        expression: Expression | None
        if rng.random() < 0.1 or not view.targets:
            expression = draw_absent(view, rng, present=rng.random() < 0.5, tries=2)
            found: tuple[int, ...] = ()
        else:
            group = draw_group(view, rng, least=1 if rng.random() < 0.4 else 2, tries=1)
            found, expression = group or ((), None)
        if expression is None or expression.how not in ("plain", "cell") or expression in used:
            continue
        used.add(expression)
        return Turn(ask(rng, "vqa/count", describe(expression, rng, many=True)), str(len(found)))
    return None


def compare(view: View, rng: np.random.Generator, used: set[object]) -> Turn | None:
    """A question whether there are more of one kind than of another, two classes or two colours of a class; yes or no equally often."""
    yes = rng.random() < 0.5
    for _ in range(8):
        pair = _colour_pair(view, rng) if rng.random() < 0.4 else _class_pair(view, rng)
        if pair is None:
            continue
        more, fewer = pair
        one, two = (more, fewer) if yes else (fewer, more)
        if (one, two) in used:
            continue
        used.add((one, two))
        return Turn(ask(rng, "vqa/more", one, two), "yes" if yes else "no")
    return None


def _class_pair(view: View, rng: np.random.Generator) -> tuple[str, str] | None:
    """Two classes in the plural, the more numerous first."""
    counts = {name: len(pool) for name in view.names if (pool := view.pool(name)) and all(thing.target for thing in pool)}
    if not counts:
        return None
    names = list(counts)
    one, two = choose(rng, names), choose(rng, names)
    if one == two:
        two = missing_class(view, rng)
    if not two or counts[one] == counts.get(two, 0):
        return None
    more, fewer = (one, two) if counts[one] > counts.get(two, 0) else (two, one)
    expected = frequency(more) > frequency(fewer)
    return None if expected and rng.random() < _EXPECTED else (plural(more), plural(fewer))


def _colour_pair(view: View, rng: np.random.Generator) -> tuple[str, str] | None:
    """One class in two colours, the more numerous first."""
    name = choose(rng, view.targets).name if view.targets else ""
    colours = colours_of(name)
    if len(colours) < 2:
        return None
    one, two = Expression(name, choose(rng, colours)), Expression(name, choose(rng, colours))
    ones, twos = view.select(one), view.select(two)
    if ones is None or twos is None or len(ones) == len(twos) or not all(view.things[index].target for index in ones + twos):
        return None
    more, fewer = (one, two) if len(ones) > len(twos) else (two, one)
    return describe(more, many=True), describe(fewer, many=True)


def colour(view: View, rng: np.random.Generator, used: set[object]) -> Turn | None:
    """A question for the colour of one thing, which is described without it."""
    options = [thing for thing in view.targets if thing.colour is not None]
    for _ in range(4 if options else 0):
        thing = choose(rng, options)
        expression = draw_expression(view, thing, rng, used, without=("colour", "colour+cell", "colour+size"))
        if expression is not None and thing.colour is not None:
            used.add(expression)
            return Turn(ask(rng, "vqa/colour", f"the {describe(expression, rng)}"), thing.colour)
    return None


def caption(view: View, rng: np.random.Generator, used: set[object]) -> Turn | None:
    """One sentence: what kind of place, and what is in it."""
    if used:
        return None
    used.add("caption")
    return Turn(ask(rng, "caption/scene"), _sentence(view))


def _sentence(view: View) -> str:
    total = len(view.targets)
    mood = "busy " if total >= _BUSY else "" if total > _QUIET else "quiet " if total else "empty "
    things = _amounts(view)
    return f"{article(mood + view.setting).capitalize()}{' with ' + listing(things) if things else ''}."


def _classes(view: View) -> list[str]:
    """Classes from the most to the least numerous, by name where equal."""
    counts = {name: sum(thing.target for thing in view.pool(name) or ()) for name in view.names}
    return sorted((name for name, amount in counts.items() if amount), key=lambda name: (-counts[name], name))[:_CAPTION_CLASSES]


def _amounts(view: View) -> list[str]:
    """How many of each class; vague where some are hardly seen, or where nobody would count."""
    phrases = []
    for name in _classes(view):
        pool = view.pool(name) or []
        vague = "many" if len(pool) > _MANY else "some" if not all(thing.target for thing in pool) else ""
        phrases.append(f"{vague} {plural(name)}" if vague else article(name) if len(pool) == 1 else number(len(pool), name))
    return phrases


def detailed_caption(view: View, rng: np.random.Generator, used: set[object]) -> Turn | None:
    """Several sentences: the place, what is there, in which colours, where the plainest things are."""
    if used:
        return None
    used.add("caption")
    things = _amounts(view)
    sentences = [f"This is {article(view.setting)}.", f"It shows {listing(things)}." if things else "Nothing stands out."]
    for name in _classes(view)[:2]:
        pool = view.pool(name) or []
        sentences += [said for said in (_colours(name, pool), _whereabouts(view, name, pool)) if said]
    return Turn(ask(rng, "caption/detailed"), " ".join(sentences))


def _colours(name: str, pool: list[Thing]) -> str:
    tally: dict[str, int] = {}
    for thing in pool:
        if thing.colour is None or not thing.target:
            return ""
        tally[thing.colour] = tally.get(thing.colour, 0) + 1
    ranked = sorted(tally, key=lambda word: (-tally[word], word))
    if len(pool) == 1:
        return f"The {name} is {ranked[0]}."
    if len(ranked) == 1:
        return f"All {plural(name)} are {ranked[0]}."
    if len(pool) > _MANY or len(ranked) > 3:
        return f"Most {plural(name)} are {ranked[0]}." if 2 * tally[ranked[0]] > len(pool) else ""
    shares = [f"{tally[word]} {'is' if tally[word] == 1 else 'are'} {word}" for word in ranked]
    return f"Of the {plural(name)}, {listing(shares)}."


def _whereabouts(view: View, name: str, pool: list[Thing]) -> str:
    """Where the only thing of a class is, or else its largest."""
    expression = Expression(name) if len(pool) == 1 else Expression(name, None, "size", "largest")
    found = view.select(expression)
    if not found or len(found) != 1:
        return ""
    thing = view.things[found[0]]
    cells = [bit for bit in range(len(CELLS)) if thing.inside >> bit & 1]
    return f"The {describe(expression)} is {CELL_WORDS[CELLS[min(cells, key=_CORNERS_FIRST.index)]]}." if thing.target and cells else ""


_CORNERS_FIRST = (0, 2, 6, 8, 4, 1, 3, 5, 7)

