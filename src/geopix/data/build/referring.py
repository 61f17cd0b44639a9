"""Dialogues that point: at one thing, at several, at groups, at what is not there, and on from what was just shown."""

from __future__ import annotations

from collections.abc import Iterator

from geopix.data.build.expressions import Condition, Expression
from geopix.data.build.speaker import Said, Speaker
from geopix.data.build.view import indices
from geopix.data.build.words import phrase
from geopix.data.scenes.phrases import article, ask, choose, here, listing, refusal
from geopix.types import Turn

MULTI_SIZES = (2, 2, 2, 3, 3, 4, 5, 6)
ITS = {
    ("direction", "left of"): "to its left", ("direction", "right of"): "to its right", ("direction", "above"): "above it",
    ("direction", "below"): "below it", ("nearest", ""): "nearest to it",
}  # fmt: skip
BACK = ("segment it.", "and where is it?", "show me its mask.", "outline it.")
BACK_MANY = ("segment them.", "and where are they?", "show me their masks.", "outline them all.")
BACK_BOX = ("give its box.", "and its bounding box?", "where is its box?")


def pointing(speaker: Speaker, targets: int, phrasings: int) -> Iterator[Said]:
    """Single, box and multi dialogues: up to ``targets`` things, each described up to ``phrasings`` times by expressions of different types.

    What proves hard to tell apart is tried only once; small things come as readily as large ones.
    """
    view, rng = speaker.view, speaker.rng
    options = indices(view.targets)
    found: dict[int, list[Expression]] = {}
    for place in rng.permutation(len(options)).tolist():
        index = options[place]
        said = speaker.finder.singles(index, phrasings)
        if said:
            found[index] = said
        else:
            speaker.tally["unproved: no expression tells it apart"] += 1
        if len(found) == targets:
            break
    for index, expressions in found.items():
        for number, expression in enumerate(expressions):
            text, proof = speaker.words(expression, 1 << index)
            if number == 1 and speaker.chance(0.6):
                turn = Turn(ask(rng, "refer/box", text), f"It is at {box_text(speaker, index)}.")
                yield Said("refer/box", "box", (turn,), (), (proof,))
            else:
                yield Said("segment/single", "single", (Turn(ask(rng, "segment/single", text), here(text)),), (1 << index,), (proof,))
    yield from _several(speaker, found)


def _several(speaker: Speaker, found: dict[int, list[Expression]]) -> Iterator[Said]:
    """Several of the things in one question."""
    wanted = choose(speaker.rng, MULTI_SIZES)
    chosen = [list(found)[place] for place in speaker.rng.permutation(len(found)).tolist()][:wanted]
    if len(chosen) < 2:
        return
    said = [speaker.words(choose(speaker.rng, found[index]), 1 << index) for index in chosen]
    phrases = [text for text, _ in said]
    turn = Turn(ask(speaker.rng, "segment/many", listing(phrases)), here(*phrases))
    yield Said("segment/multi", "multi", (turn,), tuple(1 << index for index in chosen), tuple(proof for _, proof in said))


def box_text(speaker: Speaker, index: int) -> str:
    """A thing's box in hundredths of the image's width and height, as the answers of refer tasks have it."""
    x1, y1, x2, y2 = speaker.view.things[index].box
    width, height = speaker.view.picture.width, speaker.view.picture.height
    left, top, right, bottom = round(100 * x1 / width), round(100 * y1 / height), round(100 * x2 / width), round(100 * y2 / height)
    return f"{{<{left}><{top}><{max(right, left + 1)}><{max(bottom, top + 1)}>}}"


def grouped(speaker: Speaker, count: int) -> Iterator[Said]:
    """Groups, one union mask each."""
    for expression, things in speaker.finder.groups()[:count]:
        text, proof = speaker.words(expression, things, many=True)
        cluster = expression.says("cluster") is not None  # "the group of three ships" is one
        question = ask(speaker.rng, "segment/single" if cluster else "segment/many", text)
        yield Said("segment/group", "group", (Turn(question, here(text, many=not cluster)),), (things,), (proof,))


def missing(speaker: Speaker, count: int) -> Iterator[Said]:
    """Questions for what is not there: a class that the set shows beside those that are, or one that is there with an attribute that none of its things has."""
    asked = set()
    for _ in range(count):
        present = speaker.chance(0.5)
        expression = speaker.finder.absent(present=present)
        if expression is None or expression in asked:
            continue
        asked.add(expression)
        text, proof = speaker.words(expression, 0)
        rule = "absent attribute" if present else "absent class"
        yield Said("segment/absent", rule, (Turn(ask(speaker.rng, "segment/single", text), refusal(text)),), (), (proof,))


def following(speaker: Speaker) -> Iterator[Said]:
    """Dialogues of several turns, at most one of each kind."""
    for rule in (_onward, _counted, _found):
        said = rule(speaker)
        if said is not None:
            yield said


def _onward(speaker: Speaker) -> Said | None:
    """One thing, then another of its class by where it lies from the first."""
    view, rng = speaker.view, speaker.rng
    options = [index for index in indices(view.targets) if view.classes[view.things[index].name or ""].bit_count() > 1]
    for place in rng.permutation(len(options))[:6].tolist():
        for opening in speaker.finder.singles(options[place], 2):
            for kind, word in sorted(ITS, key=lambda _: rng.random()):
                then = Expression(opening.name, (Condition(kind, word, 0, opening),))
                index = view.one(then)
                if index is None or not view.targets >> index & 1 or not _still(speaker, then, opening, index):
                    continue
                first, proof = speaker.words(opening, 1 << options[place])
                second = f"the one {ITS[kind, word]}"
                turns = (Turn(ask(rng, "segment/single", first), here(first)), Turn(ask(rng, "segment/follow", second), here(second)))
                proofs = (proof, speaker.evidence(then, second, 1 << index, 1))
                return Said("segment/followup", "follow-up: onward", turns, (1 << options[place], 1 << index), proofs)
    return None


def _still(speaker: Speaker, then: Expression, opening: Expression, index: int) -> bool:
    """Whether "one" means the same when it is heard with the first question's attributes ("red ship", not "ship")."""
    filters = tuple(condition for condition in opening.conditions if condition.kind in ("colour", "orientation", "longer", "shorter", "alone"))
    heard = speaker.view.select(Expression(then.name, filters + then.conditions)) if filters else (0, 0)
    return heard in ((0, 0), (1 << index, 1 << index))


def _counted(speaker: Speaker) -> Said | None:
    """How many, then all of them."""
    options = speaker.finder.groups(counted=True)
    if not options:
        return None
    expression, things = options[0]
    text = phrase(expression, speaker.rng, many=True, bare=True)
    proof = speaker.evidence(expression, text, things)
    turns = (
        Turn(ask(speaker.rng, "vqa/count", text), str(things.bit_count())),
        Turn(f"[segment] {choose(speaker.rng, BACK_MANY)}", here(f"the {text}", many=True)),
    )
    return Said("segment/followup", "follow-up: counted", turns, (things,), (proof,))


def _found(speaker: Speaker) -> Said | None:
    """Whether it is there, then its mask, then its box."""
    view, rng = speaker.view, speaker.rng
    options = indices(view.targets)
    for place in rng.permutation(len(options))[:4].tolist():
        index = options[place]
        for expression in speaker.finder.singles(index, 3, without=("size", "edge", "rank", "nearest")):
            text = phrase(expression, rng, bare=True)
            turns = (
                Turn(ask(rng, "vqa/presence", article(text)), "yes"),
                Turn(f"[segment] {choose(rng, BACK)}", here(f"the {text}")),
                Turn(f"[refer] {choose(rng, BACK_BOX)}", f"It is at {box_text(speaker, index)}."),
            )
            return Said("segment/followup", "follow-up: found", turns, (1 << index,), (speaker.evidence(expression, text, 1 << index),))
    return None
