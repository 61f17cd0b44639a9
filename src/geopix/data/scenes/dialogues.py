"""What is said about a scene: questions and answers drawn by rules that prove what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from geopix.data.scenes import questions
from geopix.data.scenes.expressions import Expression, Thing, View
from geopix.data.scenes.phrases import ask, choose, describe, here, listing, refusal
from geopix.data.scenes.records import Scene
from geopix.data.scenes.references import draw_absent, draw_expression, draw_group, draw_single, needs_more
from geopix.types import Turn

FAMILIES = ("segment", "refer", "caption", "vqa")

_SHARES: dict[str, float] = {
    "segment/single": 0.45, "segment/multi": 0.2, "segment/group": 0.12, "segment/absent": 0.15, "segment/followup": 0.08, "refer/box": 1.0,
    "caption/scene": 0.5, "caption/detailed": 0.5, "vqa/presence": 0.35, "vqa/count": 0.25, "vqa/compare": 0.2, "vqa/colour": 0.2,
}  # fmt: skip
KINDS: tuple[str, ...] = tuple(_SHARES)
"""All tasks, as ``family/kind``."""

_Speaker = Callable[[View, np.random.Generator, set[object]], "Spoken | None"]
_MULTI_SIZES = (2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6)
_FAILURES = 2


@dataclass(frozen=True)
class Spoken:
    """A dialogue about a scene.

    Args:
        turns: questions and answers.
        targets: for each ``[SEG]`` in order, the indices of the instances whose union is the mask.
        classes: the class of each target.
        task: ``family/kind``.
        needs_more: the class name alone would not tell the target apart; of single references only.
    """

    turns: tuple[Turn, ...]
    targets: tuple[tuple[int, ...], ...]
    classes: tuple[str | None, ...]
    task: str
    needs_more: bool = False


def talk(scene: Scene, rng: np.random.Generator, mix: Mapping[str, float], count: int) -> list[Spoken]:
    """Draw dialogues about a scene.

    Args:
        scene: what to talk about.
        rng: source of chance; the same state gives the same dialogues.
        mix: weights by family ("segment": 4), shared out among its kinds; a weight for a kind ("segment/multi": 1) stands for itself.
        count: how many at most. A kind that the scene does not allow gives way to the others of the mix; no question is asked twice.

    Raises:
        ValueError: for an unknown family or kind, a negative weight, or no positive weight at all.
    """
    weights = kind_weights(mix)
    view = View(scene)
    used: defaultdict[str, set[object]] = defaultdict(set)
    failures: defaultdict[str, int] = defaultdict(int)
    asked: set[str] = set()
    spoken: list[Spoken] = []
    while weights and len(spoken) < count:
        task = _draw_kind(weights, rng)
        said = _SPEAKERS[task](view, rng, used[task])
        if said is not None and said.turns[0].prompt not in asked:
            asked.add(said.turns[0].prompt)
            spoken.append(said)
            continue
        failures[task] += 1
        if failures[task] >= _FAILURES:
            del weights[task]
    return spoken


def kind_weights(mix: Mapping[str, float]) -> dict[str, float]:
    """The positive weight of each kind in a mix; see :func:`talk`.

    >>> kind_weights({"refer": 1.0, "caption": 2.0, "caption/scene": 3.0})
    {'refer/box': 1.0, 'caption/scene': 3.0, 'caption/detailed': 2.0}
    """
    for key, weight in mix.items():
        if key not in FAMILIES and key not in KINDS:
            raise ValueError(f"unknown task {key!r} in the mix; known families: {', '.join(FAMILIES)}; known kinds: {', '.join(KINDS)}.")
        if not weight >= 0:
            raise ValueError(f"the weight of {key!r} in the mix is {weight}; give a number of at least 0.")
    weights: dict[str, float] = {}
    for kind, share in _SHARES.items():
        family = kind.split("/")[0]
        shared = sum(other for name, other in _SHARES.items() if name.startswith(f"{family}/") and name not in mix)
        weights[kind] = float(mix[kind]) if kind in mix else mix.get(family, 0) * share / shared
    weights = {kind: weight for kind, weight in weights.items() if weight > 0}
    if not weights:
        raise ValueError(f"the mix {dict(mix)} gives no task a positive weight; known families: {', '.join(FAMILIES)}.")
    return weights


def _draw_kind(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    point = rng.random() * sum(weights.values())
    for kind, weight in weights.items():
        point -= weight
        if point < 0:
            return kind
    return kind


def _single(view: View, rng: np.random.Generator, used: set[object]) -> Spoken | None:
    drawn = draw_single(view, rng, used)
    if drawn is None:
        return None
    thing, expression = drawn
    used.add(expression)
    words = f"the {describe(expression, rng)}"
    turn = Turn(ask(rng, "segment/single", words), here(words))
    return Spoken((turn,), ((thing.index,),), (thing.name,), "segment/single", needs_more(view, thing))


def _box(view: View, rng: np.random.Generator, used: set[object]) -> Spoken | None:
    drawn = draw_single(view, rng, used)
    if drawn is None:
        return None
    thing, expression = drawn
    used.add(expression)
    x1, y1, x2, y2 = (round(100 * side) for side in thing.box)
    answer = f"It is at {{<{x1}><{y1}><{max(x2, x1 + 1)}><{max(y2, y1 + 1)}>}}."
    return Spoken((Turn(ask(rng, "refer/box", f"the {describe(expression, rng)}"), answer),), (), (), "refer/box", needs_more(view, thing))


def _multi(view: View, rng: np.random.Generator, used: set[object]) -> Spoken | None:
    wanted = choose(rng, _MULTI_SIZES)
    taken: set[object] = set()
    found: dict[int, Expression] = {}
    for _ in range(wanted + 3):
        drawn = draw_single(view, rng, taken, tries=3)
        if drawn is not None and drawn[0].index not in found:
            found[drawn[0].index] = drawn[1]
            taken.add(drawn[1])
        if len(found) == wanted:
            break
    key = frozenset(found.values())
    if len(found) < 2 or key in used:
        return None
    used.add(key)
    phrases = [f"the {describe(expression, rng)}" for expression in found.values()]
    turn = Turn(ask(rng, "segment/many", listing(phrases)), here(*phrases))
    return Spoken((turn,), tuple((index,) for index in found), tuple(expression.name for expression in found.values()), "segment/multi")


def _group(view: View, rng: np.random.Generator, used: set[object]) -> Spoken | None:
    drawn = draw_group(view, rng)
    if drawn is None or drawn[1] in used:
        return None
    found, expression = drawn
    used.add(expression)
    words = f"{choose(rng, ('all the', 'all', 'the'))} {describe(expression, rng, many=True)}"
    return Spoken((Turn(ask(rng, "segment/many", words), here(words, many=True)),), (found,), (expression.name,), "segment/group")


def _absent(view: View, rng: np.random.Generator, used: set[object]) -> Spoken | None:
    expression = draw_absent(view, rng, present=rng.random() < 0.5)
    if expression is None or expression in used:
        return None
    used.add(expression)
    many = expression.how in ("plain", "cell") and rng.random() < 0.2
    words = f"{choose(rng, ('all the', 'all', 'the')) if many else 'the'} {describe(expression, rng, many=many)}"
    turn = Turn(ask(rng, "segment/many" if many else "segment/single", words), refusal(words, many=many))
    return Spoken((turn,), (), (), "segment/absent")


def _followup(view: View, rng: np.random.Generator, used: set[object]) -> Spoken | None:
    drawn = draw_single(view, rng, used)
    if drawn is None:
        return None
    first, expression = drawn
    then = _next(view, rng, first, expression)
    if then is None:
        return None
    used.add(expression)
    second, words = then
    opening = f"the {describe(expression, rng)}"
    turns = (
        Turn(ask(rng, "segment/single", opening), here(opening)),
        Turn(ask(rng, "segment/follow", words), here(words)),
    )
    return Spoken(turns, ((first.index,), (second.index,)), (first.name, second.name), "segment/followup")


_ITS = {"left of": "to its left", "right of": "to its right", "above": "above it", "below": "below it", "nearest to": "nearest to it"}


def _next(view: View, rng: np.random.Generator, first: Thing, asked: Expression) -> tuple[Thing, str] | None:
    """What a second turn asks for: another of the class by its place from the first, or by a word of its own; else something else."""
    others = [thing for thing in view.targets if thing.name == first.name and thing is not first]
    chance = rng.random()
    if others and chance < 0.4:
        for word in sorted(_ITS, key=lambda _: rng.random()):
            expression = Expression(first.name, None, "relation", word, asked)
            found = view.select(expression)
            if found and len(found) == 1 and view.things[found[0]].target and _still(view, expression, asked, found[0]):
                return view.things[found[0]], f"the one {_ITS[word]}"
    if others and chance < 0.75:
        thing = choose(rng, others)
        own = draw_expression(view, thing, rng, set(), without=("plain", "relation"))
        if own is not None and own.how != "relation" and _still(view, own, asked, thing.index):
            return thing, f"the {describe(own, rng, one=True)}"
    drawn = draw_single(view, rng, {asked})
    return (drawn[0], f"the {describe(drawn[1], rng)}") if drawn is not None and drawn[0] is not first else None


def _still(view: View, expression: Expression, asked: Expression, index: int) -> bool:
    """Whether "one" means the same when it is heard as "red ship", the first question's words, and not as "ship"."""
    if asked.colour is None or expression.colour is not None:
        return True
    narrower = Expression(expression.name, asked.colour, expression.how, expression.word, expression.anchor)
    return view.select(narrower) in ((), (index,))


def _worded(task: str, speaker: Callable[[View, np.random.Generator, set[object]], Turn | None]) -> _Speaker:
    def speak(view: View, rng: np.random.Generator, used: set[object]) -> Spoken | None:
        turn = speaker(view, rng, used)
        return None if turn is None else Spoken((turn,), (), (), task)

    return speak


_SPEAKERS: dict[str, _Speaker] = {
    "segment/single": _single,
    "segment/multi": _multi,
    "segment/group": _group,
    "segment/absent": _absent,
    "segment/followup": _followup,
    "refer/box": _box,
    "caption/scene": _worded("caption/scene", questions.caption),
    "caption/detailed": _worded("caption/detailed", questions.detailed_caption),
    "vqa/presence": _worded("vqa/presence", questions.presence),
    "vqa/count": _worded("vqa/count", questions.count),
    "vqa/compare": _worded("vqa/compare", questions.compare),
    "vqa/colour": _worded("vqa/colour", questions.colour),
}
